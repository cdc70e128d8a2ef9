//! The form of a request: everything that can be refused without looking at state, in etcd's order.
//!
//! Pure functions of the decoded message and the limits; any bytes may come in, none may panic. Runs on
//! the connection's core before anything is sent to a shard.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use super::pb::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, range_request, request_op,
};
use super::status::{self, Status};
use crate::base::MemberId;

/// What the operator allows in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormLimits {
    /// `--max-request-bytes`: the largest write, in etcd's internal encoding.
    pub request_size_bytes_max: u64,
    /// `--max-txn-ops`: the most operations in one branch, nested ones included.
    pub transaction_operations_max: usize,
    /// Whose request ids count towards the encoded size.
    pub member: MemberId,
}

/// Checks a read.
///
/// # Errors
/// The status the client gets.
pub fn check_range(request: &RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::EMPTY_KEY);
    }
    if !range_request::SortOrder::is_valid(request.sort_order)
        || !range_request::SortTarget::is_valid(request.sort_target)
    {
        return Err(status::INVALID_SORT_OPTION);
    }
    Ok(())
}

/// Checks a streamed read: what pages cannot keep is refused.
///
/// # Errors
/// The status the client gets.
pub fn check_range_stream(request: &RangeRequest) -> Result<(), Status> {
    use range_request::{SortOrder, SortTarget};

    check_range(request)?;
    let by_key = request.sort_target == SortTarget::Key as i32;
    if request.sort_order != SortOrder::None as i32
        && !(request.sort_order == SortOrder::Ascend as i32 && by_key)
    {
        return Err(status::STREAM_SORT);
    }
    if request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
    {
        return Err(status::STREAM_FILTER);
    }
    Ok(())
}

/// Checks a put.
///
/// # Errors
/// The status the client gets.
pub fn check_put(request: &PutRequest, limits: &FormLimits) -> Result<(), Status> {
    check_put_operation(request)?;
    check_size(request, limits)
}

/// Checks a deletion.
///
/// # Errors
/// The status the client gets.
pub fn check_delete_range(request: &DeleteRangeRequest, limits: &FormLimits) -> Result<(), Status> {
    check_delete_operation(request)?;
    check_size(request, limits)
}

/// Checks a compaction: only its size can be wrong before the state is known.
///
/// # Errors
/// The status the client gets.
pub fn check_compaction(request: &CompactionRequest, limits: &FormLimits) -> Result<(), Status> {
    check_size(request, limits)
}

/// Checks a transaction: counts, keys and every operation first, overlaps after that, size last.
///
/// # Errors
/// The status the client gets.
pub fn check_transaction(request: &TxnRequest, limits: &FormLimits) -> Result<(), Status> {
    check_level(request, limits.transaction_operations_max)?;
    check_overlap(&request.success)?;
    check_overlap(&request.failure)?;
    let ranges_only = (request.success.iter().chain(&request.failure))
        .all(|op| matches!(op.request, Some(request_op::Request::RequestRange(_))));
    if ranges_only {
        // Reads travel nowhere, so etcd never measures them.
        return Ok(());
    }
    check_size(request, limits)
}

fn check_put_operation(request: &PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::EMPTY_KEY);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(status::VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(status::LEASE_PROVIDED);
    }
    Ok(())
}

fn check_delete_operation(request: &DeleteRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::EMPTY_KEY);
    }
    Ok(())
}

/// One level of a transaction. What a level uses up is missing from its children's allowance, so the
/// depth is bounded by the allowance too.
fn check_level(request: &TxnRequest, allowance: usize) -> Result<(), Status> {
    let TxnRequest {
        compare,
        success,
        failure,
    } = request;
    let used = compare.len().max(success.len()).max(failure.len());
    let Some(rest) = allowance.checked_sub(used) else {
        return Err(status::TOO_MANY_OPERATIONS);
    };
    if compare.iter().any(|Compare { key, .. }| key.is_empty()) {
        return Err(status::EMPTY_KEY);
    }
    for operation in success.iter().chain(failure) {
        match &operation.request {
            Some(request_op::Request::RequestRange(range)) => check_range(range)?,
            Some(request_op::Request::RequestPut(put)) => check_put_operation(put)?,
            Some(request_op::Request::RequestDeleteRange(delete)) => {
                check_delete_operation(delete)?
            }
            Some(request_op::Request::RequestTxn(nested)) => check_level(nested, rest)?,
            None => return Err(status::KEY_NOT_FOUND),
        }
    }
    Ok(())
}

/// What one branch changes, nested transactions included.
#[derive(Default)]
struct Changes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<&'a DeleteRangeRequest>,
}

impl Changes<'_> {
    fn deletes_key(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|delete| deletes_key(delete, key))
    }
}

/// Whether a deletion covers a key, as far as this check goes: etcd reads a `range_end` of one zero byte
/// as an ordinary end here, so open-ended deletions never overlap.
fn deletes_key(delete: &DeleteRangeRequest, key: &[u8]) -> bool {
    if delete.range_end.is_empty() {
        return delete.key == key;
    }
    *delete.key <= *key && *key < *delete.range_end
}

fn check_overlap(operations: &[RequestOp]) -> Result<(), Status> {
    // One operation that is not a transaction cannot overlap; most transactions look like this.
    if let [RequestOp { request }] = operations
        && !matches!(request, Some(request_op::Request::RequestTxn(_)))
    {
        return Ok(());
    }
    changes(operations).map(drop)
}

/// Collects what a branch changes, and refuses a key that is put twice or put and deleted.
///
/// The order is etcd's, and shows: this level's deletions, then nested transactions one by one, then
/// this level's puts against all of them. So a put in one nested transaction is not compared with the
/// deletions of a later one.
fn changes(operations: &[RequestOp]) -> Result<Changes<'_>, Status> {
    let mut level = Changes::default();
    for operation in operations {
        if let Some(request_op::Request::RequestDeleteRange(delete)) = &operation.request {
            level.deletes.push(delete);
        }
    }
    for operation in operations {
        let Some(request_op::Request::RequestTxn(nested)) = &operation.request else {
            continue;
        };
        let success = changes(&nested.success)?;
        let failure = changes(&nested.failure)?;
        for key in &success.puts {
            if level.deletes_key(key) || !level.puts.insert(key) {
                return Err(status::DUPLICATE_KEY);
            }
        }
        for key in &failure.puts {
            // Only one of the two branches runs, so both may put the key.
            let repeated = !level.puts.insert(key) && !success.puts.contains(key);
            if repeated || level.deletes_key(key) {
                return Err(status::DUPLICATE_KEY);
            }
        }
        level.deletes.extend(success.deletes);
        level.deletes.extend(failure.deletes);
    }
    for operation in operations {
        if let Some(request_op::Request::RequestPut(put)) = &operation.request
            && (level.deletes_key(&put.key) || !level.puts.insert(&put.key))
        {
            return Err(status::DUPLICATE_KEY);
        }
    }
    Ok(level)
}

/// etcd measures a write in the envelope its own log would carry: a header with the request's id, and
/// the request as one field.
fn check_size(request: &impl Message, limits: &FormLimits) -> Result<(), Status> {
    let body = request.encoded_len() as u64;
    if body + envelope_size_bytes(body, limits.member) > limits.request_size_bytes_max {
        return Err(status::REQUEST_TOO_LARGE);
    }
    Ok(())
}

/// The envelope's own share: a two-byte tag, a length and a tagged id for the header; a one-byte tag and
/// a length for the body. Ids carry the low 16 bits of the member's id on top, a time stamp below.
fn envelope_size_bytes(body: u64, member: MemberId) -> u64 {
    let id = (member.0 << 48) | (1 << 47);
    let header = 1 + varint_size_bytes(id);
    2 + 1 + header + 1 + varint_size_bytes(body)
}

fn varint_size_bytes(value: u64) -> u64 {
    u64::from((64 - value.leading_zeros()).div_ceil(7).max(1))
}

/// Decodes one message of a request.
///
/// # Errors
/// What a client gets for bytes that are not that message.
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Status> {
    M::decode(bytes).map_err(|error| {
        Status::new(
            status::Code::Internal,
            format!("grpc: error unmarshalling request: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::pb::etcdserverpb::request_op::Request;

    const LIMITS: FormLimits = FormLimits {
        request_size_bytes_max: 1_572_864,
        transaction_operations_max: 128,
        member: MemberId(0x8e9e_05c5_2164_694d),
    };

    fn put(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest {
            key: key.into(),
            ..PutRequest::default()
        }))
    }

    fn delete(key: &'static str, range_end: &'static str) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            prev_kv: false,
        }))
    }

    fn range(key: &'static str) -> RequestOp {
        op(Request::RequestRange(RangeRequest {
            key: key.into(),
            ..RangeRequest::default()
        }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest {
            compare: vec![],
            success,
            failure,
        }))
    }

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn check(success: Vec<RequestOp>, expected: Result<(), Status>) {
        let request = TxnRequest {
            compare: vec![],
            success: success.clone(),
            failure: vec![],
        };
        assert_eq!(
            check_transaction(&request, &LIMITS),
            expected,
            "{success:?}"
        );
        let request = TxnRequest {
            compare: vec![],
            success: vec![],
            failure: success,
        };
        assert_eq!(
            check_transaction(&request, &LIMITS),
            expected,
            "{request:?}"
        );
    }

    /// Goal: the rules of a put come in etcd's order.
    #[test]
    fn put_rules_in_order() {
        let check =
            |key: &'static str, value: &'static str, lease, expected: Result<(), Status>| {
                let request = PutRequest {
                    key: key.into(),
                    value: value.into(),
                    lease,
                    ignore_value: true,
                    ignore_lease: true,
                    ..PutRequest::default()
                };
                assert_eq!(check_put(&request, &LIMITS), expected);
            };
        check("", "v", 1, Err(status::EMPTY_KEY));
        check("k", "v", 1, Err(status::VALUE_PROVIDED));
        check("k", "", 1, Err(status::LEASE_PROVIDED));
        check("k", "", 0, Ok(()));
    }

    /// Goal: unknown sort numbers are refused, after the key.
    #[test]
    fn range_rules_in_order() {
        let check = |key: &'static str, sort_order, sort_target, expected: Result<(), Status>| {
            let request = RangeRequest {
                key: key.into(),
                sort_order,
                sort_target,
                ..RangeRequest::default()
            };
            assert_eq!(check_range(&request), expected);
        };
        check("", 9, 0, Err(status::EMPTY_KEY));
        check("k", 3, 0, Err(status::INVALID_SORT_OPTION));
        check("k", 0, -1, Err(status::INVALID_SORT_OPTION));
        check("k", 2, 4, Ok(()));
    }

    /// Goal: a streamed read refuses orders and filters it cannot page, after the rules of a read.
    #[test]
    fn stream_rules_in_order() {
        let check = |sort_order, sort_target, max_mod_revision, expected: Result<(), Status>| {
            let request = RangeRequest {
                key: "k".into(),
                sort_order,
                sort_target,
                max_mod_revision,
                ..RangeRequest::default()
            };
            assert_eq!(check_range_stream(&request), expected);
        };
        check(7, 0, 1, Err(status::INVALID_SORT_OPTION));
        check(2, 0, 1, Err(status::STREAM_SORT));
        check(1, 4, 0, Err(status::STREAM_SORT));
        check(1, 0, 1, Err(status::STREAM_FILTER));
        check(0, 3, 0, Ok(()));
        check(1, 0, 0, Ok(()));
    }

    /// Goal: counts are checked per level, and a nested transaction has what its parent left.
    #[test]
    fn operations_are_counted_per_level() {
        let many = |count: usize| vec![range("k"); count];
        check(many(128), Ok(()));
        check(many(129), Err(status::TOO_MANY_OPERATIONS));
        let with_nested = |outer: usize, inner: usize| {
            let mut operations = many(outer - 1);
            operations.push(nested(many(inner), vec![]));
            operations
        };
        check(with_nested(100, 28), Ok(()));
        check(with_nested(100, 29), Err(status::TOO_MANY_OPERATIONS));
        let request = TxnRequest {
            compare: vec![Compare::default(); 129],
            ..TxnRequest::default()
        };
        assert_eq!(
            check_transaction(&request, &LIMITS),
            Err(status::TOO_MANY_OPERATIONS)
        );
        let request = TxnRequest {
            compare: vec![Compare::default()],
            success: vec![RequestOp { request: None }],
            failure: vec![],
        };
        assert_eq!(check_transaction(&request, &LIMITS), Err(status::EMPTY_KEY));
    }

    /// Goal: an operation's own rules come before overlaps, and an empty operation is "key not found".
    #[test]
    fn operations_are_checked_before_overlaps() {
        check(
            vec![put("a"), put("a"), RequestOp { request: None }],
            Err(status::KEY_NOT_FOUND),
        );
        check(vec![put("a"), put("a"), range("")], Err(status::EMPTY_KEY));
        check(vec![put("a"), put("a")], Err(status::DUPLICATE_KEY));
    }

    /// Goal: which puts and deletions may meet in one transaction.
    #[test]
    fn overlaps() {
        let duplicate = || Err(status::DUPLICATE_KEY);
        check(vec![put("a"), put("b")], Ok(()));
        check(vec![put("b"), delete("b", "")], duplicate());
        check(vec![delete("a", "c"), put("b")], duplicate());
        check(vec![delete("a", "b"), put("b")], Ok(()));
        check(vec![delete("a", "c"), delete("b", "d")], Ok(()));
        check(vec![delete("a", "\0"), put("b")], Ok(()));
        check(vec![put("a"), range("a")], Ok(()));
        check(vec![nested(vec![put("a")], vec![put("a")])], Ok(()));
        check(
            vec![nested(vec![put("a")], vec![put("a")]), put("a")],
            duplicate(),
        );
        check(
            vec![
                nested(vec![put("a")], vec![]),
                nested(vec![], vec![put("a")]),
            ],
            duplicate(),
        );
        check(vec![nested(vec![put("a"), put("a")], vec![])], duplicate());
        check(
            vec![put("a"), nested(vec![], vec![delete("a", "")])],
            duplicate(),
        );
        check(
            vec![
                nested(vec![delete("a", "")], vec![]),
                nested(vec![put("a")], vec![]),
            ],
            duplicate(),
        );
        check(
            vec![
                nested(vec![put("a")], vec![]),
                nested(vec![delete("a", "")], vec![]),
            ],
            Ok(()),
        );
    }

    /// Goal: the size limit counts the envelope, to the byte; reads have none.
    #[test]
    fn sizes_are_etcds() {
        let put = |size: usize| PutRequest {
            key: "k".into(),
            value: vec![0; size].into(),
            ..PutRequest::default()
        };
        // Tag 2, length 1, id tag 1 + 9 or 10, body tag 1 + length 3; the body: 3 for the key, 4 for the value.
        let largest = 1_572_864 - (2 + 1 + 1 + 9 + 1 + 3) - 7;
        assert_eq!(check_put(&put(largest), &LIMITS), Ok(()));
        assert_eq!(
            check_put(&put(largest + 1), &LIMITS),
            Err(status::REQUEST_TOO_LARGE)
        );
        let limits = FormLimits {
            member: MemberId(0x8000),
            ..LIMITS
        };
        assert_eq!(
            check_put(&put(largest), &limits),
            Err(status::REQUEST_TOO_LARGE)
        );
        let tiny = FormLimits {
            request_size_bytes_max: 1,
            ..LIMITS
        };
        let reads = TxnRequest {
            success: vec![range("k")],
            ..TxnRequest::default()
        };
        assert_eq!(check_transaction(&reads, &tiny), Ok(()));
        let request = CompactionRequest {
            revision: 1,
            physical: false,
        };
        assert_eq!(
            check_compaction(&request, &tiny),
            Err(status::REQUEST_TOO_LARGE)
        );
        let request = DeleteRangeRequest {
            key: "k".into(),
            ..DeleteRangeRequest::default()
        };
        assert_eq!(
            check_delete_range(&request, &tiny),
            Err(status::REQUEST_TOO_LARGE)
        );
    }
}
