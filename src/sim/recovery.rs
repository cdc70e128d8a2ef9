//! What a member makes of its disk when it starts: the product's own reading of bytes, in the order in which the
//! runtime has it read files.
//!
//! The newest checkpoint that holds, then the log behind it. Where a checkpoint is damaged, an older one or none does
//! as well, if the log reaches back that far; otherwise something that was durable is gone. Changes nothing: what is
//! done about a loss is the member's to decide.

use super::disk::{CheckpointName, Disk};
use super::trace::StartFailure;
use crate::base::limits::CHECKPOINT_BLOCK_BYTES;
use crate::base::planted::Planted;
use crate::base::{Index, Term};
use crate::checkpoint::{CheckpointError, Reader, Restored, Source};
use crate::keyspace::steps::Steps;
use crate::raft::Position;
use crate::shard::event::KnownMembers;
use crate::shard::replay::{Piece, Replayed, Replayer};
use crate::wal::damage::RefusalReason;
use crate::wal::{Checkpoint, Cut, LogIdentity, Outcome, Recovered, Recovery, Refusal};

/// Steps of one slice of a replay.
const REPLAY_STEPS: usize = 1 << 20;

/// What a disk holds.
pub(super) struct Found {
    /// The log; where something is gone, what can be read of it.
    pub(super) recovered: Recovered,
    pub(super) replayer: Replayer,
    /// The checkpoint that holds.
    pub(super) checkpoint: Position,
    /// Its file, if there is one.
    pub(super) file: Option<CheckpointName>,
    /// Newer ones that do not, the newest first.
    pub(super) unusable: Vec<CheckpointName>,
    /// Something that was durable is gone.
    pub(super) loss: Option<Loss>,
}

/// Something that was durable is gone.
pub(super) struct Loss {
    pub(super) words: String,
    /// Checkpoints that go.
    pub(super) unusable: Vec<CheckpointName>,
    /// What of the log goes.
    pub(super) cut: Option<Cut>,
}

/// Where a reading of the log begins, and what is known of it.
#[derive(Clone, Copy)]
struct Beginning {
    base: Position,
    checkpoint: Option<Checkpoint>,
    was_cut: bool,
}

/// Reads everything.
///
/// # Errors
/// It is not what it must be, or not damage: nobody could repair it.
pub(super) fn recover(
    disk: &Disk,
    identity: LogIdentity,
    known: &KnownMembers,
    planted: Planted,
) -> Result<Found, (StartFailure, String)> {
    let refused = |refusal: Refusal| (StartFailure::Refused, refusal.to_string());
    let mut replayer = Replayer::default();
    let mut beginning = Beginning {
        base: Position::default(),
        checkpoint: None,
        was_cut: known.just_cut,
    };
    let mut unusable = Vec::new();
    let mut file = None;
    for (name, bytes) in disk.checkpoints() {
        match restore(bytes, identity) {
            Ok(restored) => {
                let id = restored.origin.id();
                beginning.base = Position {
                    term: id.term,
                    index: id.index,
                };
                file = Some(name);
                let replayed = Replayed::from_checkpoint(restored, name.1)
                    .map_err(|error| (StartFailure::Corrupt, error.to_string()))?;
                beginning.checkpoint = replayed.recovers_after(disk.led_to(name.0));
                replayer = Replayer::after(replayed);
                break;
            }
            Err(error) => unusable.push((name, error)),
        }
    }
    replayer.plant(planted);
    let newest = unusable.first().copied();
    let without = |why: String| match newest {
        Some(((index, _), error)) => format!("the checkpoint of {index}: {error}; {why}"),
        None => why,
    };
    let unusable: Vec<CheckpointName> = unusable.into_iter().map(|(name, _)| name).collect();
    let own = unusable.iter().find(|(_, source)| *source == Source::Log);
    let mut fold = |pieces| {
        replayer.take(pieces);
        while !replayer.run(&mut Steps::new(REPLAY_STEPS)) {}
    };
    let (recovered, loss) = match walk(disk, identity, beginning, planted, &mut fold) {
        Err(refusal) => {
            if !matches!(refusal.reason, RefusalReason::BeginsLate { .. }) {
                return Err(refused(refusal));
            }
            let survey = survey(disk, identity, beginning, planted);
            let loss = Loss {
                words: without(refusal.to_string()),
                unusable: unusable.clone(),
                cut: Some(Cut::Everything),
            };
            (survey.map_err(refused)?, Some(loss))
        }
        Ok(mut recovered) => {
            let loss = if let Outcome::Corrupt(damage) = &recovered.outcome {
                let leads_beyond = |&(index, _): &CheckpointName| {
                    damage.missing_base().is_some_and(|base| index >= base)
                };
                if !damage.is_loss() && !unusable.iter().any(leads_beyond) {
                    return Err((StartFailure::Corrupt, damage.to_string()));
                }
                Some(Loss {
                    words: damage.to_string(),
                    unusable: Vec::new(),
                    cut: Some(damage.cut()),
                })
            } else if own.is_some_and(|(index, _)| recovered.last_index < *index) {
                // A checkpoint of one's own gets its name when the log is durable up to its index.
                recovered.term_lost = true;
                Some(Loss {
                    words: without(format!("the log ends at {}", recovered.last_index)),
                    unusable: unusable.clone(),
                    cut: None,
                })
            } else {
                None
            };
            (recovered, loss)
        }
    };
    Ok(Found {
        recovered,
        replayer,
        checkpoint: beginning.base,
        file,
        unusable,
        loss,
    })
}

fn restore(bytes: &[u8], identity: LogIdentity) -> Result<Restored, CheckpointError> {
    let mut reader = Reader::new(identity.cluster, identity.shard);
    for block in bytes.chunks(CHECKPOINT_BLOCK_BYTES) {
        reader.push(block)?;
    }
    reader.finish()
}

/// Reads the log from its beginning; `take` gets what each segment holds.
fn walk(
    disk: &Disk,
    identity: LogIdentity,
    beginning: Beginning,
    planted: Planted,
    take: &mut dyn FnMut(Vec<Piece>),
) -> Result<Recovered, Refusal> {
    let base = beginning.base.index;
    let mut recovery = Recovery::new(disk.geometry(), identity, base, &disk.listing())?;
    if let Some(checkpoint) = beginning.checkpoint {
        recovery.after_checkpoint(checkpoint);
    }
    if beginning.was_cut {
        recovery.was_cut();
    }
    if disk.has_begun() {
        recovery.has_begun();
    }
    recovery.plant(planted);
    while let Some(segment) = recovery.next_file() {
        let mut pieces = Vec::new();
        let mut visit = |replayed: crate::wal::Replayed<'_>| {
            pieces.extend(Piece::new(replayed)?);
            Ok(())
        };
        recovery.segment(disk.read(segment), &mut visit)?;
        take(pieces);
    }
    Ok(recovery.finish())
}

/// What can be read of a log that does not lead back to any state: term, vote and how far it went.
fn survey(
    disk: &Disk,
    identity: LogIdentity,
    beginning: Beginning,
    planted: Planted,
) -> Result<Recovered, Refusal> {
    let judged = walk(disk, identity, beginning, planted, &mut drop);
    let Err(Refusal {
        reason: RefusalReason::BeginsLate { first_index, .. },
        ..
    }) = judged
    else {
        return judged;
    };
    let late = Beginning {
        base: Position {
            term: Term(0),
            index: Index(first_index.0.saturating_sub(1)),
        },
        checkpoint: None,
        ..beginning
    };
    walk(disk, identity, late, planted, &mut drop)
}
