//! The members' logs against each other: who leads, what is appended where, what is committed.
//!
//! An entry is known by its index, its term and the digest of everything up to it. The digest is chained, so
//! two logs with one digest at an index are the same up to there.

use std::collections::BTreeMap;

use super::{Promise, Verdict, broken};
use crate::base::{Index, Term};

/// One life of one member: a restart begins another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Which member, counted from zero.
    pub member: usize,
    /// How often it has started.
    pub life: u32,
}

/// An entry as one member holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where.
    pub index: Index,
    /// Who wrote it.
    pub term: Term,
    /// Of the state after it.
    pub digest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Committed {
    term: Term,
    digest: u64,
    /// The term of the member that was first seen to know it committed: it was committed in that term or
    /// before.
    known_in: Term,
}

/// Everything the members were ever seen to hold.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    leaders: BTreeMap<Term, Life>,
    /// By index, from one: every term and digest seen there. Mostly one.
    appended: Vec<Vec<(Term, u64)>>,
    /// By index, from one.
    committed: Vec<Committed>,
}

impl Replicas {
    /// A member leads a term; `holds` tells which term its log has at an index.
    ///
    /// # Errors
    /// Two leaders in a term, or a leader without something committed before.
    pub fn leads(
        &mut self,
        life: Life,
        term: Term,
        holds: impl Fn(Index) -> Option<Term>,
    ) -> Verdict {
        self.leads_after(Index(0), life, term, holds)
    }

    /// The same of a member whose log begins after `base`. What lies below is in a checkpoint, and its digest is
    /// compared when the member shows what is committed.
    ///
    /// # Errors
    /// As [`Self::leads`].
    pub fn leads_after(
        &mut self,
        base: Index,
        life: Life,
        term: Term,
        holds: impl Fn(Index) -> Option<Term>,
    ) -> Verdict {
        let first = *self.leaders.entry(term).or_insert(life);
        if first != life {
            return Err(broken(
                Promise::OneLeader,
                format_args!("{life:?} leads term {term}, which {first:?} led"),
            ));
        }
        // Entries known to be committed in an earlier term; that terms never fall along the log
        // makes the last of them enough.
        let before = self
            .committed
            .iter()
            .enumerate()
            .rev()
            .find(|(_, committed)| committed.known_in < term);
        let Some((at, committed)) = before else {
            return Ok(());
        };
        let index = Index(at as u64 + 1);
        let held = holds(index);
        if index < base || held == Some(committed.term) {
            return Ok(());
        }
        Err(broken(
            Promise::LeaderCompleteness,
            format_args!(
                "{life:?} leads term {term} and holds term {held:?} at index {index}, where term {} was \
                 committed",
                committed.term
            ),
        ))
    }

    /// A leader has counted, and takes what its log holds up to an entry for committed.
    ///
    /// # Errors
    /// That entry is another term's: a later leader may lack it, though a majority has it.
    pub fn counts(
        &self,
        life: Life,
        term: Term,
        index: Index,
        written_in: Option<Term>,
    ) -> Verdict {
        if written_in == Some(term) {
            return Ok(());
        }
        Err(broken(
            Promise::OwnTermCounted,
            format_args!(
                "{life:?} leads term {term} and commits up to index {index}, written in term {written_in:?}"
            ),
        ))
    }

    /// Terms that had a leader.
    #[must_use]
    pub fn leaders_count(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// A member's log holds an entry, committed or not.
    ///
    /// # Errors
    /// Another member holds another log up to an entry of the same index and term.
    pub fn holds(&mut self, member: usize, held: Held) -> Verdict {
        let at = place(held.index);
        if self.appended.len() <= at {
            self.appended.resize(at + 1, Vec::new());
        }
        let seen = &mut self.appended[at];
        match seen.iter().find(|(term, _)| *term == held.term) {
            None => seen.push((held.term, held.digest)),
            Some((_, digest)) if *digest == held.digest => {}
            Some((_, digest)) => {
                return Err(broken(
                    Promise::LogMatching,
                    format_args!(
                        "member {member} holds index {} of term {} with digest {:x}, another one with {digest:x}",
                        held.index, held.term, held.digest
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A member in `known_in` knows an entry committed. Committed entries are reported without gaps until one
    /// was seen before.
    ///
    /// # Errors
    /// Something else was committed there.
    pub fn commits(&mut self, member: usize, held: Held, known_in: Term) -> Verdict {
        let at = place(held.index);
        match self.committed.get(at) {
            Some(committed) if committed.digest == held.digest && committed.term == held.term => {
                Ok(())
            }
            Some(committed) => Err(broken(
                Promise::OneHistory,
                format_args!(
                    "member {member} commits index {} of term {} with digest {:x}; committed there is term \
                     {} with {:x}",
                    held.index, held.term, held.digest, committed.term, committed.digest
                ),
            )),
            None => {
                assert_eq!(
                    at,
                    self.committed.len(),
                    "committed entries are reported in order"
                );
                self.committed.push(Committed {
                    term: held.term,
                    digest: held.digest,
                    known_in,
                });
                Ok(())
            }
        }
    }

    /// The last index that any member was seen to know committed.
    #[must_use]
    pub fn committed_index(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// A member that is a majority by itself starts with a log that ends at `last_index`: nothing committed may
    /// be missing.
    ///
    /// # Errors
    /// Something is.
    pub fn lone_restart(&self, member: usize, last_index: Index) -> Verdict {
        let committed = self.committed_index();
        if last_index < committed {
            return Err(broken(
                Promise::NothingLost,
                format_args!(
                    "member {member} restarts with a log that ends at {last_index}; {committed} was committed"
                ),
            ));
        }
        Ok(())
    }
}

fn place(index: Index) -> usize {
    usize::try_from(index.0 - 1).expect("an index fits in an address")
}
