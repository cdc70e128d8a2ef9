//! Followers that lack what they have acknowledged.

use super::*;

/// A follower is without the entry at `prev`.
fn rejects(
    raft: &mut Raft,
    id: MemberId,
    prev: u64,
    standing: Standing,
    now: Instant,
) -> Vec<Output> {
    let result = AppendResult::Rejected {
        prev: Index(prev),
        hint: Position::default(),
    };
    let rejected = AppendResponse { result, standing };
    say(raft, id, Body::AppendResponse(rejected), now)
}

/// Goal: a follower that lacks what it has acknowledged is named once, and sent no entry; what it said before it acknowledged
/// that, and comes late, names nobody.
#[test]
fn follower_forgot() {
    let now = Instant(0) + Duration::from_secs(5);
    let id = MemberId(8);
    let rejects = |raft: &mut Raft, prev: u64, standing| rejects(raft, id, prev, standing, now);
    let mut raft = leader_of_five(now);
    says(&mut raft, id.0, 2, 2, now);
    assert_eq!(rejects(&mut raft, 1, Standing::Whole), []);
    // It starts again, and is asked about the entry at 2.
    raft.peer_disconnected(id, now, &mut Vec::new());
    raft.flush(now, &mut Vec::new());
    assert_eq!(rejects(&mut raft, 1, Standing::Whole), []);
    let forgot = Output::FollowerForgot {
        member: id,
        acknowledged: Index(2),
    };
    assert_eq!(rejects(&mut raft, 2, Standing::Whole), [forgot]);
    assert_eq!(rejects(&mut raft, 2, Standing::Whole), []);
    let to_it = |output: &Output| matches!(output, Output::Send { to, .. } if *to == id);
    assert!(!outputs(|out| raft.flush(now, out)).iter().any(to_it));
    // One that says itself that it has lost something is brought up to date.
    assert_eq!(rejects(&mut raft, 2, Standing::Rebuilding), []);
    assert!(outputs(|out| raft.flush(now, out)).iter().any(to_it));
}

/// Goal: what a follower had acknowledged and lacks makes up no majority, and it is not the one that may take over.
#[test]
fn what_was_forgotten_counts_for_nobody() {
    let now = Instant(0) + Duration::from_secs(5);
    let [has_all, forgets] = [8, 11].map(MemberId);
    let mut raft = leader_of_five(now);
    raft.append(10);
    raft.log_durable(Index(3), &mut Vec::new());
    says(&mut raft, forgets.0, 3, 3, now);
    raft.peer_disconnected(forgets, now, &mut Vec::new());
    raft.flush(now, &mut Vec::new());
    let said = rejects(&mut raft, forgets, 3, Standing::Whole, now);
    assert!(matches!(said[..], [Output::FollowerForgot { .. }]));
    says(&mut raft, has_all.0, 3, 3, now);
    assert_eq!(raft.commit(), Index(1), "two of five have it");
    assert_eq!(raft.transfer_leader(None, now), Ok(has_all));
    says(&mut raft, 9, 3, 3, now);
    assert_eq!(raft.commit(), Index(3));
}

/// Goal: a follower that lacks what it has acknowledged is asked after each heartbeat whether it has it again, without entries,
/// also when the log begins behind that by now, and never given a checkpoint; when it has it, it gets what follows.
#[test]
fn forgot_and_asked_again() {
    let now = Instant(0) + Duration::from_secs(5);
    let id = MemberId(8);
    let mut raft = leader_of_five(now);
    let rejects = |raft: &mut Raft, prev: u64| rejects(raft, id, prev, Standing::Whole, now);
    let answers_heartbeat = |raft: &mut Raft| {
        let response = HeartbeatResponse {
            sent: now,
            context: None,
            matched: Matched::default(),
            standing: Standing::Whole,
        };
        say(raft, id, Body::HeartbeatResponse(response), now)
    };
    // What it is sent at the end of a turn: the index before, and how many entries.
    let sent = |raft: &mut Raft| -> Vec<(u64, u64)> {
        let outputs = outputs(|out| raft.flush(now, out));
        let needs_checkpoint = |output: &&Output| matches!(output, Output::NeedsCheckpoint { .. });
        assert_eq!(outputs.iter().find(needs_checkpoint), None);
        let append = |output: &Output| match output {
            Output::Send { to, message } if *to == id => match &message.body {
                Body::Append(append) => Some((append.prev.index.0, append.entries.count())),
                _ => None,
            },
            _ => None,
        };
        outputs.iter().filter_map(append).collect()
    };
    says(&mut raft, 8, 2, 2, now);
    raft.peer_disconnected(id, now, &mut Vec::new());
    raft.append(10);
    assert_eq!(sent(&mut raft), [(2, 1)]);
    assert!(matches!(
        rejects(&mut raft, 2)[..],
        [Output::FollowerForgot { .. }]
    ));
    assert_eq!(sent(&mut raft), []);
    answers_heartbeat(&mut raft);
    assert_eq!(sent(&mut raft), [(2, 0)]);
    assert_eq!(rejects(&mut raft, 2), []);

    raft.log_durable(Index(3), &mut Vec::new());
    for other in [9, 10] {
        says(&mut raft, other, 3, 3, now);
    }
    assert_eq!(raft.commit(), Index(3));
    raft.log_released(Index(3));
    raft.append(10);
    answers_heartbeat(&mut raft);
    assert_eq!(sent(&mut raft), [(3, 0)]);
    assert_eq!(rejects(&mut raft, 3), []);
    assert_eq!(sent(&mut raft), []);

    // Its own directory is there again.
    says(&mut raft, 8, 3, 3, now);
    assert_eq!(sent(&mut raft), [(3, 1)]);
}
