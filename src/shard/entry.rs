//! What one entry of the log says, as an rkyv archive: the same bytes in staging, on disk and later on
//! the wire.
//!
//! An archived type is never changed once released; a new meaning is a new record version
//! ([`crate::frame::header::RECORD_VERSION`]), so that old logs stay readable.

use rkyv::{Archive, Serialize};

use crate::base::{Incarnation, MemberId};
use crate::keyspace::effects::Effect;
use crate::raft::ReadMode;
use crate::shard::cluster::ClusterChange;
use crate::shard::event::{Alarm, AlarmKind, Member};

/// The body of one entry.
#[derive(Archive, Serialize, Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryBody {
    /// The first entry of a term, which lets the leader commit what came before (Raft paper, section 8).
    Noop,
    /// What one client write changes: one revision.
    Effects(
        /// In order of execution.
        Vec<Effect>,
    ),
    /// Changes of members, alarms or the cluster version; no revision.
    Cluster(
        /// In order.
        Vec<ClusterEffect>,
    ),
}

/// One [`ClusterChange`] as it is stored. Texts are UTF-8 bytes.
#[derive(Archive, Serialize, Debug, Clone, PartialEq, Eq)]
pub(super) enum ClusterEffect {
    /// A member joins.
    MemberAdded {
        /// Its id.
        id: u64,
        /// Where its peers reach it.
        peer_urls: Vec<Vec<u8>>,
        /// Whether it has no vote.
        is_learner: bool,
    },
    /// A member says its name and where its clients reach it.
    MemberAttributes {
        /// Whose.
        id: u64,
        /// Its name.
        name: Vec<u8>,
        /// Where its clients reach it.
        client_urls: Vec<Vec<u8>>,
    },
    /// A member leaves for good.
    MemberRemoved {
        /// Its id.
        id: u64,
    },
    /// A learner gets a vote.
    MemberPromoted {
        /// Its id.
        id: u64,
    },
    /// The data directory that a member id belongs to.
    MemberIncarnation {
        /// Its id.
        id: u64,
        /// Little-endian bytes.
        incarnation: [u8; 16],
    },
    /// How leaders prove that they still lead.
    ReadMode {
        /// By a lease, or else by a majority.
        lease: bool,
    },
    /// The cluster version.
    Version {
        /// First number.
        major: u32,
        /// Second number.
        minor: u32,
    },
    /// An alarm is raised or cleared.
    Alarm {
        /// Whose.
        member: u64,
        /// Etcd's number of the alarm type: 1 NOSPACE, 2 CORRUPT.
        kind: u8,
        /// Raised, or cleared.
        raised: bool,
    },
    /// Peers reach a member elsewhere.
    MemberUpdated {
        /// Its id.
        id: u64,
        /// Where its peers reach it.
        peer_urls: Vec<Vec<u8>>,
    },
}

const ALARM_NO_SPACE: u8 = 1;
const ALARM_CORRUPT: u8 = 2;

impl From<&ClusterChange> for ClusterEffect {
    fn from(change: &ClusterChange) -> ClusterEffect {
        let alarm = |alarm: &Alarm, raised| ClusterEffect::Alarm {
            member: alarm.member.0,
            kind: match alarm.kind {
                AlarmKind::NoSpace => ALARM_NO_SPACE,
                AlarmKind::Corrupt => ALARM_CORRUPT,
            },
            raised,
        };
        match change {
            ClusterChange::MemberAdded(member) => ClusterEffect::MemberAdded {
                id: member.id.0,
                peer_urls: texts_to_bytes(&member.peer_urls),
                is_learner: member.is_learner,
            },
            ClusterChange::MemberAttributes {
                id,
                name,
                client_urls,
            } => ClusterEffect::MemberAttributes {
                id: id.0,
                name: name.clone().into_bytes(),
                client_urls: texts_to_bytes(client_urls),
            },
            ClusterChange::MemberRemoved(id) => ClusterEffect::MemberRemoved { id: id.0 },
            ClusterChange::MemberPromoted(id) => ClusterEffect::MemberPromoted { id: id.0 },
            ClusterChange::MemberUpdated { id, peer_urls } => ClusterEffect::MemberUpdated {
                id: id.0,
                peer_urls: texts_to_bytes(peer_urls),
            },
            ClusterChange::MemberIncarnation { id, incarnation } => {
                ClusterEffect::MemberIncarnation {
                    id: id.0,
                    incarnation: incarnation.0.to_le_bytes(),
                }
            }
            ClusterChange::ReadMode(mode) => ClusterEffect::ReadMode {
                lease: *mode == ReadMode::Lease,
            },
            ClusterChange::Version { major, minor } => ClusterEffect::Version {
                major: *major,
                minor: *minor,
            },
            ClusterChange::AlarmRaised(raised) => alarm(raised, true),
            ClusterChange::AlarmCleared(cleared) => alarm(cleared, false),
        }
    }
}

/// An entry whose archive is sound but says something this build does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntryError {
    /// An alarm type without a meaning.
    #[error("alarm type {0} is not known")]
    AlarmKind(u8),
    /// A name or URL that is not UTF-8.
    #[error("a name or URL is not UTF-8")]
    Text,
}

impl TryFrom<&ArchivedClusterEffect> for ClusterChange {
    type Error = EntryError;

    fn try_from(effect: &ArchivedClusterEffect) -> Result<ClusterChange, EntryError> {
        Ok(match effect {
            ArchivedClusterEffect::MemberAdded {
                id,
                peer_urls,
                is_learner,
            } => ClusterChange::MemberAdded(Member {
                id: MemberId(id.to_native()),
                peer_urls: bytes_to_texts(peer_urls)?,
                is_learner: *is_learner,
                ..Member::default()
            }),
            ArchivedClusterEffect::MemberAttributes {
                id,
                name,
                client_urls,
            } => ClusterChange::MemberAttributes {
                id: MemberId(id.to_native()),
                name: text(name)?,
                client_urls: bytes_to_texts(client_urls)?,
            },
            ArchivedClusterEffect::MemberRemoved { id } => {
                ClusterChange::MemberRemoved(MemberId(id.to_native()))
            }
            ArchivedClusterEffect::MemberPromoted { id } => {
                ClusterChange::MemberPromoted(MemberId(id.to_native()))
            }
            ArchivedClusterEffect::MemberUpdated { id, peer_urls } => {
                ClusterChange::MemberUpdated {
                    id: MemberId(id.to_native()),
                    peer_urls: bytes_to_texts(peer_urls)?,
                }
            }
            ArchivedClusterEffect::MemberIncarnation { id, incarnation } => {
                ClusterChange::MemberIncarnation {
                    id: MemberId(id.to_native()),
                    incarnation: Incarnation(u128::from_le_bytes(*incarnation)),
                }
            }
            ArchivedClusterEffect::ReadMode { lease } => ClusterChange::ReadMode(if *lease {
                ReadMode::Lease
            } else {
                ReadMode::Quorum
            }),
            ArchivedClusterEffect::Version { major, minor } => ClusterChange::Version {
                major: major.to_native(),
                minor: minor.to_native(),
            },
            ArchivedClusterEffect::Alarm {
                member,
                kind,
                raised,
            } => {
                let kind = match *kind {
                    ALARM_NO_SPACE => AlarmKind::NoSpace,
                    ALARM_CORRUPT => AlarmKind::Corrupt,
                    unknown => return Err(EntryError::AlarmKind(unknown)),
                };
                let alarm = Alarm {
                    member: MemberId(member.to_native()),
                    kind,
                };
                if *raised {
                    ClusterChange::AlarmRaised(alarm)
                } else {
                    ClusterChange::AlarmCleared(alarm)
                }
            }
        })
    }
}

fn texts_to_bytes(texts: &[String]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.clone().into_bytes()).collect()
}

fn bytes_to_texts(
    texts: &rkyv::vec::ArchivedVec<rkyv::vec::ArchivedVec<u8>>,
) -> Result<Vec<String>, EntryError> {
    texts.iter().map(|bytes| text(bytes)).collect()
}

fn text(bytes: &[u8]) -> Result<String, EntryError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| EntryError::Text)
}
