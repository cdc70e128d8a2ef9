//! What must hold, seen from outside: the members' logs against each other, and the clients' answers against
//! a model.
//!
//! The checkers are fed observations and know nothing of how they came about, so each can be shown a
//! violation made by hand. They never ask a member to behave; the first violation ends the run.

pub mod history;
pub mod members;
pub mod model;
pub mod pledges;
pub mod replicas;

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// What was seen.
    pub seen: String,
}

/// What a cluster promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// At most one leader in a term (Raft paper, figure 3: election safety).
    OneLeader,
    /// A member votes once in a term (Raft paper, section 5.2).
    OneVote,
    /// A leader commits by counting only what it has written itself (Raft paper, section 5.4.2).
    OwnTermCounted,
    /// A member remembers its votes and what it has acknowledged, whatever happens to its process and to its power.
    NothingForgotten,
    /// Logs that agree in one entry agree in everything before it (log matching).
    LogMatching,
    /// A leader holds every entry committed before its term (leader completeness).
    LeaderCompleteness,
    /// What is committed at an index is the same on every member, for ever (state machine safety).
    OneHistory,
    /// Nothing that was acknowledged is lost.
    NothingLost,
    /// No answer shows what is not committed.
    NothingUncommitted,
    /// Every answer is that of one order of all requests that respects real time.
    Linearizable,
    /// A request takes effect as a whole, at most once, and not after it was refused.
    OnceAndWhole,
    /// Data that was durable and is damaged is noticed; a healthy disk is not called damaged.
    DamageNoticed,
    /// A directory serves the member it was made for, and no other.
    OwnDirectory,
    /// When the faults end, the cluster serves and its members agree.
    Liveness,
    /// The product's own assertions hold.
    NoPanic,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.seen)
    }
}

/// Nothing wrong, or the first thing that is.
pub type Verdict = Result<(), Violation>;

/// A violation with its words.
pub(super) fn broken(promise: Promise, seen: std::fmt::Arguments<'_>) -> Violation {
    Violation {
        promise,
        seen: seen.to_string(),
    }
}
