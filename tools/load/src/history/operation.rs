//! What a record holds: operations as a client saw them, and what its watches were sent.
//!
//! Plain values without behaviour that could fail. Values of keys are kept as a hash: to judge a history
//! it is enough to know which value was seen, and a record of large values stays small.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// Nanoseconds on the clock of the record's header.
pub type Nanos = u64;

/// Which value: XXH3 of its bytes. Two different values look the same with a probability of 2^-64; then a
/// violation may go unseen, but none is ever made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueHash(pub u64);

impl ValueHash {
    /// The hash of `value`.
    #[must_use]
    pub fn of(value: &[u8]) -> ValueHash {
        ValueHash(xxh3_64(value))
    }
}

/// One version of a key as a server showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    /// The key.
    pub key: Bytes,
    /// Revision that created it.
    pub create_revision: i64,
    /// Revision that changed it last.
    pub mod_revision: i64,
    /// Puts since its creation.
    pub version: i64,
    /// Its value; absent when only keys were asked for, and then the lease is not judged either.
    pub value: Option<ValueHash>,
    /// The lease it hangs on, zero for none.
    pub lease: i64,
}

/// Arguments of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: ValueHash,
    /// The lease to hang it on, zero for none.
    pub lease: i64,
    /// Whether the previous version was asked for.
    pub prev_kv: bool,
}

/// An interval of keys as etcd writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// First key.
    pub key: Bytes,
    /// Empty: the one key. One zero byte: everything from the key on. Else the first key outside.
    pub range_end: Bytes,
}

impl Interval {
    /// One key.
    #[must_use]
    pub fn one(key: impl Into<Bytes>) -> Interval {
        Interval {
            key: key.into(),
            range_end: Bytes::new(),
        }
    }

    /// Every key.
    #[must_use]
    pub fn all() -> Interval {
        Interval {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
        }
    }

    /// Whether `key` lies in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.range_end[..] {
            [] => key == self.key,
            [0] => key >= &self.key[..],
            end => key >= &self.key[..] && key < end,
        }
    }
}

/// Arguments of a range in key order without filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which keys.
    pub interval: Interval,
    /// At most this many keys, zero for all.
    pub limit: i64,
    /// The state at this revision, zero for the current one.
    pub revision: i64,
    /// Whether an old state is good enough.
    pub serializable: bool,
    /// Whether only their number was asked for.
    pub count_only: bool,
}

/// Arguments of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Which keys.
    pub interval: Interval,
    /// Whether the removed versions were asked for.
    pub prev_kv: bool,
}

/// How a compare relates the key's field to the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Field = operand.
    Equal,
    /// Field > operand.
    Greater,
    /// Field < operand.
    Less,
    /// Field != operand.
    NotEqual,
}

/// What a compare looks at, with its operand. A missing key counts as zero, and fails every compare of
/// its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Puts since creation.
    Version(i64),
    /// Revision of creation.
    Create(i64),
    /// Revision of the last change.
    Mod(i64),
    /// The lease.
    Lease(i64),
    /// The value. Only equality can be judged from a hash.
    Value(ValueHash),
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Bytes,
    /// How.
    pub relation: Relation,
    /// With what.
    pub operand: Operand,
}

/// One operation inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOp {
    /// A put.
    Put(Put),
    /// A range.
    Range(Range),
    /// A deletion.
    Delete(Delete),
}

/// A transaction without transactions inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// Done when they hold.
    pub success: Vec<TxnOp>,
    /// Done when one does not.
    pub failure: Vec<TxnOp>,
}

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// KV.Put.
    Put(Put),
    /// KV.Range.
    Range(Range),
    /// KV.DeleteRange.
    Delete(Delete),
    /// KV.Txn.
    Txn(Txn),
    /// KV.Compact at this revision.
    Compact(i64),
    /// Lease.LeaseGrant.
    LeaseGrant {
        /// The wanted id, zero when the server shall choose.
        id: i64,
        /// The wanted time to live in seconds.
        ttl: i64,
    },
    /// Lease.LeaseRevoke of this id.
    LeaseRevoke(i64),
    /// One renewal of this id on Lease.LeaseKeepAlive.
    LeaseKeepAlive(i64),
}

/// Answer to a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutAnswer {
    /// The previous version, when asked for and there.
    pub prev: Option<Kv>,
}

/// Answer to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeAnswer {
    /// The keys, in order.
    pub kvs: Vec<Kv>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// Keys in the interval, whatever the limit.
    pub count: i64,
}

/// Answer to a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteAnswer {
    /// How many keys went.
    pub deleted: i64,
    /// Their last versions in key order, when asked for.
    pub prev_kvs: Vec<Kv>,
}

/// Answer to one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOpAnswer {
    /// Of a put.
    Put(PutAnswer),
    /// Of a range.
    Range(RangeAnswer),
    /// Of a deletion.
    Delete(DeleteAnswer),
}

/// Answer to a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnAnswer {
    /// Whether the compares held.
    pub succeeded: bool,
    /// One per operation of the branch taken.
    pub answers: Vec<TxnOpAnswer>,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a put.
    Put(PutAnswer),
    /// To a range.
    Range(RangeAnswer),
    /// To a deletion.
    Delete(DeleteAnswer),
    /// To a transaction.
    Txn(TxnAnswer),
    /// To a compaction.
    Compact,
    /// To a grant.
    LeaseGrant {
        /// The lease.
        id: i64,
        /// The granted time to live in seconds.
        ttl: i64,
    },
    /// To a revocation.
    LeaseRevoke,
    /// To a renewal: the time to live in seconds, zero when the lease is gone.
    LeaseKeepAlive(i64),
}

/// Why a request certainly had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The revision asked for is compacted.
    Compacted,
    /// The revision asked for does not exist yet.
    Future,
    /// Anything else, as a gRPC status code.
    Code(u32),
}

/// How an operation ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Ok {
        /// The revision of the answer's header.
        revision: i64,
        /// The rest of it.
        answer: Answer,
    },
    /// Refused: it had no effect and will have none.
    Refused(Refusal),
    /// No answer, or one that does not tell: it may have taken effect, or may still.
    Unknown,
}

impl Outcome {
    /// What a gRPC status other than OK says about an operation. Only statuses that etcd gives before a
    /// request enters its log, or as the log's deterministic verdict, are refusals; every other one may
    /// follow an effect.
    #[must_use]
    pub fn of_status(code: u32, message: &str) -> Outcome {
        const UNKNOWN: u32 = 2;
        const OUT_OF_RANGE: u32 = 11;
        match code {
            // The one text without a better code that says that nothing was begun.
            UNKNOWN if message == "etcdserver: too many requests" => {
                Outcome::Refused(Refusal::Code(code))
            }
            OUT_OF_RANGE if message.ends_with("required revision has been compacted") => {
                Outcome::Refused(Refusal::Compacted)
            }
            OUT_OF_RANGE if message.ends_with("required revision is a future revision") => {
                Outcome::Refused(Refusal::Future)
            }
            // InvalidArgument, NotFound, AlreadyExists, PermissionDenied, ResourceExhausted,
            // FailedPrecondition, OutOfRange, Unimplemented, Unauthenticated.
            3 | 5 | 6 | 7 | 8 | 9 | OUT_OF_RANGE | 12 | 16 => Outcome::Refused(Refusal::Code(code)),
            _ => Outcome::Unknown,
        }
    }
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client; a number without meaning.
    pub client: u32,
    /// Read before the request left.
    pub invoked: Nanos,
    /// Read after the answer, or the failure, had come.
    pub returned: Nanos,
    /// What was asked.
    pub request: Request,
    /// How it ended.
    pub outcome: Outcome,
}

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// A put, else a deletion.
    pub put: bool,
    /// The new version; of a deletion only key and mod revision.
    pub kv: Kv,
    /// The version before, when asked for and there.
    pub prev: Option<Kv>,
}

/// What was asked of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// Which keys.
    pub interval: Interval,
    /// First revision, zero for what comes after the current one. A resumed watch states the revision after
    /// the last it has seen.
    pub start_revision: i64,
    /// Whether previous versions were asked for.
    pub prev_kv: bool,
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletions.
    pub no_delete: bool,
}

/// What came on a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchNotice {
    /// It exists.
    Created {
        /// The revision of the header.
        revision: i64,
        /// What had been asked.
        request: WatchRequest,
    },
    /// One response with events.
    Events {
        /// The revision of the header.
        revision: i64,
        /// More pieces of the same response follow.
        fragment: bool,
        /// In the order they came.
        events: Vec<Event>,
    },
    /// Everything up to this revision has been sent: to this watch, or with the id [`WATCH_ALL`] to every
    /// watch of the stream.
    Progress {
        /// The revision of the header.
        revision: i64,
    },
    /// The server ended it; with the id [`WATCH_ALL`] it refused to create one.
    Cancelled {
        /// Where history begins, if that is why, else zero.
        compact_revision: i64,
    },
    /// The client ended it, or the stream broke: nothing more is owed.
    Ended,
}

/// The id that no watch has: that of a progress notice to all watches of a stream, and of a refusal to create one.
pub const WATCH_ALL: i64 = -1;

/// One thing that came on a stream of watches. Those of one stream are recorded in the order they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEntry {
    /// The stream; a number without meaning.
    pub stream: u32,
    /// The watch on it. An id may be used again after its end.
    pub watch: i64,
    /// Read after it had come.
    pub at: Nanos,
    /// What it was.
    pub notice: WatchNotice,
}

/// The state before the first operation of a record, or a part of it. Of several records judged together the lowest
/// one is the base of all, and the others must fit what was written since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The store's revision then.
    pub revision: i64,
    /// Keys of that state; several entries add up.
    pub kvs: Vec<Kv>,
}

/// One entry of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The state before.
    Base(Base),
    /// What a client did.
    Operation(Operation),
    /// What a watch was sent.
    Watch(WatchEntry),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only what says that nothing was begun is a refusal.
    #[test]
    fn statuses() {
        let check = |code: u32, message: &str, refused: bool| {
            let outcome = Outcome::of_status(code, message);
            let expected = match refused {
                true => Outcome::Refused(Refusal::Code(code)),
                false => Outcome::Unknown,
            };
            assert_eq!(outcome, expected, "{code} {message}");
        };
        check(3, "etcdserver: key is not provided", true);
        check(8, "etcdserver: mvcc: database space exceeded", true);
        check(2, "etcdserver: too many requests", true);
        check(2, "EOF", false);
        check(4, "context deadline exceeded", false);
        check(14, "etcdserver: request timed out", false);
    }
}
