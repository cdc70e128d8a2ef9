//! What a request or an answer holds in memory, about, in bytes: what its client can make large. Every bound of a
//! shard on bytes of them counts like this.

use super::asker::Ask;
use super::event::{MembershipRequest, Refusal, Request, Response};
use crate::keyspace::request::{
    Compare, CompareTarget, KeyRange, KeyValue, PutRequest, RequestOp, ResponseOp, TxnRequest,
};

/// What a request is counted at that waits, beside [`request_bytes`].
pub const ASK_BYTES: u64 = size_of::<Ask>() as u64;

/// A request with who asked; never nothing.
pub(super) fn ask_bytes(request: &Request) -> u64 {
    ASK_BYTES + request_bytes(request)
}

/// What a request holds.
#[must_use]
pub fn request_bytes(request: &Request) -> u64 {
    match request {
        Request::Range(range) => range_bytes(&range.range),
        Request::Put(put) => put_bytes(put),
        Request::DeleteRange(deletion) => range_bytes(&deletion.range),
        Request::Txn(txn) => txn_bytes(txn),
        Request::Membership(
            MembershipRequest::Add { peer_urls, .. } | MembershipRequest::Update { peer_urls, .. },
        ) => peer_urls.iter().map(|url| url.len() as u64).sum(),
        Request::Membership(
            MembershipRequest::Remove(_)
            | MembershipRequest::Promote(_)
            | MembershipRequest::ReadMode(_),
        )
        | Request::Compact { .. }
        | Request::Status
        | Request::MemberList { .. }
        | Request::Alarm(_)
        | Request::MoveLeader(_)
        | Request::ReadMode => 0,
    }
}

fn range_bytes(range: &KeyRange) -> u64 {
    (range.key.len() + range.range_end.len()) as u64
}

fn put_bytes(put: &PutRequest) -> u64 {
    (put.key.len() + put.value.len()) as u64
}

fn txn_bytes(txn: &TxnRequest) -> u64 {
    let compare = |compare: &Compare| {
        let value = match &compare.target {
            CompareTarget::Value(value) => value.len(),
            _ => 0,
        };
        (size_of::<Compare>() + value) as u64 + range_bytes(&compare.range)
    };
    let operation = |operation: &RequestOp| {
        let inner = match operation {
            RequestOp::Range(range) => range_bytes(&range.range),
            RequestOp::Put(put) => put_bytes(put),
            RequestOp::DeleteRange(deletion) => range_bytes(&deletion.range),
            // As deep as a request nests, which its archive bounds.
            RequestOp::Txn(nested) => txn_bytes(nested),
        };
        size_of::<RequestOp>() as u64 + inner
    };
    let operations = txn.success.iter().chain(&txn.failure).map(operation);
    txn.compare.iter().map(compare).chain(operations).sum()
}

/// What is answered; nothing where that is small whatever was asked.
#[must_use]
pub fn answer_bytes(result: &Result<Response, Refusal>) -> u64 {
    match result {
        Ok(Response::Range(range)) => versions_bytes(&range.kvs),
        Ok(Response::Put(put)) => versions_bytes(put.prev_kv.as_slice()),
        Ok(Response::DeleteRange(deletion)) => versions_bytes(&deletion.prev_kvs),
        Ok(Response::Txn(txn)) => operations_bytes(&txn.responses),
        _ => 0,
    }
}

fn operations_bytes(responses: &[ResponseOp]) -> u64 {
    let bytes = |response: &ResponseOp| {
        let inner = match response {
            ResponseOp::Range { response, .. } => versions_bytes(&response.kvs),
            ResponseOp::Put { response, .. } => versions_bytes(response.prev_kv.as_slice()),
            ResponseOp::DeleteRange { response, .. } => versions_bytes(&response.prev_kvs),
            // As deep as a request nests, which its archive bounds.
            ResponseOp::Txn(txn) => operations_bytes(&txn.responses),
        };
        size_of::<ResponseOp>() as u64 + inner
    };
    responses.iter().map(bytes).sum()
}

fn versions_bytes(versions: &[KeyValue]) -> u64 {
    let bytes = |kv: &KeyValue| (size_of::<KeyValue>() + kv.key.len() + kv.value.len()) as u64;
    versions.iter().map(bytes).sum()
}
