//! Checkpoints that travel, as version 1 archives them. A block's bytes follow the archive as they lie in
//! the sender's file.

use bytes::Bytes;
use rkyv::{Archive, Serialize};

use super::WireError;
use crate::base::limits::CHECKPOINT_BLOCK_BYTES;
use crate::base::{Index, Term};
use crate::checkpoint::{Block as FileBlock, CheckpointId};
use crate::shard::event::{CheckpointPosition, PeerMessage};

/// A [`CheckpointId`].
#[derive(Archive, Serialize)]
struct Id {
    index: u64,
    term: u64,
}

/// A [`PeerMessage::CheckpointOffer`].
#[derive(Archive, Serialize)]
pub(super) struct Offer {
    term: u64,
    attempt: u64,
    id: Id,
    size_bytes: u64,
}

/// A [`PeerMessage::CheckpointBlock`], but for the bytes.
#[derive(Archive, Serialize)]
pub(super) struct Block {
    term: u64,
    attempt: u64,
    id: Id,
    ordinal: u32,
    is_last: bool,
}

/// A [`PeerMessage::CheckpointPosition`].
#[derive(Archive, Serialize)]
pub(super) struct Position {
    term: u64,
    attempt: u64,
    reached: Reached,
}

/// A [`CheckpointPosition`].
#[derive(Archive, Serialize)]
enum Reached {
    Next(u32),
    Committed(u64),
}

impl Offer {
    pub(super) fn new(term: Term, attempt: u64, id: CheckpointId, size_bytes: u64) -> Offer {
        Offer {
            term: term.0,
            attempt,
            id: id.into(),
            size_bytes,
        }
    }
}

impl Block {
    pub(super) fn new(term: Term, attempt: u64, id: CheckpointId, block: &FileBlock) -> Block {
        Block {
            term: term.0,
            attempt,
            id: id.into(),
            ordinal: block.ordinal,
            is_last: block.is_last,
        }
    }
}

impl Position {
    pub(super) fn new(term: Term, attempt: u64, position: CheckpointPosition) -> Position {
        Position {
            term: term.0,
            attempt,
            reached: match position {
                CheckpointPosition::Next(ordinal) => Reached::Next(ordinal),
                CheckpointPosition::Committed(index) => Reached::Committed(index.0),
            },
        }
    }
}

impl ArchivedOffer {
    pub(super) fn message(&self) -> PeerMessage {
        PeerMessage::CheckpointOffer {
            term: Term(self.term.to_native()),
            attempt: self.attempt.to_native(),
            id: (&self.id).into(),
            size_bytes: self.size_bytes.to_native(),
        }
    }
}

impl ArchivedBlock {
    pub(super) fn message(&self, bytes: &Bytes) -> Result<PeerMessage, WireError> {
        if bytes.is_empty() || bytes.len() > CHECKPOINT_BLOCK_BYTES {
            return Err(WireError::BlockSize(bytes.len()));
        }
        Ok(PeerMessage::CheckpointBlock {
            term: Term(self.term.to_native()),
            attempt: self.attempt.to_native(),
            id: (&self.id).into(),
            block: FileBlock {
                ordinal: self.ordinal.to_native(),
                bytes: bytes.clone(),
                is_last: self.is_last,
            },
        })
    }
}

impl ArchivedPosition {
    pub(super) fn message(&self) -> PeerMessage {
        PeerMessage::CheckpointPosition {
            term: Term(self.term.to_native()),
            attempt: self.attempt.to_native(),
            position: match &self.reached {
                ArchivedReached::Next(ordinal) => CheckpointPosition::Next(ordinal.to_native()),
                ArchivedReached::Committed(index) => {
                    CheckpointPosition::Committed(Index(index.to_native()))
                }
            },
        }
    }
}

impl From<CheckpointId> for Id {
    fn from(id: CheckpointId) -> Id {
        Id {
            index: id.index.0,
            term: id.term.0,
        }
    }
}

impl From<&ArchivedId> for CheckpointId {
    fn from(id: &ArchivedId) -> CheckpointId {
        CheckpointId {
            index: Index(id.index.to_native()),
            term: Term(id.term.to_native()),
        }
    }
}
