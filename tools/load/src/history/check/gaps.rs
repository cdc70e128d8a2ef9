//! Revisions whose writer is not known, and which keys they may have touched: the fog of a history.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// Ascending, disjoint ranges of revisions, both ends included.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps(Vec<(i64, i64)>);

impl Gaps {
    /// What lies in `(base, newest]` and is not among `written`, which ascends.
    pub(super) fn between(base: i64, newest: i64, written: impl Iterator<Item = i64>) -> Gaps {
        let mut gaps = Gaps::default();
        let mut next = base + 1;
        for revision in written.filter(|revision| *revision > base) {
            if revision > next {
                gaps.0.push((next, revision - 1));
            }
            next = next.max(revision + 1);
        }
        if newest >= next {
            gaps.0.push((next, newest));
        }
        gaps
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, revision: i64) -> bool {
        self.last_at_most(revision) == Some(revision)
    }

    /// The newest gap at or below `revision`.
    pub(super) fn last_at_most(&self, revision: i64) -> Option<i64> {
        let after = self.0.partition_point(|(first, _)| *first <= revision);
        let (_, last) = self.0.get(after.checked_sub(1)?)?;
        Some(revision.min(*last))
    }

    /// Without some revisions, which ascend.
    pub(super) fn without(&self, settled: impl Iterator<Item = i64>) -> Gaps {
        let mut gaps = Gaps::default();
        let mut settled = settled.peekable();
        for (mut first, last) in self.0.iter().copied() {
            while let Some(revision) = settled.next_if(|revision| *revision <= last) {
                if revision > first {
                    gaps.0.push((first, revision - 1));
                }
                first = first.max(revision + 1);
            }
            if first <= last {
                gaps.0.push((first, last));
            }
        }
        gaps
    }

    pub(super) fn ranges(&self) -> &[(i64, i64)] {
        &self.0
    }

    pub(super) fn count(&self) -> u64 {
        let sizes = self.0.iter().map(|(first, last)| last - first + 1);
        sizes.sum::<i64>().unsigned_abs()
    }
}

/// Whether a key's state at some revision is certain.
#[derive(Default)]
pub(super) struct Fog {
    /// Revisions whose writer is not known.
    pub(super) gaps: Gaps,
    /// Anybody may have written there.
    pub(super) wild: bool,
    /// Per key, the smallest revision above which an unsettled write may have put it.
    pub(super) puts: HashMap<u32, i64, FixedState>,
    /// Per key, the same for a deletion of it.
    pub(super) deletes: HashMap<u32, i64, FixedState>,
    /// The same for deletions of intervals.
    pub(super) range_deletes: Vec<((u32, u32), i64)>,
    /// The keys of `puts` and `deletes`, ascending.
    pub(super) touched: Vec<u32>,
}

impl Fog {
    /// Whether a write nobody knows may have changed `key` in `(after, upto]`.
    pub(super) fn may_change(&self, key: u32, after: i64, upto: i64) -> bool {
        let Some(gap) = self.gaps.last_at_most(upto).filter(|gap| *gap > after) else {
            return false;
        };
        self.wild
            || self.puts.get(&key).is_some_and(|from| *from < gap)
            || self.may_delete_at(key, gap)
    }

    /// Whether a write nobody knows may have deleted `key` in `(after, upto]`.
    pub(super) fn may_delete(&self, key: u32, after: i64, upto: i64) -> bool {
        let gap = self.gaps.last_at_most(upto).filter(|gap| *gap > after);
        gap.is_some_and(|gap| self.wild || self.may_delete_at(key, gap))
    }

    fn may_delete_at(&self, key: u32, gap: i64) -> bool {
        self.deletes.get(&key).is_some_and(|from| *from < gap)
            || self
                .range_deletes
                .iter()
                .any(|((first, end), from)| (*first..*end).contains(&key) && *from < gap)
    }

    /// Whether anything in an interval of keys may be uncertain.
    pub(super) fn lies_on(&self, (first, end): (u32, u32), upto: i64) -> bool {
        if self.gaps.last_at_most(upto).is_none() || first >= end {
            return false;
        }
        let at = self.touched.partition_point(|key| *key < first);
        self.wild
            || self.touched.get(at).is_some_and(|key| *key < end)
            || self
                .range_deletes
                .iter()
                .any(|((from, to), _)| *from < end && first < *to)
    }
}
