//! Member and cluster ids, computed as etcd computes them, so that tools show the same numbers.

use sha1::{Digest, Sha1};

use crate::base::{ClusterId, MemberId};

/// The id of a member that is part of a cluster from its start: the first eight bytes of the SHA-1 of
/// its sorted peer URLs, one after the other, followed by the cluster's token.
#[must_use]
pub fn member_id<'a>(peer_urls: impl IntoIterator<Item = &'a str>, token: &str) -> MemberId {
    let mut urls: Vec<&str> = peer_urls.into_iter().collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url.as_bytes());
    }
    hash.update(token.as_bytes());
    MemberId(first_eight(hash))
}

/// The id of a cluster: the first eight bytes of the SHA-1 of its first members' sorted ids.
#[must_use]
pub fn cluster_id(members: impl IntoIterator<Item = MemberId>) -> ClusterId {
    let mut ids: Vec<MemberId> = members.into_iter().collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for MemberId(id) in ids {
        hash.update(id.to_be_bytes());
    }
    ClusterId(first_eight(hash))
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let bytes = digest[..8].try_into().expect("a SHA-1 has twenty bytes");
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the ids that a real etcd with its default flags reports.
    #[test]
    fn ids_of_a_default_etcd() {
        let member = member_id(["http://localhost:2380"], "etcd-cluster");
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id([member]).to_string(), "cdf818194e3a8c32");
    }

    /// Goal: the order in which URLs and members are listed does not matter.
    #[test]
    fn order_does_not_matter() {
        assert_eq!(
            member_id(["http://b:1", "http://a:1"], "t"),
            member_id(["http://a:1", "http://b:1"], "t")
        );
        let (one, two) = (MemberId(1), MemberId(2));
        assert_eq!(cluster_id([one, two]), cluster_id([two, one]));
        assert_ne!(cluster_id([one, two]), cluster_id([one]));
    }
}
