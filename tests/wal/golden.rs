//! The bytes of a segment are frozen: a file of format version 1 must read the same for ever.
//!
//! `KONTIKI_GOLDEN=write cargo test --test wal golden` writes the file anew, after a change of the
//! format that raises its version.

use std::fmt::Write as _;

use kontiki::base::{Index, MemberId, Term};
use kontiki::wal::{HardState, Outcome};

use crate::disk::{Disk, recover};

const PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/wal/golden/segment-v1.txt"
);
const SIZE: usize = 32 * 1024;

/// One of everything: entries of two terms, a vote, a truncation, a checkpoint mark, a seal.
fn log() -> Disk {
    let mut disk = Disk::new(SIZE as u64);
    disk.appender.set_hard_state(HardState {
        term: Term(1),
        vote: Some(MemberId(0x3e)),
        commit: Index(0),
    });
    disk.commit(1, &[5, 0, 40]);
    disk.appender.set_hard_state(HardState {
        commit: Index(1),
        ..disk.appender.hard_state()
    });
    disk.appender
        .stage_truncate(Term(2), Index(2))
        .expect("staged");
    disk.commit(2, &[3]);
    disk.appender
        .stage_checkpoint(Term(1), Index(1))
        .expect("staged");
    disk.flush();
    disk.seal();
    disk
}

/// Rows of sixteen bytes that are not all zero, each with its offset.
fn rows(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, row) in bytes
        .chunks(16)
        .enumerate()
        .filter(|(_, row)| row.iter().any(|byte| *byte != 0))
    {
        write!(text, "{:06x}", at * 16).expect("a string takes everything");
        for byte in row {
            write!(text, " {byte:02x}").expect("a string takes everything");
        }
        text.push('\n');
    }
    text
}

fn from_rows(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    for line in text.lines() {
        let mut words = line.split(' ');
        let offset =
            usize::from_str_radix(words.next().expect("an offset"), 16).expect("hexadecimal");
        for (at, word) in words.enumerate() {
            bytes[offset + at] = u8::from_str_radix(word, 16).expect("hexadecimal");
        }
    }
    bytes
}

/// Goal: this program writes the bytes that were written before, and reads them.
#[test]
fn golden_segment() {
    let disk = log();
    let written = rows(&disk.files[&1]);
    if std::env::var_os("KONTIKI_GOLDEN").is_some() {
        std::fs::write(PATH, &written).expect("the golden file is writable");
    }
    let golden = std::fs::read_to_string(PATH).expect("the golden file is there");
    assert_eq!(written, golden);
    let files = [(1, from_rows(&golden))].into();
    let found = recover(disk.geometry, &files, 0).expect("accepted");
    assert_eq!(
        (found.outcome(), found.entries.as_slice()),
        (Outcome::Clean, disk.entries.as_slice())
    );
    assert_eq!(found.recovered.hard_state, disk.appender.hard_state());
    assert_eq!(found.entries.len(), 3);
}
