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
}

impl Defect {
    /// Every defect.
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
