//! The index: every key in order, and for each the versions the log holds.
//!
//! A tree of three levels: leaves with up to [`PARTS_MAX`] keys, branches with as many leaves, and a root with
//! all branches, of which ten million keys need a thousand. Each level is one list of [`Keys`], searched by
//! numbers that stand side by side, so that a search waits for memory about once per level and once for the
//! key itself. Against an entry of a `BTreeMap` per key this needs a third of the memory beside the keys, because
//! leaves are nearly full. No operation takes longer than one search and moving one list; walks are cut by
//! their visitor.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow, Range};

use super::branch::{Branch, PARTS_MAX, Part};
use super::keys::{self, Keys};
use super::record::{Key, Record};
use super::revision::Revision;
use super::span::Span;

/// All versions of one key that are held; at least one.
#[derive(Debug)]
pub(super) struct Versions {
    /// Stands beside the key, because nearly every read and each next version looks at this one only.
    newest: Record,
    /// Those before it, oldest first; a queue, because the oldest are dropped first. Not empty.
    #[expect(
        clippy::box_collection,
        reason = "in place it would double the size of every key's entry"
    )]
    older: Option<Box<VecDeque<Record>>>,
}

impl Versions {
    fn of(first: Record) -> Versions {
        Versions {
            newest: first,
            older: None,
        }
    }

    /// The version written last, committed or not.
    pub(super) fn newest(&self) -> &Record {
        &self.newest
    }

    /// The value at main revision `main`, unless the key did not exist then.
    pub(super) fn live_at(&self, main: i64) -> Option<&Record> {
        self.last_until(main).filter(|record| record.is_live())
    }

    /// The version written at `revision`.
    pub(super) fn written_at(&self, revision: Revision) -> Option<&Record> {
        if self.newest.revision() == revision {
            return Some(&self.newest);
        }
        let older = self.older.as_ref()?;
        let at = older
            .binary_search_by_key(&revision, Record::revision)
            .ok()?;
        older.get(at)
    }

    /// The last version of those that main revision `main` sees: a transaction may write a key more
    /// than once, and only what it leaves behind can be read.
    fn last_until(&self, main: i64) -> Option<&Record> {
        if self.newest.main() <= main {
            return Some(&self.newest);
        }
        let older = self.older.as_ref()?;
        let after = older.partition_point(|record| record.main() <= main);
        older.get(after.checked_sub(1)?)
    }

    fn oldest(&self) -> &Record {
        match &self.older {
            Some(older) => older.front().expect("there is an older one"),
            None => &self.newest,
        }
    }

    /// Adds a version above all others.
    pub(super) fn push(&mut self, record: Record) {
        assert!(
            record.revision() > self.newest.revision(),
            "version {:?} after {:?}: one version per key and revision",
            record.revision(),
            self.newest.revision()
        );
        let older = self.older.get_or_insert_default();
        if older.len() == older.capacity() {
            // Doubling would cost a further version twice its handle.
            older.reserve_exact((older.len() / 2).next_multiple_of(2).max(2));
        }
        older.push_back(std::mem::replace(&mut self.newest, record));
    }

    /// Takes the newest version off; `None` when it is the only one.
    fn pop_newest(&mut self) -> Option<Record> {
        let newest = self.older.as_mut()?.pop_back();
        let newest = newest.expect("there is an older one");
        self.settle();
        Some(std::mem::replace(&mut self.newest, newest))
    }

    /// Takes the oldest version off; `None` when it is the only one.
    fn pop_oldest(&mut self) -> Option<Record> {
        let oldest = self.older.as_mut()?.pop_front();
        self.settle();
        oldest
    }

    /// Gives memory back after a version went.
    fn settle(&mut self) {
        let Some(older) = &mut self.older else {
            return;
        };
        if older.is_empty() {
            self.older = None;
        } else if older.capacity() > 16 && older.len() < older.capacity() / 2 {
            older.shrink_to(older.len() * 3 / 2);
        }
    }
}

/// Keys that follow each other, with their versions.
#[derive(Debug, Default)]
struct Leaf {
    keys: Keys,
    /// Of each key.
    versions: Vec<Versions>,
}

impl Leaf {
    /// Which keys lie in `span`; an inverted interval gives an inverted range.
    fn cut(&self, span: &Span) -> Range<usize> {
        let from = match &span.start {
            Bound::Included(start) => self.keys.position(start).unwrap_or_else(|at| at),
            Bound::Excluded(start) => self.keys.position(start).map_or_else(|at| at, |at| at + 1),
            Bound::Unbounded => 0,
        };
        let to = match &span.end {
            Bound::Included(end) => self.keys.position(end).map_or_else(|at| at, |at| at + 1),
            Bound::Excluded(end) => self.keys.position(end).unwrap_or_else(|at| at),
            Bound::Unbounded => self.keys.len(),
        };
        from..to
    }

    /// What lies in a part of it.
    fn entries(&self, range: Range<usize>) -> impl DoubleEndedIterator<Item = (&Key, &Versions)> {
        let keys = self.keys.as_slice().get(range.clone());
        let versions = self.versions.get(range);
        keys.unwrap_or_default()
            .iter()
            .zip(versions.unwrap_or_default())
    }

    /// Inserts a key; a full leaf is split and its right part returned with its bound.
    fn insert(&mut self, at: usize, key: Key, versions: Versions) -> Option<(Key, Leaf)> {
        let len = self.keys.len();
        if len < PARTS_MAX {
            self.put(at, key, versions);
            return None;
        }
        // Keys that arrive in order leave full leaves behind.
        let keep = if at == len { len } else { len / 2 };
        let mut right = Leaf {
            keys: self.keys.split_off(keep),
            versions: keys::split_off(&mut self.versions, keep),
        };
        if at > keep || right.is_vacant() {
            right.put(at - keep, key, versions);
        } else {
            self.put(at, key, versions);
        }
        Some((right.keys.as_slice()[0].clone(), right))
    }

    fn put(&mut self, at: usize, key: Key, versions: Versions) {
        self.keys.insert(at, key);
        keys::grow(&mut self.versions);
        self.versions.insert(at, versions);
    }

    /// Removes a key that has one version left.
    fn remove(&mut self, at: usize) -> Record {
        self.keys.remove(at);
        let Versions { newest, older } = self.versions.remove(at);
        assert!(older.is_none(), "a key with several versions is removed");
        keys::shrink(&mut self.versions);
        newest
    }
}

impl Part for Leaf {
    fn len(&self) -> usize {
        self.keys.len()
    }

    fn is_vacant(&self) -> bool {
        self.keys.len() == 0
    }

    fn absorb(&mut self, _bound: Key, right: Leaf) {
        self.keys.append(right.keys);
        keys::append(&mut self.versions, right.versions);
    }
}

/// Every key with its versions.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    /// The root is never split.
    branches: Branch<Branch<Leaf>>,
}

/// Where a key is: its branch, its leaf in that, and its place in that.
#[derive(Clone, Copy)]
struct Place {
    branch: usize,
    leaf: usize,
    at: usize,
}

impl KeyIndex {
    /// The versions of one key.
    pub(super) fn find(&self, key: &[u8]) -> Option<&Versions> {
        let leaf = self.branches.part(key).part(key);
        let at = leaf.keys.position(key).ok()?;
        Some(&leaf.versions[at])
    }

    /// Adds the version that `make` makes of a key's newest one, and tells the key and whether it is
    /// new to the index.
    pub(super) fn push(
        &mut self,
        key: &[u8],
        make: impl FnOnce(Option<&Record>) -> Record,
    ) -> (Key, bool) {
        match self.locate(key) {
            Ok(place) => {
                let leaf = self.leaf_mut(place);
                let versions = &mut leaf.versions[place.at];
                let record = make(Some(versions.newest()));
                versions.push(record);
                (leaf.keys.as_slice()[place.at].clone(), false)
            }
            Err(place) => {
                let stored = Key::new(key);
                let versions = Versions::of(make(None));
                self.insert(place, stored.clone(), versions);
                (stored, true)
            }
        }
    }

    /// Takes the newest version of a key off, for a truncation; tells whether the key is gone.
    pub(super) fn pop_newest(&mut self, key: &[u8], revision: Revision) -> Option<(Record, bool)> {
        let place = self.locate(key).ok()?;
        let versions = &mut self.leaf_mut(place).versions[place.at];
        if versions.newest().revision() != revision {
            return None;
        }
        Some(match versions.pop_newest() {
            Some(record) => (record, false),
            None => (self.remove(place), true),
        })
    }

    /// Takes the oldest version of a key off when `drop` says so; tells whether the key is gone.
    pub(super) fn pop_oldest(
        &mut self,
        key: &[u8],
        drop: impl FnOnce(&Record) -> bool,
    ) -> Option<(Record, bool)> {
        let place = self.locate(key).ok()?;
        let versions = &mut self.leaf_mut(place).versions[place.at];
        if !drop(versions.oldest()) {
            return None;
        }
        Some(match versions.pop_oldest() {
            Some(record) => (record, false),
            None => (self.remove(place), true),
        })
    }

    /// Visits the keys of `span` in order until `visit` breaks.
    pub(super) fn scan(
        &self,
        span: &Span,
        mut visit: impl FnMut(&Key, &Versions) -> ControlFlow<()>,
    ) {
        let first = floor(span);
        let branches = &self.branches.parts()[self.branches.covering(first)..];
        for leaf in branches
            .iter()
            .flat_map(|branch| &branch.parts()[branch.covering(first)..])
        {
            let range = leaf.cut(span);
            let ends = range.end < leaf.len();
            for (key, versions) in leaf.entries(range) {
                if visit(key, versions).is_break() {
                    return;
                }
            }
            if ends {
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
        let branches = self.branches.parts();
        let branches = &branches[..=last(span, &self.branches)];
        for leaf in branches
            .iter()
            .rev()
            .flat_map(|branch| branch.parts()[..=last(span, branch)].iter().rev())
        {
            let range = leaf.cut(span);
            let ends = range.start > 0;
            for (key, versions) in leaf.entries(range).rev() {
                if visit(key, versions).is_break() {
                    return;
                }
            }
            if ends {
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
        let first = floor(span);
        let from = self.branches.covering(first);
        for leaf in self.branches.parts_mut()[from..]
            .iter_mut()
            .flat_map(|branch| {
                let from = branch.covering(first);
                &mut branch.parts_mut()[from..]
            })
        {
            let range = leaf.cut(span);
            let ends = range.end < leaf.len();
            let keys = leaf.keys.as_slice().get(range.clone());
            let versions = leaf.versions.get_mut(range);
            for (key, versions) in keys
                .unwrap_or_default()
                .iter()
                .zip(versions.unwrap_or_default())
            {
                if visit(key, versions).is_break() {
                    return;
                }
            }
            if ends {
                return;
            }
        }
    }

    /// Where a key is, or else where it belongs.
    fn locate(&self, key: &[u8]) -> Result<Place, Place> {
        let branch = self.branches.covering(key);
        let leaves = &self.branches.parts()[branch];
        let leaf = leaves.covering(key);
        let place = |at| Place { branch, leaf, at };
        let found = leaves.parts()[leaf].keys.position(key);
        found.map(place).map_err(place)
    }

    fn leaf_mut(&mut self, place: Place) -> &mut Leaf {
        &mut self.branches.parts_mut()[place.branch].parts_mut()[place.leaf]
    }

    fn insert(&mut self, place: Place, key: Key, versions: Versions) {
        let branch = &mut self.branches.parts_mut()[place.branch];
        let leaf = &mut branch.parts_mut()[place.leaf];
        let Some((bound, right)) = leaf.insert(place.at, key, versions) else {
            return;
        };
        branch.adopt(place.leaf, bound, right);
        if let Some((bound, right)) = branch.split(place.leaf) {
            self.branches.adopt(place.branch, bound, right);
        }
    }

    /// Removes a key, which has one version left, and gives what has shrunk to its neighbour.
    fn remove(&mut self, place: Place) -> Record {
        let branch = &mut self.branches.parts_mut()[place.branch];
        let record = branch.parts_mut()[place.leaf].remove(place.at);
        branch.settle(place.leaf);
        self.branches.settle(place.branch);
        record
    }
}

/// A key at or below the first one of `span`.
fn floor(span: &Span) -> &[u8] {
    match &span.start {
        Bound::Included(start) | Bound::Excluded(start) => start,
        Bound::Unbounded => &[],
    }
}

/// The last part that may hold a key of `span`.
fn last<P: Part>(span: &Span, branch: &Branch<P>) -> usize {
    match &span.end {
        Bound::Included(end) | Bound::Excluded(end) => branch.covering(end),
        Bound::Unbounded => branch.len() - 1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use fastrand::Rng;

    use super::*;

    /// Where each version of each key was written, oldest first.
    type Model = BTreeMap<Vec<u8>, VecDeque<Revision>>;

    /// Changes while the index grows; then it shrinks until it is empty.
    const CHANGES: usize = 40_000;

    /// A key made to be confused with others: the empty one, beginnings of one another, zeros and 0xff, a long
    /// common beginning that some key cuts short, and many that differ late.
    fn key(rng: &mut Rng, model: &Model) -> Vec<u8> {
        let tail: Vec<u8> = (0..rng.usize(..7))
            .map(|_| rng.choice([0, 0, 1, b'a', b'b', 0x7f, 0x80, 0xff]))
            .map(|letter| letter.expect("there are some"))
            .collect();
        let number = rng.u32(..1 << 18) << 14;
        let numbered = [b"/registry/".as_slice(), &number.to_be_bytes()].concat();
        match rng.usize(..16) {
            0 => tail,
            1 => {
                let len = 600 - rng.usize(..40) * rng.usize(..16);
                [vec![b'p'; len], tail].concat()
            }
            2 => [b"/registry/".as_slice(), &tail].concat(),
            3 => {
                let mut near = after(numbered, model);
                near.truncate(near.len().saturating_sub(rng.usize(..4)));
                [near, tail].concat()
            }
            _ => numbered,
        }
    }

    /// The first key not below one, or else that one.
    fn after(key: Vec<u8>, model: &Model) -> Vec<u8> {
        let near = model.range(key.clone()..).next();
        near.map_or(key, |(near, _)| near.clone())
    }

    fn span(rng: &mut Rng, model: &Model) -> Span {
        let mut bound = || {
            let key = Bytes::from(key(rng, model));
            match rng.usize(..5) {
                0 => Bound::Unbounded,
                1 | 2 => Bound::Included(key),
                _ => Bound::Excluded(key),
            }
        };
        Span {
            start: bound(),
            end: bound(),
        }
    }

    /// Compares what a walk visits with what it should, up to a number of keys.
    struct Walk<I> {
        expected: I,
        left: usize,
    }

    impl<'m, I: Iterator<Item = (&'m Vec<u8>, &'m VecDeque<Revision>)>> Walk<I> {
        fn visit(&mut self, key: &Key, versions: &Versions) -> ControlFlow<()> {
            let expected = self.expected.next().expect("there is nothing more");
            let older = versions.older.iter().flat_map(|older| older.iter());
            let found = older.chain([versions.newest()]).map(Record::revision);
            assert_eq!(key.bytes(), expected.0);
            assert!(found.eq(expected.1.iter().copied()), "{key:?}");
            self.left -= 1;
            match self.left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }

        fn end(mut self) {
            assert!(self.left == 0 || self.expected.next().is_none());
        }
    }

    /// Walks `left` keys of a span in each way there is.
    fn check_walks(index: &mut KeyIndex, model: &Model, span: &Span, left: usize) {
        let expected = || model.iter().filter(|(key, _)| span.contains(key));
        let mut walk = Walk {
            expected: expected(),
            left,
        };
        index.scan(span, |key, versions| walk.visit(key, versions));
        walk.end();
        let mut walk = Walk {
            expected: expected(),
            left,
        };
        index.scan_mut(span, |key, versions| walk.visit(key, versions));
        walk.end();
        let mut walk = Walk {
            expected: expected().rev(),
            left,
        };
        index.scan_back(span, |key, versions| walk.visit(key, versions));
        walk.end();
    }

    /// What holds between two changes, whatever they were.
    fn check_shape(index: &KeyIndex) {
        let branches = index.branches.parts();
        for branch in branches {
            assert!((1..=PARTS_MAX).contains(&branch.len()));
            for leaf in branch.parts() {
                assert!(leaf.len() <= PARTS_MAX);
                assert_eq!(leaf.len(), leaf.versions.len());
                assert!(!leaf.is_vacant() || branches.len() + branch.len() == 2);
            }
        }
    }

    /// Does one change to both, and checks that they say the same of it.
    fn change(
        index: &mut KeyIndex,
        model: &mut Model,
        key: &[u8],
        push: Option<Revision>,
        newest: bool,
    ) {
        let held = model.entry(key.to_vec()).or_default();
        let found = index.find(key);
        assert_eq!(
            found.map(|found| (found.oldest().revision(), found.newest().revision())),
            held.front().copied().zip(held.back().copied())
        );
        if let Some(at) = push {
            let (stored, created) = index.push(key, |newest| {
                assert_eq!(newest.map(Record::revision), held.back().copied());
                Record::put(newest, at, b"", 0)
            });
            assert_eq!((stored.bytes(), created), (key, held.is_empty()));
            held.push_back(at);
            return;
        }
        let end = if newest { held.back() } else { held.front() };
        let at = end.copied().unwrap_or(Revision { main: 1, sub: 0 });
        let popped = if newest {
            index.pop_newest(key, at)
        } else {
            index.pop_oldest(key, |oldest| oldest.revision() == at)
        };
        let expected = if newest {
            held.pop_back()
        } else {
            held.pop_front()
        };
        assert_eq!(
            popped.map(|(record, gone)| (record.revision(), gone)),
            expected.map(|at| (at, held.is_empty()))
        );
        if held.is_empty() {
            model.remove(key);
        }
    }

    /// Goal: through splits and merges of leaves and branches, with keys made to be confused, the index holds
    /// what a map would, and every walk sees exactly that.
    #[test]
    fn as_a_map() {
        let mut rng = Rng::with_seed(7);
        let (mut index, mut model) = (KeyIndex::default(), Model::new());
        let everything = Span::new(Bytes::new(), Bytes::from_static(b"\0"));
        let (mut main, mut branches_max) = (1, 0);
        for grows in [true, false, true, false] {
            let mut left = CHANGES;
            while if grows { left > 0 } else { !model.is_empty() } {
                left = left.saturating_sub(1);
                let mut key = key(&mut rng, &model);
                if !grows {
                    key = after(key, &model);
                    // Nothing is above it when it is not there.
                    if !model.contains_key(&key) {
                        key = model.keys().next_back().expect("not empty").clone();
                    }
                }
                main += 1;
                let push = rng.usize(..10) < if grows { 9 } else { 1 };
                let push = push.then_some(Revision { main, sub: 0 });
                change(&mut index, &mut model, &key, push, rng.bool());
                branches_max = branches_max.max(index.branches.len());
                if main % 5_000 == 0 || model.is_empty() {
                    check_shape(&index);
                    check_walks(&mut index, &model, &everything, usize::MAX);
                }
                if main % 200 == 0 {
                    let span = span(&mut rng, &model);
                    check_walks(&mut index, &model, &span, 300);
                }
            }
        }
        assert!(branches_max > 2, "no branch was split");
        assert_eq!(
            (index.branches.len(), index.branches.parts()[0].len()),
            (1, 1)
        );
    }
}
