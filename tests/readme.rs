//! The README shows what is in the tree.

#[test]
fn the_readme_shows_the_minimal_example_as_it_is() {
    let readme = include_str!("../README.md");
    let example = include_str!("../examples/minimal.rs");
    let (_, code) = example
        .split_once("\n\n")
        .expect("the example begins with its docs");
    assert!(
        readme.contains(code),
        "copy examples/minimal.rs (without its first lines) into README.md"
    );
    assert!(
        example.lines().count() <= 60,
        "the minimal example is to stay minimal"
    );
}
