//! Writes of a follower's clients on their way to the leader.

use std::time::Duration;

use bytes::Bytes;
use kontiki::base::limits::{
    SHARD_FORWARDED_ANSWERS_BYTES_MAX, SHARD_FORWARDED_BYTES_MAX, SHARD_MEMBERS_WRITES_BYTES_MAX,
    SLICE_STEPS_MAX,
};
use kontiki::base::{Incarnation, Index, MemberId};
use kontiki::keyspace::request::{
    Compare, CompareResult, CompareTarget, KeyRange, KeyValue, PutRequest, PutResponse, RequestOp,
    TxnRequest,
};
use kontiki::raft::ReadMode;
use kontiki::shard::event::{
    Event, Header, MembershipRequest, PeerMessage, Refusal, Request, Response,
};

use crate::driver::{Driver, PATIENCE, put};
use crate::group::{Group, pair};

const MIB: usize = 1 << 20;

/// A group with somebody who leads, and a follower.
fn healthy() -> (Group, MemberId, MemberId) {
    let mut group = Group::start(3, 1 << 20);
    let (leader, follower) = (group.leader(), group.followers()[0]);
    group.call(leader, put("k", "0")).expect("a healthy group");
    group.run(Duration::from_millis(200));
    (group, leader, follower)
}

impl Group {
    /// The leader refuses what a follower forwarded.
    fn answer_forward(&mut self, from: MemberId, to: MemberId, request: u64, refusal: Refusal) {
        let answer = PeerMessage::Forwarded {
            request,
            index: Index(0),
            header: Header::default(),
            result: Err(refusal),
        };
        self.deliver(from, to, answer);
    }
}

/// What a member forwards that nobody has taken yet, by its numbers.
fn forwards(driver: &Driver) -> Vec<(u64, Request)> {
    let forward = |message: &PeerMessage| match message {
        PeerMessage::Forward { request, body, .. } => Some((*request, body.clone())),
        _ => None,
    };
    let messages = driver.messages.iter();
    messages
        .filter_map(|(_, message)| forward(message))
        .collect()
}

fn is_forward(message: &PeerMessage, number: u64) -> bool {
    matches!(message, PeerMessage::Forward { request, .. } if *request == number)
}

/// What a member has said of forwards and nobody was told yet: which are refused, and why.
fn refusals(driver: &Driver) -> Vec<(u64, Refusal)> {
    let refusal = |message: &PeerMessage| match message {
        PeerMessage::Forwarded {
            request, result, ..
        } => Some((*request, result.clone().err()?)),
        _ => None,
    };
    let messages = driver.messages.iter();
    messages
        .filter_map(|(_, message)| refusal(message))
        .collect()
}

/// Every one of these puts is done.
fn assert_put(group: &mut Group, through: MemberId, numbers: Vec<u32>) {
    for number in numbers {
        let answer = group.member(through).take(number).expect("answered").1;
        assert!(matches!(answer, Ok(Response::Put(_))), "{answer:?}");
    }
}

/// Puts of one key, in order.
fn puts() -> Vec<Request> {
    (1..=5).map(|n| put("k", format!("{n}"))).collect()
}

/// Goal: what clients of other members make a leader hold is bounded in bytes; what comes above that is refused at once,
/// and the leader's own clients are not.
#[test]
fn a_leader_holds_so_much_for_others() {
    let (mut group, leader, follower) = healthy();
    // Nothing is evaluated meanwhile.
    group.member(leader).hand_in(Event::HandOver);
    let value = Bytes::from(vec![b'v'; MIB]);
    let fit = SHARD_MEMBERS_WRITES_BYTES_MAX / MIB as u64 - 1;
    for request in 0..fit + 3 {
        let forward = PeerMessage::Forward {
            request,
            patience: PATIENCE,
            body: put("k", value.clone()),
        };
        group.deliver(follower, leader, forward);
    }
    let expected: Vec<_> = (fit..fit + 3)
        .map(|request| (request, Refusal::TooManyRequests))
        .collect();
    let own = group.ask(leader, put("k", value));
    let driver = group.member(leader);
    assert_eq!(refusals(driver), expected);
    assert!(driver.take(own).is_none(), "it waits");
}

/// Goal: a follower that has much to forward at once sends no more than the connection to its leader holds, and the rest
/// as answers come: all is answered.
#[test]
fn a_burst_is_forwarded_in_parts() {
    let (mut group, _, follower) = healthy();
    let size = 50_000;
    let count = 2 * SHARD_FORWARDED_BYTES_MAX as usize / size;
    let value = Bytes::from(vec![b'v'; size]);
    let burst = (0..count).map(|n| put(&format!("{n}"), value.clone()));
    let numbers = group.member(follower).ask(burst.collect());
    let sent = forwards(group.member(follower)).len();
    assert!(
        sent > 0 && (sent * size) as u64 <= SHARD_FORWARDED_BYTES_MAX,
        "{sent}"
    );
    group.settle();
    assert_put(&mut group, follower, numbers);
}

/// Goal: the room that a commit makes, because the answers that waited for it leave, is used in the same turn.
#[test]
fn room_made_by_a_commit_is_used_at_once() {
    let (mut group, leader, follower) = healthy();
    let first = group.ask(follower, put("k", "1"));
    let request = forwards(group.member(follower))[0].0;
    // The follower gets the entry, and does not hear that it is committed.
    group.settle_losing(|to, message| match message {
        PeerMessage::Raft { records, .. } => to == follower && records.is_empty(),
        PeerMessage::Forwarded { .. } => true,
        _ => false,
    });
    let committed = |driver: &Driver| driver.shard.keyspace().committed_index();
    let index = committed(group.member(leader));
    assert!(committed(group.member(follower)) < index);
    let kv = KeyValue {
        value: vec![b'v'; SHARD_FORWARDED_ANSWERS_BYTES_MAX as usize / 2].into(),
        ..KeyValue::default()
    };
    let response = PutResponse { prev_kv: Some(kv) };
    let answer = PeerMessage::Forwarded {
        request,
        index,
        header: Header::default(),
        result: Ok(Response::Put(response)),
    };
    group.deliver(leader, follower, answer);
    let second = group.ask(follower, put("k", "2"));
    assert!(forwards(group.member(follower)).is_empty(), "no room");

    let driver = group.member(leader);
    driver.now = driver.now + Duration::from_millis(100);
    driver.tick();
    let mail: Vec<_> = driver.messages.drain(..).collect();
    for (to, message) in mail {
        if committed(group.member(follower)) < index {
            group.deliver(leader, to, message);
        }
    }
    let driver = group.member(follower);
    assert!(driver.take(first).is_some(), "it is committed");
    assert_eq!(forwards(driver).len(), 1);
    group.settle();
    assert_put(&mut group, follower, vec![second]);
}

/// Goal: what a follower's clients ask while the leader hands over is done by its successor, in order: they hear of no
/// change. So it is when their own member is the successor.
#[test]
fn a_planned_hand_over_costs_no_write() {
    for last in [false, true] {
        let (mut group, leader, _) = healthy();
        let follower = group.followers()[usize::from(last)];
        let numbers = group.member(follower).ask(puts());
        group.member(leader).hand_in(Event::HandOver);
        group.settle();
        assert_ne!(group.leader(), leader);
        assert_put(&mut group, follower, numbers);
        assert_eq!(group.contents(follower), [pair("k", "5")]);
    }
}

/// Goal: what the leader refuses without an effect is sent again, in order and to the same leader not before time has
/// passed; what may have had one never is.
#[test]
fn only_what_had_no_effect_is_sent_again() {
    let definite = [
        Refusal::LeaderChanged,
        Refusal::TooManyRequests,
        Refusal::Stopped,
    ];
    for refusal in definite {
        let (mut group, leader, follower) = healthy();
        let numbers = group.member(follower).ask(puts());
        let refused = forwards(group.member(follower));
        group.member(follower).messages.clear();
        // Whatever the order of the refusals.
        for &(request, _) in refused[1..].iter().chain(&refused[..1]) {
            group.answer_forward(leader, follower, request, refusal);
        }
        let driver = group.member(follower);
        assert!(forwards(driver).is_empty(), "asked again at once");
        driver.tick();
        let again = forwards(driver);
        assert_eq!(again.len(), refused.len());
        assert!(again[0].0 > refused[4].0, "a number was used twice");
        group.settle();
        assert_put(&mut group, follower, numbers);
        assert_eq!(group.contents(follower), [pair("k", "5")]);
    }

    let (mut group, leader, follower) = healthy();
    let number = group.ask(follower, put("k", "1"));
    let request = forwards(group.member(follower))[0].0;
    group.member(follower).messages.clear();
    group.answer_forward(leader, follower, request, Refusal::TimedOut);
    let driver = group.member(follower);
    let answer = driver.take(number).expect("answered").1;
    assert_eq!(answer.err(), Some(Refusal::TimedOut));
    driver.tick();
    assert!(forwards(driver).is_empty());
}

/// Goal: a leader that is full is asked for one request at a time, and not for everything with each tick; when it has room
/// everything is done, in order and without waiting for time to pass.
#[test]
fn a_full_leader_is_probed() {
    let (mut group, leader, follower) = healthy();
    let count = 2_000;
    let burst = (1..=count).map(|n| put("k", n.to_string())).collect();
    let numbers = group.member(follower).ask(burst);
    for round in 0..3 {
        let sent = forwards(group.member(follower));
        assert_eq!(sent.len(), if round == 0 { count } else { 1 });
        group.member(follower).messages.clear();
        for (request, _) in sent {
            group.answer_forward(leader, follower, request, Refusal::TooManyRequests);
        }
        assert!(forwards(group.member(follower)).is_empty());
        group.member(follower).tick();
    }
    group.settle();
    assert_put(&mut group, follower, numbers);
    assert_eq!(group.contents(follower), [pair("k", &count.to_string())]);
}

/// Goal: a change of the membership that the leader has no room for is answered at once, like one of the leader's own
/// clients, and the writes beside it go on.
#[test]
fn a_refused_change_stops_no_write() {
    let (mut group, leader, follower) = healthy();
    let mode = MembershipRequest::ReadMode(ReadMode::Lease);
    let change = group.ask(follower, Request::Membership(mode));
    let request = forwards(group.member(follower))[0].0;
    group.member(follower).messages.clear();
    group.answer_forward(leader, follower, request, Refusal::TooManyRequests);
    let driver = group.member(follower);
    let answer = driver.take(change).expect("answered").1;
    assert_eq!(answer.err(), Some(Refusal::TooManyRequests));
    let write = group.ask(follower, put("k", "1"));
    assert_eq!(forwards(group.member(follower)).len(), 1);
    group.settle();
    assert_put(&mut group, follower, vec![write]);
}

/// Goal: what another member forwards to one that does not lead is refused at once, although what that one's own clients
/// asked before cannot be forwarded now.
#[test]
fn a_misled_forward_does_not_wait() {
    let (mut group, leader, follower) = healthy();
    let other = group.followers()[1];
    let numbers = group.member(follower).ask(puts());
    let request = forwards(group.member(follower))[0].0;
    group.answer_forward(leader, follower, request, Refusal::Stopped);
    let waits = group.ask(follower, put("k", "6"));
    assert_eq!(forwards(group.member(follower)).len(), puts().len());
    let forward = PeerMessage::Forward {
        request: 7,
        patience: PATIENCE,
        body: put("k", "of another"),
    };
    group.deliver(other, follower, forward);
    let driver = group.member(follower);
    assert_eq!(refusals(driver), [(7, Refusal::LeaderChanged)]);
    // Of its own nothing is lost.
    driver
        .messages
        .retain(|(_, message)| !is_forward(message, request));
    driver.tick();
    group.settle();
    assert_put(&mut group, follower, numbers);
    assert_put(&mut group, follower, vec![waits]);
}

/// Goal: under leases a leader whose connection was closed stays the leader until its time is over; nothing is forwarded to
/// nobody meanwhile, and what waited is done by its successor. When the connection is back, the leader is asked again.
#[test]
fn nothing_is_forwarded_to_a_closed_connection() {
    let (mut group, leader, follower) = healthy();
    let lease = Request::Membership(MembershipRequest::ReadMode(ReadMode::Lease));
    group.call(leader, lease).expect("a healthy group");
    group.run(Duration::from_millis(200));
    for is_back in [true, false] {
        let driver = group.member(follower);
        driver.hand_in(Event::PeerDisconnected(leader));
        assert_eq!(driver.shard.raft().leader(), Some(leader));
        let numbers = driver.ask(puts());
        assert!(forwards(driver).is_empty());
        if !is_back {
            group.cut_off.insert(leader);
            group.run(Duration::from_secs(4));
            assert_ne!(group.leader(), leader);
        }
        // The next heartbeat comes.
        group.run(Duration::from_millis(200));
        assert_put(&mut group, follower, numbers);
    }
}

/// Goal: what a member forwards whose directory is not heard yet, because it is still being stored, is refused and not left
/// without an answer.
#[test]
fn a_forward_that_is_not_heard_is_refused() {
    let (mut group, leader, follower) = healthy();
    let driver = group.member(leader);
    driver.hand_in(Event::Peer {
        from: follower,
        incarnation: Incarnation(99),
        message: PeerMessage::Forward {
            request: 7,
            patience: PATIENCE,
            body: put("k", "1"),
        },
    });
    assert_eq!(refusals(driver), [(7, Refusal::LeaderChanged)]);
    group.settle();
    assert_eq!(group.contents(leader), [pair("k", "0")]);
}

/// Goal: a write whose plan takes more than one slice waits while its leader hands over: the successor does it, or the
/// leader itself when nobody takes over.
#[test]
fn a_hand_over_in_the_middle_of_a_plan() {
    let key = Bytes::from_static(b"k");
    let range = KeyRange {
        key: key.clone(),
        range_end: Bytes::new(),
    };
    let exists = Compare {
        range,
        result: CompareResult::Greater,
        target: CompareTarget::Version(0),
    };
    let value = Bytes::from_static(b"long");
    let put = PutRequest {
        key,
        value,
        ..PutRequest::default()
    };
    let long = Request::Txn(TxnRequest {
        compare: vec![exists; 2 * SLICE_STEPS_MAX],
        success: vec![RequestOp::Put(put)],
        failure: Vec::new(),
    });
    for is_taken_over in [false, true] {
        let (mut group, leader, _) = healthy();
        let number = group.ask(leader, long.clone());
        let driver = group.member(leader);
        assert!(driver.shard.has_work(), "planned in one slice");
        driver.hand_in(Event::HandOver);
        assert!(!driver.shard.has_work(), "it has nothing to do but wait");
        let target = driver.shard.raft().transfer_target();
        group.cut_off.extend(target.filter(|_| !is_taken_over));
        group.run(Duration::from_millis(1_500));
        assert_eq!(group.leader() != leader, is_taken_over);
        let answer = group.member(leader).take(number).expect("answered").1;
        assert!(matches!(answer, Ok(Response::Txn(_))), "{answer:?}");
        assert_eq!(group.contents(leader), [pair("k", "long")]);
    }
}
