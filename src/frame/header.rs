//! The record header: where a record ends, what it is, and whether its bytes are what was written.
//!
//! Hand-written and outside the archive, so that a reader that knows nothing else can still say
//! "written by a newer version". [`Record::parse`] is the only way from foreign bytes to a record;
//! what it returns has been checked.

use crate::base::checksum::crc32c;
use crate::base::limits::ENTRY_SIZE_BYTES_MAX;
use crate::base::{Index, Term};
use crate::frame::fields::{put, u16_at, u32_at, u64_at};

/// Size of the header in front of every archive.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Records begin at multiples of this, counted from the first record of their buffer.
pub const RECORD_ALIGN_BYTES: usize = 16;
/// The newest layout of records that this program writes, and the newest it reads.
pub const RECORD_VERSION: u8 = 1;

// The layout. All numbers are little-endian; bytes without a name are zero.

/// u32: CRC-32C of every byte from [`LENGTH_OFFSET`] to the end of the archive, padding excluded.
const CHECKSUM_OFFSET: usize = 0;
/// u32: bytes of the archive, header and padding excluded.
const LENGTH_OFFSET: usize = 4;
/// u8: [`RecordKind`].
const KIND_OFFSET: usize = 8;
/// u8: [`RECORD_VERSION`] of the writer.
const VERSION_OFFSET: usize = 9;
/// u16 and u32: zero.
const ZERO_OFFSET: usize = 10;
/// u64: the term.
const TERM_OFFSET: usize = 16;
/// u64: the index.
const INDEX_OFFSET: usize = 24;

const _: () = assert!(INDEX_OFFSET + 8 == RECORD_HEADER_BYTES);
const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));
const _: () = assert!(ENTRY_SIZE_BYTES_MAX <= u32::MAX as u64);

/// What a record is for, and what its term and index mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A log entry: its term, its index, its archived body.
    Entry = 1,
    /// Entries above `index` are void; others follow in their place. `term` is the term of the
    /// member that replaced them. No body.
    Truncate = 2,
    /// The state up to `index`, whose entry had `term`, is in a checkpoint. No body.
    Checkpoint = 3,
    /// The log fell idle at `index`; the commit's durable mark vouches for the commit before. No body.
    Seal = 4,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<RecordKind> {
        match byte {
            1 => Some(RecordKind::Entry),
            2 => Some(RecordKind::Truncate),
            3 => Some(RecordKind::Checkpoint),
            4 => Some(RecordKind::Seal),
            _ => None,
        }
    }
}

/// The fields of a record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record is for.
    pub kind: RecordKind,
    /// Layout version of header and body.
    pub version: u8,
    /// Bytes of the archive.
    pub length: u32,
    /// See [`RecordKind`].
    pub term: Term,
    /// See [`RecordKind`].
    pub index: Index,
}

impl RecordHeader {
    /// Bytes of the whole record: header, archive and padding.
    #[must_use]
    pub fn record_size_bytes(&self) -> usize {
        let archive_end = RECORD_HEADER_BYTES
            + usize::try_from(self.length).expect("a length fits in an address");
        archive_end.next_multiple_of(RECORD_ALIGN_BYTES)
    }

    /// Writes the header in front of its archive. `record` begins at the header and ends with the
    /// archive, whose bytes are already in place.
    ///
    /// # Panics
    /// If `record` is not exactly header and archive.
    pub(crate) fn write(&self, record: &mut [u8]) {
        assert_eq!(
            record.len(),
            RECORD_HEADER_BYTES + self.length as usize,
            "header and archive, nothing else"
        );
        record[..RECORD_HEADER_BYTES].fill(0);
        put(record, LENGTH_OFFSET, &self.length.to_le_bytes());
        record[KIND_OFFSET] = self.kind as u8;
        record[VERSION_OFFSET] = self.version;
        put(record, TERM_OFFSET, &self.term.0.to_le_bytes());
        put(record, INDEX_OFFSET, &self.index.0.to_le_bytes());
        let checksum = crc32c(&record[LENGTH_OFFSET..]);
        put(record, CHECKSUM_OFFSET, &checksum.to_le_bytes());
    }
}

/// A record whose checksum, form and limits hold. Its archive is checked by [`crate::frame::access`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The fields of the header.
    pub header: RecordHeader,
    /// The archive; empty for all kinds but entries.
    pub body: &'a [u8],
    /// The whole record as it lies on disk and travels: header, archive, padding.
    pub bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes`, and returns it with what follows.
    ///
    /// # Errors
    /// [`RecordError`] says what does not hold. Nothing of the bytes is trusted before its check.
    pub fn parse(bytes: &'a [u8]) -> Result<(Record<'a>, &'a [u8]), RecordError> {
        if bytes.len() < RECORD_HEADER_BYTES {
            return Err(RecordError::Short {
                have: bytes.len(),
                need: RECORD_HEADER_BYTES,
            });
        }
        let length = u32_at(bytes, LENGTH_OFFSET);
        if u64::from(length) > ENTRY_SIZE_BYTES_MAX {
            return Err(RecordError::TooLong { length });
        }
        let archive_end = RECORD_HEADER_BYTES + length as usize;
        let record_end = archive_end.next_multiple_of(RECORD_ALIGN_BYTES);
        if bytes.len() < record_end {
            return Err(RecordError::Short {
                have: bytes.len(),
                need: record_end,
            });
        }
        let stored = u32_at(bytes, CHECKSUM_OFFSET);
        let computed = crc32c(&bytes[LENGTH_OFFSET..archive_end]);
        if stored != computed {
            return Err(RecordError::Checksum { stored, computed });
        }
        let (record, rest) = bytes.split_at(record_end);
        let header = RecordHeader {
            version: record[VERSION_OFFSET],
            kind: RecordKind::from_byte(record[KIND_OFFSET]).ok_or(RecordError::Kind {
                kind: record[KIND_OFFSET],
                version: record[VERSION_OFFSET],
            })?,
            length,
            term: Term(u64_at(record, TERM_OFFSET)),
            index: Index(u64_at(record, INDEX_OFFSET)),
        };
        if header.version == 0 || header.version > RECORD_VERSION {
            return Err(RecordError::Version {
                version: header.version,
            });
        }
        if (header.kind == RecordKind::Entry) != (length > 0) {
            return Err(RecordError::Body {
                kind: header.kind,
                length,
            });
        }
        let zero = u16_at(record, ZERO_OFFSET) == 0
            && u32_at(record, ZERO_OFFSET + 2) == 0
            && record[archive_end..].iter().all(|byte| *byte == 0);
        if !zero {
            return Err(RecordError::NotZero);
        }
        Ok((Record::parsed(header, record), rest))
    }

    /// The record in `bytes`, of which [`Self::parse`] has returned this header before.
    ///
    /// # Panics
    /// If `bytes` are not as long as the header says.
    #[must_use]
    pub(crate) fn parsed(header: RecordHeader, bytes: &'a [u8]) -> Record<'a> {
        assert_eq!(bytes.len(), header.record_size_bytes(), "another record");
        let archive_end = RECORD_HEADER_BYTES + header.length as usize;
        Record {
            header,
            body: &bytes[RECORD_HEADER_BYTES..archive_end],
            bytes,
        }
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside the record.
    #[error("record ends early: {have} bytes of {need}")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes the record needs.
        need: usize,
    },
    /// The length is above the limit of an entry.
    #[error("record of {length} bytes is longer than the limit of {ENTRY_SIZE_BYTES_MAX}")]
    TooLong {
        /// What the header says.
        length: u32,
    },
    /// Header or archive are not what was written.
    #[error("record checksum is {computed:08x}, its header says {stored:08x}")]
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A kind this program does not know.
    #[error("record kind {kind} (version {version}) is not known")]
    Kind {
        /// The byte found.
        kind: u8,
        /// The version beside it.
        version: u8,
    },
    /// A version this program does not read.
    #[error("record version {version} is not readable; this program reads up to {RECORD_VERSION}")]
    Version {
        /// The version found.
        version: u8,
    },
    /// An entry without a body, or a body on a record that has none.
    #[error("a record of kind {kind:?} cannot have a body of {length} bytes")]
    Body {
        /// The kind found.
        kind: RecordKind,
        /// The length found.
        length: u32,
    },
    /// Reserved or padding bytes are in use: a newer layout, or not ours.
    #[error("reserved bytes of a record are not zero")]
    NotZero,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: RecordKind, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).expect("small");
        let header = RecordHeader {
            kind,
            version: RECORD_VERSION,
            length,
            term: Term(7),
            index: Index(9),
        };
        let mut bytes = vec![0; RECORD_HEADER_BYTES];
        bytes.extend_from_slice(body);
        header.write(&mut bytes);
        bytes.resize(header.record_size_bytes(), 0);
        bytes
    }

    /// Sets one byte and makes the checksum right again, as a foreign writer would.
    fn forged(kind: RecordKind, body: &[u8], offset: usize, byte: u8) -> Vec<u8> {
        let mut bytes = record(kind, body);
        bytes[offset] = byte;
        let checksum = crc32c(&bytes[LENGTH_OFFSET..RECORD_HEADER_BYTES + body.len()]);
        put(&mut bytes, CHECKSUM_OFFSET, &checksum.to_le_bytes());
        bytes
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<usize, RecordError>) {
        assert_eq!(
            Record::parse(bytes).map(|(record, _)| record.bytes.len()),
            expected
        );
    }

    /// Goal: the layout is frozen, byte for byte.
    #[test]
    fn golden_bytes() {
        let expected = [
            0xcc, 0xdf, 0x3a, 0xb6, 5, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9,
            0, 0, 0, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(record(RecordKind::Entry, b"hello"), expected);
    }

    /// Goal: every wrong form is refused with its own reason.
    #[test]
    fn refusals() {
        use RecordKind::{Entry, Seal};
        check(&record(Entry, b"hello"), Ok(48));
        check(&record(Seal, b""), Ok(32));
        check(
            &record(Entry, b"hello")[..31],
            Err(RecordError::Short { have: 31, need: 32 }),
        );
        check(
            &record(Entry, b"hello")[..47],
            Err(RecordError::Short { have: 47, need: 48 }),
        );
        check(
            &forged(Entry, b"hello", KIND_OFFSET, 9),
            Err(RecordError::Kind {
                kind: 9,
                version: 1,
            }),
        );
        check(
            &forged(Entry, b"hello", VERSION_OFFSET, 2),
            Err(RecordError::Version { version: 2 }),
        );
        check(
            &forged(Entry, b"hello", VERSION_OFFSET, 0),
            Err(RecordError::Version { version: 0 }),
        );
        check(
            &forged(Entry, b"hello", ZERO_OFFSET + 5, 1),
            Err(RecordError::NotZero),
        );
        check(&forged(Entry, b"hello", 40, 1), Err(RecordError::NotZero));
        check(
            &record(Entry, b""),
            Err(RecordError::Body {
                kind: Entry,
                length: 0,
            }),
        );
        check(
            &record(Seal, b"x"),
            Err(RecordError::Body {
                kind: Seal,
                length: 1,
            }),
        );
        let mut long = record(Entry, b"hello");
        put(&mut long, LENGTH_OFFSET, &u32::MAX.to_le_bytes());
        check(&long, Err(RecordError::TooLong { length: u32::MAX }));
    }

    /// Goal: no single flipped bit of a record goes unnoticed.
    #[test]
    fn every_bit_is_covered() {
        let good = record(RecordKind::Entry, b"hello");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::parse(&bad).is_err(), "bit {bit}");
        }
    }
}
