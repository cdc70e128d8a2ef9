//! Talking to the other members: entries put to messages and taken off them.
//!
//! Raft names the entries of a message, and their records are attached here: from memory when they are recent,
//! otherwise read from the log's files. Messages with entries to one follower leave in order; everything
//! else overtakes them. What a peer sends is checked before anything believes it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::Shard;
use super::asker::Asker;
use super::consensus::Incoming;
use super::event::{LogRead, Notice, PeerMessage, Refusal};
use super::replay::Entry;
use crate::base::limits::{
    LOG_READ_BYTES, RAFT_INFLIGHT_FRAMES_MAX, SEGMENT_SIZE_BYTES, SHARD_STAGED_BYTES_MAX,
};
use crate::base::{Incarnation, Index, Instant, MemberId, Term};
use crate::frame::Record;
use crate::raft::{Append, Body, Message};
use crate::wal;

/// Messages whose entries are not in memory, by follower.
#[derive(Debug, Default)]
pub(super) struct Sending {
    lagging: BTreeMap<MemberId, Lagging>,
}

/// What waits for entries from the log's files.
#[derive(Debug, Default)]
struct Lagging {
    /// At most [`RAFT_INFLIGHT_FRAMES_MAX`] and one.
    messages: VecDeque<Message>,
    /// Records of the first message that were found so far.
    found: Vec<Bytes>,
    /// The index that is being read.
    reading: Option<Index>,
    /// How much the next read asks for.
    read_bytes: u64,
}

impl Sending {
    /// Nothing that waits is sent any more.
    pub(super) fn clear(&mut self) {
        self.lagging.clear();
    }

    /// Nothing that waits for one follower is sent any more: the log has it not.
    pub(super) fn forget(&mut self, to: MemberId) {
        self.lagging.remove(&to);
    }
}

impl Shard {
    /// Sends what raft says, its entries attached.
    pub(super) fn send_raft(&mut self, to: MemberId, message: Message) {
        let Body::Append(append) = &message.body else {
            self.push_raft(to, message, Vec::new());
            return;
        };
        if append.entries.is_empty() {
            self.push_raft(to, message, Vec::new());
            return;
        }
        if append.probe {
            // Raft starts over: what was to be sent before that is not wanted any more.
            self.sending.forget(to);
        }
        let waits = self.sending.lagging.contains_key(&to);
        match recent_records(&self.recent, append) {
            Some(records) if !waits => self.push_raft(to, message, records),
            _ => {
                let lagging = self.sending.lagging.entry(to).or_default();
                // More is not in raft's window. What is left out is found missing, and sent again.
                if lagging.messages.len() <= RAFT_INFLIGHT_FRAMES_MAX {
                    lagging.messages.push_back(message);
                }
            }
        }
    }

    fn push_raft(&mut self, to: MemberId, message: Message, records: Vec<Bytes>) {
        self.messages
            .push((to, PeerMessage::Raft { message, records }));
    }

    /// Sends what can be sent of what lags, and asks for what must be read.
    pub(super) fn send_lagging(&mut self, reads: &mut Vec<LogRead>) {
        if self.sending.lagging.is_empty() {
            return;
        }
        for (to, mut lagging) in std::mem::take(&mut self.sending.lagging) {
            while let Some(message) = lagging.messages.front() {
                let Body::Append(append) = &message.body else {
                    unreachable!("only messages with entries wait for them");
                };
                let records = if lagging.found.len() as u64 == append.entries.count() {
                    Some(std::mem::take(&mut lagging.found))
                } else if lagging.reading.is_none() {
                    recent_records(&self.recent, append)
                } else {
                    None
                };
                let Some(records) = records else {
                    break;
                };
                lagging.found.clear();
                let message = lagging.messages.pop_front().expect("just seen");
                self.push_raft(to, message, records);
            }
            let Some(message) = lagging.messages.front() else {
                continue;
            };
            if lagging.reading.is_none() {
                let Body::Append(append) = &message.body else {
                    unreachable!("only messages with entries wait for them");
                };
                let index = Index(append.prev.index.0 + 1 + lagging.found.len() as u64);
                // What is not on disk yet will be soon.
                let durable = index <= self.log.durable_index();
                let location = self.log.locate(index);
                if durable && location.is_none() {
                    // It was released: raft learns that nothing came, and asks for a checkpoint.
                    continue;
                }
                if let Some(location) = location.filter(|_| durable) {
                    lagging.reading = Some(index);
                    lagging.read_bytes = lagging.read_bytes.max(LOG_READ_BYTES);
                    reads.push(LogRead {
                        to,
                        index,
                        location,
                        size_bytes: lagging.read_bytes,
                    });
                }
            }
            self.raft.reads_for(to);
            self.sending.lagging.insert(to, lagging);
        }
    }

    /// A part of the log was read: takes the records that are looked for.
    pub(super) fn log_read(&mut self, read: &LogRead, bytes: &[u8]) {
        let Some(lagging) = self.sending.lagging.get_mut(&read.to) else {
            return;
        };
        if lagging.reading != Some(read.index) {
            return;
        }
        lagging.reading = None;
        let Some(Body::Append(append)) = lagging.messages.front().map(|message| &message.body)
        else {
            return;
        };
        let last = append.last();
        let mut next = Index(append.prev.index.0 + 1 + lagging.found.len() as u64);
        let before = next;
        for record in wal::entries(bytes) {
            // An index that was cut off and written again has the present term in its last record only.
            let present = self.raft.log().term_at(next) == Some(record.header.term);
            if record.header.index == next && present && next <= last {
                lagging.found.push(Bytes::copy_from_slice(record.bytes));
                next = next.next();
            }
        }
        // The rest of the segment was read, twice or more if that failed, and what must be there is not.
        if next == before && read.size_bytes >= SEGMENT_SIZE_BYTES {
            // Unless it was released, or cut off and written again, meanwhile.
            if self.log.locate(read.index) == Some(read.location) {
                self.log_unreadable(read);
            }
            return;
        }
        // An entry may be larger than what was asked for.
        lagging.read_bytes = if next == before {
            (2 * lagging.read_bytes).min(SEGMENT_SIZE_BYTES)
        } else {
            LOG_READ_BYTES
        };
    }

    /// An entry that a follower needs cannot be had from the log: a checkpoint takes the place of the damaged part,
    /// here and there.
    fn log_unreadable(&mut self, read: &LogRead) {
        let (to, index) = (read.to, read.index);
        self.notices.push(Notice::LogUnreadable { to, index });
        self.checkpoints.log_unreadable(index);
        self.damage_found();
        self.sending.forget(to);
        self.raft.log_unreadable(to, &mut self.outputs);
    }

    /// Another member said something.
    pub(super) fn take_peer_message(
        &mut self,
        from: MemberId,
        incarnation: Incarnation,
        message: PeerMessage,
        now: Instant,
    ) {
        // Consensus looks for itself, and answers.
        let is_raft = matches!(message, PeerMessage::Raft { .. });
        if !is_raft && !self.is_heard(from, incarnation) {
            if let PeerMessage::Forward { request, .. } = message {
                // Its directory may be on its way to the disk here: it may ask again.
                let member = from;
                self.refuse(Asker::Member { member, request }, Refusal::LeaderChanged);
            }
            return;
        }
        match message {
            PeerMessage::Raft { message, records } => self.take_raft(from, message, &records, now),
            PeerMessage::Forward {
                request,
                patience,
                body,
            } => self.take_forward(from, request, patience, body, now),
            PeerMessage::Forwarded {
                request,
                index,
                header,
                result,
            } => self.take_forwarded(from, request, index, header, result),
            PeerMessage::Introduce(member) => {
                if member.id == from && self.raft.next_position().is_some() {
                    // It says so again until it is known.
                    let _appended = self.introduce(&member);
                }
            }
            PeerMessage::CheckpointOffer {
                term, attempt, id, ..
            } => self.take_checkpoint_offer(from, term, attempt, id),
            PeerMessage::CheckpointBlock {
                term, id, block, ..
            } => self.take_checkpoint_block(from, term, id, block),
            PeerMessage::CheckpointPosition {
                term,
                attempt,
                position,
            } => self.take_checkpoint_position(from, term, attempt, position, now),
        }
    }

    /// Whether this member speaks from the directory that consensus hears it from. That its connection was let in says
    /// less: a directory that is not known, or says of itself that the group has agreed on it, is let in too.
    fn is_heard(&self, member: MemberId, incarnation: Incarnation) -> bool {
        !self.cluster.is_removed(member) && self.raft.hears(member, incarnation)
    }

    fn take_raft(&mut self, from: MemberId, message: Message, records: &[Bytes], now: Instant) {
        if self.raft.leader() == Some(from) {
            self.forwards.leader_heard();
        }
        let incoming = match &message.body {
            Body::Append(append) => {
                // A member that stops would never come to rest. What it does not take it does not acknowledge.
                if !append.entries.is_empty() && (self.stopping || !self.has_room_for_entries()) {
                    // The leader sends them again when it hears nothing.
                    return;
                }
                // An honest leader sends no more than there is room for by now.
                if !self.log.has_room_for(records.iter().map(Bytes::len)) {
                    return;
                }
                match check_records(append, message.term, records) {
                    Some(incoming) => incoming,
                    None => return,
                }
            }
            _ => VecDeque::new(),
        };
        self.raft.step(from, message, now, &mut self.outputs);
        self.follow_raft(incoming);
    }

    /// Whether the leader's entries may come: neither the disk nor the fold is far behind.
    pub(super) fn has_room_for_entries(&self) -> bool {
        self.log.staged_bytes() < SHARD_STAGED_BYTES_MAX / 2
            && self.folder.size_bytes() < SHARD_STAGED_BYTES_MAX
    }
}

fn recent_records(recent: &super::recent::Recent, append: &Append) -> Option<Vec<Bytes>> {
    let first = append.prev.index.0 + 1;
    (first..=append.last().0)
        .map(|index| recent.record(Index(index)).cloned())
        .collect()
}

/// The entries that an append names and nothing else, each with a sound record; `None` when they are not.
fn check_records(append: &Append, term: Term, records: &[Bytes]) -> Option<VecDeque<Incoming>> {
    if !append.is_sound(term) || append.entries.count() != records.len() as u64 {
        return None;
    }
    let terms = append.entries.runs.iter().flat_map(|run| {
        std::iter::repeat_n(run.term, usize::try_from(run.count).unwrap_or(usize::MAX))
    });
    let mut index = append.prev.index;
    let mut incoming = VecDeque::with_capacity(records.len());
    for (term, bytes) in terms.zip(records) {
        index = index.next();
        let (record, rest) = Record::parse(bytes).ok()?;
        let entry = Entry::new(record.header, bytes.slice_ref(record.body)).ok()?;
        if !rest.is_empty() || (record.header.term, record.header.index) != (term, index) {
            return None;
        }
        incoming.push_back(Incoming {
            entry,
            record: bytes.clone(),
        });
    }
    Some(incoming)
}
