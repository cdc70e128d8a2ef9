//! Writes of a follower's clients on their way to the leader.

use std::time::Duration;

use bytes::Bytes;
use kontiki::base::MemberId;
use kontiki::base::limits::{SHARD_FORWARDED_BYTES_MAX, SHARD_MEMBERS_WRITES_BYTES_MAX};
use kontiki::shard::event::{Event, PeerMessage, Refusal, Request, Response};

use crate::driver::{Driver, PATIENCE, put};
use crate::group::Group;

const MIB: usize = 1 << 20;

/// A group with somebody who leads, and a follower.
fn healthy() -> (Group, MemberId, MemberId) {
    let mut group = Group::start(3, 1 << 20);
    let (leader, follower) = (group.leader(), group.followers()[0]);
    group.call(leader, put("k", "0")).expect("a healthy group");
    group.run(Duration::from_millis(200));
    (group, leader, follower)
}

/// What a member forwards that nobody has taken yet.
fn forwards(driver: &Driver) -> Vec<&Request> {
    let forward = |message| match message {
        &(_, PeerMessage::Forward { ref body, .. }) => Some(body),
        _ => None,
    };
    driver.messages.iter().filter_map(forward).collect()
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
    for number in numbers {
        let answer = group.member(follower).take(number).expect("answered").1;
        assert!(matches!(answer, Ok(Response::Put(_))), "{answer:?}");
    }
}
