//! Entries that are in the log and not yet in the keyspace: folded in the order of the log, in slices.
//!
//! A leader folds what it evaluates itself and leaves only entries without effects here; a follower and a
//! replay leave everything here. Nothing is evaluated while something is left. Must never decide what
//! belongs to the log: that is consensus, and this follows.

use std::collections::VecDeque;

use bytes::Bytes;

use super::evaluate::archived_effects;
use crate::base::Index;
use crate::base::limits::RAFT_APPEND_BYTES_MAX;
use crate::keyspace::fold::FoldJob;
use crate::keyspace::steps::Steps;
use crate::keyspace::{Keyspace, TruncateJob};

/// Steps of taking up an entry, beside its fold.
const ENTRY_STEPS: usize = 2;

/// What is left to fold.
#[derive(Default)]
pub(super) struct Folder {
    queue: VecDeque<Unfolded>,
    /// Bytes of the bodies in the queue.
    size_bytes: u64,
    job: Option<Job>,
}

struct Unfolded {
    index: Index,
    /// Its archive; empty for an entry that is known to change no key.
    body: Bytes,
}

enum Job {
    Fold(Box<FoldJob>, Unfolded),
    Truncate(TruncateJob),
}

impl Folder {
    /// Takes the entry after the last one. Its archive is one and says what this build knows.
    ///
    /// It is copied when more than one append waits already: the memory that it came in may be many times as long, and
    /// what waits is bounded by the length of the archives.
    pub(super) fn push(&mut self, index: Index, body: Bytes) {
        let body = if self.size_bytes > RAFT_APPEND_BYTES_MAX {
            Bytes::copy_from_slice(&body)
        } else {
            body
        };
        self.size_bytes += body.len() as u64;
        self.queue.push_back(Unfolded { index, body });
    }

    /// Takes the entry after the last one, which changes no key: it is folded too, so that the keyspace
    /// stands at its index.
    pub(super) fn push_nothing(&mut self, index: Index) {
        self.push(index, Bytes::new());
    }

    /// Bytes of what waits.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether something is left.
    pub(super) fn has_work(&self) -> bool {
        self.job.is_some() || !self.queue.is_empty()
    }

    /// The log ends after `after` now: what lies beyond is not folded, or taken back.
    pub(super) fn truncate(&mut self, keyspace: &mut Keyspace, after: Index) {
        while let Some(cut) = self.queue.pop_back_if(|entry| entry.index > after) {
            self.size_bytes -= cut.body.len() as u64;
        }
        let folds_cut = match &self.job {
            Some(Job::Fold(_, entry)) => entry.index > after,
            Some(Job::Truncate(_)) => true,
            None => false,
        };
        if folds_cut || keyspace.folded_index() > after {
            self.job = Some(Job::Truncate(TruncateJob::new(keyspace, after)));
        }
    }

    /// A fold that somebody else had under way was cut off with the log's tail after `after`.
    pub(super) fn give_up_fold(&mut self, keyspace: &mut Keyspace, after: Index) {
        self.job = Some(Job::Truncate(TruncateJob::new(keyspace, after)));
    }

    /// Folds for what is left of the slice; whether nothing is left.
    pub(super) fn run(&mut self, keyspace: &mut Keyspace, steps: &mut Steps) -> bool {
        loop {
            if let Some(job) = &mut self.job {
                let done = match job {
                    Job::Fold(fold, entry) => fold.run(keyspace, entry.effects(), steps).is_some(),
                    Job::Truncate(truncate) => truncate.run(keyspace, steps),
                };
                if !done {
                    return false;
                }
                self.job = None;
            }
            if self.queue.is_empty() {
                return true;
            }
            if !steps.take_many(ENTRY_STEPS) {
                return false;
            }
            let entry = self.queue.pop_front().expect("it is not empty");
            self.size_bytes -= entry.body.len() as u64;
            let mut fold = FoldJob::replay(keyspace, entry.index);
            // The usual entry ends in this slice and needs no memory.
            if fold.run(keyspace, entry.effects(), steps).is_none() {
                self.job = Some(Job::Fold(Box::new(fold), entry));
                return false;
            }
        }
    }
}

impl Unfolded {
    fn effects(&self) -> &[crate::keyspace::effects::ArchivedEffect] {
        if self.body.is_empty() {
            &[]
        } else {
            archived_effects(&self.body)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::effects::Effect;
    use crate::shard::entry::EntryBody;

    fn body(effects: Vec<Effect>) -> Bytes {
        let body = EntryBody::Effects(effects);
        rkyv::to_bytes::<rkyv::rancor::Error>(&body)
            .expect("memory suffices")
            .to_vec()
            .into()
    }

    /// Goal: a fold that a slice stops in goes on in the next one as if nothing had been, and is taken back when the log
    /// is cut before its entry and only then.
    #[test]
    fn fold_over_slices() {
        const KEYS: u8 = 100;
        let puts = (0..KEYS).map(|letter| Effect::Put {
            key: Bytes::copy_from_slice(&[b'k', letter]),
            value: Bytes::new(),
            lease: 0,
        });
        let puts = body(puts.collect());
        let delete = body(vec![Effect::DeleteRange {
            key: Bytes::from_static(b"k"),
            range_end: Bytes::from_static(b"l"),
        }]);
        let run = |slice: usize, cut: Option<Index>| {
            let mut folder = Folder::default();
            let mut keyspace = Keyspace::new();
            folder.push(Index(1), puts.clone());
            assert!(folder.run(&mut keyspace, &mut Steps::new(1_000_000)));
            folder.push(Index(2), delete.clone());
            let mut done = folder.run(&mut keyspace, &mut Steps::new(slice));
            if let Some(after) = cut {
                assert!(!done && folder.has_work() && folder.size_bytes() == 0);
                folder.truncate(&mut keyspace, after);
            }
            for _ in 0..1_000 {
                if done {
                    let folded = keyspace.folded_index();
                    return (folded, keyspace.digest(folded));
                }
                done = folder.run(&mut keyspace, &mut Steps::new(slice));
            }
            panic!("slices of {slice} steps do not end")
        };
        let whole = run(1_000_000, None);
        assert_eq!(whole.0, Index(2));
        for slice in [ENTRY_STEPS, ENTRY_STEPS + 1, ENTRY_STEPS + 30] {
            assert_eq!(run(slice, None), whole, "{slice}");
            assert_eq!(run(slice, Some(Index(2))), whole, "{slice}");
            let (folded, digest) = run(slice, Some(Index(1)));
            assert_eq!(folded, Index(1));
            assert_ne!(digest, whole.1);
        }
    }

    /// Goal: what waits is counted through arrivals, a cut and the fold, so that a follower's room comes back.
    #[test]
    fn bytes_of_what_waits() {
        let mut folder = Folder::default();
        let mut keyspace = Keyspace::new();
        folder.push_nothing(Index(1));
        for index in 2..5 {
            folder.push(Index(index), Bytes::from_static(&[0; 100]));
        }
        assert_eq!(folder.size_bytes(), 300);
        folder.truncate(&mut keyspace, Index(2));
        assert_eq!(folder.size_bytes(), 100);
        folder.truncate(&mut keyspace, Index(1));
        assert!(folder.run(&mut keyspace, &mut Steps::new(100)));
        assert_eq!(
            (folder.size_bytes(), keyspace.folded_index()),
            (0, Index(1))
        );
    }
}
