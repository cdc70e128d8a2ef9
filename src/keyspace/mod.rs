//! The keyspace: every version the log holds, and what a revision means.
//!
//! A function of the log: entries are folded in order at the head, and `committed` is a watermark that
//! only moves forward. Owned by one shard on one core; nothing in it is shared but immutable values. Does
//! no I/O and knows no term. Everything that may take long is a job that runs in slices.
//!
//! ```text
//! request --plan--> effects + script --archive--> entry --fold--> versions, answer
//!                                                 entry --fold--> versions          (follower, replay)
//! ```

pub mod effects;
pub mod request;
pub mod revision;
pub mod steps;

mod record;
mod span;

mod branch;
mod history;
mod index;
mod keys;
mod leaf;
mod versions;

pub mod txn;

pub mod fold;
pub mod range;

mod answer;

pub mod compact;
pub mod digest;
pub mod events;
pub mod state;

use std::collections::VecDeque;

use crate::base::Index;
use crate::base::limits::KEYSPACE_DIGESTS_KEPT_MAX;
use crate::base::planted::Planted;
use compact::{Pins, Reclaim};
use digest::Digest;
use history::History;
use index::KeyIndex;
use record::Record;
use revision::{FIRST_MAIN, FLOOR_NONE};
use steps::{Steps, TRUNCATE_STEPS};

/// What a key costs beside its bytes: its place in the index, its header, what the allocator rounds up.
pub const KEY_OVERHEAD_BYTES: u64 = 48;
/// What a version costs beside its value: its header, its place in the history, rounding.
pub const VERSION_OVERHEAD_BYTES: u64 = 56;

/// The keyspace right after an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    index: Index,
    /// Main revision.
    main: i64,
    /// Compaction floor, in force once the index is committed.
    floor: i64,
    digest: Digest,
}

/// What keeps the head from being planned against or folded at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    Free,
    Folding,
    Truncating,
}

/// One shard's keys.
#[derive(Debug)]
pub struct Keyspace {
    keys: KeyIndex,
    history: History,
    /// One per folded index, oldest first: all uncommitted ones, the last committed one, and recent ones
    /// before it. The last is the head; never empty.
    marks: VecDeque<Mark>,
    committed: Mark,
    /// What the log has committed; the watermark follows when it is folded.
    commit_target: Index,
    busy: Busy,
    pins: Pins,
    reclaim: Reclaim,
    size_bytes: u64,
    planted: Planted,
}

impl Default for Keyspace {
    fn default() -> Keyspace {
        Keyspace::new()
    }
}

impl Keyspace {
    /// An empty keyspace, before the first index.
    #[must_use]
    pub fn new() -> Keyspace {
        let mark = Mark {
            index: Index(0),
            main: FIRST_MAIN,
            floor: FLOOR_NONE,
            digest: Digest::default(),
        };
        Keyspace {
            keys: KeyIndex::default(),
            history: History::default(),
            marks: VecDeque::from([mark]),
            committed: mark,
            commit_target: mark.index,
            busy: Busy::Free,
            pins: Pins::default(),
            reclaim: Reclaim::default(),
            size_bytes: 0,
            planted: Planted::NOTHING,
        }
    }

    /// Makes it wrong on purpose.
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Main revision of everything folded completely.
    #[must_use]
    pub fn head_revision(&self) -> i64 {
        self.head().main
    }

    /// Main revision that readers see.
    #[must_use]
    pub fn committed_revision(&self) -> i64 {
        self.committed.main
    }

    /// The committed floor: the oldest readable main revision, -1 when nothing was compacted.
    #[must_use]
    pub fn compacted_revision(&self) -> i64 {
        self.committed.floor
    }

    /// The last index that is both folded and committed.
    #[must_use]
    pub fn committed_index(&self) -> Index {
        self.committed.index
    }

    /// The last index that is folded completely.
    #[must_use]
    pub fn folded_index(&self) -> Index {
        self.head().index
    }

    /// Accounted memory of every version held, in bytes: keys, values and what each of them costs beside.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The digest after `index`, if that is among the recent ones.
    #[must_use]
    pub fn digest(&self, index: Index) -> Option<Digest> {
        let at = self
            .marks
            .binary_search_by_key(&index, |mark| mark.index)
            .ok()?;
        Some(self.marks[at].digest)
    }

    /// Makes everything up to `index` visible, and the floors set up to there take effect. An index
    /// that is still being folded becomes visible when its fold is complete.
    pub fn commit(&mut self, index: Index) {
        assert!(
            index >= self.commit_target,
            "commit {index} after {}",
            self.commit_target
        );
        self.commit_target = index;
        self.advance();
    }

    fn advance(&mut self) {
        let visible = self
            .marks
            .partition_point(|mark| mark.index <= self.commit_target);
        self.committed = self.marks[visible.checked_sub(1).expect("the committed mark is kept")];
        for _ in 0..(visible - 1).saturating_sub(KEYSPACE_DIGESTS_KEPT_MAX) {
            self.marks.pop_front();
        }
    }

    fn head(&self) -> &Mark {
        self.marks.back().expect("the committed mark is kept")
    }

    /// Accounts for a version that is no longer held.
    fn forget(&mut self, key: &[u8], record: &Record, key_gone: bool) {
        self.size_bytes -= version_bytes(record.value());
        if key_gone {
            self.size_bytes -= key_bytes(key);
        }
    }
}

fn key_bytes(key: &[u8]) -> u64 {
    key.len() as u64 + KEY_OVERHEAD_BYTES
}

fn version_bytes(value: &[u8]) -> u64 {
    value.len() as u64 + VERSION_OVERHEAD_BYTES
}

/// Takes the keyspace back to an index, because the log's tail was cut there.
#[derive(Debug)]
pub struct TruncateJob {
    /// Versions above this main revision go.
    main: i64,
}

impl TruncateJob {
    /// Takes the head back to the last folded index not above `after`. A fold that is under way is given
    /// up: drop its job. Until this job is complete nothing may be planned at the head or folded.
    #[must_use]
    pub fn new(keyspace: &mut Keyspace, after: Index) -> TruncateJob {
        assert!(
            after >= keyspace.commit_target,
            "truncation after {after} cuts committed index {}",
            keyspace.commit_target
        );
        while keyspace.head().index > after {
            keyspace.marks.pop_back();
        }
        keyspace.busy = Busy::Truncating;
        TruncateJob {
            main: keyspace.head_revision(),
        }
    }

    /// Pops versions for what is left of the slice; whether it is complete.
    #[must_use]
    pub fn run(&mut self, keyspace: &mut Keyspace, steps: &mut Steps) -> bool {
        while keyspace
            .history
            .newest()
            .is_some_and(|(revision, _)| revision.main > self.main)
        {
            if !steps.take_many(TRUNCATE_STEPS) {
                return false;
            }
            let (revision, _) = keyspace.history.newest().expect("just seen");
            let key = keyspace.history.pop_newest().expect("just seen");
            let (record, key_gone) = keyspace
                .keys
                .pop_newest(key.bytes(), revision)
                .expect("the history names the newest version of its last key");
            keyspace.forget(key.bytes(), &record, key_gone);
        }
        keyspace.busy = Busy::Free;
        true
    }
}
