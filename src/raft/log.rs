//! Which term wrote which index, and about how many bytes: the log without the entries.

use super::message::{Entries, TermRun};
use super::types::Position;
use crate::base::limits::RAFT_SIZE_STRIDE_BYTES;
use crate::base::{Index, Term};

/// The outline of a log, one row per term: terms never fall along a log, so the first index of each is
/// enough. It begins after `base`, where a checkpoint stands or an empty log starts.
///
/// ```text
///              base
/// index          7 |  8  9 10 11 12       rows  (term 2 from 8) (term 3 from 11), last 12
/// term           2 |  2  2  2  3  3
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogTerms {
    base: Position,
    starts: Vec<(Term, Index)>,
    last: Index,
    sizes: Sizes,
}

impl LogTerms {
    /// An empty log after `base`.
    #[must_use]
    pub fn after(base: Position) -> LogTerms {
        LogTerms {
            base,
            last: base.index,
            ..LogTerms::default()
        }
    }

    /// What precedes the first entry that can still be read.
    #[must_use]
    pub fn base(&self) -> Position {
        self.base
    }

    /// The last index; that of the base when there is no entry.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.last
    }

    /// The term of the last entry; that of the base when there is none.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.starts.last().map_or(self.base.term, |&(term, _)| term)
    }

    /// The end of the log.
    #[must_use]
    pub fn last(&self) -> Position {
        Position {
            term: self.last_term(),
            index: self.last,
        }
    }

    /// Adds an entry of `term` that takes `size_bytes`, and returns its index.
    ///
    /// # Panics
    /// When the term falls or is zero.
    pub fn append(&mut self, term: Term, size_bytes: u64) -> Index {
        let last_term = self.last_term();
        assert!(
            term >= last_term && term > Term(0),
            "term {term} after term {last_term}"
        );
        self.last = self.last.next();
        if self.starts.last().is_none_or(|&(of, _)| term > of) {
            self.starts.push((term, self.last));
        }
        self.sizes.add(self.last, size_bytes);
        self.last
    }

    /// Drops every entry after `index`.
    pub fn truncate(&mut self, index: Index) {
        self.last = self.last.min(index.max(self.base.index));
        while self
            .starts
            .last()
            .is_some_and(|&(_, start)| start > self.last)
        {
            self.starts.pop();
        }
        self.sizes.truncate(self.last);
    }

    /// Forgets the entries up to `index`: they cannot be read any more.
    ///
    /// # Panics
    /// When there is no entry at `index`.
    pub fn release(&mut self, index: Index) {
        if index <= self.base.index {
            return;
        }
        let term = self
            .term_at(index)
            .expect("only what is in the log is released");
        let row = self.row(index).expect("an index above the base has a row");
        self.starts.drain(..row);
        self.starts[0].1 = index.next();
        if index == self.last {
            self.starts.clear();
        } else if self
            .starts
            .get(1)
            .is_some_and(|&(_, start)| start == index.next())
        {
            self.starts.remove(0);
        }
        self.base = Position { term, index };
        self.sizes.release(index);
    }

    /// The term of the entry at `index`, or of the base; `None` where nothing is known.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        self.row(index).map(|row| self.starts[row].0)
    }

    /// Whether the log holds an entry at this place, or begins there.
    #[must_use]
    pub fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The last place at or before `limit.index` whose term is not above `limit.term`: everything
    /// between the two cannot agree with a log that has `limit`.
    #[must_use]
    pub fn last_not_above(&self, limit: Position) -> Position {
        let mut end = self.last.min(limit.index);
        for &(term, start) in self.starts.iter().rev() {
            if start > end {
                continue;
            }
            if term <= limit.term {
                return Position { term, index: end };
            }
            end = Index(start.0 - 1);
        }
        self.base
    }

    /// The first of `entries`, which follow `prev`, that differs from what stands here. What lies at or
    /// before the base is committed and so the same. `None` when none differs, be it that the log ends.
    #[must_use]
    pub(super) fn first_conflict(&self, prev: Index, entries: &Entries) -> Option<Index> {
        let mut before = prev;
        for &TermRun { term, count } in &entries.runs {
            let run_last = Index(before.0 + count);
            let mut index = before.next().max(self.base.index.next());
            while index <= run_last.min(self.last) {
                let row = self.row(index).expect("an index above the base has a row");
                if self.starts[row].0 != term {
                    return Some(index);
                }
                index = self.row_last(row).next();
            }
            before = run_last;
        }
        None
    }

    /// Whether `entries`, which follow `prev`, hold another one where the base is, which is committed.
    #[must_use]
    pub(super) fn has_another_base(&self, prev: Index, entries: &Entries) -> bool {
        let mut before = prev;
        for &TermRun { term, count } in &entries.runs {
            let run_last = Index(before.0 + count);
            if before < self.base.index && self.base.index <= run_last {
                return term != self.base.term;
            }
            before = run_last;
        }
        false
    }

    /// Adds those of `entries`, which follow `prev`, that lie behind the end.
    pub(super) fn extend(&mut self, prev: Index, entries: &Entries) {
        // Only their sum is known, and only sums are asked for.
        let each = entries.size_bytes / entries.count().max(1);
        let mut before = prev;
        for &TermRun { term, count } in &entries.runs {
            let run_last = Index(before.0 + count);
            while self.last < run_last {
                self.append(term, each);
            }
            before = run_last;
        }
    }

    /// The entries after `prev` that fit into `budget_bytes`, at least one if there is any.
    ///
    /// # Panics
    /// When `prev` lies outside the log.
    #[must_use]
    pub(super) fn entries_after(&self, prev: Index, budget_bytes: u64) -> Entries {
        assert!(
            prev >= self.base.index && prev <= self.last,
            "entries after {prev} in a log from {} to {}",
            self.base.index,
            self.last
        );
        let mut entries = Entries::default();
        if prev == self.last {
            return entries;
        }
        let first = prev.next();
        let (last, size_bytes) = self.sizes.fit(first, self.last, budget_bytes);
        entries.size_bytes = size_bytes;
        let mut index = first;
        let mut row = self.row(first).expect("an index above the base has a row");
        while index <= last {
            let run_last = self.row_last(row).min(last);
            entries.runs.push(TermRun {
                term: self.starts[row].0,
                count: run_last.0 + 1 - index.0,
            });
            index = run_last.next();
            row += 1;
        }
        entries
    }

    /// The bytes of the entries after `prev`: at least these, and less than a stride more.
    ///
    /// # Panics
    /// When `prev` lies below the base.
    pub(super) fn bytes_after(&self, prev: Index) -> u64 {
        assert!(
            prev >= self.base.index,
            "entries after {prev} in a log from {}",
            self.base.index
        );
        if prev >= self.last {
            return 0;
        }
        self.sizes.fit(prev.next(), self.last, u64::MAX).1
    }

    /// The row of an index above the base.
    fn row(&self, index: Index) -> Option<usize> {
        // Most questions are about the end of the log.
        if self.starts.last().is_some_and(|&(_, start)| start <= index) {
            return Some(self.starts.len() - 1);
        }
        let rows = self.starts.partition_point(|&(_, start)| start <= index);
        rows.checked_sub(1)
    }

    fn row_last(&self, row: usize) -> Index {
        self.starts
            .get(row + 1)
            .map_or(self.last, |&(_, next)| Index(next.0 - 1))
    }
}

/// Sums of sizes at some indexes: one mark per [`RAFT_SIZE_STRIDE_BYTES`], so that a log of a gibibyte
/// costs a megabyte. What lies between two marks is taken at the larger sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sizes {
    /// An index, and the bytes of all entries before it.
    marks: Vec<(Index, u64)>,
    /// The bytes of all entries.
    sum: u64,
}

impl Sizes {
    fn add(&mut self, index: Index, size_bytes: u64) {
        let due = match self.marks.last() {
            None => true,
            Some(&(_, before)) => self.sum - before + size_bytes > RAFT_SIZE_STRIDE_BYTES,
        };
        if due {
            self.marks.push((index, self.sum));
        }
        self.sum = self.sum.saturating_add(size_bytes);
    }

    fn truncate(&mut self, last: Index) {
        while self.marks.last().is_some_and(|&(index, _)| index > last) {
            let (_, before) = self.marks.pop().expect("the last was just seen");
            self.sum = before;
        }
    }

    fn release(&mut self, through: Index) {
        let below = self
            .marks
            .partition_point(|&(index, _)| index <= through.next());
        self.marks.drain(..below.saturating_sub(1));
    }

    /// Up to where entries from `first` on fit into `budget_bytes`, and what they take at most.
    fn fit(&self, first: Index, last: Index, budget_bytes: u64) -> (Index, u64) {
        let mark = self
            .marks
            .partition_point(|&(index, _)| index <= first)
            .saturating_sub(1);
        let Some(&(_, before)) = self.marks.get(mark) else {
            return (last, 0);
        };
        if self.sum - before <= budget_bytes {
            return (last, self.sum - before);
        }
        // At least the rest of this stride: a window that is smaller than a stride must not stop.
        let beyond =
            self.marks[mark + 1..].partition_point(|&(_, sum)| sum - before <= budget_bytes);
        match self.marks.get(mark + beyond.max(1)) {
            Some(&(index, sum)) => (Index(index.0 - 1), sum - before),
            None => (last, self.sum - before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(log: &[u64]) -> LogTerms {
        let mut terms = LogTerms::default();
        for &term in log {
            terms.append(Term(term), 100);
        }
        terms
    }

    fn at(term: u64, index: u64) -> Position {
        Position {
            term: Term(term),
            index: Index(index),
        }
    }

    fn entries(log: &[u64]) -> Entries {
        let mut entries = Entries::default();
        for &term in log {
            entries.push(Term(term), 100);
        }
        entries
    }

    fn check(log: &[u64]) {
        let terms = terms(log);
        for (position, &term) in log.iter().enumerate() {
            assert_eq!(
                terms.term_at(Index(position as u64 + 1)),
                Some(Term(term)),
                "in {log:?}"
            );
        }
        assert_eq!(terms.term_at(Index(0)), Some(Term(0)));
        assert_eq!(terms.term_at(Index(log.len() as u64 + 1)), None);
    }

    /// Goal: every index answers the term that wrote it.
    #[test]
    fn term_of_each_index() {
        check(&[]);
        check(&[1]);
        check(&[1, 1, 1, 3, 3, 3]);
        check(&[2, 3, 4, 4, 9]);
    }

    /// Goal: a cut forgets terms that lie wholly above it, and the log goes on from the cut.
    #[test]
    fn truncation() {
        let mut cut = terms(&[1, 1, 2, 5]);
        cut.truncate(Index(2));
        assert_eq!((cut.last(), cut.term_at(Index(3))), (at(1, 2), None));
        cut.append(Term(6), 100);
        assert_eq!(cut.last(), at(6, 3));
    }

    /// Goal: what is released is not known any more, except the place where the log now begins.
    #[test]
    fn release() {
        for through in 1..=6 {
            let log = [1, 1, 3, 3, 3, 7];
            let mut released = terms(&log);
            released.release(Index(through));
            for index in 0..=6 {
                let expected = match index {
                    0 => None,
                    _ => Some(Term(log[index as usize - 1])),
                };
                let expected = expected.filter(|_| index >= through);
                assert_eq!(
                    released.term_at(Index(index)),
                    expected,
                    "{index} of {through}"
                );
            }
            assert_eq!(released.append(Term(8), 100), Index(7));
            assert_eq!(released.last(), at(8, 7));
        }
    }

    fn check_conflict(log: &[u64], prev: u64, sent: &[u64], expected: Option<u64>) {
        assert_eq!(
            terms(log).first_conflict(Index(prev), &entries(sent)),
            expected.map(Index),
            "{sent:?} after {prev} on {log:?}"
        );
    }

    /// Goal: the first difference, in the examples of the Raft paper's figure 7.
    #[test]
    fn conflicts() {
        check_conflict(&[1, 1, 1, 4, 4], 5, &[5, 5], None);
        check_conflict(&[1, 1, 1, 4, 4], 3, &[4, 4, 5], None);
        check_conflict(&[1, 1, 1, 4, 4, 4], 3, &[4, 4, 5], Some(6));
        check_conflict(&[1, 1, 1, 2, 2, 2, 3, 3], 3, &[4, 4, 5, 5], Some(4));
        check_conflict(&[1, 1], 0, &[1], None);
    }

    fn check_hint(log: &[u64], limit: Position, expected: Position) {
        assert_eq!(
            terms(log).last_not_above(limit),
            expected,
            "{limit:?} on {log:?}"
        );
    }

    /// Goal: the place where two logs can agree at the latest, whole terms at a time.
    #[test]
    fn hints() {
        check_hint(&[1, 1, 1, 4, 4], at(6, 10), at(4, 5));
        check_hint(&[1, 1, 1, 2, 2, 2, 3, 3], at(5, 7), at(3, 7));
        check_hint(&[1, 1, 1, 5, 5, 5], at(4, 6), at(1, 3));
        check_hint(&[5, 5], at(4, 2), at(0, 0));
    }

    /// Goal: what fits is at least one entry, never more than the budget by more than a stride, and all
    /// of it in the end.
    #[test]
    fn budgets() {
        let mut log = LogTerms::default();
        for index in 1..=1_000_u64 {
            log.append(Term(index / 300 + 1), index * 7 % 3_000);
        }
        for budget in [0, 1, 5_000, 100_000, u64::MAX] {
            let mut prev = Index(0);
            while prev < log.last_index() {
                let part = log.entries_after(prev, budget);
                assert!(part.count() >= 1, "nothing after {prev}");
                let slack = RAFT_SIZE_STRIDE_BYTES + 3_000;
                assert!(part.size_bytes <= budget.max(1).saturating_add(slack));
                prev = Index(prev.0 + part.count());
            }
            assert_eq!(prev, log.last_index());
        }
    }
}
