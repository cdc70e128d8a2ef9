//! A leader whose disk does not complete a sync: to whom it gives way, and that it otherwise leads on.

use super::*;

/// The sync begins at the beginning of this.
const BEGAN: Instant = Instant(5_000_000_000);

fn after(ms: u64) -> Instant {
    BEGAN + Duration::from_millis(ms)
}

/// A leader of five whose log ends at 2, with everything durable everywhere, begins a sync. Then it appends an entry.
fn syncing() -> Raft {
    let mut raft = leader_of_five(BEGAN);
    for id in 8..=11 {
        says(&mut raft, id, 2, 2, BEGAN);
    }
    assert_eq!(raft.commit(), Index(2));
    raft.append(10);
    raft
}

/// To whom the leader hands over, so long after its sync began.
fn gives_way(raft: &mut Raft, at_ms: u64, stall: SyncStall) -> Option<MemberId> {
    let stall = SyncStall {
        span: Duration::from_millis(at_ms),
        ..stall
    };
    let seen = outputs(|out| raft.sync_stalled(stall, after(at_ms), out));
    let stalled = Output::SteppedDown(StepDown::SyncStalled);
    assert_eq!(seen.contains(&stalled), raft.role() != Role::Leader);
    raft.transfer_target()
}

/// A first attempt, of a log that ended at `mark` at the last look.
fn stall(mark: u64, is_full: bool) -> SyncStall {
    SyncStall {
        span: Duration::ZERO,
        mark: Index(mark),
        is_full,
        again: false,
    }
}

/// Goal: only what was appended since the last look says anything about other disks, or, where no more can be, that all
/// of it is durable there; and only a majority of such ones without the leader can do without it.
#[test]
fn better_disks() {
    // What four followers, which have got entry 3, have made durable.
    let check = |durable: [u64; 4], stall: SyncStall, expected: Option<u64>| {
        let mut raft = syncing();
        for (id, durable) in (8..).zip(durable) {
            says(&mut raft, id, durable, 3, after(400));
        }
        let to = gives_way(&mut raft, 500, stall);
        assert_eq!(to, expected.map(MemberId), "{durable:?} {stall:?}");
        assert_eq!(raft.role(), Role::Leader);
        // Another attempt is of no use, or leads no longer.
        raft.tick(after(1_000), &mut Vec::new());
        raft.leading.transfer = None;
        let again = SyncStall {
            again: true,
            ..stall
        };
        for (id, durable) in (8..).zip(durable) {
            says(&mut raft, id, durable, 3, after(1_400));
        }
        gives_way(&mut raft, 1_500, again);
        assert_eq!(raft.role() != Role::Leader, expected.is_some());
    };
    check([2; 4], stall(2, false), None);
    check([3; 4], stall(2, false), Some(11));
    check([3, 3, 3, 2], stall(2, false), Some(10));
    check([3, 3, 2, 2], stall(2, false), None);
    // That was there at the last look: their disks may have stopped since.
    check([3; 4], stall(3, false), None);
    check([3; 4], stall(3, true), Some(11));
    check([3, 3, 2, 2], stall(3, true), None);
}

/// Goal: who lacks what was there at the last look, and owes nothing that it has got, cannot be sent it: after four
/// timeouts its disk counts as better. Who was not heard since, or owes it, is no better.
#[test]
fn what_cannot_be_sent() {
    let check = |verified: u64, at_ms: u64, silent_ms: u64, mark: u64, expected: Option<u64>| {
        let mut raft = syncing();
        for id in 8..=11 {
            says(&mut raft, id, 2, verified, after(at_ms - silent_ms));
        }
        let to = gives_way(&mut raft, at_ms, stall(mark, false));
        assert_eq!(
            to,
            expected.map(MemberId),
            "{verified} {at_ms} {silent_ms} {mark}"
        );
    };
    check(2, 4_000, 100, 3, Some(11));
    check(3, 4_000, 100, 3, None);
    check(2, 4_000, 250, 3, None);
    // A disk that is merely slow may complete its sync, and then it is sent.
    check(2, 500, 100, 3, None);
    check(2, 3_999, 100, 3, None);
    // It has only just been appended, and may be on its way.
    check(2, 4_000, 100, 2, None);
}
