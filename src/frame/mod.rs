//! One record: a fixed header, a checksum and an archived body, the same bytes in the log, in a frame
//! and on every member.
//!
//! Owns the record's form and nothing of its meaning: the body is any archive that a layer above
//! defines. Must never do I/O, and must never panic on bytes that came from a disk or a socket. Runs
//! on the core of the shard it serves.
//!
//! ```text
//! 0        4       8    9       10         16    24     32              32 + length   next 16
//! | crc32c | length | kind | version | zero | term | index | rkyv archive | zero padding |
//! ```
//!
//! And the frame of one message between members ([`message`]), which may carry records.

pub mod envelope;
pub(crate) mod fields;
pub mod header;
pub mod message;

pub use envelope::{AccessError, ArchivedBody, Body, EncodeError, Encoder, PageBuffer, access};
pub use header::{
    RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, RECORD_VERSION, Record, RecordError, RecordHeader,
    RecordKind,
};
pub use message::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, Frame, FrameEncoder, FrameError, FrameHeader, FrameLabel,
};
