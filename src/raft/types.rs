//! The words of consensus: roles, positions, and what a step asks for.

use super::membership::Membership;
use super::message::{Message, StateDigest};
use crate::base::{HardState, Incarnation, Index, MemberId, Term};

/// What a member is in its present term (Raft paper, figure 4; dissertation, sections 4.2.1 and 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows whoever leads.
    Follower,
    /// Follows without a vote.
    Learner,
    /// Asks whether it would be elected, without disturbing anybody's term.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads: the only one that appends.
    Leader,
}

/// The place of an entry. Ordered as the election rule compares the ends of two logs: the later term
/// wins, and within a term the longer log (Raft paper, section 5.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term that wrote it.
    pub term: Term,
    /// Where it stands in the log.
    pub index: Index,
}

/// The number of a confirmation of leadership. What was asked before round `n` began is answered by the
/// end of `n` or of any later round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);

/// What a member whose log was damaged waits for before its word counts again. Its module, `rebuild`, says
/// why that is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuild {
    /// What the damaged log itself showed to be committed. The leader names what else there may be.
    pub through: Index,
    /// Nothing behind the damage told the newest term: every other voter must be heard first.
    pub every_voter: bool,
}

impl Rebuild {
    /// What waits for both.
    #[must_use]
    pub fn and(self, other: Rebuild) -> Rebuild {
        Rebuild {
            through: self.through.max(other.through),
            every_voter: self.every_voter || other.every_voter,
        }
    }
}

/// Why a leader stopped leading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepDown {
    /// Somebody is in a later term.
    #[error("another member is in a later term")]
    HigherTerm,
    /// No majority was heard for an election timeout (dissertation, section 6.2).
    #[error("no majority was heard for an election timeout")]
    LostQuorum,
    /// The entry that removes this member is committed (dissertation, section 4.2.2).
    #[error("it was removed from the cluster")]
    Removed,
    /// Its disk does not complete its syncs, and handing over did not succeed.
    #[error("its disk does not complete a sync, and nobody took over on request")]
    SyncStalled,
}

/// Why messages of a sender are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// Its directory is not the one this member id belongs to.
    #[error("the member's data directory is {known}")]
    OtherIncarnation {
        /// The one it belongs to.
        known: Incarnation,
    },
    /// It says what no leader can say, and the group has not agreed on its directory: anybody may have made it up.
    #[error("it says what cannot be, and the group has not agreed on its data directory")]
    Impossible,
    /// It was removed from the cluster; it has been told.
    #[error("it was removed from the cluster")]
    Removed,
}

/// What a step of consensus asks for. In the order in which they come out; none of them waits for the
/// disk: what may leave only after a sync is not put out before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write term and vote, sync, then call `hard_state_durable`.
    PersistHardState(HardState),
    /// Send this now. An `Append` with entries names a range: the caller attaches their bytes.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
    },
    /// Drop every entry after this index.
    TruncateLog {
        /// The last entry that stays; never below what is committed.
        after: Index,
    },
    /// Append the entries of the message that is being handled, these and no others.
    AppendEntries {
        /// The first of them.
        first: Index,
        /// The last of them.
        last: Index,
    },
    /// The log begins anew after an installed checkpoint: nothing of what it held is kept.
    ResetLog {
        /// Where the checkpoint stands; the next entry follows it.
        base: Position,
    },
    /// Everything up to here is committed.
    Committed(Index),
    /// This member leads now: append the no-op entry of the term (Raft paper, section 8).
    BecameLeader {
        /// The term it leads.
        term: Term,
    },
    /// This member does not lead any more.
    SteppedDown(StepDown),
    /// Somebody else, or nobody, is known to lead.
    LeaderChanged(Option<MemberId>),
    /// Reads that asked for this round or an earlier one are linearizable at `index`.
    ReadReady {
        /// The round that ended.
        round: Round,
        /// What must be committed here before they are answered.
        index: Index,
    },
    /// This follower needs entries that the log has not any more: send it a checkpoint, then call
    /// `checkpoint_sent`.
    NeedsCheckpoint {
        /// Who.
        to: MemberId,
    },
    /// Another membership is in force.
    MembershipChanged(Membership),
    /// The leader's digest of the state at an index that is committed here: compare.
    CompareDigest(StateDigest),
    /// Store durably that this member's directory is this one, then call `incarnation_durable`.
    LearnIncarnation {
        /// Whose.
        member: MemberId,
        /// Which.
        incarnation: Incarnation,
    },
    /// The removal of this member is committed: which directory it has need not be stored any more.
    ForgetIncarnation {
        /// Whose.
        member: MemberId,
    },
    /// A majority knows no other directory for this member id: store durably that it may vote.
    IdentityConfirmed,
    /// Messages of this sender are dropped, and why.
    RefusedPeer {
        /// Who it says it is.
        member: MemberId,
        /// The directory it comes from.
        incarnation: Incarnation,
        /// Why.
        why: PeerRefusal,
    },
    /// A follower whose word counts lacks what it has acknowledged: nobody can tell what else it has forgotten. Said once
    /// in a term, unless it has that again meanwhile.
    FollowerForgot {
        /// Who.
        member: MemberId,
        /// What it had acknowledged.
        acknowledged: Index,
    },
    /// Peers know another directory for this member id: stop.
    OwnIdentityRefused,
    /// This member was removed from the cluster: stop.
    Removed,
    /// A damaged log is whole again up to the index asked for: store durably that it may vote.
    Rebuilt,
    /// A transfer of leadership did not happen in time; this member goes on leading.
    TransferAbandoned {
        /// To whom.
        to: MemberId,
    },
}
