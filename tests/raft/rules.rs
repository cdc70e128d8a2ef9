//! What operators are promised: how many members may fail, and what a returning one does.

use std::collections::BTreeMap;
use std::time::Duration;

use kontiki::base::limits::RAFT_STRANGERS_MAX;
use kontiki::base::{HardState, Incarnation, Index, Instant, MemberId, Term};
use kontiki::raft::{
    AppendResponse, AppendResult, Body, Change, Config, LogTerms, Matched, Membership, Message,
    Output, Position, Raft, ReadMode, Rebuild, Role, Standing, VoteRequest, Windows,
};

use crate::cluster::{Cluster, known_disk};
use crate::member::{Disk, Entry, Options, Payload};

const LONG: Duration = Duration::from_secs(10);

/// Whether a write proposed by whoever leads is committed within ten seconds.
fn writes(cluster: &mut Cluster, value: u64) -> bool {
    cluster.run(LONG);
    let Some(leader) = cluster.leader() else {
        return false;
    };
    cluster.propose(leader, Payload::Data(value));
    cluster.run(LONG);
    let wanted = Payload::Data(value);
    cluster
        .checker
        .committed
        .iter()
        .any(|entry| entry.payload == wanted)
}

/// Goal: one to seven members go on with every number of failures that etcd's table allows, and with
/// none more.
#[test]
fn quorum_and_tolerated_faults() {
    for (members, tolerated) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (7, 3)] {
        for failed in 0..members {
            let mut cluster = Cluster::of_voters(members, members * 10 + failed);
            for id in 1..=failed {
                cluster.crash(MemberId(id), false);
            }
            let expected = failed <= tolerated;
            assert_eq!(
                writes(&mut cluster, 7),
                expected,
                "{failed} of {members} failed"
            );
        }
    }
}

/// Goal: six members split three and three: neither side writes, and both do again afterwards.
#[test]
fn six_split_in_halves() {
    let mut cluster = Cluster::of_voters(6, 1);
    assert!(writes(&mut cluster, 1));
    cluster.split(&[&[1, 2, 3], &[4, 5, 6]]);
    assert!(!writes(&mut cluster, 2));
    let leading = cluster
        .members
        .values()
        .filter(|member| member.raft.role() == Role::Leader);
    assert_eq!(leading.count(), 0, "nobody leads without a majority");
    cluster.cuts.clear();
    assert!(writes(&mut cluster, 3));
}

/// Goal: seven members split four and three: the four write, the three follow when they are back.
#[test]
fn seven_split_four_and_three() {
    let mut cluster = Cluster::of_voters(7, 2);
    assert!(writes(&mut cluster, 1));
    cluster.split(&[&[1, 2, 3, 4], &[5, 6, 7]]);
    assert!(writes(&mut cluster, 2));
    let ahead = cluster.commit(1);
    assert!(cluster.commit(5) < ahead, "the three have heard nothing");
    cluster.cuts.clear();
    cluster.run(LONG);
    for id in 1..=7 {
        assert!(cluster.commit(id) >= ahead, "{id} is behind");
    }
}

/// Goal: a leader that was cut off follows when it is back, and what it had appended alone is gone.
#[test]
fn returned_old_leader_follows() {
    let mut cluster = Cluster::of_voters(3, 3);
    assert!(writes(&mut cluster, 1));
    let old = cluster.leader().expect("somebody leads");
    let rest: Vec<u64> = (1..=3).filter(|&id| id != old.0).collect();
    cluster.split(&[&[old.0], &rest]);
    cluster.propose(old, Payload::Data(99));
    assert!(writes(&mut cluster, 2));
    cluster.cuts.clear();
    cluster.run(LONG);
    let leader = cluster.leader().expect("somebody leads");
    assert_ne!(leader, old);
    let returned = &cluster.members[&old];
    assert_eq!(
        (returned.raft.role(), returned.raft.leader()),
        (Role::Follower, Some(leader))
    );
    assert!(
        !returned
            .log
            .entries
            .iter()
            .any(|entry| entry.payload == Payload::Data(99))
    );
    assert_eq!(returned.log.entries, cluster.members[&leader].log.entries);
}

/// Goal: a member whose log is shorter loses the vote, even when it asks first; by length within a term,
/// and by term before length (Raft paper, section 5.4.1).
#[test]
fn shorter_log_loses_the_vote() {
    for (short, long) in [(vec![1, 1], vec![1, 1, 1]), (vec![1, 1, 1, 1], vec![1, 2])] {
        let mut cluster = Cluster::empty(
            Options {
                pre_vote: false,
                ..Options::default()
            },
            4,
        );
        let ids: Vec<_> = (1..=3).map(MemberId).collect();
        for &id in &ids {
            let mut disk = known_disk(id, Membership::of_voters(ids.iter().copied()), &ids);
            let log = if id == MemberId(1) { &short } else { &long };
            disk.log.entries = log
                .iter()
                .map(|&term| Entry {
                    term: Term(term),
                    payload: Payload::Data(term),
                })
                .collect();
            disk.hard_state.term = Term(2);
            cluster.start(id, disk);
        }
        for _ in 0..5 {
            cluster.now = cluster.now + Duration::from_secs(2);
            cluster.tick(MemberId(1));
            cluster.settle();
            assert_ne!(
                cluster.leader(),
                Some(MemberId(1)),
                "{short:?} beats {long:?}"
            );
        }
        cluster.run(LONG);
        assert!(cluster.leader().is_some_and(|leader| leader != MemberId(1)));
        assert_eq!(
            cluster.members[&MemberId(1)]
                .log
                .at(Index(2))
                .map(|entry| entry.term.0),
            Some(long[1])
        );
    }
}

/// Goal: a checkpoint that a log leads to is committed there and cuts nothing; one that it does not lead to
/// begins the log anew (Raft paper, section 7).
#[test]
fn an_installed_checkpoint_keeps_a_log_that_leads_there() {
    for (term, kept) in [(Term(1), true), (Term(2), false)] {
        let membership = Membership {
            voters: (1..=3).map(MemberId).collect(),
            ..Membership::default()
        };
        let config = Config {
            id: MemberId(1),
            incarnation: Incarnation(1),
            confirmed: true,
            incarnations: BTreeMap::new(),
            memberships: vec![(Index(0), membership.clone())],
            rebuild: None,
            vote_floor: Term(0),
            election_timeout: Duration::from_secs(1),
            heartbeat_interval: Duration::from_millis(100),
            windows: Windows::default(),
            pre_vote: true,
            check_quorum: true,
            seed: 1,
        };
        let mut log = LogTerms::default();
        for _ in 0..5 {
            log.append(Term(1), 10);
        }
        let hard_state = HardState {
            term: Term(1),
            ..HardState::default()
        };
        let mut raft = Raft::new(config, hard_state, log, Index(5));
        let base = Position {
            term,
            index: Index(3),
        };
        let mut outputs = Vec::new();
        let (leader, now) = (MemberId(2), Instant(1));
        assert!(raft.install_checkpoint(leader, Term(2), base, membership, now, &mut outputs));
        let anew = outputs.contains(&Output::ResetLog { base });
        let cuts = |output: &Output| matches!(output, Output::TruncateLog { .. });
        assert_eq!((anew, outputs.iter().any(cuts)), (!kept, false));
        assert!(outputs.contains(&Output::Committed(Index(3))));
        let last = if kept { Index(5) } else { Index(3) };
        assert_eq!((raft.commit(), raft.last_index()), (Index(3), last));
        // A log that begins anew holds nothing yet: only when that is durable may the leader count on it.
        let before = Index(if kept { 3 } else { 0 });
        assert_eq!(acknowledged(&outputs), Some(before));
        if !kept {
            outputs.clear();
            raft.log_durable(Index(3), &mut outputs);
            assert_eq!(acknowledged(&outputs), Some(Index(3)));
        }
    }
}

/// Up to where the log is said to be durable and the same as the leader's.
fn acknowledged(outputs: &[Output]) -> Option<Index> {
    outputs.iter().find_map(|output| match output {
        Output::Send { message, .. } => match &message.body {
            Body::AppendResponse(AppendResponse {
                result: AppendResult::Accepted(matched),
                ..
            }) => Some(matched.durable),
            _ => None,
        },
        _ => None,
    })
}

/// Five members of which 1 leads and 5 are cut off from each other from birth: the others have confirmed 5, and
/// that is enough.
fn led_by_one_that_never_met_five() -> Cluster {
    let ids: Vec<_> = (1..=5).map(MemberId).collect();
    let membership = Membership::of_voters(ids.iter().copied());
    let mut cluster = Cluster::empty(Options::default(), 3);
    for &id in &ids {
        let mut disk = known_disk(id, membership.clone(), &ids);
        if id == MemberId(1) {
            disk.incarnations.remove(&MemberId(5));
        }
        cluster.start(id, disk);
    }
    for (from, to) in [(1, 5), (5, 1)] {
        cluster.cuts.insert((MemberId(from), MemberId(to)));
    }
    for _ in 0..100 {
        cluster.run(Duration::from_millis(100));
        match cluster.leader() {
            Some(MemberId(1)) => break,
            Some(leader) => cluster.with(leader, |raft, _, now| {
                let _ = raft.transfer_leader(Some(MemberId(1)), now);
            }),
            None => {}
        }
    }
    assert_eq!(cluster.leader(), Some(MemberId(1)));
    cluster.run(Duration::from_secs(1));
    cluster
}

/// The directory of 5 is emptied, and it comes back among 1 and 2; who could tell that is cut off.
fn wipe_five(cluster: &mut Cluster) {
    cluster.crash(MemberId(5), true);
    cluster.disks.remove(&MemberId(5));
    cluster.split(&[&[1, 2, 5], &[3, 4]]);
    for (from, to) in [(2, 5), (5, 2)] {
        cluster.cuts.insert((MemberId(from), MemberId(to)));
    }
    let membership = Membership::of_voters((1..=5).map(MemberId));
    cluster.start(MemberId(5), Disk::new(555, membership));
}

/// Goal: what an empty directory acknowledges before a majority has confirmed it commits nothing, and it
/// confirms no leadership.
#[test]
fn an_unconfirmed_directory_is_not_counted() {
    let mut cluster = led_by_one_that_never_met_five();
    let before = cluster.commit(1);
    wipe_five(&mut cluster);
    cluster.propose(MemberId(1), Payload::Data(77));
    cluster.run(Duration::from_millis(400));
    assert_eq!(cluster.commit(1), before, "by 1, 2 and an empty directory");
    let progress = cluster.members[&MemberId(1)].raft.progress(MemberId(5));
    assert!(!progress.expect("a member").counts);
    cluster.run(Duration::from_secs(3));
    assert_ne!(cluster.members[&MemberId(1)].raft.role(), Role::Leader);
}

/// Goal: what others have committed with the word of a directory is not replaced with the word of the empty one
/// that came after it.
#[test]
fn an_emptied_directory_does_not_lose_a_write() {
    let mut cluster = led_by_one_that_never_met_five();
    // The others notice at once that the connections of 1 are closed.
    cluster.split(&[&[1, 2], &[3, 4, 5]]);
    for id in [3, 4, 5].map(MemberId) {
        cluster.with(id, |raft, outputs, now| {
            raft.peer_disconnected(MemberId(1), now, outputs);
        });
    }
    cluster.settle();
    let leads = |id: &MemberId| cluster.members[id].raft.role() == Role::Leader;
    let second = [3, 4, 5].map(MemberId).into_iter().find(leads);
    let second = second.expect("elected at once");
    cluster.propose(second, Payload::Data(1));
    cluster.settle();
    wipe_five(&mut cluster);
    cluster.propose(MemberId(1), Payload::Data(2));
    cluster.run(Duration::from_millis(400));
    cluster.split(&[&[1, 2, 3, 4, 5]]);
    // The checker compares what each of them commits.
    cluster.run(Duration::from_secs(5));
    let last = cluster.commit(3);
    assert!(last >= 4, "nothing is committed after {last}");
    assert_eq!(cluster.commit(1), last);
}

/// Goal: a member that is damaged a second time while it is being rebuilt is rebuilt all the same.
#[test]
fn damaged_twice_under_one_leader() {
    let mut cluster = Cluster::of_voters(3, 9);
    cluster.run(Duration::from_secs(5));
    let leader = cluster.leader().expect("one");
    for value in 0..8 {
        cluster.propose(leader, Payload::Data(value));
        cluster.run(Duration::from_millis(100));
    }
    let victim = MemberId(if leader == MemberId(3) { 2 } else { 3 });
    for kept in [4, 2] {
        cluster.crash(victim, true);
        let disk = cluster.disks.get_mut(&victim).expect("down");
        disk.vote_floor = disk.hard_state.term;
        // Not whole before more is committed.
        disk.rebuild = Some(Rebuild {
            through: Index(20),
            every_voter: false,
        });
        disk.log.entries.truncate(kept);
        disk.hard_state.commit = disk.hard_state.commit.min(Index(kept as u64));
        disk.hard_state.vote = None;
        disk.lost_something = true;
        cluster.with(leader, |raft, outputs, now| {
            raft.peer_disconnected(victim, now, outputs)
        });
        cluster.restart(victim);
        cluster.run(Duration::from_secs(3));
    }
    let last = cluster.members[&leader].raft.last_index();
    assert_eq!(cluster.members[&victim].raft.last_index(), last);
}

/// Goal: terms and indexes that no group comes to are not believed: they would end the member that counts on from
/// them, now or after each start.
#[test]
fn impossible_numbers_are_not_heard() {
    let mut cluster = Cluster::of_voters(3, 9);
    cluster.run(Duration::from_secs(5));
    let leader = cluster.leader().expect("one");
    let follower = MemberId(leader.0 % 3 + 1);
    let term = cluster.members[&leader].raft.term();
    let last = Index(u64::MAX);
    let rejected = AppendResult::Rejected {
        prev: last,
        hint: Position::default(),
    };
    let accepted = AppendResult::Accepted(Matched {
        durable: last,
        verified: last,
    });
    let answer = |result| {
        Body::AppendResponse(AppendResponse {
            result,
            standing: Standing::Whole,
        })
    };
    let vote = |term| {
        Body::VoteRequest(VoteRequest {
            pre: false,
            term,
            last: Position { term, index: last },
            transfer: true,
        })
    };
    let never = Term(u64::MAX);
    // Its next append is a probe.
    cluster.with(leader, |raft, outputs, now| {
        raft.peer_disconnected(follower, now, outputs);
    });
    for (term, body) in [
        (never, Body::NewerTerm),
        (never, vote(never)),
        (term, vote(never)),
        (term, answer(rejected)),
        (term, answer(accepted)),
    ] {
        let message = Message {
            term,
            incarnation: Incarnation(follower.0.into()),
            body,
        };
        cluster.with(leader, |raft, outputs, now| {
            raft.step(follower, message, now, outputs);
        });
    }
    let base = Position {
        term: never,
        index: last,
    };
    cluster.with(follower, |raft, outputs, now| {
        assert!(!raft.wants_checkpoint(never, base));
        let membership = raft.membership().clone();
        assert!(!raft.install_checkpoint(leader, never, base, membership, now, outputs));
    });
    cluster.run(Duration::from_secs(5));
    assert!(
        cluster
            .members
            .values()
            .all(|member| member.raft.term() == term)
    );
    assert!(writes(&mut cluster, 7));
}

/// Goal: whoever is no member by the log is stored and confirmed, up to a bound; above it strangers without end are heard,
/// and take no place on disk. Whoever becomes a member always has one, and gives it back when it is removed.
#[test]
fn members_always_have_a_place() {
    let mut cluster = Cluster::of_voters(3, 9);
    cluster.run(Duration::from_secs(5));
    let leader = cluster.leader().expect("one");
    let term = cluster.members[&leader].raft.term();
    let question = |id: u64| Message {
        term,
        incarnation: Incarnation(id.into()),
        body: Body::IdentityQuestion,
    };
    for id in (100..300).flat_map(|id| [id, id]) {
        for member in 1..=3 {
            cluster.with(MemberId(member), |raft, outputs, now| {
                raft.step(MemberId(id), question(id), now, outputs);
            });
        }
        cluster.settle();
    }
    let known = |cluster: &Cluster| cluster.members[&leader].disk.incarnations.clone();
    let stored = |id: &u64| known(&cluster).contains_key(&MemberId(*id));
    let remembered = |id: &u64| {
        let raft = &cluster.members[&leader].raft;
        raft.directory_of(MemberId(*id)).is_some()
    };
    assert_eq!((100..300).filter(stored).count(), RAFT_STRANGERS_MAX);
    assert_eq!(
        (100..300).filter(remembered).count(),
        2 * RAFT_STRANGERS_MAX
    );
    for (id, is_confirmed) in [(100, true), (299, false)] {
        cluster.with(leader, |raft, outputs, now| {
            assert!(raft.directory_of(MemberId(id)).is_some());
            raft.step(MemberId(id), question(id), now, outputs);
            let confirms = |output: &Output| {
                matches!(output, Output::Send { message, .. }
                    if matches!(message.body, Body::IdentityConfirmed { .. }))
            };
            assert_eq!(outputs.iter().any(confirms), is_confirmed, "{outputs:?}");
            outputs.clear();
        });
    }
    let other = Message {
        incarnation: Incarnation(78),
        ..question(299)
    };
    cluster.with(leader, |raft, outputs, now| {
        raft.step(MemberId(299), other, now, outputs);
        let refused = |output: &Output| matches!(output, Output::RefusedPeer { .. });
        assert!(outputs.iter().any(refused), "{outputs:?}");
        outputs.clear();
    });
    let newest = MemberId(299);
    let founders = Membership::of_voters([1, 2, 3].map(MemberId));
    cluster.start(newest, Disk::new(299, founders));
    cluster.propose(leader, Payload::Change(Change::AddVoter(newest)));
    cluster.run(Duration::from_secs(3));
    assert!(known(&cluster).contains_key(&newest));
    assert_eq!(cluster.members[&newest].raft.confirmation(), None);
    assert_eq!(cluster.commit(299), cluster.commit(leader.0));
    cluster.propose(leader, Payload::Change(Change::Remove(newest)));
    cluster.run(Duration::from_secs(3));
    for id in 1..=3 {
        let member = &cluster.members[&MemberId(id)];
        assert!(!member.disk.incarnations.contains_key(&newest));
        assert_eq!(member.raft.directory_of(newest), None);
    }
}

/// Goal: a member that was removed while it heard nobody learns that from one it knows as a learner, when every voter
/// that it knows is gone as well.
#[test]
fn a_former_learner_tells_who_was_removed() {
    let mut cluster = Cluster::of_voters(2, 9);
    cluster.run(Duration::from_secs(5));
    let leader = cluster.leader().expect("one");
    let removed = MemberId(3 - leader.0);
    let learner = MemberId(3);
    let founders = Membership::of_voters([1, 2].map(MemberId));
    cluster.start(learner, Disk::new(3, founders));
    cluster.propose(leader, Payload::Change(Change::AddLearner(learner)));
    cluster.run(Duration::from_secs(2));
    cluster.split(&[&[removed.0], &[leader.0, learner.0]]);
    for change in [
        Change::Remove(removed),
        Change::Promote(learner),
        Change::Remove(leader),
    ] {
        cluster.propose(leader, Payload::Change(change));
        cluster.run(Duration::from_millis(500));
    }
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.leader(), Some(learner), "alone");
    let role = |cluster: &Cluster| cluster.members[&removed].raft.role();
    assert_eq!(role(&cluster), Role::PreCandidate, "nobody has told it");
    cluster.crash(leader, true);
    cluster.split(&[&[1, 2, 3]]);
    cluster.run(Duration::from_secs(8));
    assert_eq!(role(&cluster), Role::Follower, "it campaigns no more");
}

/// Goal: a member whose log ends before it was added, and names only a voter that has left since, votes all the same for
/// one that needs its vote.
#[test]
fn voters_of_the_past_are_not_the_only_ones_asked() {
    let [gone, added, needs_it] = [1, 2, 3].map(MemberId);
    let founders = Membership::of_voters([gone]);
    let mut cluster = Cluster::empty(Options::default(), 9);
    let mut disk = known_disk(needs_it, founders.clone(), &[gone, added, needs_it]);
    let changes = [
        Change::AddVoter(needs_it),
        Change::Remove(gone),
        Change::AddVoter(added),
    ];
    let entry = |change| Entry {
        term: Term(1),
        payload: Payload::Change(change),
    };
    disk.log.entries = changes.map(entry).to_vec();
    disk.hard_state.term = Term(1);
    disk.hard_state.commit = Index(2);
    cluster.start(needs_it, disk);
    cluster.start(added, Disk::new(2, founders));
    cluster.run(Duration::from_secs(10));
    assert_eq!(cluster.leader(), Some(needs_it));
    assert_eq!(cluster.commit(added.0), cluster.commit(needs_it.0));
}

/// Goal: under leases the last voter does not even elect itself before its promise to a leader has run out that has removed
/// itself: that one still reads.
#[test]
fn the_last_voter_keeps_its_promise() {
    let mut cluster = Cluster::of_voters(2, 9);
    cluster.run(Duration::from_secs(5));
    let leader = cluster.leader().expect("one");
    let last = MemberId(3 - leader.0);
    cluster.propose(leader, Payload::Change(Change::ReadMode(ReadMode::Lease)));
    cluster.run(Duration::from_secs(2));
    cluster.cuts.insert((last, leader));
    cluster.propose(leader, Payload::Change(Change::Remove(leader)));
    cluster.run(Duration::from_millis(200));
    let role = |cluster: &Cluster| cluster.members[&last].raft.role();
    let voters = &cluster.members[&last].raft.membership().voters;
    assert_eq!(voters.len(), 1, "it has the entry");
    assert_eq!(role(&cluster), Role::Follower);
    assert_eq!(cluster.members[&leader].raft.role(), Role::Leader);
    cluster.read(leader);
    cluster.cuts.insert((leader, last));
    cluster.run(Duration::from_secs(5));
    assert_eq!(role(&cluster), Role::Leader);
}

/// Goal: a member that lost its whole log hears every voter although only the leader speaks to it unasked.
#[test]
fn every_voter_is_asked() {
    let mut cluster = Cluster::of_voters(3, 9);
    cluster.run(Duration::from_secs(5));
    let leader = cluster.leader().expect("one");
    let victim = MemberId(if leader == MemberId(3) { 2 } else { 3 });
    cluster.crash(victim, true);
    let lost = cluster.disks.remove(&victim).expect("down");
    let mut disk = Disk::new(
        victim.0.into(),
        Membership::of_voters([1, 2, 3].map(MemberId)),
    );
    disk.confirmed = true;
    disk.incarnations = lost.incarnations;
    disk.vote_floor = Term(1);
    disk.lost_something = true;
    disk.rebuild = Some(Rebuild {
        through: Index(0),
        every_voter: true,
    });
    cluster.with(leader, |raft, outputs, now| {
        raft.peer_disconnected(victim, now, outputs);
    });
    cluster.start(victim, disk);
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.leader(), Some(leader), "nobody needed an election");
    assert!(!cluster.members[&victim].raft.is_rebuilding());
}
