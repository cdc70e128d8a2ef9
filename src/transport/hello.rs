//! Who talks to whom: the first bytes of a connection, and whether it is wanted.
//!
//! The side that connects says who it is and whom it wants, the other answers who it is and with the
//! protocol version, or why not. Both messages have a fixed form that no later version of the protocol
//! changes. Owns that form and the decision, which is a function of what the shard has told; must never
//! wait or log.

use std::fmt;

use crate::base::checksum::crc32c;
use crate::base::{ClusterId, Incarnation, MemberId, ShardId};
use crate::frame::fields::{put, u32_at, u64_at, u128_at};
use crate::raft::Directories;
use crate::transport::wire::PROTOCOL_VERSIONS;

/// Size of both messages.
pub(super) const HELLO_BYTES: usize = 80;
/// What a connection begins with.
pub(super) const HELLO_MAGIC: [u8; 8] = *b"KTKHELLO";
/// What the answer begins with.
const REPLY_MAGIC: [u8; 8] = *b"KTKREPLY";

// The layout. All numbers are little-endian; bytes without a name are zero.

/// 8 bytes: [`HELLO_MAGIC`] or [`REPLY_MAGIC`].
const MAGIC_OFFSET: usize = 0;
/// u8: the lowest protocol version of the sender.
const LOWEST_OFFSET: usize = 8;
/// u8: the highest.
const HIGHEST_OFFSET: usize = 9;
/// u8: in a hello, which [`Path`]; in an answer, the version chosen, zero when refused.
const PATH_OR_CHOSEN_OFFSET: usize = 10;
/// u8: in an answer, the [`Refusal`]; zero when accepted.
const REFUSAL_OFFSET: usize = 11;
/// u32: the shard.
const SHARD_OFFSET: usize = 12;
/// u64: the cluster of the sender.
const CLUSTER_OFFSET: usize = 16;
/// u64: the sender.
const MEMBER_OFFSET: usize = 24;
/// u64: whom it talks to.
const WANTED_OFFSET: usize = 32;
/// u128: the incarnation of the sender's data directory.
const INCARNATION_OFFSET: usize = 40;
/// u8: one if the group has agreed on that directory, as the sender knows; else zero.
const AGREED_OFFSET: usize = 56;
/// u32: CRC-32C of the bytes before it.
const CHECKSUM_OFFSET: usize = 76;

const _: () = assert!(CHECKSUM_OFFSET + 4 == HELLO_BYTES);

/// What a connection carries. Each has one of its own, so that what is small never waits for what is large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Path {
    /// Heartbeats, votes and reads: small, and never behind entries.
    Prompt = 1,
    /// Entries and their acknowledgements, forwarded requests and their answers.
    Ordered = 2,
    /// Blocks of checkpoints.
    Bulk = 3,
}

impl Path {
    pub(super) const ALL: [Path; 3] = [Path::Prompt, Path::Ordered, Path::Bulk];

    fn from_byte(byte: u8) -> Option<Path> {
        Path::ALL.into_iter().find(|path| *path as u8 == byte)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::Prompt => "prompt",
            Path::Ordered => "ordered",
            Path::Bulk => "bulk",
        })
    }
}

/// Who a member is, on one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) cluster: ClusterId,
    pub(super) member: MemberId,
    pub(super) incarnation: Incarnation,
    pub(super) shard: ShardId,
    /// Whether it knows that the group has agreed, for good, on that directory.
    pub(super) agreed: bool,
    /// Lowest and highest.
    pub(super) versions: (u8, u8),
}

/// The first message of the side that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) from: Own,
    pub(super) wanted: MemberId,
    pub(super) path: Path,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) from: Own,
    /// The protocol version of the connection, or why there is none.
    pub(super) verdict: Result<u8, Refusal>,
}

/// Why a member does not want a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[repr(u8)]
pub(super) enum Refusal {
    /// The other side is of another cluster.
    #[error("it belongs to another cluster")]
    OtherCluster = 1,
    /// Another member was looked for at this address.
    #[error("another member listens at this address")]
    OtherMember = 2,
    /// A member has connected to itself, or to another one with its id.
    #[error("both sides have the same member id")]
    SameMember = 3,
    /// Not a member as far as is known.
    #[error("it is not a member of this cluster")]
    Stranger = 4,
    /// The member id belongs to another data directory.
    #[error("another data directory belongs to this member id")]
    OtherIncarnation = 5,
    /// There is no such shard here.
    #[error("there is no such shard")]
    OtherShard = 6,
    /// No protocol version is spoken by both.
    #[error("no version of the protocol is spoken by both sides")]
    NoCommonVersion = 7,
    /// Too many of its kind at the same time.
    #[error("there are too many connections of members that are not known")]
    TooMany = 8,
    /// A reason that a later version gives. Never sent.
    #[error("for a reason that this version does not know")]
    Unknown = u8::MAX,
}

impl Refusal {
    const ALL: [Refusal; 8] = [
        Refusal::OtherCluster,
        Refusal::OtherMember,
        Refusal::SameMember,
        Refusal::Stranger,
        Refusal::OtherIncarnation,
        Refusal::OtherShard,
        Refusal::NoCommonVersion,
        Refusal::TooMany,
    ];
}

/// Whom a member lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// From which data directory each, and what is said of this member's own one.
    pub directories: Directories,
    /// Whether members of this cluster are heard that are not among the peers. One that was away for long
    /// may have to follow a leader that it does not know, and one that was removed can only be told when
    /// it is heard.
    pub hear_strangers: bool,
}

/// Bytes that are not a hello or an answer to one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelloError {
    /// Another protocol.
    #[error("it speaks {0}")]
    Foreign(Foreign),
    /// The checksum does not hold, or a field has no meaning.
    #[error("its greeting is damaged")]
    Damaged,
}

/// What something that is no member sent first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// HTTP: a client, or a member of etcd.
    Http,
    /// A TLS client.
    Tls,
    /// These bytes, and perhaps more.
    Bytes(Vec<u8>),
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Foreign::Http => {
                f.write_str("HTTP: a client that takes this for a client port, or a member of etcd")
            }
            Foreign::Tls => f.write_str("TLS"),
            Foreign::Bytes(bytes) => write!(f, "an unknown protocol, beginning with {bytes:02x?}"),
        }
    }
}

impl Own {
    pub(super) fn new(
        cluster: ClusterId,
        member: MemberId,
        incarnation: Incarnation,
        shard: ShardId,
    ) -> Own {
        Own {
            cluster,
            member,
            incarnation,
            shard,
            agreed: false,
            versions: PROTOCOL_VERSIONS,
        }
    }

    /// The same, as the shard knows itself by now.
    pub(super) fn as_known(self, admission: &Admission) -> Own {
        Own {
            agreed: admission.directories.own_agreed,
            ..self
        }
    }

    fn write(&self, magic: [u8; 8], wanted: MemberId) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        put(&mut bytes, MAGIC_OFFSET, &magic);
        bytes[LOWEST_OFFSET] = self.versions.0;
        bytes[HIGHEST_OFFSET] = self.versions.1;
        put(&mut bytes, SHARD_OFFSET, &self.shard.0.to_le_bytes());
        put(&mut bytes, CLUSTER_OFFSET, &self.cluster.0.to_le_bytes());
        put(&mut bytes, MEMBER_OFFSET, &self.member.0.to_le_bytes());
        put(&mut bytes, WANTED_OFFSET, &wanted.0.to_le_bytes());
        put(
            &mut bytes,
            INCARNATION_OFFSET,
            &self.incarnation.0.to_le_bytes(),
        );
        bytes[AGREED_OFFSET] = u8::from(self.agreed);
        bytes
    }

    fn read(bytes: &[u8; HELLO_BYTES]) -> Own {
        Own {
            cluster: ClusterId(u64_at(bytes, CLUSTER_OFFSET)),
            member: MemberId(u64_at(bytes, MEMBER_OFFSET)),
            incarnation: Incarnation(u128_at(bytes, INCARNATION_OFFSET)),
            shard: ShardId(u32_at(bytes, SHARD_OFFSET)),
            agreed: bytes[AGREED_OFFSET] == 1,
            versions: (bytes[LOWEST_OFFSET], bytes[HIGHEST_OFFSET]),
        }
    }
}

fn sealed(mut bytes: [u8; HELLO_BYTES]) -> [u8; HELLO_BYTES] {
    let checksum = crc32c(&bytes[..CHECKSUM_OFFSET]);
    put(&mut bytes, CHECKSUM_OFFSET, &checksum.to_le_bytes());
    bytes
}

/// Whether these first bytes can become what begins with `magic`.
fn check_start(bytes: &[u8], magic: [u8; 8]) -> Result<(), HelloError> {
    let count = bytes.len().min(magic.len());
    if bytes[..count] == magic[..count] {
        return Ok(());
    }
    const METHODS: [&[u8]; 8] = [
        b"GET ", b"POST", b"PUT ", b"HEAD", b"PRI ", b"DELE", b"OPTI", b"HTTP",
    ];
    Err(HelloError::Foreign(
        if METHODS.iter().any(|method| bytes.starts_with(method)) {
            Foreign::Http
        } else if bytes.starts_with(&[0x16, 0x03]) {
            Foreign::Tls
        } else {
            Foreign::Bytes(bytes[..count].to_vec())
        },
    ))
}

/// The whole message that `bytes` begin with; `None` when more must come.
fn whole(bytes: &[u8], magic: [u8; 8]) -> Result<Option<&[u8; HELLO_BYTES]>, HelloError> {
    check_start(bytes, magic)?;
    let Some(message) = bytes.first_chunk::<HELLO_BYTES>() else {
        return Ok(None);
    };
    if crc32c(&message[..CHECKSUM_OFFSET]) != u32_at(message, CHECKSUM_OFFSET) {
        return Err(HelloError::Damaged);
    }
    Ok(Some(message))
}

impl Hello {
    pub(super) fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let mut bytes = self.from.write(HELLO_MAGIC, self.wanted);
        bytes[PATH_OR_CHOSEN_OFFSET] = self.path as u8;
        sealed(bytes)
    }

    /// The hello that `bytes` begin with; `None` when more must come.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Hello>, HelloError> {
        let Some(bytes) = whole(bytes, HELLO_MAGIC)? else {
            return Ok(None);
        };
        Ok(Some(Hello {
            from: Own::read(bytes),
            wanted: MemberId(u64_at(bytes, WANTED_OFFSET)),
            path: Path::from_byte(bytes[PATH_OR_CHOSEN_OFFSET]).ok_or(HelloError::Damaged)?,
        }))
    }

    /// Whether `own` wants this connection: the version to speak. Not asked whether the sender is a peer.
    pub(super) fn judge(&self, own: &Own, admission: &Admission) -> Result<u8, Refusal> {
        let from = &self.from;
        if from.cluster != own.cluster {
            return Err(Refusal::OtherCluster);
        }
        if from.member == own.member {
            return Err(Refusal::SameMember);
        }
        if self.wanted != own.member {
            return Err(Refusal::OtherMember);
        }
        if from.shard != own.shard {
            return Err(Refusal::OtherShard);
        }
        check_incarnation(from, admission)?;
        common_version(own.versions, from.versions).ok_or(Refusal::NoCommonVersion)
    }
}

impl Reply {
    pub(super) fn to_bytes(self, to: MemberId) -> [u8; HELLO_BYTES] {
        let mut bytes = self.from.write(REPLY_MAGIC, to);
        match self.verdict {
            Ok(version) => bytes[PATH_OR_CHOSEN_OFFSET] = version,
            Err(refusal) => bytes[REFUSAL_OFFSET] = refusal as u8,
        }
        sealed(bytes)
    }

    /// The answer that `bytes` begin with; `None` when more must come.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Reply>, HelloError> {
        let Some(bytes) = whole(bytes, REPLY_MAGIC)? else {
            return Ok(None);
        };
        let verdict = match bytes[REFUSAL_OFFSET] {
            0 => Ok(bytes[PATH_OR_CHOSEN_OFFSET]),
            byte => Err(Refusal::ALL
                .into_iter()
                .find(|refusal| *refusal as u8 == byte)
                .unwrap_or(Refusal::Unknown)),
        };
        Ok(Some(Reply {
            from: Own::read(bytes),
            verdict,
        }))
    }

    /// Whether this is who was wanted, in a version that both speak.
    pub(super) fn judge(
        &self,
        own: &Own,
        wanted: MemberId,
        admission: &Admission,
    ) -> Result<u8, Refusal> {
        let from = &self.from;
        if from.cluster != own.cluster {
            return Err(Refusal::OtherCluster);
        }
        if from.member == own.member {
            return Err(Refusal::SameMember);
        }
        if from.member != wanted {
            return Err(Refusal::OtherMember);
        }
        let version = self.verdict?;
        if from.shard != own.shard {
            return Err(Refusal::OtherShard);
        }
        check_incarnation(from, admission)?;
        Some(version)
            .filter(|version| (own.versions.0..=own.versions.1).contains(version))
            .ok_or(Refusal::NoCommonVersion)
    }
}

fn check_incarnation(from: &Own, admission: &Admission) -> Result<(), Refusal> {
    let Own {
        member,
        incarnation,
        agreed,
        ..
    } = *from;
    if admission.directories.admit(member, incarnation, agreed) {
        Ok(())
    } else {
        Err(Refusal::OtherIncarnation)
    }
}

/// The highest version in both ranges.
fn common_version(own: (u8, u8), theirs: (u8, u8)) -> Option<u8> {
    let highest = own.1.min(theirs.1);
    (highest >= own.0.max(theirs.0)).then_some(highest)
}

#[cfg(test)]
mod tests;
