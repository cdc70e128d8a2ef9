//! The end of the log: records are staged in memory, and leave as commits, one sync at a time.
//!
//! Owns the staging buffers, the chain, the durable mark and the place of the next commit. Must never
//! touch a file: it hands out bytes with the place where they belong, and is told when they are durable.
//! Runs on the shard's core.
//!
//! ```text
//! stage_*  ->  [batch][batch][batch]  ->  commit()  ->  the caller copies and syncs  ->  durable()
//!                                            |
//!                                            +-> the segment is full: open_segment(), write, sync, segment_opened()
//! ```
//!
//! A segment change is safe at every step, because the header of the next segment is durable before
//! anything follows in it, and everything before it is durable when it is built:
//!
//! | crash | found after it |
//! |---|---|
//! | before any header page is on disk | the file is a spare, the log ends in the segment before |
//! | with one of the two header pages torn | the other one counts, the segment is empty |
//! | after the header's sync | the segment is empty; commits go on in it |

mod steps;
mod view;

use std::ops::Range;

pub use self::steps::{Commit, CommitStep, Durable, PreparedSegment, SegmentOpening};
use crate::base::limits::PAGE_SIZE_BYTES;
use crate::base::planted::{Defect, Planted};
use crate::base::{HardState, Index, MemberId, Term};
use crate::frame::{Body, PageBuffer, Record, RecordKind};
use crate::wal::record::{COMMIT_HEADER_BYTES, CommitHeader, CommitSequence, commit_size_bytes};
use crate::wal::recover::Recovered;
use crate::wal::retain::{Catalog, Location};
use crate::wal::segment::{Geometry, LogIdentity, SegmentHeader, SegmentSequence};
use crate::wal::stage::{StageError, Staging};

/// Commits that must carry a changed term or vote before it may be used: no single bad block forgets it.
const HARD_STATE_COPIES: u8 = 2;

/// The end of one shard's log.
pub struct Appender {
    geometry: Geometry,
    identity: LogIdentity,
    catalog: Catalog,
    /// The segment that takes commits; none before the first is opened.
    active: Option<Active>,
    next_segment: SegmentSequence,
    next_commit: CommitSequence,
    /// Header checksum of the last commit handed out.
    chain: u32,
    /// Last index of the log as far as it was handed out, entries voided since included.
    placed_index: Index,
    /// Last index of the log, staged records included.
    last_index: Index,
    durable_commit: CommitSequence,
    durable_index: Index,
    hard_state: HardState,
    /// Counts changes of term or vote, so that a completion knows which one it made durable.
    hard_state_version: u64,
    /// Commits handed out with the present term and vote, at most [`HARD_STATE_COPIES`] counted.
    hard_state_placed: u8,
    /// Durable ones among them.
    hard_state_durable: u8,
    /// Whether the last commit only vouches for the one before it, or there is none.
    sealed: bool,
    /// Bytes of entries staged and recovered.
    entry_bytes: u64,
    staging: Staging,
    flight: Flight,
    planted: Planted,
}

struct Active {
    header: SegmentHeader,
    /// Where the next commit goes.
    offset: u64,
}

/// The one thing the caller is making durable.
enum Flight {
    Nothing,
    Commit {
        sequence: CommitSequence,
        durable_index: Index,
        hard_state_version: u64,
        size_bytes: u64,
    },
    Segment(SegmentHeader),
}

impl Appender {
    /// An empty log that begins with index 1. It asks for segment 1 first.
    #[must_use]
    pub fn new(geometry: Geometry, identity: LogIdentity) -> Appender {
        Appender {
            geometry,
            identity,
            catalog: Catalog::new(geometry),
            active: None,
            next_segment: SegmentSequence(1),
            next_commit: CommitSequence(1),
            chain: 0,
            placed_index: Index(0),
            last_index: Index(0),
            durable_commit: CommitSequence(0),
            durable_index: Index(0),
            hard_state: HardState::default(),
            hard_state_version: 0,
            hard_state_placed: HARD_STATE_COPIES,
            hard_state_durable: HARD_STATE_COPIES,
            sealed: true,
            entry_bytes: 0,
            staging: Staging::new(geometry),
            flight: Flight::Nothing,
            planted: Planted::NOTHING,
        }
    }

    /// Goes on exactly after the end of a recovered log. Everything recovered counts as durable, so the
    /// caller has synced every segment, has overwritten the page that a torn tail names and has
    /// restored damaged header pages before.
    ///
    /// # Panics
    /// If the log is corrupt: it must be rebuilt, never continued.
    #[must_use]
    pub fn resume(geometry: Geometry, identity: LogIdentity, recovered: Recovered) -> Appender {
        let Recovered {
            outcome,
            hard_state,
            begins_anew,
            end,
            entry_bytes,
            ..
        } = recovered;
        let last_index = end.last_index;
        assert!(
            outcome.may_continue(),
            "a corrupt log is never continued: {outcome:?}"
        );
        let last_commit = CommitSequence(end.next_commit.0 - 1);
        let mut appender = Appender::new(geometry, identity);
        if let Some((header, offset)) = end.active {
            appender.next_segment = header.sequence.next();
            appender.active = Some(Active { header, offset });
            appender.catalog = end.catalog;
            appender.entry_bytes = entry_bytes;
            appender.next_commit = end.next_commit;
            appender.chain = end.chain;
            appender.placed_index = last_index;
            appender.last_index = last_index;
            appender.durable_commit = last_commit;
            appender.durable_index = last_index;
            appender.hard_state = hard_state;
            appender.hard_state_placed = end.hard_state_copies.min(HARD_STATE_COPIES);
            appender.hard_state_durable = appender.hard_state_placed;
            appender.sealed = end.sealed;
        }
        if let Some((term, index)) = begins_anew {
            appender
                .stage_base(hard_state.term, term, index)
                .expect("nothing is staged yet");
        }
        appender
    }

    /// Makes it wrong on purpose.
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Stages the entry at `last_index() + 1`. Returns where its record lies in the batch.
    ///
    /// # Errors
    /// [`StageError`]; nothing was staged.
    ///
    /// # Panics
    /// If `index` is not the next one.
    pub fn stage_entry<T: Body>(
        &mut self,
        term: Term,
        index: Index,
        body: &T,
    ) -> Result<Staged, StageError> {
        self.assert_next(index);
        let range = self.staging.entry(term, index, body)?;
        Ok(self.staged(index, range))
    }

    /// Stages an entry that another member encoded, as it is.
    ///
    /// # Errors
    /// [`StageError`]; nothing was staged.
    ///
    /// # Panics
    /// If it is not an entry, or its index is not the next one.
    pub fn stage_record(&mut self, record: &Record<'_>) -> Result<Staged, StageError> {
        let index = record.header.index;
        assert_eq!(record.header.kind, RecordKind::Entry, "only entries travel");
        self.assert_next(index);
        let range = self.staging.record(record)?;
        Ok(self.staged(index, range))
    }

    /// Whether [`Self::stage_record`] would take records of these sizes, in bytes, one after the other and behind a
    /// cut, and leave room for what this member may write of its own accord.
    #[must_use]
    pub fn has_room_for(&self, record_sizes: impl IntoIterator<Item = usize>) -> bool {
        self.staging.has_room_for(record_sizes)
    }

    /// Voids every entry above `after`; `term` is the term of the leader whose entries follow.
    /// From now on the next index is `after + 1`, and no completion reports an index above `after`
    /// until its replacement is durable.
    ///
    /// # Errors
    /// [`StageError::Full`]; nothing was staged.
    ///
    /// # Panics
    /// If `after` lies below the commit index: what is committed is never voided.
    pub fn stage_truncate(&mut self, term: Term, after: Index) -> Result<(), StageError> {
        assert!(
            after >= self.hard_state.commit,
            "truncation after {after} below the commit index {}",
            self.hard_state.commit
        );
        assert!(
            after <= self.last_index,
            "truncation after {after} beyond the last index {}",
            self.last_index
        );
        if !self.planted.has(Defect::TruncationNotRecorded) {
            self.staging.truncate(term, after)?;
        }
        if let Flight::Commit { durable_index, .. } = &mut self.flight {
            *durable_index = after.min(*durable_index);
        }
        self.durable_index = after.min(self.durable_index);
        self.last_index = after;
        Ok(())
    }

    /// Notes that the state up to `index`, whose entry had `term`, is in a durable checkpoint. Returns the
    /// commit that will say so.
    ///
    /// # Errors
    /// [`StageError::Full`]; nothing was staged.
    pub fn stage_checkpoint(
        &mut self,
        term: Term,
        index: Index,
    ) -> Result<CommitSequence, StageError> {
        assert!(
            index <= self.hard_state.commit,
            "a checkpoint at {index} above the commit index {}",
            self.hard_state.commit
        );
        self.staging.checkpoint(term, index, self.last_index)?;
        Ok(self.last_staged_commit())
    }

    /// Begins anew after the checkpoint at `index`, whose entry had `term`: it is durable under its name, and
    /// nothing that is not committed here is kept. `leader` is the term of the leader it came from. Returns
    /// the commit that will say so: until that is durable, the log is only as far as it was committed before.
    ///
    /// # Errors
    /// [`StageError::Full`]; nothing was staged.
    ///
    /// # Panics
    /// If `index` is not above the commit index.
    pub fn stage_base(
        &mut self,
        leader: Term,
        term: Term,
        index: Index,
    ) -> Result<CommitSequence, StageError> {
        let kept = self.hard_state.commit;
        assert!(
            index > kept,
            "the log begins anew after {index}, and is committed up to {kept}"
        );
        // What is staged or under way and not committed is void: it must not count as durable, nor a commit
        // index be written with it that it does not hold.
        let cut = self.last_index > kept;
        self.staging
            .base(leader, cut.then_some(kept), term, index)?;
        if let Flight::Commit { durable_index, .. } = &mut self.flight {
            *durable_index = kept.min(*durable_index);
        }
        self.durable_index = kept.min(self.durable_index);
        self.last_index = index;
        Ok(self.last_staged_commit())
    }

    /// Whether the last commit is durable and nothing on disk says so yet. The caller stages a seal when
    /// this stays true for about a millisecond, and before it stops.
    #[must_use]
    pub fn needs_seal(&self) -> bool {
        !self.sealed
            && !self.in_flight()
            && !self.has_work()
            && !self.planted.has(Defect::SealOmitted)
    }

    /// Stages a seal: a commit that vouches for the last one.
    ///
    /// # Panics
    /// If [`Self::needs_seal`] is false.
    pub fn stage_seal(&mut self) {
        assert!(self.needs_seal(), "nothing to seal");
        self.staging.seal(self.hard_state.term, self.last_index);
    }

    /// What every commit from now on carries. A changed term or vote asks for two commits, of records
    /// or of nothing else; it must not be used before [`Self::hard_state_durable`].
    ///
    /// # Panics
    /// If the term or the commit index falls, or a vote changes within a term.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        let now = &self.hard_state;
        assert!(
            hard_state.term >= now.term,
            "term falls from {} to {}",
            now.term,
            hard_state.term
        );
        assert!(
            hard_state.commit >= now.commit,
            "commit index falls from {} to {}",
            now.commit,
            hard_state.commit
        );
        assert_ne!(
            hard_state.vote,
            Some(MemberId(0)),
            "a member's id is never zero"
        );
        let vote_kept =
            hard_state.term > now.term || now.vote.is_none() || now.vote == hard_state.vote;
        assert!(
            vote_kept,
            "vote changes from {:?} to {:?} in term {}",
            now.vote, hard_state.vote, now.term
        );
        if (hard_state.term, hard_state.vote) != (now.term, now.vote) {
            self.hard_state_version += 1;
            self.hard_state_placed = 0;
            self.hard_state_durable = 0;
        }
        self.hard_state = hard_state;
    }

    /// Takes the next commit.
    ///
    /// # Panics
    /// If one is in flight: a page under writeback is never stored to, and a commit is built only when
    /// the one before is durable.
    pub fn commit(&mut self) -> CommitStep {
        assert!(!self.in_flight(), "one sync at a time");
        if !self.has_work() {
            return CommitStep::Nothing;
        }
        // A term or a vote may have to go out without any record.
        let body_length = self.staging.first_body_length().unwrap_or(0);
        let size_bytes = commit_size_bytes(body_length as u64);
        let active = match &mut self.active {
            Some(active) if active.offset + size_bytes <= self.geometry.commits_end() => active,
            _ => return CommitStep::OpenSegment(self.next_segment),
        };
        let batch = self.staging.take(self.last_index);
        let sequence = self.next_commit;
        let header = CommitHeader {
            salt: active.header.salt,
            sequence,
            body_length: u32::try_from(body_length).expect("a commit is smaller than a segment"),
            record_count: batch.record_count,
            // Entries that a later batch voids are still in this one: a commit index beyond what stays
            // would, after a crash between the two, declare the voided ones committed.
            hard_state: HardState {
                commit: self.hard_state.commit.min(batch.durable_index),
                ..self.hard_state
            },
            durable_mark: self.durable_commit,
        };
        let mut bytes = batch.buffer;
        self.chain = header.write(self.chain, &mut bytes);
        bytes.resize(
            usize::try_from(size_bytes).expect("a commit fits in memory"),
            0,
        );
        let (segment, offset) = (active.header.sequence, active.offset);
        active.offset += size_bytes;
        self.catalog.add_commit(
            Location {
                segment,
                offset,
                commit: sequence,
            },
            batch.extent,
        );
        self.next_commit = sequence.next();
        self.placed_index = batch.placed_index;
        self.hard_state_placed = HARD_STATE_COPIES.min(self.hard_state_placed + 1);
        self.sealed = batch.is_seal;
        self.flight = Flight::Commit {
            sequence,
            durable_index: batch.durable_index,
            hard_state_version: self.hard_state_version,
            size_bytes: (body_length + COMMIT_HEADER_BYTES) as u64,
        };
        CommitStep::Commit(Commit {
            sequence,
            segment,
            offset,
            last_index: batch.placed_index,
            record_count: batch.record_count,
            bytes,
        })
    }

    /// The commit is durable: its buffer comes back, the next one may be taken.
    ///
    /// # Panics
    /// If it is not the one in flight.
    pub fn durable(&mut self, commit: Commit) -> Durable {
        let flight = std::mem::replace(&mut self.flight, Flight::Nothing);
        let Flight::Commit {
            sequence,
            durable_index,
            hard_state_version,
            size_bytes,
        } = flight
        else {
            panic!("commit {} is not in flight", commit.sequence);
        };
        assert_eq!(commit.sequence, sequence, "the commit in flight");
        self.durable_commit = sequence;
        self.durable_index = durable_index;
        if hard_state_version == self.hard_state_version {
            self.hard_state_durable = HARD_STATE_COPIES.min(self.hard_state_durable + 1);
        }
        self.staging.give_back(commit.bytes, size_bytes);
        Durable {
            commit: sequence,
            index: durable_index,
            hard_state: self.hard_state_durable(),
        }
    }

    /// Begins the next segment. The caller writes the page at both offsets, syncs, and calls
    /// [`Self::segment_opened`]; only then does a commit go into it.
    ///
    /// # Panics
    /// If something is in flight, the sequence is not the one asked for, or the salt is zero or the
    /// active segment's.
    pub fn open_segment(&mut self, prepared: PreparedSegment) -> SegmentOpening {
        assert!(!self.in_flight(), "one sync at a time");
        assert_eq!(
            prepared.sequence, self.next_segment,
            "segments are opened in order"
        );
        assert_ne!(prepared.salt, 0, "a salt is never zero");
        let active_salt = self.active.as_ref().map(|active| active.header.salt);
        assert_ne!(
            active_salt,
            Some(prepared.salt),
            "a salt is new for every life of a segment"
        );
        let header = SegmentHeader {
            identity: self.identity,
            segment_size_bytes: self.geometry.segment_size_bytes(),
            sequence: prepared.sequence,
            salt: prepared.salt,
            first_index: self.placed_index.next(),
            first_commit: self.next_commit,
            previous_sequence: self
                .active
                .as_ref()
                .map_or(SegmentSequence(0), |active| active.header.sequence),
            previous_checksum: self.chain,
        };
        self.flight = Flight::Segment(header);
        SegmentOpening {
            sequence: header.sequence,
            offsets: self.geometry.header_offsets(),
            page: header_page(&header),
        }
    }

    /// The header pages are durable: commits go into the segment from now on.
    ///
    /// # Panics
    /// If it is not the one in flight.
    pub fn segment_opened(&mut self, opening: SegmentOpening) {
        let flight = std::mem::replace(&mut self.flight, Flight::Nothing);
        let Flight::Segment(header) = flight else {
            panic!("segment {} is not being opened", opening.sequence);
        };
        assert_eq!(header.sequence, opening.sequence, "the segment in flight");
        self.catalog.add_segment(&header);
        self.active = Some(Active {
            header,
            offset: self.geometry.commits_begin(),
        });
        self.next_segment = header.sequence.next();
    }

    /// The oldest segment is about to become a spare.
    ///
    /// # Panics
    /// If it is not the oldest, or is the active one.
    pub fn recycled(&mut self, sequence: SegmentSequence) {
        self.catalog.remove_oldest(sequence);
    }

    fn assert_next(&self, index: Index) {
        assert_eq!(index, self.last_index.next(), "entries are staged in order");
    }

    fn staged(&mut self, index: Index, range: Range<usize>) -> Staged {
        self.last_index = index;
        self.entry_bytes += range.len() as u64;
        Staged {
            commit: self.last_staged_commit(),
            range,
        }
    }

    /// The commit that what was staged last will be in.
    fn last_staged_commit(&self) -> CommitSequence {
        let batches_before = self.staging.batch_count() as u64 - 1;
        CommitSequence(self.next_commit.0 + batches_before)
    }
}

/// The header page of a segment, as both places hold it.
pub(crate) fn header_page(header: &SegmentHeader) -> PageBuffer {
    let mut page = PageBuffer::new();
    page.resize(
        usize::try_from(PAGE_SIZE_BYTES).expect("a page fits in memory"),
        0,
    );
    header.write(&mut page);
    page
}

/// Where a staged record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The commit it will be part of.
    pub commit: CommitSequence,
    /// Its bytes in that commit, from the commit's first byte.
    pub range: Range<usize>,
}
