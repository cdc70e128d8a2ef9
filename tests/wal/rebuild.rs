//! A log that was damaged where it had been durable: what is known of it, what is cut, and that it goes on behind
//! the cut.

use std::collections::BTreeMap;

use kontiki::base::{HardState, Index, MemberId, Term};
use kontiki::wal::{CommitStep, Cut, Geometry, Outcome, PreparedSegment};

use crate::disk::{Disk, Found, Value, recover, resume};

const PAGE: usize = 4_096;
const VOTED: HardState = HardState {
    term: Term(9),
    vote: Some(MemberId(3)),
    commit: Index(0),
};

/// Several segments; near the end the member voted in another term.
fn log() -> Disk {
    let mut disk = Disk::new(32 * 1024);
    for number in 0..16 {
        disk.commit(1, &[1_000, 900 * (1 + number % 3)]);
    }
    disk.appender.set_hard_state(VOTED);
    disk.flush();
    disk.commit(1, &[500]);
    disk.seal();
    disk
}

/// Does what a driver does; `in_between` it dies after the later segments are gone.
fn apply(cut: Cut, geometry: Geometry, files: &mut BTreeMap<u64, Vec<u8>>, in_between: bool) {
    let kept = match cut {
        Cut::At { segment, offset } => {
            if !in_between {
                let file = files.get_mut(&segment.0).expect("the damaged one");
                file[offset as usize..geometry.commits_end() as usize].fill(0);
            }
            segment.0
        }
        Cut::From(segment) => segment.0 - 1,
        Cut::Everything => 0,
    };
    files.retain(|&name, _| name <= kept);
}

fn found(disk: &Disk, files: &BTreeMap<u64, Vec<u8>>) -> Found {
    recover(disk.geometry, files, 0).expect("no file is refused")
}

/// Appends one entry and gives the log's length.
fn append(disk: &Disk, files: &mut BTreeMap<u64, Vec<u8>>, found: Found) -> u64 {
    let mut appender = resume(disk.geometry, files, found.recovered);
    let index = appender.last_index().next();
    let bytes = vec![1; 100];
    appender
        .stage_entry(Term(10), index, &Value { bytes })
        .expect("staged");
    loop {
        match appender.commit() {
            CommitStep::Nothing => return index.0,
            CommitStep::OpenSegment(sequence) => {
                let size = disk.geometry.segment_size_bytes() as usize;
                files.insert(sequence.0, vec![0; size]);
                let salt = 0x77;
                let opening = appender.open_segment(PreparedSegment { sequence, salt });
                for offset in opening.offsets {
                    let file = files.get_mut(&sequence.0).expect("just made");
                    file[offset as usize..][..PAGE].copy_from_slice(opening.page());
                }
                appender.segment_opened(opening);
            }
            CommitStep::Commit(commit) => {
                let file = files.get_mut(&commit.segment.0).expect("opened");
                file[commit.offset as usize..][..commit.bytes().len()]
                    .copy_from_slice(commit.bytes());
                appender.durable(commit);
            }
        }
    }
}

/// Goal: whichever page of the log is lost, if that is noticed, then term and vote are not lost with it; the cut leaves
/// a clean log of the entries before the damage, also when it has to be made twice; and what is appended behind the
/// cut is found again, and not what was there before.
#[test]
fn any_page() {
    let disk = log();
    let mut noticed = 0;
    for (&name, file) in &disk.files {
        for offset in (0..file.len()).step_by(PAGE) {
            let mut files = disk.files.clone();
            files.get_mut(&name).expect("there")[offset..offset + PAGE].fill(0);
            let judged = found(&disk, &files);
            let Outcome::Corrupt(damage) = judged.outcome() else {
                continue;
            };
            noticed += 1;
            assert!(damage.is_loss(), "{damage}");
            assert!(!judged.recovered.term_lost, "{damage}");
            let HardState { term, vote, .. } = judged.recovered.hard_state;
            assert_eq!((term, vote), (VOTED.term, VOTED.vote), "{damage}");
            apply(damage.cut(), disk.geometry, &mut files, true);
            if let Outcome::Corrupt(again) = found(&disk, &files).outcome() {
                assert_eq!(again.cut(), damage.cut());
            }
            apply(damage.cut(), disk.geometry, &mut files, false);
            let after = found(&disk, &files);
            assert_eq!(after.outcome(), Outcome::Clean, "{damage}");
            let kept = damage.index.0 as usize - 1;
            assert_eq!(after.entries, disk.entries[..kept], "{damage}");
            let length = append(&disk, &mut files, after);
            let again = found(&disk, &files);
            assert_eq!(again.outcome(), Outcome::Clean, "{damage}");
            assert_eq!(length, kept as u64 + 1);
            assert_eq!(again.entries[..kept], disk.entries[..kept]);
            assert_eq!(again.entries[kept], (Term(10), vec![1; 100]));
        }
    }
    assert!(noticed > 15, "{noticed}");
}

/// Goal: when two commits or more are gone behind the newest that can be read, nobody can say that no term is gone
/// with them; with one it is certain, because a changed one is in two.
#[test]
fn lost_terms() {
    let check = |lost_commits: usize, expected: bool| {
        let disk = log();
        let second = disk.commits.iter().position(|commit| commit.segment == 2);
        let boundary = second.expect("several segments");
        let mut files = disk.files.clone();
        // The header of the second segment says how many there were, and nothing in it can be read.
        files.retain(|&name, _| name <= 2);
        files.get_mut(&2).expect("there")[PAGE..disk.geometry.commits_end() as usize].fill(0);
        for commit in &disk.commits[boundary - lost_commits..boundary] {
            files.get_mut(&1).expect("there")[commit.range()].fill(0);
        }
        let judged = found(&disk, &files);
        assert!(matches!(judged.outcome(), Outcome::Corrupt(_)));
        assert_eq!(judged.recovered.term_lost, expected, "{lost_commits}");
    };
    check(1, false);
    check(2, true);
    check(3, true);
}

/// Goal: what is cut: a place in a segment, segments whose header is gone, or a log that ends before its checkpoint.
#[test]
fn cuts() {
    let disk = log();
    let check = |files: &BTreeMap<u64, Vec<u8>>, start: u64, expected: &dyn Fn(Cut) -> bool| {
        let judged = recover(disk.geometry, files, start).expect("no file is refused");
        let Outcome::Corrupt(damage) = judged.outcome() else {
            panic!("{:?}", judged.outcome());
        };
        assert!(expected(damage.cut()), "{:?}", damage.cut());
    };
    let mut files = disk.files.clone();
    let commit = &disk.commits[1];
    files.get_mut(&1).expect("there")[commit.offset] ^= 1;
    let offset = commit.offset as u64;
    check(
        &files,
        0,
        &|cut| matches!(cut, Cut::At { segment, offset: at } if segment.0 == 1 && at == offset),
    );
    let mut files = disk.files.clone();
    let file = files.get_mut(&2).expect("there");
    let copy = file.len() - PAGE;
    file[..PAGE].fill(0);
    file[copy..].fill(0);
    check(
        &files,
        0,
        &|cut| matches!(cut, Cut::From(segment) if segment.0 == 2),
    );
    let beyond = disk.entries.len() as u64 + 5;
    check(&disk.files, beyond, &|cut| cut == Cut::Everything);
}
