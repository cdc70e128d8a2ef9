//! The tail of the log is cut at every byte of its last two commits.

use std::collections::BTreeMap;

use kontiki::wal::Outcome;
use kontiki::wal::damage::Evidence;

use crate::disk::{Disk, Entry, Found, Placed, recover};

/// What lies behind the cut: nothing yet, or an earlier life of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behind {
    Zeros,
    EarlierLife,
}

/// A log in its second life: the active segment was recycled, and its last two commits are a large and
/// a small one.
fn log() -> (Disk, u64) {
    let mut disk = Disk::new(32 * 1024);
    for _ in 0..14 {
        disk.commit(1, &[3000]);
    }
    disk.recycle(14);
    let checkpoint = disk.entries.len() as u64;
    disk.commit(2, &[700, 900]);
    disk.commit(2, &[100; 90]);
    disk.commit(2, &[300, 20]);
    let last = disk.commits.last().expect("commits");
    assert!(
        disk.stale.contains_key(&last.segment),
        "the active segment has an earlier life"
    );
    (disk, checkpoint)
}

fn damaged(
    disk: &Disk,
    commit: &Placed,
    from: usize,
    to: usize,
    behind: Behind,
) -> BTreeMap<u64, Vec<u8>> {
    let mut files = disk.files.clone();
    let file = files.get_mut(&commit.segment).expect("the file exists");
    match behind {
        Behind::Zeros => file[from..to].fill(0),
        Behind::EarlierLife => {
            file[from..to].copy_from_slice(&disk.stale[&commit.segment][from..to])
        }
    }
    files
}

fn found(disk: &Disk, files: &BTreeMap<u64, Vec<u8>>, start: u64) -> Found {
    recover(disk.geometry, files, start).expect("no file is refused")
}

fn entries_up_to(disk: &Disk, start: u64, last_index: u64) -> &[Entry] {
    &disk.entries[start as usize..last_index as usize]
}

/// Goal: whatever is cut off the last two commits, everything before is recovered, a commit is there
/// in full or not at all, and what is left of one is told from a clean end.
#[test]
fn every_byte_of_the_last_two_commits() {
    let (disk, start) = log();
    let [.., first, last] = disk.commits.as_slice() else {
        panic!("two commits")
    };
    assert_eq!(first.segment, last.segment);
    let whole = &disk.files[&last.segment];
    for behind in [Behind::Zeros, Behind::EarlierLife] {
        for cut in first.offset..=last.offset + last.size {
            let files = damaged(&disk, last, cut, last.offset + last.size, behind);
            let file = &files[&last.segment];
            let holds = |commit: &Placed| {
                let used = commit.offset..commit.offset + commit.used;
                file[used.clone()] == whole[used]
            };
            let begins =
                |commit: &Placed| file[commit.offset..][..16] == whole[commit.offset..][..16];
            let (end, last_index) = match (holds(first), holds(last)) {
                (true, true) => (None, disk.entries.len() as u64),
                (true, false) => (Some(last), last.last_index_before),
                (false, _) => (Some(first), first.last_index_before),
            };
            let found = found(&disk, &files, start);
            assert_eq!(
                found.entries,
                entries_up_to(&disk, start, last_index),
                "cut at {cut}, {behind:?}"
            );
            assert_eq!(
                found.recovered.last_index.0, last_index,
                "cut at {cut}, {behind:?}"
            );
            let torn = end
                .filter(|commit| begins(commit))
                .map(|commit| commit.offset as u64);
            let expected_torn = match found.outcome() {
                Outcome::Clean => None,
                Outcome::TornTail { segment, offset } => {
                    assert_eq!(segment.0, last.segment);
                    Some(offset)
                }
                Outcome::Corrupt(damage) => panic!("cut at {cut}, {behind:?}: {damage}"),
            };
            assert_eq!(torn, expected_torn, "cut at {cut}, {behind:?}");
        }
    }
}

/// Goal: the same damage below a commit that is still there is corruption, at the right place, and
/// nothing at or beyond it is handed on.
#[test]
fn a_hole_below_a_valid_commit_is_corruption() {
    let (disk, start) = log();
    let [.., holed, last] = disk.commits.as_slice() else {
        panic!("two commits")
    };
    let whole = &disk.files[&last.segment];
    for behind in [Behind::Zeros, Behind::EarlierLife] {
        for cut in holed.range().step_by(3) {
            let files = damaged(&disk, holed, cut, holed.offset + holed.size, behind);
            let used = holed.offset..holed.offset + holed.used;
            let found = found(&disk, &files, start);
            if files[&holed.segment][used.clone()] == whole[used] {
                assert_eq!(found.outcome(), Outcome::Clean);
                assert_eq!(found.entries, disk.entries[start as usize..]);
                continue;
            }
            let Outcome::Corrupt(damage) = found.outcome() else {
                panic!("cut at {cut}, {behind:?}: {:?}", found.outcome())
            };
            assert_eq!(
                (damage.segment.0, damage.offset),
                (holed.segment, holed.offset as u64)
            );
            assert_eq!(damage.index.0, holed.last_index_before + 1);
            assert!(
                matches!(damage.evidence, Evidence::LaterCommit { offset, .. } if offset == last.offset as u64)
            );
            assert_eq!(
                found.entries,
                entries_up_to(&disk, start, holed.last_index_before)
            );
        }
    }
}

/// Goal: after a seal, rot in the last real commit is corruption; rot in the seal itself loses nothing.
#[test]
fn a_seal_vouches_for_the_last_commit() {
    let (mut disk, start) = log();
    assert!(disk.appender.needs_seal());
    disk.seal();
    assert!(!disk.appender.needs_seal());
    let [.., real, seal] = disk.commits.as_slice() else {
        panic!("two commits")
    };
    for at in real.offset..real.offset + real.used {
        let mut files = disk.files.clone();
        files.get_mut(&real.segment).expect("the file exists")[at] ^= 0x40;
        let Outcome::Corrupt(damage) = found(&disk, &files, start).outcome() else {
            panic!("byte {at}")
        };
        assert_eq!(damage.index.0, real.last_index_before + 1);
    }
    for at in seal.offset..seal.offset + seal.used {
        let mut files = disk.files.clone();
        files.get_mut(&seal.segment).expect("the file exists")[at] ^= 0x40;
        let found = found(&disk, &files, start);
        assert!(found.outcome().may_continue(), "byte {at}");
        assert_eq!(found.entries, disk.entries[start as usize..], "byte {at}");
    }
}
