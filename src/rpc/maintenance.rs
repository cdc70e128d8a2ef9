//! The Maintenance service: Status, Alarm and MoveLeader.
//!
//! Pure functions, on the connection's core.

use bytes::Bytes;

use super::pb::etcdserverpb as pb;
use super::status::{self, Status as RpcStatus};
use super::{form, version};
use crate::base::MemberId;
use crate::shard::event::{Alarm, AlarmKind, AlarmRequest, Request, Status};

/// Decodes a request for this member's status.
///
/// # Errors
/// The status the client gets.
pub fn parse_status(message: Bytes) -> Result<Request, RpcStatus> {
    let pb::StatusRequest {} = form::decode(message)?;
    Ok(Request::Status)
}

/// Decodes a request that another member leads.
///
/// # Errors
/// The status the client gets.
pub fn parse_move_leader(message: Bytes) -> Result<Request, RpcStatus> {
    let pb::MoveLeaderRequest { target_id } = form::decode(message)?;
    Ok(Request::MoveLeader(MemberId(target_id)))
}

/// Decodes an alarm request. Numbers outside the enumerations name no alarm and do nothing.
///
/// # Errors
/// The status the client gets.
pub fn parse_alarm(message: Bytes) -> Result<Request, RpcStatus> {
    use pb::alarm_request::AlarmAction;

    let request: pb::AlarmRequest = form::decode(message)?;
    let member = MemberId(request.member_id);
    let kind = match pb::AlarmType::try_from(request.alarm) {
        Ok(pb::AlarmType::None) => Some(None),
        Ok(pb::AlarmType::Nospace) => Some(Some(AlarmKind::NoSpace)),
        Ok(pb::AlarmType::Corrupt) => Some(Some(AlarmKind::Corrupt)),
        Err(_) => None,
    };
    Ok(Request::Alarm(
        match (AlarmAction::try_from(request.action), kind) {
            (Ok(AlarmAction::Get), Some(kind)) => AlarmRequest::List(kind),
            (Ok(AlarmAction::Activate), Some(Some(kind))) => AlarmRequest::Activate(member, kind),
            (Ok(AlarmAction::Deactivate), Some(Some(kind))) => {
                AlarmRequest::Deactivate(member, kind)
            }
            _ => AlarmRequest::Nothing,
        },
    ))
}

/// The answer to a status request.
#[must_use]
pub fn status_response(header: Option<pb::ResponseHeader>, status: &Status) -> pb::StatusResponse {
    let mut errors = Vec::new();
    if status.leader == MemberId(0) {
        errors.push(status::NO_LEADER.message.into_owned());
    }
    for alarm in &status.alarms {
        let kind = alarm_type(alarm.kind).as_str_name();
        errors.push(format!("memberID:{} alarm:{kind} ", alarm.member.0));
    }
    pb::StatusResponse {
        header,
        version: version::SERVER.to_owned(),
        db_size: status.db_size_bytes,
        leader: status.leader.0,
        raft_index: status.raft_index,
        raft_term: status.raft_term,
        raft_applied_index: status.raft_applied_index,
        errors,
        db_size_in_use: status.db_size_in_use_bytes,
        is_learner: status.is_learner,
        storage_version: version::STORAGE.to_owned(),
        db_size_quota: status.db_size_quota_bytes,
        downgrade_info: Some(pb::DowngradeInfo::default()),
    }
}

/// The answer to an alarm request.
#[must_use]
pub fn alarm_response(header: Option<pb::ResponseHeader>, alarms: &[Alarm]) -> pb::AlarmResponse {
    let alarms = alarms.iter().map(|alarm| pb::AlarmMember {
        member_id: alarm.member.0,
        alarm: alarm_type(alarm.kind).into(),
    });
    pb::AlarmResponse {
        header,
        alarms: alarms.collect(),
    }
}

fn alarm_type(kind: AlarmKind) -> pb::AlarmType {
    match kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// Goal: actions and types, known and unknown, become what a shard understands.
    #[test]
    fn alarm_requests() {
        let check = |action, alarm, expected: AlarmRequest| {
            let request = pb::AlarmRequest {
                action,
                member_id: 7,
                alarm,
            };
            let parsed = parse_alarm(request.encode_to_vec().into()).unwrap();
            assert!(
                matches!(parsed, Request::Alarm(request) if request == expected),
                "{parsed:?}"
            );
        };
        let member = MemberId(7);
        check(0, 0, AlarmRequest::List(None));
        check(0, 1, AlarmRequest::List(Some(AlarmKind::NoSpace)));
        check(0, 9, AlarmRequest::Nothing);
        check(1, 0, AlarmRequest::Nothing);
        check(1, 2, AlarmRequest::Activate(member, AlarmKind::Corrupt));
        check(2, 1, AlarmRequest::Deactivate(member, AlarmKind::NoSpace));
        check(5, 1, AlarmRequest::Nothing);
    }

    /// Goal: a status shows a missing leader, alarms in etcd's text, and a downgrade record always.
    #[test]
    fn status_errors() {
        let status = Status {
            alarms: vec![Alarm {
                member: MemberId(12),
                kind: AlarmKind::NoSpace,
            }],
            ..Status::default()
        };
        let response = status_response(None, &status);
        assert_eq!(
            response.errors,
            ["etcdserver: no leader", "memberID:12 alarm:NOSPACE "]
        );
        assert!(response.downgrade_info.is_some());
    }
}
