//! Requests of clients on their way to the leader, as version 1 archives them.

use bytes::Bytes;
use rkyv::{Archive, Serialize};

use super::WireError;
use super::response::{AlarmKind, bytes_to_texts, texts_to_bytes};
use crate::base::{LeaseId, MemberId};
use crate::keyspace::request as keyspace;
use crate::raft;
use crate::shard::event;

/// Declares the archived mirror of an enum without fields, and the way there and back.
macro_rules! mirror {
    ($(#[$meta:meta])* $name:ident, $archived:ident, $of:path { $($variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Archive, Serialize)]
        pub(super) enum $name { $($variant),+ }

        impl From<$of> for $name {
            fn from(value: $of) -> $name {
                use $of as Of;
                match value { $(Of::$variant => $name::$variant),+ }
            }
        }

        impl From<&$archived> for $of {
            fn from(value: &$archived) -> $of {
                use $of as Of;
                match value { $($archived::$variant => Of::$variant),+ }
            }
        }
    };
}
pub(super) use mirror;

mirror!(
    /// How keys of an answer are ordered.
    SortOrder, ArchivedSortOrder, keyspace::SortOrder { None, Ascend, Descend }
);
mirror!(
    /// By what.
    SortTarget, ArchivedSortTarget, keyspace::SortTarget { Key, Version, Create, Mod, Value }
);
mirror!(
    /// The relation of a compare.
    CompareResult, ArchivedCompareResult,
    keyspace::CompareResult { Equal, Greater, Less, NotEqual, Unknown }
);
mirror!(
    /// On what linearizable reads rest.
    ReadMode, ArchivedReadMode, raft::ReadMode { Quorum, Lease }
);

/// An [`event::Request`].
#[derive(Archive, Serialize)]
pub(super) enum Request {
    Range(Range),
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
    Compact {
        revision: i64,
        physical: bool,
    },
    Status,
    MemberList {
        linearizable: bool,
    },
    AlarmList {
        kind: Option<AlarmKind>,
    },
    AlarmActivate {
        member: u64,
        kind: AlarmKind,
    },
    AlarmDeactivate {
        member: u64,
        kind: AlarmKind,
    },
    AlarmNothing,
    MemberAdd {
        member: u64,
        peer_urls: Vec<Vec<u8>>,
        is_learner: bool,
    },
    MemberRemove {
        member: u64,
    },
    MemberPromote {
        member: u64,
    },
    MemberUpdate {
        member: u64,
        peer_urls: Vec<Vec<u8>>,
    },
    ReadMode,
    ChangeReadMode {
        mode: ReadMode,
    },
}

/// A [`keyspace::KeyRange`].
#[derive(Archive, Serialize)]
pub(super) struct KeyRange {
    key: Bytes,
    range_end: Bytes,
}

/// A [`keyspace::RangeRequest`].
#[derive(Archive, Serialize)]
pub(super) struct Range {
    range: KeyRange,
    limit: i64,
    revision: i64,
    sort_order: SortOrder,
    sort_target: SortTarget,
    serializable: bool,
    keys_only: bool,
    count_only: bool,
    count_skipped: bool,
    min_mod_revision: i64,
    max_mod_revision: i64,
    min_create_revision: i64,
    max_create_revision: i64,
}

/// A [`keyspace::PutRequest`].
#[derive(Archive, Serialize)]
pub(super) struct Put {
    key: Bytes,
    value: Bytes,
    lease: i64,
    prev_kv: bool,
    ignore_value: bool,
    ignore_lease: bool,
}

/// A [`keyspace::DeleteRangeRequest`].
#[derive(Archive, Serialize)]
pub(super) struct DeleteRange {
    range: KeyRange,
    prev_kv: bool,
}

/// A [`keyspace::Compare`].
#[derive(Archive, Serialize)]
pub(super) struct Compare {
    range: KeyRange,
    result: CompareResult,
    target: CompareTarget,
}

/// A [`keyspace::CompareTarget`].
#[derive(Archive, Serialize)]
enum CompareTarget {
    Version(i64),
    CreateRevision(i64),
    ModRevision(i64),
    Value(Bytes),
    Lease(i64),
}

/// A [`keyspace::RequestOp`].
#[derive(Archive, Serialize)]
enum Operation {
    Range(Range),
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
}

/// A [`keyspace::TxnRequest`]. How deep they nest is bounded by the depth of an archive.
#[derive(Archive, Serialize)]
#[rkyv(serialize_bounds(
    __S: rkyv::ser::Writer + rkyv::ser::Allocator,
    __S::Error: rkyv::rancor::Source,
))]
#[rkyv(bytecheck(bounds(
    __C: rkyv::validation::ArchiveContext,
    __C::Error: rkyv::rancor::Source,
)))]
pub(super) struct Txn {
    compare: Vec<Compare>,
    #[rkyv(omit_bounds)]
    success: Vec<Operation>,
    #[rkyv(omit_bounds)]
    failure: Vec<Operation>,
}

impl From<&event::Request> for Request {
    fn from(request: &event::Request) -> Request {
        use event::{AlarmRequest, MembershipRequest, Request as Asked};
        match request {
            Asked::Range(range) => Request::Range(range.into()),
            Asked::Put(put) => Request::Put(put.into()),
            Asked::DeleteRange(deletion) => Request::DeleteRange(deletion.into()),
            Asked::Txn(txn) => Request::Txn(txn.into()),
            Asked::Compact { revision, physical } => Request::Compact {
                revision: *revision,
                physical: *physical,
            },
            Asked::Status => Request::Status,
            Asked::MemberList { linearizable } => Request::MemberList {
                linearizable: *linearizable,
            },
            Asked::Alarm(AlarmRequest::List(kind)) => Request::AlarmList {
                kind: kind.map(AlarmKind::from),
            },
            Asked::Alarm(AlarmRequest::Activate(member, kind)) => Request::AlarmActivate {
                member: member.0,
                kind: (*kind).into(),
            },
            Asked::Alarm(AlarmRequest::Deactivate(member, kind)) => Request::AlarmDeactivate {
                member: member.0,
                kind: (*kind).into(),
            },
            Asked::Alarm(AlarmRequest::Nothing) => Request::AlarmNothing,
            Asked::Membership(MembershipRequest::Add {
                id,
                peer_urls,
                is_learner,
            }) => Request::MemberAdd {
                member: id.0,
                peer_urls: texts_to_bytes(peer_urls),
                is_learner: *is_learner,
            },
            Asked::Membership(MembershipRequest::Remove(id)) => {
                Request::MemberRemove { member: id.0 }
            }
            Asked::Membership(MembershipRequest::Promote(id)) => {
                Request::MemberPromote { member: id.0 }
            }
            Asked::Membership(MembershipRequest::Update { id, peer_urls }) => {
                Request::MemberUpdate {
                    member: id.0,
                    peer_urls: texts_to_bytes(peer_urls),
                }
            }
            Asked::Membership(MembershipRequest::ReadMode(mode)) => Request::ChangeReadMode {
                mode: (*mode).into(),
            },
            Asked::ReadMode => Request::ReadMode,
            Asked::MoveLeader(_) => unreachable!("only the leader itself is asked to hand over"),
        }
    }
}

impl TryFrom<&ArchivedRequest> for event::Request {
    type Error = WireError;

    fn try_from(request: &ArchivedRequest) -> Result<event::Request, WireError> {
        use event::{AlarmRequest, MembershipRequest, Request as Asked};
        Ok(match request {
            ArchivedRequest::Range(range) => Asked::Range(range.into()),
            ArchivedRequest::Put(put) => Asked::Put(put.into()),
            ArchivedRequest::DeleteRange(deletion) => Asked::DeleteRange(deletion.into()),
            ArchivedRequest::Txn(txn) => Asked::Txn(txn.into()),
            ArchivedRequest::Compact { revision, physical } => Asked::Compact {
                revision: revision.to_native(),
                physical: *physical,
            },
            ArchivedRequest::Status => Asked::Status,
            ArchivedRequest::MemberList { linearizable } => Asked::MemberList {
                linearizable: *linearizable,
            },
            ArchivedRequest::AlarmList { kind } => {
                Asked::Alarm(AlarmRequest::List(kind.as_ref().map(Into::into)))
            }
            ArchivedRequest::AlarmActivate { member, kind } => Asked::Alarm(
                AlarmRequest::Activate(MemberId(member.to_native()), kind.into()),
            ),
            ArchivedRequest::AlarmDeactivate { member, kind } => Asked::Alarm(
                AlarmRequest::Deactivate(MemberId(member.to_native()), kind.into()),
            ),
            ArchivedRequest::AlarmNothing => Asked::Alarm(AlarmRequest::Nothing),
            ArchivedRequest::MemberAdd {
                member,
                peer_urls,
                is_learner,
            } => Asked::Membership(MembershipRequest::Add {
                id: MemberId(member.to_native()),
                peer_urls: bytes_to_texts(peer_urls)?,
                is_learner: *is_learner,
            }),
            ArchivedRequest::MemberRemove { member } => {
                Asked::Membership(MembershipRequest::Remove(MemberId(member.to_native())))
            }
            ArchivedRequest::MemberPromote { member } => {
                Asked::Membership(MembershipRequest::Promote(MemberId(member.to_native())))
            }
            ArchivedRequest::MemberUpdate { member, peer_urls } => {
                Asked::Membership(MembershipRequest::Update {
                    id: MemberId(member.to_native()),
                    peer_urls: bytes_to_texts(peer_urls)?,
                })
            }
            ArchivedRequest::ReadMode => Asked::ReadMode,
            ArchivedRequest::ChangeReadMode { mode } => {
                Asked::Membership(MembershipRequest::ReadMode(mode.into()))
            }
        })
    }
}

impl From<&keyspace::KeyRange> for KeyRange {
    fn from(range: &keyspace::KeyRange) -> KeyRange {
        KeyRange {
            key: range.key.clone(),
            range_end: range.range_end.clone(),
        }
    }
}

impl From<&ArchivedKeyRange> for keyspace::KeyRange {
    fn from(range: &ArchivedKeyRange) -> keyspace::KeyRange {
        keyspace::KeyRange {
            key: Bytes::copy_from_slice(&range.key),
            range_end: Bytes::copy_from_slice(&range.range_end),
        }
    }
}

impl From<&keyspace::RangeRequest> for Range {
    fn from(range: &keyspace::RangeRequest) -> Range {
        Range {
            range: (&range.range).into(),
            limit: range.limit,
            revision: range.revision,
            sort_order: range.sort_order.into(),
            sort_target: range.sort_target.into(),
            serializable: range.serializable,
            keys_only: range.keys_only,
            count_only: range.count_only,
            count_skipped: range.count_skipped,
            min_mod_revision: range.min_mod_revision,
            max_mod_revision: range.max_mod_revision,
            min_create_revision: range.min_create_revision,
            max_create_revision: range.max_create_revision,
        }
    }
}

impl From<&ArchivedRange> for keyspace::RangeRequest {
    fn from(range: &ArchivedRange) -> keyspace::RangeRequest {
        keyspace::RangeRequest {
            range: (&range.range).into(),
            limit: range.limit.to_native(),
            revision: range.revision.to_native(),
            sort_order: (&range.sort_order).into(),
            sort_target: (&range.sort_target).into(),
            serializable: range.serializable,
            keys_only: range.keys_only,
            count_only: range.count_only,
            count_skipped: range.count_skipped,
            min_mod_revision: range.min_mod_revision.to_native(),
            max_mod_revision: range.max_mod_revision.to_native(),
            min_create_revision: range.min_create_revision.to_native(),
            max_create_revision: range.max_create_revision.to_native(),
        }
    }
}

impl From<&keyspace::PutRequest> for Put {
    fn from(put: &keyspace::PutRequest) -> Put {
        Put {
            key: put.key.clone(),
            value: put.value.clone(),
            lease: put.lease.0,
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
        }
    }
}

impl From<&ArchivedPut> for keyspace::PutRequest {
    fn from(put: &ArchivedPut) -> keyspace::PutRequest {
        keyspace::PutRequest {
            key: Bytes::copy_from_slice(&put.key),
            value: Bytes::copy_from_slice(&put.value),
            lease: LeaseId(put.lease.to_native()),
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
        }
    }
}

impl From<&keyspace::DeleteRangeRequest> for DeleteRange {
    fn from(deletion: &keyspace::DeleteRangeRequest) -> DeleteRange {
        DeleteRange {
            range: (&deletion.range).into(),
            prev_kv: deletion.prev_kv,
        }
    }
}

impl From<&ArchivedDeleteRange> for keyspace::DeleteRangeRequest {
    fn from(deletion: &ArchivedDeleteRange) -> keyspace::DeleteRangeRequest {
        keyspace::DeleteRangeRequest {
            range: (&deletion.range).into(),
            prev_kv: deletion.prev_kv,
        }
    }
}

impl From<&keyspace::Compare> for Compare {
    fn from(compare: &keyspace::Compare) -> Compare {
        use keyspace::CompareTarget as Target;
        Compare {
            range: (&compare.range).into(),
            result: compare.result.into(),
            target: match &compare.target {
                Target::Version(version) => CompareTarget::Version(*version),
                Target::CreateRevision(revision) => CompareTarget::CreateRevision(*revision),
                Target::ModRevision(revision) => CompareTarget::ModRevision(*revision),
                Target::Value(value) => CompareTarget::Value(value.clone()),
                Target::Lease(lease) => CompareTarget::Lease(*lease),
            },
        }
    }
}

impl From<&ArchivedCompare> for keyspace::Compare {
    fn from(compare: &ArchivedCompare) -> keyspace::Compare {
        use keyspace::CompareTarget as Target;
        keyspace::Compare {
            range: (&compare.range).into(),
            result: (&compare.result).into(),
            target: match &compare.target {
                ArchivedCompareTarget::Version(version) => Target::Version(version.to_native()),
                ArchivedCompareTarget::CreateRevision(revision) => {
                    Target::CreateRevision(revision.to_native())
                }
                ArchivedCompareTarget::ModRevision(revision) => {
                    Target::ModRevision(revision.to_native())
                }
                ArchivedCompareTarget::Value(value) => Target::Value(Bytes::copy_from_slice(value)),
                ArchivedCompareTarget::Lease(lease) => Target::Lease(lease.to_native()),
            },
        }
    }
}

impl From<&keyspace::RequestOp> for Operation {
    fn from(operation: &keyspace::RequestOp) -> Operation {
        use keyspace::RequestOp as Asked;
        match operation {
            Asked::Range(range) => Operation::Range(range.into()),
            Asked::Put(put) => Operation::Put(put.into()),
            Asked::DeleteRange(deletion) => Operation::DeleteRange(deletion.into()),
            Asked::Txn(txn) => Operation::Txn(txn.into()),
        }
    }
}

impl From<&ArchivedOperation> for keyspace::RequestOp {
    fn from(operation: &ArchivedOperation) -> keyspace::RequestOp {
        use keyspace::RequestOp as Asked;
        match operation {
            ArchivedOperation::Range(range) => Asked::Range(range.into()),
            ArchivedOperation::Put(put) => Asked::Put(put.into()),
            ArchivedOperation::DeleteRange(deletion) => Asked::DeleteRange(deletion.into()),
            ArchivedOperation::Txn(txn) => Asked::Txn(txn.into()),
        }
    }
}

impl From<&keyspace::TxnRequest> for Txn {
    fn from(txn: &keyspace::TxnRequest) -> Txn {
        Txn {
            compare: txn.compare.iter().map(Compare::from).collect(),
            success: txn.success.iter().map(Operation::from).collect(),
            failure: txn.failure.iter().map(Operation::from).collect(),
        }
    }
}

impl From<&ArchivedTxn> for keyspace::TxnRequest {
    fn from(txn: &ArchivedTxn) -> keyspace::TxnRequest {
        keyspace::TxnRequest {
            compare: txn.compare.iter().map(Into::into).collect(),
            success: txn.success.iter().map(Into::into).collect(),
            failure: txn.failure.iter().map(Into::into).collect(),
        }
    }
}
