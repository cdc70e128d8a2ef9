//! Wrong behaviours that can be planted on purpose, to prove that the simulator finds them.
//!
//! Each [`Defect`] is asked for at one named point of the code that must not behave like this. What is
//! planted is a value handed in from outside, never a global. Without the feature `planted` nothing can be
//! planted, every question is answered by a constant `false`, and the points compile to nothing.

/// One wrong behaviour. The names say what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// An entry counts as durable when its sync begins.
    AcknowledgedBeforeSync,
    /// A sync that failed is tried again, and believed.
    FailedSyncRetried,
    /// What recovery found in the page cache counts as durable without a sync.
    RecoveredBeforeSync,
    /// Damage with evidence of durability is cut off as if it were a torn tail.
    DamageCutAsTail,
    /// A commit's records are replayed without the checksum over them.
    CommitBodyUnchecked,
    /// The last commit before idleness is never vouched for by a seal.
    SealOmitted,
    /// A transaction whose compares fail is answered at once, from a head that may vanish.
    FailedCompareAnsweredAtOnce,
    /// A linearizable read does not wait for a committed entry of the leader's own term.
    ReadBeforeOwnTerm,
    /// A read sees the head instead of what is committed.
    UncommittedRead,
    /// Compaction frees what lies below a floor that is not committed yet.
    ReclaimedBeforeCommit,
    /// A write whose deadline passed is refused as if it could not have any effect.
    TimeoutAnsweredAsRefusal,
    /// Replay of the log forgets compactions.
    CompactionNotReplayed,
    /// An entry of an older term is committed by counting.
    OlderTermCommitted,
    /// An entry is committed when the leader alone has it.
    CommittedByOne,
    /// A vote, or a request for one, leaves before term and vote are durable.
    VoteBeforeSync,
    /// A second candidate gets a vote in the same term.
    VotesTwice,
    /// A vote goes to a candidate whose log ends before the voter's.
    ShorterLogElected,
    /// A follower acknowledges what it has compared and not synced.
    AcknowledgedUnsynced,
    /// A heartbeat's commit index counts beyond what was compared with this leader's log.
    CommitUnverified,
    /// A conflicting tail is cut one entry too late.
    TailCutWrongly,
    /// The log does not say that a tail was cut.
    TruncationNotRecorded,
    /// An answer to an earlier round confirms the present one.
    StaleReadContext,
    /// A leader reads without asking whether it still leads.
    ReadUnconfirmed,
    /// A lease lasts longer than the promises it rests on.
    LeaseTooLong,
    /// A failed compare is answered when its head is committed, without asking whether this member still leads.
    FailedCompareUnconfirmed,
    /// A follower reads before it has committed what the leader had.
    ReadBeforeCaughtUp,
    /// A forwarded write is sent twice.
    ForwardedTwice,
    /// A member with an empty directory is heard, and votes.
    WipedDirectoryVotes,
    /// A member whose damaged log is being rebuilt votes and acknowledges.
    CorruptVotes,
    /// A member that was rebuilt takes a later loss of its log for the cut that was made then.
    LossTakenForTheCut,
}

impl Defect {
    /// Whether a cluster of one member cannot show it.
    #[must_use]
    pub fn needs_peers(self) -> bool {
        self >= Defect::OlderTermCommitted || self == Defect::RecoveredBeforeSync
    }

    /// Every one.
    pub const ALL: &'static [Defect] = &[
        Defect::AcknowledgedBeforeSync,
        Defect::FailedSyncRetried,
        Defect::RecoveredBeforeSync,
        Defect::DamageCutAsTail,
        Defect::CommitBodyUnchecked,
        Defect::SealOmitted,
        Defect::FailedCompareAnsweredAtOnce,
        Defect::ReadBeforeOwnTerm,
        Defect::UncommittedRead,
        Defect::ReclaimedBeforeCommit,
        Defect::TimeoutAnsweredAsRefusal,
        Defect::CompactionNotReplayed,
        Defect::OlderTermCommitted,
        Defect::CommittedByOne,
        Defect::VoteBeforeSync,
        Defect::VotesTwice,
        Defect::ShorterLogElected,
        Defect::AcknowledgedUnsynced,
        Defect::CommitUnverified,
        Defect::TailCutWrongly,
        Defect::TruncationNotRecorded,
        Defect::StaleReadContext,
        Defect::ReadUnconfirmed,
        Defect::LeaseTooLong,
        Defect::FailedCompareUnconfirmed,
        Defect::ReadBeforeCaughtUp,
        Defect::ForwardedTwice,
        Defect::WipedDirectoryVotes,
        Defect::CorruptVotes,
        Defect::LossTakenForTheCut,
    ];
}

/// What is planted: nothing, or, with the feature `planted`, one defect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    #[cfg(feature = "planted")]
    defect: Option<Defect>,
}

impl Planted {
    /// The code as it is meant.
    pub const NOTHING: Planted = Planted {
        #[cfg(feature = "planted")]
        defect: None,
    };

    /// The code with one thing wrong.
    #[cfg(feature = "planted")]
    #[must_use]
    pub const fn one(defect: Defect) -> Planted {
        Planted {
            defect: Some(defect),
        }
    }

    /// Whether `defect` is planted.
    #[cfg(feature = "planted")]
    #[must_use]
    pub fn has(self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// Whether `defect` is planted: never.
    #[cfg(not(feature = "planted"))]
    #[inline(always)]
    #[must_use]
    pub const fn has(self, _: Defect) -> bool {
        false
    }
}
