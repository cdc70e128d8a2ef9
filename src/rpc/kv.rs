//! The KV service: decodes, checks the form, and asks the shard; answers go back the same way.
//!
//! Pure functions, on the connection's core. `parse` takes any bytes and must never panic: it is what
//! a fuzzer drives.

use bytes::Bytes;

use super::form::{self, FormLimits};
use super::pb::etcdserverpb as pb;
use super::status::Status;
use super::{convert, method::KvMethod};
use crate::keyspace::request::RangeRequest;
use crate::shard::event::Request;

/// Decodes and checks one request of the KV service.
///
/// # Errors
/// The status the client gets.
pub fn parse(method: KvMethod, message: Bytes, limits: &FormLimits) -> Result<Request, Status> {
    Ok(match method {
        KvMethod::Range => {
            let request: pb::RangeRequest = form::decode(message)?;
            form::check_range(&request)?;
            Request::Range(convert::range(request))
        }
        KvMethod::Put => {
            let request: pb::PutRequest = form::decode(message)?;
            form::check_put(&request, limits)?;
            Request::Put(convert::put(request))
        }
        KvMethod::DeleteRange => {
            let request: pb::DeleteRangeRequest = form::decode(message)?;
            form::check_delete_range(&request, limits)?;
            Request::DeleteRange(convert::delete_range(request))
        }
        KvMethod::Txn => {
            let request: pb::TxnRequest = form::decode(message)?;
            form::check_transaction(&request, limits)?;
            Request::Txn(convert::transaction(request))
        }
        KvMethod::Compact => {
            let request: pb::CompactionRequest = form::decode(message)?;
            form::check_compaction(&request, limits)?;
            Request::Compact {
                revision: request.revision,
                physical: request.physical,
            }
        }
    })
}

/// Decodes and checks a streamed read.
///
/// # Errors
/// The status the client gets.
pub fn parse_stream(message: Bytes) -> Result<RangeRequest, Status> {
    let request: pb::RangeRequest = form::decode(message)?;
    form::check_range_stream(&request)?;
    Ok(convert::range(request))
}
