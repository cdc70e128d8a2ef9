//! The words of consensus.

use crate::base::{HardState, Index, Term};

/// What a member is in its present term (Raft paper, figure 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows whoever leads.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads: the only one that appends.
    Leader,
}

/// What a step of consensus asks for, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write term and vote, sync, then call `hard_state_durable`. Nothing that rests on them leaves
    /// before.
    PersistHardState(HardState),
    /// This member leads now: append the no-op entry of the term (Raft paper, section 8).
    BecameLeader {
        /// The term it leads.
        term: Term,
    },
    /// Everything up to here is committed.
    Committed(Index),
}
