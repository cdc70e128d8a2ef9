//! The commit header: what precedes every batch of records that was made durable by one sync.
//!
//! A commit is page-aligned and never rewritten. Its records are checked as a whole and chained to the
//! commit before, so a commit is either entirely valid, in its place, or the end of the log.

use std::fmt;

use crate::base::checksum::{Crc32c, crc32c};
use crate::base::limits::PAGE_SIZE_BYTES;
use crate::base::planted::{Defect, Planted};
use crate::base::{HardState, Index, MemberId, Term};
use crate::frame::fields::{put, u32_at, u64_at};

/// Size of the header in front of a commit's records.
pub const COMMIT_HEADER_BYTES: usize = 128;

// The layout. All numbers are little-endian; bytes without a name are zero.

const MAGIC: [u8; 8] = *b"KTKCOMIT";
/// 8 bytes: [`MAGIC`].
const MAGIC_OFFSET: usize = 0;
/// u64: the salt of the segment.
const SALT_OFFSET: usize = 8;
/// u64: the commit's number, consecutive over segments.
const SEQUENCE_OFFSET: usize = 16;
/// u32: bytes of the records after the header, padding to the page excluded.
const BODY_LENGTH_OFFSET: usize = 24;
/// u32: how many records.
const RECORD_COUNT_OFFSET: usize = 28;
/// u64: current term.
const TERM_OFFSET: usize = 32;
/// u64: who got this member's vote in that term, zero for nobody.
const VOTE_OFFSET: usize = 40;
/// u64: highest index known committed.
const COMMIT_INDEX_OFFSET: usize = 48;
/// u64: highest commit sequence known durable when this commit was built.
const DURABLE_MARK_OFFSET: usize = 56;
/// u32: CRC-32C of the previous commit's header checksum and this commit's records.
const BODY_CHECKSUM_OFFSET: usize = 120;
/// u32: CRC-32C of the bytes before it.
const CHECKSUM_OFFSET: usize = 124;

const _: () = assert!(CHECKSUM_OFFSET + 4 == COMMIT_HEADER_BYTES);

/// The number of a commit, counted from one, consecutive over all segments of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitSequence(pub u64);

impl CommitSequence {
    /// The commit after this one.
    #[must_use]
    pub fn next(self) -> CommitSequence {
        CommitSequence(self.0 + 1)
    }
}

impl fmt::Display for CommitSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The fields of a commit header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitHeader {
    /// The salt of the segment it lies in.
    pub salt: u64,
    /// Its number.
    pub sequence: CommitSequence,
    /// Bytes of the records, padding excluded.
    pub body_length: u32,
    /// How many records.
    pub record_count: u32,
    /// Term, vote and commit index when it was built.
    pub hard_state: HardState,
    /// Highest commit known durable when it was built: damage at or below it is corruption.
    pub durable_mark: CommitSequence,
}

impl CommitHeader {
    /// Writes the header in front of its records. `commit` begins at the header and ends with the last
    /// record; `previous_checksum` is the chain so far. Returns the chain from here on.
    ///
    /// # Panics
    /// If `commit` is not exactly header and records.
    pub(crate) fn write(&self, previous_checksum: u32, commit: &mut [u8]) -> u32 {
        assert_eq!(
            commit.len(),
            COMMIT_HEADER_BYTES + self.body_length as usize,
            "header and records, nothing else"
        );
        commit[..COMMIT_HEADER_BYTES].fill(0);
        put(commit, MAGIC_OFFSET, &MAGIC);
        put(commit, SALT_OFFSET, &self.salt.to_le_bytes());
        put(commit, SEQUENCE_OFFSET, &self.sequence.0.to_le_bytes());
        put(commit, BODY_LENGTH_OFFSET, &self.body_length.to_le_bytes());
        put(
            commit,
            RECORD_COUNT_OFFSET,
            &self.record_count.to_le_bytes(),
        );
        put(commit, TERM_OFFSET, &self.hard_state.term.0.to_le_bytes());
        let vote = self.hard_state.vote.map_or(0, |member| member.0);
        put(commit, VOTE_OFFSET, &vote.to_le_bytes());
        put(
            commit,
            COMMIT_INDEX_OFFSET,
            &self.hard_state.commit.0.to_le_bytes(),
        );
        put(
            commit,
            DURABLE_MARK_OFFSET,
            &self.durable_mark.0.to_le_bytes(),
        );
        let body_checksum = chained(previous_checksum, &commit[COMMIT_HEADER_BYTES..]);
        put(commit, BODY_CHECKSUM_OFFSET, &body_checksum.to_le_bytes());
        let checksum = crc32c(&commit[..CHECKSUM_OFFSET]);
        put(commit, CHECKSUM_OFFSET, &checksum.to_le_bytes());
        checksum
    }

    /// Reads a header on its own: magic and header checksum hold. Says nothing of salt, place or
    /// records.
    #[must_use]
    pub fn parse(page: &[u8]) -> Option<CommitHeader> {
        let magic = page.len() >= COMMIT_HEADER_BYTES && page[..MAGIC.len()] == MAGIC;
        if !magic || crc32c(&page[..CHECKSUM_OFFSET]) != u32_at(page, CHECKSUM_OFFSET) {
            return None;
        }
        let vote = u64_at(page, VOTE_OFFSET);
        Some(CommitHeader {
            salt: u64_at(page, SALT_OFFSET),
            sequence: CommitSequence(u64_at(page, SEQUENCE_OFFSET)),
            body_length: u32_at(page, BODY_LENGTH_OFFSET),
            record_count: u32_at(page, RECORD_COUNT_OFFSET),
            hard_state: HardState {
                term: Term(u64_at(page, TERM_OFFSET)),
                vote: (vote != 0).then_some(MemberId(vote)),
                commit: Index(u64_at(page, COMMIT_INDEX_OFFSET)),
            },
            durable_mark: CommitSequence(u64_at(page, DURABLE_MARK_OFFSET)),
        })
    }

    /// Bytes the commit takes in its segment: header, records and padding to the page.
    #[must_use]
    pub fn commit_size_bytes(&self) -> u64 {
        commit_size_bytes(u64::from(self.body_length))
    }
}

/// Bytes a commit with `body_length` bytes of records takes in its segment.
pub(crate) fn commit_size_bytes(body_length: u64) -> u64 {
    (COMMIT_HEADER_BYTES as u64 + body_length).next_multiple_of(PAGE_SIZE_BYTES)
}

/// A commit whose header, place in the chain and records' checksum hold.
#[derive(Clone, Copy, Debug)]
pub struct CheckedCommit<'a> {
    /// Its header.
    pub header: CommitHeader,
    /// Its records, padding excluded.
    pub body: &'a [u8],
    /// The chain from here on.
    pub checksum: u32,
}

/// What a commit must be to be the next one of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// The segment's salt.
    pub(crate) salt: u64,
    /// The next number.
    pub(crate) sequence: CommitSequence,
    /// The chain so far.
    pub(crate) previous_checksum: u32,
    /// What is wrong on purpose.
    pub(crate) planted: Planted,
}

/// Reads the commit at the start of `bytes`, which end where commits of the segment must end.
pub(crate) fn check_commit<'a>(
    bytes: &'a [u8],
    expected: &Expected,
) -> Result<CheckedCommit<'a>, CommitError> {
    let begins_like_one = bytes.len() >= COMMIT_HEADER_BYTES
        && bytes[..MAGIC.len()] == MAGIC
        && u64_at(bytes, SALT_OFFSET) == expected.salt;
    let Some(header) = CommitHeader::parse(bytes) else {
        return Err(if begins_like_one {
            CommitError::HeaderChecksum
        } else {
            CommitError::Absent
        });
    };
    if header.salt != expected.salt {
        return Err(CommitError::Absent);
    }
    if header.sequence != expected.sequence {
        return Err(CommitError::Sequence {
            found: header.sequence,
            expected: expected.sequence,
        });
    }
    if header.commit_size_bytes() > bytes.len() as u64 {
        return Err(CommitError::Length {
            body_length: header.body_length,
        });
    }
    let body = &bytes[COMMIT_HEADER_BYTES..COMMIT_HEADER_BYTES + header.body_length as usize];
    let holds = chained(expected.previous_checksum, body) == u32_at(bytes, BODY_CHECKSUM_OFFSET);
    if !holds && !expected.planted.has(Defect::CommitBodyUnchecked) {
        return Err(CommitError::BodyChecksum);
    }
    Ok(CheckedCommit {
        header,
        body,
        checksum: u32_at(bytes, CHECKSUM_OFFSET),
    })
}

fn chained(previous_checksum: u32, body: &[u8]) -> u32 {
    let mut checksum = Crc32c::new();
    checksum.update(&previous_checksum.to_le_bytes());
    checksum.update(body);
    checksum.finish()
}

/// Why the next commit is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Nothing of this life of the segment begins here: zeros, an earlier life, or the middle of
    /// something else.
    #[error("no commit of this segment's salt")]
    Absent,
    /// The header's checksum does not hold.
    #[error("commit header checksum does not hold")]
    HeaderChecksum,
    /// Another commit of this segment lies where the next one should.
    #[error("commit {found} where commit {expected} should be")]
    Sequence {
        /// What the header says.
        found: CommitSequence,
        /// What follows the commit before.
        expected: CommitSequence,
    },
    /// The records would reach beyond the segment.
    #[error("commit of {body_length} bytes reaches beyond its segment")]
    Length {
        /// What the header says.
        body_length: u32,
    },
    /// The records are not what was written after the commit before.
    #[error("commit body checksum does not hold")]
    BodyChecksum,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> CommitHeader {
        CommitHeader {
            salt: 0x0102_0304_0506_0708,
            sequence: CommitSequence(9),
            body_length: 16,
            record_count: 1,
            hard_state: HardState {
                term: Term(3),
                vote: Some(MemberId(0xabc)),
                commit: Index(7),
            },
            durable_mark: CommitSequence(8),
        }
    }

    const EXPECTED: Expected = Expected {
        salt: 0x0102_0304_0506_0708,
        sequence: CommitSequence(9),
        previous_checksum: 0x55,
        planted: Planted::NOTHING,
    };

    fn commit() -> Vec<u8> {
        let mut bytes = vec![0x77; COMMIT_HEADER_BYTES + 16];
        header().write(0x55, &mut bytes);
        bytes.resize(4096, 0);
        bytes
    }

    /// Goal: the layout is frozen, byte for byte.
    #[test]
    fn golden_bytes() {
        let bytes = commit();
        let mut expected = vec![0; COMMIT_HEADER_BYTES];
        expected[..16].copy_from_slice(b"KTKCOMIT\x08\x07\x06\x05\x04\x03\x02\x01");
        for (offset, byte) in [
            (16, 9),
            (24, 16),
            (28, 1),
            (32, 3),
            (40, 0xbc),
            (41, 0x0a),
            (48, 7),
            (56, 8),
        ] {
            expected[offset] = byte;
        }
        expected[120..].copy_from_slice(&[0xe0, 0x9a, 0x7b, 0xab, 0x20, 0x30, 0x7d, 0x88]);
        assert_eq!(bytes[..COMMIT_HEADER_BYTES], expected);
    }

    /// Goal: each thing that can be wrong with the next commit has its own name.
    #[test]
    fn refusals() {
        let check = |bytes: &[u8], expected: &Expected, error: Option<CommitError>| {
            assert_eq!(check_commit(bytes, expected).err(), error);
        };
        let good = commit();
        check(&good, &EXPECTED, None);
        check(&[0; 4096], &EXPECTED, Some(CommitError::Absent));
        check(&good[..64], &EXPECTED, Some(CommitError::Absent));
        check(
            &good,
            &Expected {
                salt: 1,
                ..EXPECTED
            },
            Some(CommitError::Absent),
        );
        let sequence = CommitError::Sequence {
            found: CommitSequence(9),
            expected: CommitSequence(10),
        };
        check(
            &good,
            &Expected {
                sequence: CommitSequence(10),
                ..EXPECTED
            },
            Some(sequence),
        );
        check(
            &good,
            &Expected {
                previous_checksum: 0x56,
                ..EXPECTED
            },
            Some(CommitError::BodyChecksum),
        );
        check(
            &good[..2048],
            &EXPECTED,
            Some(CommitError::Length { body_length: 16 }),
        );
        let mut bad = good.clone();
        bad[100] ^= 1;
        check(&bad, &EXPECTED, Some(CommitError::HeaderChecksum));
        let mut bad = good;
        bad[130] ^= 1;
        check(&bad, &EXPECTED, Some(CommitError::BodyChecksum));
    }

    /// Goal: every bit of header and records is covered.
    #[test]
    fn every_bit_is_covered() {
        let mut bytes = commit();
        for bit in 0..(COMMIT_HEADER_BYTES + 16) * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check_commit(&bytes, &EXPECTED).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
