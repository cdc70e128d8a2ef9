//! A segment: one fixed-size file of the log, its header page and the copy of it in the last page.
//!
//! Owns sizes, offsets and names, and decides whether a file is the one it claims to be. Must never
//! decide what a missing or foreign file means for the log: that is `recover`.
//!
//! ```text
//! 0              header page
//! 4 KiB          commits, each at a page boundary
//! size - 4 KiB   copy of the header page
//! ```

use std::fmt;

use crate::base::checksum::crc32c;
use crate::base::limits::{
    COMMIT_SIZE_SOFT_BYTES, ENTRY_SIZE_BYTES_MAX, KIB, PAGE_SIZE_BYTES, SEGMENT_SIZE_BYTES,
};
use crate::base::{ClusterId, Incarnation, Index, MemberId, ShardId};
use crate::frame::fields::{put, u32_at, u64_at, u128_at};
use crate::wal::record::CommitSequence;

/// The layout of segments and commits that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of the header in use; the rest of its page is zero. Within one sector, so a torn write of
/// the page leaves either the old header or the new one.
pub const SEGMENT_HEADER_BYTES: usize = 128;

// The layout. All numbers are little-endian; bytes without a name are zero.

const MAGIC: [u8; 8] = *b"KTKWALSG";
/// 8 bytes: [`MAGIC`].
const MAGIC_OFFSET: usize = 0;
/// u32: [`FORMAT_VERSION`] of the writer. Magic, version and checksum stay where they are for ever.
const VERSION_OFFSET: usize = 8;
/// u32: the shard.
const SHARD_OFFSET: usize = 12;
/// u64: the cluster.
const CLUSTER_OFFSET: usize = 16;
/// u64: the member.
const MEMBER_OFFSET: usize = 24;
/// u128: the incarnation of the data directory.
const INCARNATION_OFFSET: usize = 32;
/// u64: the segment's own sequence, as in its file name.
const SEQUENCE_OFFSET: usize = 48;
/// u64: the salt of this life of the file.
const SALT_OFFSET: usize = 56;
/// u64: the index after the last entry before this segment.
const FIRST_INDEX_OFFSET: usize = 64;
/// u64: the sequence of the commit at the first page after the header.
const FIRST_COMMIT_OFFSET: usize = 72;
/// u64: the sequence of the previous segment, zero for none.
const PREVIOUS_SEQUENCE_OFFSET: usize = 80;
/// u64: the size of this file.
const SIZE_OFFSET: usize = 88;
/// u32: the checksum of the last commit before this segment (its chain), zero for none.
const PREVIOUS_CHECKSUM_OFFSET: usize = 96;
/// u32: CRC-32C of the bytes before it.
const CHECKSUM_OFFSET: usize = 124;

const _: () = assert!(CHECKSUM_OFFSET + 4 == SEGMENT_HEADER_BYTES);

/// The number of a segment, counted from one and never reused within a log. Names the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSequence(pub u64);

impl SegmentSequence {
    /// The segment after this one.
    #[must_use]
    pub fn next(self) -> SegmentSequence {
        SegmentSequence(self.0 + 1)
    }

    /// The file name: sixteen lower-case hexadecimal digits and `.wal`.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{:016x}.wal", self.0)
    }

    /// The segment a file name stands for; `None` when it is not exactly what [`Self::file_name`] gives.
    #[must_use]
    pub fn from_file_name(name: &str) -> Option<SegmentSequence> {
        let sequence = SegmentSequence(u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()?);
        (sequence.0 > 0 && sequence.file_name() == name).then_some(sequence)
    }
}

impl fmt::Display for SegmentSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Sizes of a log's segments and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    segment_size_bytes: u64,
}

impl Geometry {
    /// The smallest segment: small enough for tests that touch every sector.
    pub const SEGMENT_SIZE_BYTES_MIN: u64 = 32 * KIB;

    /// Segments of `segment_size_bytes`, a multiple of a page and at least
    /// [`Self::SEGMENT_SIZE_BYTES_MIN`].
    ///
    /// # Panics
    /// If it is not, or is above 4 GiB.
    #[must_use]
    pub fn new(segment_size_bytes: u64) -> Geometry {
        assert!(
            segment_size_bytes.is_multiple_of(PAGE_SIZE_BYTES),
            "{segment_size_bytes} is not whole pages"
        );
        assert!(
            segment_size_bytes >= Self::SEGMENT_SIZE_BYTES_MIN,
            "{segment_size_bytes} is too small"
        );
        assert!(
            segment_size_bytes <= u64::from(u32::MAX),
            "{segment_size_bytes} is too large"
        );
        Geometry { segment_size_bytes }
    }

    /// The size of every segment file.
    #[must_use]
    pub fn segment_size_bytes(&self) -> u64 {
        self.segment_size_bytes
    }

    /// Where the first commit of a segment begins.
    #[must_use]
    pub fn commits_begin(&self) -> u64 {
        PAGE_SIZE_BYTES
    }

    /// Where no commit may reach: the copy of the header.
    #[must_use]
    pub fn commits_end(&self) -> u64 {
        self.segment_size_bytes - PAGE_SIZE_BYTES
    }

    /// Where the header page and its copy lie.
    #[must_use]
    pub fn header_offsets(&self) -> [u64; 2] {
        [0, self.segment_size_bytes - PAGE_SIZE_BYTES]
    }

    /// A commit that is at least this large takes no further record.
    #[must_use]
    pub fn commit_size_soft_bytes(&self) -> u64 {
        COMMIT_SIZE_SOFT_BYTES.min(self.segment_size_bytes / 4)
    }

    /// The largest archive of an entry in such segments, below a quarter of one.
    #[must_use]
    pub fn entry_size_bytes_max(&self) -> u64 {
        ENTRY_SIZE_BYTES_MAX.min(self.segment_size_bytes / 4 - PAGE_SIZE_BYTES)
    }
}

impl Default for Geometry {
    fn default() -> Geometry {
        Geometry::new(SEGMENT_SIZE_BYTES)
    }
}

/// Whose log this is. In every segment header, so that a file from elsewhere is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
    /// The data directory.
    pub incarnation: Incarnation,
    /// The shard.
    pub shard: ShardId,
}

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose it is.
    pub identity: LogIdentity,
    /// The size of the file.
    pub segment_size_bytes: u64,
    /// Its number.
    pub sequence: SegmentSequence,
    /// Random, new for every life of a file: a commit with another salt is not of this segment.
    pub salt: u64,
    /// The index after the last entry before this segment.
    pub first_index: Index,
    /// The commit that begins at the first page after the header. It proves where the segment before
    /// ended: every commit below it was durable when this header was written.
    pub first_commit: CommitSequence,
    /// The segment before, zero for none.
    pub previous_sequence: SegmentSequence,
    /// The checksum of the last commit before this segment, zero for none: the start of the chain.
    pub previous_checksum: u32,
}

impl SegmentHeader {
    /// Writes the header into `page`, whose bytes beyond it become zero.
    pub(crate) fn write(&self, page: &mut [u8]) {
        page.fill(0);
        put(page, MAGIC_OFFSET, &MAGIC);
        put(page, VERSION_OFFSET, &FORMAT_VERSION.to_le_bytes());
        put(page, SHARD_OFFSET, &self.identity.shard.0.to_le_bytes());
        put(page, CLUSTER_OFFSET, &self.identity.cluster.0.to_le_bytes());
        put(page, MEMBER_OFFSET, &self.identity.member.0.to_le_bytes());
        put(
            page,
            INCARNATION_OFFSET,
            &self.identity.incarnation.0.to_le_bytes(),
        );
        put(page, SEQUENCE_OFFSET, &self.sequence.0.to_le_bytes());
        put(page, SALT_OFFSET, &self.salt.to_le_bytes());
        put(page, FIRST_INDEX_OFFSET, &self.first_index.0.to_le_bytes());
        put(
            page,
            FIRST_COMMIT_OFFSET,
            &self.first_commit.0.to_le_bytes(),
        );
        put(
            page,
            PREVIOUS_SEQUENCE_OFFSET,
            &self.previous_sequence.0.to_le_bytes(),
        );
        put(page, SIZE_OFFSET, &self.segment_size_bytes.to_le_bytes());
        put(
            page,
            PREVIOUS_CHECKSUM_OFFSET,
            &self.previous_checksum.to_le_bytes(),
        );
        let checksum = crc32c(&page[..CHECKSUM_OFFSET]);
        put(page, CHECKSUM_OFFSET, &checksum.to_le_bytes());
    }

    /// Reads a header from the start of a page.
    ///
    /// # Errors
    /// [`HeaderError`] when there is none, or one of another format version.
    pub fn parse(page: &[u8]) -> Result<SegmentHeader, HeaderError> {
        if page.len() < SEGMENT_HEADER_BYTES
            || page[MAGIC_OFFSET..MAGIC_OFFSET + MAGIC.len()] != MAGIC
        {
            return Err(HeaderError::Absent);
        }
        if crc32c(&page[..CHECKSUM_OFFSET]) != u32_at(page, CHECKSUM_OFFSET) {
            return Err(HeaderError::Damaged);
        }
        let version = u32_at(page, VERSION_OFFSET);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version { version });
        }
        Ok(SegmentHeader {
            identity: LogIdentity {
                cluster: ClusterId(u64_at(page, CLUSTER_OFFSET)),
                member: MemberId(u64_at(page, MEMBER_OFFSET)),
                incarnation: Incarnation(u128_at(page, INCARNATION_OFFSET)),
                shard: ShardId(u32_at(page, SHARD_OFFSET)),
            },
            segment_size_bytes: u64_at(page, SIZE_OFFSET),
            sequence: SegmentSequence(u64_at(page, SEQUENCE_OFFSET)),
            salt: u64_at(page, SALT_OFFSET),
            first_index: Index(u64_at(page, FIRST_INDEX_OFFSET)),
            first_commit: CommitSequence(u64_at(page, FIRST_COMMIT_OFFSET)),
            previous_sequence: SegmentSequence(u64_at(page, PREVIOUS_SEQUENCE_OFFSET)),
            previous_checksum: u32_at(page, PREVIOUS_CHECKSUM_OFFSET),
        })
    }
}

/// Why a page is not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Nothing there looks like one.
    #[error("no segment header")]
    Absent,
    /// It begins like one, but its checksum does not hold.
    #[error("segment header checksum does not hold")]
    Damaged,
    /// It is one, of a format this program does not read.
    #[error("segment format version {version}; this program reads version {FORMAT_VERSION}")]
    Version {
        /// The version found.
        version: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names are exact in both directions, so that no stray file is taken for a segment.
    #[test]
    fn file_names() {
        let check = |name: &str, expected: Option<u64>| {
            assert_eq!(
                SegmentSequence::from_file_name(name),
                expected.map(SegmentSequence),
                "{name}"
            );
        };
        assert_eq!(SegmentSequence(0x2a).file_name(), "000000000000002a.wal");
        check("000000000000002a.wal", Some(0x2a));
        check("000000000000002A.wal", None);
        check("2a.wal", None);
        check("+00000000000002a.wal", None);
        check("000000000000002a.wal.tmp", None);
        check("0000000000000000.wal", None);
        check("", None);
    }

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: LogIdentity {
                cluster: ClusterId(0x0102_0304_0506_0708),
                member: MemberId(0x1112_1314_1516_1718),
                incarnation: Incarnation(0x2122_2324_2526_2728_292a_2b2c_2d2e_2f30),
                shard: ShardId(0x3132_3334),
            },
            segment_size_bytes: 65_536,
            sequence: SegmentSequence(5),
            salt: 0x4142_4344_4546_4748,
            first_index: Index(77),
            first_commit: CommitSequence(33),
            previous_sequence: SegmentSequence(4),
            previous_checksum: 0x5152_5354,
        }
    }

    /// Goal: what is written is read, and each single damaged bit is noticed.
    #[test]
    fn round_trip_and_damage() {
        let mut page = vec![0xff; 4096];
        header().write(&mut page);
        assert_eq!(SegmentHeader::parse(&page), Ok(header()));
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::parse(&page).is_err(), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(SegmentHeader::parse(&[0; 4096]), Err(HeaderError::Absent));
        assert_eq!(SegmentHeader::parse(&page[..100]), Err(HeaderError::Absent));
        put(&mut page, VERSION_OFFSET, &2_u32.to_le_bytes());
        let checksum = crc32c(&page[..CHECKSUM_OFFSET]);
        put(&mut page, CHECKSUM_OFFSET, &checksum.to_le_bytes());
        assert_eq!(
            SegmentHeader::parse(&page),
            Err(HeaderError::Version { version: 2 })
        );
    }
}
