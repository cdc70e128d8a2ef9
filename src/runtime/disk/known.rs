//! The file `members` beside the log: which directories this member knows, and whether its log is being
//! rebuilt.
//!
//! It lies in the log's own directory, because it belongs to that log: what it says is void for another
//! one. It is replaced as a whole, durably, before anything relies on it (written under another name,
//! synced, renamed, the directory synced), so a crash leaves the old one or the new one. Runs on a thread
//! beside the cores.
//!
//! Two lines of text: a JSON object, and the CRC-32C of that line. Ids are hexadecimal text: JSON's
//! numbers do not hold 64 bits everywhere.
//!
//! ```text
//! {"format":1,"confirmed":true,"incarnations":{"b7":"000102...0f"},"vote_floor":"0","rebuild":null,"just_cut":false}
//! 6c1de5a2
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checked::{self, CheckedError};
use super::directory::{DirectoryError, replace_file};
use crate::base::{Incarnation, Index, MemberId, Term};
use crate::raft::Rebuild;
use crate::shard::event::KnownMembers;

/// The newest format this build reads and writes.
const FORMAT_VERSION: u32 = 1;
const FILE: &str = "members";

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    /// It does not say what it should, or its checksum is wrong. Without it this member cannot know whose
    /// votes count, nor whether its own does.
    #[error(
        "{}: the file is damaged: {cause}; remove the member from the cluster and add it again with an empty \
         directory. A copy of the file from a backup has forgotten what the other members count on",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: &'static str,
    },
    /// A newer server wrote it.
    #[error(
        "{}: the file was written by a newer version (format {version}, this build reads {FORMAT_VERSION})",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// It could not be read.
    #[error("{}: cannot read the file: {source}", path.display())]
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

#[derive(Serialize, Deserialize)]
struct Line {
    format: u32,
    confirmed: bool,
    incarnations: BTreeMap<String, String>,
    vote_floor: String,
    rebuild: Option<RebuildLine>,
    /// Earlier builds did not write it.
    #[serde(default)]
    just_cut: bool,
}

#[derive(Serialize, Deserialize)]
struct RebuildLine {
    through: String,
    every_voter: bool,
}

/// What is stored in `log_directory`; `None` when nothing ever was.
///
/// # Errors
/// [`KnownError`]; a damaged file is never taken for a missing one.
pub fn load(log_directory: &Path) -> Result<Option<KnownMembers>, KnownError> {
    let path = log_directory.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => parse(&path, &bytes).map(Some),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KnownError::Io { path, source }),
    }
}

/// Stores it durably and all at once in `log_directory`.
///
/// # Errors
/// [`KnownError::Directory`]; then the old one or the new one is there.
pub fn store(log_directory: &Path, known: &KnownMembers) -> Result<(), KnownError> {
    Ok(replace_file(&log_directory.join(FILE), &render(known))?)
}

fn render(known: &KnownMembers) -> Vec<u8> {
    let KnownMembers {
        confirmed,
        incarnations,
        vote_floor,
        rebuild,
        just_cut,
    } = known;
    let incarnation =
        |(id, incarnation): (&MemberId, &Incarnation)| (id.to_string(), incarnation.to_string());
    checked::render(&Line {
        format: FORMAT_VERSION,
        confirmed: *confirmed,
        incarnations: incarnations.iter().map(incarnation).collect(),
        vote_floor: format!("{:x}", vote_floor.0),
        rebuild: rebuild.map(|rebuild| RebuildLine {
            through: format!("{:x}", rebuild.through.0),
            every_voter: rebuild.every_voter,
        }),
        just_cut: *just_cut,
    })
}

fn parse(path: &Path, bytes: &[u8]) -> Result<KnownMembers, KnownError> {
    let path = || path.to_owned();
    let damaged = |cause| KnownError::Damaged {
        path: path(),
        cause,
    };
    let line: Line = checked::parse(bytes, FORMAT_VERSION).map_err(|error| match error {
        CheckedError::Damaged(cause) => damaged(cause),
        CheckedError::Newer(version) => KnownError::Newer {
            path: path(),
            version,
        },
    })?;
    let number =
        |text: &str| u64::from_str_radix(text, 16).map_err(|_| damaged("a number is not one"));
    let mut incarnations = BTreeMap::new();
    for (id, incarnation) in &line.incarnations {
        let incarnation = u128::from_str_radix(incarnation, 16)
            .map_err(|_| damaged("an incarnation is not a number"))?;
        incarnations.insert(MemberId(number(id)?), Incarnation(incarnation));
    }
    let rebuild = match &line.rebuild {
        None => None,
        Some(rebuild) => Some(Rebuild {
            through: Index(number(&rebuild.through)?),
            every_voter: rebuild.every_voter,
        }),
    };
    Ok(KnownMembers {
        confirmed: line.confirmed,
        incarnations,
        vote_floor: Term(number(&line.vote_floor)?),
        rebuild,
        just_cut: line.just_cut,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> KnownMembers {
        KnownMembers {
            confirmed: true,
            incarnations: BTreeMap::from([
                (MemberId(0x8e9e_05c5_2164_694d), Incarnation(u128::MAX)),
                (MemberId(2), Incarnation(0)),
            ]),
            vote_floor: Term(u64::MAX),
            rebuild: Some(Rebuild {
                through: Index(0x1_0000_0000),
                every_voter: true,
            }),
            just_cut: true,
        }
    }

    /// Goal: nothing is there at first, and what is stored comes back as it was, the last one.
    #[test]
    fn stored_and_loaded() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(load(root.path()).expect("readable"), None);
        for known in [
            KnownMembers::default(),
            everything(),
            KnownMembers::default(),
        ] {
            store(root.path(), &known).expect("stored");
            assert_eq!(load(root.path()).expect("readable"), Some(known));
        }
    }

    /// Goal: every single wrong byte, every cut and a newer format are refused, never read as something else.
    #[test]
    fn damage() {
        let bytes = render(&everything());
        let path = Path::new("members");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x04;
            let outcome = parse(path, &damaged);
            assert!(
                matches!(outcome, Err(KnownError::Damaged { .. })),
                "byte {at}: {outcome:?}"
            );
            assert!(parse(path, &bytes[..at]).is_err(), "cut at {at}");
        }
        #[derive(Serialize)]
        struct Newer {
            format: u32,
        }
        let outcome = parse(path, &checked::render(&Newer { format: 2 }));
        assert!(
            matches!(outcome, Err(KnownError::Newer { version: 2, .. })),
            "{outcome:?}"
        );
    }

    /// What builds wrote that did not know of a cut.
    #[derive(Serialize)]
    struct Before {
        format: u32,
        confirmed: bool,
        incarnations: BTreeMap<String, String>,
        vote_floor: String,
        rebuild: Option<RebuildLine>,
    }

    /// Goal: the bytes of the format do not change by accident, and those of earlier builds are read.
    #[test]
    fn golden() {
        let known = KnownMembers {
            confirmed: true,
            incarnations: BTreeMap::from([(MemberId(0xb7), Incarnation(0x0f))]),
            vote_floor: Term(0x1f),
            rebuild: Some(Rebuild {
                through: Index(0x2a),
                every_voter: false,
            }),
            just_cut: true,
        };
        let expected = "{\"format\":1,\"confirmed\":true,\
             \"incarnations\":{\"b7\":\"0000000000000000000000000000000f\"},\
             \"vote_floor\":\"1f\",\"rebuild\":{\"through\":\"2a\",\"every_voter\":false},\"just_cut\":true}";
        let text = String::from_utf8(render(&known)).expect("text");
        assert_eq!(text.lines().next(), Some(expected));
        let before = Before {
            format: 1,
            confirmed: true,
            incarnations: BTreeMap::new(),
            vote_floor: "1f".to_owned(),
            rebuild: None,
        };
        let read = parse(Path::new("members"), &checked::render(&before)).expect("readable");
        assert_eq!((read.vote_floor, read.just_cut), (Term(0x1f), false));
    }
}
