//! The rules a history must keep, and how a breach is told.

use std::fmt;

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// An answer's shape does not fit its request.
    Shape,
    /// Two writes were given one revision, or one that existed before the record.
    DuplicateRevision,
    /// A revision exists that no write of the record can have made.
    MissingWriter,
    /// A version was seen that no write of the record can have made.
    Phantom,
    /// The one write that can have made a revision was invoked after that revision had been seen.
    WrittenTooLate,
    /// An operation's revision is behind one that was known before it was invoked.
    RealTime,
    /// An answer shows something newer than the revision it claims.
    FutureVersion,
    /// Two answers differ about one version.
    Disagreement,
    /// A range's keys are not those of its revision.
    WrongRange,
    /// A count, or whether there is more, is wrong.
    WrongCount,
    /// A previous version is not the one before.
    WrongPrevious,
    /// A transaction took the wrong branch.
    WrongCompare,
    /// Refused as compacted although nothing had compacted it, or answered although it was compacted.
    WrongCompacted,
    /// Refused as a future revision although that revision was known.
    WrongFuture,
    /// Watch: something came before it was created, after its end, or outside its interval and filters.
    WatchUnasked,
    /// Watch: an event came after a later one.
    WatchOrder,
    /// Watch: an event came twice.
    WatchDuplicate,
    /// Watch: the events of one revision were torn apart.
    WatchTorn,
    /// Watch: an event between the first and the last one, or before a bookmark, did not come.
    WatchGap,
    /// Watch: an event is below the revision asked for.
    WatchStart,
    /// Watch: an event at or below a bookmark came after it, or the bookmark moved back.
    WatchBookmark,
    /// Watch: an event or its previous version is not what was written.
    WatchContent,
    /// Watch: a response's header is behind its own events.
    WatchHeader,
    /// Watch: cancelled as compacted although nothing had compacted what it still owed.
    WatchCancelled,
}

/// One breach of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// What is wrong, in words.
    pub what: String,
    /// The operations or notices involved, as text.
    pub involved: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)?;
        for each in &self.involved {
            write!(f, "\n    {each}")?;
        }
        Ok(())
    }
}

/// Violations kept with their words; beyond, they are only counted.
pub(super) const VIOLATIONS_KEPT_MAX: usize = 100;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The first [`Report::violation_count`] of them, at most a hundred.
    pub violations: Vec<Violation>,
    /// How many there are.
    pub violation_count: u64,
    /// Operations in the record.
    pub operations: u64,
    /// Of them, writes that were acknowledged.
    pub writes: u64,
    /// Of them, writes without an answer.
    pub unknown_writes: u64,
    /// Of these, how many certainly took effect, and where is known.
    pub unknown_settled: u64,
    /// Revisions whose writer is one of several that had no answer, and could not be told.
    pub revisions_unsettled: u64,
    /// Judgements that could have gone either way because of these, or that lie before the base.
    pub unjudged: u64,
    /// Watch notices in the record.
    pub watch_notices: u64,
    /// Events of watches that were compared with what was written.
    pub watch_events: u64,
    /// The newest revision seen.
    pub revision: i64,
}

impl Report {
    /// Whether no rule is broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violation_count == 0
    }

    pub(super) fn add(&mut self, rule: Rule, what: String, involved: Vec<String>) {
        self.violation_count += 1;
        if self.violations.len() < VIOLATIONS_KEPT_MAX {
            self.violations.push(Violation {
                rule,
                what,
                involved,
            });
        }
    }
}
