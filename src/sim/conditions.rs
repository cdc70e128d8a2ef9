//! What a run is like: everything that varies from seed to seed, chosen at its start.
//!
//! Some seeds have quick disks and many crashes, others slow disks and hardly any; a kind of fault may be
//! missing altogether. So every fault meets every other, and each also comes alone.

use std::time::Duration;

use super::dice::Dice;
use super::network::Weather;
use crate::raft::Windows;
use crate::shard::checkpoints::CheckpointLimits;
use crate::shard::members::MembershipRules;
use crate::wal::Geometry;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The process dies; the machine goes on.
    Kill,
    /// The machine loses power.
    PowerCut,
    /// The process dies between two effects.
    TrapKill,
    /// The machine loses power between two effects.
    TrapPowerCut,
    /// The process stops and goes on later.
    Pause,
    /// The disk is slow for a while.
    SlowDisk,
    /// The disk completes nothing for seconds, or nothing any more.
    HungDisk,
    /// The next sync fails.
    SyncFailure,
    /// The disk is full for a while.
    FullDisk,
    /// A file cannot be read at the next start.
    ReadError,
    /// A block goes bad at rest.
    Spoil,
    /// A part of a checkpoint's file goes bad at rest.
    SpoilCheckpoint,
    /// Files of the log are gone at the next start: all, or the newest.
    LoseLog,
    /// The clock runs at another rate.
    Drift,
    /// All machines lose power at once.
    Blackout,
    /// Connections break, and are made again at once.
    Reset,
    /// One member does not hear another one for a while.
    CutOff,
    /// The members fall into two groups for a while.
    Partition,
    /// Messages are lost, doubled, late and out of order for a while.
    Storm,
    /// A member starts with an empty directory.
    Wipe,
    /// Two members start, each with the other's directory.
    Swap,
    /// A member starts with a copy of another one's directory.
    Copy,
    /// The operator changes the membership.
    Membership,
    /// The operator moves the leader.
    Transfer,
    /// A leader that may be one of the past meets a member for the first time, when that has just lost its directory.
    Estrange,
}

/// The faults with the range of their weights. A weight is chosen per seed; often it is zero.
const WEIGHTS: &[(FaultKind, u64)] = &[
    (FaultKind::Kill, 2),
    (FaultKind::PowerCut, 2),
    (FaultKind::TrapKill, 3),
    (FaultKind::TrapPowerCut, 3),
    (FaultKind::Pause, 20),
    (FaultKind::SlowDisk, 30),
    (FaultKind::HungDisk, 6),
    (FaultKind::SyncFailure, 2),
    (FaultKind::FullDisk, 3),
    (FaultKind::ReadError, 2),
    (FaultKind::Spoil, 4),
    (FaultKind::SpoilCheckpoint, 4),
    (FaultKind::LoseLog, 2),
    (FaultKind::Drift, 30),
    (FaultKind::Blackout, 2),
];

/// Those that need more than one member.
const PEER_WEIGHTS: &[(FaultKind, u64)] = &[
    (FaultKind::Reset, 15),
    (FaultKind::CutOff, 15),
    (FaultKind::Partition, 15),
    (FaultKind::Storm, 15),
    (FaultKind::Wipe, 1),
    (FaultKind::Swap, 1),
    (FaultKind::Copy, 1),
    (FaultKind::Membership, 12),
    (FaultKind::Transfer, 4),
];

/// With fewer members each must have met every other before its directory is confirmed.
const UNMET_MEMBERS_MIN: usize = 4;
/// Members of a group that began with several, at most.
const GROUP_MAX: usize = 7;

/// What one run is like.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// How often each fault happens, relative to the others.
    pub faults: Vec<(u32, FaultKind)>,
    /// Between two faults, on average.
    pub fault_interval: Duration,
    /// Faults that are followed by another one within [`Self::pursuit`], in a million: what heals from the first
    /// is struck while it heals.
    pub pursued_per_million: u64,
    /// How long after a fault the one that pursues it comes, on average.
    pub pursuit: Duration,
    /// Elections after which something happens within [`Self::pursuit`], in a million: an entry of the term before is
    /// half replicated then.
    pub new_leader_struck_per_million: u64,
    /// Faults that strike where the one before did, in a million.
    pub again_per_million: u64,
    /// Logs that are lost again soon after the others made them whole, in a million.
    pub lost_again_per_million: u64,
    /// Between two bursts of requests, on average.
    pub burst_interval: Duration,
    /// Requests of a burst, at most.
    pub burst_max: u64,
    /// How long a request may take.
    pub patience: Duration,
    /// Different keys.
    pub keys: u64,
    /// How long a sync takes, on average.
    pub sync_time: Duration,
    /// How long it takes on a slow disk, on average.
    pub slow_sync_time: Duration,
    /// Size of a log segment.
    pub segment_size_bytes: u64,
    /// Length of a long value, at most: a commit of several pages, an entry that the log still takes.
    pub value_long_max: usize,
    /// Steps that a turn of a shard may take.
    pub turn_steps: usize,
    /// How long a member is down after a crash, at most.
    pub down_max: Duration,
    /// How long a disk hangs, at most.
    pub hang_max: Duration,
    /// Whether a disk still hangs when every other fault has ended: the others must serve without it.
    pub hangs_in_calm: bool,
    /// Whether all disks are slow then, if none hangs: syncs take longer than an election's patience.
    pub slow_in_calm: bool,
    /// How long a network fault lasts, at most.
    pub network_fault_max: Duration,
    /// Pairs of members whose links do not work from the beginning.
    pub unmet_pairs: usize,
    /// How long they do not, at most.
    pub unmet_max: Duration,
    /// Voters and learners of the group that the operator does not go beyond.
    pub group_max: usize,
    /// `--election-timeout` of every member.
    pub election_timeout: Duration,
    /// How much may be on its way to a follower: little, so that a leader is often gone between two messages, or
    /// as much as in production.
    pub windows: Windows,
    /// Bytes of the newest entries that a member keeps in memory for others.
    pub recent_bytes_max: usize,
    /// When checkpoints are taken.
    pub checkpoints: CheckpointLimits,
    /// What is asked before the membership is changed.
    pub membership: MembershipRules,
    /// Whether the operator waits until a change is answered before it asks for the next one.
    pub operator_waits: bool,
    /// Whether the operator switches between leases and rounds for reads.
    pub read_modes: bool,
    /// Whether elections begin with a question.
    pub pre_vote: bool,
    /// What the links are like in a storm.
    pub storm: Weather,
}

impl Conditions {
    /// The conditions of one seed.
    #[must_use]
    pub fn of(members: usize, dice: &mut Dice) -> Conditions {
        let mut faults = Vec::new();
        // A lone member may get company.
        let grows = members == 1 && dice.below(2) == 0;
        let peers = if members > 1 || grows {
            PEER_WEIGHTS
        } else {
            &[]
        };
        for &(kind, most) in WEIGHTS.iter().chain(peers) {
            let weight = if dice.below(4) == 0 {
                0
            } else {
                dice.between(1, most)
            };
            faults.push((u32::try_from(weight).expect("small"), kind));
        }
        let millis = Duration::from_millis;
        // A short log, so that a member that was away for a moment needs a checkpoint.
        let log_bytes_max = match members {
            1 => 30_000_000,
            _ => 4_000_000,
        };
        let mut checkpoints = CheckpointLimits {
            payload_bytes_min: dice.between(10_000, 400_000),
            log_bytes_max: dice.between(log_bytes_max / 30, log_bytes_max),
        };
        let segment_size_bytes = [64, 128, 256, 1_024][dice.place(4)] * 1_024;
        checkpoints.log_bytes_max = checkpoints.log_bytes_max.max(4 * segment_size_bytes);
        // A transaction has up to four values.
        let value_long_max = Geometry::new(segment_size_bytes).entry_size_bytes_max() / 5;
        Conditions {
            faults,
            fault_interval: dice.time(millis(450), millis(850)),
            pursued_per_million: [0, 0, 200_000, 600_000][dice.place(4)],
            pursuit: dice.time(Duration::from_micros(500), millis(300)),
            new_leader_struck_per_million: [0, 0, 200_000, 600_000][dice.place(4)],
            again_per_million: [0, 0, 300_000, 700_000][dice.place(4)],
            lost_again_per_million: [0, 0, 100_000, 500_000][dice.place(4)],
            burst_interval: dice.time(millis(40), millis(80)),
            burst_max: dice.between(2, 6),
            patience: dice.time(millis(500), millis(7_000)),
            keys: dice.between(3, 40),
            sync_time: dice.time(Duration::from_micros(50), millis(4)),
            slow_sync_time: dice.time(millis(20), millis(400)),
            segment_size_bytes,
            value_long_max: usize::try_from(value_long_max).expect("far below a segment"),
            turn_steps: [7, 64, 2_048, 2_048][dice.place(4)],
            down_max: dice.time(millis(20), millis(2_000)),
            hang_max: dice.time(millis(1_000), millis(12_000)),
            hangs_in_calm: dice.below(2) == 0,
            slow_in_calm: dice.below(2) == 0,
            network_fault_max: dice.time(millis(300), millis(8_000)),
            unmet_pairs: match members {
                0..UNMET_MEMBERS_MIN => 0,
                _ => [0, 1, 2, 2][dice.place(4)],
            },
            unmet_max: dice.time(millis(1_500), millis(30_000)),
            group_max: match members {
                1 => dice.place(2) + 2,
                _ => GROUP_MAX,
            },
            election_timeout: match dice.below(5) {
                // Terms change while disks are still busy with the last one.
                0 => dice.time(millis(200), millis(300)),
                _ => dice.time(millis(300), millis(1_500)),
            },
            windows: windows(dice),
            recent_bytes_max: [0, 4_096, 65_536, 1 << 24][dice.place(4)],
            checkpoints,
            membership: MembershipRules {
                strict: dice.below(2) == 0,
                learners_max: dice.place(3) + 1,
            },
            operator_waits: dice.below(4) != 0,
            read_modes: dice.below(2) == 0,
            pre_vote: dice.below(4) != 0,
            storm: Weather {
                lost_per_million: dice.below(200_000),
                doubled_per_million: dice.below(200_000),
                held_per_million: dice.below(300_000),
                delay_min: Duration::from_micros(50),
                delay_max: dice.time(millis(1), millis(100)),
                held_max: dice.time(millis(10), millis(3_000)),
            },
        }
    }
}

fn windows(dice: &mut Dice) -> Windows {
    let production = Windows::default();
    Windows {
        append_bytes_max: [1, 16_384, production.append_bytes_max][dice.place(3)],
        inflight_frames_max: [1, 4, production.inflight_frames_max][dice.place(3)],
        ..production
    }
}
