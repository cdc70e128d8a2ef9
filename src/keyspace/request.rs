//! What a keyspace is asked and what it answers, in etcd's terms but without protobuf.
//!
//! The form of a request (empty keys, unknown enum values, overlapping operations, sizes) is checked
//! before it becomes one of these types; what depends on state is decided here, by [`Refusal`].

use bytes::Bytes;

use crate::base::LeaseId;

/// A half-open interval of keys in etcd's convention: an empty `range_end` is the one key `key`,
/// a `range_end` of one zero byte is everything from `key` on, anything else is `[key, range_end)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// First key; never empty once checked.
    pub key: Bytes,
    /// End of the interval, see above.
    pub range_end: Bytes,
}

/// Order of the keys in an answer (etcd's `sort_order`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// Key order, or ascending when the target is not the key.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What an answer is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The number of puts since the key was created.
    Version,
    /// The revision that created the key.
    Create,
    /// The revision that changed the key last.
    Mod,
    /// The value.
    Value,
}

/// A read of an interval of keys at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At most this many keys; zero or less is all.
    pub limit: i64,
    /// At which main revision; zero or less is the current one.
    pub revision: i64,
    /// In which order.
    pub sort_order: SortOrder,
    /// Sorted by what.
    pub sort_target: SortTarget,
    /// Answer from this member's committed state without asking the leader.
    pub serializable: bool,
    /// Leave out the values.
    pub keys_only: bool,
    /// Answer the count only.
    pub count_only: bool,
    /// Do not walk the keys past the limit to count them; `count` is then what was visited.
    /// Not part of etcd's request: the streaming read pages with it.
    pub count_skipped: bool,
    /// Lower bound of the mod revision, when not zero.
    pub min_mod_revision: i64,
    /// Upper bound of the mod revision, when not zero.
    pub max_mod_revision: i64,
    /// Lower bound of the create revision, when not zero.
    pub min_create_revision: i64,
    /// Upper bound of the create revision, when not zero.
    pub max_create_revision: i64,
}

/// A put of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutRequest {
    /// The key; never empty.
    pub key: Bytes,
    /// The value; may be empty.
    pub value: Bytes,
    /// The lease to attach the key to; zero detaches it.
    pub lease: LeaseId,
    /// Answer the key's state before this put.
    pub prev_kv: bool,
    /// Keep the present value; the key must exist.
    pub ignore_value: bool,
    /// Keep the present lease; the key must exist.
    pub ignore_lease: bool,
}

/// A deletion of an interval of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Answer what was deleted.
    pub prev_kv: bool,
}

/// How a compare relates the present value to the given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    /// The same.
    Equal,
    /// The present one is greater.
    Greater,
    /// The present one is less.
    Less,
    /// Not the same.
    NotEqual,
    /// A number this API does not define: etcd takes such a compare as true.
    Unknown,
}

/// What a compare looks at, with the value it compares to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// Puts since creation.
    Version(i64),
    /// Creation revision.
    CreateRevision(i64),
    /// Last change.
    ModRevision(i64),
    /// The value, compared as bytes.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// One condition of a transaction: every key of the interval must satisfy it; an empty interval is
/// treated as one missing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// The relation.
    pub result: CompareResult,
    /// The compared field and value.
    pub target: CompareTarget,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOp {
    /// A read, which sees earlier writes of the same transaction.
    Range(RangeRequest),
    /// A put.
    Put(PutRequest),
    /// A deletion.
    DeleteRange(DeleteRangeRequest),
    /// A transaction inside the transaction; its compares see the state before the outer one.
    Txn(TxnRequest),
}

/// If all compares hold then `success`, else `failure`, as one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest {
    /// Conditions, all of which must hold; none is true.
    pub compare: Vec<Compare>,
    /// Operations when they hold.
    pub success: Vec<RequestOp>,
    /// Operations when they do not.
    pub failure: Vec<RequestOp>,
}

impl TxnRequest {
    /// Whether no branch can write: all top-level operations are ranges. etcd sends a
    /// transaction with a nested one through the log, even if that only reads.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.operations()
            .all(|op| matches!(op, RequestOp::Range(_)))
    }

    /// Whether it may be answered from local state: read-only, and every range is serializable.
    /// A transaction with no operations is.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        self.operations()
            .all(|op| matches!(op, RequestOp::Range(range) if range.serializable))
    }

    fn operations(&self) -> impl Iterator<Item = &RequestOp> {
        self.success.iter().chain(&self.failure)
    }
}

/// One version of a key as clients see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Main revision that created it.
    pub create_revision: i64,
    /// Main revision that changed it last.
    pub mod_revision: i64,
    /// Puts since it was created, from one.
    pub version: i64,
    /// The value; empty when only keys were asked for.
    pub value: Bytes,
    /// The lease it is attached to, zero for none.
    pub lease: LeaseId,
}

/// The answer to a [`RangeRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The keys, ordered and cut as asked.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// Keys in the interval at that revision, whatever limit and filters say.
    pub count: i64,
}

/// The answer to a [`PutRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResponse {
    /// The key before, when asked for and present.
    pub prev_kv: Option<KeyValue>,
}

/// The answer to a [`DeleteRangeRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeResponse {
    /// How many keys were removed.
    pub deleted: i64,
    /// What they were, in key order, when asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// The answer to one [`RequestOp`]. `revision` is what the operation's own header shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseOp {
    /// Of a read.
    Range {
        /// The revision the read saw.
        revision: i64,
        /// The keys.
        response: RangeResponse,
    },
    /// Of a put.
    Put {
        /// The transaction's revision.
        revision: i64,
        /// The answer.
        response: PutResponse,
    },
    /// Of a deletion.
    DeleteRange {
        /// The transaction's revision when anything changed so far, else the one before.
        revision: i64,
        /// The answer.
        response: DeleteRangeResponse,
    },
    /// Of a nested transaction, whose own header is empty.
    Txn(TxnResponse),
}

/// The answer to a [`TxnRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// Whether the compares held.
    pub succeeded: bool,
    /// One answer per operation of the branch taken.
    pub responses: Vec<ResponseOp>,
}

/// Why a keyspace refuses a request; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    /// A put names a lease that does not exist.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// The revision lies below the compaction floor.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision lies above the current one.
    #[error("required revision is a future revision")]
    FutureRevision,
}
