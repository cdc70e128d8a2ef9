//! What a run says in the end.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use super::checker::Violation;
use super::conditions::FaultKind;

/// The result of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first promise that was not kept.
    pub violation: Option<Violation>,
    /// What happened, counted.
    pub statistics: Statistics,
    /// Of every line of the trace.
    pub trace_hash: u64,
    /// The lines that were kept.
    pub trace: Vec<String>,
}

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Simulated time.
    pub simulated_nanos: u64,
    /// Events that were handled.
    pub events: u64,
    /// Requests of clients.
    pub operations: u64,
    /// Those that were carried out.
    pub done: u64,
    /// Those that were refused for what they ask: a compacted or future revision.
    pub declined: u64,
    /// Those that were refused because of circumstances, with certainty that they had no effect.
    pub refused: u64,
    /// Those whose fate their client does not know.
    pub unknown: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Members that died.
    pub crashes: u64,
    /// Members that started.
    pub starts: u64,
    /// Terms that had a leader, after the first.
    pub leader_changes: u64,
    /// Uncommitted tails that were replaced.
    pub truncations: u64,
    /// Torn tails that were cut at a start.
    pub torn_tails: u64,
    /// Damage that a member found when it started.
    pub damage_found: u64,
    /// Of that, logs of which whole files were gone.
    pub lost_logs: u64,
    /// Files that were lost of logs that had been made whole by the others before.
    pub lost_again: u64,
    /// Members whose damaged logs were made whole by the others.
    pub rebuilt: u64,
    /// Checkpoints that became durable.
    pub checkpoints: u64,
    /// Checkpoints that a member was brought up with.
    pub checkpoint_installs: u64,
    /// Checkpoints on their way that were given up because the log became too long.
    pub transfers_abandoned: u64,
    /// Compactions that were acknowledged.
    pub compactions: u64,
    /// Changes of the membership that were acknowledged.
    pub membership_changes: u64,
    /// Times that lease reads were switched on, or were found to be.
    pub lease_switches: u64,
    /// Members that were removed and ended.
    pub removals: u64,
    /// Transfers of leadership that were acknowledged.
    pub transfers: u64,
    /// Starts on another member's directory that were refused.
    pub foreign_directories: u64,
    /// Leaders that gave up leading while their disk hung.
    pub hung_leaders_left: u64,
    /// Disks that hung while nothing else was wrong, and the others served.
    pub calm_hangs: u64,
    /// Times that all disks were slow while nothing else was wrong, and somebody led.
    pub calm_slow: u64,
    /// Damaged checkpoints that were noticed: at a start, or when they were to be sent.
    pub bad_checkpoints: u64,
    /// Pairs of members that met after the cluster had begun.
    pub meetings: u64,
    /// Messages that did not arrive because a greeting would have been refused for a directory.
    pub greetings_refused: u64,
    /// Members that the group came to know by the directory that had taken the place of a lost one.
    pub adopted: u64,
    /// Lone members that got a second voter.
    pub grown: u64,
    /// Groups of two voters of which one was left.
    pub shrunk: u64,
}

impl Statistics {
    /// All faults.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl AddAssign<&Statistics> for Statistics {
    fn add_assign(&mut self, other: &Statistics) {
        let Statistics {
            simulated_nanos,
            events,
            operations,
            done,
            declined,
            refused,
            unknown,
            faults,
            crashes,
            starts,
            leader_changes,
            truncations,
            torn_tails,
            damage_found,
            lost_logs,
            lost_again,
            rebuilt,
            checkpoints,
            checkpoint_installs,
            transfers_abandoned,
            compactions,
            membership_changes,
            lease_switches,
            removals,
            transfers,
            foreign_directories,
            hung_leaders_left,
            calm_hangs,
            calm_slow,
            bad_checkpoints,
            meetings,
            greetings_refused,
            adopted,
            grown,
            shrunk,
        } = other;
        self.simulated_nanos += simulated_nanos;
        self.events += events;
        self.operations += operations;
        self.done += done;
        self.declined += declined;
        self.refused += refused;
        self.unknown += unknown;
        for (&kind, count) in faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.crashes += crashes;
        self.starts += starts;
        self.leader_changes += leader_changes;
        self.truncations += truncations;
        self.torn_tails += torn_tails;
        self.damage_found += damage_found;
        self.lost_logs += lost_logs;
        self.lost_again += lost_again;
        self.rebuilt += rebuilt;
        self.checkpoints += checkpoints;
        self.checkpoint_installs += checkpoint_installs;
        self.transfers_abandoned += transfers_abandoned;
        self.compactions += compactions;
        self.membership_changes += membership_changes;
        self.lease_switches += lease_switches;
        self.removals += removals;
        self.transfers += transfers;
        self.foreign_directories += foreign_directories;
        self.hung_leaders_left += hung_leaders_left;
        self.calm_hangs += calm_hangs;
        self.calm_slow += calm_slow;
        self.bad_checkpoints += bad_checkpoints;
        self.meetings += meetings;
        self.greetings_refused += greetings_refused;
        self.adopted += adopted;
        self.grown += grown;
        self.shrunk += shrunk;
    }
}
