//! Files that are missing, foreign, swapped, doubled or cut are refused; spares are not.

use std::collections::BTreeMap;

use kontiki::base::{ClusterId, Incarnation, Index, MemberId, ShardId};
use kontiki::wal::damage::{Cause, Evidence, RefusalReason};
use kontiki::wal::{
    Cut, LogIdentity, Outcome, Recovered, Recovery, Refusal, SegmentFile, SegmentSequence,
};

use crate::disk::{Disk, identity, recover, recover_as, resume};

type Files = BTreeMap<u64, Vec<u8>>;

/// Segments 1 to 4, each with several commits.
fn log() -> Disk {
    let mut disk = Disk::new(32 * 1024);
    while disk.appender.segments().count() < 4 {
        disk.commit(1, &[3000, 50]);
    }
    disk.commit(1, &[50]);
    disk
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut Files), segment: u64, reason: RefusalReason) {
    let mut disk = log();
    change(&mut disk.files);
    let refusal = recover(disk.geometry, &disk.files, 0).expect_err("refused");
    assert_eq!(
        (refusal.segment, &refusal.reason),
        (SegmentSequence(segment), &reason)
    );
    assert!(
        refusal
            .to_string()
            .starts_with(&format!("log file {segment:016x}.wal, offset ")),
        "{refusal}"
    );
}

/// Goal: each wrong set of files has its own refusal, with the file it is about.
#[test]
fn refused() {
    check_refused(|files| drop(files.remove(&2)), 2, RefusalReason::Missing);
    let swap = |files: &mut Files, one: u64, other: u64| {
        let (a, b) = (files[&one].clone(), files[&other].clone());
        files.insert(one, b);
        files.insert(other, a);
    };
    let swapped = |found: u64| RefusalReason::Swapped {
        found: SegmentSequence(found),
    };
    check_refused(|files| swap(files, 2, 3), 2, swapped(3));
    check_refused(|files| swap(files, 3, 4), 3, swapped(4));
    check_refused(|files| swap(files, 1, 4), 1, swapped(4));
    let copy = |files: &mut Files, from: u64, to: u64| drop(files.insert(to, files[&from].clone()));
    check_refused(|files| copy(files, 3, 4), 4, swapped(3));
    check_refused(|files| copy(files, 3, 5), 5, swapped(3));
    check_refused(|files| copy(files, 1, 2), 2, swapped(1));
    let cut = |files: &mut Files, name: u64, size: usize| {
        files.get_mut(&name).expect("there").truncate(size)
    };
    check_refused(
        |files| cut(files, 2, 30_000),
        2,
        RefusalReason::Size {
            found: 30_000,
            expected: 32_768,
        },
    );
    check_refused(
        |files| cut(files, 4, 0),
        4,
        RefusalReason::Size {
            found: 0,
            expected: 32_768,
        },
    );
    let late = RefusalReason::BeginsLate {
        first_index: log()
            .appender
            .segments()
            .nth(1)
            .expect("four segments")
            .first_index,
        needed: kontiki::base::Index(1),
    };
    check_refused(|files| drop(files.remove(&1)), 2, late);
}

/// Goal: a log of another cluster, member, data directory or shard is refused, and both are named.
#[test]
fn foreign() {
    let disk = log();
    let check = |expected: LogIdentity, named: &str| {
        let refusal: Refusal =
            recover_as(disk.geometry, expected, &disk.files, 0).expect_err("refused");
        assert_eq!(
            refusal.reason,
            RefusalReason::Foreign {
                found: Box::new(identity()),
                expected: Box::new(expected),
            }
        );
        let text = refusal.to_string();
        assert!(
            text.contains("cluster c1 member 3e") && text.contains(named),
            "{text}"
        );
    };
    check(
        LogIdentity {
            cluster: ClusterId(0xfe),
            ..identity()
        },
        "cluster fe member 3e",
    );
    check(
        LogIdentity {
            member: MemberId(0xfe),
            ..identity()
        },
        "cluster c1 member fe",
    );
    check(
        LogIdentity {
            incarnation: Incarnation(0xfe),
            ..identity()
        },
        "incarnation 000000000000000000000000000000fe",
    );
    check(
        LogIdentity {
            shard: ShardId(9),
            ..identity()
        },
        "shard 9",
    );
}

/// Goal: a newer format is refused as such, not taken for damage.
#[test]
fn newer_format() {
    let mut disk = log();
    let file = disk.files.get_mut(&1).expect("there");
    file[8] = 2;
    let checksum = kontiki::base::checksum::crc32c(&file[..124]);
    file[124..128].copy_from_slice(&checksum.to_le_bytes());
    let refusal = recover(disk.geometry, &disk.files, 0).expect_err("refused");
    assert!(
        refusal.to_string().contains("segment format version 2"),
        "{refusal}"
    );
}

/// Goal: spares of zeros, of noise and of recycled bytes are spares, and the log goes on into them.
#[test]
fn spares_are_not_corruption() {
    let noise: Vec<u8> = (0..32 * 1024_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for spare in [vec![0; 32 * 1024], noise] {
        let mut disk = log();
        disk.files.insert(5, spare);
        let found = recover(disk.geometry, &disk.files, 0).expect("accepted");
        assert_eq!(found.outcome(), Outcome::Clean);
        assert_eq!(found.recovered.spares, [SegmentSequence(5)]);
        disk.appender = resume(disk.geometry, &mut disk.files, found.recovered);
        while disk.appender.segments().count() < 5 {
            disk.commit(1, &[3000]);
        }
        let found = recover(disk.geometry, &disk.files, 0).expect("accepted");
        assert_eq!(
            (found.outcome(), found.entries),
            (Outcome::Clean, disk.entries)
        );
    }
}

/// Goal: an empty directory, and one with a spare only, are an empty log.
#[test]
fn nothing_yet() {
    let disk = Disk::new(32 * 1024);
    for files in [Files::new(), Files::from([(1, vec![0; 32 * 1024])])] {
        let found = recover(disk.geometry, &files, 0).expect("accepted");
        assert_eq!(
            (found.outcome(), found.recovered.last_index.0),
            (Outcome::Clean, 0)
        );
    }
}

/// Goal: with both header pages gone a segment is not taken for a spare, wherever in the log it is.
#[test]
fn lost_headers_are_corruption() {
    for name in 1..=4 {
        let mut disk = log();
        let file = disk.files.get_mut(&name).expect("there");
        file[..512].fill(0);
        file[28 * 1024..].fill(0);
        let found = recover(disk.geometry, &disk.files, 0).expect("accepted");
        let Outcome::Corrupt(damage) = found.outcome() else {
            panic!("{name}: {:?}", found.outcome())
        };
        assert_eq!((damage.segment.0, damage.cause), (name, Cause::HeaderLost));
        assert!(
            damage.to_string().contains(&format!("{name:016x}.wal")),
            "{damage}"
        );
    }
}

/// Goal: a segment whose last commits are gone is told from one that ended early, by the next header.
#[test]
fn the_next_header_vouches_for_a_segment() {
    let disk = log();
    let last_of_two = disk
        .commits
        .iter()
        .rfind(|commit| commit.segment == 2)
        .expect("commits");
    let mut files = disk.files.clone();
    files.get_mut(&2).expect("there")[last_of_two.range()].fill(0);
    let found = recover(disk.geometry, &files, 0).expect("accepted");
    let Outcome::Corrupt(damage) = found.outcome() else {
        panic!("{:?}", found.outcome())
    };
    assert_eq!(
        (damage.segment.0, damage.offset),
        (2, last_of_two.offset as u64)
    );
    assert_eq!(
        damage.evidence,
        Evidence::LaterSegment {
            segment: SegmentSequence(3)
        }
    );
}

/// Goal: a segment of another history of the same directory, as from an old backup, is not continued.
#[test]
fn another_history_is_corruption() {
    let disk = log();
    let mut other = Disk::new(32 * 1024);
    while other.appender.segments().count() < 4 {
        other.commit(2, &[3000, 50]);
    }
    let mut files = disk.files.clone();
    files.insert(3, other.files[&3].clone());
    let found = recover(disk.geometry, &files, 0).expect("accepted");
    let Outcome::Corrupt(damage) = found.outcome() else {
        panic!("{:?}", found.outcome())
    };
    assert_eq!((damage.segment.0, damage.cause), (3, Cause::Chain));
}

/// Goal: a log that ends before its checkpoint has lost something durable.
#[test]
fn a_log_behind_its_checkpoint_is_corruption() {
    let disk = log();
    let last = disk.entries.len() as u64;
    let found = recover(disk.geometry, &disk.files, last + 1).expect("accepted");
    let Outcome::Corrupt(damage) = found.outcome() else {
        panic!("{:?}", found.outcome())
    };
    assert_eq!(
        damage.cause,
        Cause::BehindCheckpoint(kontiki::base::Index(last))
    );
    assert_eq!(
        recover(disk.geometry, &disk.files, last)
            .expect("accepted")
            .outcome(),
        Outcome::Clean
    );
}

/// Goal: the newest term and vote are found in a corrupt log too, beyond the damage.
#[test]
fn term_and_vote_survive_corruption() {
    let mut disk = log();
    let holed = disk.commits.last().expect("commits").clone();
    let state = kontiki::wal::HardState {
        term: kontiki::base::Term(9),
        vote: Some(MemberId(4)),
        commit: disk.appender.hard_state().commit,
    };
    disk.appender.set_hard_state(state);
    disk.flush();
    disk.files.get_mut(&holed.segment).expect("there")[holed.offset + 40] ^= 1;
    let found = recover(disk.geometry, &disk.files, 0).expect("accepted");
    assert!(!found.outcome().may_continue());
    assert_eq!(found.recovered.hard_state, state);
}

/// Goal: a log whose only live segment is gone, with the spare behind it still there, is not taken for an empty one: its
/// member would vote again where it has voted. The spare of the first segment alone is an empty log.
#[test]
fn only_the_spare_is_left() {
    let mut disk = Disk::new(32 * 1024);
    disk.commit(1, &[300, 50]);
    disk.commit(1, &[50]);
    disk.prepare(SegmentSequence(2));
    disk.files.remove(&1);
    let segment = SegmentSequence(2);
    check_missing(&disk, false, Evidence::LaterSegment { segment });
    let spare = disk.files.remove(&2).expect("the spare");
    disk.files.insert(1, spare);
    let found = recover(disk.geometry, &disk.files, 0).expect("an empty log");
    assert_eq!(found.outcome(), Outcome::Clean);
    let found = recover_begun(&disk, true);
    assert_eq!(
        found.outcome,
        Outcome::Clean,
        "it had begun, and holds nothing yet"
    );
}

/// Goal: spares that a crash in the middle of a cut has left go with the next cut: the log begins again with the first
/// segment, and would end before a gap.
#[test]
fn a_spare_is_left_by_a_cut() {
    let mut disk = Disk::new(32 * 1024);
    disk.prepare(SegmentSequence(5));
    for start in [Index(0), Index(7)] {
        let files = listing(&disk);
        let mut recovery = Recovery::new(disk.geometry, identity(), start, &files).expect("no gap");
        recovery.was_cut();
        let result = recovery.segment(&disk.files[&5], &mut |_| Ok(()));
        result.expect("a spare");
        let Outcome::Corrupt(damage) = recovery.finish().outcome else {
            panic!("behind {start} the spare stays");
        };
        assert_eq!(damage.cut(), Cut::From(SegmentSequence(1)));
    }
}

/// Goal: a log without any file is empty if it never began, and damaged if it did; whoever is rebuilt then waits for
/// every voter. What is left when that was stored and the log was cut is no further damage.
#[test]
fn no_file_is_left() {
    let mut disk = Disk::new(32 * 1024);
    let new = recover_begun(&disk, false);
    assert_eq!(new.outcome, Outcome::Clean);
    check_missing(&disk, true, Evidence::Begun);
    disk.commit(1, &[300, 50]);
    disk.files.clear();
    check_missing(&disk, true, Evidence::Begun);
    let mut again = Recovery::new(disk.geometry, identity(), Index(0), &[]).expect("no file");
    again.has_begun();
    again.was_cut();
    assert_eq!(again.finish().outcome, Outcome::Clean);
}

fn check_missing(disk: &Disk, has_begun: bool, evidence: Evidence) {
    let found = recover_begun(disk, has_begun);
    let Outcome::Corrupt(damage) = found.outcome else {
        panic!("{:?}", found.outcome);
    };
    assert_eq!((damage.cause, damage.evidence), (Cause::Missing, evidence));
    assert_eq!(
        (damage.segment, damage.index),
        (SegmentSequence(1), Index(1))
    );
    assert!(damage.is_loss() && found.term_lost);
    assert_eq!(damage.cut(), Cut::From(SegmentSequence(1)));
}

fn listing(disk: &Disk) -> Vec<SegmentFile> {
    let file = |(name, bytes): (&u64, &Vec<u8>)| SegmentFile {
        sequence: SegmentSequence(*name),
        size_bytes: bytes.len() as u64,
    };
    disk.files.iter().map(file).collect()
}

fn recover_begun(disk: &Disk, has_begun: bool) -> Recovered {
    let files = listing(disk);
    let mut recovery = Recovery::new(disk.geometry, identity(), Index(0), &files).expect("no gap");
    if has_begun {
        recovery.has_begun();
    }
    while let Some(name) = recovery.next_file() {
        let result = recovery.segment(&disk.files[&name.0], &mut |_| Ok(()));
        result.expect("a segment");
    }
    recovery.finish()
}
