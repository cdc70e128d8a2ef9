//! What a revision is: one number per transaction that changed something, and a place inside it.

/// Main revision of an empty store, as in etcd: the first change gets 2.
pub const FIRST_MAIN: i64 = 1;
/// The compaction floor of a store that was never compacted; compacting at 0 is still possible.
pub const FLOOR_NONE: i64 = -1;

/// The position of one change in the keyspace's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Counts transactions that changed something.
    pub main: i64,
    /// Counts the changes inside one transaction, from zero, in order of execution.
    pub sub: u32,
}

/// Which end of the keyspace a request is evaluated against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Everything folded, committed or not. Only the leader's evaluation looks here, and what it
    /// concludes may leave only after it is committed.
    Head,
    /// Everything committed.
    Committed,
}
