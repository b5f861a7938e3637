//! What the fuzz targets share.
//!
//! A target takes bytes as somebody hostile could send or store them, gives them to the real code, and panics when a
//! promise is broken; libFuzzer does the rest. `run.sh` beside this crate builds and runs them all on stable Rust. This
//! library owns what is the same for each: the [control](is_control), the [seeds](start), the limit on allocations, and
//! the form in which several messages are one input ([`Chunks`]).

use std::{
    alloc::{GlobalAlloc, Layout, System},
    env,
    ffi::OsString,
    fs,
    path::Path,
    process,
    sync::OnceLock,
};

pub mod game;

/// The most that one allocation may take, in bytes. No input is longer than 8 KiB, so whoever asks for more believes a
/// length before the bytes are there. (The wire format allows values of 64 MiB, and says so.)
const ALLOCATION_LIMIT: usize = 64 * 1024 * 1024;

/// Longer inputs are not committed, in bytes.
const LONGEST_SEED: usize = 4096;

/// Ends the process when more is asked for at once than the limit allows.
struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

// SAFETY: every call is passed on to `System` as it is, or the process ends.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        refuse_above_limit(layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        refuse_above_limit(layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        refuse_above_limit(size);
        // SAFETY: the caller's promise is the same.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(place, layout) }
    }
}

fn refuse_above_limit(size: usize) {
    if size > ALLOCATION_LIMIT {
        eprintln!("an allocation of {size} bytes for a small input: a length was believed");
        process::abort();
    }
}

/// Whether this run is the control of `target`: with one mechanism taken out, for which the target has to be found out.
pub fn is_control(target: &str) -> bool {
    static CONTROL: OnceLock<Option<OsString>> = OnceLock::new();
    let control = CONTROL.get_or_init(|| env::var_os("FUZZ_CONTROL"));
    control.as_ref().is_some_and(|control| control == target)
}

/// To be called once, before the first input. With `FUZZ_SEEDS` set to a folder, writes a target's first inputs there
/// and exits.
///
/// # Panics
/// When they can't be written.
pub fn start(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = env::var_os("FUZZ_SEEDS") else {
        return;
    };
    fs::create_dir_all(&folder).expect("the folder for seeds can be made");
    let seeds = seeds().into_iter().filter(|seed| seed.len() <= LONGEST_SEED);
    for (number, seed) in seeds.enumerate() {
        let path = Path::new(&folder).join(format!("seed-{number:02}"));
        fs::write(path, seed).expect("a seed can be written");
    }
    process::exit(0);
}

/// Several messages in one input: each is its kind in a byte, its length in two (big-endian), and its bytes. The last
/// one may be shorter than it says.
pub struct Chunks<'a>(pub &'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, high, low], rest) = self.0.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (chunk, rest) = rest.split_at(length.min(rest.len()));
        self.0 = rest;
        Some((kind, chunk))
    }
}

/// The input with these messages.
pub fn chunks<'a>(messages: impl IntoIterator<Item = (u8, &'a [u8])>) -> Vec<u8> {
    let mut input = Vec::new();
    for (kind, message) in messages {
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        input.push(kind);
        input.extend(length.to_be_bytes());
        input.extend(&message[..length.into()]);
    }
    input
}
