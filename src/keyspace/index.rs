//! The index: every key in order, and for each the versions the log holds.
//!
//! Keys sit in sorted leaves of up to [`LEAF_KEYS_MAX`], and a `BTreeMap` orders the leaves. Against one
//! `BTreeMap` entry per key this needs a third of the memory beside the keys, because a leaf is nearly
//! full instead of about two thirds, and fewer comparisons, because a leaf is searched by halving.
//! No operation takes longer than one search and moving one leaf; walks are cut by their visitor.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, ControlFlow};

use super::record::{Key, Record};
use super::revision::Revision;
use super::span::Span;

/// Keys in one leaf: moving half a leaf (1.5 KiB) on an insert costs less than the search does.
const LEAF_KEYS_MAX: usize = 128;
/// Neighbours that together hold no more than this become one leaf.
const LEAF_KEYS_MERGE: usize = 96;
/// By how many keys the memory of a leaf grows and shrinks.
const LEAF_KEYS_SLACK: usize = 8;

/// All versions of one key that are held, oldest first; at least one.
#[derive(Debug)]
pub(super) enum Versions {
    /// The usual case in place.
    One(Record),
    /// A queue, because the oldest are dropped first.
    #[expect(
        clippy::box_collection,
        reason = "in place it would double the size of every key's entry"
    )]
    Many(Box<VecDeque<Record>>),
}

impl Versions {
    /// The version written last, committed or not.
    pub(super) fn newest(&self) -> &Record {
        match self {
            Versions::One(record) => record,
            Versions::Many(records) => records.back().expect("a key has a version"),
        }
    }

    /// The value at main revision `main`, unless the key did not exist then.
    pub(super) fn live_at(&self, main: i64) -> Option<&Record> {
        self.last_until(main).filter(|record| record.is_live())
    }

    /// The version written at `revision`.
    pub(super) fn written_at(&self, revision: Revision) -> Option<&Record> {
        match self {
            Versions::One(record) => Some(record).filter(|record| record.revision() == revision),
            Versions::Many(records) => {
                let newest = records.back().expect("a key has a version");
                if newest.revision() == revision {
                    return Some(newest);
                }
                let at = records
                    .binary_search_by_key(&revision, Record::revision)
                    .ok()?;
                records.get(at)
            }
        }
    }

    /// The last version of those that main revision `main` sees: a transaction may write a key more
    /// than once, and only what it leaves behind can be read.
    fn last_until(&self, main: i64) -> Option<&Record> {
        match self {
            Versions::One(record) => Some(record).filter(|record| record.main() <= main),
            Versions::Many(records) => {
                // Nearly every read is of the newest version.
                let newest = records.back().expect("a key has a version");
                if newest.main() <= main {
                    return Some(newest);
                }
                let after = records.partition_point(|record| record.main() <= main);
                records.get(after.checked_sub(1)?)
            }
        }
    }

    fn oldest(&self) -> &Record {
        match self {
            Versions::One(record) => record,
            Versions::Many(records) => records.front().expect("a key has a version"),
        }
    }

    /// Adds a version above all others.
    pub(super) fn push(&mut self, record: Record) {
        let newest = self.newest();
        assert!(
            record.revision() > newest.revision(),
            "version {:?} after {:?}: one version per key and revision",
            record.revision(),
            newest.revision()
        );
        match self {
            Versions::One(first) => {
                let mut records = VecDeque::with_capacity(2);
                records.push_back(first.clone());
                records.push_back(record);
                *self = Versions::Many(Box::new(records));
            }
            Versions::Many(records) => {
                if records.len() == records.capacity() {
                    // Doubling would cost a further version twice its handle.
                    records.reserve_exact(1 + records.len() / 4);
                }
                records.push_back(record);
            }
        }
    }

    /// Takes a version off one end; `None` when it is the only one.
    fn take(
        &mut self,
        take: impl FnOnce(&mut VecDeque<Record>) -> Option<Record>,
    ) -> Option<Record> {
        let Versions::Many(records) = self else {
            return None;
        };
        let taken = take(records);
        if records.len() == 1 {
            let last = records.pop_back().expect("one is left");
            *self = Versions::One(last);
        } else if records.capacity() > 16 && records.len() < records.capacity() / 2 {
            records.shrink_to(records.len() * 3 / 2);
        }
        taken
    }
}

#[derive(Debug)]
struct Entry {
    key: Key,
    versions: Versions,
}

type Leaf = Vec<Entry>;

/// Every key with its versions.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    /// By a lower bound of the leaf's keys; the first leaf's is empty. No leaf is empty but the first.
    leaves: BTreeMap<Key, Leaf>,
}

impl KeyIndex {
    /// The versions of one key.
    pub(super) fn find(&self, key: &[u8]) -> Option<&Versions> {
        let (_, leaf) = self.leaves.range::<[u8], _>(until(key)).next_back()?;
        let at = position(leaf, key).ok()?;
        Some(&leaf[at].versions)
    }

    /// Adds the version that `make` makes of a key's newest one, and tells the key and whether it is
    /// new to the index.
    pub(super) fn push(
        &mut self,
        key: &[u8],
        make: impl FnOnce(Option<&Record>) -> Record,
    ) -> (Key, bool) {
        let Some((_, leaf)) = self.leaves.range_mut::<[u8], _>(until(key)).next_back() else {
            let stored = Key::new(key);
            let first = vec![Entry {
                key: stored.clone(),
                versions: Versions::One(make(None)),
            }];
            self.leaves.insert(Key::new(&[]), first);
            return (stored, true);
        };
        match position(leaf, key) {
            Ok(at) => {
                let entry = &mut leaf[at];
                let record = make(Some(entry.versions.newest()));
                entry.versions.push(record);
                (entry.key.clone(), false)
            }
            Err(at) => {
                let stored = Key::new(key);
                let entry = Entry {
                    key: stored.clone(),
                    versions: Versions::One(make(None)),
                };
                if let Some((bound, right)) = insert(leaf, at, entry) {
                    self.leaves.insert(bound, right);
                }
                (stored, true)
            }
        }
    }

    /// Takes the newest version of a key off, for a truncation; tells whether the key is gone.
    pub(super) fn pop_newest(&mut self, key: &[u8], revision: Revision) -> Option<(Record, bool)> {
        let (leaf, at) = self.locate(key)?;
        let versions = &mut leaf[at].versions;
        if versions.newest().revision() != revision {
            return None;
        }
        Some(match versions.take(VecDeque::pop_back) {
            Some(record) => (record, false),
            None => (self.remove(key), true),
        })
    }

    /// Takes the oldest version of a key off when `drop` says so; tells whether the key is gone.
    pub(super) fn pop_oldest(
        &mut self,
        key: &[u8],
        drop: impl FnOnce(&Record) -> bool,
    ) -> Option<(Record, bool)> {
        let (leaf, at) = self.locate(key)?;
        let versions = &mut leaf[at].versions;
        if !drop(versions.oldest()) {
            return None;
        }
        Some(match versions.take(VecDeque::pop_front) {
            Some(record) => (record, false),
            None => (self.remove(key), true),
        })
    }

    /// Visits the keys of `span` in order until `visit` breaks.
    pub(super) fn scan(
        &self,
        span: &Span,
        mut visit: impl FnMut(&Key, &Versions) -> ControlFlow<()>,
    ) {
        for (_, leaf) in self
            .leaves
            .range::<[u8], _>(until(floor(span)))
            .next_back()
            .into_iter()
            .chain(self.leaves.range::<[u8], _>(beyond(floor(span))))
        {
            let (from, to) = cut(leaf, span);
            for entry in leaf.get(from..to).unwrap_or_default() {
                if visit(&entry.key, &entry.versions).is_break() {
                    return;
                }
            }
            if to < leaf.len() {
                return;
            }
        }
    }

    /// Visits the keys of `span` from the last to the first until `visit` breaks.
    pub(super) fn scan_back(
        &self,
        span: &Span,
        mut visit: impl FnMut(&Key, &Versions) -> ControlFlow<()>,
    ) {
        let leaves = match &span.end {
            Bound::Included(end) | Bound::Excluded(end) => self.leaves.range::<[u8], _>(until(end)),
            Bound::Unbounded => self
                .leaves
                .range::<[u8], _>((Bound::Unbounded, Bound::Unbounded)),
        };
        for (_, leaf) in leaves.rev() {
            let (from, to) = cut(leaf, span);
            for entry in leaf.get(from..to).unwrap_or_default().iter().rev() {
                if visit(&entry.key, &entry.versions).is_break() {
                    return;
                }
            }
            if from > 0 {
                return;
            }
        }
    }

    /// Visits the keys of `span` in order until `visit` breaks; it may add versions.
    pub(super) fn scan_mut(
        &mut self,
        span: &Span,
        mut visit: impl FnMut(&Key, &mut Versions) -> ControlFlow<()>,
    ) {
        let first = self
            .leaves
            .range::<[u8], _>(until(floor(span)))
            .next_back()
            .map(|(bound, _)| bound.clone());
        let Some(first) = first else {
            return;
        };
        for (_, leaf) in self.leaves.range_mut(first..) {
            let (from, to) = cut(leaf, span);
            for entry in leaf.get_mut(from..to).unwrap_or_default() {
                if visit(&entry.key, &mut entry.versions).is_break() {
                    return;
                }
            }
            if to < leaf.len() {
                return;
            }
        }
    }

    fn locate(&mut self, key: &[u8]) -> Option<(&mut Leaf, usize)> {
        let (_, leaf) = self.leaves.range_mut::<[u8], _>(until(key)).next_back()?;
        let at = position(leaf, key).ok()?;
        Some((leaf, at))
    }

    /// Removes the key, which has one version left, and gives a shrunken leaf to its neighbour.
    fn remove(&mut self, key: &[u8]) -> Record {
        let mut ends = self.leaves.range_mut::<[u8], _>(until(key));
        let (bound, leaf) = ends.next_back().expect("the key was found");
        let at = position(leaf, key).expect("the key was found");
        let Versions::One(record) = leaf.remove(at).versions else {
            panic!("a key with several versions is removed");
        };
        if leaf.capacity() - leaf.len() > 2 * LEAF_KEYS_SLACK {
            leaf.shrink_to(leaf.len() + LEAF_KEYS_SLACK);
        }
        if leaf.len() <= LEAF_KEYS_MERGE / 2
            && let Some((_, left)) = ends.next_back()
            && left.len() + leaf.len() <= LEAF_KEYS_MERGE
        {
            left.reserve_exact(leaf.len() + LEAF_KEYS_SLACK);
            left.append(leaf);
            let bound = bound.clone();
            self.leaves.remove(&bound);
        }
        record
    }
}

/// Everything that may hold the leaf of `key`, which is the last one.
fn until(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

/// The leaves after the one of `key`.
fn beyond(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Excluded(key), Bound::Unbounded)
}

/// A key at or below the first one of `span`.
fn floor(span: &Span) -> &[u8] {
    match &span.start {
        Bound::Included(start) | Bound::Excluded(start) => start,
        Bound::Unbounded => &[],
    }
}

fn position(leaf: &Leaf, key: &[u8]) -> Result<usize, usize> {
    leaf.binary_search_by(|entry| entry.key.bytes().cmp(key))
}

/// Which entries of a leaf lie in `span`; an inverted interval gives an inverted pair.
fn cut(leaf: &Leaf, span: &Span) -> (usize, usize) {
    let from = leaf.partition_point(|entry| !span.starts_by(entry.key.bytes()));
    let to = leaf.partition_point(|entry| !span.ends_before(entry.key.bytes()));
    (from, to)
}

/// Inserts into a leaf; a full one is split and its right part returned with its lower bound.
fn insert(leaf: &mut Leaf, at: usize, entry: Entry) -> Option<(Key, Leaf)> {
    if leaf.len() < LEAF_KEYS_MAX {
        if leaf.len() == leaf.capacity() {
            leaf.reserve_exact(LEAF_KEYS_SLACK);
        }
        leaf.insert(at, entry);
        return None;
    }
    // Keys that arrive in order leave full leaves behind.
    let keep = if at == leaf.len() { at } else { leaf.len() / 2 };
    let mut right = Leaf::with_capacity(leaf.len() - keep + LEAF_KEYS_SLACK);
    right.extend(leaf.drain(keep..));
    if at > keep || right.is_empty() {
        right.insert(at - keep, entry);
    } else {
        leaf.insert(at, entry);
    }
    leaf.shrink_to(leaf.len() + LEAF_KEYS_SLACK);
    Some((right[0].key.clone(), right))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Goal: over splits and merges of leaves, in any order, walks in both directions see exactly the
    /// keys that are there.
    #[test]
    fn leaves_split_and_merge() {
        let mut index = KeyIndex::default();
        let mut expected = std::collections::BTreeSet::new();
        let key = |number: u32| number.wrapping_mul(0x9e37_79b9).to_be_bytes();
        let check = |index: &KeyIndex, expected: &std::collections::BTreeSet<[u8; 4]>| {
            let span = Span::new(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
            let (mut forward, mut backward) = (vec![], vec![]);
            index.scan(&span, |key, _| {
                forward.push(key.bytes().to_vec());
                ControlFlow::Continue(())
            });
            index.scan_back(&span, |key, _| {
                backward.push(key.bytes().to_vec());
                ControlFlow::Continue(())
            });
            backward.reverse();
            assert_eq!(
                forward,
                expected.iter().map(|key| key.to_vec()).collect::<Vec<_>>()
            );
            assert_eq!(forward, backward);
        };
        for number in 1..3_000 {
            let at = Revision {
                main: 2,
                sub: number,
            };
            let (_, created) = index.push(&key(number), |newest| Record::put(newest, at, b"", 0));
            assert!(created);
            expected.insert(key(number));
        }
        check(&index, &expected);
        for number in 1..3_000 {
            let number = number * 7 % 3_000;
            let at = Revision {
                main: 2,
                sub: number,
            };
            if index
                .pop_newest(&key(number), at)
                .is_some_and(|(_, gone)| gone)
            {
                assert!(expected.remove(&key(number)));
            }
            if number % 50 == 0 {
                check(&index, &expected);
            }
        }
        assert!(expected.len() < 3_000 / 7 + 1);
        check(&index, &expected);
    }
}
