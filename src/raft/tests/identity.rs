//! Whose word is heard, of data directories that take the place of others.

use super::*;
use crate::base::limits::RAFT_MEMBERS_MAX;

/// Goal: who was elected from another directory than the one stored here is followed, because the entry that says which one
/// it is comes from that leader; it gets no vote, and once the group has agreed on a directory no other one is heard.
#[test]
fn leader_of_another_directory() {
    let other_directory = |body| Message {
        term: Term(5),
        incarnation: Incarnation(99),
        body,
    };
    let heartbeat = Body::Heartbeat(Heartbeat {
        commit: Index(0),
        sent: Instant(0),
        context: None,
        digest: None,
    });
    let question = Body::VoteRequest(VoteRequest {
        pre: false,
        term: Term(5),
        last: Position {
            term: Term(4),
            index: Index(9),
        },
        transfer: false,
    });
    let check = |agreed: Option<u128>, body: Body, expected: Option<MemberId>| {
        let mut config = config(&[ME, LEADER, OTHER]);
        let agreed = agreed.map(|incarnation| (LEADER, Incarnation(incarnation)));
        config.memberships[0].1.incarnations.extend(agreed);
        let mut raft = Raft::new(config, HardState::default(), LogTerms::default(), Index(0));
        let mut outputs = Vec::new();
        raft.step(LEADER, other_directory(body), Instant(1), &mut outputs);
        assert_eq!(raft.leader(), expected, "{agreed:?}: {outputs:?}");
        let heard = expected.is_some();
        assert_eq!(raft.term() == Term(5), heard, "{agreed:?}: {outputs:?}");
        // So are its forwarded requests and its checkpoints.
        assert_eq!(raft.hears(LEADER, Incarnation(99)), heard, "{agreed:?}");
        // Its greeting was let in before that, if it said that the group has agreed on its directory.
        let known = agreed.map(|(_, incarnation)| incarnation);
        let lets_in = known.is_none_or(|known| known == Incarnation(99));
        let directories = raft.directories();
        assert_eq!(directories.admit(LEADER, Incarnation(99), true), lets_in);
        assert_eq!(
            directories.admit(LEADER, Incarnation(99), false),
            known.is_some() && lets_in
        );
        // What it said in a term that is over counts no more.
        if known.is_none() {
            let newer = Message {
                term: Term(6),
                incarnation: Incarnation(OTHER.0.into()),
                body: Body::NewerTerm,
            };
            raft.step(OTHER, newer, Instant(2), &mut outputs);
            assert!(!raft.hears(LEADER, Incarnation(99)));
        }
    };
    check(None, heartbeat.clone(), Some(LEADER));
    check(Some(8), heartbeat.clone(), None);
    check(Some(99), heartbeat, Some(LEADER));
    check(None, question, None);
}

/// Goal: a refusal of somebody who knows another directory ends a member only while its log does not say that it is
/// this one: committed, or not known to be so far, as after a start.
#[test]
fn refused_though_its_log_names_it() {
    let check = |named_at: Option<u64>, commit: u64, last: u64, expected: &[Output]| {
        let mut config = config(&[ME, LEADER, OTHER]);
        if let Some(at) = named_at {
            let named = config.memberships[0].1.after(&Change::Incarnation(ME, OWN));
            config
                .memberships
                .push((Index(at), named.expect("a change")));
        }
        let mut terms = LogTerms::default();
        for _ in 0..last {
            terms.append(Term(1), 10);
        }
        let recovered = HardState {
            term: Term(1),
            vote: None,
            commit: Index(commit),
        };
        let mut raft = Raft::new(config, recovered, terms, Index(last));
        let refused = Message {
            term: Term(0),
            incarnation: Incarnation(OTHER.0.into()),
            body: Body::IdentityRefused { incarnation: OWN },
        };
        let seen = outputs(|out| raft.step(OTHER, refused, Instant(1), out));
        assert_eq!(seen, expected, "{named_at:?} of {last}, {commit} committed");
        // Nothing is granted for what may still be cut off.
        let agreed = named_at.is_some_and(|at| at <= commit);
        assert_eq!(raft.directories().own_agreed, agreed);
    };
    check(None, 3, 3, &[Output::OwnIdentityRefused]);
    check(Some(2), 3, 3, &[]);
    check(Some(2), 1, 3, &[]);
}

/// A member that starts with one entry, and does not know whether that is committed.
fn with_one_entry(config: Config) -> Raft {
    let mut terms = LogTerms::default();
    terms.append(Term(1), 10);
    let recovered = HardState {
        term: Term(1),
        ..HardState::default()
    };
    Raft::new(config, recovered, terms, Index(1))
}

/// Goal: a member whose log says that it is removed, though nobody knows so far whether that is committed, is still the
/// one that the group has agreed on.
#[test]
fn refused_while_it_is_removed() {
    let mut config = config(&[ME, LEADER, OTHER]);
    config.memberships[0].1.incarnations.insert(ME, OWN);
    let removed = config.memberships[0].1.after(&Change::Remove(ME));
    config
        .memberships
        .push((Index(1), removed.expect("a change")));
    let mut raft = with_one_entry(config);
    let refused = Body::IdentityRefused { incarnation: OWN };
    assert_eq!(say(&mut raft, OTHER, refused, Instant(1)), []);
}

/// Goal: an empty directory that met a member's lost directory before the right one hears the right one as soon as
/// somebody tells which it is, and no more counts what the lost one confirmed.
#[test]
fn met_the_lost_directory_first() {
    let [lost, right] = [Incarnation(88), Incarnation(LEADER.0.into())];
    let mut config = config(&[ME, LEADER, OTHER, MemberId(10)]);
    config.confirmed = false;
    config.incarnations.insert(LEADER, lost);
    let mut raft = Raft::new(config, HardState::default(), LogTerms::default(), Index(0));
    let confirms = |raft: &mut Raft, from: MemberId, by: Incarnation, agreed: &[_]| {
        let voters = Voters {
            changed_at: Index(5),
            ids: [ME, LEADER, OTHER, MemberId(10)].into(),
            agreed: agreed.into(),
        };
        let message = Message {
            term: Term(0),
            incarnation: by,
            body: Body::IdentityConfirmed {
                incarnation: OWN,
                voters,
            },
        };
        outputs(|out| raft.step(from, message, Instant(1), out))
    };
    let of_other = Incarnation(OTHER.0.into());
    assert_eq!(confirms(&mut raft, LEADER, lost, &[]), []);
    let learn = Output::LearnIncarnation {
        member: LEADER,
        incarnation: right,
    };
    let agreed = [(LEADER, right), (OTHER, of_other)];
    assert_eq!(confirms(&mut raft, OTHER, of_other, &agreed), [learn]);
    // What was being stored before is not what counts.
    raft.incarnation_durable(LEADER, lost);
    assert!(!raft.hears(LEADER, right));
    raft.incarnation_durable(LEADER, right);
    assert!(raft.hears(LEADER, right));
    assert!(!raft.hears(LEADER, lost));
    assert_eq!(
        confirms(&mut raft, MemberId(10), Incarnation(10), &agreed),
        []
    );
    let seen = confirms(&mut raft, LEADER, right, &agreed);
    assert_eq!(seen, [Output::IdentityConfirmed]);
}

/// Goal: a member whose directory is confirmed, and that hears no leader, asks on as long as a voter's directory may be a lost
/// one, and hears the right one as soon as a member tells which it is. What somebody invented tells, or more than there
/// can be, changes nothing.
#[test]
fn learns_of_a_lost_directory_later() {
    let [lost, right] = [Incarnation(88), Incarnation(LEADER.0.into())];
    let late = Instant(0) + Duration::from_secs(3);
    let member = |agreed: Option<Incarnation>| {
        let mut config = config(&[ME, LEADER, OTHER]);
        config.incarnations.insert(LEADER, lost);
        for id in [LEADER, OTHER] {
            let of = agreed.map(|right| match id {
                LEADER => right,
                _ => Incarnation(id.0.into()),
            });
            let in_force = &mut config.memberships[0].1.incarnations;
            in_force.extend(of.map(|of| (id, of)));
        }
        let mut raft = Raft::new(config, HardState::default(), LogTerms::default(), Index(0));
        raft.tick(Instant(0), &mut Vec::new());
        raft
    };
    let asks = |raft: &mut Raft, now: Instant| {
        let is_question = |output: &Output| {
            matches!(output, Output::Send { to: OTHER, message }
                if message.body == Body::IdentityQuestion)
        };
        outputs(|out| raft.tick(now, out)).iter().any(is_question)
    };
    assert!(!asks(&mut member(Some(right)), late), "all are agreed on");
    let mut raft = member(None);
    assert!(!asks(&mut raft, Instant(0) + Duration::from_secs(1)));
    assert!(asks(&mut raft, late));

    let says = |raft: &mut Raft, from: MemberId, agreed: Vec<(MemberId, Incarnation)>| {
        let voters = Voters {
            changed_at: Index(5),
            ids: [ME, LEADER, OTHER].into(),
            agreed,
        };
        let body = Body::IdentityConfirmed {
            incarnation: OWN,
            voters,
        };
        let said = say(raft, from, body, late);
        if let [
            Output::LearnIncarnation {
                member,
                incarnation,
            },
        ] = said[..]
        {
            raft.incarnation_durable(member, incarnation);
        }
        said
    };
    let invented = MemberId(55);
    let learn = |member, incarnation| Output::LearnIncarnation {
        member,
        incarnation,
    };
    let known = learn(invented, Incarnation(invented.0.into()));
    assert_eq!(says(&mut raft, invented, Vec::new()), [known]);
    assert_eq!(says(&mut raft, invented, vec![(LEADER, right)]), []);
    let too_many = vec![(LEADER, right); RAFT_MEMBERS_MAX + 1];
    assert_eq!(says(&mut raft, OTHER, too_many), []);
    assert!(!raft.hears(LEADER, right));
    let told = says(&mut raft, OTHER, vec![(LEADER, right)]);
    assert_eq!(told, [learn(LEADER, right)]);
    assert!(raft.hears(LEADER, right) && !raft.hears(LEADER, lost));
}

/// Goal: an entry that is not committed and names a lost directory holds nobody up either: once a member has told which one
/// the group has agreed on, and that is stored, that one is heard.
#[test]
fn learns_of_a_lost_directory_that_an_entry_names() {
    let [lost, right] = [Incarnation(88), Incarnation(LEADER.0.into())];
    let late = Instant(0) + Duration::from_secs(3);
    let check = |stored: Option<Incarnation>| {
        let mut config = config(&[ME, LEADER, OTHER]);
        config.incarnations.remove(&LEADER);
        config.incarnations.extend(stored.map(|of| (LEADER, of)));
        let agreed = &mut config.memberships[0].1;
        // So that nobody else is in question.
        agreed
            .incarnations
            .insert(OTHER, Incarnation(OTHER.0.into()));
        let mut named = agreed.clone();
        named.incarnations.insert(LEADER, lost);
        config.memberships.push((Index(1), named));
        let mut raft = with_one_entry(config);
        raft.tick(Instant(0), &mut Vec::new());
        assert!(raft.hears(LEADER, lost) && !raft.hears(LEADER, right));
        let asked = outputs(|out| raft.tick(late, out));
        let asks = |output: &Output| {
            matches!(output, Output::Send { to: OTHER, message }
                if message.body == Body::IdentityQuestion)
        };
        assert!(asked.iter().any(asks), "{stored:?}: {asked:?}");

        let body = Body::IdentityConfirmed {
            incarnation: OWN,
            voters: Voters {
                changed_at: Index(1),
                ids: [ME, LEADER, OTHER].into(),
                agreed: vec![(LEADER, right)],
            },
        };
        let before = (raft.directories(), raft.directories_version());
        let seen = outputs(|out| raft.step(OTHER, of(OTHER, 1, body), late, out));
        // Connections follow the version.
        assert_ne!(raft.directories(), before.0, "{stored:?}");
        assert_ne!(raft.directories_version(), before.1, "{stored:?}");
        let learnt = seen.contains(&Output::LearnIncarnation {
            member: LEADER,
            incarnation: right,
        });
        assert_eq!(learnt, stored != Some(right), "{stored:?}: {seen:?}");
        assert_eq!(raft.hears(LEADER, right), stored == Some(right));
        raft.incarnation_durable(LEADER, right);
        assert!(raft.hears(LEADER, right) && !raft.hears(LEADER, lost));
        let directories = raft.directories();
        assert!(directories.admit(LEADER, right, false) && !directories.admit(LEADER, lost, false));
        assert_eq!(directories.stored.get(&LEADER), Some(&right));
    };
    check(Some(lost));
    check(Some(right));
    check(None);
}

/// Goal: what only a liar can say about the log and who leads is dropped with a word, and changes nothing, where the group has
/// not agreed on the directory that it comes from.
#[test]
fn lies_of_an_invented_directory() {
    let invented = MemberId(55);
    let now = Instant(1);
    // Entries 1 to 3 are of term 2, and the second is committed; the leader of term 3 has sent the fourth.
    let follower = |released: u64| {
        let mut terms = LogTerms::default();
        for _ in 0..3 {
            terms.append(Term(2), 10);
        }
        let recovered = HardState {
            term: Term(2),
            vote: None,
            commit: Index(2),
        };
        let mut config = config(&[ME, LEADER, OTHER]);
        let of_invented = Incarnation(invented.0.into());
        config.incarnations.insert(invented, of_invented);
        config.memberships[0]
            .1
            .incarnations
            .insert(LEADER, Incarnation(LEADER.0.into()));
        let mut raft = Raft::new(config, recovered, terms, Index(3));
        let append = append_of((2, 3), &[3], 2);
        outputs(|out| raft.step(LEADER, of(LEADER, 3, append), now, out));
        assert_eq!((raft.leader(), raft.last_index()), (Some(LEADER), Index(4)));
        raft.log_released(Index(released));
        raft
    };
    let check = |released: u64, term: u64, body: Body, is_lie: bool| {
        let mut raft = follower(released);
        let before = (raft.term(), raft.leader(), raft.log().clone());
        let message = of(invented, term, body.clone());
        let seen = outputs(|out| raft.step(invented, message, now, out));
        let refused = Output::RefusedPeer {
            member: invented,
            incarnation: Incarnation(invented.0.into()),
            why: PeerRefusal::Impossible,
        };
        assert_eq!(seen == [refused], is_lie, "{body:?}: {seen:?}");
        let after = (raft.term(), raft.leader(), raft.log().clone());
        assert_eq!(before == after, is_lie, "{body:?}");
    };
    let heartbeat = Body::Heartbeat(Heartbeat {
        commit: Index(0),
        sent: now,
        context: None,
        digest: None,
    });
    // Another one leads in this term; in a later term anybody may.
    check(0, 3, heartbeat.clone(), true);
    check(0, 3, append_of((3, 4), &[3], 0), true);
    check(0, 4, heartbeat, false);
    // What is committed is replaced, or not what comes before.
    check(0, 4, append_of((2, 1), &[4], 0), true);
    check(0, 4, append_of((1, 2), &[4], 0), true);
    check(0, 4, append_of((2, 2), &[4], 0), false);
    // Nor is what was compared when it was released.
    check(2, 4, append_of((1, 1), &[1, 1, 1, 1], 0), true);
    check(2, 4, append_of((1, 1), &[2, 4], 0), false);

    // It was there first, in a later term: the leader's word counts all the same.
    let mut raft = follower(0);
    for (from, prev, entries) in [(invented, (3, 4), &[4, 4]), (LEADER, (3, 4), &[3, 5])] {
        let message = of(from, 5, append_of(prev, entries, 0));
        raft.step(from, message, now, &mut Vec::new());
        assert_eq!(raft.leader(), Some(from));
    }
    let end = Position {
        term: Term(5),
        index: Index(6),
    };
    assert_eq!(raft.log().last(), end);
}

fn of(member: MemberId, term: u64, body: Body) -> Message {
    Message {
        term: Term(term),
        incarnation: Incarnation(member.0.into()),
        body,
    }
}

/// Entries of these terms after the one of a term at an index.
fn append_of(prev: (u64, u64), terms: &[u64], commit: u64) -> Body {
    let mut entries = Entries::default();
    for &term in terms {
        entries.push(Term(term), 10);
    }
    Body::Append(Append {
        prev: Position {
            term: Term(prev.0),
            index: Index(prev.1),
        },
        entries,
        commit: Index(commit),
        probe: true,
    })
}
