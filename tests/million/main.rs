//! One request deletes a million keys of the real binary.

#![allow(
    clippy::disallowed_methods,
    reason = "real clocks, sockets and processes are what this test is about"
)]

mod scenario;

use std::io::Write;
use std::path::Path;

const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 64;
/// One commit with the entry, and the seals before and after it: a page each.
const LOG_BYTES_MAX: u64 = 4 * 4_096;

/// Goal: a million keys are deleted by one request as one revision and one small entry, and stay deleted.
#[test]
fn a_million_keys() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory below target");
    let program = Path::new(env!("CARGO_BIN_EXE_kontiki"));
    let outcome = scenario::run(program, home.path(), KEYS, VALUE_BYTES);
    // Says something even when the test passes. A closed stderr is no reason to fail.
    let _ = writeln!(
        std::io::stderr(),
        "{:?}, longest turns {:?} us\n{}",
        outcome.took,
        outcome.longest_turn_us,
        outcome.cores.join("\n")
    );
    assert_eq!(outcome.deleted, KEYS as i64);
    assert_eq!(outcome.revisions, 1);
    assert_eq!(outcome.entries, 1);
    assert!(
        outcome.log_bytes <= LOG_BYTES_MAX,
        "{} bytes of log",
        outcome.log_bytes
    );
    assert_eq!(outcome.left, [0, 0]);
    assert!(outcome.revision_kept);
}
