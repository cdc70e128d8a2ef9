//! The identity file: whose data directory this is.
//!
//! Owns the random identities of this process. The file is written once, when a member is born, and
//! says for ever which member of which cluster the log belongs to, under which incarnation, and with whom
//! the cluster began: a start that finds the log still empty must begin it as the others do, whatever the
//! flags say by then. A copy of a directory has the same incarnation, an emptied one another: peers can tell.
//!
//! Two lines of text: a JSON object, and the CRC-32C of that line.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checked::{self, CheckedError};
use super::directory::{DataDirectory, DirectoryError, replace_file};
use crate::base::{ClusterId, Incarnation, MemberId};

/// The newest format this build reads and writes. Format 1 had no first members.
const FORMAT_VERSION: u32 = 2;

/// Who a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
    /// The directory itself.
    pub incarnation: Incarnation,
    /// The member's name when it was born.
    pub name: String,
    /// The version of the server that made the directory.
    pub created_by: String,
    /// The members the cluster began with, sorted by id. Empty in a directory of format 1, whose member was
    /// alone.
    pub first_members: Vec<FirstMember>,
}

/// One of the members a cluster began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstMember {
    /// Its id.
    pub id: MemberId,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
}

/// The identity file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It does not say what it should, or its checksum is wrong.
    #[error("{}: the identity file is damaged: {cause}; put a copy of this one file back (it never changes), and no other file", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: &'static str,
    },
    /// A newer server wrote it.
    #[error("{}: the data directory was written by a newer version (format {version}, this build reads {FORMAT_VERSION})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// The member's log is not where it is looked for.
    #[error(
        "{}: the log of this member is not here, and without it everything it acknowledged would be gone; \
         did --wal-dir change, or is the disk with the log not mounted?",
        path.display()
    )]
    LogMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It could not be read.
    #[error("{}: cannot read the identity file: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It could not be written.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// The JSON object. Ids are hexadecimal text: JSON's numbers do not hold 64 bits everywhere.
#[derive(Serialize, Deserialize)]
struct Line {
    format: u32,
    cluster: String,
    member: String,
    incarnation: String,
    name: String,
    created_by: String,
    #[serde(default)]
    first_members: Vec<MemberLine>,
}

#[derive(Serialize, Deserialize)]
struct MemberLine {
    id: String,
    peer_urls: Vec<String>,
}

/// The identity in `directory`; `None` in a new one.
///
/// # Errors
/// [`IdentityError`]; a damaged file is never taken for a missing one.
pub fn load(directory: &DataDirectory) -> Result<Option<Identity>, IdentityError> {
    let path = file_path(directory);
    match std::fs::read(&path) {
        Ok(bytes) => parse(&path, &bytes).map(Some),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Io { path, source }),
    }
}

/// Writes the identity of a new member, durably and all at once.
///
/// # Errors
/// [`IdentityError::Directory`].
pub fn store(directory: &DataDirectory, identity: &Identity) -> Result<(), IdentityError> {
    Ok(replace_file(&file_path(directory), &render(identity))?)
}

/// The file in a log's directory that says whose log belongs there, whether or not it has begun.
const OWNER: &str = "owner";

/// Says durably that the log of the member with this incarnation belongs into `log_directory`. Written
/// before the identity, so that a member without it has lost its log.
///
/// # Errors
/// [`IdentityError::Directory`].
pub fn store_owner(log_directory: &Path, incarnation: Incarnation) -> Result<(), IdentityError> {
    let text = format!("{incarnation}\n");
    Ok(replace_file(&log_directory.join(OWNER), text.as_bytes())?)
}

/// Checks that `log_directory` is the one where the log of this member belongs.
///
/// # Errors
/// [`IdentityError::LogMissing`] when it is another, or an emptied one.
pub fn check_owner(log_directory: &Path, incarnation: Incarnation) -> Result<(), IdentityError> {
    let path = log_directory.join(OWNER);
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim_end() == incarnation.to_string() => Ok(()),
        Ok(_) => Err(IdentityError::LogMissing {
            path: log_directory.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(IdentityError::LogMissing {
            path: log_directory.to_owned(),
        }),
        Err(source) => Err(IdentityError::Io { path, source }),
    }
}

fn file_path(directory: &DataDirectory) -> PathBuf {
    directory.path().join("identity")
}

fn render(identity: &Identity) -> Vec<u8> {
    let line = Line {
        format: FORMAT_VERSION,
        cluster: identity.cluster.to_string(),
        member: identity.member.to_string(),
        incarnation: identity.incarnation.to_string(),
        name: identity.name.clone(),
        created_by: identity.created_by.clone(),
        first_members: identity
            .first_members
            .iter()
            .map(|member| MemberLine {
                id: member.id.to_string(),
                peer_urls: member.peer_urls.clone(),
            })
            .collect(),
    };
    checked::render(&line)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Identity, IdentityError> {
    let damaged = |cause| IdentityError::Damaged {
        path: path.to_owned(),
        cause,
    };
    let line: Line = checked::parse(bytes, FORMAT_VERSION).map_err(|error| match error {
        CheckedError::Damaged(cause) => damaged(cause),
        CheckedError::Newer(version) => IdentityError::Newer {
            path: path.to_owned(),
            version,
        },
    })?;
    let id =
        |text: &str| u64::from_str_radix(text, 16).map_err(|_| damaged("an id is not a number"));
    let first_members = line.first_members.into_iter().map(|member| {
        Ok::<_, IdentityError>(FirstMember {
            id: MemberId(id(&member.id)?),
            peer_urls: member.peer_urls,
        })
    });
    Ok(Identity {
        first_members: first_members.collect::<Result<_, _>>()?,
        cluster: ClusterId(id(&line.cluster)?),
        member: MemberId(id(&line.member)?),
        incarnation: Incarnation(
            u128::from_str_radix(&line.incarnation, 16)
                .map_err(|_| damaged("the incarnation is not a number"))?,
        ),
        name: line.name,
        created_by: line.created_by,
    })
}

/// Sixteen random bytes from the kernel: an incarnation, the salt of a segment, a seed.
///
/// # Errors
/// The kernel has no random source.
pub fn random_u128() -> io::Result<u128> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u128::from_ne_bytes(bytes))
}

/// Eight random bytes from the kernel.
///
/// # Errors
/// The kernel has no random source.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::checksum::crc32c;

    fn identity() -> Identity {
        Identity {
            cluster: ClusterId(0xcdf8_1819_4e3a_8c32),
            member: MemberId(0x8e9e_05c5_2164_694d),
            incarnation: Incarnation(random_u128().expect("random")),
            name: "a \"name\"\nwith two lines".into(),
            created_by: "0.1.0".into(),
            first_members: vec![FirstMember {
                id: MemberId(0x8e9e_05c5_2164_694d),
                peer_urls: vec!["http://localhost:2380".into(), "http://[::1]:2380".into()],
            }],
        }
    }

    /// Goal: a directory that was made before first members were written down is still one's own.
    #[test]
    fn format_one() {
        let line = r#"{"format":1,"cluster":"c1","member":"a1","incarnation":"b1","name":"n","created_by":"0.1.0"}"#;
        let text = format!("{line}\n{:08x}\n", crc32c(line.as_bytes()));
        let parsed = parse(Path::new("identity"), text.as_bytes()).expect("readable");
        assert_eq!(
            (parsed.cluster, parsed.member),
            (ClusterId(0xc1), MemberId(0xa1))
        );
        assert_eq!(parsed.incarnation, Incarnation(0xb1));
        assert!(parsed.first_members.is_empty());
    }

    /// Goal: a log's directory is told from an empty one and from another member's.
    #[test]
    fn owner_of_a_log() {
        let root = tempfile::tempdir().expect("a directory");
        let (ours, theirs) = (Incarnation(1), Incarnation(2));
        let missing = |owner| {
            let checked = check_owner(root.path(), owner);
            matches!(checked, Err(IdentityError::LogMissing { .. }))
        };
        assert!(missing(ours));
        store_owner(root.path(), ours).expect("stored");
        assert!(check_owner(root.path(), ours).is_ok());
        assert!(missing(theirs));
    }

    /// Goal: a new directory has no identity, and a stored one comes back as it was.
    #[test]
    fn stored_and_loaded() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = DataDirectory::open(root.path()).expect("opened");
        assert_eq!(load(&directory).expect("readable"), None);
        let identity = identity();
        store(&directory, &identity).expect("stored");
        assert_eq!(load(&directory).expect("readable"), Some(identity));
    }

    /// Goal: every single wrong byte, every cut and a newer format are refused, never read as something else.
    #[test]
    fn damage() {
        let bytes = render(&identity());
        let path = Path::new("identity");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x04;
            let outcome = parse(path, &damaged);
            assert!(
                matches!(outcome, Err(IdentityError::Damaged { .. })),
                "byte {at}: {outcome:?}"
            );
            assert!(parse(path, &bytes[..at]).is_err(), "cut at {at}");
        }
        let line = r#"{"format":3,"something":"else"}"#;
        let newer = format!("{line}\n{:08x}\n", crc32c(line.as_bytes()));
        let outcome = parse(path, newer.as_bytes());
        assert!(
            matches!(outcome, Err(IdentityError::Newer { version: 3, .. })),
            "{outcome:?}"
        );
    }
}
