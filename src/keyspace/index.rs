//! The index: every key in order, and for each the versions the log holds.
//!
//! A tree of three levels: leaves with up to [`PARTS_MAX`] keys, branches with as many leaves, and a root with
//! all branches, of which ten million keys need a thousand. Each level is one list of `Keys`, searched by
//! numbers that stand side by side, so that a search waits for memory about once per level and once for the
//! key itself. Against an entry of a `BTreeMap` per key this needs a third of the memory beside the keys, because
//! leaves are well filled: whatever the order in which keys arrive, a small new part begins only where its
//! neighbours are not small. No operation takes longer than one search and moving one list at each level; walks
//! are cut by their visitor.

use std::ops::{Bound, ControlFlow};

use super::branch::{Branch, PARTS_MAX, Part};
use super::leaf::Leaf;
use super::record::{Key, Record};
use super::revision::Revision;
use super::span::Span;
use super::versions::Versions;

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
        let at = leaf.position(key).ok()?;
        Some(leaf.versions(at))
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
                let versions = leaf.versions_mut(place.at);
                let record = make(Some(versions.newest()));
                versions.push(record);
                (leaf.key(place.at).clone(), false)
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
        let versions = self.leaf_mut(place).versions_mut(place.at);
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
        let versions = self.leaf_mut(place).versions_mut(place.at);
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
            for (key, versions) in leaf.entries_mut(range) {
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
        let found = leaves.parts()[leaf].position(key);
        found.map(place).map_err(place)
    }

    fn leaf_mut(&mut self, place: Place) -> &mut Leaf {
        &mut self.branches.parts_mut()[place.branch].parts_mut()[place.leaf]
    }

    fn insert(&mut self, place: Place, key: Key, versions: Versions) {
        if place.at == PARTS_MAX
            && let Some(behind) = self.behind(place)
        {
            // The full leaf is the wrong one to grow: keys that arrive in descending order would each get a new leaf.
            self.lower(behind, key.clone());
            self.leaf_mut(behind).put(0, key, versions);
            return;
        }
        let branch = &mut self.branches.parts_mut()[place.branch];
        let leaf = &mut branch.parts_mut()[place.leaf];
        if let Some((bound, right)) = leaf.insert(place.at, key, versions) {
            branch.adopt(place.leaf, bound, right);
            self.branches.relieve(place.branch, place.leaf);
        }
    }

    /// The front of the leaf behind the one at `place`, if there is one that has room.
    fn behind(&self, place: Place) -> Option<Place> {
        let branches = self.branches.parts();
        let last = place.leaf + 1 == branches[place.branch].len();
        let (branch, leaf) = match last {
            false => (place.branch, place.leaf + 1),
            true => (place.branch + 1, 0),
        };
        let behind = &branches.get(branch)?.parts()[leaf];
        behind.has_room().then_some(Place {
            branch,
            leaf,
            at: 0,
        })
    }

    /// Lets the leaf at `place`, which is not the first of all, begin at a lower key.
    fn lower(&mut self, place: Place, bound: Key) {
        match place.leaf {
            0 => self.branches.lower(place.branch, bound),
            leaf => self.branches.parts_mut()[place.branch].lower(leaf, bound),
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
    use std::collections::{BTreeMap, VecDeque};

    use bytes::Bytes;
    use fastrand::Rng;

    use super::*;

    /// Where each version of each key was written, oldest first.
    type Model = BTreeMap<Vec<u8>, VecDeque<Revision>>;

    /// Changes while the index grows; then it shrinks until it is empty.
    const CHANGES: usize = 40_000;
    /// Keys that are added between two others.
    const GAP: usize = 20_000;

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
            let found = versions.all().map(Record::revision);
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
        for (number, branch) in branches.iter().enumerate() {
            assert!((1..=PARTS_MAX).contains(&branch.len()));
            for (at, leaf) in branch.parts().iter().enumerate() {
                // No bound lies above the first key of its part, nor below the last one of the part before, or at it.
                for end in [0, leaf.len().saturating_sub(1)] {
                    let Some((key, _)) = leaf.entries(end..leaf.len()).next() else {
                        continue;
                    };
                    let key = key.bytes();
                    let found = (index.branches.covering(key), branch.covering(key));
                    assert_eq!(found, (number, at), "{key:?}");
                }
                assert!(leaf.len() <= PARTS_MAX);
                assert_eq!(leaf.len(), leaf.entries(0..leaf.len()).count());
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

    /// Branches and leaves.
    fn parts(index: &KeyIndex) -> (usize, usize) {
        let branches = index.branches.parts();
        (branches.len(), branches.iter().map(Branch::len).sum())
    }

    /// Adds keys between the one numbered `behind` and the next one of an index whose parts are all full, and takes
    /// them away again. The leaves that come with them hold that many keys on average.
    fn check_gap(behind: usize, descends: bool, leaf_keys_min: usize) {
        let everything = Span::new(Bytes::new(), Bytes::from_static(b"\0"));
        let (mut index, mut model) = (KeyIndex::default(), Model::new());
        let mut main = 1;
        let mut put = |index: &mut KeyIndex, model: &mut Model, number: usize, gap: usize| {
            main += 1;
            let key = ((number << 32 | gap) as u64).to_be_bytes();
            change(index, model, &key, Some(Revision { main, sub: 0 }), true);
        };
        for number in 0..2 * PARTS_MAX * PARTS_MAX {
            put(&mut index, &mut model, number, 0);
        }
        let full = parts(&index);
        assert_eq!(full, (2, 2 * PARTS_MAX));
        for gap in 1..=GAP {
            let gap = if descends { GAP - gap + 1 } else { gap };
            put(&mut index, &mut model, behind, gap);
        }
        let leaves = parts(&index).1 - full.1;
        let branches = parts(&index).0 - full.0;
        assert!(leaves <= GAP / leaf_keys_min, "{leaves} leaves");
        assert!(branches <= leaves / 40 + 1, "{branches} branches");
        check_shape(&index);
        check_walks(&mut index, &model, &everything, usize::MAX);
        for gap in 1..=GAP {
            let key = ((behind << 32 | gap) as u64).to_be_bytes();
            change(&mut index, &mut model, &key, None, false);
        }
        check_shape(&index);
        check_walks(&mut index, &model, &everything, usize::MAX);
        assert_eq!(parts(&index).1, full.1);
    }

    /// Goal: keys that arrive in order, ascending or descending, behind a full leaf or a full branch, do not get a
    /// leaf or a branch each.
    #[test]
    fn gaps_behind_full_parts() {
        for last in [PARTS_MAX - 1, PARTS_MAX * PARTS_MAX - 1] {
            check_gap(last, true, 40);
            check_gap(last, false, 120);
        }
    }
}
