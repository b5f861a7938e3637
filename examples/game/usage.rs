//! The command line's errors, in one sentence each.

use std::process;

use clap::Parser;

/// What a process ends with when its command line makes no sense.
const USAGE: i32 = 2;

/// Reads the command line. Ends the process when that makes no sense, or asks for help.
pub fn parse_command_line<T: Parser>() -> T {
    T::try_parse().unwrap_or_else(|problem| {
        if !problem.use_stderr() {
            problem.exit(); // `--help`
        }
        let text = problem.to_string();
        // clap says what is wrong in the first paragraph, and repeats the usage in others.
        let sentence: Vec<&str> = text
            .lines()
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect();
        eprintln!("{} (see `--help`)", sentence.join(" "));
        process::exit(USAGE)
    })
}
