//! From the bytes of the segment files back to the log: what is in it, where it ends, and whether what
//! follows the end was ever promised to anybody.
//!
//! One segment is in memory at a time. Valid commits are handed on at once, in order; an entry that a
//! later leader replaced is handed on, then undone by [`Replayed::Cut`], as it happened when the
//! log was written. The first commit that does not hold ends the replay. Everything beyond it is looked
//! at as evidence only: if anything shows that the commit was durable, the log is corrupt, and if nothing
//! does, it has a torn tail. Must never repair: the outcome says what the caller has to do.
//!
//! ```text
//! segment 7                               segment 8                  9
//! |header|c40|c41|c42|.......|copy|       |header|c43|c4#|....|copy|  |spare|
//!                     `- the header of 8 says "first commit 43": 7 ends here, nothing is missing
//!                                                     `- c44 does not hold. A c45, or a segment 9 with a
//!                                                        header: corrupt. Neither: a torn tail
//! ```

mod replay;

use crate::base::limits::PAGE_SIZE_BYTES;
use crate::base::planted::{Defect, Planted};
use crate::base::{HardState, Index, Term};
use crate::frame::{AccessError, Record};
use crate::wal::damage::{Cause, Damage, Evidence, Outcome, Refusal, RefusalReason};
use crate::wal::record::{COMMIT_HEADER_BYTES, CommitError, CommitHeader, CommitSequence};
use crate::wal::retain::Catalog;
use crate::wal::segment::{Geometry, HeaderError, LogIdentity, SegmentHeader, SegmentSequence};

/// A file of the log's directory whose name is a segment's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// From the name.
    pub sequence: SegmentSequence,
    /// Bytes of the file.
    pub size_bytes: u64,
}

/// What recovery hands on, in the order of the log.
#[derive(Clone, Copy, Debug)]
pub enum Replayed<'a> {
    /// The entry after the last one. Its archive is not yet checked: [`crate::frame::access`].
    Entry(Record<'a>),
    /// Every entry above `after` is undone; others follow in their place.
    Cut {
        /// The last index that stays.
        after: Index,
    },
    /// Every entry up to here was committed when this was written: it is never undone.
    Committed(Index),
    /// The state up to `index` was in a checkpoint when this was written.
    Checkpoint {
        /// Term of the entry at `index`.
        term: Term,
        /// The index.
        index: Index,
    },
}

/// A checkpoint that the log is replayed behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The term of the entry at its index.
    pub term: Term,
    /// How far the log led once: the highest index, up to this one's own, of a checkpoint that the member took itself.
    /// A log that ends before that, or holds another entry there, is corrupt. One that leads there and not to this
    /// checkpoint is that of a member that died while it installed what another one had sent, and begins anew behind it.
    pub led_to: Index,
}

/// A recovery under way: [`Self::new`], [`Self::segment`] for each file in order, [`Self::finish`].
pub struct Recovery {
    geometry: Geometry,
    identity: LogIdentity,
    /// The state the caller already has ends here; entries up to it are checked and not handed on.
    start: Index,
    /// What is known of the checkpoint at `start`, if it is one.
    checkpoint: Option<Checkpoint>,
    /// The log's entry at `start` is another one than the checkpoint's: what follows it is void, and cut off
    /// later in the log, or by the checkpoint itself.
    parted: bool,
    /// Whether an empty log is no sign of damage.
    was_cut: bool,
    /// Whether there was a segment once.
    has_begun: bool,
    files: Vec<SegmentFile>,
    /// How many of `files` were read.
    files_read: usize,
    /// The newest segment with a valid header, and where the next commit in it belongs.
    active: Option<(SegmentHeader, u64)>,
    /// Why the walk ended there.
    end: CommitError,
    next_commit: CommitSequence,
    chain: u32,
    last_index: Index,
    hard_state: HardState,
    /// Commits at the end of the log that carry the same term and vote.
    hard_state_copies: u8,
    /// The commit whose hard state is the newest; beyond the end only in a corrupt log.
    hard_state_commit: CommitSequence,
    /// The newest commit that there has been, as far as anything tells.
    newest_commit: CommitSequence,
    sealed: bool,
    entry_count: u64,
    entry_bytes: u64,
    commit_count: u64,
    catalog: Catalog,
    spares: Vec<SegmentSequence>,
    damaged_headers: Vec<HeaderRepair>,
    damage: Option<Damage>,
    planted: Planted,
}

/// What a log holds and how it ends.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// How it ends.
    pub outcome: Outcome,
    /// Term, vote and commit index of the newest valid commit.
    pub hard_state: HardState,
    /// Index of the last entry that holds, or where the caller's state ends when nothing follows it.
    pub last_index: Index,
    /// The log does not lead to the checkpoint at this index, whose entry had this term: it goes on behind it.
    pub begins_anew: Option<(Term, Index)>,
    /// Entries that were handed on, those undone later included.
    pub entry_count: u64,
    /// Bytes of their records.
    pub entry_bytes: u64,
    /// Commits that hold.
    pub commit_count: u64,
    /// Whether a term or a vote may be gone with what is damaged: two commits or more behind the newest
    /// that can be read.
    pub term_lost: bool,
    /// Files that hold nothing of the log and may be used for the segments they are named for.
    pub spares: Vec<SegmentSequence>,
    /// Header pages that are damaged while their copy holds. The caller writes them again.
    pub damaged_headers: Vec<HeaderRepair>,
    pub(crate) end: LogEnd,
}

impl Recovered {
    /// The segment that takes commits; none in an empty log.
    #[must_use]
    pub fn active_segment(&self) -> Option<SegmentSequence> {
        self.end.active.map(|(header, _)| header.sequence)
    }
}

/// Where an appender goes on.
#[derive(Clone, Debug)]
pub(crate) struct LogEnd {
    pub(crate) active: Option<(SegmentHeader, u64)>,
    /// Of what the segments hold.
    pub(crate) last_index: Index,
    pub(crate) next_commit: CommitSequence,
    pub(crate) chain: u32,
    pub(crate) hard_state_copies: u8,
    pub(crate) sealed: bool,
    pub(crate) catalog: Catalog,
}

/// A header page to write again from its copy.
#[derive(Clone, Debug)]
pub struct HeaderRepair {
    /// The segment.
    pub segment: SegmentSequence,
    /// The offset of the damaged page.
    pub offset: u64,
    header: SegmentHeader,
}

impl HeaderRepair {
    /// The page that belongs there, page-aligned in memory.
    #[must_use]
    pub fn page(&self) -> crate::frame::PageBuffer {
        crate::wal::append::header_page(&self.header)
    }
}

/// What a file turned out to be.
enum Contents {
    Live(SegmentHeader),
    Spare,
    HeaderLost(Evidence),
}

impl Recovery {
    /// Begins with the files found, in ascending order. The caller's state holds everything up to
    /// `start` already: the index of its checkpoint, zero for none.
    ///
    /// # Errors
    /// [`Refusal`] when a file is missing in between, or is not of the size a segment has.
    pub fn new(
        geometry: Geometry,
        identity: LogIdentity,
        start: Index,
        files: &[SegmentFile],
    ) -> Result<Recovery, Refusal> {
        for pair in files.windows(2) {
            let (file, next) = (pair[0].sequence, pair[1].sequence);
            if next <= file {
                return Err(Refusal {
                    segment: next,
                    offset: 0,
                    reason: RefusalReason::Duplicate,
                });
            }
            if next != file.next() {
                return Err(Refusal {
                    segment: file.next(),
                    offset: 0,
                    reason: RefusalReason::Missing,
                });
            }
        }
        let expected = geometry.segment_size_bytes();
        if let Some(file) = files.iter().find(|file| file.size_bytes != expected) {
            let reason = RefusalReason::Size {
                found: file.size_bytes,
                expected,
            };
            return Err(Refusal {
                segment: file.sequence,
                offset: file.size_bytes.min(expected),
                reason,
            });
        }
        Ok(Recovery {
            geometry,
            identity,
            start,
            checkpoint: None,
            parted: false,
            was_cut: false,
            has_begun: false,
            files: files.to_vec(),
            files_read: 0,
            active: None,
            end: CommitError::Absent,
            next_commit: CommitSequence(1),
            chain: 0,
            last_index: Index(0),
            hard_state: HardState::default(),
            hard_state_copies: u8::MAX,
            hard_state_commit: CommitSequence(0),
            newest_commit: CommitSequence(0),
            sealed: true,
            entry_count: 0,
            entry_bytes: 0,
            commit_count: 0,
            catalog: Catalog::new(geometry),
            spares: Vec::new(),
            damaged_headers: Vec::new(),
            damage: None,
            planted: Planted::NOTHING,
        })
    }

    /// Makes it wrong on purpose.
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// The caller's state is this checkpoint, at `start`.
    ///
    /// # Panics
    /// If it says that the log led beyond its index.
    pub fn after_checkpoint(&mut self, checkpoint: Checkpoint) {
        assert!(
            checkpoint.led_to <= self.start,
            "only checkpoints up to this one are asked how far the log led"
        );
        self.checkpoint = Some(checkpoint);
    }

    /// Part of the log was cut away for damage, what it said of term and vote is stored elsewhere, and no commit has
    /// followed: that nothing is left of it, or less than the checkpoint holds, is no further damage.
    pub fn was_cut(&mut self) {
        self.was_cut = true;
    }

    /// The log has had a segment: that none is left is damage, and not a log that never began.
    pub fn has_begun(&mut self) {
        self.has_begun = true;
    }

    /// The file to read next, whole; `None` when all were read.
    #[must_use]
    pub fn next_file(&self) -> Option<SegmentSequence> {
        self.files.get(self.files_read).map(|file| file.sequence)
    }

    /// Reads the file [`Self::next_file`] names, and hands on what it holds. An error of `visit` (a body
    /// that is not a valid archive) makes the log corrupt at that entry and ends the replay.
    ///
    /// # Errors
    /// [`Refusal`] when the file is not what it must be; the recovery is over then.
    ///
    /// # Panics
    /// If there is no next file.
    pub fn segment(
        &mut self,
        bytes: &[u8],
        visit: &mut dyn FnMut(Replayed<'_>) -> Result<(), AccessError>,
    ) -> Result<(), Refusal> {
        let name = self
            .next_file()
            .expect("a segment is read only while there is a next file");
        self.files_read += 1;
        match self.identify(name, bytes)? {
            Contents::Live(header) => {
                self.begin_segment(header)?;
                if self.damage.is_some() {
                    self.note_evidence(&header, bytes, self.geometry.commits_begin());
                } else {
                    self.walk(&header, bytes, visit);
                }
            }
            Contents::Spare => self.spares.push(name),
            Contents::HeaderLost(evidence) => self.corrupt(name, 0, Cause::HeaderLost, evidence),
        }
        Ok(())
    }

    /// A log without a segment that says anything is new only if it has never begun. A spare is made for the segment
    /// behind the active one: spares alone, of which none is the first segment's, say that term, vote and entries were
    /// in a file that is gone.
    fn check_beginning(&mut self) {
        // A checkpoint without a log behind it is judged as such.
        let is_new = self.start == Index(0) && !self.was_cut;
        if self.spares.len() < self.files.len() {
            return;
        }
        let first = self.files.first().map(|file| file.sequence);
        let evidence = match first {
            None if is_new && self.has_begun => Evidence::Begun,
            // Also in the middle of a cut: a log that began again with the first segment would never reach it.
            Some(segment) if segment > SegmentSequence(1) && (is_new || self.was_cut) => {
                Evidence::LaterSegment { segment }
            }
            None | Some(_) => return,
        };
        self.corrupt(SegmentSequence(1), 0, Cause::Missing, evidence);
    }

    /// Ends the recovery.
    ///
    /// # Panics
    /// If a file was not read.
    #[must_use]
    pub fn finish(mut self) -> Recovered {
        assert_eq!(
            self.files_read,
            self.files.len(),
            "every file is read before the log is judged"
        );
        self.check_beginning();
        let (segment, offset) = match &self.active {
            Some((header, offset)) => (header.sequence, *offset),
            None => (SegmentSequence(0), 0),
        };
        let ends_before = self.last_index < self.start || self.parted;
        // A member that installs has a log: without one, term and vote would be forgotten.
        let has_log = self.active.is_some() || self.was_cut;
        let led_to = self
            .checkpoint
            .map_or(self.start, |checkpoint| checkpoint.led_to);
        // What led there and does not any more has lost its tail, and term and vote with it.
        let is_shorter = self.last_index < led_to || (self.parted && led_to == self.start);
        let installed = self
            .checkpoint
            .filter(|_| has_log && (self.was_cut || !is_shorter));
        let begins_anew = installed.filter(|_| ends_before && self.damage.is_none());
        if self.damage.is_none() && ends_before && begins_anew.is_none() {
            let cause = Cause::BehindCheckpoint(self.last_index);
            let held = if is_shorter { led_to } else { self.start };
            self.corrupt(segment, offset, cause, Evidence::Checkpoint(held));
        }
        let unknown = |damage: Damage| {
            let behind = matches!(damage.evidence, Evidence::Checkpoint(_));
            behind || damage.cause == Cause::Missing
        };
        let term_lost =
            self.damage.is_some_and(unknown) || self.newest_commit.0 > self.hard_state_commit.0 + 1;
        let outcome = match self.damage {
            Some(_) if self.planted.has(Defect::DamageCutAsTail) => {
                Outcome::TornTail { segment, offset }
            }
            Some(damage) => Outcome::Corrupt(damage),
            None if self.end == CommitError::Absent => Outcome::Clean,
            None => Outcome::TornTail { segment, offset },
        };
        Recovered {
            outcome,
            hard_state: self.hard_state,
            last_index: match begins_anew {
                Some(_) => self.start,
                None => self.last_index,
            },
            begins_anew: begins_anew.map(|checkpoint| (checkpoint.term, self.start)),
            entry_count: self.entry_count,
            entry_bytes: self.entry_bytes,
            commit_count: self.commit_count,
            term_lost,
            spares: self.spares,
            damaged_headers: self.damaged_headers,
            end: LogEnd {
                active: self.active,
                last_index: self.last_index,
                next_commit: self.next_commit,
                chain: self.chain,
                hard_state_copies: self.hard_state_copies,
                sealed: self.sealed,
                catalog: self.catalog,
            },
        }
    }

    /// Decides whether the file is a segment of the log, a spare, or neither.
    fn identify(&mut self, name: SegmentSequence, bytes: &[u8]) -> Result<Contents, Refusal> {
        let refuse = |offset, reason| {
            Err(Refusal {
                segment: name,
                offset,
                reason,
            })
        };
        let expected = self.geometry.segment_size_bytes();
        let found = bytes.len() as u64;
        if found != expected {
            return refuse(found.min(expected), RefusalReason::Size { found, expected });
        }
        let mut live: Option<SegmentHeader> = None;
        let mut stale = None;
        let mut damaged_offset = None;
        for offset in self.geometry.header_offsets() {
            match SegmentHeader::parse(page_at(bytes, offset)) {
                Ok(header) => {
                    if header.identity != self.identity {
                        let (found, expected) =
                            (Box::new(header.identity), Box::new(self.identity));
                        return refuse(offset, RefusalReason::Foreign { found, expected });
                    }
                    if header.segment_size_bytes != expected {
                        let found = header.segment_size_bytes;
                        return refuse(offset, RefusalReason::Size { found, expected });
                    }
                    if header.sequence == name {
                        if live.is_some_and(|other| other != header) {
                            return refuse(offset, RefusalReason::HeadersDiffer);
                        }
                        live = Some(header);
                        continue;
                    }
                    stale = Some((offset, header.sequence));
                    damaged_offset = Some(offset);
                }
                Err(error @ HeaderError::Version { .. }) => {
                    return refuse(offset, RefusalReason::Format(error));
                }
                Err(HeaderError::Absent | HeaderError::Damaged) => damaged_offset = Some(offset),
            }
        }
        if let Some(header) = live {
            if let Some(offset) = damaged_offset {
                self.damaged_headers.push(HeaderRepair {
                    segment: name,
                    offset,
                    header,
                });
            }
            return Ok(Contents::Live(header));
        }
        let first_live = self
            .catalog
            .segments()
            .next()
            .map(|segment| segment.sequence);
        // A recycled file still holds the header of a segment that was given up, so one older than every
        // segment of the log. Anything else was renamed or copied.
        if let Some((offset, found)) = stale
            && first_live.is_none_or(|first| found >= first)
        {
            return refuse(offset, RefusalReason::Swapped { found });
        }
        // Nothing is ever written behind a header that is not durable. So a commit that the log does
        // not have yet proves a lost header, while a recycled file only holds older ones.
        let lost: Vec<(u64, CommitHeader)> = self
            .commits_in(bytes, self.geometry.commits_begin())
            .filter(|(_, header)| header.sequence >= self.next_commit)
            .collect();
        for (_, header) in &lost {
            self.note_newer(header);
        }
        Ok(match lost.first() {
            Some(&(offset, header)) => Contents::HeaderLost(Evidence::LaterCommit {
                segment: name,
                offset,
                commit: header.sequence,
            }),
            None => Contents::Spare,
        })
    }

    /// Checks that a segment continues the log.
    fn begin_segment(&mut self, header: SegmentHeader) -> Result<(), Refusal> {
        let segment = header.sequence;
        if let Some(lost) = self.spares.first().copied() {
            self.corrupt(
                lost,
                0,
                Cause::HeaderLost,
                Evidence::LaterSegment { segment },
            );
        }
        self.catalog.add_segment(&header);
        let before = CommitSequence(header.first_commit.0.saturating_sub(1));
        let Some((previous, offset)) = &self.active else {
            if header.first_index > self.start.next() && self.damage.is_none() {
                let reason = RefusalReason::BeginsLate {
                    first_index: header.first_index,
                    needed: self.start.next(),
                };
                return Err(Refusal {
                    segment,
                    offset: 0,
                    reason,
                });
            }
            self.next_commit = header.first_commit;
            self.chain = header.previous_checksum;
            self.last_index = Index(header.first_index.0.saturating_sub(1));
            return Ok(());
        };
        self.newest_commit = self.newest_commit.max(before);
        let (previous, offset) = (previous.sequence, *offset);
        if header.first_commit > self.next_commit {
            self.corrupt(
                previous,
                offset,
                Cause::Commit(self.end),
                Evidence::LaterSegment { segment },
            );
        } else if header.first_commit < self.next_commit
            || header.previous_sequence != previous
            || header.previous_checksum != self.chain
            || header.first_index != self.last_index.next()
        {
            self.corrupt(segment, 0, Cause::Chain, Evidence::Checksums);
        }
        Ok(())
    }

    /// Keeps the first damage; later ones follow from it.
    fn corrupt(&mut self, segment: SegmentSequence, offset: u64, cause: Cause, evidence: Evidence) {
        let index = self.last_index.next();
        self.damage.get_or_insert(Damage {
            segment,
            offset,
            index,
            cause,
            evidence,
        });
    }
}

fn page_at(bytes: &[u8], offset: u64) -> &[u8] {
    let start = usize::try_from(offset).expect("an offset in a segment fits in an address");
    &bytes[start..]
}

const _: () = assert!(COMMIT_HEADER_BYTES as u64 <= PAGE_SIZE_BYTES);
