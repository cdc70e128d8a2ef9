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
        for from in [8, 9, 10].map(MemberId) {
            let accepted = AppendResponse {
                result: AppendResult::Accepted(Matched {
                    durable: Index(2),
                    verified: Index(2),
                }),
                standing: Standing::Whole,
            };
            say(&mut raft, from, Body::AppendResponse(accepted), now);
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
