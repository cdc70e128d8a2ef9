//! Keys as numbers in key order, and counting over them.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::super::operation::Interval;

/// Collects keys; numbers come once all are known.
#[derive(Default)]
pub(super) struct KeyCollector {
    /// Value is unused until [`KeyCollector::finish`].
    numbers: HashMap<Bytes, u32, FixedState>,
}

impl KeyCollector {
    pub(super) fn add(&mut self, key: &Bytes) {
        if !self.numbers.contains_key(key) {
            // A copy, so that one key does not keep the block it was read in.
            self.numbers.insert(Bytes::copy_from_slice(key), 0);
        }
    }

    pub(super) fn finish(mut self) -> Keys {
        let mut sorted: Vec<Bytes> = self.numbers.keys().cloned().collect();
        sorted.sort_unstable();
        for (number, key) in (0u32..).zip(&sorted) {
            if let Some(entry) = self.numbers.get_mut(key) {
                *entry = number;
            }
        }
        Keys {
            numbers: self.numbers,
            sorted,
        }
    }
}

/// Every key of a history, numbered in key order.
pub(super) struct Keys {
    numbers: HashMap<Bytes, u32, FixedState>,
    sorted: Vec<Bytes>,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// The number of a key that the collector was given.
    pub(super) fn number(&self, key: &[u8]) -> u32 {
        self.find(key)
            .expect("every key of the record was collected")
    }

    pub(super) fn name(&self, number: u32) -> &Bytes {
        &self.sorted[number as usize]
    }

    /// The numbers in an interval: first, and first outside.
    pub(super) fn span(&self, interval: &Interval) -> (u32, u32) {
        let below = |key: &[u8]| {
            let at = self.sorted.partition_point(|each| &each[..] < key);
            u32::try_from(at).expect("keys are numbered with 32 bits")
        };
        match &interval.range_end[..] {
            [] => match self.find(&interval.key) {
                Some(number) => (number, number + 1),
                None => (0, 0),
            },
            [0] => (below(&interval.key), below_all(&self.sorted)),
            end => {
                let first = below(&interval.key);
                (first, below(end).max(first))
            }
        }
    }
}

fn below_all(sorted: &[Bytes]) -> u32 {
    u32::try_from(sorted.len()).expect("keys are numbered with 32 bits")
}

/// How many of the numbers below some bound are set, in logarithmic time: a Fenwick tree.
pub(super) struct Counter(Vec<u32>);

impl Counter {
    pub(super) fn new(len: usize) -> Counter {
        Counter(vec![0; len + 1])
    }

    pub(super) fn add(&mut self, number: u32) {
        self.change(number, |count| count + 1);
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.change(number, |count| count - 1);
    }

    fn change(&mut self, number: u32, by: impl Fn(u32) -> u32) {
        let mut at = number as usize + 1;
        while at < self.0.len() {
            self.0[at] = by(self.0[at]);
            at += at & at.wrapping_neg();
        }
    }

    /// Set numbers in `[first, end)`.
    pub(super) fn between(&self, (first, end): (u32, u32)) -> u32 {
        self.below(end) - self.below(first)
    }

    fn below(&self, number: u32) -> u32 {
        let mut at = number as usize;
        let mut count = 0;
        while at > 0 {
            count += self.0[at];
            at &= at - 1;
        }
        count
    }
}
