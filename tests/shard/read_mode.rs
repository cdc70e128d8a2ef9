//! On what linearizable reads rest, changed on request.

use std::time::Duration;

use kontiki::base::MemberId;
use kontiki::keyspace::request::RangeRequest;
use kontiki::raft::ReadMode;
use kontiki::shard::event::{MembershipRequest, Request, Response};

use crate::driver::{Driver, everything, put};
use crate::group::Group;

const SECOND: Duration = Duration::from_secs(1);

fn change(mode: ReadMode) -> Request {
    Request::Membership(MembershipRequest::ReadMode(mode))
}

impl Group {
    fn mode(&mut self, id: MemberId) -> ReadMode {
        match self.call(id, Request::ReadMode) {
            Ok(Response::ReadMode(mode)) => mode,
            other => panic!("no mode: {other:?}"),
        }
    }

    /// Whether a linearizable read at the leader is answered although nothing is delivered to anybody.
    fn leader_answers_alone(&mut self) -> bool {
        let leader = self.leader();
        let range = Request::Range(RangeRequest {
            range: everything(),
            ..RangeRequest::default()
        });
        let number = self.ask(leader, range);
        let driver = self.member(leader);
        driver.settle();
        let answered = driver.take(number).is_some();
        self.settle();
        answered
    }
}

/// Goal: any member takes the change; from then on, and only then, the leader answers by itself. Every member says so,
/// after a restart as well, and the way back works. What holds already is no entry.
#[test]
fn switch() {
    let mut group = Group::start(3, 1 << 20);
    let (leader, follower) = (group.leader(), group.followers()[0]);
    group.call(leader, put("k", "v")).expect("a healthy group");
    group.run(SECOND);
    assert!(!group.leader_answers_alone());
    assert_eq!(group.mode(follower), ReadMode::Quorum);

    let answer = group.call(follower, change(ReadMode::Lease));
    assert!(
        matches!(answer, Ok(Response::ReadMode(ReadMode::Lease))),
        "{answer:?}"
    );
    assert_eq!(
        group.mode(follower),
        ReadMode::Lease,
        "read here what was asked here"
    );
    group.run(SECOND);
    assert!(group.leader_answers_alone());
    for id in 1..=3 {
        assert_eq!(group.mode(MemberId(id)), ReadMode::Lease);
        assert_eq!(group.contents(MemberId(id)).len(), 1);
    }
    let last = group.member(leader).shard.raft().last_index();
    let answer = group.call(leader, change(ReadMode::Lease));
    assert!(
        matches!(answer, Ok(Response::ReadMode(ReadMode::Lease))),
        "{answer:?}"
    );
    assert_eq!(group.member(leader).shard.raft().last_index(), last);

    let driver = group.members.remove(&follower).expect("a member");
    let (disk, settings, now) = (driver.disk.clone(), driver.settings.clone(), driver.now);
    let mut driver = Driver::recover(disk, settings);
    driver.now = now;
    group.members.insert(follower, driver);
    group.run(SECOND);
    assert_eq!(group.mode(follower), ReadMode::Lease, "after a restart");

    group
        .call(leader, change(ReadMode::Quorum))
        .expect("and back");
    assert!(!group.leader_answers_alone());
    group.run(SECOND);
    for id in 1..=3 {
        assert_eq!(group.mode(MemberId(id)), ReadMode::Quorum);
    }
    group.assert_same();
}

/// Goal: changes of the mode wait for each other and for those of the members, in order, and the last one holds.
#[test]
fn one_after_the_other() {
    let mut group = Group::start(3, 1 << 20);
    let leader = group.leader();
    let requests = vec![
        change(ReadMode::Lease),
        Request::Membership(MembershipRequest::Add {
            id: MemberId(4),
            peer_urls: vec!["http://m4:2380".into()],
            is_learner: true,
        }),
        change(ReadMode::Quorum),
        change(ReadMode::Quorum),
    ];
    let numbers = group.member(leader).ask(requests);
    group.settle();
    for number in numbers {
        let answer = group.member(leader).take(number).expect("answered").1;
        assert!(answer.is_ok(), "{answer:?}");
    }
    assert_eq!(group.mode(leader), ReadMode::Quorum);
}
