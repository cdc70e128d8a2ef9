//! To whom a leader hands over when it may choose.

use super::*;

/// Goal: who is heard but does not take over is not chosen again before everybody else was; then they are all tried again.
/// Who is not heard is not chosen at all.
#[test]
fn each_in_turn() {
    let mut now = Instant(5_000_000_000);
    let mut raft = leader_of_five(now);
    let mut chosen = Vec::new();
    for _ in 0..5 {
        // The fourth one is silent.
        for from in 8..=10 {
            says(&mut raft, from, 2, 2, now);
        }
        let to = raft.transfer_leader(None, now).expect("somebody is heard");
        chosen.push(to.0);
        assert_eq!(
            raft.transfer_leader(None, now),
            Err(TransferRefusal::UnderWay)
        );
        now = now + raft.election_timeout;
        let seen = outputs(|out| raft.tick(now, out));
        assert!(seen.contains(&Output::TransferAbandoned { to }), "{seen:?}");
    }
    assert_eq!(chosen, [10, 9, 8, 10, 9]);
}

/// Goal: who has handed over waits until somebody leads, but not for ever; who was deposed, and had asked nobody, does not.
#[test]
fn until_somebody_leads() {
    let now = Instant(5_000_000_000);
    let successor = MemberId(11);
    let deposed = |hands_over: bool| {
        let mut raft = leader_of_five(now);
        says(&mut raft, successor.0, 2, 2, now);
        if hands_over {
            assert_eq!(raft.transfer_leader(None, now), Ok(successor));
        }
        raft.flush(now, &mut Vec::new());
        assert!(!raft.waits_for_successor(), "it leads");
        // It campaigns, and hears a heartbeat before its own vote is durable.
        hear(&mut raft, Body::NewerTerm, now);
        assert_eq!(raft.role(), Role::Follower);
        raft
    };
    fn hear(raft: &mut Raft, body: Body, now: Instant) {
        let message = Message {
            term: Term(3),
            incarnation: Incarnation(11),
            body,
        };
        raft.step(MemberId(11), message, now, &mut Vec::new());
    }
    assert!(!deposed(false).waits_for_successor());
    let mut raft = deposed(true);
    assert!(raft.waits_for_successor());
    let heartbeat = Heartbeat {
        commit: Index(0),
        sent: now,
        context: None,
        digest: None,
    };
    hear(&mut raft, Body::Heartbeat(heartbeat), now);
    assert_eq!(raft.leader(), Some(successor));
    assert!(!raft.waits_for_successor());
    let mut raft = deposed(true);
    raft.flush(now + 2 * raft.election_timeout, &mut Vec::new());
    assert!(!raft.waits_for_successor(), "it has had its time");
}
