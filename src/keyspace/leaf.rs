//! The lowest level of the index: keys that follow each other, with their versions.
//!
//! Holds up to [`PARTS_MAX`] keys and splits itself when one more comes; never looks at its neighbours.

use std::ops::{Bound, Range};

use super::branch::{PARTS_MAX, Part};
use super::keys::{self, Keys};
use super::record::{Key, Record};
use super::span::Span;
use super::versions::Versions;

/// Keys that follow each other, with their versions.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    keys: Keys,
    /// Of each key.
    versions: Vec<Versions>,
}

impl Leaf {
    /// Where `key` is, or else where it belongs.
    pub(super) fn position(&self, key: &[u8]) -> Result<usize, usize> {
        self.keys.position(key)
    }

    /// The key at `at`.
    pub(super) fn key(&self, at: usize) -> &Key {
        &self.keys.as_slice()[at]
    }

    /// The versions of the key at `at`.
    pub(super) fn versions(&self, at: usize) -> &Versions {
        &self.versions[at]
    }

    /// The versions of the key at `at`, to change.
    pub(super) fn versions_mut(&mut self, at: usize) -> &mut Versions {
        &mut self.versions[at]
    }

    /// Which keys lie in `span`; an inverted interval gives an inverted range.
    pub(super) fn cut(&self, span: &Span) -> Range<usize> {
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
    pub(super) fn entries(
        &self,
        range: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = (&Key, &Versions)> {
        let keys = self.keys.as_slice().get(range.clone());
        let versions = self.versions.get(range);
        keys.unwrap_or_default()
            .iter()
            .zip(versions.unwrap_or_default())
    }

    /// What lies in a part of it, to change.
    pub(super) fn entries_mut(
        &mut self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (&Key, &mut Versions)> {
        let keys = self.keys.as_slice().get(range.clone());
        let versions = self.versions.get_mut(range);
        keys.unwrap_or_default()
            .iter()
            .zip(versions.unwrap_or_default())
    }

    /// Inserts a key; a full leaf is split and its right part returned with its bound.
    pub(super) fn insert(
        &mut self,
        at: usize,
        key: Key,
        versions: Versions,
    ) -> Option<(Key, Leaf)> {
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
        Some((right.key(0).clone(), right))
    }

    /// Inserts a key into a leaf that is not full.
    pub(super) fn put(&mut self, at: usize, key: Key, versions: Versions) {
        self.keys.insert(at, key);
        keys::grow(&mut self.versions);
        self.versions.insert(at, versions);
    }

    /// Removes a key that has one version left.
    pub(super) fn remove(&mut self, at: usize) -> Record {
        self.keys.remove(at);
        let versions = self.versions.remove(at);
        keys::shrink(&mut self.versions);
        versions.into_last()
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
