//! Entries that were appended lately, as they lie in the log: what followers are sent without a read.
//!
//! A bounded copy in memory. A follower keeps one too, so that a new leader need not read its disk while
//! the others wait for it. What is not here any more is read from the log.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::base::Index;
use crate::base::limits::RECENT_CHUNK_BYTES;

/// The newest entries of a log, in a row.
#[derive(Debug)]
pub(super) struct Recent {
    /// The index of the first one.
    first: Index,
    records: VecDeque<Bytes>,
    /// Bytes of them all.
    size_bytes: usize,
    size_bytes_max: usize,
    /// Where the next ones are copied to: records share its memory, which goes with the last of them.
    chunk: BytesMut,
}

impl Recent {
    /// Nothing yet; at most `size_bytes_max` bytes at a time.
    pub(super) fn new(size_bytes_max: usize) -> Recent {
        Recent {
            first: Index(0),
            records: VecDeque::new(),
            size_bytes: 0,
            size_bytes_max,
            chunk: BytesMut::new(),
        }
    }

    /// Takes the record of the entry at `index`. One that does not follow the last begins anew.
    pub(super) fn push(&mut self, index: Index, record: &[u8]) {
        if self.end() != index {
            self.clear();
            self.first = index;
        }
        if self.chunk.capacity() < record.len() {
            self.chunk = BytesMut::with_capacity(record.len().max(RECENT_CHUNK_BYTES));
        }
        self.chunk.extend_from_slice(record);
        self.records.push_back(self.chunk.split().freeze());
        self.size_bytes += record.len();
        while self.size_bytes > self.size_bytes_max {
            let oldest = self.records.pop_front().expect("something has bytes");
            self.size_bytes -= oldest.len();
            self.first = self.first.next();
        }
    }

    /// The log ends after `after` now.
    pub(super) fn truncate(&mut self, after: Index) {
        while self.end() > after.next() {
            let Some(newest) = self.records.pop_back() else {
                break;
            };
            self.size_bytes -= newest.len();
        }
    }

    /// The record at `index`, if it is here.
    pub(super) fn record(&self, index: Index) -> Option<&Bytes> {
        let at = index.0.checked_sub(self.first.0)?;
        self.records.get(usize::try_from(at).ok()?)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.size_bytes = 0;
    }

    /// The index that would follow.
    fn end(&self) -> Index {
        Index(self.first.0 + self.records.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(recent: &Recent) -> Vec<(u64, u8)> {
        (0..100)
            .filter_map(|index| Some((index, recent.record(Index(index))?[0])))
            .collect()
    }

    /// Goal: what follows is kept in a row, a cut takes the end off, and a gap begins anew.
    #[test]
    fn in_a_row() {
        let mut recent = Recent::new(400);
        for index in 5..9 {
            recent.push(Index(index), &[index as u8; 16]);
        }
        assert_eq!(held(&recent), [(5, 5), (6, 6), (7, 7), (8, 8)]);
        recent.truncate(Index(6));
        recent.push(Index(7), &[70; 16]);
        assert_eq!(held(&recent), [(5, 5), (6, 6), (7, 70)]);
        recent.truncate(Index(3));
        assert_eq!(held(&recent), []);
        recent.push(Index(20), &[20; 16]);
        assert_eq!(held(&recent), [(20, 20)]);
    }

    /// Goal: the oldest go when there are too many bytes.
    #[test]
    fn bounded() {
        let mut recent = Recent::new(400);
        let record = [1; 100];
        for index in 1..=6 {
            recent.push(Index(index), &record);
        }
        assert_eq!(held(&recent), [(3, 1), (4, 1), (5, 1), (6, 1)]);
    }
}
