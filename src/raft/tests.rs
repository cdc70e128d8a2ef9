//! What one member does by itself. What members do to each other is in `tests/raft`.

use super::*;

const ME: MemberId = MemberId(7);
const OWN: Incarnation = Incarnation(7);

fn config(voters: &[MemberId]) -> Config {
    Config {
        id: ME,
        incarnation: OWN,
        confirmed: true,
        incarnations: voters
            .iter()
            .map(|&id| (id, Incarnation(id.0.into())))
            .collect(),
        memberships: vec![(Index(0), Membership::of_voters(voters.iter().copied()))],
        rebuild_through: None,
        election_timeout: Duration::from_secs(1),
        heartbeat_interval: Duration::from_millis(100),
        windows: Windows::default(),
        pre_vote: true,
        check_quorum: true,
        seed: 1,
    }
}

fn lone_voter(hard_state: HardState, terms: LogTerms) -> Raft {
    let durable = terms.last_index();
    Raft::new(config(&[ME]), hard_state, terms, durable)
}

fn outputs(step: impl FnOnce(&mut Vec<Output>)) -> Vec<Output> {
    let mut outputs = Vec::new();
    step(&mut outputs);
    outputs
}

/// Goal: a lone voter leads only after its own vote is durable (Raft paper, figure 2: persistent
/// state is updated before responding).
#[test]
fn vote_counts_when_durable() {
    let mut raft = lone_voter(HardState::default(), LogTerms::default());
    let voted = HardState {
        term: Term(1),
        vote: Some(ME),
        commit: Index(0),
    };
    assert_eq!(
        outputs(|out| raft.tick(Instant(0), out)),
        [Output::PersistHardState(voted)]
    );
    assert_eq!(raft.role(), Role::Candidate);
    assert_eq!(raft.next_position(), None);
    assert_eq!(
        outputs(|out| raft.hard_state_durable(voted, out)),
        [
            Output::LeaderChanged(Some(ME)),
            Output::BecameLeader { term: Term(1) }
        ],
    );
    assert_eq!(raft.leader(), Some(ME));
}

/// Goal: an older term's entries are not committed by counting, but by the first entry of the
/// leader's own term after them (Raft paper, section 5.4.2 and figure 8).
#[test]
fn older_terms_commit_with_the_own_one() {
    let mut terms = LogTerms::default();
    terms.append(Term(1), 10);
    terms.append(Term(1), 10);
    let recovered = HardState {
        term: Term(1),
        vote: Some(ME),
        commit: Index(1),
    };
    let mut raft = lone_voter(recovered, terms);
    raft.tick(Instant(0), &mut Vec::new());
    let voted = raft.hard_state();
    raft.hard_state_durable(voted, &mut Vec::new());
    assert_eq!(outputs(|out| raft.log_durable(Index(2), out)), []);
    let round = raft.read();
    assert_eq!(outputs(|out| raft.flush(Instant(0), out)), []);
    assert_eq!(raft.next_position(), Some((Term(2), Index(3))));
    raft.append(10);
    assert_eq!(
        outputs(|out| raft.log_durable(Index(3), out)),
        [Output::Committed(Index(3))]
    );
    let ready = Output::ReadReady {
        round,
        index: Index(3),
    };
    assert_eq!(outputs(|out| raft.flush(Instant(0), out)), [ready]);
}

/// Goal: with three voters one durable log is no majority and one vote elects nobody.
#[test]
fn one_of_three_decides_nothing() {
    let mut config = config(&[ME, MemberId(8), MemberId(9)]);
    config.pre_vote = false;
    let mut raft = Raft::new(config, HardState::default(), LogTerms::default(), Index(0));
    assert_eq!(outputs(|out| raft.tick(Instant(0), out)), []);
    let late = Instant(0) + Duration::from_secs(3);
    assert_eq!(outputs(|out| raft.tick(late, out)).len(), 1);
    let voted = raft.hard_state();
    // The requests for votes leave when the own vote is durable, and not before.
    assert_eq!(outputs(|out| raft.hard_state_durable(voted, out)).len(), 2);
    assert_eq!(raft.role(), Role::Candidate);
    assert!(!raft.has_committed_in_term());
}
