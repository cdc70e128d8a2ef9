//! How the end of the log looks from outside: nothing here changes it.

use super::{Active, Appender, Flight, HARD_STATE_COPIES, Staged};
use crate::base::{HardState, Index};
use crate::frame::Record;
use crate::wal::record::CommitSequence;
use crate::wal::retain::{Location, SegmentSummary};
use crate::wal::scrub::SealedSegment;
use crate::wal::segment::SegmentSequence;

impl Appender {
    /// Whether a commit or a segment header is on its way to the disk.
    #[must_use]
    pub fn in_flight(&self) -> bool {
        !matches!(self.flight, Flight::Nothing)
    }

    /// Whether [`Self::commit`] has something to hand out: staged records, or a term or vote that is not
    /// yet in two commits.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.staging.is_empty() || self.hard_state_placed < HARD_STATE_COPIES
    }

    /// Last index of the log, staged records included.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.last_index
    }

    /// Every entry up to here is durable and not voided.
    #[must_use]
    pub fn durable_index(&self) -> Index {
        self.durable_index
    }

    /// Every commit up to here is durable.
    #[must_use]
    pub fn durable_commit(&self) -> CommitSequence {
        self.durable_commit
    }

    /// What the next commit carries.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Whether the present term and vote are in two durable commits and may be used.
    #[must_use]
    pub fn hard_state_durable(&self) -> bool {
        self.hard_state_durable == HARD_STATE_COPIES
    }

    /// Bytes of all entries that were staged, and of those recovered after the checkpoint: what a restart
    /// would replay, if it only ever grew.
    #[must_use]
    pub fn entry_bytes(&self) -> u64 {
        self.entry_bytes
    }

    /// Bytes staged or in flight, at most about [`crate::base::limits::SHARD_STAGED_BYTES_MAX`].
    #[must_use]
    pub fn staged_bytes(&self) -> u64 {
        self.staging.size_bytes()
    }

    /// The segment that will be asked for next: what a spare file is named.
    #[must_use]
    pub fn next_segment(&self) -> SegmentSequence {
        self.next_segment
    }

    /// The record's bytes, header to padding, as long as it is staged and not handed out.
    #[must_use]
    pub fn staged_record(&self, staged: &Staged) -> Option<&[u8]> {
        let at = staged.commit.0.checked_sub(self.next_commit.0)?;
        self.staging.bytes(usize::try_from(at).ok()?, &staged.range)
    }

    /// The archive of an entry, as long as it is staged and not handed out.
    #[must_use]
    pub fn staged_body(&self, staged: &Staged) -> Option<&[u8]> {
        let record = self.staged_record(staged)?;
        let (record, _) = Record::parse(record).expect("what is staged holds");
        Some(record.body)
    }

    /// Bytes that still fit into the active segment behind what is staged, about.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        let free = |active: &Active| self.geometry.commits_end() - active.offset;
        self.active
            .as_ref()
            .map_or(0, free)
            .saturating_sub(self.staging.size_bytes())
    }

    /// Whether a segment's header is on its way to the disk.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        matches!(self.flight, Flight::Segment(_))
    }

    /// Where to begin reading for the present entry at `index`: walk the commits from there on; the last
    /// record with that index before the end of the log is the one. `None` when it was never in a commit
    /// of this log or its segment was recycled.
    #[must_use]
    pub fn locate(&self, index: Index) -> Option<Location> {
        if index > self.placed_index {
            None
        } else {
            self.catalog.locate(index)
        }
    }

    /// The segments that hold commits, oldest first; the last one is active.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentSummary> {
        self.catalog.segments()
    }

    /// The segments behind the active one, oldest first: what a scrub reads.
    #[must_use]
    pub fn sealed_segments(&self) -> Vec<SealedSegment> {
        let next = self.catalog.segments().skip(1);
        let sealed = self.catalog.segments().zip(next);
        let sealed = sealed.map(|(segment, next)| SealedSegment {
            summary: *segment,
            next_commit: next.first_commit,
        });
        sealed.collect()
    }

    /// Bytes of those segments on disk, spares excluded.
    #[must_use]
    pub fn log_size_bytes(&self) -> u64 {
        self.catalog.log_size_bytes()
    }

    /// The segments, oldest first, that nothing needs once the state up to `checkpoint` is in a durable
    /// checkpoint. The entry at that index stays, for recovery to tell whether what follows belongs to the
    /// checkpoint or was cut off later. Two durable commits always stay behind them, for the term and the vote they carry.
    /// The caller calls [`Self::recycled`] for each one it takes.
    #[must_use]
    pub fn recyclable(&self, checkpoint: Index) -> Vec<SegmentSequence> {
        self.catalog.recyclable(checkpoint, self.durable_commit)
    }
}
