//! Several members of one group, their messages delivered by hand: what followers, old leaders and late ones
//! do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kontiki::base::{Incarnation, Index, MemberId, limits};
use kontiki::raft::{Outage, Role};
use kontiki::shard::Settings;
use kontiki::shard::checkpoints::CheckpointLimits;
use kontiki::shard::event::{Event, KnownMembers, Member, PeerMessage, Refusal, Request, Response};

use crate::driver::{Disk, Driver, PATIENCE, put, settings};
use crate::never_true;

/// Members, and who of them is cut off from all others.
pub(crate) struct Group {
    pub(crate) members: BTreeMap<MemberId, Driver>,
    pub(crate) cut_off: BTreeSet<MemberId>,
}

pub(crate) fn settings_of(id: u64, count: u64, recent_bytes_max: usize) -> Settings {
    let member = |id: u64| Member {
        id: MemberId(id),
        name: format!("m{id}"),
        peer_urls: vec![format!("http://m{id}:2380")],
        client_urls: vec![format!("http://m{id}:2379")],
        is_learner: false,
    };
    let mut settings = settings();
    settings.identity.member = MemberId(id);
    settings.member = member(id);
    settings.initial_members = (1..=count).map(member).collect();
    settings.incarnation = Incarnation(u128::from(id));
    settings.known = KnownMembers::default();
    settings.seed = id;
    settings.recent_bytes_max = recent_bytes_max;
    settings
}

impl Group {
    pub(crate) fn start(count: u64, recent_bytes_max: usize) -> Group {
        Group::start_with(count, recent_bytes_max, CheckpointLimits::default())
    }

    pub(crate) fn start_with(
        count: u64,
        recent_bytes_max: usize,
        checkpoints: CheckpointLimits,
    ) -> Group {
        let start = |id: u64| {
            let mut settings = settings_of(id, count, recent_bytes_max);
            settings.checkpoints = checkpoints;
            (MemberId(id), Driver::recover(Disk::default(), settings))
        };
        let mut group = Group {
            members: (1..=count).map(start).collect(),
            cut_off: BTreeSet::new(),
        };
        group.run(Duration::from_secs(4));
        group
    }

    /// Lets all work and talk until nothing is left to say.
    pub(crate) fn settle(&mut self) {
        self.settle_and_see(|_, _| {});
    }

    /// The same, and shows what is said to whom.
    pub(crate) fn settle_and_see(&mut self, mut see: impl FnMut(MemberId, &PeerMessage)) {
        self.settle_losing(|to, message| {
            see(to, message);
            false
        });
    }

    /// The same; what `loses` says does not arrive.
    pub(crate) fn settle_losing(&mut self, mut loses: impl FnMut(MemberId, &PeerMessage) -> bool) {
        loop {
            let mut mail: Vec<(MemberId, MemberId, PeerMessage)> = Vec::new();
            for (&from, driver) in &mut self.members {
                driver.settle();
                let messages = driver.messages.drain(..);
                mail.extend(messages.map(|(to, message)| (from, to, message)));
            }
            if mail.is_empty() {
                return;
            }
            for (from, to, message) in mail {
                let lost = loses(to, &message);
                if !lost && !self.cut_off.contains(&from) && !self.cut_off.contains(&to) {
                    self.deliver(from, to, message);
                }
            }
        }
    }

    /// A message arrives, if there is anybody.
    pub(crate) fn deliver(&mut self, from: MemberId, to: MemberId, message: PeerMessage) {
        let incarnation = self.member(from).shard.raft().incarnation();
        if let Some(driver) = self.members.get_mut(&to) {
            driver.hand_in(Event::Peer {
                from,
                incarnation,
                message,
            });
        }
    }

    /// Lets time pass, a tenth of a second at a time.
    pub(crate) fn run(&mut self, span: Duration) {
        for _ in 0..span.as_millis() / 100 {
            for driver in self.members.values_mut() {
                driver.now = driver.now + Duration::from_millis(100);
                driver.tick();
            }
            self.settle();
        }
    }

    /// The one that leads among those that are not cut off.
    pub(crate) fn leader(&self) -> MemberId {
        let leads = |(&id, driver): (&MemberId, &Driver)| {
            let leads = driver.shard.raft().role() == Role::Leader;
            let there = driver.ended.is_none() && !self.cut_off.contains(&id);
            (leads && there).then_some(id)
        };
        let leaders: Vec<_> = self.members.iter().filter_map(leads).collect();
        assert_eq!(leaders.len(), 1, "{leaders:?}");
        leaders[0]
    }

    pub(crate) fn followers(&self) -> Vec<MemberId> {
        let leader = self.leader();
        self.members
            .keys()
            .copied()
            .filter(|&id| id != leader)
            .collect()
    }

    pub(crate) fn ask(&mut self, id: MemberId, request: Request) -> u32 {
        self.member(id).ask(vec![request])[0]
    }

    pub(crate) fn member(&mut self, id: MemberId) -> &mut Driver {
        self.members.get_mut(&id).expect("a member")
    }

    pub(crate) fn call(&mut self, id: MemberId, request: Request) -> Result<Response, Refusal> {
        let number = self.ask(id, request);
        self.settle();
        let answer = self.member(id).take(number);
        answer.expect("answered").1
    }

    pub(crate) fn contents(&mut self, id: MemberId) -> Vec<(Bytes, Bytes)> {
        let range = Request::Range(kontiki::keyspace::request::RangeRequest {
            range: crate::driver::everything(),
            ..Default::default()
        });
        match self.call(id, range) {
            Ok(Response::Range(range)) => {
                range.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
            }
            other => panic!("not the answer to a range: {other:?}"),
        }
    }

    /// Every member holds the same state as far as all have committed.
    pub(crate) fn assert_same(&self) {
        let committed = |driver: &Driver| driver.shard.keyspace().committed_index();
        let lowest = self.members.values().map(committed).min().expect("members");
        let digests: BTreeSet<_> = self
            .members
            .values()
            .map(|driver| {
                driver
                    .shard
                    .keyspace()
                    .digest(lowest)
                    .map(|digest| digest.0)
            })
            .collect();
        assert_eq!(digests.len(), 1, "states differ at {lowest}");
    }
}

pub(crate) fn pair(key: &str, value: &str) -> (Bytes, Bytes) {
    (
        Bytes::copy_from_slice(key.as_bytes()),
        Bytes::copy_from_slice(value.as_bytes()),
    )
}

/// Goal: a write through any member is read, linearizably, through any member; all hold the same state and
/// know each other's names.
#[test]
fn every_member_serves() {
    let mut group = Group::start(3, 1 << 20);
    for id in 1..=3 {
        let key = format!("k{id}");
        let answer = group.call(MemberId(id), put(&key, "v"));
        assert!(matches!(answer, Ok(Response::Put(_))), "{answer:?}");
        for reader in 1..=3 {
            let contents = group.contents(MemberId(reader));
            assert_eq!(contents.last(), Some(&pair(&key, "v")), "through {reader}");
        }
    }
    group.run(Duration::from_secs(1));
    group.assert_same();
    let members = group.call(MemberId(2), Request::MemberList { linearizable: true });
    let Ok(Response::MemberList(members)) = members else {
        panic!("{members:?}")
    };
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["m1", "m2", "m3"]);
}

/// Goal: what a leader appended while it was cut off is gone: its client is told that it may be, the others go on, and it
/// follows them when it is back. An answer without an entry that it could not confirm is not given.
#[test]
fn old_leader_follows() {
    let mut group = Group::start(3, 1 << 20);
    let old = group.leader();
    group
        .call(old, put("a", "1"))
        .expect("a healthy group answers");
    group.cut_off.insert(old);
    let lost = group.ask(old, put("a", "lost"));
    let compare = group.ask(old, never_true());
    group.settle();
    group.run(Duration::from_secs(4));
    let new = group.leader();
    assert_ne!(new, old);
    group.call(new, put("a", "2")).expect("a majority answers");
    assert_eq!(
        group.member(old).take(compare).expect("answered").1.err(),
        Some(Refusal::LeaderChanged)
    );
    group.cut_off.clear();
    group.run(Duration::from_secs(1));
    let answer = group.member(old).take(lost).expect("answered").1;
    // It cannot know that nobody else holds the entry.
    assert_eq!(answer.err(), Some(Refusal::TimedOut));
    assert_eq!(group.contents(old), [pair("a", "2")]);
    group.assert_same();
}

/// Goal: a leader that is about to stop hands over without waiting for a timeout; what it was asked meanwhile is
/// answered by its successor. With nobody there the attempt ends by itself.
#[test]
fn leader_hands_over() {
    let mut group = Group::start(3, 1 << 20);
    let old = group.leader();
    let before = group.ask(old, put("a", "1"));
    group.member(old).hand_in(Event::HandOver);
    let amid = group.ask(old, put("a", "2"));
    assert!(group.member(old).shard.is_handing_over());
    group.settle();
    assert_ne!(group.leader(), old);
    assert!(!group.member(old).shard.is_handing_over());
    for number in [before, amid] {
        let answer = group.member(old).take(number).expect("answered").1;
        assert!(matches!(answer, Ok(Response::Put(_))), "{answer:?}");
    }
    assert_eq!(group.contents(old), [pair("a", "2")]);

    let alone = group.leader();
    for id in group.followers() {
        group.cut_off.insert(id);
    }
    group.member(alone).hand_in(Event::HandOver);
    group.settle();
    assert!(group.member(alone).shard.is_handing_over());
    group.run(Duration::from_secs(3));
    assert!(!group.member(alone).shard.is_handing_over());
}

/// Goal: a client that waited in vain is told so in the words that fit. Who was elected says that the leader before may have
/// failed, the others do not know. Where nobody leads, a write was not begun, and a read took too long.
#[test]
fn why_it_took_too_long() {
    let mut group = Group::start(3, 1 << 20);
    let old = group.leader();
    let followers = group.followers();
    group.cut_off.insert(old);
    let lost: Vec<_> = followers
        .iter()
        .map(|&id| (id, group.ask(id, put("a", "1"))))
        .collect();
    group.run(Duration::from_millis(100));
    for &id in &followers {
        group.member(id).hand_in(Event::PeerDisconnected(old));
    }
    group.settle();
    let new = group.leader();
    group.run(PATIENCE);
    let told = |group: &mut Group, (id, number)| {
        let answer = group.member(id).take(number).expect("answered");
        answer.1.expect_err("it took too long")
    };
    for asked in lost {
        let expected = match asked.0 == new {
            true => Refusal::TimedOutBy(Outage::LeaderFailed),
            false => Refusal::TimedOut,
        };
        assert_eq!(told(&mut group, asked), expected);
    }
    group.cut_off.extend(followers);
    group.run(Duration::from_secs(4));
    assert_eq!(group.member(new).shard.raft().leader(), None);
    let write = group.ask(new, put("a", "2"));
    let read = group.ask(new, Request::MemberList { linearizable: true });
    group.run(PATIENCE);
    assert_eq!(told(&mut group, (new, write)), Refusal::NoLeaderInTime);
    assert_eq!(told(&mut group, (new, read)), Refusal::TimedOut);
}

/// Goal: a follower that stops comes to rest while its leader goes on to write: it takes no entries any more, and the
/// others commit without it.
#[test]
fn stops_under_load() {
    let mut group = Group::start(3, 1 << 20);
    let (leader, stopping) = (group.leader(), group.followers()[0]);
    group.call(leader, put("k", "0")).expect("a healthy group");
    group.run(Duration::from_millis(200));
    group.member(stopping).hand_in(Event::Stop);
    let end = group.member(stopping).shard.log().last_index();
    for number in 1..=20 {
        let put = put("k", format!("{number}"));
        group.call(leader, put).expect("two of three go on");
        group.run(Duration::from_millis(100));
    }
    let driver = group.member(stopping);
    assert_eq!(driver.shard.log().last_index(), end);
    driver.hand_in(Event::LogIdle);
    driver.settle();
    assert!(driver.shard.is_drained());
}

/// Goal: what nobody has decided is bounded by itself and not by who still waits for it: followers that answer
/// heartbeats and take no entries cost a leader no more, however long that lasts. Afterwards everything goes on.
#[test]
fn undecided_writes_are_bounded() {
    let most = limits::SHARD_UNCOMMITTED_ENTRIES_MAX;
    let mut group = Group::start(3, 1 << 20);
    let leader = group.leader();
    let takes_entries = |message: &PeerMessage| match message {
        PeerMessage::Raft { records, .. } => !records.is_empty(),
        _ => false,
    };
    let mut first = None;
    for _ in 0..3 {
        let puts = (0..most / 2).map(|_| put("k", "v")).collect();
        let numbers = group.member(leader).ask(puts);
        first = first.or(numbers.first().copied());
        // Longer than anybody waits.
        for _ in 0..80 {
            for driver in group.members.values_mut() {
                driver.now = driver.now + Duration::from_millis(100);
                driver.tick();
            }
            group.settle_losing(|_, message| takes_entries(message));
        }
    }
    assert_eq!(group.leader(), leader);
    let driver = group.member(leader);
    let refused = driver.take(first.expect("asked")).map(|(_, answer)| answer);
    assert!(matches!(refused, Some(Err(Refusal::TimedOut))));
    let raft = driver.shard.raft();
    let undecided = raft.last_index().0 - raft.commit().0;
    assert!(undecided > most as u64 / 2, "{undecided}");
    assert!(undecided <= most as u64, "{undecided}");
    group.run(Duration::from_secs(2));
    group
        .call(leader, put("k", "after"))
        .expect("a healthy group");
    group.assert_same();
}

/// Goal: a follower that was away is sent what it missed, from memory or, when nothing is kept there, from the
/// log's files.
#[test]
fn late_follower_catches_up() {
    for recent_bytes_max in [0, 1 << 20] {
        let mut group = Group::start(3, recent_bytes_max);
        let late = group.followers()[0];
        group.cut_off.insert(late);
        let leader = group.leader();
        for number in 0..300 {
            let put = put(&format!("k{number:03}"), vec![b'v'; 1_000]);
            group.call(leader, put).expect("a majority answers");
        }
        group.cut_off.clear();
        group.run(Duration::from_secs(1));
        assert_eq!(group.contents(late).len(), 300);
        group.assert_same();
    }
}

/// Goal: a member whose log is damaged cuts it there, takes part in nothing until it has everything from the leader
/// again, remembers over a crash in between that it must not, and then counts and serves like the others. Also when
/// nothing is left of its log, not even the first members.
#[test]
fn damaged_member_is_rebuilt() {
    // The first entry's commit is the first page behind the header's.
    for damaged_page in [1, 9] {
        let mut group = Group::start(3, 0);
        let leader = group.leader();
        for number in 0..40 {
            let put = put(&format!("k{number:03}"), vec![b'v'; 500]);
            group.call(leader, put).expect("a majority answers");
        }
        group.run(Duration::from_millis(300));
        let followers = group.followers();
        let (damaged, other) = (followers[0], followers[1]);
        let length = group.member(damaged).shard.raft().last_index();
        let driver = group.members.remove(&damaged).expect("a member");
        let (mut disk, settings) = (driver.disk.clone(), driver.settings.clone());
        disk.flip(damaged_page * 4_096);
        let now = group.member(leader).now;
        let restart = |disk: Disk| {
            let mut driver = Driver::recover(disk, settings.clone());
            driver.now = now;
            driver
        };
        let driver = restart(disk);
        assert!(driver.shard.raft().is_rebuilding());
        assert!(driver.shard.raft().last_index() < length);
        group.members.insert(damaged, driver);
        // Alone with a member that is whole, it makes no majority: nobody leads.
        group.cut_off.insert(leader);
        group.run(Duration::from_secs(6));
        for id in [damaged, other] {
            assert_ne!(group.member(id).shard.raft().role(), Role::Leader);
        }
        // The log is no longer damaged, and the member still knows.
        let driver = group.members.remove(&damaged).expect("a member");
        let driver = restart(driver.disk.clone());
        assert!(driver.shard.raft().is_rebuilding(), "forgotten in a crash");
        group.members.insert(damaged, driver);
        group.cut_off.clear();
        group.run(Duration::from_secs(4));
        assert!(!group.member(damaged).shard.raft().is_rebuilding());
        assert_eq!(group.contents(damaged).len(), 40);
        group.assert_same();
        let driver = group.members.remove(&damaged).expect("a member");
        group.members.insert(damaged, restart(driver.disk.clone()));
        assert!(
            !group.member(damaged).shard.raft().is_rebuilding(),
            "it was stored"
        );
        // It is one of a majority again.
        group.run(Duration::from_secs(4));
        let leader = group.leader();
        let away = group.followers().into_iter().find(|&id| id != damaged);
        group.cut_off.extend(away.filter(|_| leader != damaged));
        let id = group.leader();
        group.call(id, put("last", "v")).expect("it counts");
    }
}

/// Goal: a member of which no file of the log is left, though there was one, is damaged and not new: it votes for nobody
/// before it has heard every voter and has everything again; then it counts. So it is when that happens to it again.
#[test]
fn a_lost_log_is_rebuilt() {
    let mut group = Group::start(3, 0);
    let leader = group.leader();
    for number in 0..20 {
        let put = put(&format!("k{number:03}"), vec![b'v'; 500]);
        group.call(leader, put).expect("a majority answers");
    }
    group.run(Duration::from_millis(300));
    let lost = group.followers()[0];
    for time in ["first", "second"] {
        let leader = group.leader();
        let driver = group.members.remove(&lost).expect("a member");
        let (mut disk, settings, now) = (driver.disk, driver.settings, driver.now);
        disk.segments.clear();
        let mut driver = Driver::recover(disk, settings);
        driver.now = now;
        let raft = driver.shard.raft();
        assert!(raft.is_rebuilding(), "the {time} time");
        assert_eq!((raft.last_index(), raft.term().0), (Index(0), 1));
        group.members.insert(lost, driver);
        group.member(leader).hand_in(Event::PeerDisconnected(lost));
        // With the other follower alone it is no majority.
        group.cut_off.insert(leader);
        group.run(Duration::from_secs(6));
        for (&id, driver) in &group.members {
            let leads = driver.shard.raft().role() == Role::Leader;
            assert!(id == leader || !leads, "{id} leads the {time} time");
        }
        group.cut_off.clear();
        group.run(Duration::from_secs(4));
        assert!(!group.member(lost).shard.raft().is_rebuilding());
        assert_eq!(group.contents(lost).len(), 20);
        group.assert_same();
    }
}
