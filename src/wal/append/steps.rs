//! What an appender hands out and takes back: batches and headers on their way to the disk, and what has become
//! durable.

use crate::base::Index;
use crate::frame::PageBuffer;
use crate::wal::record::CommitSequence;
use crate::wal::segment::SegmentSequence;

/// What the caller has to do to get on.
#[derive(Debug)]
pub enum CommitStep {
    /// Nothing is staged.
    Nothing,
    /// The active segment has no room for the next commit, or there is none: prepare this segment, then
    /// call [`super::Appender::open_segment`]. Nothing was taken; ask again afterwards.
    OpenSegment(SegmentSequence),
    /// Write this, sync, then call [`super::Appender::durable`].
    Commit(Commit),
}

/// A batch on its way to the disk.
#[derive(Debug)]
pub struct Commit {
    /// Its number.
    pub sequence: CommitSequence,
    /// The segment it belongs in.
    pub segment: SegmentSequence,
    /// Where in the segment, at a page boundary.
    pub offset: u64,
    /// Last index of the log after this commit.
    pub last_index: Index,
    /// How many records it holds; none when it only carries a term or a vote.
    pub record_count: u32,
    pub(super) bytes: PageBuffer,
}

impl Commit {
    /// The bytes: whole pages, page-aligned in memory, final.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A segment file that exists in full, holds nothing of this log's present, and may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreparedSegment {
    /// What [`CommitStep::OpenSegment`] asked for; also in the file's name.
    pub sequence: SegmentSequence,
    /// A random number that no client can know, never zero, new for every life of a file.
    pub salt: u64,
}

/// The header of a segment on its way to the disk.
#[derive(Debug)]
pub struct SegmentOpening {
    /// The segment.
    pub sequence: SegmentSequence,
    /// Where the page belongs: at both places.
    pub offsets: [u64; 2],
    pub(super) page: PageBuffer,
}

impl SegmentOpening {
    /// The header page, page-aligned in memory.
    #[must_use]
    pub fn page(&self) -> &[u8] {
        &self.page
    }
}

/// What a completed sync has made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Every commit up to this one.
    pub commit: CommitSequence,
    /// Every entry up to this index; entries that were voided meanwhile do not count.
    pub index: Index,
    /// Whether the present term and vote are in two durable commits and may be used.
    pub hard_state: bool,
}
