//! The rules of the log's end: what is refused, what is bounded, what a completion means.

use kontiki::base::limits::SHARD_STAGED_BYTES_MAX;
use kontiki::base::{Index, MemberId, Term};
use kontiki::frame::{EncodeError, Record};
use kontiki::wal::{
    Appender, Commit, CommitStep, Geometry, HardState, Outcome, PreparedSegment, SegmentSequence,
    StageError,
};

use crate::disk::{Disk, Value, identity, recover, resume};

fn value(size: usize) -> Value {
    Value {
        bytes: vec![7; size],
    }
}

/// An appender whose first segment is open.
fn opened(geometry: Geometry) -> Appender {
    let mut appender = Appender::new(geometry, identity());
    open(&mut appender, 1);
    appender
}

fn open(appender: &mut Appender, sequence: u64) {
    let salt = 1000 + sequence;
    let opening = appender.open_segment(PreparedSegment {
        sequence: SegmentSequence(sequence),
        salt,
    });
    assert_eq!((opening.page().len(), opening.offsets[0]), (4096, 0));
    appender.segment_opened(opening);
}

#[track_caller]
fn take(appender: &mut Appender) -> Commit {
    match appender.commit() {
        CommitStep::Commit(commit) => commit,
        step => panic!("{step:?}"),
    }
}

/// Goal: a changed term or vote goes out as two commits without being asked again, counts only after
/// both, and a changed commit index alone asks for none.
#[test]
fn a_changed_vote_takes_two_commits() {
    let mut appender = opened(Geometry::default());
    assert!(matches!(appender.commit(), CommitStep::Nothing));
    let state = HardState {
        term: Term(1),
        vote: Some(MemberId(5)),
        commit: Index(0),
    };
    appender.set_hard_state(state);
    assert!(!appender.hard_state_durable());
    let first = take(&mut appender);
    assert_eq!((first.record_count, first.bytes().len()), (0, 4096));
    assert!(!appender.durable(first).hard_state);
    let second = take(&mut appender);
    assert!(appender.durable(second).hard_state);
    assert!(matches!(appender.commit(), CommitStep::Nothing));
    appender
        .stage_entry(Term(1), Index(1), &value(1))
        .expect("staged");
    let commit = take(&mut appender);
    appender.durable(commit);
    appender.set_hard_state(HardState {
        commit: Index(1),
        ..state
    });
    assert!(!appender.has_work());
}

/// Goal: a term that changes while a commit is in flight is not taken for durable by its completion.
#[test]
fn a_completion_counts_for_the_term_it_carried() {
    let mut appender = opened(Geometry::default());
    appender.set_hard_state(HardState {
        term: Term(1),
        ..HardState::default()
    });
    for _ in 0..2 {
        let commit = take(&mut appender);
        appender.set_hard_state(HardState {
            term: Term(2),
            ..HardState::default()
        });
        assert!(!appender.durable(commit).hard_state);
    }
    let commit = take(&mut appender);
    assert!(appender.durable(commit).hard_state);
}

/// Goal: with one of the two commits torn off, recovery still knows the vote, and the log writes it again
/// before it counts.
#[test]
fn one_copy_of_a_vote_is_completed_after_recovery() {
    let mut disk = Disk::new(32 * 1024);
    disk.commit(1, &[10]);
    let state = HardState {
        term: Term(3),
        vote: Some(MemberId(5)),
        commit: Index(1),
    };
    disk.appender.set_hard_state(state);
    disk.flush();
    let last = disk.commits.last().expect("commits").clone();
    disk.files.get_mut(&last.segment).expect("there")[last.offset + 20] ^= 1;
    let found = recover(disk.geometry, &disk.files, 0).expect("accepted");
    assert!(matches!(found.outcome(), Outcome::TornTail { .. }));
    assert_eq!(found.recovered.hard_state, state);
    let mut appender = resume(disk.geometry, &mut disk.files, found.recovered);
    assert!(!appender.hard_state_durable());
    let commit = take(&mut appender);
    assert!(appender.durable(commit).hard_state);
}

/// Goal: entries in flight that are voided meanwhile do not become durable, neither do those staged
/// before the truncation; their replacements do.
#[test]
fn voided_entries_never_count_as_durable() {
    let mut appender = opened(Geometry::default());
    for index in 1..=5 {
        appender
            .stage_entry(Term(1), Index(index), &value(10))
            .expect("staged");
    }
    let commit = take(&mut appender);
    appender
        .stage_entry(Term(1), Index(6), &value(10))
        .expect("staged");
    appender.stage_truncate(Term(2), Index(3)).expect("staged");
    appender
        .stage_entry(Term(2), Index(4), &value(10))
        .expect("staged");
    assert_eq!(appender.last_index(), Index(4));
    assert_eq!(appender.durable(commit).index, Index(3));
    assert_eq!(appender.durable_index(), Index(3));
    let commit = take(&mut appender);
    assert_eq!(appender.durable(commit).index, Index(4));
}

/// Goal: a commit index that was reached by replacements is not written into a commit that still ends
/// with what they replaced, so that a crash between the two cannot commit the voided entries.
#[test]
fn the_commit_index_never_covers_voided_entries() {
    let mut disk = Disk::new(64 * 1024);
    disk.commit(1, &[10]);
    // More than one batch: the voided entries, then their replacements.
    for _ in 0..6 {
        disk.stage(1, 3500);
    }
    disk.appender
        .stage_truncate(Term(2), Index(1))
        .expect("staged");
    for _ in 0..6 {
        disk.stage(2, 3500);
    }
    disk.appender.set_hard_state(HardState {
        term: Term(2),
        vote: None,
        commit: Index(7),
    });
    let CommitStep::Commit(commit) = disk.appender.commit() else {
        panic!("a commit")
    };
    disk.write_commit(&commit);
    assert!(commit.last_index > Index(1));
    let found = recover(disk.geometry, &disk.files, 0).expect("accepted");
    assert_eq!(found.outcome(), Outcome::Clean);
    assert_eq!(found.recovered.hard_state.commit, Index(1));
    disk.appender.durable(commit);
    disk.flush();
    let found = recover(disk.geometry, &disk.files, 0).expect("accepted");
    assert_eq!(
        (found.recovered.hard_state.commit, found.entries),
        (Index(7), disk.entries)
    );
}

/// Goal: a body above the limit is refused before anything is staged; the largest one fits in a
/// segment of its own.
#[test]
fn entry_size_limit() {
    let geometry = Geometry::new(64 * 1024);
    let mut appender = opened(geometry);
    let limit = geometry.entry_size_bytes_max() as usize;
    let error = appender
        .stage_entry(Term(1), Index(1), &value(limit + 1))
        .expect_err("too large");
    assert_eq!(
        error,
        StageError::Encode(EncodeError::TooLarge { limit_bytes: limit })
    );
    assert!(!appender.has_work());
    assert_eq!(
        (appender.staged_bytes(), appender.last_index()),
        (0, Index(0))
    );
    appender
        .stage_entry(Term(1), Index(1), &value(limit - 8))
        .expect("8 bytes are the archive's own");
    let commit = take(&mut appender);
    appender.durable(commit);
    assert_eq!(
        (appender.staged_bytes(), appender.durable_index()),
        (0, Index(1))
    );
}

/// Goal: what waits for the disk is bounded, and the bound is lifted by a completion.
#[test]
fn staging_is_bounded() {
    let mut appender = opened(Geometry::default());
    let mut index = Index(0);
    let error = loop {
        match appender.stage_entry(Term(1), index.next(), &value(1 << 20)) {
            Ok(_) => index = index.next(),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, StageError::Full { staged_bytes } if staged_bytes >= SHARD_STAGED_BYTES_MAX)
    );
    assert!(appender.staged_bytes() < SHARD_STAGED_BYTES_MAX + (2 << 20));
    let commit = take(&mut appender);
    appender.durable(commit);
    appender
        .stage_entry(Term(1), index.next(), &value(10))
        .expect("there is room again");
}

/// Goal: one burst does not hold up the next: a commit ends at the soft limit, with whole records.
#[test]
fn commits_are_cut_softly() {
    let mut appender = opened(Geometry::default());
    for index in 1..=600 {
        appender
            .stage_entry(Term(1), Index(index), &value(1000))
            .expect("staged");
    }
    let mut counts = Vec::new();
    while appender.has_work() {
        let commit = take(&mut appender);
        assert!(commit.bytes().len() <= (256 + 8) * 1024);
        assert!(
            commit.bytes().len().is_multiple_of(4096)
                && commit.bytes().as_ptr().addr().is_multiple_of(4096)
        );
        counts.push(commit.record_count);
        appender.durable(commit);
    }
    assert_eq!(counts, [252, 252, 96]);
}

/// Goal: a record staged here is taken over by another member as it is, byte for byte.
#[test]
fn a_follower_stages_the_same_bytes() {
    let mut leader = opened(Geometry::default());
    let mut follower = opened(Geometry::default());
    let staged = leader
        .stage_entry(Term(4), Index(1), &value(333))
        .expect("staged");
    let bytes = leader
        .staged_record(&staged)
        .expect("still staged")
        .to_vec();
    let (record, rest) = Record::parse(&bytes).expect("valid");
    assert!(rest.is_empty());
    let staged = follower.stage_record(&record).expect("staged");
    assert_eq!(follower.staged_record(&staged), Some(bytes.as_slice()));
    let (ours, theirs) = (take(&mut leader), take(&mut follower));
    assert_eq!(ours.bytes(), theirs.bytes());
    assert_eq!(leader.staged_record(&staged), None);
}

/// Goal: a full segment asks for the next one, takes nothing meanwhile, and the space of each is used.
#[test]
fn a_full_segment_asks_for_the_next() {
    let mut appender = opened(Geometry::new(32 * 1024));
    for index in 1..=6 {
        appender
            .stage_entry(Term(1), Index(index), &value(100))
            .expect("staged");
        let commit = take(&mut appender);
        assert_eq!((commit.segment.0, commit.offset), (1, index * 4096));
        appender.durable(commit);
    }
    appender
        .stage_entry(Term(1), Index(7), &value(100))
        .expect("staged");
    for _ in 0..2 {
        assert!(matches!(
            appender.commit(),
            CommitStep::OpenSegment(SegmentSequence(2))
        ));
    }
    open(&mut appender, 2);
    let commit = take(&mut appender);
    assert_eq!((commit.segment.0, commit.offset), (2, 4096));
    appender.durable(commit);
    let location = appender.locate(Index(7)).expect("located");
    assert_eq!((location.segment.0, location.offset), (2, 4096));
    assert_eq!(appender.locate(Index(8)), None);
}

/// Goal: nothing is built while a sync is in flight.
#[test]
#[should_panic(expected = "one sync at a time")]
fn one_sync_at_a_time() {
    let mut appender = opened(Geometry::default());
    for index in 1..=2 {
        appender
            .stage_entry(Term(1), Index(index), &value(1))
            .expect("staged");
        take(&mut appender);
    }
}

/// Goal: what is committed is never voided.
#[test]
#[should_panic(expected = "below the commit index")]
fn committed_entries_are_never_voided() {
    let mut appender = opened(Geometry::default());
    appender
        .stage_entry(Term(1), Index(1), &value(1))
        .expect("staged");
    appender.set_hard_state(HardState {
        commit: Index(1),
        ..HardState::default()
    });
    let _ = appender.stage_truncate(Term(2), Index(0));
}
