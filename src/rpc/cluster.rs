//! The Cluster service: MemberList.
//!
//! Pure functions, on the connection's core.

use bytes::Bytes;

use super::form;
use super::pb::etcdserverpb as pb;
use super::status::Status;
use crate::shard::event::{Member, Request};

/// Decodes a request for the member list.
///
/// # Errors
/// The status the client gets.
pub fn parse_member_list(message: Bytes) -> Result<Request, Status> {
    let request: pb::MemberListRequest = form::decode(message)?;
    Ok(Request::MemberList {
        linearizable: request.linearizable,
    })
}

/// The answer to it. etcd's member service knows no revision: its headers leave it out.
#[must_use]
pub fn member_list_response(
    header: Option<pb::ResponseHeader>,
    members: Vec<Member>,
) -> pb::MemberListResponse {
    let mut members: Vec<_> = members
        .into_iter()
        .map(|member| pb::Member {
            id: member.id.0,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.is_learner,
        })
        .collect();
    members.sort_by_key(|member| member.id);
    pb::MemberListResponse {
        header: header.map(|header| pb::ResponseHeader {
            revision: 0,
            ..header
        }),
        members,
    }
}
