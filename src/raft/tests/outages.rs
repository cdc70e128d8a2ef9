//! What is said to be the reason why something was not answered in time.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// When a leader is known first.
const ELECTED: Instant = Instant(5_000_000_000);

/// What may be the reason at `now`, for a request that came in so many tenths of a second before.
#[track_caller]
fn check(raft: &mut Raft, now: Instant, tenths: u64, expected: Option<Outage>) {
    raft.flush(now, &mut Vec::new());
    let span = Duration::from_millis(100 * tenths);
    assert_eq!(raft.outage_within(span), expected, "{tenths} tenths ago");
}

/// Goal: this member's election counts for what came in within two election timeouts before it, and for nothing that came
/// later.
#[test]
fn elections() {
    let mut raft = leader_of_five(ELECTED);
    let now = ELECTED + 3 * SECOND;
    check(&mut raft, now, 29, None);
    check(&mut raft, now, 31, Some(Outage::LeaderFailed));
    check(&mut raft, now, 49, Some(Outage::LeaderFailed));
    check(&mut raft, now, 51, None);
}

/// Goal: a leader has lost its connections when a majority is without those that were closed meanwhile.
#[test]
fn connections_of_a_leader() {
    let mut raft = leader_of_five(ELECTED);
    let closed = ELECTED + 3 * SECOND;
    let now = closed + SECOND;
    // The last one is no member.
    for peer in [8, 9, 77].map(MemberId) {
        raft.peer_disconnected(peer, closed, &mut Vec::new());
    }
    check(&mut raft, now, 11, None);
    raft.peer_disconnected(MemberId(10), closed, &mut Vec::new());
    check(&mut raft, now, 11, Some(Outage::ConnectionLost));
    check(&mut raft, now, 9, None);
}

/// Goal: a follower has lost the connection to its leader also when that is back. Where another one was elected, or
/// nobody, nothing is known.
#[test]
fn connection_of_a_follower() {
    let voters = [ME, LEADER, OTHER];
    let terms = LogTerms::default();
    let mut raft = Raft::new(config(&voters), HardState::default(), terms, Index(0));
    let heard = |raft: &mut Raft, from: MemberId, term: u64, now: Instant| {
        let heartbeat = Heartbeat {
            commit: Index(0),
            sent: now,
            context: None,
            digest: None,
        };
        let message = Message {
            term: Term(term),
            incarnation: Incarnation(from.0.into()),
            body: Body::Heartbeat(heartbeat),
        };
        raft.step(from, message, now, &mut Vec::new());
        assert_eq!(raft.leader(), Some(from));
    };
    heard(&mut raft, LEADER, 1, ELECTED);
    let of_other = ELECTED + SECOND;
    raft.peer_disconnected(OTHER, of_other, &mut Vec::new());
    check(&mut raft, of_other, 1, None);
    let closed = ELECTED + 3 * SECOND;
    raft.peer_disconnected(LEADER, closed, &mut Vec::new());
    check(&mut raft, closed, 1, None);
    heard(&mut raft, LEADER, 1, closed);
    let now = closed + SECOND;
    check(&mut raft, now, 11, Some(Outage::ConnectionLost));
    check(&mut raft, now, 9, None);
    heard(&mut raft, OTHER, 2, now);
    check(&mut raft, now, 11, None);
}
