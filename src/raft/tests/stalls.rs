//! A leader whose disk does not complete a sync: to whom it gives way, and that it otherwise leads on.

use super::*;

/// The sync begins at the beginning of this.
const BEGAN: Instant = Instant(5_000_000_000);

fn after(ms: u64) -> Instant {
    BEGAN + Duration::from_millis(ms)
}

/// A leader of five whose log ends at 2, with everything durable everywhere, begins a sync.
fn syncing() -> Raft {
    let mut raft = leader_of_five(BEGAN);
    for id in 8..=11 {
        says(&mut raft, id, 2, 2, BEGAN);
    }
    assert_eq!(raft.commit(), Index(2));
    raft.sync_began(Index(2), BEGAN);
    raft
}

/// A member's log agrees up to `verified` and is durable up to `durable`.
fn says(raft: &mut Raft, id: u64, durable: u64, verified: u64, now: Instant) {
    let matched = Matched {
        durable: Index(durable),
        verified: Index(verified),
    };
    let accepted = AppendResponse {
        result: AppendResult::Accepted(matched),
        standing: Standing::Whole,
    };
    say(raft, MemberId(id), Body::AppendResponse(accepted), now);
}

fn gives_way(raft: &mut Raft, mark: u64, at_ms: u64, again: bool) -> Option<MemberId> {
    let stall = SyncStall {
        span: Duration::from_millis(at_ms),
        mark: Index(mark),
        again,
    };
    let seen = outputs(|out| raft.sync_stalled(stall, after(at_ms), out));
    let stalled = Output::SteppedDown(StepDown::SyncStalled);
    assert_eq!(seen.contains(&stalled), raft.role() != Role::Leader);
    raft.transfer_target()
}

/// Goal: only what was appended after a sync began says anything about other disks, only who takes half as long at most
/// is better, and only a majority of such ones without the leader can do without it.
#[test]
fn better_disks() {
    // Of who has made entry 3, sent at 100 ms, durable: when; and the one that the leader hands over to, 500 ms after
    // its sync began.
    let check = |durable_at_ms: [Option<u64>; 4], expected: Option<u64>| {
        let mut raft = syncing();
        raft.flush(after(100), &mut Vec::new());
        raft.append(10);
        for (id, at_ms) in (8..).zip(durable_at_ms) {
            // All have got it.
            says(&mut raft, id, 2, 3, after(101));
            if let Some(at_ms) = at_ms {
                says(&mut raft, id, 3, 3, after(at_ms));
            }
        }
        let to = gives_way(&mut raft, 2, 500, false);
        assert_eq!(to, expected.map(MemberId), "{durable_at_ms:?}");
        assert_eq!(raft.role(), Role::Leader);
        // Another attempt is of no use, or leads no longer.
        let mut raft = raft;
        raft.tick(after(1_000), &mut Vec::new());
        raft.leading.transfer = None;
        gives_way(&mut raft, 2, 500, true);
        assert_eq!(raft.role() != Role::Leader, expected.is_some());
    };
    check([None; 4], None);
    check([Some(110); 4], Some(11));
    check([Some(110), Some(110), Some(350), None], Some(10));
    check([Some(110), Some(110), Some(351), None], None);
    check([Some(110), Some(110), None, None], None);
    check([Some(400); 4], None);
}

/// Goal: while nothing is appended nobody waits for the disk, whatever was made durable before. An entry that leaves
/// with the beginning of the sync counts.
#[test]
fn nothing_appended_since() {
    let mut raft = syncing();
    for id in 8..=11 {
        says(&mut raft, id, 2, 2, after(400));
    }
    assert_eq!(gives_way(&mut raft, 2, 500, false), None);
    raft.append(10);
    raft.sync_began(Index(2), after(500));
    for id in 8..=11 {
        says(&mut raft, id, 3, 3, after(510));
    }
    // Counted from the second sync on.
    let stall = SyncStall {
        span: Duration::from_millis(500),
        mark: Index(3),
        again: false,
    };
    raft.sync_stalled(stall, after(1_000), &mut Vec::new());
    assert_eq!(raft.transfer_target(), Some(MemberId(11)));
}

/// Goal: who lacks what was there half a timeout ago, and owes nothing that it has got, cannot be sent it: after four
/// timeouts its disk counts as better. Who was not heard since, or owes it, is no better.
#[test]
fn what_cannot_be_sent() {
    let check = |verified: u64, at_ms: u64, silent_ms: u64, mark: u64, expected: Option<u64>| {
        let mut raft = syncing();
        raft.append(10);
        for id in 8..=11 {
            says(&mut raft, id, 2, verified, after(at_ms - silent_ms));
        }
        let to = gives_way(&mut raft, mark, at_ms, false);
        assert_eq!(
            to,
            expected.map(MemberId),
            "{verified} {at_ms} {silent_ms} {mark}"
        );
    };
    check(2, 4_000, 100, 3, Some(11));
    check(3, 4_000, 100, 3, None);
    check(2, 4_000, 500, 3, None);
    // A disk that is merely slow may complete its sync, and then it is sent.
    check(2, 500, 100, 3, None);
    check(2, 3_999, 100, 3, None);
    // It has only just been appended, and may be on its way.
    check(2, 4_000, 100, 2, None);
}
