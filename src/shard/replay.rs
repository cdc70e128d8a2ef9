//! From the log's records back to the state: fold(log), in slices.
//!
//! Recovery hands on what the log holds, one record at a time; a record is checked when it comes and
//! folded when there is time, so a restart never works longer than a slice at once.

use bytes::Bytes;

use super::checkpoints::CheckpointSummary;
use super::cluster::{ClusterChange, ClusterState};
use super::entry::{ArchivedEntryBody, EntryBody};
use super::folder::Folder;
use crate::base::planted::Planted;
use crate::base::{HardState, Index};
use crate::frame::{self, AccessError, Record, RecordHeader};
use crate::keyspace::Keyspace;
use crate::keyspace::steps::Steps;
use crate::raft::{LogTerms, Membership};
use crate::wal;

/// State and position of a log that was replayed to its end.
#[derive(Default)]
pub struct Replayed {
    /// Every version, committed up to the recovered commit index.
    pub keyspace: Keyspace,
    /// Members, alarms and version.
    pub cluster: ClusterState,
    /// Which term wrote which index.
    pub terms: LogTerms,
    /// Term, vote and commit index.
    pub hard_state: HardState,
    /// The checkpoint that the replay began with.
    pub checkpoint: Option<CheckpointSummary>,
}

impl Replayed {
    /// What the recovery of the log behind this checkpoint must know of it ([`wal::Recovery::after_checkpoint`]).
    /// `led_to` is how far the log led once.
    #[must_use]
    pub fn recovers_after(&self, led_to: Index) -> Option<wal::Checkpoint> {
        let checkpoint = self.checkpoint?;
        Some(wal::Checkpoint {
            term: checkpoint.id.term,
            led_to,
        })
    }
}

/// A piece of a log, checked and on its own: it may cross to another core.
#[derive(Debug)]
pub enum Piece {
    /// The entry after the last one.
    Entry(Entry),
    /// Every entry after this index is undone.
    Cut(Index),
    /// Every entry up to this index is committed: what compaction gave up there can be freed now, so
    /// that a restart needs no more memory than the member did before.
    Committed(Index),
}

/// An entry of a log, checked: its archive is one and says what this build knows.
#[derive(Debug)]
pub struct Entry {
    /// Of its record.
    pub(super) header: RecordHeader,
    /// Its archive; it may share the memory of what it came in.
    pub(super) body: Bytes,
    /// What it changes of members, alarms and version.
    pub(super) changes: Vec<ClusterChange>,
}

impl Entry {
    /// Checks the archive of a record, which is copied.
    ///
    /// # Errors
    /// When it is not one, or says something this build does not know.
    pub fn copied(record: &Record<'_>) -> Result<Entry, AccessError> {
        Entry::new(record.header, Bytes::copy_from_slice(record.body))
    }

    /// Checks the archive of the record with this header; it is not copied.
    ///
    /// # Errors
    /// When it is not one, or says something this build does not know.
    pub(super) fn new(header: RecordHeader, body: Bytes) -> Result<Entry, AccessError> {
        let unknown = AccessError { length: body.len() };
        let mut changes = Vec::new();
        if let ArchivedEntryBody::Cluster(effects) = frame::access::<EntryBody>(&body)? {
            for effect in effects.iter() {
                changes.push(ClusterChange::try_from(effect).map_err(|_| unknown)?);
            }
        }
        Ok(Entry {
            header,
            body,
            changes,
        })
    }
}

impl Piece {
    /// Checks what recovery hands on; `None` for what says nothing about the state.
    ///
    /// # Errors
    /// When an entry's archive is not one, or says something this build does not know.
    pub fn new(recovered: wal::Replayed<'_>) -> Result<Option<Piece>, AccessError> {
        Ok(match recovered {
            wal::Replayed::Entry(record) => Some(Piece::Entry(Entry::copied(&record)?)),
            wal::Replayed::Cut { after } => Some(Piece::Cut(after)),
            wal::Replayed::Committed(index) => Some(Piece::Committed(index)),
            wal::Replayed::Checkpoint { .. } => None,
        })
    }
}

/// A replay under way.
#[derive(Default)]
pub struct Replayer {
    state: Replayed,
    folder: Folder,
    /// Whether a floor may have moved and not everything below it is freed.
    reclaiming: bool,
}

impl Replayer {
    /// Makes it wrong on purpose.
    pub fn plant(&mut self, planted: Planted) {
        self.state.keyspace.plant(planted);
    }

    /// A replay of the log after a checkpoint.
    #[must_use]
    pub fn after(checkpoint: Replayed) -> Replayer {
        Replayer {
            state: checkpoint,
            ..Replayer::default()
        }
    }

    /// Who belongs to the group, as far as what was taken tells.
    #[must_use]
    pub fn membership(&self) -> Membership {
        self.state.cluster.membership_at_head()
    }

    /// Takes pieces, in the order of the log.
    ///
    /// # Panics
    /// When an entry is not the one after the last: recovery hands on entries without gaps.
    pub fn take(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        let Replayer {
            state,
            folder,
            reclaiming,
        } = self;
        for piece in pieces {
            match piece {
                Piece::Committed(index) => {
                    state.keyspace.commit(index);
                    state.cluster.commit(index);
                    *reclaiming = true;
                }
                Piece::Cut(after) => {
                    state.terms.truncate(after);
                    state.cluster.truncate(after);
                    folder.truncate(&mut state.keyspace, after);
                }
                Piece::Entry(entry) => {
                    let RecordHeader { term, index, .. } = entry.header;
                    let size_bytes = entry.header.record_size_bytes() as u64;
                    let appended = state.terms.append(term, size_bytes);
                    assert_eq!(appended, index, "recovery hands on entries without gaps");
                    for change in entry.changes {
                        state.cluster.fold(index, change);
                    }
                    folder.push(index, entry.body);
                }
            }
        }
    }

    /// Folds for what is left of the slice; whether everything taken so far is folded, and what it gave up
    /// freed.
    pub fn run(&mut self, steps: &mut Steps) -> bool {
        let keyspace = &mut self.state.keyspace;
        let folded = self.folder.run(keyspace, steps);
        if self.reclaiming {
            self.reclaiming = keyspace.reclaim(steps);
        }
        folded && !self.reclaiming
    }

    /// The end of the log: what it had committed is shown again.
    ///
    /// # Panics
    /// If something taken is not folded yet.
    #[must_use]
    pub fn finish(self, hard_state: HardState) -> Replayed {
        assert!(!self.folder.has_work(), "replay everything first");
        let mut state = self.state;
        // The log's own commit index may lag behind a checkpoint, which holds only what is committed.
        let mut hard_state = HardState {
            commit: hard_state.commit.max(state.keyspace.committed_index()),
            ..hard_state
        };
        // Nor may it know the term of one that a leader sent; then nobody got a vote in that.
        if state.terms.last_term() > hard_state.term {
            hard_state.term = state.terms.last_term();
            hard_state.vote = None;
        }
        state.keyspace.commit(hard_state.commit);
        state.cluster.commit(hard_state.commit);
        state.hard_state = hard_state;
        state
    }
}
