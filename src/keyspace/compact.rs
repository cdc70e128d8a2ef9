//! Compaction: the floor moves at once, memory comes back in slices.
//!
//! Reclaim follows the committed floor only, never passes a revision that a read is pinned to, and
//! walks the history, so its work grows with the changes below the floor and not with the keys.
//!
//! It keeps up with writes however little of a turn they leave: while more than
//! [`RECLAIM_UNPAID_CHANGES_MAX`] changes wait, each version that is written pays, out of its own slice, for
//! looking at [`RECLAIM_CHANGES_PER_VERSION`] of them. What that bounds is said there.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::Keyspace;
use super::history::History;
use super::revision::{FLOOR_NONE, Revision};
use super::steps::{RECLAIM_STEPS, Steps};
use crate::base::limits::{
    RECLAIM_CHANGES_PER_VERSION, RECLAIM_UNPAID_CHANGES_MAX, SLICE_STEPS_MAX,
};
use crate::base::planted::Defect;

/// What a version pays, in steps.
const CHARGE_STEPS: usize = RECLAIM_CHANGES_PER_VERSION * RECLAIM_STEPS;

// A version with what it pays is a small part of a turn.
const _: () = assert!(CHARGE_STEPS <= SLICE_STEPS_MAX / 32);

/// Keeps the versions that are visible at one revision from being reclaimed while it lives.
#[derive(Debug)]
pub(super) struct Pin {
    revision: i64,
    _token: Arc<()>,
}

impl Pin {
    /// Everything from here on is kept.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }
}

/// The pinned revisions. As many as there are unfinished reads, which the caller bounds.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// Reads of one revision share a token; it is dead when the last of them is gone.
    tokens: BTreeMap<i64, Weak<()>>,
    /// Tokens left by the last sweep.
    swept: usize,
}

impl Pins {
    /// Pins a revision, which must be readable.
    pub(super) fn pin(&mut self, revision: i64) -> Pin {
        if self.tokens.len() > 2 * self.swept + 16 {
            self.tokens.retain(|_, token| token.strong_count() > 0);
            self.swept = self.tokens.len();
        }
        let slot = self.tokens.entry(revision).or_default();
        let token = slot.upgrade().unwrap_or_else(|| {
            let token = Arc::new(());
            *slot = Arc::downgrade(&token);
            token
        });
        Pin {
            revision,
            _token: token,
        }
    }

    /// The lowest of them.
    pub(super) fn lowest(&mut self) -> Option<i64> {
        while let Some(first) = self.tokens.first_entry() {
            if first.get().strong_count() > 0 {
                return Some(*first.key());
            }
            first.remove();
        }
        None
    }
}

/// How far reclaim has come.
#[derive(Debug)]
pub(super) struct Reclaim {
    /// Place in the history of the next change to look at.
    place: u64,
    /// The floor being worked on, and the place after its changes.
    target: i64,
    end: u64,
    /// The committed floor, and the place after its changes: beyond the target while a revision is pinned.
    floor: i64,
    floor_end: u64,
    /// The highest floor of which everything superseded is freed.
    through: i64,
    /// Changes that versions have paid for and that were not looked at yet.
    paid: usize,
}

impl Reclaim {
    /// Nothing is left to free below `floor`; the history begins at `place`.
    pub(super) fn done(floor: i64, place: u64) -> Reclaim {
        Reclaim {
            place,
            target: floor,
            end: place,
            floor,
            floor_end: place,
            through: floor,
            paid: 0,
        }
    }

    /// What a version that is written now costs beside its fold, in steps.
    pub(super) fn charge(&mut self) -> usize {
        if self.end.saturating_sub(self.place) <= RECLAIM_UNPAID_CHANGES_MAX {
            return 0;
        }
        self.paid += RECLAIM_CHANGES_PER_VERSION;
        CHARGE_STEPS
    }

    /// The floor is `floor`, and everything up to `target` may be freed.
    fn follow(&mut self, floor: i64, target: i64, history: &History) {
        let after = |main: i64| {
            history.seek(Revision {
                main: main + 1,
                sub: 0,
            })
        };
        if floor > self.floor {
            self.floor = floor;
            self.floor_end = after(floor);
        }
        if target > self.target {
            self.target = target;
            self.end = if target == floor {
                self.floor_end
            } else {
                after(target)
            };
            // Changes exactly at the previous target are looked at again.
            self.place = history.front();
        }
    }

    /// Whether one more change may be looked at: a version has paid for it, or the slice does.
    fn take(&mut self, steps: &mut Steps) -> bool {
        if self.paid > 0 {
            self.paid -= 1;
            return true;
        }
        steps.take_many(RECLAIM_STEPS)
    }

    /// Nothing is left to look at.
    fn complete(&mut self) {
        self.through = self.target;
        self.end = self.place;
        self.paid = 0;
    }
}

impl Default for Reclaim {
    fn default() -> Reclaim {
        Reclaim::done(FLOOR_NONE, 0)
    }
}

impl Keyspace {
    /// The floor up to which everything superseded has been freed. A physical compaction is complete
    /// when this has reached its revision.
    #[must_use]
    pub fn reclaimed_through(&self) -> i64 {
        self.reclaim.through
    }

    /// Changes below the committed floor that reclaim may not look at yet, because a read or a checkpoint is
    /// pinned below them.
    #[must_use]
    pub fn changes_pinned(&self) -> u64 {
        self.reclaim.floor_end.saturating_sub(self.reclaim.end)
    }

    /// Frees superseded versions below the committed floor for what is left of the slice, and for what versions
    /// have paid; whether there is more that could be done now.
    ///
    /// For each key the newest version at or below the floor stays if it is a value; a tombstone stays
    /// only when it lies exactly at the floor, so that a watch from there still sees the deletion.
    pub fn reclaim(&mut self, steps: &mut Steps) -> bool {
        let floor = if self.planted.has(Defect::ReclaimedBeforeCommit) {
            self.head().floor
        } else {
            self.compacted_revision()
        };
        let target = self.pins.lowest().map_or(floor, |pinned| pinned.min(floor));
        self.reclaim.follow(floor, target, &self.history);
        let target = self.reclaim.target;
        if self.reclaim.through == target {
            return false;
        }
        while self.reclaim.take(steps) {
            let change = self.history.change(self.reclaim.place);
            let Some((revision, key)) = change.filter(|(revision, _)| revision.main <= target)
            else {
                self.reclaim.complete();
                return false;
            };
            let key = key.clone();
            let below = revision.main < target;
            // At the floor every change is still an event, even one that a later change of its own
            // transaction superseded.
            let first_kept = Revision {
                sub: if below { revision.sub } else { 0 },
                ..revision
            };
            while self.drop_oldest(key.bytes(), |oldest, _| oldest < first_kept) {}
            if below {
                self.drop_oldest(key.bytes(), |oldest, live| oldest == revision && !live);
                self.history.drop_oldest();
                self.reclaim.place = self.history.front();
                // The floor may move on for ever before its changes are reached. Whoever waits for an earlier one
                // does not wait for that.
                self.reclaim.through = self.reclaim.through.max(revision.main - 1);
            } else {
                self.reclaim.place += 1;
            }
        }
        true
    }

    fn drop_oldest(&mut self, key: &[u8], drop: impl FnOnce(Revision, bool) -> bool) -> bool {
        let popped = self
            .keys
            .pop_oldest(key, |oldest| drop(oldest.revision(), oldest.is_live()));
        let Some((record, key_gone)) = popped else {
            return false;
        };
        self.forget(key, &record, key_gone);
        true
    }
}
