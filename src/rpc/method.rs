//! The paths of the calls this server answers, and gRPC's texts for the others.

use super::status::{Code, Status};

/// The unary calls of the KV service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvMethod {
    /// Read keys.
    Range,
    /// Put a key.
    Put,
    /// Delete keys.
    DeleteRange,
    /// Several operations as one.
    Txn,
    /// Forget history.
    Compact,
}

/// The calls this server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A unary call of `etcdserverpb.KV`.
    Kv(KvMethod),
    /// `etcdserverpb.KV/RangeStream`.
    RangeStream,
    /// `etcdserverpb.Maintenance/Status`.
    Status,
    /// `etcdserverpb.Maintenance/Alarm`.
    Alarm,
    /// `etcdserverpb.Maintenance/MoveLeader`.
    MoveLeader,
    /// `etcdserverpb.Cluster/MemberList`.
    MemberList,
    /// `kontiki.Admin/ReadMode`.
    ReadMode,
    /// `kontiki.Admin/SetReadMode`.
    SetReadMode,
    /// `grpc.health.v1.Health/Check`.
    HealthCheck,
    /// `grpc.health.v1.Health/List`.
    HealthList,
    /// `grpc.health.v1.Health/Watch`.
    HealthWatch,
}

/// Services that exist, whichever of their methods do.
const SERVICES: [&str; 10] = [
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Auth",
    "v3lockpb.Lock",
    "v3electionpb.Election",
    "grpc.health.v1.Health",
    "kontiki.Admin",
];

impl Method {
    /// The method a `:path` names.
    ///
    /// # Errors
    /// gRPC's status for a path that names none.
    pub fn find(path: &str) -> Result<Method, Status> {
        Ok(match path {
            "/etcdserverpb.KV/Range" => Method::Kv(KvMethod::Range),
            "/etcdserverpb.KV/Put" => Method::Kv(KvMethod::Put),
            "/etcdserverpb.KV/Txn" => Method::Kv(KvMethod::Txn),
            "/etcdserverpb.KV/DeleteRange" => Method::Kv(KvMethod::DeleteRange),
            "/etcdserverpb.KV/Compact" => Method::Kv(KvMethod::Compact),
            "/etcdserverpb.KV/RangeStream" => Method::RangeStream,
            "/etcdserverpb.Maintenance/Status" => Method::Status,
            "/etcdserverpb.Maintenance/Alarm" => Method::Alarm,
            "/etcdserverpb.Maintenance/MoveLeader" => Method::MoveLeader,
            "/etcdserverpb.Cluster/MemberList" => Method::MemberList,
            "/kontiki.Admin/ReadMode" => Method::ReadMode,
            "/kontiki.Admin/SetReadMode" => Method::SetReadMode,
            "/grpc.health.v1.Health/Check" => Method::HealthCheck,
            "/grpc.health.v1.Health/List" => Method::HealthList,
            "/grpc.health.v1.Health/Watch" => Method::HealthWatch,
            _ => return Err(unknown(path)),
        })
    }

    /// Its `:path`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Method::Kv(KvMethod::Range) => "/etcdserverpb.KV/Range",
            Method::Kv(KvMethod::Put) => "/etcdserverpb.KV/Put",
            Method::Kv(KvMethod::Txn) => "/etcdserverpb.KV/Txn",
            Method::Kv(KvMethod::DeleteRange) => "/etcdserverpb.KV/DeleteRange",
            Method::Kv(KvMethod::Compact) => "/etcdserverpb.KV/Compact",
            Method::RangeStream => "/etcdserverpb.KV/RangeStream",
            Method::Status => "/etcdserverpb.Maintenance/Status",
            Method::Alarm => "/etcdserverpb.Maintenance/Alarm",
            Method::MoveLeader => "/etcdserverpb.Maintenance/MoveLeader",
            Method::MemberList => "/etcdserverpb.Cluster/MemberList",
            Method::ReadMode => "/kontiki.Admin/ReadMode",
            Method::SetReadMode => "/kontiki.Admin/SetReadMode",
            Method::HealthCheck => "/grpc.health.v1.Health/Check",
            Method::HealthList => "/grpc.health.v1.Health/List",
            Method::HealthWatch => "/grpc.health.v1.Health/Watch",
        }
    }
}

/// What gRPC says about a path without a method: the last slash parts the service from the method.
fn unknown(path: &str) -> Status {
    let parts = path
        .strip_prefix('/')
        .and_then(|name| name.rsplit_once('/'));
    let Some((service, method)) = parts else {
        return Status::new(
            Code::Unimplemented,
            format!("malformed method name: {path:?}"),
        );
    };
    if SERVICES.contains(&service) {
        Status::unknown_method(service, method)
    } else {
        Status::unknown_service(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every way to name no method has gRPC's own text.
    #[test]
    fn unknown_names() {
        let check = |path: &str, expected: &str| {
            let status = Method::find(path).unwrap_err();
            assert_eq!(
                (status.code, &*status.message),
                (Code::Unimplemented, expected)
            );
        };
        check(
            "/etcdserverpb.KV/Rang",
            "unknown method Rang for service etcdserverpb.KV",
        );
        check(
            "/etcdserverpb.Watch/Watch",
            "unknown method Watch for service etcdserverpb.Watch",
        );
        check(
            "/etcdserverpb.KV/",
            "unknown method  for service etcdserverpb.KV",
        );
        for path in [
            "/etcdserverpb.KV/Txn",
            "/grpc.health.v1.Health/Watch",
            "/kontiki.Admin/SetReadMode",
        ] {
            assert_eq!(Method::find(path).map(Method::path), Ok(path));
        }
        check("/no.Such/Thing", "unknown service no.Such");
        check("/a/b/c", "unknown service a/b");
        check("/", "malformed method name: \"/\"");
        check("/nothing", "malformed method name: \"/nothing\"");
        check(
            "etcdserverpb.KV/Range",
            "malformed method name: \"etcdserverpb.KV/Range\"",
        );
    }
}
