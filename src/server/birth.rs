//! Whose directory this is: an identity that was written once, or the birth of a member.
//!
//! Flags of `--initial-*` count at birth only. From then on the directory says which member of which cluster
//! this is and with whom it began, as with etcd.

use std::path::Path;

use super::ServerError;
use crate::base::Incarnation;
use crate::config::{self, ClusterState, Config, Founding, Url};
use crate::runtime::disk::begun;
use crate::runtime::disk::directory::{DataDirectory, files_in};
use crate::runtime::disk::identity::{self, FirstMember, Identity};
use crate::runtime::disk::known;
use crate::shard::event::KnownMembers;
use crate::wal::SegmentSequence;

/// The identity of an existing directory, or a new one for an empty one.
pub(super) fn found_or_load(
    config: &Config,
    directory: &DataDirectory,
    log_directory: &Path,
) -> Result<Identity, ServerError> {
    if let Some(identity) = identity::load(directory)? {
        identity::check_owner(log_directory, identity.incarnation)?;
        notice_other_flags(config, &identity);
        return Ok(with_first_members(identity, config));
    }
    let path = directory.path().to_path_buf();
    let has_segments = files_in(log_directory)?.iter().any(|file| {
        let name = file.file_name().and_then(|name| name.to_str());
        name.and_then(SegmentSequence::from_file_name).is_some()
    });
    if has_segments || begun::is_marked(log_directory)? {
        return Err(ServerError::IdentityLost { directory: path });
    }
    if config.initial.state == ClusterState::Existing {
        return Err(ServerError::JoinUnsupported { directory: path });
    }
    let founding = config.initial.founding.clone()?;
    let incarnation = identity::random_u128().map_err(|source| ServerError::System {
        action: "read random bytes",
        source,
    })?;
    let identity = born(founding, Incarnation(incarnation), &config.name);
    identity::store_owner(log_directory, identity.incarnation)?;
    known::store(log_directory, &known_at_birth(identity.first_members.len()))?;
    // Last: what has an identity has everything else.
    identity::store(directory, &identity)?;
    tracing::info!(
        cluster_id = %identity.cluster,
        member_id = %identity.member,
        members = identity.first_members.len(),
        "a new member of a new cluster"
    );
    Ok(identity)
}

/// What is stored beside the log about directories.
pub(super) fn load_known(
    log_directory: &Path,
    identity: &Identity,
) -> Result<KnownMembers, ServerError> {
    match known::load(log_directory)? {
        Some(known) => Ok(known),
        // Made before the file was.
        None if identity.first_members.len() == 1 => Ok(known_at_birth(1)),
        None => Err(ServerError::KnownLost {
            directory: log_directory.to_path_buf(),
            members: identity.first_members.len(),
        }),
    }
}

/// Alone, a member is the majority that knows no other directory; in a group it asks the others first.
fn known_at_birth(members: usize) -> KnownMembers {
    KnownMembers {
        confirmed: members == 1,
        ..KnownMembers::default()
    }
}

fn born(founding: Founding, incarnation: Incarnation, name: &str) -> Identity {
    let first_members = founding.members.into_iter().map(|member| FirstMember {
        id: member.id,
        peer_urls: texts(&member.peer_urls),
    });
    Identity {
        cluster: founding.cluster_id,
        member: founding.member_id,
        incarnation,
        name: name.to_owned(),
        created_by: config::KONTIKI_VERSION.to_owned(),
        first_members: first_members.collect(),
    }
}

/// A directory that does not say with whom it began was made for a member that was alone.
fn with_first_members(mut identity: Identity, config: &Config) -> Identity {
    if identity.first_members.is_empty() {
        identity.first_members.push(FirstMember {
            id: identity.member,
            peer_urls: texts(&config.urls.advertise_peer),
        });
    }
    identity
}

/// Flags that would found another cluster are no error: members come and go, and the flags of a start may say so. But
/// whoever wants that other cluster must hear that it does not exist: its members would each go on by themselves.
fn notice_other_flags(config: &Config, identity: &Identity) {
    if let Ok(founding) = &config.initial.founding
        && (founding.cluster_id, founding.member_id) != (identity.cluster, identity.member)
    {
        let urls = |member: &FirstMember| member.peer_urls.join(",");
        tracing::warn!(
            cluster_id = %identity.cluster,
            member_id = %identity.member,
            began_with = ?identity.first_members.iter().map(urls).collect::<Vec<_>>(),
            other_cluster_id = %founding.cluster_id,
            other_member_id = %founding.member_id,
            "the data directory belongs to a member of another cluster than --initial-cluster, \
             --initial-cluster-token and --initial-advertise-peer-urls would found; they are ignored"
        );
    }
}

pub(super) fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}
