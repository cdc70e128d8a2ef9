//! Whether a sealed segment still holds what was written: the same walk as recovery's, over one file.
//!
//! A sealed segment is never written again, so its end is known: where the next segment's first commit
//! begins to count. Decides nothing about what to do with a finding.

use crate::base::limits::PAGE_SIZE_BYTES;
use crate::base::planted::Planted;
use crate::wal::record::{CommitError, CommitSequence, Expected, check_commit};
use crate::wal::retain::SegmentSummary;
use crate::wal::segment::{Geometry, HeaderError, LogIdentity, SegmentHeader, SegmentSequence};

/// A segment behind the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Which, with the salt of its commits.
    pub summary: SegmentSummary,
    /// The first commit that is not in it any more.
    pub next_commit: CommitSequence,
}

/// A sealed segment that does not hold what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log file {}, offset {offset}: {cause}", segment.file_name())]
pub struct SealedDamage {
    /// The segment.
    pub segment: SegmentSequence,
    /// Where in the file.
    pub offset: u64,
    /// What does not hold.
    pub cause: SealedCause,
}

/// What does not hold in a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealedCause {
    /// The file has another length.
    #[error("the file has {found} bytes, a segment has {expected}")]
    Size {
        /// Bytes of the file.
        found: u64,
        /// Bytes of a segment.
        expected: u64,
    },
    /// A header page.
    #[error(transparent)]
    Header(HeaderError),
    /// A header page that is another log's, or another life's.
    #[error("the header is not this segment's")]
    Foreign,
    /// A commit.
    #[error(transparent)]
    Commit(CommitError),
}

/// Checks a whole segment file. An error names the first place that does not hold.
///
/// # Errors
/// [`SealedDamage`].
pub fn check_sealed(
    geometry: Geometry,
    identity: LogIdentity,
    sealed: &SealedSegment,
    bytes: &[u8],
) -> Result<(), SealedDamage> {
    let SegmentSummary {
        sequence,
        salt,
        first_commit,
        ..
    } = sealed.summary;
    let damage = |offset, cause| SealedDamage {
        segment: sequence,
        offset,
        cause,
    };
    let (found, expected) = (bytes.len() as u64, geometry.segment_size_bytes());
    if found != expected {
        return Err(damage(
            found.min(expected),
            SealedCause::Size { found, expected },
        ));
    }
    let mut chain = 0;
    for offset in geometry.header_offsets() {
        let page = SegmentHeader::parse(slice(bytes, offset, offset + PAGE_SIZE_BYTES))
            .map_err(|error| damage(offset, SealedCause::Header(error)))?;
        if (page.identity, page.sequence, page.salt) != (identity, sequence, salt) {
            return Err(damage(offset, SealedCause::Foreign));
        }
        chain = page.previous_checksum;
    }
    let mut offset = geometry.commits_begin();
    let mut commit = first_commit;
    while commit < sealed.next_commit {
        let wanted = Expected {
            salt,
            sequence: commit,
            previous_checksum: chain,
            planted: Planted::NOTHING,
        };
        let checked = check_commit(slice(bytes, offset, geometry.commits_end()), &wanted)
            .map_err(|error| damage(offset, SealedCause::Commit(error)))?;
        chain = checked.checksum;
        offset += checked.header.commit_size_bytes();
        commit = commit.next();
    }
    Ok(())
}

/// The bytes between two offsets of a file that is in memory in full.
fn slice(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    let at = |offset: u64| usize::try_from(offset).expect("the file is in memory");
    &bytes[at(from)..at(to)]
}
