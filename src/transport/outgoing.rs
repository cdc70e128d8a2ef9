//! What waits to be sent to a peer: messages, and then their bytes.
//!
//! Messages wait as messages, so that those of consensus overtake those of clients, and become bytes when
//! their connection has room. Owns the bounds: a message for which there is no room is dropped whole, but of the answer
//! to a client the word that it was lost is kept. Once the first byte of a frame was sent the rest follows or the
//! connection ends.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::hello::Path;
use super::wire;
use crate::base::ShardId;
use crate::base::limits::{
    PEER_BULK_QUEUED_BYTES_MAX, PEER_CLIENT_QUEUED_BYTES_MAX, PEER_COPIED_BYTES_MAX,
    PEER_QUEUED_BYTES_MAX, PEER_QUEUED_MESSAGES_MAX, PEER_UNSENT_BYTES_MAX,
};
use crate::frame::{EncodeError, FRAME_HEADER_BYTES, FrameEncoder, PageBuffer};
use crate::raft::Body;
use crate::shard::event::{PeerMessage, Refusal};
use crate::shard::size::{ASK_BYTES, answer_bytes, request_bytes};

/// What a message is counted for beside its variable parts: its frame's header and small fields.
const FIXED_BYTES: usize = FRAME_HEADER_BYTES + 96;
// What a shard has under way to a leader never counts for more here than there: its bound is below the connection's.
const _: () = assert!(FIXED_BYTES as u64 <= ASK_BYTES);
/// Places that one system call gathers from.
const GATHERED_MAX: usize = 256;

/// Over which connection a message goes, and whether it is of consensus there.
pub(super) fn path_of(message: &PeerMessage) -> (Path, Class) {
    match message {
        PeerMessage::Raft { message, .. } => match message.body {
            Body::Append(_) | Body::AppendResponse(_) => (Path::Ordered, Class::Consensus),
            _ => (Path::Prompt, Class::Consensus),
        },
        PeerMessage::CheckpointOffer { .. } | PeerMessage::CheckpointPosition { .. } => {
            (Path::Ordered, Class::Consensus)
        }
        PeerMessage::Introduce(_) | PeerMessage::Forward { .. } | PeerMessage::Forwarded { .. } => {
            (Path::Ordered, Class::Client)
        }
        PeerMessage::CheckpointBlock { .. } => (Path::Bulk, Class::Bulk),
    }
}

/// What shares a bound on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Consensus: overtakes the others.
    Consensus,
    /// Client work on its way to the leader and back.
    Client,
    /// Checkpoints.
    Bulk,
}

/// Messages that wait for one connection.
#[derive(Default)]
pub(super) struct Waiting {
    consensus: Queue,
    others: Queue,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<(PeerMessage, usize)>,
    size_bytes: usize,
}

impl Queue {
    fn pop(&mut self) -> Option<PeerMessage> {
        let (message, size_bytes) = self.messages.pop_front()?;
        self.size_bytes -= size_bytes;
        Some(message)
    }
}

impl Waiting {
    /// Takes a message, or drops it when there is no room: then `false`. One always has room where no other waits: it is
    /// there already, and what is counted for it may be many times what its frame has. Of an answer without room its
    /// client's right to hear something is kept, which is small, and bounded by the number of messages: what was asked
    /// for may have happened.
    pub(super) fn push(&mut self, class: Class, mut message: PeerMessage) -> bool {
        let (queue, size_bytes_max) = match class {
            Class::Consensus => (&mut self.consensus, PEER_QUEUED_BYTES_MAX),
            Class::Client => (&mut self.others, PEER_CLIENT_QUEUED_BYTES_MAX),
            Class::Bulk => (&mut self.others, PEER_BULK_QUEUED_BYTES_MAX),
        };
        if queue.messages.len() >= PEER_QUEUED_MESSAGES_MAX {
            return false;
        }
        let mut size_bytes = weight(&message);
        if !queue.messages.is_empty() && queue.size_bytes + size_bytes > size_bytes_max {
            let PeerMessage::Forwarded { result, .. } = &mut message else {
                return false;
            };
            if result.is_ok() {
                *result = Err(Refusal::TimedOut);
            }
            size_bytes = weight(&message);
        }
        queue.size_bytes += size_bytes;
        queue.messages.push_back((message, size_bytes));
        true
    }

    /// The next message: of consensus if there is one.
    pub(super) fn pop(&mut self) -> Option<PeerMessage> {
        self.consensus.pop().or_else(|| self.others.pop())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.consensus.messages.is_empty() && self.others.messages.is_empty()
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Waiting::default();
    }
}

/// About how many bytes a message takes, here and on the wire.
fn weight(message: &PeerMessage) -> usize {
    let of_client =
        |bytes: u64| usize::try_from(bytes).expect("what is in memory fits in an address");
    FIXED_BYTES
        + match message {
            PeerMessage::Raft { records, .. } => {
                records.len() * size_of::<Bytes>() + records.iter().map(Bytes::len).sum::<usize>()
            }
            PeerMessage::CheckpointBlock { block, .. } => block.bytes.len(),
            PeerMessage::Forward { body, .. } => of_client(request_bytes(body)),
            PeerMessage::Forwarded { result, .. } => of_client(answer_bytes(result)),
            PeerMessage::Introduce(_)
            | PeerMessage::CheckpointOffer { .. }
            | PeerMessage::CheckpointPosition { .. } => 0,
        }
}

/// Bytes of frames that the kernel has not taken yet. Small pieces are copied into one row, because a
/// place to gather from costs more than to copy them; large ones are sent from where they lie.
pub struct Unsent {
    encoder: FrameEncoder,
    version: u8,
    shard: ShardId,
    copied_bytes_max: usize,
    row: PageBuffer,
    parts: VecDeque<Part>,
    size_bytes: usize,
}

enum Part {
    /// A part of the row.
    Copied(Range<usize>),
    Shared(Bytes),
}

impl Unsent {
    /// Nothing yet, for a connection of this version and shard.
    #[must_use]
    pub fn new(version: u8, shard: ShardId) -> Unsent {
        Unsent::copying(version, shard, PEER_COPIED_BYTES_MAX)
    }

    /// The same with another bound between what is copied and what is gathered, to compare them.
    #[must_use]
    pub fn copying(version: u8, shard: ShardId, copied_bytes_max: usize) -> Unsent {
        Unsent {
            encoder: FrameEncoder::new(),
            version,
            shard,
            copied_bytes_max,
            row: PageBuffer::new(),
            parts: VecDeque::new(),
            size_bytes: 0,
        }
    }

    /// Adds the frame of a message at the end.
    ///
    /// # Errors
    /// It fits into no frame. Nothing was added.
    pub fn add(&mut self, message: &PeerMessage) -> Result<(), EncodeError> {
        let start = self.row.len();
        let size_bytes = wire::encode(
            &mut self.encoder,
            self.version,
            self.shard,
            message,
            &mut self.row,
        )?;
        self.size_bytes += size_bytes;
        self.add_copied(start);
        for piece in wire::attachment(message) {
            if piece.len() <= self.copied_bytes_max {
                let start = self.row.len();
                self.row.extend_from_slice(piece);
                self.add_copied(start);
            } else {
                self.parts.push_back(Part::Shared(piece.clone()));
            }
        }
        Ok(())
    }

    /// The row from `start` on is a part.
    fn add_copied(&mut self, start: usize) {
        let end = self.row.len();
        match self.parts.back_mut() {
            Some(Part::Copied(range)) if range.end == start => range.end = end,
            _ => self.parts.push_back(Part::Copied(start..end)),
        }
    }

    /// Bytes there are.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Where the first bytes lie, for one system call.
    #[must_use]
    pub fn slices(&self) -> SmallVec<[IoSlice<'_>; 16]> {
        self.parts
            .iter()
            .take(GATHERED_MAX)
            .map(|part| IoSlice::new(self.bytes_of(part)))
            .collect()
    }

    /// The first bytes, in one piece.
    #[must_use]
    pub fn first(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| self.bytes_of(part))
    }

    fn bytes_of<'a>(&'a self, part: &'a Part) -> &'a [u8] {
        match part {
            Part::Copied(range) => &self.row[range.clone()],
            Part::Shared(bytes) => bytes,
        }
    }

    /// So many of the first bytes were sent.
    ///
    /// # Panics
    /// If there were fewer.
    pub fn sent(&mut self, mut count: usize) {
        assert!(count <= self.size_bytes, "more was sent than there was");
        self.size_bytes -= count;
        while count > 0 {
            let first = self.parts.front_mut().expect("its bytes were counted");
            let size = match first {
                Part::Copied(range) => range.len(),
                Part::Shared(bytes) => bytes.len(),
            };
            if size <= count {
                count -= size;
                self.parts.pop_front();
                continue;
            }
            match first {
                Part::Copied(range) => range.start += count,
                Part::Shared(bytes) => *bytes = bytes.slice(count..),
            }
            count = 0;
        }
        self.compact();
    }

    /// Gives back what of the row was sent.
    fn compact(&mut self) {
        let copied = |part: &Part| match part {
            Part::Copied(range) => Some(range.start),
            Part::Shared(_) => None,
        };
        let Some(start) = self.parts.iter().find_map(copied) else {
            if self.row.capacity() > PEER_UNSENT_BYTES_MAX {
                self.row = PageBuffer::new();
            }
            self.row.clear();
            return;
        };
        // At most as much is moved as was sent since the last time.
        if start >= PEER_UNSENT_BYTES_MAX.max(self.row.len() - start) {
            let mut rest = PageBuffer::new();
            rest.extend_from_slice(&self.row[start..]);
            self.row = rest;
            for part in &mut self.parts {
                if let Part::Copied(range) = part {
                    *range = range.start - start..range.end - start;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Incarnation, Index, Term};
    use crate::checkpoint::{Block, CheckpointId};
    use crate::keyspace::request::{KeyValue, PutResponse};
    use crate::raft::Message;
    use crate::shard::event::{Header, Member, Response};

    fn consensus() -> PeerMessage {
        PeerMessage::Raft {
            message: Message {
                term: Term(1),
                incarnation: Incarnation(2),
                body: Body::TimeoutNow,
            },
            records: Vec::new(),
        }
    }

    fn block(size: usize) -> PeerMessage {
        PeerMessage::CheckpointBlock {
            term: Term(1),
            attempt: 1,
            id: CheckpointId {
                index: Index(1),
                term: Term(1),
            },
            block: Block {
                ordinal: 0,
                bytes: (0..size).map(|n| n as u8).collect::<Vec<_>>().into(),
                is_last: false,
            },
        }
    }

    /// Goal: consensus overtakes clients, and a full queue drops what comes, each class by its own bound.
    #[test]
    fn overtaken_and_bounded() {
        let client = || PeerMessage::Introduce(Member::default());
        let mut waiting = Waiting::default();
        assert!(waiting.push(Class::Client, client()));
        assert!(waiting.push(Class::Consensus, consensus()));
        assert!(matches!(waiting.pop(), Some(PeerMessage::Raft { .. })));
        assert!(matches!(waiting.pop(), Some(PeerMessage::Introduce(_))));
        assert!(waiting.is_empty());

        let size = PEER_BULK_QUEUED_BYTES_MAX / 4;
        let taken = (0..10).filter(|_| waiting.push(Class::Bulk, block(size)));
        assert_eq!(taken.count(), 3);
        let taken = (0..2 * PEER_QUEUED_MESSAGES_MAX)
            .filter(|_| waiting.push(Class::Consensus, consensus()));
        assert_eq!(taken.count(), PEER_QUEUED_MESSAGES_MAX);
        waiting.clear();
        assert!(waiting.push(Class::Bulk, block(size)));
    }

    /// An answer that counts for `size_bytes` and a little.
    fn answer(request: u64, size_bytes: usize) -> PeerMessage {
        let kv = KeyValue {
            value: vec![0; size_bytes].into(),
            ..KeyValue::default()
        };
        PeerMessage::Forwarded {
            request,
            index: Index(1),
            header: Header::default(),
            result: Ok(Response::Put(PutResponse { prev_kv: Some(kv) })),
        }
    }

    /// Goal: what is larger than a whole queue may be goes where nothing waits; an answer that has no room is not lost,
    /// but says that nobody knows, and a refusal stays what it was.
    #[test]
    fn answers_are_never_lost() {
        let mut waiting = Waiting::default();
        let large = PEER_CLIENT_QUEUED_BYTES_MAX + 1;
        assert!(waiting.push(Class::Client, answer(1, large)));
        assert!(waiting.push(Class::Client, answer(2, 0)));
        let mut refused = answer(3, 0);
        if let PeerMessage::Forwarded { result, .. } = &mut refused {
            *result = Err(Refusal::NoSpace);
        }
        assert!(waiting.push(Class::Client, refused));
        let introduction = PeerMessage::Introduce(Member::default());
        assert!(!waiting.push(Class::Client, introduction));
        let sent = std::iter::from_fn(|| waiting.pop()).map(|message| match message {
            PeerMessage::Forwarded {
                request, result, ..
            } => (request, result.err()),
            other => panic!("not put in: {other:?}"),
        });
        let expected = [
            (1, None),
            (2, Some(Refusal::TimedOut)),
            (3, Some(Refusal::NoSpace)),
        ];
        assert_eq!(sent.collect::<Vec<_>>(), expected);
        assert_eq!(waiting.others.size_bytes, 0);
        assert!(waiting.push(Class::Bulk, block(2 * PEER_BULK_QUEUED_BYTES_MAX)));
        assert!(!waiting.push(Class::Bulk, block(0)));
    }

    /// Goal: however the bytes are cut when they are sent, they come out as they were put in.
    #[test]
    fn sent_in_pieces() {
        for step in [1, 7, 1_000, 70_000, usize::MAX] {
            let mut unsent = Unsent::new(1, ShardId(0));
            let mut whole = Unsent::copying(1, ShardId(0), usize::MAX);
            let mut received: Vec<u8> = Vec::new();
            for size in [10, 5_000, 0, 4_096, 100_000] {
                for message in [consensus(), block(size)] {
                    unsent.add(&message).expect("it fits");
                    whole.add(&message).expect("it fits");
                }
            }
            let expected = whole.first().to_vec();
            assert_eq!(unsent.size_bytes(), expected.len());
            while unsent.size_bytes() > 0 {
                let before = received.len();
                {
                    let slices = unsent.slices();
                    assert_eq!(&slices[0][..], unsent.first());
                    received.extend(slices.iter().flat_map(|slice| slice.iter()).take(step));
                }
                unsent.sent(received.len() - before);
            }
            assert!(received == expected, "step {step}");
        }
    }

    /// Goal: memory is given back also when there is always something left to send.
    #[test]
    fn never_empty() {
        let mut unsent = Unsent::new(1, ShardId(0));
        unsent.add(&consensus()).expect("it fits");
        let size = unsent.size_bytes();
        for _ in 0..200_000 {
            unsent.add(&consensus()).expect("it fits");
            unsent.sent(size);
        }
        assert_eq!(unsent.size_bytes(), size);
        assert!(unsent.row.len() <= PEER_UNSENT_BYTES_MAX + size);
    }
}
