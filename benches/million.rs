//! How long a core works at once while a million keys are put, deleted by one request and replayed.
//!
//! `cargo bench --bench million` prints the longest turn before and after the restart; with `-- --gate` it
//! fails above [`TURN_US_MAX`], which is meant for a machine with nothing else to do. With `--test` it
//! runs small.

#![allow(
    clippy::disallowed_methods,
    reason = "real clocks, sockets and processes are what this bench is about"
)]

#[path = "../tests/million/scenario.rs"]
mod scenario;

use std::path::Path;
use std::process::ExitCode;

/// No turn may take longer, restart included, in microseconds.
const TURN_US_MAX: u64 = 5_000;
const VALUE_BYTES: usize = 256;

fn main() -> ExitCode {
    let given = |name: &str| std::env::args().any(|argument| argument == name);
    let keys = if given("--test") { 20_000 } else { 1_000_000 };
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory below target");
    let program = Path::new(env!("CARGO_BIN_EXE_kontiki"));
    let outcome = scenario::run(program, home.path(), keys, VALUE_BYTES);
    assert_eq!((outcome.deleted, outcome.left), (keys as i64, [0, 0]));
    for (what, took) in outcome.took {
        println!("{what:<40} {:>10} ms", took.as_millis());
    }
    for (when, turn) in ["put and delete", "restart"]
        .iter()
        .zip(outcome.longest_turn_us)
    {
        println!("{:<40} {turn:>10} us", format!("longest turn, {when}"));
    }
    for line in &outcome.cores {
        println!("{line}");
    }
    let longest = outcome.longest_turn_us.into_iter().max().unwrap_or(0);
    if given("--gate") && longest > TURN_US_MAX {
        eprintln!("a turn of {longest} us is longer than {TURN_US_MAX} us");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
