//! What one member does by itself. What members do to each other is in `tests/raft`.

use super::*;

mod elections;
mod forgot;
mod identity;
mod outages;
mod stalls;
mod transfers;

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
        rebuild: None,
        vote_floor: Term(0),
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
    let late = Instant(0) + Duration::from_secs(2);
    assert_eq!(outputs(|out| raft.tick(late, out)).len(), 1);
    let voted = raft.hard_state();
    // The requests for votes leave when the own vote is durable, and not before.
    assert_eq!(outputs(|out| raft.hard_state_durable(voted, out)).len(), 2);
    assert_eq!(raft.role(), Role::Candidate);
    assert!(!raft.has_committed_in_term());
}

/// Goal: a candidate whose own vote is not durable does not campaign again, however long that takes: on a slow disk it
/// would never ask anybody. Then it does.
#[test]
fn one_campaign_at_a_time() {
    let mut config = config(&[ME, MemberId(8), MemberId(9)]);
    config.pre_vote = false;
    let mut raft = Raft::new(config, HardState::default(), LogTerms::default(), Index(0));
    raft.tick(Instant(0), &mut Vec::new());
    for seconds in [3, 6, 9] {
        let late = Instant(0) + Duration::from_secs(seconds);
        raft.tick(late, &mut Vec::new());
        assert_eq!((raft.term(), raft.role()), (Term(1), Role::Candidate));
        assert!(raft.next_deadline() > Some(late), "it is called at once");
    }
    let voted = raft.hard_state();
    assert_eq!(outputs(|out| raft.hard_state_durable(voted, out)).len(), 2);
    let late = Instant(0) + Duration::from_secs(12);
    raft.tick(late, &mut Vec::new());
    assert_eq!(raft.term(), Term(2));
}

const LEADER: MemberId = MemberId(8);
const OTHER: MemberId = MemberId(9);

/// A member of three whose log, of one entry in term 1, lost what followed, at the leader's mercy.
struct Damaged {
    raft: Raft,
    outputs: Vec<Output>,
}

impl Damaged {
    fn new(vote_floor: Term, every_voter: bool) -> Damaged {
        let mut config = config(&[ME, LEADER, OTHER]);
        config.vote_floor = vote_floor;
        config.rebuild = Some(Rebuild {
            through: Index(0),
            every_voter,
        });
        let mut terms = LogTerms::default();
        terms.append(Term(1), 10);
        let recovered = HardState {
            term: Term(1),
            vote: None,
            commit: Index(1),
        };
        Damaged {
            raft: Raft::new(config, recovered, terms, Index(1)),
            outputs: Vec::new(),
        }
    }

    fn hear(&mut self, from: MemberId, term: Term, body: Body) {
        let message = Message {
            term,
            incarnation: Incarnation(from.0.into()),
            body,
        };
        let outputs = &mut self.outputs;
        outputs.clear();
        self.raft.step(from, message, Instant(1), outputs);
        self.raft.flush(Instant(1), outputs);
        self.raft
            .hard_state_durable(self.raft.hard_state(), outputs);
        self.raft.log_durable(self.raft.last_index(), outputs);
    }

    /// The leader of a term sends two entries and says that they are committed.
    fn append(&mut self, term: Term) {
        let mut entries = Entries::default();
        entries.push(term, 10);
        entries.push(term, 10);
        let append = Append {
            prev: Position {
                term: Term(1),
                index: Index(1),
            },
            entries,
            commit: Index(3),
            probe: true,
        };
        self.hear(LEADER, term, Body::Append(append));
    }

    /// What it asked last.
    fn question(&self) -> ReadContext {
        let question = |output: &Output| match output {
            Output::Send { message, .. } => match message.body {
                Body::ReadRequest { context, .. } => Some(context),
                _ => None,
            },
            _ => None,
        };
        let found = self.outputs.iter().rev().find_map(question);
        found.expect("it asks the leader")
    }

    fn answer(&mut self, term: Term, context: ReadContext, last: Index) {
        let answer = Body::ReadResponse {
            context,
            index: Index(1),
            last,
        };
        self.hear(LEADER, term, answer);
    }

    fn votes_in(&mut self, term: Term) -> bool {
        self.raft
            .peer_disconnected(LEADER, Instant(1), &mut Vec::new());
        let request = VoteRequest {
            pre: false,
            term,
            last: Position {
                term,
                index: Index(9),
            },
            transfer: false,
        };
        self.hear(OTHER, term, Body::VoteRequest(request));
        let granted = |output: &Output| {
            matches!(output, Output::Send { message, .. }
                if matches!(message.body, Body::VoteResponse(vote) if vote.granted && !vote.pre))
        };
        self.outputs.iter().any(granted)
    }
}

/// Goal: a damaged member is whole when it holds all that the confirmed leader had, not what is committed or
/// what its own log shows; and when another leader comes, it asks that one.
#[test]
fn rebuilt_through_the_leaders_end() {
    let mut member = Damaged::new(Term(2), false);
    member.append(Term(2));
    let question = member.question();
    assert!(
        member.raft.is_rebuilding(),
        "nobody has confirmed the leader"
    );
    member.answer(Term(2), ReadContext(question.0 ^ 1), Index(3));
    assert!(member.raft.is_rebuilding(), "an answer to another question");
    member.answer(Term(2), question, Index(4));
    assert!(member.raft.is_rebuilding(), "one entry is missing");
    member.hear(
        LEADER,
        Term(5),
        Body::Append(Append {
            prev: Position {
                term: Term(2),
                index: Index(3),
            },
            entries: Entries::default(),
            commit: Index(3),
            probe: true,
        }),
    );
    let question = member.question();
    member.answer(Term(5), question, Index(3));
    assert_eq!(
        member
            .outputs
            .iter()
            .filter(|output| **output == Output::Rebuilt)
            .count(),
        1
    );
}

/// Goal: the votes that a damaged log has forgotten are not given again: neither up to the term that was found
/// behind the damage, nor in a term it entered while it was rebuilt.
#[test]
fn forgotten_votes() {
    let check = |floor: u64, rebuilt_in: u64, votes: &[(u64, bool)]| {
        let mut member = Damaged::new(Term(floor), false);
        assert!(!member.votes_in(Term(rebuilt_in)), "it is damaged");
        member.append(Term(rebuilt_in));
        let question = member.question();
        member.answer(Term(rebuilt_in), question, Index(3));
        assert!(!member.raft.is_rebuilding());
        for &(term, expected) in votes {
            assert_eq!(
                member.votes_in(Term(term)),
                expected,
                "floor {floor}, term {term}"
            );
        }
    };
    check(4, 4, &[(4, false), (5, true)]);
    check(1, 3, &[(2, false), (3, false), (4, true)]);
    // The floor stays when the log is whole again: here the log's own term is below it.
    let mut config = config(&[ME, LEADER, OTHER]);
    config.vote_floor = Term(6);
    let mut member = Damaged {
        raft: Raft::new(config, HardState::default(), LogTerms::default(), Index(0)),
        outputs: Vec::new(),
    };
    assert!(!member.votes_in(Term(5)) && !member.votes_in(Term(6)));
    assert!(member.votes_in(Term(7)));
}

/// Goal: when nothing tells the newest term, every other voter is heard first, and the latest term of any of them
/// is entered without a vote.
#[test]
fn lost_term() {
    let mut member = Damaged::new(Term(0), true);
    member.append(Term(2));
    let question = member.question();
    member.answer(Term(2), question, Index(3));
    assert!(member.raft.is_rebuilding(), "the other voter was not heard");
    let behind = VoteRequest {
        pre: true,
        term: Term(8),
        last: Position::default(),
        transfer: false,
    };
    member.hear(OTHER, Term(7), Body::VoteRequest(behind));
    assert_eq!(member.raft.term(), Term(7));
    assert!(member.raft.is_rebuilding(), "it may have voted in term 7");
    member.hear(
        LEADER,
        Term(8),
        Body::Append(Append {
            prev: Position {
                term: Term(2),
                index: Index(3),
            },
            entries: Entries::default(),
            commit: Index(3),
            probe: true,
        }),
    );
    let question = member.question();
    member.answer(Term(8), question, Index(3));
    assert!(!member.raft.is_rebuilding());
    assert!(!member.votes_in(Term(8)) && member.votes_in(Term(9)));
}

fn say(raft: &mut Raft, from: MemberId, body: Body, now: Instant) -> Vec<Output> {
    let message = Message {
        term: raft.term(),
        incarnation: Incarnation(from.0.into()),
        body,
    };
    outputs(|out| raft.step(from, message, now, out))
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

/// Goal: a lease counts on nobody whose log may end with another membership than the leader's: it must hold an entry of
/// the leader's own term, and not only the one that turned leases on.
#[test]
fn lease_of_a_stale_tail() {
    let now = Instant(0) + Duration::from_secs(5);
    let [follows, acknowledges, third] = [8, 9, 10].map(MemberId);
    let matched = |index| Matched {
        durable: Index(index),
        verified: Index(index),
    };
    let check = |third_has: u64, expected: bool| {
        let mut raft = leader_of_five(now);
        for from in [follows, acknowledges] {
            let accepted = AppendResponse {
                result: AppendResult::Accepted(matched(2)),
                standing: Standing::Whole,
            };
            say(&mut raft, from, Body::AppendResponse(accepted), now);
        }
        assert!(raft.has_committed_in_term());
        // Twice: what the first answer says of the log counts for the second.
        for (from, index) in [(follows, 2), (third, third_has), (third, third_has)] {
            let answer = HeartbeatResponse {
                sent: now,
                context: None,
                matched: matched(index),
                standing: Standing::Whole,
            };
            say(&mut raft, from, Body::HeartbeatResponse(answer), now);
        }
        let round = raft.read();
        let ready = Output::ReadReady {
            round,
            index: Index(2),
        };
        let seen = outputs(|out| raft.flush(now, out));
        assert_eq!(seen.contains(&ready), expected, "{third_has}: {seen:?}");
    };
    check(0, false);
    check(1, false);
    check(2, true);
}

/// The leader of term 2, by a log of two entries: the first, of term 1 and committed, turned leases on.
fn leader_of_five(now: Instant) -> Raft {
    let mut config = config(&[7, 8, 9, 10, 11].map(MemberId));
    config.pre_vote = false;
    let lease = Change::ReadMode(ReadMode::Lease);
    let lease = config.memberships[0].1.after(&lease).expect("a change");
    config.memberships.push((Index(1), lease));
    let mut terms = LogTerms::default();
    terms.append(Term(1), 10);
    let recovered = HardState {
        term: Term(1),
        vote: None,
        commit: Index(1),
    };
    let mut raft = Raft::new(config, recovered, terms, Index(1));
    // It waits until no promise from before its start can hold, then as long as anybody, and campaigns.
    for at in [Instant(0), Instant(0) + Duration::from_secs(2), now] {
        raft.tick(at, &mut Vec::new());
    }
    raft.hard_state_durable(raft.hard_state(), &mut Vec::new());
    for from in [8, 9].map(MemberId) {
        let vote = VoteResponse {
            pre: false,
            term: Term(2),
            granted: true,
        };
        say(&mut raft, from, Body::VoteResponse(vote), now);
    }
    assert_eq!((raft.role(), raft.term()), (Role::Leader, Term(2)));
    raft.append(10);
    raft.log_durable(Index(2), &mut Vec::new());
    raft
}

/// Goal: a directory that is being stored when the removal of its member is committed is forgotten like one that was
/// stored.
#[test]
fn removed_while_it_is_stored() {
    let mut config = config(&[ME, LEADER, OTHER]);
    config.incarnations.remove(&OTHER);
    let removed = config.memberships[0].1.after(&Change::Remove(OTHER));
    let mut raft = Raft::new(config, HardState::default(), LogTerms::default(), Index(0));
    let seen = say(&mut raft, OTHER, Body::IdentityQuestion, Instant(1));
    let incarnation = Incarnation(OTHER.0.into());
    let learn = Output::LearnIncarnation {
        member: OTHER,
        incarnation,
    };
    assert_eq!(seen, [learn]);
    let append = |prev: u64, count: usize, commit: u64| {
        let mut entries = Entries::default();
        for _ in 0..count {
            entries.push(Term(1), 10);
        }
        let message = Message {
            term: Term(1),
            incarnation: Incarnation(LEADER.0.into()),
            body: Body::Append(Append {
                prev: Position {
                    term: Term(prev.min(1)),
                    index: Index(prev),
                },
                entries,
                commit: Index(commit),
                probe: true,
            }),
        };
        (LEADER, message, Instant(1))
    };
    let mut seen = Vec::new();
    let (from, message, now) = append(0, 1, 0);
    raft.step(from, message, now, &mut seen);
    raft.membership_appended(Index(1), removed.expect("a change"), &mut seen);
    let forget = Output::ForgetIncarnation { member: OTHER };
    assert!(!seen.contains(&forget), "that is not committed: {seen:?}");
    let (from, message, now) = append(1, 0, 1);
    raft.step(from, message, now, &mut seen);
    assert!(seen.contains(&forget), "{seen:?}");
    raft.incarnation_durable(OTHER, incarnation);
    assert_eq!(raft.directory_of(OTHER), None);
}

/// Goal: what invented members answer takes no memory, however many they are.
#[test]
fn answers_of_strangers() {
    let check = |confirmed: bool, body: Body| {
        let mut config = config(&[ME, LEADER, OTHER]);
        config.confirmed = confirmed;
        let recovered = HardState {
            term: Term(1),
            ..HardState::default()
        };
        let mut raft = Raft::new(config, recovered, LogTerms::default(), Index(0));
        raft.tick(Instant(0), &mut Vec::new());
        let now = Instant(0) + Duration::from_secs(3);
        raft.tick(now, &mut Vec::new());
        let mut sizes = Vec::new();
        // Ids of one length.
        for id in 10_000..10_900 {
            say(&mut raft, MemberId(id), body.clone(), now);
            if id % 300 == 299 {
                sizes.push(format!("{:?}{:?}", raft.identity, raft.election).len());
            }
        }
        assert_eq!(sizes, [sizes[0]; 3], "{body:?}");
    };
    for granted in [false, true] {
        let answer = VoteResponse {
            pre: true,
            term: Term(2),
            granted,
        };
        check(true, Body::VoteResponse(answer));
    }
    let confirmed = Body::IdentityConfirmed {
        incarnation: OWN,
        voters: Voters::default(),
    };
    check(false, confirmed);
}

/// Goal: who holds a group together has answered this leader with a word that counts: not who has said nothing yet, and
/// not who has to rebuild its log.
#[test]
fn who_is_heard() {
    let now = Instant(0) + Duration::from_secs(5);
    let id = MemberId(8);
    let mut raft = leader_of_five(now);
    assert!(raft.is_heard(ME) && !raft.is_heard(id));
    for (standing, expected) in [
        (Standing::Rebuilding, false),
        (Standing::Whole, true),
        (Standing::Rebuilding, false),
    ] {
        let answer = HeartbeatResponse {
            sent: now,
            context: None,
            matched: Matched::default(),
            standing,
        };
        say(&mut raft, id, Body::HeartbeatResponse(answer), now);
        assert_eq!(raft.is_heard(id), expected, "{standing:?}");
    }
}
