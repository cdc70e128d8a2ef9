//! A hostile network under many seeds: messages are lost, repeated and overtake each other, processes
//! die at any moment with or without their last sync, clocks differ, members come and go.
//!
//! Each seed draws its own rates, then runs a phase in which anything may happen and a phase in which
//! everybody who is left is well: they must agree and commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use kontiki::base::prng::Prng;
use kontiki::base::{HardState, Index, MemberId, Term};
use kontiki::raft::{Change, Flow, Membership, ReadMode, Rebuild, Role, Windows, majority_size};

use crate::checker::Counts;
use crate::cluster::{Cluster, Flight, known_disk};
use crate::member::{Disk, ELECTION_TIMEOUT, ENTRY_SIZE_BYTES, Options, Packet, Payload};

const SEEDS: u64 = 3_000;
const STEPS: u64 = 1_500;
/// How long a healthy group may take to agree again.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    cluster: Cluster,
    prng: Prng,
    /// In thousandths.
    loss: u64,
    repeat: u64,
    overtake: u64,
    crash: u64,
    partition: u64,
    change: u64,
    bootstrap: Membership,
    /// Whose directory was emptied: it takes no part any more.
    wiped: BTreeSet<MemberId>,
    joined: u64,
    value: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut prng = Prng::from_seed(seed);
        let voters = [1, 3, 3, 3, 5][prng.below(5) as usize];
        let options = Options {
            windows: Windows {
                append_bytes_max: ENTRY_SIZE_BYTES * (1 + prng.below(8)),
                inflight_bytes_max: ENTRY_SIZE_BYTES * (1 + prng.below(32)),
                inflight_frames_max: 1 + prng.below(8) as usize,
            },
            pre_vote: prng.below(4) != 0,
        };
        let ids: Vec<_> = (1..=voters).map(MemberId).collect();
        let mut bootstrap = Membership::of_voters(ids.iter().copied());
        if prng.below(4) == 0 {
            bootstrap.read_mode = ReadMode::Lease;
        }
        let mut cluster = Cluster::empty(options, seed);
        let fresh = prng.below(2) == 0;
        for &id in &ids {
            // Within the tenth by which clocks may differ under leases.
            cluster
                .clocks
                .insert(id, (960 + prng.below(80), prng.below(1_000_000_000)));
            let disk = match fresh {
                true => Disk::new(id.0.into(), bootstrap.clone()),
                false => known_disk(id, bootstrap.clone(), &ids),
            };
            cluster.start(id, disk);
        }
        World {
            cluster,
            loss: prng.below(2) * prng.below(150),
            repeat: prng.below(2) * prng.below(150),
            overtake: prng.below(2) * prng.below(500),
            crash: prng.below(2) * prng.below(20),
            partition: prng.below(2) * prng.below(20),
            change: prng.below(2) * prng.below(20),
            prng,
            bootstrap,
            wiped: BTreeSet::new(),
            joined: voters,
            value: 0,
        }
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        self.prng.below(1_000) < thousandths
    }

    fn anybody(&mut self) -> Option<MemberId> {
        let ids: Vec<_> = self.cluster.members.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[self.prng.below(ids.len() as u64) as usize])
    }

    fn step(&mut self) {
        match self.prng.below(100) {
            0..=9 => self.time_passes(),
            10..=59 => self.deliver_one(),
            60..=74 => self.sync_one(),
            75..=84 => self.propose(),
            85..=89 => {
                if let Some(id) = self.anybody() {
                    self.cluster.read(id);
                }
            }
            90..=91 => self.compact(),
            92..=94 => self.connection_closes(),
            _ => self.misfortune(),
        }
    }

    fn time_passes(&mut self) {
        let millis = 1 + self.prng.below(60);
        self.cluster.now = self.cluster.now + Duration::from_millis(millis);
        for id in self.cluster.members.keys().copied().collect::<Vec<_>>() {
            // A busy core misses a tick.
            if !self.chance(50) {
                self.cluster.tick(id);
            }
        }
    }

    fn deliver_one(&mut self) {
        let waiting = self.cluster.network.len() as u64;
        if waiting == 0 {
            return;
        }
        let at = match self.chance(self.overtake) {
            true => self.prng.below(waiting),
            false => 0,
        };
        let flight = self
            .cluster
            .network
            .remove(at as usize)
            .expect("one of them");
        if self.chance(self.loss) {
            if let Packet::Checkpoint { .. } = flight.packet {
                self.cluster.checkpoint_ended(flight.from, flight.to, None);
            }
            return;
        }
        if self.chance(self.repeat) {
            self.cluster.network.push_back(flight.clone());
        }
        self.cluster.deliver(flight);
    }

    fn lose(&mut self, flight: &Flight) {
        if let Packet::Checkpoint { .. } = flight.packet {
            self.cluster.checkpoint_ended(flight.from, flight.to, None);
        }
    }

    fn sync_one(&mut self) {
        let Some(id) = self.anybody() else { return };
        let member = self.cluster.members.get_mut(&id).expect("it runs");
        if member.is_syncing() {
            self.cluster.act(id, |member, now| member.end_sync(now));
        } else {
            member.begin_sync();
        }
    }

    fn propose(&mut self) {
        let leading = |id: &MemberId| self.cluster.members[id].raft.role() == Role::Leader;
        let leaders: Vec<_> = self
            .cluster
            .members
            .keys()
            .copied()
            .filter(leading)
            .collect();
        for id in leaders {
            for _ in 0..1 + self.prng.below(3) {
                self.value += 1;
                self.cluster.propose(id, Payload::Data(self.value));
            }
        }
    }

    fn compact(&mut self) {
        let Some(id) = self.anybody() else { return };
        if self.chance(300) {
            let member = self.cluster.members.get_mut(&id).expect("it runs");
            let behind = self.prng.below(4);
            let commit = member.raft.commit().0;
            member.compact(Index(commit.saturating_sub(behind)));
        }
    }

    fn connection_closes(&mut self) {
        if let (Some(a), Some(b)) = (self.anybody(), self.anybody()) {
            self.cluster.with(a, |raft, outputs, now| {
                raft.peer_disconnected(b, now, outputs)
            });
        }
    }

    fn misfortune(&mut self) {
        if self.chance(self.crash * 10) {
            self.crash_or_restart();
        }
        if self.chance(self.partition * 10) {
            self.partition();
        }
        if self.chance(self.change * 10) {
            self.change();
        }
        if self.chance(20) {
            self.hand_over();
        }
    }

    fn crash_or_restart(&mut self) {
        let down: Vec<_> = self.cluster.disks.keys().copied().collect();
        if !down.is_empty() && self.prng.below(3) != 0 {
            let id = down[self.prng.below(down.len() as u64) as usize];
            self.damage(id);
            self.cluster.restart(id);
        } else if let Some(id) = self.anybody() {
            let reached = self.prng.below(2) == 0;
            self.cluster.crash(id, reached);
        }
    }

    /// Sometimes the directory of one member, and no other, is damaged or emptied before it starts again.
    fn damage(&mut self, id: MemberId) {
        let alone = self.bootstrap.voters.len() == 1;
        let everybody = self
            .cluster
            .disks
            .values()
            .chain(self.cluster.members.values().map(|member| &member.disk));
        let settled = everybody.clone().all(|disk| disk.confirmed);
        let whole = everybody.clone().all(|disk| disk.rebuild.is_none());
        if alone || !settled || !whole || !self.wiped.is_empty() || !self.chance(100) {
            return;
        }
        // Nothing that was sent before arrives after what the new connections carry.
        let lost = |flight: &Flight| flight.from == id || flight.to == id;
        let (lost, kept): (VecDeque<Flight>, _) = std::mem::take(&mut self.cluster.network)
            .into_iter()
            .partition(lost);
        self.cluster.network = kept;
        for flight in lost {
            self.lose(&flight);
        }
        let disk = self.cluster.disks.get_mut(&id).expect("it is down");
        if self.prng.below(2) == 0 {
            let incarnation = 1_000 + u128::from(id.0);
            *disk = Disk::new(incarnation, self.bootstrap.clone());
            self.wiped.insert(id);
        } else {
            // Behind the damage term and vote are found, or nothing is.
            let found = self.prng.below(2) == 0;
            disk.vote_floor = match found {
                true => disk.hard_state.term,
                false => Term(0),
            };
            disk.rebuild = Some(Rebuild {
                through: disk.log.base.index,
                every_voter: !found,
            });
            let kept = self.prng.below(disk.log.entries.len() as u64 + 1) as usize;
            disk.log.entries.truncate(kept);
            disk.hard_state = HardState {
                term: disk.log.last_term(),
                vote: None,
                commit: disk.hard_state.commit.min(disk.log.last()),
            };
        }
        disk.lost_something = true;
    }

    fn partition(&mut self) {
        self.cluster.cuts.clear();
        match self.prng.below(3) {
            0 => {}
            1 => {
                if let (Some(from), Some(to)) = (self.anybody(), self.anybody()) {
                    self.cluster.cuts.insert((from, to));
                }
            }
            _ => {
                let ids = 1..=self.joined;
                let (left, right): (Vec<u64>, Vec<u64>) =
                    ids.partition(|_| self.prng.below(2) == 0);
                self.cluster.split(&[&left, &right]);
            }
        }
    }

    fn change(&mut self) {
        let Some(leader) = self.cluster.leader() else {
            return;
        };
        let membership = self.cluster.members[&leader].raft.membership().clone();
        let members: Vec<_> = membership.members().collect();
        let one = members[self.prng.below(members.len() as u64) as usize];
        let change = match self.prng.below(6) {
            0 | 1 if members.len() < 6 => {
                self.joined += 1;
                let id = MemberId(self.joined);
                let disk = Disk::new(id.0.into(), self.bootstrap.clone());
                self.cluster.start(id, disk);
                match self.prng.below(2) {
                    0 => Change::AddLearner(id),
                    _ => Change::AddVoter(id),
                }
            }
            2 => Change::Promote(one),
            3 if membership.voters.len() > 1 => Change::Remove(one),
            4 => match self.cluster.members[&leader].raft.unrecorded_incarnation() {
                Some((id, incarnation)) => Change::Incarnation(id, incarnation),
                None => return,
            },
            _ => Change::ReadMode(match membership.read_mode {
                ReadMode::Quorum => ReadMode::Lease,
                ReadMode::Lease => ReadMode::Quorum,
            }),
        };
        self.cluster.propose(leader, Payload::Change(change));
    }

    fn hand_over(&mut self) {
        let (Some(leader), Some(to)) = (self.cluster.leader(), self.anybody()) else {
            return;
        };
        let mut taken = false;
        self.cluster.with(leader, |raft, _, now| {
            taken = raft.transfer_leader(Some(to), now).is_ok()
        });
        self.cluster.checker.counts.transfers += u64::from(taken);
    }

    /// Everybody runs and hears everybody, except directories that are refused.
    fn heal(&mut self) {
        self.cluster.cuts.clear();
        for id in self.cluster.disks.keys().copied().collect::<Vec<_>>() {
            self.cluster.restart(id);
        }
    }

    /// Whether those who are well are a majority of the newest membership that may be in force.
    fn majority_is_well(&self) -> bool {
        let newest = self
            .cluster
            .members
            .values()
            .max_by_key(|member| member.raft.log().last());
        let voters = &newest.expect("somebody runs").raft.membership().voters;
        let well =
            |id: &&MemberId| {
                !self.wiped.contains(id)
                    && self.cluster.members.get(id).is_some_and(|member| {
                        member.disk.confirmed && member.disk.rebuild.is_none()
                    })
            };
        voters.iter().filter(well).count() >= majority_size(voters.len())
    }

    fn converge(&mut self) {
        let end = self.cluster.now + PATIENCE;
        let mut patience = self.cluster.now;
        while self.cluster.now < end {
            self.cluster.run(Duration::from_millis(500));
            let Some(leader) = self.cluster.leader() else {
                continue;
            };
            // A leader that is handing over takes nothing.
            if self.cluster.now >= patience {
                patience = self.cluster.now + 5 * ELECTION_TIMEOUT;
                self.value += 1;
                self.cluster.propose(leader, Payload::Data(self.value));
                self.cluster.read(leader);
                continue;
            }
            let leads = &self.cluster.members[&leader].raft;
            let all_there = leads.membership().members().all(|id| {
                self.wiped.contains(&id)
                    || self
                        .cluster
                        .members
                        .get(&id)
                        .is_none_or(|member| member.raft.commit() == leads.commit())
            });
            let wanted = Payload::Data(self.value);
            let written = self
                .cluster
                .checker
                .committed
                .iter()
                .any(|entry| entry.payload == wanted);
            let flowing = leads.membership().members().all(|id| {
                self.wiped.contains(&id)
                    || leads
                        .progress(id)
                        .is_none_or(|progress| progress.flow == Flow::Pipeline)
            });
            if all_there && written && flowing {
                return;
            }
        }
        if self.majority_is_well() {
            panic!(
                "no agreement although a majority is well: {}",
                self.describe()
            );
        }
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for member in self.cluster.members.values() {
            let raft = &member.raft;
            text += &format!(
                "\n  {} {:?} term {} last {:?} commit {} leader {:?} wiped {} rebuild {:?} confirmed {} {:?} {:?}",
                member.id,
                raft.role(),
                raft.term(),
                raft.log().last(),
                raft.commit(),
                raft.leader(),
                self.wiped.contains(&member.id),
                member.disk.rebuild,
                member.disk.confirmed,
                raft.membership(),
                raft.membership()
                    .members()
                    .map(|id| raft.progress(id))
                    .collect::<Vec<_>>(),
            );
        }
        text
    }
}

fn run(seed: u64) -> (Counts, BTreeMap<MemberId, Index>) {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        world.step();
        if step % 100 == 0 {
            world.cluster.checker.logs_match(&world.cluster.members);
        }
    }
    world.heal();
    world.converge();
    world.cluster.checker.logs_match(&world.cluster.members);
    let commits = world
        .cluster
        .members
        .values()
        .map(|member| (member.id, member.raft.commit()));
    (world.cluster.checker.counts, commits.collect())
}

/// Goal: election safety, log matching, leader completeness, state machine safety, durable majorities,
/// linearizable reads and convergence (Raft paper, figure 3) under everything above. `SEED=n` runs one,
/// `SEEDS=n` the first n.
#[test]
fn hostile_network() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let one = number("SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let mut total = Counts::default();
    for seed in seeds {
        let result = std::panic::catch_unwind(|| run(seed));
        let Ok((counts, _)) = result else {
            panic!("SEED={seed} shows it again");
        };
        total.elections += counts.elections;
        total.truncations += counts.truncations;
        total.resets += counts.resets;
        total.reads += counts.reads;
        total.changes += counts.changes;
        total.committed += counts.committed;
        total.rebuilt += counts.rebuilt;
        total.refused += counts.refused;
        total.transfers += counts.transfers;
    }
    println!("{total:?}");
    // A run in which nothing happens proves nothing.
    let seen = [
        total.elections,
        total.truncations,
        total.resets,
        total.reads,
        total.changes,
        total.committed,
        total.rebuilt,
        total.refused,
        total.transfers,
    ];
    assert!(
        one.is_some() || seen.iter().all(|&count| count > 0),
        "{total:?}"
    );
}

/// Goal: the same seed gives the same run.
#[test]
fn same_seed_same_run() {
    for seed in 0..20 {
        let (a, b) = (run(seed), run(seed));
        assert_eq!(a.1, b.1, "seed {seed}");
        assert_eq!(format!("{:?}", a.0), format!("{:?}", b.0), "seed {seed}");
    }
}
