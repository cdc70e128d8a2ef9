//! The history: which key each change since the floor touched, in revision order.
//!
//! A change is one word here, a handle of its key; what it wrote is found in the index. Every main
//! revision has at least one change and mains follow each other without a gap, so a bit per change ("first
//! of its main") and the revision of a chunk's first change give every revision. Grows and shrinks by
//! chunks, so that no append ever moves the whole.

use std::collections::VecDeque;

use super::record::Key;
use super::revision::Revision;

/// Changes in one chunk (4 KiB of keys).
const CHUNK_CHANGES: usize = 512;
const WORDS: usize = CHUNK_CHANGES / 64;

#[derive(Debug)]
struct Chunk {
    /// Of its first change, whether or not that has been dropped.
    first: Revision,
    keys: Vec<Key>,
    /// Bit n: change n is the first of its main revision.
    starts: [u64; WORDS],
}

impl Chunk {
    fn revision(&self, at: usize) -> Revision {
        let mut main = self.first.main;
        // Change 0 is counted by `first` already.
        for word in 0..=at / 64 {
            let mut bits = self.starts[word];
            if word == 0 {
                bits &= !1;
            }
            if word == at / 64 {
                bits &= u64::MAX >> (63 - at % 64);
            }
            main += i64::from(bits.count_ones());
        }
        let start = (1..=at).rev().find(|&at| self.is_start(at));
        let sub = match start {
            Some(start) => at - start,
            None => self.first.sub as usize + at,
        };
        Revision {
            main,
            sub: u32::try_from(sub).expect("subs were counted in 32 bits"),
        }
    }

    fn is_start(&self, at: usize) -> bool {
        self.starts[at / 64] & (1 << (at % 64)) != 0
    }
}

/// The changes that are held. A change is named by its *place*: a count of changes that never restarts,
/// so places stay valid while the front is dropped.
#[derive(Debug, Default)]
pub(super) struct History {
    /// All full but the last.
    chunks: VecDeque<Chunk>,
    /// Place of the first change of the first chunk.
    base: u64,
    /// Changes dropped from the first chunk; their keys go with the chunk.
    dropped: usize,
}

impl History {
    /// Place of the oldest change held.
    pub(super) fn front(&self) -> u64 {
        self.base + self.dropped as u64
    }

    /// Place after the newest change.
    pub(super) fn end(&self) -> u64 {
        match self.chunks.back() {
            Some(last) => {
                self.base + ((self.chunks.len() - 1) * CHUNK_CHANGES + last.keys.len()) as u64
            }
            None => self.base,
        }
    }

    /// The change at a place; `None` beyond the end. Places that were dropped must not be asked for.
    pub(super) fn change(&self, place: u64) -> Option<(Revision, &Key)> {
        let (chunk, at) = self.find(place)?;
        Some((chunk.revision(at), &chunk.keys[at]))
    }

    fn find(&self, place: u64) -> Option<(&Chunk, usize)> {
        assert!(
            place >= self.front(),
            "change {place} was dropped, {} is the first",
            self.front()
        );
        let offset = usize::try_from(place - self.base).expect("what is held fits in memory");
        let chunk = self.chunks.get(offset / CHUNK_CHANGES)?;
        let at = offset % CHUNK_CHANGES;
        (at < chunk.keys.len()).then_some((chunk, at))
    }

    /// The place of the first change at or after `from`.
    pub(super) fn seek(&self, from: Revision) -> u64 {
        let (mut low, mut high) = (self.front(), self.end());
        while low < high {
            let middle = low.midpoint(high);
            let (revision, _) = self.change(middle).expect("it is held");
            if revision < from {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The newest change.
    pub(super) fn newest(&self) -> Option<(Revision, &Key)> {
        self.change(
            self.end()
                .checked_sub(1)
                .filter(|place| *place >= self.front())?,
        )
    }

    /// Adds a change after all others.
    pub(super) fn push(&mut self, revision: Revision, key: Key) {
        if self
            .chunks
            .back()
            .is_none_or(|last| last.keys.len() == CHUNK_CHANGES)
        {
            let keys = Vec::with_capacity(CHUNK_CHANGES);
            self.chunks.push_back(Chunk {
                first: revision,
                keys,
                starts: [0; WORDS],
            });
        }
        let chunk = self.chunks.back_mut().expect("one was just added");
        let at = chunk.keys.len();
        if revision.sub == 0 {
            chunk.starts[at / 64] |= 1 << (at % 64);
        }
        chunk.keys.push(key);
        debug_assert_eq!(chunk.revision(at), revision, "revisions follow each other");
    }

    /// Takes the newest change off, if there is one that was not dropped.
    pub(super) fn pop_newest(&mut self) -> Option<Key> {
        if self.end() == self.front() {
            return None;
        }
        let chunk = self.chunks.back_mut().expect("it is not empty");
        let key = chunk.keys.pop().expect("no chunk is empty");
        let at = chunk.keys.len();
        chunk.starts[at / 64] &= !(1 << (at % 64));
        if chunk.keys.is_empty() {
            self.chunks.pop_back();
        }
        if self.end() == self.front() {
            // What is left was dropped; the next change may follow another revision.
            self.base = self.front();
            self.dropped = 0;
            self.chunks.clear();
        }
        Some(key)
    }

    /// Drops the oldest change.
    pub(super) fn drop_oldest(&mut self) {
        assert!(self.front() < self.end(), "nothing is left to drop");
        self.dropped += 1;
        let first = self.chunks.front().expect("it is not empty");
        if self.dropped == first.keys.len()
            && (self.dropped == CHUNK_CHANGES || self.chunks.len() == 1)
        {
            self.base += self.dropped as u64;
            self.dropped = 0;
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: over several chunks and transactions of mixed sizes, places, revisions and keys agree after
    /// pushes, pops at the end and drops at the front.
    #[test]
    fn revisions_and_places() {
        let mut history = History::default();
        let mut expected = VecDeque::new();
        let mut main = 1;
        for size in [1u32, 3, 700, 1, 1, 64, 2, 1300, 1] {
            main += 1;
            for sub in 0..size {
                let key = format!("{main}-{sub}");
                history.push(Revision { main, sub }, Key::new(key.as_bytes()));
                expected.push_back((Revision { main, sub }, key));
            }
        }
        let check = |history: &History, expected: &VecDeque<(Revision, String)>| {
            assert_eq!(history.end() - history.front(), expected.len() as u64);
            for (offset, (revision, key)) in expected.iter().enumerate() {
                let place = history.front() + offset as u64;
                let (found, found_key) = history.change(place).expect("held");
                assert_eq!((found, found_key.bytes()), (*revision, key.as_bytes()));
                assert_eq!(history.seek(*revision), place);
            }
            assert!(history.change(history.end()).is_none());
        };
        check(&history, &expected);
        for _ in 0..900 {
            history.pop_newest();
            expected.pop_back();
        }
        check(&history, &expected);
        for _ in 0..700 {
            history.drop_oldest();
            expected.pop_front();
        }
        check(&history, &expected);
        while expected.pop_back().is_some() {
            assert!(history.pop_newest().is_some());
        }
        assert!(history.pop_newest().is_none());
        history.push(Revision { main: 5, sub: 0 }, Key::new(b"again"));
        check(
            &history,
            &VecDeque::from([(Revision { main: 5, sub: 0 }, "again".to_owned())]),
        );
    }
}
