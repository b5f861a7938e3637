//! Two processes on one file, beside one.

use std::{
    env::{args, current_exe},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{Scale, figures::quantile, ours::Ours, row};

/// What a child process is told: `--child`, the file, its first player, how many it has, and for how long.
const CHILD: &str = "--child";

pub fn is_child() -> bool {
    args().any(|argument| argument == CHILD)
}

/// Saves the players in a closed loop, and prints how many saves a second, and how long all but the slowest hundredth
/// took at most.
pub fn run_child() {
    let given: Vec<String> = args().skip_while(|argument| argument != CHILD).skip(1).collect();
    let [path, first, players, seconds] = &given[..] else {
        panic!("what a child is told: file, first player, players, seconds");
    };
    let number = |text: &str| text.parse::<f64>().expect("a number");
    let (first, players) = (number(first) as usize, number(players) as usize);
    let mut ours = Ours::with_players(
        Path::new(path),
        &format!("server-{first}"),
        first..first + players,
        1024,
    );
    let began = Instant::now();
    let waits = ours.save_in_a_closed_loop(usize::MAX, Duration::from_secs_f64(number(seconds)));
    let per_second = waits.len() as f64 / began.elapsed().as_secs_f64();
    let slow = quantile(&waits, 0.99).unwrap_or(Duration::ZERO);
    println!("{per_second} {}", slow.as_secs_f64() * 1e3);
    ours.exit();
}

pub fn rows(scale: &Scale) {
    let half = scale.players / 2;
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("players.db");
    let run = |firsts: &[usize], players: usize| -> Vec<(f64, f64)> {
        let children: Vec<Child> = firsts
            .iter()
            .map(|first| start(&path, *first, players, scale.seconds))
            .collect();
        children.into_iter().map(result).collect()
    };
    let one = run(&[0], scale.players)[0];
    let two = run(&[0, half], half);
    let (least, most) = (two[0].0.min(two[1].0), two[0].0.max(two[1].0));
    let players = format!("{half} players each");
    row(
        &format!("two processes on one file, {players}: saves a second, beside one process of all"),
        least + most,
        one.0,
        0,
        "0.9",
    );
    row(
        "the same: the slower's saves, beside the faster's",
        least,
        most,
        0,
        "0.8",
    );
    let slow = two[0].1.max(two[1].1);
    println!(
        "| the same: p99 of a save, ms | {slow:.1} | {:.1} | – | 50 ms |",
        one.1
    );
}

fn start(path: &Path, first: usize, players: usize, seconds: f64) -> Child {
    Command::new(current_exe().expect("this program's path"))
        .arg(CHILD)
        .arg(path)
        .args([first.to_string(), players.to_string(), seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs")
}

fn result(child: Child) -> (f64, f64) {
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "a process failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(|word| word.parse::<f64>());
    let mut next = || numbers.next().and_then(Result::ok).expect("two numbers");
    (next(), next())
}
