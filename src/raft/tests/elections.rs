//! What puts a campaign off, and what does not.

use super::*;

/// Goal: a candidate that nobody can elect does not keep off the one that can be. Only a leader that is heard, or a vote
/// that is given, restarts the election timeout (Raft paper, figure 2).
#[test]
fn candidates_without_a_chance() {
    let mut config = config(&[ME, MemberId(8), MemberId(9)]);
    config.pre_vote = false;
    let mut terms = LogTerms::default();
    terms.append(Term(1), 10);
    let recovered = HardState {
        term: Term(1),
        vote: None,
        commit: Index(0),
    };
    let mut raft = Raft::new(config, recovered, terms, Index(1));
    let at = |ms| Instant(0) + Duration::from_millis(ms);
    raft.tick(at(0), &mut Vec::new());
    let mut asks = |term: u64, last: Position, now| {
        let request = VoteRequest {
            pre: false,
            term: Term(term),
            last,
            transfer: false,
        };
        let message = Message {
            term: Term(term),
            incarnation: Incarnation(8),
            body: Body::VoteRequest(request),
        };
        outputs(|out| raft.step(MemberId(8), message, now, out));
        raft.tick(now, &mut Vec::new());
        (raft.term(), raft.role())
    };
    let (longer, shorter) = (
        Position {
            term: Term(1),
            index: Index(1),
        },
        Position {
            term: Term(0),
            index: Index(0),
        },
    );
    // Its log is too short, again and again.
    assert_eq!(asks(2, shorter, at(500)), (Term(2), Role::Follower));
    assert_eq!(asks(3, shorter, at(990)), (Term(3), Role::Follower));
    // Two timeouts have passed since the start.
    assert_eq!(asks(3, shorter, at(2_000)), (Term(4), Role::Candidate));
    // A vote that is given does put a campaign off.
    assert_eq!(asks(5, longer, at(2_990)), (Term(5), Role::Follower));
    assert_eq!(asks(5, longer, at(3_980)), (Term(5), Role::Follower));
    assert_eq!(asks(5, longer, at(4_970)), (Term(5), Role::Follower));
}
