//! `kontiki recover --accept-cut`: an operator gives up what a damaged log has lost.
//!
//! For a lone member, and for a group of which no majority is left: nobody can restore what is gone, and the member
//! refuses to start, or waits for ever to be rebuilt. It serves nobody and runs while the member does not: it holds
//! the directory's lock. What goes is said, and recorded beside the log.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{SHARD, birth};
use crate::base::limits::{RECOVERY_CUTS_MAX, SEGMENT_SIZE_BYTES};
use crate::base::{Index, Term};
use crate::config::Config;
use crate::raft::Position;
use crate::runtime::disk::checkpoint::{Loaded, Unusable, load_newest};
use crate::runtime::disk::cut::{CutError, cut_log, record_cut, remove_checkpoints};
use crate::runtime::disk::directory::{DataDirectory, DirectoryError};
use crate::runtime::disk::identity::{self, IdentityError};
use crate::runtime::disk::known::{self, KnownError};
use crate::runtime::survey::{Survey, SurveyError, survey};
use crate::shard::event::KnownMembers;
use crate::wal::{Cut, Damage, Geometry, LogIdentity, Outcome, Recovered};

/// Why nothing, or not everything, was given up.
#[derive(Debug, thiserror::Error)]
pub enum AcceptCutError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Whose data it is cannot be told.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nobody lives there.
    #[error("{}: there is no member here; --data-dir names its directory", directory.display())]
    NoMember {
        /// The data directory.
        directory: PathBuf,
    },
    /// What is known of the other members cannot be used.
    #[error("{0}")]
    Known(String),
    /// The log cannot be judged.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// It is not damaged: this program cannot read it.
    #[error("{0}, so the disk has lost nothing: start the version of the program that wrote it")]
    Unreadable(Box<Damage>),
    /// A cut failed.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] KnownError),
    /// Cuts do not end.
    #[error("{0}: cutting does not help")]
    Endless(String),
}

/// A loss, and what must go for the rest to be used.
struct Loss {
    what: String,
    found: Recovered,
    first_lost: Index,
    last_known: Index,
    unusable: Vec<PathBuf>,
    cut: Option<Cut>,
}

struct Member {
    log: PathBuf,
    checkpoints: PathBuf,
    geometry: Geometry,
    identity: LogIdentity,
    known: KnownMembers,
}

/// Gives up what is lost in the directories that `config` names. Says, in lines, what that was.
///
/// # Errors
/// [`AcceptCutError`].
pub fn accept_cut(config: &Config) -> Result<String, AcceptCutError> {
    let nobody = || AcceptCutError::NoMember {
        directory: config.data_dir.clone(),
    };
    if !config.data_dir.join("identity").exists() {
        return Err(nobody());
    }
    let directory = DataDirectory::open(&config.data_dir)?;
    let apart = config
        .wal_dir
        .as_deref()
        .map(DataDirectory::open)
        .transpose()?;
    let log = apart.as_ref().unwrap_or(&directory).log_directory(SHARD)?;
    let identity = identity::load(&directory)?.ok_or_else(nobody)?;
    identity::check_owner(&log, identity.incarnation)?;
    let known = birth::load_known(&log, &identity)
        .map_err(|error| AcceptCutError::Known(error.to_string()))?;
    let mut member = Member {
        log,
        checkpoints: directory.checkpoint_directory(SHARD)?,
        geometry: Geometry::new(SEGMENT_SIZE_BYTES),
        identity: LogIdentity {
            cluster: identity.cluster,
            member: identity.member,
            incarnation: identity.incarnation,
            shard: SHARD,
        },
        known,
    };
    member.accept()
}

impl Member {
    fn accept(&mut self) -> Result<String, AcceptCutError> {
        let mut lines = String::new();
        for _ in 0..=RECOVERY_CUTS_MAX {
            let (base, loss) = self.look()?;
            match loss {
                Some(loss) => {
                    let said = self.give_up(base, loss)?;
                    let _ = writeln!(lines, "{said}");
                }
                None => return self.conclude(lines),
            }
        }
        Err(AcceptCutError::Endless(lines))
    }

    /// The checkpoint that holds, and the first thing that is lost behind it.
    fn look(&self) -> Result<(Position, Option<Loss>), AcceptCutError> {
        let Loaded {
            restored,
            source: _,
            led_to,
            unusable,
        } = load_newest(
            &self.checkpoints,
            self.identity.cluster,
            self.identity.shard,
        )?;
        let base = restored.map_or(Position::default(), |restored| {
            let id = restored.origin.id();
            Position {
                term: id.term,
                index: id.index,
            }
        });
        let was_cut = self.known.just_cut;
        let Survey {
            mut found,
            begins_late,
        } = survey(
            &self.log,
            self.geometry,
            self.identity,
            (base, led_to),
            was_cut,
        )?;
        let own = unusable.iter().find(|file| file.was_led_to());
        let newest = own.map(|file| file.index);
        let unusable_paths = unusable.iter().map(|file| file.path.clone()).collect();
        let checkpoints: Vec<String> = unusable.iter().map(ToString::to_string).collect();
        let last_known = found.hard_state.commit.max(found.last_index);
        if let Some(first) = begins_late {
            let what = format!(
                "the log begins with index {first}, and no checkpoint that holds leads there: {}",
                checkpoints.join("; ")
            );
            let loss = Loss {
                what,
                first_lost: base.index.next(),
                last_known,
                found,
                unusable: unusable_paths,
                cut: Some(Cut::Everything),
            };
            return Ok((base, Some(loss)));
        }
        if let Outcome::Corrupt(damage) = found.outcome {
            let leads_beyond =
                |file: &Unusable| damage.missing_base().is_some_and(|base| file.index >= base);
            if !damage.is_loss() && !unusable.iter().any(leads_beyond) {
                return Err(AcceptCutError::Unreadable(Box::new(damage)));
            }
            let loss = Loss {
                what: damage.to_string(),
                first_lost: damage.index.max(base.index.next()),
                last_known,
                found,
                unusable: Vec::new(),
                cut: Some(damage.cut()),
            };
            return Ok((base, Some(loss)));
        }
        if let Some(index) = newest.filter(|&newest| found.last_index < newest) {
            found.term_lost = true;
            let loss = Loss {
                what: checkpoints.join("; "),
                first_lost: found.last_index.next(),
                last_known: index,
                found,
                unusable: unusable_paths,
                cut: None,
            };
            return Ok((base, Some(loss)));
        }
        Ok((base, None))
    }

    /// What a crash in between leaves is a member that waits to be rebuilt: this command can be given again.
    fn give_up(&mut self, base: Position, loss: Loss) -> Result<String, AcceptCutError> {
        self.known.note_loss(&loss.found, base);
        known::store(&self.log, &self.known)?;
        remove_checkpoints(&self.checkpoints, &loss.unusable)?;
        let bytes = match loss.cut {
            Some(cut) => cut_log(&self.log, self.geometry, cut)?,
            None => 0,
        };
        let (first, last) = (loss.first_lost, loss.last_known);
        let range = if last < first {
            format!(
                "nothing that is known to have been committed, perhaps entries from index {first} on"
            )
        } else {
            format!("everything from index {first} on, at least up to index {last}")
        };
        let said = format!(
            "{}: cut by an operator. Lost: {range}; {bytes} bytes of the log's files",
            loss.what
        );
        record_cut(&self.log, &said)?;
        Ok(said)
    }

    fn conclude(&mut self, mut lines: String) -> Result<String, AcceptCutError> {
        let Some(rebuild) = self.known.rebuild.take() else {
            let _ = writeln!(lines, "nothing is damaged, and nothing was cut");
            return Ok(lines);
        };
        let said = format!(
            "the operator accepts the loss: this member is not rebuilt (at least index {} had been committed)",
            rebuild.through
        );
        record_cut(&self.log, &said)?;
        known::store(&self.log, &self.known)?;
        let Term(floor) = self.known.vote_floor;
        let _ = writeln!(
            lines,
            "the member may start again; it votes in terms after {floor} only. Members that have more than it has \
             must not be started beside it before they are emptied"
        );
        Ok(lines)
    }
}
