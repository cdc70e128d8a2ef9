//! The cluster and its world: what happens next, and to whom.
//!
//! One thread, one queue of things to come. A member is handed an event, the checkers look at what it
//! holds, then its effects are performed one by one; it may die between any two of them. First come the
//! faults, then the calm: they end, and the cluster must serve again, and agree.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Options;
use super::checker::Verdict;
use super::checker::history::History;
use super::checker::members::Members;
use super::checker::pledges::Pledges;
use super::checker::replicas::Replicas;
use super::clients::Asked;
use super::clock::Moment;
use super::conditions::{Conditions, FaultKind};
use super::dice::Dice;
use super::disk::Tear;
use super::estranged::Estranged;
use super::hung::SlowCalm;
use super::member::{Member, Process, member_id};
use super::network::Network;
use super::operator::Operator;
use super::post::Delivery;
use super::report::Statistics;
use super::schedule::Schedule;
use super::trace::{Line, Trace, What};
use super::workload::Workload;
use crate::base::limits::SIM_MEMBERS_MAX;
use crate::base::{Incarnation, MemberId};
use crate::checkpoint::CheckpointId;
use crate::keyspace::events::EventFilter;
use crate::keyspace::request::KeyRange;
use crate::shard::event::{CheckpointRead, ClientRequest, Effects, Event, KnownMembers, LogRead};
use crate::wal::SegmentSequence;

/// Something to come. A number is a member's; a life that has ended is not reached any more.
#[derive(Debug)]
pub(super) enum Next {
    Start(usize),
    Tick(usize, u32),
    Written(usize, u32),
    Prepared(usize, u32, SegmentSequence),
    Seal(usize, u32),
    Turn(usize, u32),
    Deliver(Box<Delivery>),
    /// The first member's connection to the second is a new one.
    Disconnected(usize, usize),
    /// The same, when nobody can tell that the link does not work: what sits between them has closed it.
    Broken(usize, usize),
    Known(usize, u32, Box<KnownMembers>),
    /// What lay in a paused member's sockets.
    Request(usize, u32, Box<ClientRequest>),
    LogRead(usize, u32, Box<LogRead>),
    CheckpointBlock(usize, u32),
    CheckpointDurable(usize, u32, CheckpointId),
    CheckpointRead(usize, u32, Box<CheckpointRead>),
    /// The directory of the checkpoints is synced.
    NamesDurable(usize, u32),
    Mend,
    /// A member that was rebuilt loses its log.
    LoseLog(usize),
    Unwipe(usize),
    /// Two members hear each other for the first time.
    Meet(usize, usize),
    /// Somebody whom the leader has not met loses its directory, and meets it.
    Estrange,
    Emptied(Estranged),
    /// A disk hangs, and nothing else is wrong; and that ends.
    CalmHang,
    CalmHangOver(usize),
    /// All disks are slow, and nothing else is wrong; somebody must lead all the same; and that ends.
    CalmSlow,
    CalmSlowLook,
    CalmSlowOver,
    Burst,
    Fault,
    /// A fault beside the usual ones.
    Strike,
    /// The faults end.
    Calm,
    Crash(usize, u32, Option<Tear>),
    /// No further requests.
    Quiet,
    /// Everything was answered, or will not be.
    LastReads,
    Over,
}

/// Everything of one run.
pub(super) struct Cluster {
    pub(super) now: Moment,
    pub(super) options: Options,
    pub(super) conditions: Conditions,
    pub(super) members: Vec<Member>,
    pub(super) schedule: Schedule<Next>,
    pub(super) dice: Dice,
    pub(super) trace: Trace,
    pub(super) statistics: Statistics,
    pub(super) phase: Phase,
    pub(super) network: Network,
    pub(super) network_dice: Dice,
    pub(super) workload: Workload,
    pub(super) replicas: Replicas,
    pub(super) history: History,
    /// Who belongs to the cluster, as committed.
    pub(super) group: Members,
    pub(super) operator: Operator,
    /// The directories that the group has agreed on.
    pub(super) agreed: BTreeMap<MemberId, Incarnation>,
    /// The member whose disk hangs in the calm, and until when it need not serve for that.
    pub(super) hung_in_calm: Option<(usize, Moment)>,
    /// All disks are slow in the calm.
    pub(super) slow_in_calm: Option<SlowCalm>,
    pub(super) filter: EventFilter,
    /// Requests under way: at which member, and whether they must succeed.
    pub(super) asked: BTreeMap<u32, Asked>,
    pub(super) pledges: Pledges,
    /// Where the last fault struck.
    pub(super) last_victim: Option<usize>,
    pub(super) effects: Effects,
    pub(super) turns_of_moment: u32,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Faults,
    Calm { since: Moment },
    Quiet,
}

impl Cluster {
    pub(super) fn new(options: Options) -> Cluster {
        let seed = options.seed;
        let conditions = Conditions::of(options.members, &mut Dice::new(seed, 1));
        let mut dice = Dice::new(seed, 2);
        let members = (0..options.members)
            .map(|number| Member::new(number, options.members, &conditions, &mut dice, Moment(0)))
            .collect();
        let everything = KeyRange {
            key: bytes::Bytes::from_static(b"\0"),
            range_end: bytes::Bytes::from_static(b"\0"),
        };
        let history = History::default();
        Cluster {
            now: Moment(0),
            workload: Workload::new(Dice::new(seed, 3), &conditions),
            members,
            conditions,
            schedule: Schedule::new(),
            dice,
            trace: Trace::new(options.keep),
            options,
            statistics: Statistics::default(),
            phase: Phase::Faults,
            network: Network::new(SIM_MEMBERS_MAX),
            network_dice: Dice::new(seed, 4),
            replicas: Replicas::default(),
            filter: EventFilter::new(&everything, false),
            history,
            group: Members::default(),
            operator: Operator::default(),
            agreed: BTreeMap::new(),
            hung_in_calm: None,
            slow_in_calm: None,
            asked: BTreeMap::new(),
            pledges: Pledges::default(),
            last_victim: None,
            effects: Effects::default(),
            turns_of_moment: 0,
        }
    }

    /// Runs to the end, or to the first violation.
    pub(super) fn run(&mut self) -> Verdict {
        for member in 0..self.members.len() {
            self.schedule.plan(Moment(0), Next::Start(member));
        }
        let calm = Moment(0).after(self.options.faults_for);
        let quiet = calm.after(self.options.calm_for);
        let last = quiet.after(self.conditions.patience * 2);
        let over = last.after(self.conditions.patience);
        self.schedule.plan(calm, Next::Calm);
        self.schedule.plan(quiet, Next::Quiet);
        self.schedule.plan(last, Next::LastReads);
        self.schedule.plan(over, Next::Over);
        self.keep_strangers_apart();
        self.plan_in(self.conditions.burst_interval, Next::Burst);
        self.plan_in(self.conditions.fault_interval, Next::Fault);
        while let Some((at, next)) = self.schedule.next() {
            if at > self.now {
                self.turns_of_moment = 0;
            }
            self.now = at;
            self.statistics.events += 1;
            if matches!(next, Next::Over) {
                break;
            }
            self.happen(next)?;
        }
        self.finish()
    }

    /// What the run has counted so far.
    pub(super) fn statistics(&self) -> Statistics {
        let mut statistics = self.statistics.clone();
        statistics.simulated_nanos = self.now.0;
        statistics.leader_changes = self.replicas.leaders_count().saturating_sub(1);
        statistics
    }

    fn happen(&mut self, next: Next) -> Verdict {
        if let Some(until) = self.held_up(&next) {
            // Requests are seen before what else happened meanwhile, or after it.
            let later = match next {
                Next::Request(..) => 2 * self.dice.below(2),
                _ => 1,
            };
            self.schedule
                .plan(until.after(Duration::from_micros(later)), next);
            return Ok(());
        }
        match next {
            Next::Start(member) => self.start(member),
            Next::Tick(member, life) => {
                let now = self.now;
                let Some(process) = self.process(member, life) else {
                    return Ok(());
                };
                // A tick that was planned before an earlier one became necessary.
                if process.tick_planned.is_none_or(|planned| planned > now) {
                    return Ok(());
                }
                process.tick_planned = None;
                let memory_used_bytes = 0;
                self.hand_in(member, Event::Tick { memory_used_bytes })
            }
            Next::Written(member, life) => self.written(member, life),
            Next::Prepared(member, life, segment) => self.prepared(member, life, segment),
            Next::Seal(member, life) => self.seal(member, life),
            Next::Turn(member, life) => {
                let Some(process) = self.process(member, life) else {
                    return Ok(());
                };
                process.turn_planned = false;
                self.hand_in(member, Event::Continue)
            }
            Next::Deliver(delivery) => self.deliver(*delivery),
            Next::Disconnected(member, peer) | Next::Broken(member, peer) => {
                let told = matches!(next, Next::Broken(..)) || !self.network.is_cut(member, peer);
                if !told || self.members[member].process.is_none() {
                    return Ok(());
                }
                self.line(member, What::Disconnected { from: peer });
                self.hand_in(member, Event::PeerDisconnected(member_id(peer)))
            }
            Next::Known(member, life, known) => {
                if self.process(member, life).is_none() {
                    return Ok(());
                }
                let before = std::mem::replace(&mut self.members[member].known, (*known).clone());
                if before.rebuild.is_some() && known.rebuild.is_none() {
                    self.statistics.rebuilt += 1;
                    self.line(member, What::Rebuilt);
                    self.strike_rebuilt(member);
                }
                let (others, confirmed) = (known.incarnations.len(), known.confirmed);
                self.line(member, What::Knows { others, confirmed });
                self.hand_in(member, Event::KnownMembersStored(*known))
            }
            Next::LogRead(member, life, read) => {
                if self.process(member, life).is_none() {
                    return Ok(());
                }
                let index = read.index.0;
                self.line(member, What::LogRead { index });
                let bytes = self.members[member].read_log(&read);
                self.hand_in(member, Event::LogRead { read: *read, bytes })
            }
            Next::Request(member, life, request) => {
                if self.process(member, life).is_none() {
                    return Ok(());
                }
                self.hand_in(member, Event::Requests(&mut vec![*request]))
            }
            Next::CheckpointBlock(member, life) => {
                if self.process(member, life).is_none() {
                    return Ok(());
                }
                self.hand_in(member, Event::CheckpointBlock)
            }
            Next::CheckpointRead(member, life, read) => {
                if self.process(member, life).is_none() {
                    return Ok(());
                }
                let bytes = self.members[member].disk.read_checkpoint(&read);
                self.hand_in(member, Event::CheckpointRead { read: *read, bytes })
            }
            Next::CheckpointDurable(member, life, id) => {
                if self.process(member, life).is_none() {
                    return Ok(());
                }
                self.members[member].disk.finish_checkpoint(id.index);
                self.statistics.checkpoints += 1;
                self.line(member, What::Checkpoint { index: id.index.0 });
                self.hand_in(member, Event::CheckpointDurable(id))
            }
            Next::NamesDurable(member, life) => {
                if self.process(member, life).is_some() {
                    self.members[member].disk.sync_names();
                }
                Ok(())
            }
            Next::Mend => {
                // The calm began with that, and no connection breaks in it.
                if self.phase == Phase::Faults {
                    self.mend();
                }
                Ok(())
            }
            Next::LoseLog(member) => {
                if self.phase == Phase::Faults {
                    self.strike_one(member, FaultKind::LoseLog);
                }
                Ok(())
            }
            Next::Unwipe(member) => {
                self.unwipe(member);
                Ok(())
            }
            Next::Meet(one, other) => {
                self.meet(one, other);
                Ok(())
            }
            Next::Estrange => {
                if self.phase == Phase::Faults {
                    self.estrange();
                }
                Ok(())
            }
            Next::Emptied(estranged) => {
                self.empty(estranged);
                Ok(())
            }
            Next::CalmHang => {
                self.hang_in_calm();
                Ok(())
            }
            Next::CalmHangOver(member) => self.calm_hang_over(member),
            Next::CalmSlow => {
                self.slow_disks_in_calm();
                Ok(())
            }
            Next::CalmSlowLook => {
                self.look_for_leader();
                Ok(())
            }
            Next::CalmSlowOver => self.slow_calm_over(),
            Next::Burst => self.burst(),
            Next::Fault => {
                if self.phase == Phase::Faults {
                    self.fault();
                }
                Ok(())
            }
            Next::Strike => {
                if self.phase == Phase::Faults {
                    self.strike();
                }
                Ok(())
            }
            Next::Calm => self.calm(),
            Next::Quiet => {
                self.phase = Phase::Quiet;
                Ok(())
            }
            Next::Crash(member, life, power) => {
                // What was to strike during a write that took so long strikes no more when the faults have ended.
                if self.phase == Phase::Faults && self.process(member, life).is_some() {
                    self.crash(member, power);
                }
                Ok(())
            }
            Next::LastReads => self.last_reads(),
            Next::Over => Ok(()),
        }
    }

    /// Until when an event has to wait: its member is paused, or the disk that it is about hangs.
    fn held_up(&self, next: &Next) -> Option<Moment> {
        let member = match next {
            Next::Start(member)
            | Next::Tick(member, _)
            | Next::Written(member, _)
            | Next::Prepared(member, ..)
            | Next::Seal(member, _)
            | Next::Turn(member, _)
            | Next::Disconnected(member, _)
            | Next::Broken(member, _)
            | Next::Request(member, ..)
            | Next::CheckpointBlock(member, _)
            | Next::CheckpointDurable(member, ..)
            | Next::NamesDurable(member, ..)
            | Next::CheckpointRead(member, ..)
            | Next::Known(member, ..)
            | Next::LogRead(member, ..) => *member,
            Next::Deliver(delivery) => delivery.to,
            _ => return None,
        };
        let Member {
            paused_until,
            faults,
            ..
        } = &self.members[member];
        let hangs = match next {
            Next::Written(..)
            | Next::Prepared(..)
            | Next::CheckpointBlock(..)
            | Next::CheckpointDurable(..)
            | Next::NamesDurable(..)
            | Next::Known(..) => true,
            Next::CheckpointRead(..) | Next::LogRead(..) => faults.hangs_reads,
            _ => false,
        };
        let until = if hangs {
            faults.hangs_until.max(*paused_until)
        } else {
            *paused_until
        };
        (until > self.now).then_some(until)
    }

    pub(super) fn plan_in(&mut self, after: Duration, next: Next) {
        self.schedule.plan(self.now.after(after), next);
    }

    pub(super) fn line(&mut self, member: usize, what: What) {
        let at = self.now;
        self.trace.add(Line { at, member, what });
    }

    pub(super) fn process(&mut self, member: usize, life: u32) -> Option<&mut Process> {
        let member = &mut self.members[member];
        let same = member.life == life;
        member.process.as_mut().filter(|_| same)
    }
}
