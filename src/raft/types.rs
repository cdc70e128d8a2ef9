//! The words of consensus.

use crate::base::{Index, MemberId, Term};

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

/// What must survive a restart beside the entries (Raft paper, figure 2, "persistent state"; the
/// commit index is kept as well, so that a restart knows how far it had come).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term seen.
    pub term: Term,
    /// Who got this member's vote in that term.
    pub vote: Option<MemberId>,
    /// Highest index known to be committed.
    pub commit: Index,
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
