//! What holds the index together above its leaves: parts side by side, each with the keys from its bound up
//! to the next one's.
//!
//! Knows of a part only how full it is and how two of them become one; of keys, only their order. Never looks
//! into a part, and never keeps one that holds nothing but the first of all.

use super::keys::{self, Keys};
use super::record::Key;

/// Parts in one branch, and keys in one leaf: moving half of a list of these (1 KiB of versions in a leaf,
/// 5 KiB of leaves in a branch) costs less than the search does.
pub(super) const PARTS_MAX: usize = 128;
/// Neighbours that together hold no more than this become one.
const PARTS_MERGE: usize = 96;
/// A part with fewer than this takes what its full left neighbour has no room for. Small enough that what is left of
/// the room serves the keys that come later; large enough that keys in descending order leave no small parts behind.
const PARTS_FEW: usize = PARTS_MERGE / 2;

/// What a branch consists of.
pub(super) trait Part {
    /// Keys of a leaf, parts of a branch.
    fn len(&self) -> usize;

    /// Whether there is no key in it.
    fn is_vacant(&self) -> bool;

    /// Whether it takes what its full left neighbour has no room for.
    fn has_room(&self) -> bool {
        self.len() < PARTS_FEW
    }

    /// Takes in all of its right neighbour, whose keys are not below `bound`.
    fn absorb(&mut self, bound: Key, right: Self);
}

/// Parts in the order of their keys; at least one.
#[derive(Debug)]
pub(super) struct Branch<P> {
    /// Lower bounds of all parts but the first, which holds whatever is below them.
    bounds: Keys,
    parts: Vec<P>,
}

impl<P: Part + Default> Default for Branch<P> {
    fn default() -> Branch<P> {
        Branch::of(P::default())
    }
}

impl<P: Part> Branch<P> {
    fn of(part: P) -> Branch<P> {
        Branch {
            bounds: Keys::default(),
            parts: vec![part],
        }
    }

    /// Which part may hold `key`.
    pub(super) fn covering(&self, key: &[u8]) -> usize {
        match self.bounds.position(key) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    /// The part that may hold `key`.
    pub(super) fn part(&self, key: &[u8]) -> &P {
        &self.parts[self.covering(key)]
    }

    /// All parts.
    pub(super) fn parts(&self) -> &[P] {
        &self.parts
    }

    /// All parts, to change what they hold; that must not leave one vacant.
    pub(super) fn parts_mut(&mut self) -> &mut [P] {
        &mut self.parts
    }

    /// Takes what was split off the part at `at`.
    pub(super) fn adopt(&mut self, at: usize, bound: Key, right: P) {
        self.bounds.insert(at, bound);
        keys::grow(&mut self.parts);
        self.parts.insert(at + 1, right);
    }

    /// Lets the part at `at`, which is not the first, begin at a lower key; the part before it must have nothing from
    /// there on.
    pub(super) fn lower(&mut self, at: usize, bound: Key) {
        self.bounds.replace(at - 1, bound);
    }

    /// Takes away all parts from the one at `keep` on, which is not the first, with its bound.
    fn split(&mut self, keep: usize) -> (Key, Branch<P>) {
        let right = Branch {
            bounds: self.bounds.split_off(keep),
            parts: keys::split_off(&mut self.parts, keep),
        };
        (self.bounds.remove(keep - 1), right)
    }

    /// Takes the last part away, which is not the only one, with its bound.
    fn pop(&mut self) -> (Key, P) {
        let part = self.parts.pop().expect("there are several");
        keys::shrink(&mut self.parts);
        (self.bounds.remove(self.bounds.len() - 1), part)
    }

    /// Takes a part in front of the others, whose keys are not below `bound`.
    fn push_front(&mut self, part: P, bound: Key) {
        self.bounds.insert(0, bound);
        keys::grow(&mut self.parts);
        self.parts.insert(0, part);
    }

    /// Looks after a part that has lost something: a vacant one goes, a small one joins a neighbour.
    pub(super) fn settle(&mut self, at: usize) {
        if self.parts.len() == 1 || self.parts[at].len() > PARTS_MERGE / 2 {
            return;
        }
        if self.parts[at].is_vacant() {
            self.parts.remove(at);
            // Whatever is below the second part's bound belongs to the first.
            self.bounds.remove(at.saturating_sub(1));
        } else {
            let fits = |left: usize| {
                let pair = self.parts.get(left..left + 2);
                pair.is_some_and(|pair| pair[0].len() + pair[1].len() <= PARTS_MERGE)
            };
            let left = at.checked_sub(1).filter(|left| fits(*left));
            let Some(left) = left.or(Some(at).filter(|left| fits(*left))) else {
                return;
            };
            let right = self.parts.remove(left + 1);
            let bound = self.bounds.remove(left);
            self.parts[left].absorb(bound, right);
        }
        keys::shrink(&mut self.parts);
    }
}

impl<P: Part> Branch<Branch<P>> {
    /// Looks after the branch at `at`, which has adopted a part behind its part at `from`: one that has become too large
    /// is split, or hands its last part on.
    pub(super) fn relieve(&mut self, at: usize, from: usize) {
        let len = self.parts[at].len();
        if len <= PARTS_MAX {
            return;
        }
        let is_last = from + 2 == len;
        if is_last
            && let [branch, behind, ..] = &mut self.parts[at..]
            && behind.has_room()
        {
            let (bound, part) = branch.pop();
            let above = self.bounds.replace(at, bound);
            behind.push_front(part, above);
            return;
        }
        // Keys that arrive in order leave full branches behind.
        let keep = if is_last { len - 1 } else { len / 2 };
        let (bound, right) = self.parts[at].split(keep);
        self.adopt(at, bound, right);
    }
}

impl<P: Part> Part for Branch<P> {
    fn len(&self) -> usize {
        self.parts.len()
    }

    fn is_vacant(&self) -> bool {
        matches!(&self.parts[..], [part] if part.is_vacant())
    }

    fn absorb(&mut self, bound: Key, right: Branch<P>) {
        self.bounds.insert(self.bounds.len(), bound);
        self.bounds.append(right.bounds);
        keys::append(&mut self.parts, right.parts);
    }
}
