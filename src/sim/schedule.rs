//! What will happen, in the order in which it will.
//!
//! Two things of one moment happen in the order in which they were planned, so that nothing depends on how
//! a heap breaks ties.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::clock::Moment;

/// A queue of things to come.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    heap: BinaryHeap<Planned<T>>,
    planned: u64,
}

#[derive(Debug)]
struct Planned<T> {
    at: Moment,
    order: u64,
    what: T,
}

impl<T> Schedule<T> {
    pub(super) fn new() -> Schedule<T> {
        Schedule {
            heap: BinaryHeap::new(),
            planned: 0,
        }
    }

    pub(super) fn plan(&mut self, at: Moment, what: T) {
        self.planned += 1;
        self.heap.push(Planned {
            at,
            order: self.planned,
            what,
        });
    }

    /// The next thing, and when it happens.
    pub(super) fn next(&mut self) -> Option<(Moment, T)> {
        self.heap.pop().map(|planned| (planned.at, planned.what))
    }
}

impl<T> PartialEq for Planned<T> {
    fn eq(&self, other: &Planned<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Planned<T> {}

impl<T> PartialOrd for Planned<T> {
    fn partial_cmp(&self, other: &Planned<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Planned<T> {
    /// The earliest is the greatest: the heap hands out the greatest first.
    fn cmp(&self, other: &Planned<T>) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: by time, and within one moment as planned.
    #[test]
    fn order() {
        let mut schedule = Schedule::new();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b'), (5, 'e')] {
            schedule.plan(Moment(at), what);
        }
        let order: String = std::iter::from_fn(|| schedule.next().map(|(_, what)| what)).collect();
        assert_eq!(order, "abcde");
    }
}
