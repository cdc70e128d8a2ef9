//! One member: its disk, its clock, and the process that comes and goes.
//!
//! Starting it is what the runtime does, over bytes in memory: the product's own recovery reads the files, the
//! product's own replay folds them, what recovery asks for is repaired, and everything is synced before
//! anything counts as durable.

use super::clock::{Clock, Moment};
use super::conditions::Conditions;
use super::dice::Dice;
use super::disk::{Disk, Tear};
use super::trace::StartFailure;
use crate::base::limits::{CHECKPOINT_BLOCK_BYTES, PAGE_SIZE_BYTES};
use crate::base::planted::{Defect, Planted};
use crate::base::{ClusterId, Incarnation, Index, Instant, MemberId, ShardId};
use crate::checkpoint::{CheckpointError, Reader, Restored};
use crate::keyspace::steps::Steps;
use crate::shard::event::{Identity, KnownMembers, LogRead, Member as ShardMember};
use crate::shard::replay::{Piece, Replayed, Replayer};
use crate::shard::{Settings, Shard};
use crate::wal::{
    Appender, Commit, Geometry, LogIdentity, Outcome, Recovered, Recovery, SegmentOpening,
    SegmentSequence,
};

const CLUSTER: ClusterId = ClusterId(0xc1);
/// Steps of one slice of a replay.
const REPLAY_STEPS: usize = 1 << 20;

/// One member of the cluster, running or not.
pub(super) struct Member {
    number: usize,
    /// Members of the cluster.
    count: usize,
    conditions: Conditions,
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    pub(super) process: Option<Process>,
    /// How often it has started, or tried to.
    pub(super) life: u32,
    /// It does nothing before this moment.
    pub(super) paused_until: Moment,
    /// Since when nothing has kept it from sealing its log, by its own clock.
    pub(super) undisturbed_since: Instant,
    pub(super) faults: DiskFaults,
    /// The directory's identity.
    incarnation: Incarnation,
    /// What is stored beside the log.
    pub(super) known: KnownMembers,
    /// What a wiped member had before.
    aside: Option<(Disk, Incarnation, KnownMembers)>,
    /// It dies after so many further effects.
    pub(super) trap: Option<Trap>,
}

/// What is wrong with a disk at present.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DiskFaults {
    pub(super) slow_until: Moment,
    pub(super) full_until: Moment,
    pub(super) sync_fails: bool,
    pub(super) read_fails: bool,
}

/// Death between two effects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trap {
    pub(super) effects_left: u32,
    /// Not then, but during the next write after that.
    pub(super) writing: bool,
    /// Power fails with the process.
    pub(super) power: Option<Tear>,
}

/// A running member.
pub(super) struct Process {
    pub(super) shard: Shard,
    /// What is being written.
    pub(super) job: Option<Job>,
    /// A segment that was asked for and found no room.
    pub(super) waiting_for_room: Option<SegmentSequence>,
    pub(super) last_write: Instant,
    /// Whether a seal, or another turn, is planned.
    pub(super) seal_planned: bool,
    pub(super) turn_planned: bool,
    /// When the next tick is planned; another one is stale.
    pub(super) tick_planned: Option<Moment>,
    pub(super) watched: Watched,
}

/// What the checkers were told of a member's present life.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watched {
    pub(super) folded: Index,
    pub(super) folded_digest: u64,
    pub(super) committed: Index,
    /// What consensus knows to be committed; the state may lag behind it.
    pub(super) agreed: Index,
    pub(super) leads: bool,
}

/// Bytes on their way to the disk.
pub(super) enum Job {
    Commit(Commit),
    Opening(SegmentOpening),
}

impl Job {
    /// Where the bytes go, once or twice.
    pub(super) fn writes(&self) -> impl Iterator<Item = (SegmentSequence, u64, &[u8])> {
        let (segment, offset, also_at, bytes) = match self {
            Job::Commit(commit) => (commit.segment, commit.offset, None, commit.bytes()),
            Job::Opening(opening) => {
                let [offset, copy] = opening.offsets;
                (opening.sequence, offset, Some(copy), opening.page())
            }
        };
        std::iter::once(offset)
            .chain(also_at)
            .map(move |offset| (segment, offset, bytes))
    }
}

impl Member {
    pub(super) fn new(
        number: usize,
        count: usize,
        conditions: &Conditions,
        dice: &mut Dice,
    ) -> Member {
        let clock = Clock::new(dice.below(1 << 40), drift_ppm(dice), Moment(0));
        Member {
            number,
            count,
            conditions: conditions.clone(),
            incarnation: Incarnation(number as u128 + 1),
            known: KnownMembers::default(),
            aside: None,
            disk: Disk::new(Geometry::new(conditions.segment_size_bytes)),
            clock,
            process: None,
            life: 0,
            paused_until: Moment(0),
            undisturbed_since: Instant(0),
            faults: DiskFaults::default(),
            trap: None,
        }
    }

    /// The identity of the directory it runs on.
    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn id(&self) -> MemberId {
        member_id(self.number)
    }

    /// An empty directory takes the place of the member's own.
    pub(super) fn wipe(&mut self, incarnation: u64) {
        let empty = Disk::new(self.disk.geometry());
        let disk = std::mem::replace(&mut self.disk, empty);
        let known = std::mem::take(&mut self.known);
        self.aside = Some((disk, self.incarnation, known));
        self.incarnation = Incarnation(u128::from(incarnation) << 64 | u128::from(incarnation));
    }

    /// The member gets its own directory back, if it had lost it.
    pub(super) fn unwipe(&mut self) {
        if let Some((disk, incarnation, known)) = self.aside.take() {
            (self.disk, self.incarnation, self.known) = (disk, incarnation, known);
        }
    }

    /// Whether it runs, or will run, on a directory that is not its own.
    pub(super) fn is_wiped(&self) -> bool {
        self.aside.is_some()
    }

    /// A part of a segment as the page cache has it.
    pub(super) fn read_log(&self, read: &LogRead) -> Vec<u8> {
        let file = self.disk.read(read.location.segment);
        let from = usize::try_from(read.location.offset).expect("an offset fits in an address");
        let size = usize::try_from(read.size_bytes).expect("a read fits in memory");
        let to = file.len().min(from.saturating_add(size));
        let mut bytes = file[from.min(to)..to].to_vec();
        let jobs = self.process.iter().flat_map(|process| &process.job);
        for (segment, offset, written) in jobs.flat_map(Job::writes) {
            let offset = usize::try_from(offset).expect("an offset fits in an address");
            if segment == read.location.segment && offset < to && offset + written.len() > from {
                let (first, last) = (offset.max(from), to.min(offset + written.len()));
                bytes[first - from..last - from]
                    .copy_from_slice(&written[first - offset..last - offset]);
            }
        }
        bytes
    }

    fn log_identity(&self) -> LogIdentity {
        LogIdentity {
            cluster: CLUSTER,
            member: self.id(),
            incarnation: self.incarnation,
            shard: ShardId(0),
        }
    }

    fn settings(&self, seed: u64, planted: Planted) -> Settings {
        let conditions = &self.conditions;
        Settings {
            shard: ShardId(0),
            identity: Identity {
                cluster: CLUSTER,
                member: self.id(),
            },
            member: introduction(self.number),
            incarnation: self.incarnation,
            known: self.known.clone(),
            initial_members: (0..self.count).map(introduction).collect(),
            heartbeat_interval: conditions.election_timeout / 10,
            pre_vote: conditions.pre_vote,
            windows: conditions.windows,
            recent_bytes_max: conditions.recent_bytes_max,
            checkpoints: conditions.checkpoints,
            version: (3, 7),
            quota_bytes: None,
            memory_budget_bytes: u64::MAX,
            election_timeout: conditions.election_timeout,
            seed,
            planted,
        }
    }

    /// Starts the process on what the disk holds. Where a torn tail was cut comes with it.
    ///
    /// # Errors
    /// Why it does not start, in the product's words.
    pub(super) fn start(
        &mut self,
        now: Moment,
        seed: u64,
        planted: Planted,
    ) -> Result<Option<(u64, u64)>, (StartFailure, String)> {
        self.life += 1;
        if std::mem::take(&mut self.faults.read_fails) {
            return Err((StartFailure::ReadError, "a file cannot be read".to_owned()));
        }
        let now = self.clock.read(now);
        let recovered = if planted.has(Defect::RecoveredBeforeSync) {
            let mut cached = self.disk.clone();
            cached.sync(now);
            recover(&cached, self.log_identity(), planted)?
        } else {
            // The files end up synced before anything is made of them, as if the recovery had been at once.
            self.disk.sync(now);
            recover(&self.disk, self.log_identity(), planted)?
        };
        let (recovered, replayer) = recovered;
        let torn = self.repair(&recovered);
        // What recovery lived with is part of the log now.
        self.disk.accept_damage();
        let replayed = replayer.finish(recovered.hard_state);
        let appender = Appender::resume(self.disk.geometry(), self.log_identity(), recovered);
        let shard = Shard::new(self.settings(seed, planted), appender, replayed);
        let keyspace = shard.keyspace();
        let folded = keyspace.folded_index();
        let watched = Watched {
            folded: Index(0),
            folded_digest: keyspace.digest(folded).map_or(0, |digest| digest.0),
            committed: Index(0),
            agreed: Index(0),
            leads: false,
        };
        self.undisturbed_since = now;
        self.process = Some(Process {
            shard,
            job: None,
            waiting_for_room: None,
            last_write: now,
            seal_planned: false,
            turn_planned: false,
            tick_planned: None,
            watched,
        });
        Ok(torn)
    }

    fn repair(&mut self, recovered: &Recovered) -> Option<(u64, u64)> {
        for header in &recovered.damaged_headers {
            self.disk
                .repair(header.segment, header.offset, &header.page());
        }
        let Outcome::TornTail { segment, offset } = recovered.outcome else {
            return None;
        };
        let page = [0; PAGE_SIZE_BYTES as usize];
        self.disk.repair(segment, offset, &page);
        Some((segment.0, offset))
    }

    /// The process dies. What it was writing is in the page cache, and lost as well when the power fails.
    pub(super) fn die(&mut self, power: Option<Tear>, dice: &mut Dice, now: Moment) {
        self.trap = None;
        let process = self.process.take();
        for (segment, offset, bytes) in process
            .iter()
            .flat_map(|process| process.job.iter().flat_map(Job::writes))
        {
            self.disk.write_unsynced(segment, offset, bytes);
        }
        if let Some(tear) = power {
            self.disk.power_cut(tear, dice, self.clock.read(now));
        }
    }
}

/// The id of a member, counted from zero.
pub(super) fn member_id(number: usize) -> MemberId {
    MemberId(number as u64 + 1)
}

/// The member with an id.
pub(super) fn member_number(id: MemberId) -> usize {
    usize::try_from(id.0 - 1).expect("members are few")
}

fn introduction(number: usize) -> ShardMember {
    let name = format!("m{number}");
    ShardMember {
        id: member_id(number),
        peer_urls: vec![format!("http://{name}:2380")],
        client_urls: vec![format!("http://{name}:2379")],
        name,
        is_learner: false,
    }
}

/// How wrong a clock goes: mostly little, sometimes a per cent.
pub(super) fn drift_ppm(dice: &mut Dice) -> i64 {
    let most = if dice.below(4) == 0 { 10_000 } else { 200 };
    dice.between(0, 2 * most) as i64 - most as i64
}

fn restore(bytes: &[u8], identity: LogIdentity) -> Result<Restored, CheckpointError> {
    let mut reader = Reader::new(identity.cluster, identity.shard);
    for block in bytes.chunks(CHECKPOINT_BLOCK_BYTES) {
        reader.push(block)?;
    }
    reader.finish()
}

fn recover(
    disk: &Disk,
    identity: LogIdentity,
    planted: Planted,
) -> Result<(Recovered, Replayer), (StartFailure, String)> {
    let refused = |refusal: crate::wal::Refusal| (StartFailure::Refused, refusal.to_string());
    let mut replayer = Replayer::default();
    let mut start = Index(0);
    if let Some(bytes) = disk.checkpoints().next() {
        let restored =
            restore(bytes, identity).map_err(|error| (StartFailure::Corrupt, error.to_string()))?;
        start = restored.origin.mark.index;
        let base = Replayed::from_checkpoint(restored)
            .map_err(|error| (StartFailure::Corrupt, error.to_string()))?;
        replayer = Replayer::after(base);
    }
    let mut recovery =
        Recovery::new(disk.geometry(), identity, start, &disk.listing()).map_err(refused)?;
    recovery.plant(planted);
    replayer.plant(planted);
    while let Some(segment) = recovery.next_file() {
        let mut pieces = Vec::new();
        let mut visit = |replayed: crate::wal::Replayed<'_>| {
            pieces.extend(Piece::new(replayed)?);
            Ok(())
        };
        recovery
            .segment(disk.read(segment), &mut visit)
            .map_err(refused)?;
        replayer.take(pieces);
        while !replayer.run(&mut Steps::new(REPLAY_STEPS)) {}
    }
    let recovered = recovery.finish();
    match recovered.outcome {
        Outcome::Corrupt(damage) => Err((StartFailure::Corrupt, damage.to_string())),
        Outcome::Clean | Outcome::TornTail { .. } => Ok((recovered, replayer)),
    }
}
