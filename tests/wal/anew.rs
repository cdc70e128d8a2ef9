//! A log that begins anew behind a checkpoint of another member, and every crash on the way there.

use kontiki::base::{Index, Term};
use kontiki::wal::damage::{Cause, ContentError};
use kontiki::wal::{Checkpoint, HardState, Outcome};

use crate::disk::{Disk, Found, identity, recover_after, resume};

/// The checkpoint's last entry.
const BASE_TERM: Term = Term(4);

/// Six entries of term 1, the first two committed.
fn log() -> Disk {
    let mut disk = Disk::new(32 * 1024);
    for _ in 0..6 {
        disk.commit(1, &[3000]);
    }
    disk.appender.set_hard_state(HardState {
        term: BASE_TERM,
        vote: None,
        commit: Index(2),
    });
    disk.flush();
    disk
}

/// Behind a checkpoint at `start`, with a log that led to `led_to` once.
fn recovered(disk: &Disk, start: u64, led_to: u64) -> Found {
    let checkpoint = Checkpoint {
        term: BASE_TERM,
        led_to: Index(led_to),
    };
    recover_after(
        disk.geometry,
        identity(),
        &disk.files,
        start,
        Some(checkpoint),
    )
    .expect("accepted")
}

fn begin_anew(disk: &mut Disk, base: u64) {
    let staged = disk
        .appender
        .stage_base(BASE_TERM, BASE_TERM, Index(base))
        .expect("room");
    disk.appender.set_hard_state(HardState {
        term: BASE_TERM,
        vote: None,
        commit: Index(base),
    });
    disk.flush();
    assert!(disk.appender.durable_commit() >= staged);
}

fn terms(found: &Found) -> Vec<u64> {
    found.entries.iter().map(|(term, _)| term.0).collect()
}

/// Goal: behind a checkpoint beyond the log's end, or one in the middle of entries that are void, the log goes
/// on at the checkpoint's index; a restart finds exactly what came after.
#[test]
fn goes_on_behind_the_checkpoint() {
    for base in 3..20 {
        let mut disk = log();
        begin_anew(&mut disk, base);
        assert_eq!(disk.appender.durable_index(), Index(base));
        disk.commit(4, &[100, 3000]);
        disk.commit(5, &[3000]);
        let found = recovered(&disk, base, 0);
        assert_eq!(found.outcome(), Outcome::Clean, "base {base}");
        assert_eq!(found.recovered.begins_anew, None);
        assert_eq!(terms(&found), [4, 4, 5]);
        assert_eq!(found.recovered.last_index, Index(base + 3));
        assert_eq!(found.recovered.hard_state.commit, Index(base));
        // And goes on from there.
        disk.appender = resume(disk.geometry, &mut disk.files, found.recovered);
        disk.commit(6, &[10]);
        assert_eq!(terms(&recovered(&disk, base, 0)), [4, 4, 5, 6]);
        // Behind a later checkpoint of its own.
        let later = Checkpoint {
            term: Term(5),
            led_to: Index(base + 3),
        };
        let found = recover_after(
            disk.geometry,
            identity(),
            &disk.files,
            base + 3,
            Some(later),
        );
        assert_eq!(terms(&found.expect("accepted")), [6]);
    }
}

/// Goal: a log that begins anew behind a checkpoint that is gone is corrupt: nobody else's entries fill the gap.
#[test]
fn without_its_checkpoint() {
    for (base, start) in [(3, 0), (3, 2), (20, 0), (20, 6), (20, 19)] {
        let mut disk = log();
        begin_anew(&mut disk, base);
        let Outcome::Corrupt(damage) = recovered(&disk, start, start).outcome() else {
            panic!("base {base}, start {start}");
        };
        let missing = ContentError::Base(Index(base));
        let expected = |cause| matches!(cause, Cause::Content(_, found) if found == missing);
        let parted = matches!(damage.cause, Cause::BehindCheckpoint(_));
        assert!(expected(damage.cause) || parted, "{damage}");
    }
}

/// Goal: a member that died when the checkpoint had its name and the log did not say so begins its log anew, with
/// nothing of the old one behind the checkpoint; behind a checkpoint of its own, or when
/// an older one of its own lies beyond the log's end, such a log is corrupt.
#[test]
fn died_in_between() {
    for base in 3..20 {
        let mut disk = log();
        let found = recovered(&disk, base, 0);
        assert_eq!(found.outcome(), Outcome::Clean);
        assert_eq!(found.recovered.begins_anew, Some((BASE_TERM, Index(base))));
        assert_eq!(terms(&found), [] as [u64; 0], "base {base}");
        assert_eq!(found.recovered.last_index, Index(base));
        let alone = recovered(&disk, base, base).outcome();
        assert!(matches!(alone, Outcome::Corrupt(_)), "base {base}");
        for led_to in 1..base {
            let outcome = recovered(&disk, base, led_to).outcome();
            assert_eq!(
                matches!(outcome, Outcome::Corrupt(_)),
                led_to > 6,
                "base {base}, led to {led_to}"
            );
        }
        disk.appender = resume(disk.geometry, &mut disk.files, found.recovered);
        assert_eq!(disk.appender.last_index(), Index(base));
        disk.commit(4, &[10, 20]);
        let found = recovered(&disk, base, 0);
        assert_eq!(found.recovered.begins_anew, None);
        assert_eq!(
            (found.outcome(), terms(&found)),
            (Outcome::Clean, vec![4, 4])
        );
    }
}

/// Goal: a log that holds the checkpoint's last entry keeps what follows it.
#[test]
fn a_log_that_leads_there_is_kept() {
    let mut disk = log();
    disk.commit(4, &[10]);
    disk.commit(5, &[10, 10]);
    let found = recovered(&disk, 7, 0);
    assert_eq!(found.recovered.begins_anew, None);
    assert_eq!(terms(&found), [5, 5]);
}

/// Goal: entries that were void and cut off later are not replayed on the checkpoint's state, though the log
/// holds them before those that took their place.
#[test]
fn void_entries_are_passed_over() {
    let mut disk = log();
    disk.appender
        .stage_truncate(BASE_TERM, Index(3))
        .expect("room");
    disk.commit(4, &[10, 10, 10, 10, 10]);
    // The checkpoint stands at 5, where term 1 wrote first and term 4 then.
    let found = recovered(&disk, 5, 0);
    assert_eq!(found.recovered.begins_anew, None);
    assert_eq!(
        found.recovered.entry_count, 3,
        "nothing is handed on and undone"
    );
    assert_eq!(
        (found.outcome(), terms(&found)),
        (Outcome::Clean, vec![4, 4, 4])
    );
}
