//! From flags to what the parts of a member are started with.

use std::time::Duration;

use super::birth::texts;
use super::{CLUSTER_VERSION, SHARD};
use crate::base::limits::{
    DESCRIPTORS_RESERVED, EDGE_CONNECTIONS_DEFAULT, EDGE_CORE_HELD_BYTES_DEFAULT,
    EDGE_STREAMS_DEFAULT, RECENT_ENTRIES_BYTES_MAX,
};
use crate::base::planted::Planted;
use crate::config::{AllowList, Config};
use crate::raft::Windows;
use crate::rpc::{Allowed, EdgeConfig};
use crate::runtime::disk::identity::Identity;
use crate::shard::checkpoints::CheckpointLimits;
use crate::shard::event::{self, KnownMembers, Member};
use crate::shard::members::MembershipRules;
use crate::shard::{Settings, request_time_max};

/// The shard's settings; `seed` decides its random choices, `known` is what is stored beside its log.
pub(super) fn shard_settings(
    config: &Config,
    identity: &Identity,
    known: KnownMembers,
    seed: u64,
) -> Settings {
    let first_members = identity.first_members.iter().map(|first| Member {
        id: first.id,
        peer_urls: first.peer_urls.clone(),
        ..Member::default()
    });
    let own = identity
        .first_members
        .iter()
        .find(|first| first.id == identity.member);
    Settings {
        shard: SHARD,
        identity: event::Identity {
            cluster: identity.cluster,
            member: identity.member,
        },
        initial_members: first_members.collect(),
        membership: MembershipRules::default(),
        member: Member {
            id: identity.member,
            name: config.name.clone(),
            peer_urls: own.map_or_else(Vec::new, |own| own.peer_urls.clone()),
            client_urls: texts(&config.urls.advertise_client),
            is_learner: false,
        },
        incarnation: identity.incarnation,
        known,
        version: CLUSTER_VERSION,
        quota_bytes: config.limits.quota_bytes,
        memory_budget_bytes: config.memory_budget_bytes.unwrap_or(u64::MAX),
        election_timeout: config.raft.election_timeout,
        heartbeat_interval: config.raft.heartbeat_interval,
        pre_vote: config.raft.pre_vote,
        windows: Windows::default(),
        recent_bytes_max: RECENT_ENTRIES_BYTES_MAX,
        checkpoints: CheckpointLimits {
            payload_bytes_min: config.placement.checkpoint_payload_bytes,
            log_bytes_max: config.placement.checkpoint_log_bytes,
        },
        seed,
        planted: Planted::NOTHING,
    }
}

/// Client connections of one core, so that the log never lacks a descriptor because of them.
pub(super) fn connections_max(descriptors: Option<u64>, core_count: usize) -> usize {
    let for_clients = descriptors.map_or(usize::MAX, |descriptors| {
        usize::try_from(descriptors.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(usize::MAX)
    });
    EDGE_CONNECTIONS_DEFAULT
        .min(for_clients / core_count)
        .max(1)
}

pub(super) fn edge_config(config: &Config, connections_max: usize) -> EdgeConfig {
    const NEVER: Duration = Duration::from_secs(u32::MAX as u64);
    EdgeConfig {
        request_size_bytes_max: config.limits.request_size_bytes_max,
        transaction_operations_max: usize::try_from(config.limits.txn_operations_max)
            .unwrap_or(usize::MAX),
        request_timeout: request_time_max(config.raft.election_timeout),
        // etcd's default is no limit at all; every stream costs memory here.
        streams_per_connection_max: match config.limits.concurrent_streams_max {
            u32::MAX => EDGE_STREAMS_DEFAULT,
            asked => asked,
        },
        connections_max,
        // Well below what the process may use, whatever that is.
        held_bytes_max: config
            .memory_budget_bytes
            .map_or(EDGE_CORE_HELD_BYTES_DEFAULT, |budget| {
                EDGE_CORE_HELD_BYTES_DEFAULT.min(budget / 8)
            }),
        keepalive_min_time: config.keepalive.min_time,
        keepalive_interval: config.keepalive.interval.unwrap_or(NEVER),
        keepalive_timeout: config.keepalive.timeout.unwrap_or(NEVER),
        slow_request: config.slow_request.unwrap_or(NEVER),
        origins: allowed(&config.cors),
        hosts: allowed(&config.host_whitelist),
    }
}

fn allowed(list: &AllowList) -> Allowed {
    match list {
        AllowList::Any => Allowed::Any,
        AllowList::Only(these) => Allowed::These(these.clone()),
    }
}
