//! The part of etcd's client API that the tests speak: `etcdserverpb` and `mvccpb`, by field number.

use bytes::Bytes;

/// Method path of KV.Put.
pub const PUT: &str = "/etcdserverpb.KV/Put";
/// Method path of KV.Range.
pub const RANGE: &str = "/etcdserverpb.KV/Range";
/// Method path of KV.Txn.
pub const TXN: &str = "/etcdserverpb.KV/Txn";
/// Method path of KV.Compact.
pub const COMPACT: &str = "/etcdserverpb.KV/Compact";
/// Method path of Maintenance.Status.
pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";
/// Method path of Maintenance.MoveLeader.
pub const MOVE_LEADER: &str = "/etcdserverpb.Maintenance/MoveLeader";
/// Method path of Maintenance.Alarm.
pub const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";

/// First part of every answer.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ResponseHeader {
    /// The cluster.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The member that answered.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// Main revision when the request was applied.
    #[prost(int64, tag = "3")]
    pub revision: i64,
    /// The member's term.
    #[prost(uint64, tag = "4")]
    pub raft_term: u64,
}

/// One version of a key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Revision that created the key.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// Revision that changed it last.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// Puts since its creation.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// The lease it hangs on, zero for none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// KV.Put.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// Answer to KV.Put.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct PutResponse {
    /// Carries the revision of the put.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// KV.Range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeRequest {
    /// First key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// End of the interval; one zero byte is "to the last key".
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// At most this many keys, zero for all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// The state at this revision, zero for now.
    #[prost(int64, tag = "4")]
    pub revision: i64,
}

/// Answer to KV.Range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeResponse {
    /// Carries the current revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The keys, in order.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut something off.
    #[prost(bool, tag = "3")]
    pub more: bool,
    /// Keys in the interval.
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// KV.DeleteRange, here only inside a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRangeRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// End of the interval.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestOp {
    /// Which one.
    #[prost(oneof = "request_op::Request", tags = "2, 3")]
    pub request: Option<request_op::Request>,
}

/// The alternatives of [`RequestOp`].
pub mod request_op {
    /// What the operation does.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Request {
        /// A put.
        #[prost(message, tag = "2")]
        Put(super::PutRequest),
        /// A deletion.
        #[prost(message, tag = "3")]
        DeleteRange(super::DeleteRangeRequest),
    }
}

/// KV.Txn without conditions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnRequest {
    /// The operations, in order, as one revision.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
}

/// Answer to KV.Txn, without the answers of its operations.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct TxnResponse {
    /// Carries the revision of the transaction.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Whether the conditions held.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
}

/// KV.Compact.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct CompactionRequest {
    /// History below this revision goes.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// Answer when the space is reclaimed.
    #[prost(bool, tag = "2")]
    pub physical: bool,
}

/// Answer to KV.Compact.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct CompactionResponse {
    /// Carries the current revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Maintenance.Alarm.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct AlarmRequest {
    /// 0 lists, 1 raises, 2 clears.
    #[prost(int32, tag = "1")]
    pub action: i32,
    /// Whose alarm.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// 0 any, 1 NOSPACE, 2 CORRUPT.
    #[prost(int32, tag = "3")]
    pub alarm: i32,
}

/// One raised alarm.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct AlarmMember {
    /// Whose alarm.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// 1 NOSPACE, 2 CORRUPT.
    #[prost(int32, tag = "2")]
    pub alarm: i32,
}

/// Answer to Maintenance.Alarm.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AlarmResponse {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// What is raised, or was cleared.
    #[prost(message, repeated, tag = "2")]
    pub alarms: Vec<AlarmMember>,
}

/// Maintenance.MoveLeader.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct MoveLeaderRequest {
    /// Who shall lead.
    #[prost(uint64, tag = "1")]
    pub target_id: u64,
}

/// Answer to Maintenance.MoveLeader; etcd sends no header.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct MoveLeaderResponse {}

/// Maintenance.Status.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct StatusRequest {}

/// Answer to Maintenance.Status, about the member that gives it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// The header; its revision is that of the member, which may lag.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The member's version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Whom the member takes for the leader, zero for nobody.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
    /// Last index of the member's log.
    #[prost(uint64, tag = "5")]
    pub raft_index: u64,
    /// The member's term.
    #[prost(uint64, tag = "6")]
    pub raft_term: u64,
    /// Last index that the member has applied.
    #[prost(uint64, tag = "7")]
    pub raft_applied_index: u64,
}
