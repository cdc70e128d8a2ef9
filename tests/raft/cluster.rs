//! Members, and a network between them that does what it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use kontiki::base::{Index, Instant, MemberId};
use kontiki::raft::{Membership, Output, Raft};

use crate::checker::Checker;
use crate::member::{Disk, Doing, Member, Options, Packet, Payload};

/// Something on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
    pub(crate) packet: Packet,
}

pub(crate) struct Cluster {
    pub(crate) now: Instant,
    pub(crate) members: BTreeMap<MemberId, Member>,
    /// Of members that do not run.
    pub(crate) disks: BTreeMap<MemberId, Disk>,
    /// In the order in which it was sent.
    pub(crate) network: VecDeque<Flight>,
    /// Links that lose everything, by direction.
    pub(crate) cuts: BTreeSet<(MemberId, MemberId)>,
    /// How fast each member's clock goes, in thousandths, and how far it is ahead.
    pub(crate) clocks: BTreeMap<MemberId, (u64, u64)>,
    pub(crate) checker: Checker,
    /// What happened, when somebody wants to read it.
    pub(crate) trace: Option<Vec<(MemberId, Doing)>>,
    pub(crate) options: Options,
    pub(crate) seed: u64,
}

impl Cluster {
    pub(crate) fn empty(options: Options, seed: u64) -> Cluster {
        Cluster {
            now: Instant(0),
            members: BTreeMap::new(),
            disks: BTreeMap::new(),
            network: VecDeque::new(),
            cuts: BTreeSet::new(),
            clocks: BTreeMap::new(),
            checker: Checker::default(),
            trace: None,
            options,
            seed,
        }
    }

    /// A cluster whose members know each other and have never elected anybody.
    pub(crate) fn of_voters(count: u64, seed: u64) -> Cluster {
        let mut cluster = Cluster::empty(Options::default(), seed);
        let ids: Vec<_> = (1..=count).map(MemberId).collect();
        for &id in &ids {
            let disk = known_disk(id, Membership::of_voters(ids.iter().copied()), &ids);
            cluster.start(id, disk);
        }
        cluster
    }

    pub(crate) fn start(&mut self, id: MemberId, disk: Disk) {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(id.0);
        let member = Member::start(id, disk, self.options, self.seed);
        self.checker.restarted(id);
        self.members.insert(id, member);
    }

    /// The process dies.
    pub(crate) fn crash(&mut self, id: MemberId, sync_reached_disk: bool) {
        if let Some(member) = self.members.remove(&id) {
            self.disks.insert(id, member.crash(sync_reached_disk));
        }
    }

    pub(crate) fn restart(&mut self, id: MemberId) {
        if let Some(disk) = self.disks.remove(&id) {
            self.start(id, disk);
        }
    }

    fn clock(&self, id: MemberId) -> Instant {
        let (thousandths, ahead) = self.clocks.get(&id).copied().unwrap_or((1_000, 0));
        Instant(self.now.0 / 1_000 * thousandths + ahead)
    }

    /// Lets a member do something, and takes what comes out.
    pub(crate) fn act(
        &mut self,
        id: MemberId,
        act: impl FnOnce(&mut Member, Instant) -> Vec<Doing>,
    ) {
        let now = self.clock(id);
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let doings = act(member, now);
        for doing in doings {
            if let Some(trace) = &mut self.trace {
                trace.push((id, doing.clone()));
            }
            match doing {
                Doing::Send(to, packet) => self.network.push_back(Flight {
                    from: id,
                    to,
                    packet,
                }),
                Doing::Said(output) => self.checker.check(id, &output, &self.members, &self.disks),
            }
        }
    }

    pub(crate) fn with(
        &mut self,
        id: MemberId,
        act: impl FnOnce(&mut Raft, &mut Vec<Output>, Instant),
    ) {
        self.act(id, |member, now| {
            member.with(now, |raft, outputs| act(raft, outputs, now))
        });
    }

    pub(crate) fn tick(&mut self, id: MemberId) {
        self.act(id, Member::tick);
    }

    pub(crate) fn propose(&mut self, id: MemberId, payload: Payload) {
        self.act(id, |member, now| member.propose(payload, now));
    }

    pub(crate) fn read(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            let round = member.raft.read();
            self.checker.asked(id, round);
        }
        self.act(id, |member, now| member.with(now, |_, _| {}));
    }

    /// The whole of a sync.
    pub(crate) fn sync(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.begin_sync();
        }
        self.act(id, Member::end_sync);
    }

    pub(crate) fn deliver(&mut self, flight: Flight) {
        let Flight { from, to, packet } = flight;
        let checkpoint = match &packet {
            Packet::Checkpoint { base, .. } => Some(base.index),
            Packet::Message(..) => None,
        };
        let arrives = !self.cuts.contains(&(from, to)) && self.members.contains_key(&to);
        if arrives {
            self.act(to, |member, now| member.receive(from, packet, now));
        }
        if let Some(index) = checkpoint {
            self.checkpoint_ended(from, to, arrives.then_some(index));
        }
    }

    /// The sender of a checkpoint hears what became of it.
    pub(crate) fn checkpoint_ended(&mut self, from: MemberId, to: MemberId, index: Option<Index>) {
        self.with(from, |raft, _, _| raft.checkpoint_sent(to, index));
    }

    /// Delivers and syncs until nothing is left to do, in order and without loss.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut idle = true;
            while let Some(flight) = self.network.pop_front() {
                idle = false;
                self.deliver(flight);
            }
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                if self.members[&id].needs_sync() {
                    idle = false;
                    self.sync(id);
                }
            }
            if idle {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Time passes for everybody, in steps of a tick, with everything delivered.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + Duration::from_millis(50);
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                self.tick(id);
            }
            self.settle();
        }
    }

    /// No link between the two sides carries anything.
    pub(crate) fn split(&mut self, sides: &[&[u64]]) {
        self.cuts.clear();
        for (left, a) in sides.iter().enumerate() {
            for (right, b) in sides.iter().enumerate() {
                if left != right {
                    for &from in *a {
                        for &to in *b {
                            self.cuts.insert((MemberId(from), MemberId(to)));
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn leader(&self) -> Option<MemberId> {
        let leading = self
            .members
            .values()
            .filter(|member| member.raft.leader() == Some(member.id));
        leading
            .max_by_key(|member| member.raft.term())
            .map(|member| member.id)
    }

    pub(crate) fn commit(&self, id: u64) -> u64 {
        self.members[&MemberId(id)].raft.commit().0
    }
}

/// A directory whose identity is settled.
pub(crate) fn known_disk(id: MemberId, membership: Membership, everybody: &[MemberId]) -> Disk {
    let mut disk = Disk::new(id.0.into(), membership);
    disk.confirmed = true;
    for &other in everybody {
        disk.incarnations
            .insert(other, kontiki::base::Incarnation(other.0.into()));
    }
    disk
}
