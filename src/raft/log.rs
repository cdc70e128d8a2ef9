//! Which term wrote which index, without the entries.

use crate::base::{Index, Term};

/// The terms of a log, one row per term: terms never fall along a log, so the first index of each is
/// enough.
///
/// ```text
/// index   1  2  3  4  5  6        rows  (term 1 from 1) (term 3 from 4), last 6
/// term    1  1  1  3  3  3
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogTerms {
    /// Of the checkpoint that the log begins after.
    base: (Term, Index),
    starts: Vec<(Term, Index)>,
    last: Index,
}

impl LogTerms {
    /// An empty log after a checkpoint whose last entry is this one.
    #[must_use]
    pub fn after(term: Term, index: Index) -> LogTerms {
        LogTerms {
            base: (term, index),
            starts: Vec::new(),
            last: index,
        }
    }

    /// The last index, zero for an empty log.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.last
    }

    /// The term of the last entry, zero for an empty log.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.starts.last().map_or(self.base.0, |&(term, _)| term)
    }

    /// Adds an entry of `term` and returns its index.
    ///
    /// # Panics
    /// When the term falls or is zero.
    pub fn append(&mut self, term: Term) -> Index {
        let last_term = self.last_term();
        assert!(
            term >= last_term && term > Term(0),
            "term {term} after term {last_term}"
        );
        self.last = self.last.next();
        if term > last_term || self.starts.is_empty() {
            self.starts.push((term, self.last));
        }
        self.last
    }

    /// Drops every entry after `index`.
    pub fn truncate(&mut self, index: Index) {
        self.last = self.last.min(index.max(self.base.1));
        while self
            .starts
            .last()
            .is_some_and(|&(_, start)| start > self.last)
        {
            self.starts.pop();
        }
    }

    /// The term of the entry at `index`; `None` where there is no entry.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == Index(0) || index > self.last || index < self.base.1 {
            return None;
        }
        if index == self.base.1 {
            return Some(self.base.0);
        }
        let rows = self.starts.partition_point(|&(_, start)| start <= index);
        rows.checked_sub(1).map(|row| self.starts[row].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(log: &[u64]) -> LogTerms {
        let mut terms = LogTerms::default();
        for &term in log {
            terms.append(Term(term));
        }
        terms
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
        assert_eq!(terms.term_at(Index(0)), None);
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

    /// Goal: a log that begins after a checkpoint knows its last entry's term and nothing before.
    #[test]
    fn after_a_checkpoint() {
        let mut terms = LogTerms::after(Term(3), Index(7));
        assert_eq!((terms.last_index(), terms.last_term()), (Index(7), Term(3)));
        assert_eq!(terms.append(Term(3)), Index(8));
        assert_eq!(terms.append(Term(5)), Index(9));
        let found = [6, 7, 8, 9, 10].map(|index| terms.term_at(Index(index)));
        let expected = [None, Some(3), Some(3), Some(5), None].map(|term| term.map(Term));
        assert_eq!(found, expected);
        terms.truncate(Index(2));
        assert_eq!(terms, LogTerms::after(Term(3), Index(7)));
    }

    /// Goal: a cut forgets terms that lie wholly above it, and the log goes on from the cut.
    #[test]
    fn truncation() {
        let mut cut = terms(&[1, 1, 2, 5]);
        cut.truncate(Index(2));
        assert_eq!(cut, terms(&[1, 1]));
        cut.append(Term(6));
        assert_eq!(cut, terms(&[1, 1, 6]));
    }
}
