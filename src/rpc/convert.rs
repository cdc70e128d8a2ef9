//! Protobuf messages to what a shard is asked, and its answers back. Values are handed over, not copied.
//!
//! Requests come here only after `form` has passed them. Keys and values are slices of the connection's
//! receive buffer: whoever keeps one beyond the answer copies it.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::encoded_len_varint;

use super::pb::{etcdserverpb as pb, mvccpb};
use super::status::{Code, Status};
use crate::base::LeaseId;
use crate::keyspace::request::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, KeyRange,
    KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseOp,
    SortOrder, SortTarget, TxnRequest, TxnResponse,
};
use crate::shard::event::{Header, Identity};

/// The largest message gRPC sends.
const MESSAGE_SIZE_BYTES_MAX: usize = i32::MAX as usize;
/// A gRPC message starts with a flag and its length.
pub const FRAME_PREFIX_BYTES: usize = 5;

/// Encodes a message with its gRPC prefix, ready for DATA frames.
///
/// # Errors
/// The status for an answer that is too large for gRPC.
pub fn frame(message: &impl Message) -> Result<Bytes, Status> {
    let size = message.encoded_len();
    let prefix = frame_prefix(size)?;
    let mut framed = BytesMut::with_capacity(FRAME_PREFIX_BYTES + size);
    framed.put_slice(&prefix);
    message
        .encode(&mut framed)
        .expect("the buffer has room for encoded_len");
    Ok(framed.freeze())
}

/// The gRPC prefix of a message of `size` bytes.
///
/// # Errors
/// The status for an answer that is too large for gRPC.
pub fn frame_prefix(size: usize) -> Result<[u8; FRAME_PREFIX_BYTES], Status> {
    if size > MESSAGE_SIZE_BYTES_MAX {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!(
                "grpc: trying to send message larger than max ({size} vs. {MESSAGE_SIZE_BYTES_MAX})"
            ),
        ));
    }
    let [a, b, c, d] = u32::try_from(size).expect("below i32::MAX").to_be_bytes();
    Ok([0, a, b, c, d])
}

/// A response header with everything in it.
#[must_use]
pub fn header(identity: &Identity, header: &Header) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: identity.cluster.0,
        member_id: identity.member.0,
        revision: header.revision,
        raft_term: header.term.0,
    })
}

/// The header of one operation inside a transaction: a revision and nothing else.
fn operation_header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        revision,
        ..pb::ResponseHeader::default()
    })
}

/// A read.
#[must_use]
pub fn range(request: pb::RangeRequest) -> RangeRequest {
    use pb::range_request::{SortOrder as Order, SortTarget as Target};

    RangeRequest {
        sort_order: match request.sort_order() {
            Order::None => SortOrder::None,
            Order::Ascend => SortOrder::Ascend,
            Order::Descend => SortOrder::Descend,
        },
        sort_target: match request.sort_target() {
            Target::Key => SortTarget::Key,
            Target::Version => SortTarget::Version,
            Target::Create => SortTarget::Create,
            Target::Mod => SortTarget::Mod,
            Target::Value => SortTarget::Value,
        },
        range: KeyRange {
            key: request.key,
            range_end: request.range_end,
        },
        limit: request.limit,
        revision: request.revision,
        serializable: request.serializable,
        keys_only: request.keys_only,
        count_only: request.count_only,
        count_skipped: false,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

/// A put.
#[must_use]
pub fn put(request: pb::PutRequest) -> PutRequest {
    PutRequest {
        key: request.key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A deletion.
#[must_use]
pub fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRangeRequest {
    DeleteRangeRequest {
        range: KeyRange {
            key: request.key,
            range_end: request.range_end,
        },
        prev_kv: request.prev_kv,
    }
}

/// A transaction. Operations without a variant have been refused before.
#[must_use]
pub fn transaction(request: pb::TxnRequest) -> TxnRequest {
    let branch =
        |operations: Vec<pb::RequestOp>| operations.into_iter().filter_map(operation).collect();
    TxnRequest {
        compare: request.compare.into_iter().map(compare).collect(),
        success: branch(request.success),
        failure: branch(request.failure),
    }
}

fn operation(operation: pb::RequestOp) -> Option<RequestOp> {
    use pb::request_op::Request;

    Some(match operation.request? {
        Request::RequestRange(request) => RequestOp::Range(range(request)),
        Request::RequestPut(request) => RequestOp::Put(put(request)),
        Request::RequestDeleteRange(request) => RequestOp::DeleteRange(delete_range(request)),
        Request::RequestTxn(request) => RequestOp::Txn(transaction(request)),
    })
}

/// A condition. The target decides what is compared: a value given for another target counts as zero
/// or empty, as an absent one does.
fn compare(request: pb::Compare) -> Compare {
    use pb::compare::{CompareResult as Result, CompareTarget as Target, TargetUnion};

    let mut result = match Result::try_from(request.result) {
        Ok(Result::Equal) => CompareResult::Equal,
        Ok(Result::Greater) => CompareResult::Greater,
        Ok(Result::Less) => CompareResult::Less,
        Ok(Result::NotEqual) => CompareResult::NotEqual,
        Err(_) => CompareResult::Unknown,
    };
    let union = request.target_union;
    let target = match Target::try_from(request.target) {
        Ok(Target::Version) => CompareTarget::Version(match union {
            Some(TargetUnion::Version(version)) => version,
            _ => 0,
        }),
        Ok(Target::Create) => CompareTarget::CreateRevision(match union {
            Some(TargetUnion::CreateRevision(revision)) => revision,
            _ => 0,
        }),
        Ok(Target::Mod) => CompareTarget::ModRevision(match union {
            Some(TargetUnion::ModRevision(revision)) => revision,
            _ => 0,
        }),
        Ok(Target::Value) => CompareTarget::Value(match union {
            Some(TargetUnion::Value(value)) => value,
            _ => Bytes::new(),
        }),
        Ok(Target::Lease) => CompareTarget::Lease(match union {
            Some(TargetUnion::Lease(lease)) => lease,
            _ => 0,
        }),
        // etcd finds nothing to compare and takes both sides as equal: "equal" (and an unknown
        // relation) holds for every key, the others for none.
        Err(_) => match result {
            CompareResult::Equal | CompareResult::Unknown => {
                result = CompareResult::Unknown;
                CompareTarget::Version(0)
            }
            CompareResult::Greater | CompareResult::Less | CompareResult::NotEqual => {
                result = CompareResult::Less;
                CompareTarget::Version(i64::MIN)
            }
        },
    };
    Compare {
        range: KeyRange {
            key: request.key,
            range_end: request.range_end,
        },
        result,
        target,
    }
}

/// One version of a key.
#[must_use]
pub fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease.0,
    }
}

/// The encoded size of [`key_value`]'s message, in bytes.
#[must_use]
pub fn key_value_size(kv: &KeyValue) -> usize {
    // All its fields have numbers whose keys take one byte, and none is written when it is zero.
    let bytes = |bytes: &Bytes| match bytes.len() {
        0 => 0,
        size => 1 + encoded_len_varint(size as u64) + size,
    };
    let number = |number: i64| match number {
        0 => 0,
        number => 1 + encoded_len_varint(number.cast_unsigned()),
    };
    bytes(&kv.key)
        + bytes(&kv.value)
        + number(kv.create_revision)
        + number(kv.mod_revision)
        + number(kv.version)
        + number(kv.lease.0)
}

/// The answer to a read.
#[must_use]
pub fn range_response(
    header: Option<pb::ResponseHeader>,
    response: RangeResponse,
) -> pb::RangeResponse {
    pb::RangeResponse {
        header,
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

/// The answer to a put.
#[must_use]
pub fn put_response(header: Option<pb::ResponseHeader>, response: PutResponse) -> pb::PutResponse {
    pb::PutResponse {
        header,
        prev_kv: response.prev_kv.map(key_value),
    }
}

/// The answer to a deletion.
#[must_use]
pub fn delete_range_response(
    header: Option<pb::ResponseHeader>,
    response: DeleteRangeResponse,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header,
        deleted: response.deleted,
        prev_kvs: response.prev_kvs.into_iter().map(key_value).collect(),
    }
}

/// The answer to a transaction; a nested one has an empty header.
#[must_use]
pub fn transaction_response(
    header: Option<pb::ResponseHeader>,
    response: TxnResponse,
) -> pb::TxnResponse {
    pb::TxnResponse {
        header,
        succeeded: response.succeeded,
        responses: response
            .responses
            .into_iter()
            .map(operation_response)
            .collect(),
    }
}

fn operation_response(response: ResponseOp) -> pb::ResponseOp {
    use pb::response_op::Response;

    let response = match response {
        ResponseOp::Range { revision, response } => {
            Response::ResponseRange(range_response(operation_header(revision), response))
        }
        ResponseOp::Put { revision, response } => {
            Response::ResponsePut(put_response(operation_header(revision), response))
        }
        ResponseOp::DeleteRange { revision, response } => Response::ResponseDeleteRange(
            delete_range_response(operation_header(revision), response),
        ),
        ResponseOp::Txn(response) => {
            let empty = Some(pb::ResponseHeader::default());
            Response::ResponseTxn(transaction_response(empty, response))
        }
    };
    pb::ResponseOp {
        response: Some(response),
    }
}
