//! What answers at the endpoints, asked before the load starts.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::result::Target;
use crate::wire::{Endpoint, Method, call};
use crate::workload::messages::{Status, member_count, status};

use super::RunError;

/// The endpoints that answer, and those that do not.
#[derive(Debug)]
pub(super) struct Found {
    /// In the order given.
    pub(super) up: Vec<Endpoint>,
    /// Why others are not among them.
    pub(super) down: Vec<String>,
    pub(super) target: Target,
}

/// Asks every endpoint who it is. With `leader_only` only the leader is kept.
pub(super) fn find(
    endpoints: &[Endpoint],
    tls: Option<&Arc<ClientConfig>>,
    leader_only: bool,
    time_max: Duration,
) -> Result<Found, RunError> {
    let mut members: Vec<(Endpoint, Status)> = Vec::new();
    let mut down = Vec::new();
    for endpoint in endpoints {
        match call(endpoint, tls, Method::Status, &[], time_max) {
            Ok(answer) => members.push((endpoint.clone(), status(&answer).unwrap_or_default())),
            Err(error) => down.push(error.to_string()),
        }
    }
    let Some((first, about)) = members.first() else {
        return Err(RunError::NoEndpoint(down.join("; ")));
    };
    let listed = call(first, tls, Method::MemberList, &[], time_max);
    let target = Target {
        version: about.version.clone(),
        members: listed.map_or(0, |answer| member_count(&answer)),
        ..Target::default()
    };
    if leader_only {
        let leads =
            |(_, status): &(Endpoint, Status)| status.leader != 0 && status.leader == status.member;
        let leader = members.into_iter().find(leads).ok_or(RunError::NoLeader)?;
        members = vec![leader];
    }
    Ok(Found {
        up: members.into_iter().map(|(endpoint, _)| endpoint).collect(),
        down,
        target,
    })
}
