//! The first members of a cluster, from `--initial-cluster`.
//!
//! Every first member computes the same list, the same ids and so the same first entry of the log from its
//! own flags; nothing is agreed on over the network. The rules are etcd's, except that URLs are compared
//! letter by letter, because ids are computed from the letters.

use std::collections::{BTreeMap, BTreeSet};

use super::error::ConfigError;
use super::{FirstMember, Founding, Url, identity};
use crate::base::limits::RAFT_MEMBERS_MAX;

/// The cluster that `listed` founds: `name=url,...`, where a name comes again for each further URL of that
/// member; empty for the member `name` alone. `advertised` are that member's own peer URLs, sorted.
pub(super) fn founding(
    listed: &str,
    name: &str,
    advertised: &[Url],
    token: &str,
) -> Result<Founding, ConfigError> {
    let mut urls_by_name = match listed {
        "" => BTreeMap::from([(name.to_owned(), advertised.to_vec())]),
        listed => parse(listed)?,
    };
    for urls in urls_by_name.values_mut() {
        urls.sort();
    }
    check_own(urls_by_name.get(name), name, advertised)?;
    check_distinct(&urls_by_name, listed)?;
    let mut members: Vec<FirstMember> = urls_by_name
        .into_iter()
        .map(|(name, peer_urls)| FirstMember {
            id: identity::member_id(peer_urls.iter().map(Url::as_str), token),
            name,
            peer_urls,
        })
        .collect();
    members.sort_by_key(|member| member.id);
    for pair in members.windows(2) {
        // One in 2^64, or on purpose.
        if pair[0].id == pair[1].id {
            return Err(ConfigError::SameMemberId {
                one: pair[0].name.clone(),
                other: pair[1].name.clone(),
            });
        }
    }
    let own = members
        .iter()
        .find(|member| member.name == name)
        .expect("this member was just seen");
    Ok(Founding {
        cluster_id: identity::cluster_id(members.iter().map(|member| member.id)),
        member_id: own.id,
        members,
    })
}

fn parse(listed: &str) -> Result<BTreeMap<String, Vec<Url>>, ConfigError> {
    let mut urls_by_name: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for part in listed.split(',') {
        let malformed = || ConfigError::InitialClusterForm {
            text: part.to_owned(),
        };
        let (name, url) = part.split_once('=').ok_or_else(malformed)?;
        let name = name.trim();
        if name.is_empty() || url.is_empty() {
            return Err(malformed());
        }
        let url = Url::parse(url).map_err(|fault| ConfigError::Url {
            flag: "initial-cluster",
            url: url.to_owned(),
            fault,
        })?;
        urls_by_name.entry(name.to_owned()).or_default().push(url);
    }
    if urls_by_name.len() > RAFT_MEMBERS_MAX {
        return Err(ConfigError::TooManyMembers {
            count: urls_by_name.len(),
        });
    }
    Ok(urls_by_name)
}

fn check_own(listed: Option<&Vec<Url>>, name: &str, advertised: &[Url]) -> Result<(), ConfigError> {
    let Some(listed) = listed else {
        return Err(ConfigError::NotInInitialCluster {
            name: name.to_owned(),
        });
    };
    if listed != advertised {
        return Err(ConfigError::PeerUrlsDiffer {
            listed: joined(listed),
            advertised: joined(advertised),
        });
    }
    Ok(())
}

/// Two members cannot be reached at one address, and one that lists an address twice is a mistake too.
fn check_distinct(
    urls_by_name: &BTreeMap<String, Vec<Url>>,
    listed: &str,
) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for url in urls_by_name.values().flatten() {
        if !seen.insert(url.as_str()) {
            return Err(ConfigError::DuplicateUrl {
                listed: listed.to_owned(),
                url: url.as_str().to_owned(),
            });
        }
    }
    Ok(())
}

fn joined(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}
