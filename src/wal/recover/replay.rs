//! The walk over one segment: commits that hold are replayed, and what lies behind the first that does not is looked at
//! as evidence.

use super::{Recovery, Replayed};
use crate::base::limits::PAGE_SIZE_BYTES;
use crate::base::{HardState, Index};
use crate::frame::{AccessError, Record, RecordKind};
use crate::wal::damage::{Cause, ContentError, Evidence};
use crate::wal::record::{CheckedCommit, CommitHeader, CommitSequence, Expected, check_commit};
use crate::wal::retain::{Extent, Location};
use crate::wal::segment::SegmentHeader;

impl Recovery {
    /// Replays the commits of one segment up to the first that does not hold.
    pub(super) fn walk(
        &mut self,
        header: &SegmentHeader,
        bytes: &[u8],
        visit: &mut dyn FnMut(Replayed<'_>) -> Result<(), AccessError>,
    ) {
        let segment = header.sequence;
        let mut offset = self.geometry.commits_begin();
        loop {
            self.active = Some((*header, offset));
            let rest = self.commits_from(bytes, offset);
            let expected = Expected {
                salt: header.salt,
                sequence: self.next_commit,
                previous_checksum: self.chain,
                planted: self.planted,
            };
            match check_commit(rest, &expected) {
                Ok(commit) => {
                    let place = Location {
                        segment,
                        offset,
                        commit: commit.header.sequence,
                    };
                    if let Err(cause) = self.replay(&commit, place, visit) {
                        self.corrupt(segment, offset, cause, Evidence::Checksums);
                        self.note_evidence(header, bytes, offset);
                        return;
                    }
                    offset += commit.header.commit_size_bytes();
                }
                Err(error) => {
                    self.end = error;
                    self.note_evidence(header, bytes, offset);
                    return;
                }
            }
        }
    }

    /// Hands on the records of a commit that holds.
    fn replay(
        &mut self,
        commit: &CheckedCommit<'_>,
        place: Location,
        visit: &mut dyn FnMut(Replayed<'_>) -> Result<(), AccessError>,
    ) -> Result<(), Cause> {
        let CommitHeader {
            sequence,
            hard_state,
            durable_mark,
            record_count,
            ..
        } = commit.header;
        let content = |error| Cause::Content(sequence, error);
        if durable_mark >= sequence {
            return Err(content(ContentError::Mark(durable_mark)));
        }
        if hard_state.term < self.hard_state.term || hard_state.commit < self.hard_state.commit {
            return Err(content(ContentError::HardState));
        }
        // What was committed before this commit was written; its own commit index may lie above entries
        // that it puts in place of others.
        let committed = self.hard_state.commit;
        self.note_hard_state(sequence, hard_state);
        let mut extent = Extent::default();
        let mut kinds = (0, None);
        let mut rest = commit.body;
        while !rest.is_empty() {
            let (record, after) =
                Record::parse(rest).map_err(|error| Cause::Record(sequence, error))?;
            rest = after;
            kinds = (kinds.0 + 1, Some(record.header.kind));
            let index = record.header.index;
            let replayed = match record.header.kind {
                RecordKind::Entry => {
                    if index != self.last_index.next() {
                        return Err(content(ContentError::Index {
                            found: index,
                            last: self.last_index,
                        }));
                    }
                    extent.first_index =
                        Some(extent.first_index.map_or(index, |lowest| lowest.min(index)));
                    if index == self.start {
                        self.parted = self
                            .checkpoint
                            .is_some_and(|checkpoint| checkpoint.term != record.header.term);
                    }
                    self.counts(index).then_some(Replayed::Entry(record))
                }
                RecordKind::Truncate => {
                    if index > self.last_index || index < committed {
                        return Err(content(ContentError::Truncate {
                            after: index,
                            last: self.last_index,
                        }));
                    }
                    extent.cut_after =
                        Some(extent.cut_after.map_or(index, |lowest| lowest.min(index)));
                    self.parted &= index >= self.start;
                    Some(Replayed::Cut {
                        after: index.max(self.start),
                    })
                }
                RecordKind::Checkpoint => {
                    if index > self.last_index {
                        if index > self.start {
                            return Err(content(ContentError::Base(index)));
                        }
                        extent.cut_after.get_or_insert(index);
                        self.last_index = index;
                    }
                    Some(Replayed::Checkpoint {
                        term: record.header.term,
                        index,
                    })
                }
                RecordKind::Seal => None,
            };
            if let Some(replayed) = replayed {
                visit(replayed).map_err(|error| Cause::Body(sequence, error))?;
            }
            match record.header.kind {
                RecordKind::Entry => {
                    if self.counts(index) {
                        self.entry_count += 1;
                        self.entry_bytes += record.bytes.len() as u64;
                    }
                    self.last_index = index;
                }
                RecordKind::Truncate => self.last_index = index,
                RecordKind::Checkpoint | RecordKind::Seal => {}
            }
        }
        if kinds.0 != record_count {
            return Err(content(ContentError::RecordCount));
        }
        if hard_state.commit > self.last_index {
            return Err(content(ContentError::CommitIndex {
                commit: hard_state.commit,
                last: self.last_index,
            }));
        }
        if hard_state.commit > committed && self.counts(hard_state.commit) {
            let replayed = Replayed::Committed(hard_state.commit);
            visit(replayed).map_err(|error| Cause::Body(sequence, error))?;
        }
        self.sealed = kinds == (1, Some(RecordKind::Seal));
        self.catalog.add_commit(place, extent);
        self.chain = commit.checksum;
        self.next_commit = sequence.next();
        self.commit_count += 1;
        Ok(())
    }

    /// Whether an index lies behind the caller's state, in a log that leads there.
    fn counts(&self, index: Index) -> bool {
        index > self.start && !self.parted
    }

    /// Looks for valid commits from `from` on. One that follows the first bad commit makes the log
    /// corrupt; the newest one's term and vote count in any case.
    pub(super) fn note_evidence(&mut self, header: &SegmentHeader, bytes: &[u8], from: u64) {
        let found: Vec<(u64, CommitHeader)> = self
            .commits_in(bytes, from)
            .filter(|(_, commit)| commit.salt == header.salt)
            .collect();
        for (offset, commit) in found {
            if self.damage.is_none() {
                if commit.sequence <= self.next_commit && commit.durable_mark < self.next_commit {
                    continue;
                }
                let (segment, end) = (
                    header.sequence,
                    self.active.as_ref().map_or(from, |(_, offset)| *offset),
                );
                let evidence = Evidence::LaterCommit {
                    segment,
                    offset,
                    commit: commit.sequence,
                };
                self.corrupt(segment, end, Cause::Commit(self.end), evidence);
            }
            self.note_newer(&commit);
        }
    }

    pub(super) fn note_newer(&mut self, commit: &CommitHeader) {
        if commit.sequence > self.hard_state_commit {
            self.note_hard_state(commit.sequence, commit.hard_state);
        }
    }

    /// Every page from `from` on that begins with a commit header whose checksum holds.
    pub(super) fn commits_in<'a>(
        &self,
        bytes: &'a [u8],
        from: u64,
    ) -> impl Iterator<Item = (u64, CommitHeader)> + 'a + use<'a> {
        let page = usize::try_from(PAGE_SIZE_BYTES).expect("a page fits in an address");
        let pages = self.commits_from(bytes, from).chunks_exact(page);
        let offsets = (from..).step_by(page);
        offsets
            .zip(pages)
            .filter_map(|(offset, page)| CommitHeader::parse(page).map(|header| (offset, header)))
    }

    fn commits_from<'a>(&self, bytes: &'a [u8], offset: u64) -> &'a [u8] {
        let at =
            |offset| usize::try_from(offset).expect("an offset in a segment fits in an address");
        &bytes[at(offset)..at(self.geometry.commits_end())]
    }

    fn note_hard_state(&mut self, commit: CommitSequence, hard_state: HardState) {
        let same =
            (hard_state.term, hard_state.vote) == (self.hard_state.term, self.hard_state.vote);
        self.hard_state_copies = if same {
            self.hard_state_copies.saturating_add(1)
        } else {
            1
        };
        self.hard_state = hard_state;
        self.hard_state_commit = commit;
        self.newest_commit = self.newest_commit.max(commit);
    }
}
