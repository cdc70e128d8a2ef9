//! gRPC's health service, which load balancers and probes ask.
//!
//! The server as a whole, under the empty name, serves until it stops; no other name is known. Pure
//! functions, on the connection's core; no shard is asked.

use bytes::Bytes;

use super::form;
use super::pb::health as pb;
use super::pb::health::health_check_response::ServingStatus;
use super::status::{self, Status};

/// Decodes a request and says which service it asks about.
///
/// # Errors
/// The status the client gets.
pub fn parse(message: Bytes) -> Result<String, Status> {
    let request: pb::HealthCheckRequest = form::decode(message)?;
    Ok(request.service)
}

/// The answer to Check.
///
/// # Errors
/// `unknown service` for any name but the empty one.
pub fn check(service: &str, stopping: bool) -> Result<pb::HealthCheckResponse, Status> {
    if !service.is_empty() {
        return Err(status::UNKNOWN_HEALTH_SERVICE);
    }
    Ok(response(serving(stopping)))
}

/// The answer to List.
///
/// # Errors
/// The status for bytes that are no request.
pub fn list(message: Bytes, stopping: bool) -> Result<pb::HealthListResponse, Status> {
    let pb::HealthListRequest {} = form::decode(message)?;
    let statuses = [(String::new(), response(serving(stopping)))];
    Ok(pb::HealthListResponse {
        statuses: statuses.into(),
    })
}

/// One message of Watch: unlike Check it answers for names it does not know, which may appear later.
#[must_use]
pub fn watch(service: &str, stopping: bool) -> pb::HealthCheckResponse {
    if service.is_empty() {
        response(serving(stopping))
    } else {
        response(ServingStatus::ServiceUnknown)
    }
}

fn serving(stopping: bool) -> ServingStatus {
    if stopping {
        ServingStatus::NotServing
    } else {
        ServingStatus::Serving
    }
}

fn response(status: ServingStatus) -> pb::HealthCheckResponse {
    pb::HealthCheckResponse {
        status: status.into(),
    }
}
