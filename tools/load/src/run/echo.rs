//! What watchers are still to see: the puts that were acknowledged, by watched key, over all threads of a run.
//!
//! Every watcher gets an event of each acknowledged put of its keys. Those that come last are the slowest, and one
//! that never comes is lost: a run that ended with its last acknowledgement would see neither.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// Shared by the threads of a run.
#[derive(Debug)]
pub(super) struct Echo {
    /// For each watched key; a single place when every watcher watches all keys.
    keys: Vec<Acknowledged>,
    whole: bool,
    /// Threads that still have puts without an end.
    loading: AtomicUsize,
}

#[derive(Debug, Default)]
struct Acknowledged {
    puts: AtomicU64,
    newest: AtomicI64,
}

impl Echo {
    /// For `watched_keys` keys, zero for watchers of all keys, and `lanes` threads.
    pub(super) fn new(watched_keys: u64, lanes: usize) -> Echo {
        let mut keys = Vec::new();
        keys.resize_with(watched_keys.max(1) as usize, Acknowledged::default);
        Echo {
            keys,
            whole: watched_keys == 0,
            loading: AtomicUsize::new(lanes),
        }
    }

    /// The place of what watcher number `watcher` of all threads sees; watchers take the keys in turn.
    pub(super) fn place(&self, watcher: u64) -> usize {
        (watcher % self.keys.len() as u64) as usize
    }

    /// A put of key number `key` was acknowledged with `revision`.
    pub(super) fn acknowledged(&self, key: i64, revision: i64) {
        let place = match self.whole {
            true => 0,
            false => usize::try_from(key).unwrap_or(usize::MAX),
        };
        // Other keys have no watchers.
        if let Some(key) = self.keys.get(place) {
            key.puts.fetch_add(1, Ordering::Relaxed);
            key.newest.fetch_max(revision, Ordering::Relaxed);
        }
    }

    /// Every put of one thread has an end.
    pub(super) fn all_ended(&self) {
        self.loading.fetch_sub(1, Ordering::Release);
    }

    /// Whether nothing more will be acknowledged.
    pub(super) fn is_complete(&self) -> bool {
        self.loading.load(Ordering::Acquire) == 0
    }

    /// Events that are missing to a watcher at `place` which has had `events`, the last of `revision`.
    pub(super) fn missing(&self, place: usize, events: u64, revision: i64) -> u64 {
        let key = &self.keys[place];
        // A put whose answer was lost, or somebody else's, makes one more event: then the revision tells.
        let behind = revision < key.newest.load(Ordering::Relaxed);
        let puts = key.puts.load(Ordering::Relaxed);
        puts.saturating_sub(events).max(u64::from(behind))
    }
}
