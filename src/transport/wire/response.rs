//! Answers of the leader to what was forwarded, and members, as version 1 archives them. Texts are UTF-8
//! bytes.

use bytes::Bytes;
use rkyv::vec::ArchivedVec;
use rkyv::{Archive, Serialize};

use super::WireError;
use super::request::{ReadMode, mirror};
use crate::base::{LeaseId, MemberId, Term};
use crate::keyspace::request as keyspace;
use crate::shard::event;

mirror!(
    /// A kind of alarm.
    AlarmKind, ArchivedAlarmKind, event::AlarmKind { NoSpace, Corrupt }
);

/// An [`event::Header`].
#[derive(Archive, Serialize)]
pub(super) struct Header {
    revision: i64,
    term: u64,
}

/// What an [`event::Answer`] holds.
#[derive(Archive, Serialize)]
pub(super) enum Answer {
    Range(Range),
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Txn),
    Compact,
    Status(Status),
    MemberList(Vec<Member>),
    Alarm(Vec<Alarm>),
    MemberAdded {
        member: Member,
        members: Vec<Member>,
    },
    MembersChanged(Vec<Member>),
    Refused(Refusal),
    ReadMode(ReadMode),
}

/// An [`event::Refusal`].
#[derive(Archive, Serialize)]
pub(super) enum Refusal {
    KeyNotFound,
    LeaseNotFound,
    Compacted,
    FutureRevision,
    NoLeader,
    LeaderChanged,
    TimedOut,
    TooManyRequests,
    NoSpace,
    Corrupt,
    TooLarge,
    Stopped,
    Membership(MembershipRefusal),
}

mirror!(
    /// Why a membership is not changed.
    MembershipRefusal, ArchivedMembershipRefusal,
    event::MembershipRefusal {
        NotFound,
        Exists,
        PeerUrlExists,
        TooManyLearners,
        TooMany,
        NotLearner,
        LearnerNotReady,
        NotEnoughStarted,
        Unhealthy,
        NotLeader,
        BadTransferee,
        TransferTimedOut,
    }
);

/// A [`keyspace::KeyValue`].
#[derive(Archive, Serialize)]
struct KeyValue {
    key: Bytes,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    value: Bytes,
    lease: i64,
}

/// A [`keyspace::RangeResponse`].
#[derive(Archive, Serialize)]
pub(super) struct Range {
    kvs: Vec<KeyValue>,
    more: bool,
    count: i64,
}

/// A [`keyspace::PutResponse`].
#[derive(Archive, Serialize)]
pub(super) struct Put {
    prev_kv: Option<KeyValue>,
}

/// A [`keyspace::DeleteRangeResponse`].
#[derive(Archive, Serialize)]
pub(super) struct DeleteRange {
    deleted: i64,
    prev_kvs: Vec<KeyValue>,
}

/// A [`keyspace::ResponseOp`].
#[derive(Archive, Serialize)]
enum Operation {
    Range {
        revision: i64,
        response: Range,
    },
    Put {
        revision: i64,
        response: Put,
    },
    DeleteRange {
        revision: i64,
        response: DeleteRange,
    },
    Txn(Txn),
}

/// A [`keyspace::TxnResponse`]. How deep they nest is bounded by the depth of an archive.
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
    succeeded: bool,
    #[rkyv(omit_bounds)]
    responses: Vec<Operation>,
}

/// An [`event::Status`].
#[derive(Archive, Serialize)]
pub(super) struct Status {
    db_size_bytes: i64,
    db_size_in_use_bytes: i64,
    db_size_quota_bytes: i64,
    leader: u64,
    raft_index: u64,
    raft_term: u64,
    raft_applied_index: u64,
    alarms: Vec<Alarm>,
    is_learner: bool,
}

/// An [`event::Alarm`].
#[derive(Archive, Serialize)]
pub(super) struct Alarm {
    member: u64,
    kind: AlarmKind,
}

/// An [`event::Member`].
#[derive(Archive, Serialize)]
pub(super) struct Member {
    id: u64,
    name: Vec<u8>,
    peer_urls: Vec<Vec<u8>>,
    client_urls: Vec<Vec<u8>>,
    is_learner: bool,
}

impl From<&event::Header> for Header {
    fn from(header: &event::Header) -> Header {
        Header {
            revision: header.revision,
            term: header.term.0,
        }
    }
}

impl From<&ArchivedHeader> for event::Header {
    fn from(header: &ArchivedHeader) -> event::Header {
        event::Header {
            revision: header.revision.to_native(),
            term: Term(header.term.to_native()),
        }
    }
}

impl From<&Result<event::Response, event::Refusal>> for Answer {
    fn from(result: &Result<event::Response, event::Refusal>) -> Answer {
        use event::Response as Given;
        match result {
            Ok(Given::Range(range)) => Answer::Range(range.into()),
            Ok(Given::Put(put)) => Answer::Put(put.into()),
            Ok(Given::DeleteRange(deletion)) => Answer::DeleteRange(deletion.into()),
            Ok(Given::Txn(txn)) => Answer::Txn(txn.into()),
            Ok(Given::Compact) => Answer::Compact,
            Ok(Given::Status(status)) => Answer::Status((&**status).into()),
            Ok(Given::MemberList(members)) => {
                Answer::MemberList(members.iter().map(Member::from).collect())
            }
            Ok(Given::Alarm(alarms)) => Answer::Alarm(alarms.iter().map(Alarm::from).collect()),
            Ok(Given::MemberAdded { member, members }) => Answer::MemberAdded {
                member: member.into(),
                members: members.iter().map(Member::from).collect(),
            },
            Ok(Given::MembersChanged(members)) => {
                Answer::MembersChanged(members.iter().map(Member::from).collect())
            }
            Ok(Given::ReadMode(mode)) => Answer::ReadMode((*mode).into()),
            Ok(Given::LeaderMoved) => unreachable!("no other member was asked to hand over"),
            Err(refusal) => Answer::Refused((*refusal).into()),
        }
    }
}

impl TryFrom<&ArchivedAnswer> for Result<event::Response, event::Refusal> {
    type Error = WireError;

    fn try_from(answer: &ArchivedAnswer) -> Result<Self, WireError> {
        use event::Response as Given;
        Ok(Ok(match answer {
            ArchivedAnswer::Range(range) => Given::Range(range.into()),
            ArchivedAnswer::Put(put) => Given::Put(put.into()),
            ArchivedAnswer::DeleteRange(deletion) => Given::DeleteRange(deletion.into()),
            ArchivedAnswer::Txn(txn) => Given::Txn(txn.into()),
            ArchivedAnswer::Compact => Given::Compact,
            ArchivedAnswer::Status(status) => Given::Status(Box::new(status.into())),
            ArchivedAnswer::MemberList(members) => Given::MemberList(members_from(members)?),
            ArchivedAnswer::MemberAdded { member, members } => Given::MemberAdded {
                member: member.try_into()?,
                members: members_from(members)?,
            },
            ArchivedAnswer::MembersChanged(members) => {
                Given::MembersChanged(members_from(members)?)
            }
            ArchivedAnswer::Alarm(alarms) => Given::Alarm(alarms.iter().map(Into::into).collect()),
            ArchivedAnswer::ReadMode(mode) => Given::ReadMode(mode.into()),
            ArchivedAnswer::Refused(refusal) => return Ok(Err(refusal.into())),
        }))
    }
}

impl From<event::Refusal> for Refusal {
    fn from(refusal: event::Refusal) -> Refusal {
        use event::Refusal as Of;
        use keyspace::Refusal as Keyspace;
        match refusal {
            Of::Keyspace(Keyspace::KeyNotFound) => Refusal::KeyNotFound,
            Of::Keyspace(Keyspace::LeaseNotFound) => Refusal::LeaseNotFound,
            Of::Keyspace(Keyspace::Compacted) => Refusal::Compacted,
            Of::Keyspace(Keyspace::FutureRevision) => Refusal::FutureRevision,
            Of::NoLeader => Refusal::NoLeader,
            Of::LeaderChanged => Refusal::LeaderChanged,
            // Why is for the member whose client it is to say.
            Of::TimedOut | Of::TimedOutBy(_) | Of::NoLeaderInTime => Refusal::TimedOut,
            Of::TooManyRequests => Refusal::TooManyRequests,
            Of::NoSpace => Refusal::NoSpace,
            Of::Corrupt => Refusal::Corrupt,
            Of::TooLarge => Refusal::TooLarge,
            Of::Stopped => Refusal::Stopped,
            Of::Membership(refusal) => Refusal::Membership(refusal.into()),
        }
    }
}

impl From<&ArchivedRefusal> for event::Refusal {
    fn from(refusal: &ArchivedRefusal) -> event::Refusal {
        use event::Refusal as Of;
        use keyspace::Refusal as Keyspace;
        match refusal {
            ArchivedRefusal::KeyNotFound => Of::Keyspace(Keyspace::KeyNotFound),
            ArchivedRefusal::LeaseNotFound => Of::Keyspace(Keyspace::LeaseNotFound),
            ArchivedRefusal::Compacted => Of::Keyspace(Keyspace::Compacted),
            ArchivedRefusal::FutureRevision => Of::Keyspace(Keyspace::FutureRevision),
            ArchivedRefusal::NoLeader => Of::NoLeader,
            ArchivedRefusal::LeaderChanged => Of::LeaderChanged,
            ArchivedRefusal::TimedOut => Of::TimedOut,
            ArchivedRefusal::TooManyRequests => Of::TooManyRequests,
            ArchivedRefusal::NoSpace => Of::NoSpace,
            ArchivedRefusal::Corrupt => Of::Corrupt,
            ArchivedRefusal::TooLarge => Of::TooLarge,
            ArchivedRefusal::Stopped => Of::Stopped,
            ArchivedRefusal::Membership(refusal) => Of::Membership(refusal.into()),
        }
    }
}

impl From<&keyspace::KeyValue> for KeyValue {
    fn from(kv: &keyspace::KeyValue) -> KeyValue {
        KeyValue {
            key: kv.key.clone(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: kv.value.clone(),
            lease: kv.lease.0,
        }
    }
}

impl From<&ArchivedKeyValue> for keyspace::KeyValue {
    fn from(kv: &ArchivedKeyValue) -> keyspace::KeyValue {
        keyspace::KeyValue {
            key: Bytes::copy_from_slice(&kv.key),
            create_revision: kv.create_revision.to_native(),
            mod_revision: kv.mod_revision.to_native(),
            version: kv.version.to_native(),
            value: Bytes::copy_from_slice(&kv.value),
            lease: LeaseId(kv.lease.to_native()),
        }
    }
}

impl From<&keyspace::RangeResponse> for Range {
    fn from(range: &keyspace::RangeResponse) -> Range {
        Range {
            kvs: range.kvs.iter().map(KeyValue::from).collect(),
            more: range.more,
            count: range.count,
        }
    }
}

impl From<&ArchivedRange> for keyspace::RangeResponse {
    fn from(range: &ArchivedRange) -> keyspace::RangeResponse {
        keyspace::RangeResponse {
            kvs: range.kvs.iter().map(Into::into).collect(),
            more: range.more,
            count: range.count.to_native(),
        }
    }
}

impl From<&keyspace::PutResponse> for Put {
    fn from(put: &keyspace::PutResponse) -> Put {
        Put {
            prev_kv: put.prev_kv.as_ref().map(KeyValue::from),
        }
    }
}

impl From<&ArchivedPut> for keyspace::PutResponse {
    fn from(put: &ArchivedPut) -> keyspace::PutResponse {
        keyspace::PutResponse {
            prev_kv: put.prev_kv.as_ref().map(Into::into),
        }
    }
}

impl From<&keyspace::DeleteRangeResponse> for DeleteRange {
    fn from(deletion: &keyspace::DeleteRangeResponse) -> DeleteRange {
        DeleteRange {
            deleted: deletion.deleted,
            prev_kvs: deletion.prev_kvs.iter().map(KeyValue::from).collect(),
        }
    }
}

impl From<&ArchivedDeleteRange> for keyspace::DeleteRangeResponse {
    fn from(deletion: &ArchivedDeleteRange) -> keyspace::DeleteRangeResponse {
        keyspace::DeleteRangeResponse {
            deleted: deletion.deleted.to_native(),
            prev_kvs: deletion.prev_kvs.iter().map(Into::into).collect(),
        }
    }
}

impl From<&keyspace::ResponseOp> for Operation {
    fn from(operation: &keyspace::ResponseOp) -> Operation {
        use keyspace::ResponseOp as Given;
        match operation {
            Given::Range { revision, response } => Operation::Range {
                revision: *revision,
                response: response.into(),
            },
            Given::Put { revision, response } => Operation::Put {
                revision: *revision,
                response: response.into(),
            },
            Given::DeleteRange { revision, response } => Operation::DeleteRange {
                revision: *revision,
                response: response.into(),
            },
            Given::Txn(txn) => Operation::Txn(txn.into()),
        }
    }
}

impl From<&ArchivedOperation> for keyspace::ResponseOp {
    fn from(operation: &ArchivedOperation) -> keyspace::ResponseOp {
        use keyspace::ResponseOp as Given;
        match operation {
            ArchivedOperation::Range { revision, response } => Given::Range {
                revision: revision.to_native(),
                response: response.into(),
            },
            ArchivedOperation::Put { revision, response } => Given::Put {
                revision: revision.to_native(),
                response: response.into(),
            },
            ArchivedOperation::DeleteRange { revision, response } => Given::DeleteRange {
                revision: revision.to_native(),
                response: response.into(),
            },
            ArchivedOperation::Txn(txn) => Given::Txn(txn.into()),
        }
    }
}

impl From<&keyspace::TxnResponse> for Txn {
    fn from(txn: &keyspace::TxnResponse) -> Txn {
        Txn {
            succeeded: txn.succeeded,
            responses: txn.responses.iter().map(Operation::from).collect(),
        }
    }
}

impl From<&ArchivedTxn> for keyspace::TxnResponse {
    fn from(txn: &ArchivedTxn) -> keyspace::TxnResponse {
        keyspace::TxnResponse {
            succeeded: txn.succeeded,
            responses: txn.responses.iter().map(Into::into).collect(),
        }
    }
}

impl From<&event::Status> for Status {
    fn from(status: &event::Status) -> Status {
        Status {
            db_size_bytes: status.db_size_bytes,
            db_size_in_use_bytes: status.db_size_in_use_bytes,
            db_size_quota_bytes: status.db_size_quota_bytes,
            leader: status.leader.0,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            alarms: status.alarms.iter().map(Alarm::from).collect(),
            is_learner: status.is_learner,
        }
    }
}

impl From<&ArchivedStatus> for event::Status {
    fn from(status: &ArchivedStatus) -> event::Status {
        event::Status {
            db_size_bytes: status.db_size_bytes.to_native(),
            db_size_in_use_bytes: status.db_size_in_use_bytes.to_native(),
            db_size_quota_bytes: status.db_size_quota_bytes.to_native(),
            leader: MemberId(status.leader.to_native()),
            raft_index: status.raft_index.to_native(),
            raft_term: status.raft_term.to_native(),
            raft_applied_index: status.raft_applied_index.to_native(),
            alarms: status.alarms.iter().map(Into::into).collect(),
            is_learner: status.is_learner,
        }
    }
}

impl From<&event::Alarm> for Alarm {
    fn from(alarm: &event::Alarm) -> Alarm {
        Alarm {
            member: alarm.member.0,
            kind: alarm.kind.into(),
        }
    }
}

impl From<&ArchivedAlarm> for event::Alarm {
    fn from(alarm: &ArchivedAlarm) -> event::Alarm {
        event::Alarm {
            member: MemberId(alarm.member.to_native()),
            kind: (&alarm.kind).into(),
        }
    }
}

impl From<&event::Member> for Member {
    fn from(member: &event::Member) -> Member {
        Member {
            id: member.id.0,
            name: member.name.clone().into_bytes(),
            peer_urls: texts_to_bytes(&member.peer_urls),
            client_urls: texts_to_bytes(&member.client_urls),
            is_learner: member.is_learner,
        }
    }
}

impl TryFrom<&ArchivedMember> for event::Member {
    type Error = WireError;

    fn try_from(member: &ArchivedMember) -> Result<event::Member, WireError> {
        Ok(event::Member {
            id: MemberId(member.id.to_native()),
            name: text(&member.name)?,
            peer_urls: bytes_to_texts(&member.peer_urls)?,
            client_urls: bytes_to_texts(&member.client_urls)?,
            is_learner: member.is_learner,
        })
    }
}

fn members_from(members: &[ArchivedMember]) -> Result<Vec<event::Member>, WireError> {
    members.iter().map(TryInto::try_into).collect()
}

pub(super) fn texts_to_bytes(texts: &[String]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.clone().into_bytes()).collect()
}

pub(super) fn bytes_to_texts(texts: &[ArchivedVec<u8>]) -> Result<Vec<String>, WireError> {
    texts.iter().map(|bytes| text(bytes)).collect()
}

fn text(bytes: &[u8]) -> Result<String, WireError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| WireError::Text)
}
