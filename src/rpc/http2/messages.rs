//! From a stream's bytes to a message, and from a shard's answer to bytes. Keeps nothing.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;

use crate::rpc::edge::Edge;
use crate::rpc::grpc::Assembler;
use crate::rpc::pb::etcdserverpb::{CompactionResponse, MoveLeaderResponse};
use crate::rpc::status::{self, Status};
use crate::rpc::{admin, cluster, convert, maintenance};
use crate::shard::event::{Header, Response};

/// What a stream has given so far.
pub(super) enum Received {
    /// The message.
    Whole(Bytes),
    /// Part of it.
    Incomplete,
    /// What is no message.
    Refused(Status),
    /// The client has reset the stream.
    Gone,
}

/// Takes what a stream has.
pub(super) fn receive(
    body: &mut RecvStream,
    message: &mut Assembler,
    size_bytes_max: u64,
    cx: &mut Context<'_>,
) -> Received {
    loop {
        let chunk = match body.poll_data(cx) {
            Poll::Pending => return Received::Incomplete,
            Poll::Ready(None) => return Received::Refused(message.end()),
            Poll::Ready(Some(Err(_))) => return Received::Gone,
            Poll::Ready(Some(Ok(chunk))) => chunk,
        };
        // Taken is taken: the budgets count it from here on. Fails only when the stream is gone.
        let _ = body.flow_control().release_capacity(chunk.len());
        match message.push(chunk, size_bytes_max) {
            Ok(Some(message)) => return Received::Whole(message),
            Ok(None) => {}
            Err(status) => return Received::Refused(status),
        }
    }
}

/// A shard's answer to a unary call as a gRPC message.
pub(super) fn encode(edge: &Edge, header: &Header, response: Response) -> Result<Bytes, Status> {
    let header = convert::header(&edge.identity, header);
    match response {
        Response::Range(response) => convert::frame(&convert::range_response(header, response)),
        Response::Put(response) => convert::frame(&convert::put_response(header, response)),
        Response::DeleteRange(response) => {
            convert::frame(&convert::delete_range_response(header, response))
        }
        Response::Txn(response) => convert::frame(&convert::transaction_response(header, response)),
        Response::Compact => convert::frame(&CompactionResponse { header }),
        Response::Status(status) => convert::frame(&maintenance::status_response(header, &status)),
        Response::MemberList(members) => {
            convert::frame(&cluster::member_list_response(header, members))
        }
        Response::Alarm(alarms) => convert::frame(&maintenance::alarm_response(header, &alarms)),
        Response::ReadMode(mode) => convert::frame(&admin::read_mode_response(header, mode)),
        // Without a header, as etcd's.
        Response::LeaderMoved => convert::frame(&MoveLeaderResponse { header: None }),
        // No method asks for these yet.
        Response::MemberAdded { .. } | Response::MembersChanged(_) => Err(status::WRONG_ANSWER),
    }
}
