//! What members say, as bytes: a frame's archive for each kind of message, version 1 of the protocol.
//!
//! Owns the schema of version 1, mirrored from the types of the layers below, which know no wire: those may
//! change, a released mirror never does (an archive has no schema evolution). Records of an append travel
//! behind the archive as they lie in the log, without being encoded again. Nothing that was received is
//! used before checksum, structure and meaning were checked, and a message that does not hold is an error,
//! never a panic.

mod checkpoint;
mod raft;
mod request;
mod response;

use std::time::Duration;

use bytes::Bytes;
use rkyv::{Archive, Serialize};

use self::request::Request;
use self::response::{Answer, Header, Member};
use crate::base::{Index, ShardId};
use crate::frame::{
    AccessError, EncodeError, Frame, FrameEncoder, FrameLabel, PageBuffer, RECORD_HEADER_BYTES,
    Record, RecordError, access,
};
use crate::raft::Body;
use crate::shard::event::{PeerMessage, Refusal};

/// The protocol versions this program speaks, lowest and highest.
pub const PROTOCOL_VERSIONS: (u8, u8) = (1, 1);

// Kinds of frames. Numbers are never used again for something else.

const KIND_RAFT: u8 = 1;
const KIND_INTRODUCE: u8 = 2;
const KIND_FORWARD: u8 = 3;
const KIND_FORWARDED: u8 = 4;
const KIND_CHECKPOINT_OFFER: u8 = 5;
const KIND_CHECKPOINT_BLOCK: u8 = 6;
const KIND_CHECKPOINT_POSITION: u8 = 7;

/// A client's request on its way to the leader.
#[derive(Archive, Serialize)]
struct Forward {
    request: u64,
    patience_nanos: u64,
    body: Request,
}

/// The answer to it.
#[derive(Archive, Serialize)]
struct Forwarded {
    request: u64,
    index: u64,
    header: Header,
    answer: Answer,
}

/// Why a frame is not a message. Its connection is not to be trusted any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another version than the handshake agreed on.
    #[error("a frame of protocol version {0} on a connection of another one")]
    Version(u8),
    /// A shard the connection is not about.
    #[error("a frame of shard {0} on a connection of another one")]
    Shard(ShardId),
    /// A kind this version does not have.
    #[error("frames of kind {0} are not known")]
    Kind(u8),
    /// The archive's structure does not hold.
    #[error(transparent)]
    Archive(#[from] AccessError),
    /// What follows the archive is not what the message names.
    #[error("a message of {expected} records came with other bytes than those")]
    Attachment {
        /// Records that the message names.
        expected: u64,
    },
    /// What follows the archive is not records.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A block of a checkpoint that is none.
    #[error("a block of a checkpoint with {0} bytes")]
    BlockSize(usize),
    /// A name or URL that is not UTF-8.
    #[error("a name or URL is not UTF-8")]
    Text,
    /// A row of entries of one term that has none.
    #[error("an append with an empty run of entries")]
    EmptyRun,
    /// A term, an index or a count that nothing can have reached.
    #[error("a term, an index or a count of {0}, which nothing can have reached")]
    Number(u64),
}

/// Appends the frame of `message` to `buffer`, but for what follows the archive: [`attachment`] is to be
/// sent right after it. Returns the bytes of the whole frame.
///
/// An answer that is too large for any frame becomes a refusal, so that its client hears of it.
///
/// # Errors
/// A message that fits into no frame: it cannot be sent. `buffer` is as it was.
pub fn encode(
    encoder: &mut FrameEncoder,
    version: u8,
    shard: ShardId,
    message: &PeerMessage,
    buffer: &mut PageBuffer,
) -> Result<usize, EncodeError> {
    let label = |kind| FrameLabel {
        version,
        kind,
        shard,
    };
    match message {
        PeerMessage::Raft { message, records } => {
            let body = raft::Message::from(message);
            encoder.frame(label(KIND_RAFT), &body, records, buffer)
        }
        PeerMessage::Introduce(member) => {
            let body = Member::from(member);
            encoder.frame(label(KIND_INTRODUCE), &body, &[], buffer)
        }
        PeerMessage::Forward {
            request,
            patience,
            body,
        } => {
            let body = Forward {
                request: *request,
                patience_nanos: u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX),
                body: body.into(),
            };
            encoder.frame(label(KIND_FORWARD), &body, &[], buffer)
        }
        PeerMessage::Forwarded {
            request,
            index,
            header,
            result,
        } => {
            let mut body = Forwarded {
                request: *request,
                index: index.0,
                header: header.into(),
                answer: result.into(),
            };
            match encoder.frame(label(KIND_FORWARDED), &body, &[], buffer) {
                Err(EncodeError::TooLarge { .. }) => {
                    // What was asked for may have happened: the one refusal that says so.
                    body.answer = Answer::from(&Err(Refusal::TimedOut));
                    encoder.frame(label(KIND_FORWARDED), &body, &[], buffer)
                }
                result => result,
            }
        }
        PeerMessage::CheckpointOffer {
            term,
            attempt,
            id,
            size_bytes,
        } => {
            let body = checkpoint::Offer::new(*term, *attempt, *id, *size_bytes);
            encoder.frame(label(KIND_CHECKPOINT_OFFER), &body, &[], buffer)
        }
        PeerMessage::CheckpointBlock {
            term,
            attempt,
            id,
            block,
        } => {
            let body = checkpoint::Block::new(*term, *attempt, *id, block);
            let attachment = attachment(message);
            encoder.frame(label(KIND_CHECKPOINT_BLOCK), &body, attachment, buffer)
        }
        PeerMessage::CheckpointPosition {
            term,
            attempt,
            position,
        } => {
            let body = checkpoint::Position::new(*term, *attempt, *position);
            encoder.frame(label(KIND_CHECKPOINT_POSITION), &body, &[], buffer)
        }
    }
}

/// What is sent after the archive of `message`, in this order.
#[must_use]
pub fn attachment(message: &PeerMessage) -> &[Bytes] {
    match message {
        PeerMessage::Raft { records, .. } => records,
        PeerMessage::CheckpointBlock { block, .. } => std::slice::from_ref(&block.bytes),
        PeerMessage::Introduce(_)
        | PeerMessage::Forward { .. }
        | PeerMessage::Forwarded { .. }
        | PeerMessage::CheckpointOffer { .. }
        | PeerMessage::CheckpointPosition { .. } => &[],
    }
}

/// The message that a frame is, on a connection of this version and shard.
///
/// # Errors
/// [`WireError`] says what does not hold.
pub fn decode(frame: &Frame, version: u8, shard: ShardId) -> Result<PeerMessage, WireError> {
    if frame.header.version != version {
        return Err(WireError::Version(frame.header.version));
    }
    if frame.header.shard != shard {
        return Err(WireError::Shard(frame.header.shard));
    }
    let may_have_more = matches!(frame.header.kind, KIND_RAFT | KIND_CHECKPOINT_BLOCK);
    if !may_have_more && !frame.attachment.is_empty() {
        return Err(WireError::Attachment { expected: 0 });
    }
    match frame.header.kind {
        KIND_RAFT => decode_raft(frame),
        KIND_INTRODUCE => {
            let member = access::<Member>(&frame.archive)?;
            Ok(PeerMessage::Introduce(member.try_into()?))
        }
        KIND_FORWARD => {
            let forward = access::<Forward>(&frame.archive)?;
            Ok(PeerMessage::Forward {
                request: forward.request.to_native(),
                patience: Duration::from_nanos(forward.patience_nanos.to_native()),
                body: (&forward.body).try_into()?,
            })
        }
        KIND_FORWARDED => {
            let forwarded = access::<Forwarded>(&frame.archive)?;
            Ok(PeerMessage::Forwarded {
                request: forwarded.request.to_native(),
                index: Index(forwarded.index.to_native()),
                header: (&forwarded.header).into(),
                result: (&forwarded.answer).try_into()?,
            })
        }
        KIND_CHECKPOINT_OFFER => Ok(access::<checkpoint::Offer>(&frame.archive)?.message()),
        KIND_CHECKPOINT_BLOCK => {
            access::<checkpoint::Block>(&frame.archive)?.message(&frame.attachment)
        }
        KIND_CHECKPOINT_POSITION => Ok(access::<checkpoint::Position>(&frame.archive)?.message()),
        unknown => Err(WireError::Kind(unknown)),
    }
}

fn decode_raft(frame: &Frame) -> Result<PeerMessage, WireError> {
    let message: crate::raft::Message = access::<raft::Message>(&frame.archive)?.try_into()?;
    let expected = match &message.body {
        Body::Append(append) => append.entries.count(),
        _ => 0,
    };
    Ok(PeerMessage::Raft {
        records: split_records(&frame.attachment, expected)?,
        message,
    })
}

/// The records that lie in a row in `bytes`, as many as expected and nothing else.
fn split_records(bytes: &Bytes, expected: u64) -> Result<Vec<Bytes>, WireError> {
    // Counted before memory is taken for them: none is smaller than its header.
    let count = usize::try_from(expected)
        .ok()
        .filter(|count| *count <= bytes.len() / RECORD_HEADER_BYTES)
        .ok_or(WireError::Attachment { expected })?;
    let mut records = Vec::with_capacity(count);
    let mut rest = &bytes[..];
    while !rest.is_empty() && records.len() < count {
        let (record, after) = Record::parse(rest)?;
        records.push(bytes.slice_ref(record.bytes));
        rest = after;
    }
    if records.len() == count && rest.is_empty() {
        Ok(records)
    } else {
        Err(WireError::Attachment { expected })
    }
}
