//! What a member that does not keep to the rules may make another one do: nothing that ends it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kontiki::base::limits::SHARD_STAGED_BYTES_MAX;
use kontiki::base::{Index, MemberId};
use kontiki::raft::{Body, Message};
use kontiki::shard::event::{Event, PeerMessage};

use crate::driver::put;
use crate::group::Group;

/// What the members of a group were sent of its log.
#[derive(Default)]
struct Overheard {
    records: BTreeMap<Index, Bytes>,
    /// An append to somebody who had everything before it.
    append: Option<Message>,
}

impl Overheard {
    fn see(&mut self, to: MemberId, of: MemberId, message: &PeerMessage) {
        let PeerMessage::Raft { message, records } = message else {
            return;
        };
        if let Body::Append(append) = &message.body
            && to == of
            && !append.entries.is_empty()
        {
            let first = append.prev.index.0 + 1;
            let indexes = (first..).map(Index);
            self.records.extend(indexes.zip(records.iter().cloned()));
            self.append = Some(message.clone());
        }
    }
}

/// Goal: one append with more entries than a follower has room for, each of them sound, is not taken and does no harm:
/// the follower goes on, and catches up when it is sent what fits.
#[test]
fn more_than_there_is_room_for() {
    let mut group = Group::start(3, 1 << 20);
    let (leader, late, other) = (group.leader(), group.followers()[0], group.followers()[1]);
    group.call(leader, put("k", "0")).expect("a healthy group");
    group.run(Duration::from_millis(200));
    group.cut_off.insert(late);
    let had = group.member(late).shard.raft().last_index();
    let mut overheard = Overheard::default();
    let mut size = 0;
    while size < SHARD_STAGED_BYTES_MAX as usize + (1 << 20) {
        group.ask(leader, put("k", vec![b'v'; 50_000]));
        group.settle_and_see(|to, message| overheard.see(to, other, message));
        size += 50_000;
    }
    let mut message = overheard.append.expect("the other one was sent entries");
    let Body::Append(append) = &mut message.body else {
        unreachable!("only appends are kept");
    };
    let records: Vec<_> = overheard.records.range(had.next()..).collect();
    assert_eq!(records.first().map(|record| *record.0), Some(had.next()));
    let records: Vec<Bytes> = records
        .into_iter()
        .map(|(_, record)| record.clone())
        .collect();
    append.prev.index = had;
    append.entries.runs[0].count = records.len() as u64;
    append.entries.size_bytes = records.iter().map(|record| record.len() as u64).sum();
    append.commit = had;
    let driver = group.member(late);
    driver.hand_in(Event::Peer {
        from: leader,
        incarnation: message.incarnation,
        message: PeerMessage::Raft { message, records },
    });
    assert_eq!(driver.shard.log().last_index(), had, "it was taken in part");
    group.cut_off.clear();
    group.run(Duration::from_secs(1));
    assert!(group.member(late).shard.log().last_index() > had);
    group.assert_same();
}
