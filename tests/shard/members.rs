//! Members that come and go on request, and a leader that hands over.

use std::time::Duration;

use kontiki::base::limits::SLICE_STEPS_MAX;
use kontiki::base::{Incarnation, MemberId};
use kontiki::keyspace::request::{PutRequest, RequestOp, TxnRequest};
use kontiki::raft::Role;
use kontiki::shard::event::{
    EndReason, Event, Member, MembershipRefusal as No, MembershipRequest as Change, PeerMessage,
    Refusal, Request, Response,
};

use crate::driver::{Disk, Driver, put};
use crate::group::{Group, settings_of};

const SECOND: Duration = Duration::from_secs(1);

fn add(id: u64, is_learner: bool) -> Change {
    Change::Add {
        id: MemberId(id),
        peer_urls: vec![format!("http://m{id}:2380")],
        is_learner,
    }
}

impl Group {
    fn change(&mut self, id: MemberId, change: Change) -> Result<Response, Refusal> {
        self.call(id, Request::Membership(change))
    }

    /// Starts a member with an empty directory that joins.
    fn join(&mut self, id: u64) {
        self.start_empty(id, Incarnation(u128::from(id)));
    }

    fn start_empty(&mut self, id: u64, incarnation: Incarnation) {
        let mut settings = settings_of(id, 0, 1 << 20);
        settings.incarnation = incarnation;
        let mut driver = Driver::recover(Disk::default(), settings);
        let now = self.members.values().map(|driver| driver.now).max();
        driver.now = now.expect("a group has members");
        driver.may_end = true;
        self.members.insert(MemberId(id), driver);
    }

    fn listed(&mut self, id: MemberId) -> Vec<Member> {
        match self.call(id, Request::MemberList { linearizable: true }) {
            Ok(Response::MemberList(members)) => members,
            other => panic!("not a list: {other:?}"),
        }
    }

    fn refused(&mut self, change: Change, why: No) {
        let leader = self.leader();
        let result = self.change(leader, change.clone());
        assert_eq!(result.err(), Some(Refusal::Membership(why)), "{change:?}");
    }
}

/// Goal: where a member is to be found is looked at again when it has moved, on every member.
#[test]
fn moved_member_is_noticed() {
    let mut group = Group::start(3, 1 << 20);
    let leader = group.leader();
    let seen = |group: &Group| -> Vec<u64> {
        let drivers = group.members.values();
        drivers
            .map(|driver| driver.shard.membership_changes())
            .collect()
    };
    group.run(SECOND);
    let before = seen(&group);
    group.run(SECOND);
    assert_eq!(seen(&group), before, "nothing has changed");
    let moved = vec!["http://elsewhere:2380".to_owned()];
    let id = group.followers()[0];
    let update = Change::Update {
        id,
        peer_urls: moved.clone(),
    };
    group.change(leader, update).expect("a member may move");
    group.run(SECOND);
    for (driver, before) in group.members.values().zip(before) {
        assert_ne!(driver.shard.membership_changes(), before);
        let members = driver.shard.members_at_head();
        let found = members.iter().find(|member| member.id == id);
        assert_eq!(found.map(|member| &member.peer_urls), Some(&moved));
    }
}

/// Goal: who is not known by its directory, speaks from another one, or was removed, is not heard by what lies beside
/// consensus either.
#[test]
fn unknown_members_are_not_served() {
    let mut group = Group::start(3, 1 << 20);
    let leader = group.leader();
    let gone = group.followers()[0];
    group.member(gone).may_end = true;
    group
        .change(leader, Change::Remove(gone))
        .expect("two of three remain");
    group.run(SECOND);
    let there = group.followers();
    let there = *there.iter().find(|&&id| id != gone).expect("one remains");
    let own = |id: MemberId| Incarnation(u128::from(id.0));
    let stranger = MemberId(99);
    let mut forge = |from, incarnation| {
        let message = PeerMessage::Forward {
            request: 1,
            patience: SECOND,
            body: put("forged", "1"),
        };
        group.member(leader).hand_in(Event::Peer {
            from,
            incarnation,
            message,
        });
        group.run(SECOND);
        group.contents(leader).len()
    };
    assert_eq!(forge(stranger, own(stranger)), 0);
    assert_eq!(forge(gone, own(gone)), 0);
    assert_eq!(forge(there, Incarnation(1_000)), 0);
    assert_eq!(forge(there, own(there)), 1, "whom it knows is served");
}

/// Goal: a learner is added through a follower, gets everything, is promoted when it has it, and votes from
/// then on; members and their names are the same everywhere.
#[test]
fn learner_joins_and_votes() {
    for recent_bytes_max in [0, 1 << 20] {
        let mut group = Group::start(3, recent_bytes_max);
        let (leader, through) = (group.leader(), group.followers()[0]);
        for number in 0..50 {
            let put = put(&format!("k{number}"), vec![b'v'; 1_000]);
            group.call(leader, put).expect("a healthy group answers");
        }
        let Ok(Response::MemberAdded { member, members }) = group.change(through, add(4, true))
        else {
            panic!("the learner is not added");
        };
        assert_eq!((member.id, members.len()), (MemberId(4), 4));
        assert!(member.is_learner && member.name.is_empty());
        group.refused(Change::Promote(MemberId(4)), No::LearnerNotReady);
        group.join(4);
        group.run(SECOND);
        assert_eq!(group.member(MemberId(4)).shard.raft().role(), Role::Learner);
        assert!(group.member(MemberId(4)).shard.status().is_learner);
        assert_eq!(group.contents(MemberId(4)).len(), 50);
        let promoted = group.change(through, Change::Promote(MemberId(4)));
        assert!(
            matches!(promoted, Ok(Response::MembersChanged(_))),
            "{promoted:?}"
        );
        group.run(SECOND);
        // Two of four are no majority without it.
        let away = group.followers().into_iter().find(|id| id.0 != 4);
        group.cut_off.insert(away.expect("two others follow"));
        let leader = group.leader();
        group.call(leader, put("k", "v")).expect("three of four");
        let listed = group.listed(MemberId(4));
        let names: Vec<_> = listed.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["m1", "m2", "m3", "m4"]);
        assert!(listed.iter().all(|member| !member.is_learner));
        group.cut_off.clear();
        group.run(SECOND);
        group.assert_same();
    }
}

/// Goal: a follower that is removed is told and ends; so is one that was away, when it is back or starts again. Its
/// id never returns.
#[test]
fn removed_members_end() {
    let mut group = Group::start(4, 1 << 20);
    for driver in group.members.values_mut() {
        driver.may_end = true;
    }
    let [present, away, ..] = group.followers()[..] else {
        panic!("three follow");
    };
    let leader = group.leader();
    group
        .change(leader, Change::Remove(present))
        .expect("a majority is left");
    group.run(SECOND);
    assert_eq!(group.member(present).ended, Some(EndReason::Removed));
    group.cut_off.insert(away);
    group.run(SECOND);
    group
        .change(leader, Change::Remove(away))
        .expect("who is not heard may go");
    group.refused(add(away.0, false), No::Exists);
    group.refused(Change::Remove(away), No::NotFound);
    group.cut_off.clear();
    group.run(4 * SECOND);
    assert_eq!(group.member(away).ended, Some(EndReason::Removed));
    // What was stored about one that was removed goes, also when nobody did away with it at once. The next commit of the
    // log says that the removal is committed.
    group.call(leader, put("after", "it")).expect("written");
    let driver = group.members.remove(&leader).expect("a member");
    let (mut disk, settings, now) = (driver.disk, driver.settings, driver.now);
    assert!(!disk.known.incarnations.contains_key(&away));
    disk.known.incarnations.insert(away, Incarnation(7));
    let mut driver = Driver::recover(disk, settings);
    driver.now = now;
    assert!(!driver.shard.raft().directories().stored.contains_key(&away));
    group.members.insert(leader, driver);
    group.run(SECOND);
    let stored = &group.member(leader).disk.known.incarnations;
    assert!(!stored.contains_key(&away), "{stored:?}");
    let mut again = group.members.remove(&present).expect("it has ended");
    again = Driver::recover(again.disk, again.settings);
    again.may_end = true;
    group.members.insert(present, again);
    group.run(4 * SECOND);
    assert_eq!(group.member(present).ended, Some(EndReason::Removed));
}

/// Goal: a leader that is removed leads until that is committed, answers, and ends; somebody else leads at once.
#[test]
fn leader_removes_itself() {
    let mut group = Group::start(3, 1 << 20);
    let leader = group.leader();
    group.member(leader).may_end = true;
    let removed = group.change(leader, Change::Remove(leader));
    assert!(
        matches!(&removed, Ok(Response::MembersChanged(members)) if members.len() == 2),
        "{removed:?}"
    );
    assert_eq!(group.member(leader).ended, Some(EndReason::Removed));
    group.run(SECOND / 2);
    let new = group.leader();
    assert_ne!(new, leader);
    group.call(new, put("a", "1")).expect("two of two");
}

/// Goal: one becomes two, which is committed when the second has it, and two become one again.
#[test]
fn one_and_two() {
    let mut group = Group::start(1, 1 << 20);
    let first = MemberId(1);
    group.call(first, put("a", "1")).expect("alone");
    let number = group.ask(first, Request::Membership(add(2, false)));
    group.settle();
    assert!(group.member(first).take(number).is_none());
    group.join(2);
    group.run(SECOND);
    let added = group.member(first).take(number).expect("answered").1;
    assert!(
        matches!(added, Ok(Response::MemberAdded { .. })),
        "{added:?}"
    );
    assert_eq!(group.listed(MemberId(2)).len(), 2);
    assert_eq!(group.contents(MemberId(2)).len(), 1);
    group
        .change(first, Change::Remove(MemberId(2)))
        .expect("one is left");
    group.run(SECOND);
    assert_eq!(group.member(MemberId(2)).ended, Some(EndReason::Removed));
    group.call(first, put("a", "2")).expect("alone again");
    group.refused(Change::Remove(first), No::NotEnoughStarted);
}

/// Goal: each change that must not be is refused for its own reason.
#[test]
fn refusals() {
    let mut group = Group::start(3, 1 << 20);
    let leader = group.leader();
    let follower = group.followers()[0];
    let update = |id, url: &str| Change::Update {
        id: MemberId(id),
        peer_urls: vec![url.to_owned()],
    };
    group.refused(Change::Remove(MemberId(9)), No::NotFound);
    group.refused(Change::Promote(MemberId(9)), No::NotFound);
    group.refused(Change::Promote(follower), No::NotLearner);
    group.refused(update(9, "http://x:1"), No::NotFound);
    group.refused(update(1, "http://m2:2380"), No::PeerUrlExists);
    group.refused(add(2, false), No::Exists);
    let taken = Change::Add {
        id: MemberId(5),
        peer_urls: vec!["http://m3:2380".into()],
        is_learner: true,
    };
    group.refused(taken, No::PeerUrlExists);
    let moved = group.change(follower, update(1, "http://m1:9"));
    assert!(
        matches!(moved, Ok(Response::MembersChanged(_))),
        "{moved:?}"
    );
    assert_eq!(group.listed(follower)[0].peer_urls, ["http://m1:9"]);

    group
        .change(leader, add(4, true))
        .expect("the first learner");
    group.refused(add(5, true), No::TooManyLearners);
    group
        .change(leader, Change::Remove(MemberId(4)))
        .expect("a learner goes");
    // A fourth voter that has not started would need three of four; a fifth one too.
    group
        .change(leader, add(6, false))
        .expect("three of four have started");
    group.run(SECOND);
    group
        .change(leader, add(7, false))
        .expect("three of five have started");
    group.refused(add(8, false), No::NotEnoughStarted);
    group.refused(Change::Remove(follower), No::NotEnoughStarted);
    group
        .change(leader, Change::Remove(MemberId(7)))
        .expect("it was never heard");
    group
        .change(leader, Change::Remove(MemberId(6)))
        .expect("nor was this one");

    group.cut_off.insert(follower);
    group.run(2 * SECOND);
    group.refused(add(8, false), No::Unhealthy);
    let other = group.followers().into_iter().find(|&id| id != follower);
    group.refused(Change::Remove(other.expect("two follow")), No::Unhealthy);
}

/// Goal: changes that come while one is under way wait for it, and go to the next leader when this one is cut off.
#[test]
fn one_at_a_time() {
    let mut group = Group::start(3, 1 << 20);
    let leader = group.leader();
    let requests = vec![
        Request::Membership(add(4, true)),
        Request::Membership(Change::Remove(MemberId(4))),
        Request::Membership(add(5, true)),
    ];
    let numbers = group.member(leader).ask(requests);
    group.settle();
    for number in numbers {
        let answer = group.member(leader).take(number).expect("answered");
        assert!(answer.1.is_ok(), "{answer:?}");
    }
    group.cut_off.insert(leader);
    let first = group.ask(leader, Request::Membership(Change::Remove(MemberId(5))));
    let second = group.ask(leader, Request::Membership(add(6, true)));
    group.settle();
    group.run(4 * SECOND);
    group.cut_off.clear();
    group.run(SECOND);
    let result =
        |group: &mut Group, number| group.member(leader).take(number).map(|(_, result)| result);
    // Its entry was cut off: nobody can know that no other member holds it.
    assert_eq!(
        result(&mut group, first).map(|result| result.err()),
        Some(Some(Refusal::TimedOut))
    );
    // The learner is still there, and there may be one.
    assert_eq!(
        result(&mut group, second).map(|result| result.err()),
        Some(Some(Refusal::Membership(No::TooManyLearners)))
    );
}

/// Goal: the leader moves where it is told to, and only a leader moves it, to a voter, in time.
#[test]
fn leader_moves() {
    let mut group = Group::start(3, 1 << 20);
    let (leader, follower) = (group.leader(), group.followers()[0]);
    let refused = |group: &mut Group, at, to, why| {
        let result = group.call(at, Request::MoveLeader(to));
        assert_eq!(result.err(), Some(Refusal::Membership(why)));
    };
    refused(&mut group, follower, follower, No::NotLeader);
    refused(&mut group, leader, MemberId(9), No::BadTransferee);
    group
        .change(leader, add(4, true))
        .expect("the first learner");
    refused(&mut group, leader, MemberId(4), No::BadTransferee);
    let stays = group.call(leader, Request::MoveLeader(leader));
    assert!(matches!(stays, Ok(Response::LeaderMoved)), "{stays:?}");
    let moved = group.call(leader, Request::MoveLeader(follower));
    assert!(matches!(moved, Ok(Response::LeaderMoved)), "{moved:?}");
    assert_eq!(group.leader(), follower);

    // To somebody who does not hear it: it goes on leading, and says so.
    group.cut_off.insert(leader);
    let number = group.ask(follower, Request::MoveLeader(leader));
    group.run(2 * SECOND);
    let answer = group.member(follower).take(number).expect("answered").1;
    assert_eq!(
        answer.err(),
        Some(Refusal::Membership(No::TransferTimedOut))
    );
    assert_eq!(group.leader(), follower);
    group.call(follower, put("a", "1")).expect("it leads");
}

/// Goal: a member that joined and comes back with an empty directory is told and ends; its vote never counts.
#[test]
fn joined_and_wiped() {
    let mut group = Group::start(3, 1 << 20);
    let leader = group.leader();
    group.change(leader, add(4, false)).expect("three of four");
    group.join(4);
    group.run(SECOND);
    assert_eq!(group.listed(MemberId(4)).len(), 4);
    group.start_empty(4, Incarnation(44));
    group.run(2 * SECOND);
    assert_eq!(
        group.member(MemberId(4)).ended,
        Some(EndReason::OtherDirectory)
    );
}

/// Goal: a learner that is removed while it is away never campaigns, and learns of it all the same.
#[test]
fn removed_learner_asks() {
    let mut group = Group::start(3, 1 << 20);
    let leader = group.leader();
    group.change(leader, add(4, true)).expect("the first");
    group.join(4);
    group.run(SECOND);
    group.cut_off.insert(MemberId(4));
    group
        .change(leader, Change::Remove(MemberId(4)))
        .expect("a learner goes");
    group.run(SECOND);
    group.cut_off.clear();
    assert_eq!(group.member(MemberId(4)).ended, None);
    group.run(4 * SECOND);
    assert_eq!(group.member(MemberId(4)).ended, Some(EndReason::Removed));
}

/// Goal: a read that waits for the word of the only other member is answered when that one is removed instead.
#[test]
fn who_is_asked_is_removed() {
    let mut group = Group::start(1, 1 << 20);
    let leader = group.leader();
    // Both are the majority, so it is answered when the second one is there.
    let added = group.ask(leader, Request::Membership(add(2, false)));
    group.join(2);
    group.run(2 * SECOND);
    let answer = group.member(leader).take(added);
    assert!(answer.is_some_and(|(_, answer)| answer.is_ok()), "added");
    assert_eq!(group.leader(), leader);
    group.cut_off.insert(MemberId(2));
    let read = group.ask(leader, Request::MemberList { linearizable: true });
    group.settle();
    assert!(group.member(leader).take(read).is_none(), "unconfirmed");
    group
        .change(leader, Change::Remove(MemberId(2)))
        .expect("removed");
    group.settle();
    let answer = group.member(leader).take(read);
    assert!(
        matches!(answer, Some((_, Ok(Response::MemberList(_))))),
        "{answer:?}"
    );
}

/// Goal: a change that waits while a write is folded in slices does not come between that and its answer.
#[test]
fn change_beside_a_long_write() {
    let mut driver = Driver::start(Disk::default(), crate::driver::settings());
    let put = |number: usize| {
        RequestOp::Put(PutRequest {
            key: format!("k{number}").into(),
            value: "v".into(),
            ..PutRequest::default()
        })
    };
    let long = Request::Txn(TxnRequest {
        success: (0..SLICE_STEPS_MAX / 4).map(put).collect(),
        ..TxnRequest::default()
    });
    let numbers = driver.ask(vec![Request::Membership(add(8, true)), long]);
    assert!(driver.shard.has_work(), "the write takes more than a slice");
    driver.settle();
    for number in numbers {
        let answer = driver.take(number).expect("answered").1;
        assert!(answer.is_ok(), "{answer:?}");
    }
}
