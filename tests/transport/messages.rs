//! One message of every kind, with every field in use.

use std::time::Duration;

use bytes::Bytes;
use kontiki::base::limits::ENTRY_SIZE_BYTES_MAX;
use kontiki::base::{Incarnation, Index, Instant, LeaseId, MemberId, Term};
use kontiki::checkpoint::{Block, CheckpointId};
use kontiki::frame::{Encoder, PageBuffer};
use kontiki::keyspace::request as keyspace;
use kontiki::keyspace::request::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, KeyRange,
    KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseOp,
    SortOrder, SortTarget, TxnRequest, TxnResponse,
};
use kontiki::raft::{
    Append, AppendResponse, AppendResult, Body, Entries, Heartbeat, HeartbeatResponse, Matched,
    Message, Position, ReadContext, ReadMode, Standing, StateDigest, VoteRequest, VoteResponse,
    Voters,
};
use kontiki::shard::event::{
    Alarm, AlarmKind, AlarmRequest, CheckpointPosition, Header, Member, MembershipRefusal,
    MembershipRequest, PeerMessage, Refusal, Request, Response, Status,
};

/// Every kind of message with a name for it; none equals another.
pub(crate) fn all() -> Vec<(String, PeerMessage)> {
    let mut all = Vec::new();
    let mut add = |name: String, message| all.push((name, message));
    for (name, body) in bodies() {
        add(format!("raft {name}"), raft(body));
    }
    add("raft append".into(), append(5, &[3, 0, 40]));
    add("raft append nothing".into(), append(5, &[]));
    add("introduce".into(), PeerMessage::Introduce(member()));
    for (name, body) in requests() {
        add(
            format!("forward {name}"),
            PeerMessage::Forward {
                request: 0x0102_0304_0506_0708,
                patience: Duration::from_nanos(7_000_000_001),
                body,
            },
        );
    }
    for (name, result) in results() {
        add(
            format!("forwarded {name}"),
            PeerMessage::Forwarded {
                request: 0x1112_1314_1516_1718,
                index: Index(77),
                header: Header {
                    revision: 12,
                    term: Term(3),
                },
                result,
            },
        );
    }
    for (name, position) in [
        ("next", CheckpointPosition::Next(4)),
        ("committed", CheckpointPosition::Committed(Index(90))),
    ] {
        add(
            format!("checkpoint position {name}"),
            PeerMessage::CheckpointPosition {
                term: Term(9),
                attempt: 2,
                position,
            },
        );
    }
    add(
        "checkpoint offer".into(),
        PeerMessage::CheckpointOffer {
            term: Term(9),
            attempt: 2,
            id: CHECKPOINT,
            size_bytes: 65_537,
        },
    );
    add("checkpoint block".into(), block(&[0xc4; 21]));
    all
}

const CHECKPOINT: CheckpointId = CheckpointId {
    index: Index(80),
    term: Term(7),
};

/// A block of a checkpoint with such bytes.
pub(crate) fn block(bytes: &[u8]) -> PeerMessage {
    PeerMessage::CheckpointBlock {
        term: Term(9),
        attempt: 2,
        id: CHECKPOINT,
        block: Block {
            ordinal: 1,
            bytes: Bytes::copy_from_slice(bytes),
            is_last: true,
        },
    }
}

/// A message of consensus.
pub(crate) fn raft(body: Body) -> PeerMessage {
    PeerMessage::Raft {
        message: Message {
            term: Term(9),
            incarnation: Incarnation(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            body,
        },
        records: Vec::new(),
    }
}

/// A heartbeat that carries a number.
pub(crate) fn heartbeat(number: u64) -> PeerMessage {
    raft(Body::Heartbeat(Heartbeat {
        commit: Index(number),
        sent: Instant(number),
        context: None,
        digest: None,
    }))
}

/// The records of entries with such values after `prev`, and the message that carries them.
pub(crate) fn append(prev: u64, values: &[usize]) -> PeerMessage {
    let mut encoder = Encoder::new(ENTRY_SIZE_BYTES_MAX);
    let mut entries = Entries::default();
    let mut records = Vec::new();
    for (size, index) in values.iter().zip(prev + 1..) {
        let mut buffer = PageBuffer::new();
        encoder
            .entry(Term(9), Index(index), &vec![0x5a_u8; *size], &mut buffer)
            .expect("a small entry");
        entries.push(Term(9), buffer.len() as u64);
        records.push(Bytes::copy_from_slice(&buffer));
    }
    let body = Body::Append(Append {
        prev: position(8, prev),
        entries,
        commit: Index(4),
        probe: true,
    });
    let PeerMessage::Raft { message, .. } = raft(body) else {
        unreachable!("just made");
    };
    PeerMessage::Raft { message, records }
}

fn position(term: u64, index: u64) -> Position {
    Position {
        term: Term(term),
        index: Index(index),
    }
}

fn bodies() -> Vec<(&'static str, Body)> {
    let context = ReadContext(0xf0f1_f2f3_f4f5_f6f7_f8f9_fafb_fcfd_feff);
    let matched = Matched {
        durable: Index(20),
        verified: Index(21),
    };
    let incarnation = Incarnation(0x77);
    vec![
        (
            "vote request",
            Body::VoteRequest(VoteRequest {
                pre: true,
                term: Term(10),
                last: position(8, 40),
                transfer: false,
            }),
        ),
        (
            "vote response",
            Body::VoteResponse(VoteResponse {
                pre: false,
                term: Term(10),
                granted: true,
            }),
        ),
        (
            "accepted",
            Body::AppendResponse(AppendResponse {
                result: AppendResult::Accepted(matched),
                standing: Standing::Whole,
            }),
        ),
        (
            "rejected",
            Body::AppendResponse(AppendResponse {
                result: AppendResult::Rejected {
                    prev: Index(33),
                    hint: position(7, 30),
                },
                standing: Standing::Rebuilding,
            }),
        ),
        (
            "heartbeat",
            Body::Heartbeat(Heartbeat {
                commit: Index(19),
                sent: Instant(1_234_567),
                context: Some(context),
                digest: Some(StateDigest {
                    index: Index(18),
                    digest: 0xdead_beef,
                }),
            }),
        ),
        (
            "heartbeat response",
            Body::HeartbeatResponse(HeartbeatResponse {
                sent: Instant(1_234_567),
                context: None,
                matched,
                standing: Standing::Whole,
            }),
        ),
        (
            "read request",
            Body::ReadRequest {
                context,
                standing: Standing::Whole,
            },
        ),
        (
            "read request while rebuilding",
            Body::ReadRequest {
                context,
                standing: Standing::Rebuilding,
            },
        ),
        (
            "read response",
            Body::ReadResponse {
                context,
                index: Index(19),
                last: Index(22),
            },
        ),
        ("timeout now", Body::TimeoutNow),
        ("newer term", Body::NewerTerm),
        ("identity question", Body::IdentityQuestion),
        (
            "identity confirmed",
            Body::IdentityConfirmed {
                incarnation,
                voters: Voters {
                    changed_at: Index(24),
                    ids: vec![MemberId(1), MemberId(5), MemberId(9)],
                    agreed: vec![(MemberId(1), incarnation), (MemberId(9), Incarnation(77))],
                },
            },
        ),
        ("identity refused", Body::IdentityRefused { incarnation }),
        ("removed", Body::Removed),
    ]
}

fn member() -> Member {
    Member {
        id: MemberId(0x8e9e_05c5_2164_694d),
        name: "infra0".into(),
        peer_urls: vec!["http://10.0.0.1:2380".into(), "http://[::1]:2380".into()],
        client_urls: vec!["http://10.0.0.1:2379".into()],
        is_learner: true,
    }
}

fn range(key: &'static str, end: &'static str) -> KeyRange {
    KeyRange {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(end.as_bytes()),
    }
}

fn range_request() -> RangeRequest {
    RangeRequest {
        range: range("a", "z"),
        limit: 10,
        revision: 11,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Mod,
        serializable: true,
        keys_only: false,
        count_only: true,
        count_skipped: true,
        min_mod_revision: 12,
        max_mod_revision: 13,
        min_create_revision: 14,
        max_create_revision: 15,
    }
}

fn put_request() -> PutRequest {
    PutRequest {
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"a value that is longer than what is kept inline"),
        lease: LeaseId(-5),
        prev_kv: true,
        ignore_value: false,
        ignore_lease: true,
    }
}

fn delete_request() -> DeleteRangeRequest {
    DeleteRangeRequest {
        range: range("k", ""),
        prev_kv: true,
    }
}

fn compare(result: CompareResult, target: CompareTarget) -> Compare {
    Compare {
        range: range("c", ""),
        result,
        target,
    }
}

fn txn_request() -> TxnRequest {
    let nested = TxnRequest {
        success: vec![RequestOp::Put(put_request())],
        ..TxnRequest::default()
    };
    TxnRequest {
        compare: vec![
            compare(CompareResult::Equal, CompareTarget::Version(1)),
            compare(CompareResult::Greater, CompareTarget::CreateRevision(2)),
            compare(CompareResult::Less, CompareTarget::ModRevision(3)),
            compare(
                CompareResult::NotEqual,
                CompareTarget::Value(Bytes::from_static(b"v")),
            ),
            compare(CompareResult::Unknown, CompareTarget::Lease(4)),
        ],
        success: vec![
            RequestOp::Range(range_request()),
            RequestOp::DeleteRange(delete_request()),
        ],
        failure: vec![RequestOp::Txn(nested)],
    }
}

/// A transaction in a transaction, and so on, with one put in the innermost.
pub(crate) fn nested(depth: usize) -> TxnRequest {
    let mut operation = RequestOp::Put(put_request());
    for _ in 1..depth {
        operation = RequestOp::Txn(TxnRequest {
            success: vec![operation],
            ..TxnRequest::default()
        });
    }
    TxnRequest {
        success: vec![operation],
        ..TxnRequest::default()
    }
}

fn requests() -> Vec<(&'static str, Request)> {
    let alarm = |request| Request::Alarm(request);
    vec![
        ("range", Request::Range(range_request())),
        ("put", Request::Put(put_request())),
        ("delete", Request::DeleteRange(delete_request())),
        ("txn", Request::Txn(txn_request())),
        (
            "compact",
            Request::Compact {
                revision: 99,
                physical: true,
            },
        ),
        ("status", Request::Status),
        ("member list", Request::MemberList { linearizable: true }),
        ("alarm list", alarm(AlarmRequest::List(None))),
        (
            "alarm list kind",
            alarm(AlarmRequest::List(Some(AlarmKind::NoSpace))),
        ),
        (
            "alarm activate",
            alarm(AlarmRequest::Activate(MemberId(6), AlarmKind::NoSpace)),
        ),
        (
            "alarm deactivate",
            alarm(AlarmRequest::Deactivate(MemberId(6), AlarmKind::Corrupt)),
        ),
        ("alarm nothing", alarm(AlarmRequest::Nothing)),
        (
            "member add",
            Request::Membership(MembershipRequest::Add {
                id: MemberId(8),
                peer_urls: vec!["http://new:2380".into()],
                is_learner: true,
            }),
        ),
        (
            "member remove",
            Request::Membership(MembershipRequest::Remove(MemberId(9))),
        ),
        (
            "member promote",
            Request::Membership(MembershipRequest::Promote(MemberId(10))),
        ),
        (
            "member update",
            Request::Membership(MembershipRequest::Update {
                id: MemberId(11),
                peer_urls: vec!["http://there:2380".into(), "http://here:2380".into()],
            }),
        ),
        ("read mode", Request::ReadMode),
        (
            "read mode lease",
            Request::Membership(MembershipRequest::ReadMode(ReadMode::Lease)),
        ),
    ]
}

fn key_value() -> KeyValue {
    KeyValue {
        key: Bytes::from_static(b"key"),
        create_revision: 2,
        mod_revision: 3,
        version: 4,
        value: Bytes::from_static(b"the value of that key"),
        lease: LeaseId(5),
    }
}

fn results() -> Vec<(String, Result<Response, Refusal>)> {
    let range = RangeResponse {
        kvs: vec![key_value(), KeyValue::default()],
        more: true,
        count: 8,
    };
    let put = PutResponse {
        prev_kv: Some(key_value()),
    };
    let delete = DeleteRangeResponse {
        deleted: 1,
        prev_kvs: vec![key_value()],
    };
    let alarm = Alarm {
        member: MemberId(6),
        kind: AlarmKind::Corrupt,
    };
    let txn = TxnResponse {
        succeeded: true,
        responses: vec![
            ResponseOp::Range {
                revision: 5,
                response: range.clone(),
            },
            ResponseOp::Put {
                revision: 6,
                response: put.clone(),
            },
            ResponseOp::DeleteRange {
                revision: 7,
                response: delete.clone(),
            },
            ResponseOp::Txn(TxnResponse::default()),
        ],
    };
    let status = Status {
        db_size_bytes: 1,
        db_size_in_use_bytes: 2,
        db_size_quota_bytes: 3,
        leader: MemberId(4),
        raft_index: 5,
        raft_term: 6,
        raft_applied_index: 7,
        alarms: vec![alarm],
        is_learner: true,
    };
    let mut results = vec![
        ("range".into(), Ok(Response::Range(range))),
        ("put".into(), Ok(Response::Put(put))),
        (
            "put nothing before".into(),
            Ok(Response::Put(PutResponse::default())),
        ),
        ("delete".into(), Ok(Response::DeleteRange(delete))),
        ("txn".into(), Ok(Response::Txn(txn))),
        ("compact".into(), Ok(Response::Compact)),
        ("status".into(), Ok(Response::Status(Box::new(status)))),
        (
            "member list".into(),
            Ok(Response::MemberList(vec![member()])),
        ),
        ("alarm".into(), Ok(Response::Alarm(vec![alarm]))),
        (
            "member added".into(),
            Ok(Response::MemberAdded {
                member: member(),
                members: vec![member(), Member::default()],
            }),
        ),
        (
            "members changed".into(),
            Ok(Response::MembersChanged(vec![member()])),
        ),
        ("read mode".into(), Ok(Response::ReadMode(ReadMode::Quorum))),
    ];
    for refusal in [
        Refusal::Keyspace(keyspace::Refusal::KeyNotFound),
        Refusal::Keyspace(keyspace::Refusal::LeaseNotFound),
        Refusal::Keyspace(keyspace::Refusal::Compacted),
        Refusal::Keyspace(keyspace::Refusal::FutureRevision),
        Refusal::NoLeader,
        Refusal::LeaderChanged,
        Refusal::TimedOut,
        Refusal::TooManyRequests,
        Refusal::NoSpace,
        Refusal::Corrupt,
        Refusal::TooLarge,
        Refusal::Stopped,
        Refusal::Membership(MembershipRefusal::NotFound),
        Refusal::Membership(MembershipRefusal::Exists),
        Refusal::Membership(MembershipRefusal::PeerUrlExists),
        Refusal::Membership(MembershipRefusal::TooManyLearners),
        Refusal::Membership(MembershipRefusal::TooMany),
        Refusal::Membership(MembershipRefusal::NotLearner),
        Refusal::Membership(MembershipRefusal::LearnerNotReady),
        Refusal::Membership(MembershipRefusal::NotEnoughStarted),
        Refusal::Membership(MembershipRefusal::Unhealthy),
        Refusal::Membership(MembershipRefusal::NotLeader),
        Refusal::Membership(MembershipRefusal::BadTransferee),
        Refusal::Membership(MembershipRefusal::TransferTimedOut),
    ] {
        results.push((format!("refusal: {refusal}"), Err(refusal)));
    }
    results
}
