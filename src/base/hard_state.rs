//! What a member promises beside its entries.

use super::{Index, MemberId, Term};

/// What must survive a restart beside the entries (Raft paper, figure 2, "persistent state"; the
/// commit index is kept as well, so that a restart knows how far it had come). Consensus decides it, and
/// every commit header of the log carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term seen.
    pub term: Term,
    /// Who got this member's vote in that term. A member's id is never zero.
    pub vote: Option<MemberId>,
    /// Highest index known to be committed. May lag; never wrong.
    pub commit: Index,
}
