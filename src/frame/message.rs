//! The frame of a message between members: where it ends, what it is, and whether its bytes are what was
//! sent.
//!
//! Hand-written and outside the archive, like the header of a record, so that a reader that knows nothing
//! else can still say what it sees. What follows the archive, the *attachment*, is bytes that exist already
//! (records of the log, a block of a checkpoint) and are sent without being encoded again. Must never trust
//! a length before its bound is checked.
//!
//! ```text
//! 0       4         5      6      8        12               16     20              24          28
//! | magic | version | kind | zero | length | archive length | shard | body checksum | zero ... | header checksum |
//! 32                                    next 16        length
//! | archive              | zero padding | attachment |
//! ```

use bytes::Bytes;

use super::envelope::{Archiver, Body, EncodeError, PageBuffer};
use super::fields::{put, u16_at, u32_at};
use super::header::RECORD_ALIGN_BYTES;
use crate::base::ShardId;
use crate::base::checksum::{Crc32c, crc32c};
use crate::base::limits::PEER_FRAME_BYTES_MAX;

/// Size of the header in front of every frame.
pub const FRAME_HEADER_BYTES: usize = 32;
/// The first bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"KTKP";

// The layout. All numbers are little-endian; bytes without a name are zero.

/// 4 bytes: [`FRAME_MAGIC`].
const MAGIC_OFFSET: usize = 0;
/// u8: the protocol version of the connection.
const VERSION_OFFSET: usize = 4;
/// u8: what the archive is; its numbers belong to the protocol version.
const KIND_OFFSET: usize = 5;
/// u16: zero.
const ZERO_OFFSET: usize = 6;
/// u32: bytes of the whole frame, header included.
const LENGTH_OFFSET: usize = 8;
/// u32: bytes of the archive, padding excluded.
const ARCHIVE_LENGTH_OFFSET: usize = 12;
/// u32: the shard that it is about.
const SHARD_OFFSET: usize = 16;
/// u32: CRC-32C of everything after the header.
const BODY_CHECKSUM_OFFSET: usize = 20;
/// u32: zero.
const SECOND_ZERO_OFFSET: usize = 24;
/// u32: CRC-32C of the bytes before it.
const CHECKSUM_OFFSET: usize = 28;

const _: () = assert!(CHECKSUM_OFFSET + 4 == FRAME_HEADER_BYTES);
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));
const _: () = assert!(PEER_FRAME_BYTES_MAX <= u32::MAX as usize);

/// The fields of a frame's header whose checksum, form and limits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The protocol version.
    pub version: u8,
    /// What the archive is.
    pub kind: u8,
    /// The shard that it is about.
    pub shard: ShardId,
    /// Bytes of the whole frame, header included; at most [`PEER_FRAME_BYTES_MAX`].
    pub length: usize,
    archive_length: usize,
    body_checksum: u32,
}

impl FrameHeader {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// [`FrameError`] says what does not hold.
    pub fn parse(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<FrameHeader, FrameError> {
        if bytes[..FRAME_MAGIC.len()] != FRAME_MAGIC {
            return Err(FrameError::Magic);
        }
        if crc32c(&bytes[..CHECKSUM_OFFSET]) != u32_at(bytes, CHECKSUM_OFFSET) {
            return Err(FrameError::HeaderChecksum);
        }
        if u16_at(bytes, ZERO_OFFSET) != 0 || u32_at(bytes, SECOND_ZERO_OFFSET) != 0 {
            return Err(FrameError::NotZero);
        }
        let length = u32_at(bytes, LENGTH_OFFSET) as usize;
        let archive_length = u32_at(bytes, ARCHIVE_LENGTH_OFFSET) as usize;
        if length > PEER_FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { length });
        }
        let body_size = length.checked_sub(FRAME_HEADER_BYTES);
        if body_size.is_none_or(|size| size < padded(archive_length)) {
            return Err(FrameError::Lengths {
                length,
                archive_length,
            });
        }
        Ok(FrameHeader {
            version: bytes[VERSION_OFFSET],
            kind: bytes[KIND_OFFSET],
            shard: ShardId(u32_at(bytes, SHARD_OFFSET)),
            length,
            archive_length,
            body_checksum: u32_at(bytes, BODY_CHECKSUM_OFFSET),
        })
    }

    /// Takes the frame apart that this header and these bytes after it are.
    ///
    /// # Errors
    /// [`FrameError::BodyChecksum`] or [`FrameError::NotZero`].
    ///
    /// # Panics
    /// If `body` is not as long as this header says.
    pub fn open(self, body: &Bytes) -> Result<Frame, FrameError> {
        assert_eq!(
            FRAME_HEADER_BYTES + body.len(),
            self.length,
            "the body of this header"
        );
        if crc32c(body) != self.body_checksum {
            return Err(FrameError::BodyChecksum);
        }
        let attachment_start = padded(self.archive_length);
        if body[self.archive_length..attachment_start]
            .iter()
            .any(|byte| *byte != 0)
        {
            return Err(FrameError::NotZero);
        }
        Ok(Frame {
            header: self,
            archive: body.slice(..self.archive_length),
            attachment: body.slice(attachment_start..),
        })
    }
}

/// A frame whose checksums, form and limits hold. Its archive is checked by [`crate::frame::access`].
#[derive(Clone, Debug)]
pub struct Frame {
    /// The fields of the header.
    pub header: FrameHeader,
    /// What is said.
    pub archive: Bytes,
    /// What exists already and is sent along, without a copy of the received bytes.
    pub attachment: Bytes,
}

/// What a frame's header needs to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLabel {
    /// The protocol version of the connection.
    pub version: u8,
    /// What the archive is.
    pub kind: u8,
    /// The shard that it is about.
    pub shard: ShardId,
}

/// Encodes frames. Keeps its scratch memory from one to the next.
pub struct FrameEncoder {
    archiver: Archiver,
}

impl FrameEncoder {
    /// An encoder.
    #[must_use]
    pub fn new() -> FrameEncoder {
        FrameEncoder {
            archiver: Archiver::new(),
        }
    }

    /// Appends a frame to `buffer` but for its attachment, the `pieces`, which are to be sent right after
    /// it. On an error `buffer` is as it was. Returns the bytes of the whole frame.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] when the frame would be above [`PEER_FRAME_BYTES_MAX`].
    pub fn frame<T: Body>(
        &mut self,
        label: FrameLabel,
        body: &T,
        pieces: &[Bytes],
        buffer: &mut PageBuffer,
    ) -> Result<usize, EncodeError> {
        let attachment_size: usize = pieces.iter().map(Bytes::len).sum();
        let overhead = FRAME_HEADER_BYTES + RECORD_ALIGN_BYTES;
        let room = PEER_FRAME_BYTES_MAX
            .checked_sub(attachment_size + overhead)
            .ok_or(EncodeError::TooLarge {
                limit_bytes: PEER_FRAME_BYTES_MAX,
            })?;
        let start = buffer.len();
        buffer.resize(start + FRAME_HEADER_BYTES, 0);
        let archive_length = self
            .archiver
            .append(body, room, buffer)
            .inspect_err(|_| buffer.resize(start, 0))?;
        let archive_start = start + FRAME_HEADER_BYTES;
        buffer.resize(archive_start + padded(archive_length), 0);
        let mut checksum = Crc32c::new();
        checksum.update(&buffer[archive_start..]);
        for piece in pieces {
            checksum.update(piece);
        }
        let length = buffer.len() - start + attachment_size;
        let narrow = |length| u32::try_from(length).expect("the limit of a frame is below 4 GiB");
        let header = &mut buffer[start..archive_start];
        put(header, MAGIC_OFFSET, &FRAME_MAGIC);
        header[VERSION_OFFSET] = label.version;
        header[KIND_OFFSET] = label.kind;
        put(header, LENGTH_OFFSET, &narrow(length).to_le_bytes());
        put(
            header,
            ARCHIVE_LENGTH_OFFSET,
            &narrow(archive_length).to_le_bytes(),
        );
        put(header, SHARD_OFFSET, &label.shard.0.to_le_bytes());
        put(
            header,
            BODY_CHECKSUM_OFFSET,
            &checksum.finish().to_le_bytes(),
        );
        let checksum = crc32c(&header[..CHECKSUM_OFFSET]);
        put(header, CHECKSUM_OFFSET, &checksum.to_le_bytes());
        Ok(length)
    }
}

impl Default for FrameEncoder {
    fn default() -> FrameEncoder {
        FrameEncoder::new()
    }
}

fn padded(archive_length: usize) -> usize {
    archive_length.next_multiple_of(RECORD_ALIGN_BYTES)
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else begins here.
    #[error("no frame begins here")]
    Magic,
    /// The header is not what was sent.
    #[error("the checksum of a frame's header does not hold")]
    HeaderChecksum,
    /// What follows the header is not what was sent.
    #[error("the checksum of a frame's body does not hold")]
    BodyChecksum,
    /// Longer than any frame may be.
    #[error("a frame of {length} bytes is longer than the limit of {PEER_FRAME_BYTES_MAX}")]
    TooLong {
        /// What the header says.
        length: usize,
    },
    /// The archive does not fit into the frame.
    #[error("a frame of {length} bytes cannot hold an archive of {archive_length} bytes")]
    Lengths {
        /// What the header says.
        length: usize,
        /// What the header says of the archive.
        archive_length: usize,
    },
    /// Reserved or padding bytes are in use: a newer layout, or not ours.
    #[error("reserved bytes of a frame are not zero")]
    NotZero,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(rkyv::Archive, rkyv::Serialize)]
    struct Sample {
        number: u64,
        text: Vec<u8>,
    }

    const LABEL: FrameLabel = FrameLabel {
        version: 1,
        kind: 3,
        shard: ShardId(2),
    };

    fn frame(pieces: &[Bytes]) -> Vec<u8> {
        let mut buffer = PageBuffer::new();
        let sample = Sample {
            number: 7,
            text: b"text".to_vec(),
        };
        let length = FrameEncoder::new()
            .frame(LABEL, &sample, pieces, &mut buffer)
            .expect("small");
        let bytes = [&buffer[..], &pieces.concat()].concat();
        assert_eq!(bytes.len(), length);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<Frame, FrameError> {
        let header = bytes.first_chunk().expect("a header");
        let header = FrameHeader::parse(header)?;
        header.open(&Bytes::copy_from_slice(
            bytes.get(FRAME_HEADER_BYTES..header.length).expect("whole"),
        ))
    }

    /// Sets bytes of the header and makes its checksum right again, as a foreign writer would.
    fn forged(offset: usize, bytes: &[u8]) -> Vec<u8> {
        let mut frame = frame(&[]);
        put(&mut frame, offset, bytes);
        let checksum = crc32c(&frame[..CHECKSUM_OFFSET]);
        put(&mut frame, CHECKSUM_OFFSET, &checksum.to_le_bytes());
        frame
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: FrameError) {
        assert_eq!(open(bytes).expect_err("refused"), expected);
    }

    /// Goal: the layout is frozen, byte for byte.
    #[test]
    fn golden_bytes() {
        let hex: String = frame(&[Bytes::from_static(&[0xee; 16])])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            concat!(
                "4b544b50",
                "01",
                "03",
                "0000",
                "50000000",
                "14000000",
                "02000000",
                "8ae2b1f0",
                "00000000",
                "c5eb00a9",
                "74657874",
                "0700000000000000",
                "f4ffffff04000000",
                "000000000000000000000000",
                "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
            )
        );
    }

    /// Goal: what is framed is found again: archive and attachment, whatever their lengths.
    #[test]
    fn there_and_back() {
        for sizes in [&[][..], &[16], &[32, 16, 48], &[5]] {
            let pieces: Vec<Bytes> = sizes.iter().map(|size| vec![9; *size].into()).collect();
            let frame = open(&frame(&pieces)).expect("whole");
            assert_eq!(
                (frame.header.version, frame.header.kind, frame.header.shard),
                (LABEL.version, LABEL.kind, LABEL.shard)
            );
            let archived = crate::frame::access::<Sample>(&frame.archive).expect("sound");
            assert_eq!(
                (archived.number.to_native(), &archived.text[..]),
                (7, &b"text"[..])
            );
            assert_eq!(frame.attachment, pieces.concat());
        }
    }

    /// Goal: every wrong form is refused with its own reason.
    #[test]
    fn refusals() {
        check(
            b"GET /raft HTTP/1.1\r\nHost: a\r\n\r\n......",
            FrameError::Magic,
        );
        check(&forged(ZERO_OFFSET, &[1]), FrameError::NotZero);
        check(&forged(SECOND_ZERO_OFFSET, &[1]), FrameError::NotZero);
        let length = PEER_FRAME_BYTES_MAX + 1;
        check(
            &forged(LENGTH_OFFSET, &(length as u32).to_le_bytes()),
            FrameError::TooLong { length },
        );
        for (length, archive_length) in [(31u32, 0u32), (0, 0), (48, 17), (64, u32::MAX)] {
            let both = [length.to_le_bytes(), archive_length.to_le_bytes()].concat();
            check(
                &forged(LENGTH_OFFSET, &both),
                FrameError::Lengths {
                    length: length as usize,
                    archive_length: archive_length as usize,
                },
            );
        }
    }

    /// Goal: no single flipped bit of a frame goes unnoticed.
    #[test]
    fn every_bit_is_covered() {
        let good = frame(&[Bytes::from_static(&[1; 16])]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad).is_err(), "bit {bit}");
        }
    }

    /// Goal: a frame above the limit is refused and leaves no trace.
    #[test]
    fn too_large() {
        let mut buffer = PageBuffer::new();
        buffer.extend_from_slice(b"before");
        for (text, piece) in [(PEER_FRAME_BYTES_MAX, 0), (1, PEER_FRAME_BYTES_MAX)] {
            let sample = Sample {
                number: 1,
                text: vec![0; text],
            };
            let pieces = [Bytes::from(vec![0; piece])];
            let refused = FrameEncoder::new()
                .frame(LABEL, &sample, &pieces, &mut buffer)
                .expect_err("too large");
            assert!(matches!(refused, EncodeError::TooLarge { .. }));
            assert_eq!(buffer.as_slice(), b"before");
        }
    }
}
