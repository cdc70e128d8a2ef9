//! From the log's records back to the state: fold(log), in slices.
//!
//! Recovery hands on what the log holds, one record at a time; a record is checked when it comes and
//! folded when there is time, so a restart never works longer than a slice at once.

use std::collections::VecDeque;

use super::cluster::{ClusterChange, ClusterState};
use super::entry::{ArchivedEntryBody, EntryBody};
use super::evaluate::archived_effects;
use crate::base::HardState;
use crate::base::planted::Planted;
use crate::base::{Index, Term};
use crate::frame::{self, AccessError, Record};
use crate::keyspace::fold::FoldJob;
use crate::keyspace::steps::Steps;
use crate::keyspace::{Keyspace, TruncateJob};
use crate::raft::LogTerms;
use crate::wal;

/// Steps of taking up an entry, beside its fold.
const ENTRY_STEPS: usize = 2;

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
}

/// A piece of a log, checked and on its own: it may cross to another core.
#[derive(Debug)]
pub enum Piece {
    /// The entry after the last one.
    Entry {
        /// Its term.
        term: Term,
        /// Its index.
        index: Index,
        /// Its archive, which is one and says what this build knows.
        body: Vec<u8>,
    },
    /// Every entry after this index is undone.
    Cut(Index),
    /// Every entry up to this index is committed: what compaction gave up there can be freed now, so
    /// that a restart needs no more memory than the member did before.
    Committed(Index),
}

impl Piece {
    /// Checks what recovery hands on; `None` for what says nothing about the state.
    ///
    /// # Errors
    /// When an entry's archive is not one, or says something this build does not know.
    pub fn new(recovered: wal::Replayed<'_>) -> Result<Option<Piece>, AccessError> {
        Ok(match recovered {
            wal::Replayed::Entry(Record { header, body, .. }) => {
                check(body)?;
                let (term, index) = (header.term, header.index);
                Some(Piece::Entry {
                    term,
                    index,
                    body: body.to_vec(),
                })
            }
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
    /// Taken and not folded.
    queue: VecDeque<Piece>,
    job: Option<Job>,
    /// Whether a floor may have moved and not everything below it is freed.
    reclaiming: bool,
}

enum Job {
    Fold(Box<FoldJob>, Vec<u8>),
    Truncate(TruncateJob),
}

impl Replayer {
    /// Makes it wrong on purpose.
    pub fn plant(&mut self, planted: Planted) {
        self.state.keyspace.plant(planted);
    }

    /// Takes pieces, in the order of the log.
    pub fn take(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        self.queue.extend(pieces);
    }

    /// Folds for what is left of the slice; whether everything taken so far is folded.
    pub fn run(&mut self, steps: &mut Steps) -> bool {
        let Replayer {
            state,
            queue,
            job,
            reclaiming,
        } = self;
        loop {
            if let Some(running) = job {
                let done = match running {
                    Job::Fold(fold, body) => {
                        let effects = archived_effects(body);
                        fold.run(&mut state.keyspace, effects, steps).is_some()
                    }
                    Job::Truncate(truncate) => truncate.run(&mut state.keyspace, steps),
                };
                if !done {
                    return false;
                }
                *job = None;
            }
            if *reclaiming {
                *reclaiming = state.keyspace.reclaim(steps);
            }
            if steps.spent() && !queue.is_empty() {
                return false;
            }
            let Some(piece) = queue.pop_front() else {
                return true;
            };
            steps.take_many(ENTRY_STEPS);
            match piece {
                Piece::Committed(index) => {
                    state.keyspace.commit(index);
                    state.cluster.commit(index);
                    *reclaiming = true;
                }
                Piece::Cut(after) => {
                    state.terms.truncate(after);
                    state.cluster.truncate(after);
                    *job = Some(Job::Truncate(TruncateJob::new(&mut state.keyspace, after)));
                }
                Piece::Entry { term, index, body } => {
                    let appended = state.terms.append(term);
                    assert_eq!(appended, index, "recovery hands on entries without gaps");
                    for change in cluster_changes(&body) {
                        state.cluster.fold(index, change);
                    }
                    *job = Some(Job::Fold(
                        Box::new(FoldJob::replay(&mut state.keyspace, index)),
                        body,
                    ));
                }
            }
        }
    }

    /// The end of the log: what it had committed is shown again.
    ///
    /// # Panics
    /// If something taken is not folded yet.
    #[must_use]
    pub fn finish(self, hard_state: HardState) -> Replayed {
        assert!(
            self.queue.is_empty() && self.job.is_none(),
            "replay everything first"
        );
        let mut state = self.state;
        state.keyspace.commit(hard_state.commit);
        state.cluster.commit(hard_state.commit);
        state.hard_state = hard_state;
        state
    }
}

fn check(body: &[u8]) -> Result<(), AccessError> {
    let unknown = AccessError { length: body.len() };
    if let ArchivedEntryBody::Cluster(effects) = frame::access::<EntryBody>(body)? {
        for effect in effects.iter() {
            ClusterChange::try_from(effect).map_err(|_| unknown)?;
        }
    }
    Ok(())
}

fn cluster_changes(body: &[u8]) -> Vec<ClusterChange> {
    let entry = frame::access::<EntryBody>(body).expect("the entry was checked when it came in");
    let ArchivedEntryBody::Cluster(effects) = entry else {
        return Vec::new();
    };
    let change = |effect| ClusterChange::try_from(effect).expect("checked when it came in");
    effects.iter().map(change).collect()
}
