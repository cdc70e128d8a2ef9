//! One member: its disk, its clock, and the process that comes and goes.
//!
//! Starting it is what the runtime does, over bytes in memory: the product's own recovery reads the files, the
//! product's own replay folds them, what recovery asks for is repaired, and everything is synced before
//! anything counts as durable.

use std::collections::BTreeSet;

use super::clock::{Clock, Moment};
use super::conditions::Conditions;
use super::dice::Dice;
use super::disk::{Disk, Tear};
use super::recovery::{Found, recover};
use super::trace::StartFailure;
use crate::base::limits::{PAGE_SIZE_BYTES, RECOVERY_CUTS_MAX};
use crate::base::planted::{Defect, Planted};
use crate::base::{ClusterId, Incarnation, Index, Instant, MemberId, ShardId};
use crate::checkpoint::Source;
use crate::raft::Directories;
use crate::shard::event::{Identity, KnownMembers, LogRead, Member as ShardMember};
use crate::shard::{Settings, Shard};
use crate::wal::{
    Appender, Commit, Geometry, LogIdentity, Outcome, Recovered, SegmentOpening, SegmentSequence,
};

const CLUSTER: ClusterId = ClusterId(0xc1);

/// One member of the cluster, running or not.
pub(super) struct Member {
    number: usize,
    /// Members that form the cluster; none for one that joins later.
    founders: usize,
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
    /// Its own directory, while another one lies in its place.
    aside: Option<Aside>,
    /// Whether its directory took the place of a lost one: who has not heard yet that the group agreed on it refuses it.
    pub(super) adopted: bool,
    /// It was removed, or never joined, and is not started any more.
    pub(super) retired: bool,
    /// It dies after so many further effects.
    pub(super) trap: Option<Trap>,
    /// The voters by what was in force when its process died.
    last_voters: BTreeSet<MemberId>,
}

/// A member's own directory while it is not where it should be.
struct Aside {
    disk: Disk,
    incarnation: Incarnation,
    known: KnownMembers,
    /// Whether what lies in its place is another member's, and not an empty one.
    foreign: bool,
}

/// What is wrong with a disk at present.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DiskFaults {
    pub(super) slow_until: Moment,
    pub(super) full_until: Moment,
    /// Until then it completes no sync.
    pub(super) hangs_until: Moment,
    /// Nor any read.
    pub(super) hangs_reads: bool,
    pub(super) sync_fails: bool,
    pub(super) read_fails: bool,
}

/// A copy of a member's directory.
pub(super) struct Directory {
    disk: Disk,
    incarnation: Incarnation,
    known: KnownMembers,
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
    /// When everything that checkpoints have asked for will be done.
    pub(super) checkpoints_until: Moment,
    pub(super) last_write: Instant,
    /// Whether a seal, or another turn, is planned.
    pub(super) seal_planned: bool,
    pub(super) turn_planned: bool,
    /// When the next tick is planned; another one is stale.
    pub(super) tick_planned: Option<Moment>,
    pub(super) watched: Watched,
    /// Whom it lets in, as its shard said last.
    pub(super) directories: Directories,
}

/// What the checkers were told of a member's present life.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watched {
    pub(super) folded: Index,
    pub(super) folded_digest: u64,
    pub(super) committed: Index,
    /// Where the committed state of the cluster was last seen to change.
    pub(super) changed_at: Index,
    /// What consensus knows to be committed; the state may lag behind it.
    pub(super) agreed: Index,
    pub(super) leads: bool,
}

/// How a start went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    /// Where a torn tail was cut.
    pub(super) torn: Option<(u64, u64)>,
    /// Whether what was durable is gone, and to be rebuilt.
    pub(super) cut: bool,
    /// Checkpoints that did not hold.
    pub(super) unusable: usize,
    /// Whether it was begun with a checkpoint that is damaged.
    pub(super) misread: bool,
    /// Whether files of the log are gone since the last start.
    pub(super) lost: bool,
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
        founders: usize,
        conditions: &Conditions,
        dice: &mut Dice,
        now: Moment,
    ) -> Member {
        let clock = Clock::new(dice.below(1 << 40), drift_ppm(dice), now);
        Member {
            number,
            founders,
            conditions: conditions.clone(),
            incarnation: Incarnation(number as u128 + 1),
            known: KnownMembers::default(),
            aside: None,
            adopted: false,
            retired: false,
            disk: Disk::new(Geometry::new(conditions.segment_size_bytes)),
            clock,
            process: None,
            life: 0,
            paused_until: Moment(0),
            undisturbed_since: Instant(0),
            faults: DiskFaults::default(),
            trap: None,
            last_voters: BTreeSet::new(),
        }
    }

    /// The identity of the directory it runs on.
    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn id(&self) -> MemberId {
        member_id(self.number)
    }

    /// The voters by the membership that is in force here.
    pub(super) fn voters(&self) -> &BTreeSet<MemberId> {
        match &self.process {
            Some(process) => &process.shard.raft().membership().voters,
            None => &self.last_voters,
        }
    }

    /// An empty directory takes the place of the member's own.
    pub(super) fn wipe(&mut self, incarnation: u64) {
        let empty = Disk::new(self.disk.geometry());
        let incarnation = Incarnation(u128::from(incarnation) << 64 | u128::from(incarnation));
        self.put_aside(empty, incarnation, KnownMembers::default(), false);
    }

    /// A copy of another member's directory takes the place of the member's own.
    pub(super) fn misplace(&mut self, other: Directory) {
        self.put_aside(other.disk, other.incarnation, other.known, true);
    }

    fn put_aside(
        &mut self,
        disk: Disk,
        incarnation: Incarnation,
        known: KnownMembers,
        foreign: bool,
    ) {
        self.aside = Some(Aside {
            disk: std::mem::replace(&mut self.disk, disk),
            incarnation: std::mem::replace(&mut self.incarnation, incarnation),
            known: std::mem::replace(&mut self.known, known),
            foreign,
        });
    }

    /// What a copy of its directory holds.
    pub(super) fn directory(&self) -> Directory {
        Directory {
            disk: self.disk.clone(),
            incarnation: self.incarnation,
            known: self.known.clone(),
        }
    }

    /// The member gets its own directory back, if it had lost it.
    pub(super) fn unwipe(&mut self) {
        if let Some(own) = self.aside.take() {
            (self.disk, self.incarnation, self.known) = (own.disk, own.incarnation, own.known);
        }
    }

    /// The directory that took the place of the lost one is the member's own from now on.
    pub(super) fn adopt(&mut self) {
        self.aside = None;
        self.adopted = true;
    }

    /// Whether it runs, or will run, on a directory that is not its own.
    pub(super) fn is_displaced(&self) -> bool {
        self.aside.is_some()
    }

    /// Whether it keeps what it promised: its directory is its own, and nothing is missing there.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_displaced() && !self.disk.is_damaged() && self.known.rebuild.is_none()
    }

    /// Whether its disk completes nothing at present.
    pub(super) fn is_hung(&self, now: Moment) -> bool {
        self.faults.hangs_until > now
    }

    /// Whether that directory is empty, or was when it was put there.
    pub(super) fn is_wiped(&self) -> bool {
        self.aside.as_ref().is_some_and(|own| !own.foreign)
    }

    /// Whether that directory is another member's.
    pub(super) fn is_misplaced(&self) -> bool {
        self.aside.as_ref().is_some_and(|own| own.foreign)
    }

    /// Whether it runs, and its log names a directory for it, committed or not. It must be this one, and then nobody can
    /// tell it otherwise.
    pub(super) fn log_names_own(&self) -> bool {
        let raft = self.process.as_ref().map(|process| process.shard.raft());
        raft.is_some_and(|raft| {
            let named = &raft.membership().incarnations;
            named.contains_key(&self.id()) || raft.directories().agreed.contains_key(&self.id())
        })
    }

    /// Whether its directory says whose it is: not while the log has no segment yet, or none any more.
    pub(super) fn is_marked(&self) -> bool {
        self.process.is_some() && self.disk.has_segments()
    }

    /// A part of a segment as the page cache has it.
    pub(super) fn read_log(&self, read: &LogRead) -> Vec<u8> {
        if !self.disk.holds(read.location.segment) {
            // It was recycled meanwhile.
            return Vec::new();
        }
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
            initial_members: (0..self.founders).map(introduction).collect(),
            membership: conditions.membership,
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

    /// Starts the process on what the disk holds. If it is damaged, a member that has others to be rebuilt by cuts
    /// its log; when `interrupted` it dies in the middle of that, and has to be started again.
    ///
    /// # Errors
    /// Why it does not start, in the product's words.
    pub(super) fn start(
        &mut self,
        now: Moment,
        seed: u64,
        planted: Planted,
        interrupted: bool,
    ) -> Result<Started, (StartFailure, String)> {
        self.life += 1;
        if std::mem::take(&mut self.faults.read_fails) {
            return Err((StartFailure::ReadError, "a file cannot be read".to_owned()));
        }
        let now = self.clock.read(now);
        let lost = self.disk.has_lost();
        let mut cuts = 0;
        let mut unusable = 0;
        let Found {
            recovered,
            replayer,
            file,
            unusable: unneeded,
            ..
        } = loop {
            let found = if planted.has(Defect::RecoveredBeforeSync) {
                let mut cached = self.disk.clone();
                cached.sync(now);
                recover(&cached, self.log_identity(), &self.known, planted)?
            } else {
                // The files end up synced before anything is made of them, as if the recovery had been at once.
                self.disk.sync(now);
                recover(&self.disk, self.log_identity(), &self.known, planted)?
            };
            unusable = found.unusable.len().max(unusable);
            let Some(loss) = &found.loss else {
                break found;
            };
            if self.founders == 1 || cuts == RECOVERY_CUTS_MAX {
                return Err((StartFailure::Corrupt, loss.words.clone()));
            }
            cuts += 1;
            self.known.note_loss(&found.recovered, found.checkpoint);
            // In the order of the product: a crash may come before, between and within the two.
            if !interrupted || seed.is_multiple_of(2) {
                for &name in &loss.unusable {
                    self.disk.remove_checkpoint(name);
                }
                if let Some(cut) = loss.cut {
                    self.disk.cut(cut, interrupted);
                }
            }
            if interrupted {
                return Err((StartFailure::CutInterrupted, loss.words.clone()));
            }
        };
        let misread = file.is_some_and(|file| self.disk.is_spoiled(file));
        // The log does without them. One of its own is replaced by the next.
        for name in unneeded {
            if name.1 == Source::Member {
                self.disk.remove_checkpoint(name);
            }
        }
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
            changed_at: Index(0),
            agreed: Index(0),
            leads: false,
        };
        self.process = Some(Process {
            shard,
            job: None,
            waiting_for_room: None,
            checkpoints_until: Moment(0),
            last_write: now,
            seal_planned: false,
            turn_planned: false,
            tick_planned: None,
            watched,
            directories: Directories::default(),
        });
        Ok(Started {
            torn,
            cut: cuts > 0,
            unusable,
            misread,
            lost,
        })
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
        self.faults.hangs_until = Moment(0);
        self.last_voters = self.voters().clone();
        let process = self.process.take();
        for (segment, offset, bytes) in process
            .iter()
            .flat_map(|process| process.job.iter().flat_map(Job::writes))
        {
            self.disk.write_unsynced(segment, offset, bytes);
        }
        self.disk.abandon_checkpoint(dice);
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

pub(super) fn introduction(number: usize) -> ShardMember {
    let name = format!("m{number}");
    ShardMember {
        id: member_id(number),
        peer_urls: vec![format!("http://{name}:2380")],
        client_urls: vec![format!("http://{name}:2379")],
        name,
        is_learner: false,
    }
}

/// How wrong a clock goes: mostly little, sometimes a per cent, and sometimes so much that two of them differ in speed by
/// almost the tenth that is promised.
pub(super) fn drift_ppm(dice: &mut Dice) -> i64 {
    let most = match dice.below(8) {
        0 => return if dice.below(2) == 0 { -45_000 } else { 45_000 },
        1 => 10_000,
        _ => 200,
    };
    dice.between(0, 2 * most) as i64 - most as i64
}
