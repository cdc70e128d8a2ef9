//! What recovery can say of a log: how it ends, what is damaged, which file is refused.
//!
//! Three answers that must never be mixed up: a *torn tail* was promised to nobody and is cut; *damage*
//! was durable once and is repaired from peers or by nobody; a *refusal* says that the files are not
//! those of this log, so nothing is known of it.

use std::fmt;

use crate::base::Index;
use crate::frame::{AccessError, RecordError};
use crate::wal::record::{CommitError, CommitSequence};
use crate::wal::segment::{HeaderError, LogIdentity, SegmentSequence};

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With its last commit.
    Clean,
    /// With the remains of a commit that nobody was promised. The caller overwrites the page at
    /// `offset` with zeros and syncs before it goes on.
    TornTail {
        /// The segment.
        segment: SegmentSequence,
        /// The first page after the new end.
        offset: u64,
    },
    /// Something that was durable is gone. The log must not be continued.
    Corrupt(Damage),
}

impl Outcome {
    /// Whether an appender may go on after this end.
    #[must_use]
    pub fn may_continue(&self) -> bool {
        !matches!(self, Outcome::Corrupt(_))
    }
}

/// What is damaged, where, and what shows that it mattered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment; its file is [`SegmentSequence::file_name`].
    pub segment: SegmentSequence,
    /// The offset in the file.
    pub offset: u64,
    /// The first index that the log cannot vouch for.
    pub index: Index,
    /// What does not hold.
    pub cause: Cause,
    /// What shows that it was durable.
    pub evidence: Evidence,
}

/// Where a damaged log is cut before it is rebuilt: everything behind goes, so that what is appended is not
/// taken for damage again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Zeros from this offset to the end of the segment's commits; later segments go.
    At {
        /// The segment.
        segment: SegmentSequence,
        /// The first page that goes.
        offset: u64,
    },
    /// This segment and all later ones go.
    From(SegmentSequence),
    /// All segments go: a checkpoint holds more than they do.
    Everything,
}

impl Damage {
    /// Whether the disk has lost what was written. Otherwise the checksums hold: what is read is what was
    /// written, by another version of the program or into a file of the same name, and nothing is repaired
    /// by losing it.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        self.evidence != Evidence::Checksums
    }

    /// The index of the checkpoint behind which the log goes on, and which is not there. If its file is known to be
    /// damaged, this is a loss, whatever [`Self::is_loss`] says of the log's own bytes.
    #[must_use]
    pub fn missing_base(&self) -> Option<Index> {
        match self.cause {
            Cause::Content(_, ContentError::Base(index)) => Some(index),
            _ => None,
        }
    }

    /// What goes when the log is to be continued.
    #[must_use]
    pub fn cut(&self) -> Cut {
        let Damage {
            segment, offset, ..
        } = *self;
        match (self.cause, offset) {
            (Cause::BehindCheckpoint(_), _) => Cut::Everything,
            (_, 0) => Cut::From(segment),
            _ => Cut::At { segment, offset },
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage {
            segment,
            offset,
            index,
            cause,
            evidence,
        } = self;
        let file = segment.file_name();
        write!(
            f,
            "log file {file} is damaged at offset {offset}, from index {index} on: {cause}; {evidence}"
        )
    }
}

/// What does not hold in a corrupt log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// A commit.
    #[error(transparent)]
    Commit(CommitError),
    /// A record inside a commit whose checksum holds.
    #[error("commit {0}: {1}")]
    Record(CommitSequence, RecordError),
    /// An entry's archive, by the caller's own check.
    #[error("commit {0}: {1}")]
    Body(CommitSequence, AccessError),
    /// A commit that says of itself what cannot be.
    #[error("commit {0}: {1}")]
    Content(CommitSequence, ContentError),
    /// Both header pages of a segment.
    #[error("neither the first nor the last page holds the segment's header")]
    HeaderLost,
    /// A segment that does not continue the one before.
    #[error("the segment continues another log than the segment before it")]
    Chain,
    /// The file of the first segment.
    #[error("the file is missing")]
    Missing,
    /// The log ends before the state it belongs to.
    #[error("the log ends at index {0}, before the checkpoint")]
    BehindCheckpoint(Index),
}

/// What cannot be in a commit whose checksums hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Its durable mark covers itself.
    #[error("the durable mark {0} is not below the commit")]
    Mark(CommitSequence),
    /// Its term, or its commit index, is below an earlier commit's.
    #[error("term or commit index falls")]
    HardState,
    /// It does not hold the number of records it says.
    #[error("record count does not hold")]
    RecordCount,
    /// An entry is not the one after the last.
    #[error("entry {found} follows index {last}")]
    Index {
        /// The entry's index.
        found: Index,
        /// The index before it.
        last: Index,
    },
    /// Its commit index is beyond what it holds.
    #[error("commit index {commit} is above the last index {last}")]
    CommitIndex {
        /// What the header says.
        commit: Index,
        /// Last index after the commit.
        last: Index,
    },
    /// It begins anew after a checkpoint that is not there.
    #[error("the log begins anew after the checkpoint at index {0}, which is not there")]
    Base(Index),
    /// A truncation beyond the last index, or below what is committed.
    #[error("truncation after index {after}, with last index {last}")]
    Truncate {
        /// The last index that was to stay.
        after: Index,
        /// The index before it.
        last: Index,
    },
}

/// What shows that damage was not a torn tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Evidence {
    /// A later commit is only ever written when the one before is durable.
    #[error("commit {commit} follows in {} at offset {offset}", segment.file_name())]
    LaterCommit {
        /// Where it lies.
        segment: SegmentSequence,
        /// Where in it.
        offset: u64,
        /// The commit.
        commit: CommitSequence,
    },
    /// A later segment is only ever begun when the one before is durable.
    #[error("segment {} follows", segment.file_name())]
    LaterSegment {
        /// The segment.
        segment: SegmentSequence,
    },
    /// That is said beside the log when its first file has been made.
    #[error("the log had begun")]
    Begun,
    /// The checksums hold, so this is what was written.
    #[error("its checksums hold")]
    Checksums,
    /// A checkpoint only ever covers what is durable.
    #[error("a checkpoint holds index {0}")]
    Checkpoint(Index),
}

/// A file that is not what it must be; nothing can be said of the log before this is put right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log file {}, offset {offset}: {reason}", segment.file_name())]
pub struct Refusal {
    /// The segment that the file's name stands for.
    pub segment: SegmentSequence,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: RefusalReason,
}

/// Why a file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusalReason {
    /// There is no such file, but files before and after it.
    #[error("the file is missing")]
    Missing,
    /// Two files claim this sequence.
    #[error("the segment is there twice")]
    Duplicate,
    /// The file is cut, or of a log with another segment size.
    #[error("the file has {found} bytes, a segment has {expected}")]
    Size {
        /// Bytes of the file, or the size its header says.
        found: u64,
        /// Bytes of a segment.
        expected: u64,
    },
    /// A newer, or no longer readable, format.
    #[error(transparent)]
    Format(HeaderError),
    /// It belongs to another cluster, member, data directory or shard.
    #[error(
        "the file belongs to {}, this log to {}",
        Owner(found),
        Owner(expected)
    )]
    Foreign {
        /// Whose it is.
        found: Box<LogIdentity>,
        /// Whose it must be.
        expected: Box<LogIdentity>,
    },
    /// Its header is another segment's: files were renamed or copied over each other.
    #[error("the file holds segment {found}")]
    Swapped {
        /// The segment its header names.
        found: SegmentSequence,
    },
    /// The first and the last page are valid headers of different lives of the file.
    #[error("first and last page hold different headers")]
    HeadersDiffer,
    /// The segments before the first one are needed and not there.
    #[error("the oldest segment begins with index {first_index}, index {needed} is needed")]
    BeginsLate {
        /// Its first index.
        first_index: Index,
        /// The first index without which the state cannot be restored.
        needed: Index,
    },
}

struct Owner<'a>(&'a LogIdentity);

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogIdentity {
            cluster,
            member,
            incarnation,
            shard,
        } = self.0;
        write!(
            f,
            "cluster {cluster} member {member} incarnation {incarnation} shard {shard}"
        )
    }
}
