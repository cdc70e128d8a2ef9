//! The cluster and its world: what happens next, to whom, and what follows from it.
//!
//! One thread, one queue of things to come. A member is handed an event, the checkers look at what it
//! holds, then its effects are performed one by one; it may die between any two of them. First come the
//! faults, then the calm: they end, and the cluster must serve again, and agree.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Options;
use super::checker::history::{History, Outcome};
use super::checker::replicas::{Held, Life, Replicas};
use super::checker::{Promise, Verdict, broken};
use super::clock::Moment;
use super::conditions::Conditions;
use super::dice::Dice;
use super::disk::Tear;
use super::member::{Job, Member, Process, Trap, Watched, member_id, member_number};
use super::network::{Fate, Network};
use super::report::Statistics;
use super::schedule::Schedule;
use super::trace::{Line, StartFailure, Trace, What};
use super::workload::Workload;
use crate::base::limits::{SEAL_IDLE_MICROS, TICK_MILLIS};
use crate::base::planted::Defect;
use crate::base::{Index, Instant};
use crate::checkpoint::CheckpointId;
use crate::keyspace::events::{EventCursor, EventFilter};
use crate::keyspace::request::KeyRange;
use crate::keyspace::steps::Steps;
use crate::raft::{Body, Role};
use crate::shard::event::{
    Answer, CheckpointEffect, ClientRequest, Effects, EndReason, Event, KnownMembers, LogEffect,
    LogRead, PeerMessage, Refusal, Request, Response, Ticket,
};
use crate::wal::{PreparedSegment, SegmentSequence};

/// Between two tries to make a segment on a full disk.
const ROOM_RETRY: Duration = Duration::from_millis(500);
/// How long a segment takes to be made.
const PREPARE_TIME: Duration = Duration::from_millis(5);
/// Steps of the checkers' reading of the history: everything at once.
const CHECKER_STEPS: usize = 1 << 30;
/// After the faults have ended, requests must succeed when this has passed.
const CALM_GRACE: Duration = Duration::from_secs(10);
/// How long a block of a checkpoint takes to be written.
const BLOCK_TIME: Duration = Duration::from_millis(1);
/// How long it takes to notice a closed connection, or to make one.
const CONNECT_TIME: Duration = Duration::from_millis(1);
/// How late a timer is: a clock is not exact, and nobody is called again and again within a moment.
const TICK_LATE: Duration = Duration::from_micros(50);
/// A member that nothing has disturbed for this long has written everything it had to.
const UNDISTURBED_MIN: Duration = Duration::from_secs(1);
/// What such a member wrote this long ago has a seal, or something else behind it.
const VOUCHED_AGE_MIN: Duration = Duration::from_millis(100);
/// A shard that works on and on within one moment hangs.
const TURNS_PER_MOMENT_MAX: u32 = 1_000_000;

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
    Mend,
    Unwipe(usize),
    Burst,
    Fault,
    /// The faults end.
    Calm,
    Crash(usize, u32, Option<Tear>),
    /// No further requests.
    Quiet,
    /// Everything was answered, or will not be.
    LastReads,
    Over,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    from: usize,
    to: usize,
    /// The receiver's life when it was sent: it does not survive a connection.
    life: u32,
    message: PeerMessage,
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
    network_dice: Dice,
    workload: Workload,
    replicas: Replicas,
    history: History,
    filter: EventFilter,
    /// Requests under way: at which member, and whether they must succeed.
    asked: BTreeMap<u32, Asked>,
    effects: Effects,
    turns_of_moment: u32,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    member: usize,
    must_succeed: bool,
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
            .map(|number| Member::new(number, options.members, &conditions, &mut dice))
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
            network: Network::new(options.members),
            network_dice: Dice::new(seed, 4),
            replicas: Replicas::default(),
            filter: EventFilter::new(&everything, false),
            history,
            asked: BTreeMap::new(),
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
        if let Some(member) = self.paused(&next) {
            // Requests are seen before what else happened meanwhile, or after it.
            let later = match next {
                Next::Request(..) => 2 * self.dice.below(2),
                _ => 1,
            };
            let until = self.members[member].paused_until;
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
                self.members[member].known = (*known).clone();
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
            Next::CheckpointDurable(member, life, id) => {
                if self.process(member, life).is_none() {
                    return Ok(());
                }
                self.members[member].disk.finish_checkpoint(id.index);
                self.statistics.checkpoints += 1;
                self.line(member, What::Checkpoint { index: id.index.0 });
                self.hand_in(member, Event::CheckpointDurable(id))
            }
            Next::Mend => {
                self.mend();
                Ok(())
            }
            Next::Unwipe(member) => {
                self.unwipe(member);
                Ok(())
            }
            Next::Burst => self.burst(),
            Next::Fault => {
                if self.phase == Phase::Faults {
                    let after = self.dice.around(self.conditions.fault_interval);
                    self.plan_in(after, Next::Fault);
                    self.fault()?;
                }
                Ok(())
            }
            Next::Calm => self.calm(),
            Next::Quiet => {
                self.phase = Phase::Quiet;
                Ok(())
            }
            Next::Crash(member, life, power) => {
                if self.process(member, life).is_some() {
                    self.crash(member, power);
                }
                Ok(())
            }
            Next::LastReads => self.last_reads(),
            Next::Over => Ok(()),
        }
    }

    /// The member that an event is for, when it is paused.
    fn paused(&self, next: &Next) -> Option<usize> {
        let (Next::Start(member)
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
        | Next::Known(member, ..)
        | Next::LogRead(member, ..)) = *next
        else {
            let Next::Deliver(delivery) = next else {
                return None;
            };
            let until = self.members[delivery.to].paused_until;
            return (until > self.now).then_some(delivery.to);
        };
        (self.members[member].paused_until > self.now).then_some(member)
    }

    pub(super) fn plan_in(&mut self, after: Duration, next: Next) {
        self.schedule.plan(self.now.after(after), next);
    }

    pub(super) fn line(&mut self, member: usize, what: What) {
        let at = self.now;
        self.trace.add(Line { at, member, what });
    }

    fn process(&mut self, member: usize, life: u32) -> Option<&mut Process> {
        let member = &mut self.members[member];
        let same = member.life == life;
        member.process.as_mut().filter(|_| same)
    }

    // A member's life.

    fn start(&mut self, number: usize) -> Verdict {
        if self.members[number].process.is_some() {
            return Ok(());
        }
        let seed = self.dice.number();
        let damaged = self.members[number].disk.is_damaged();
        let planted = self.options.planted;
        match self.members[number].start(self.now, seed, planted) {
            Ok(torn) => {
                if let Some((segment, offset)) = torn {
                    self.statistics.torn_tails += 1;
                    self.line(number, What::TornTail { segment, offset });
                }
                self.started(number)
            }
            Err((StartFailure::ReadError, _)) => {
                self.line(number, What::StartFailed(StartFailure::ReadError));
                let after = self.dice.around(self.conditions.down_max);
                self.plan_in(after, Next::Start(number));
                Ok(())
            }
            Err((failure, words)) => {
                self.line(number, What::StartFailed(failure));
                if !damaged {
                    return Err(broken(
                        Promise::DamageNoticed,
                        format_args!(
                            "member {number} does not start on a disk without damage: {words}"
                        ),
                    ));
                }
                // No other member can repair it: an operator brings the directory back.
                self.statistics.damage_found += 1;
                self.members[number].disk.undo_damage();
                self.line(number, What::Restored);
                let after = self.dice.around(self.conditions.down_max);
                self.plan_in(after, Next::Start(number));
                Ok(())
            }
        }
    }

    fn started(&mut self, number: usize) -> Verdict {
        self.statistics.starts += 1;
        let member = &self.members[number];
        let life = member.life;
        let shard = &member.process.as_ref().expect("just started").shard;
        let last_index = shard.keyspace().folded_index();
        let commit = shard.keyspace().committed_index().0;
        self.line(
            number,
            What::Started {
                life,
                last_index: last_index.0,
                commit,
            },
        );
        if self.members.len() == 1 {
            self.replicas.lone_restart(number, last_index)?;
        }
        self.observe(number)?;
        self.plan_more(number);
        for peer in (0..self.members.len()).filter(|&peer| peer != number) {
            self.plan_in(CONNECT_TIME, Next::Disconnected(peer, number));
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, number: usize, power: Option<Tear>) {
        if self.members[number].process.is_some() {
            self.statistics.crashes += 1;
            self.statistics.unknown += self
                .asked
                .extract_if(.., |_, asked| asked.member == number)
                .count() as u64;
            let after = self.dice.around(self.conditions.down_max);
            self.plan_in(after, Next::Start(number));
            // The kernel of a machine that lives closes what its processes leave behind.
            for peer in (0..self.members.len()).filter(|&peer| peer != number && power.is_none()) {
                self.plan_in(CONNECT_TIME, Next::Disconnected(peer, number));
            }
        }
        self.line(number, power.map_or(What::Killed, What::PowerCut));
        self.members[number].die(power, &mut self.dice, self.now);
    }

    // Events and effects.

    fn hand_in(&mut self, number: usize, event: Event<'_>) -> Verdict {
        self.turns_of_moment += 1;
        assert!(
            self.turns_of_moment < TURNS_PER_MOMENT_MAX,
            "a shard has work for ever"
        );
        let member = &mut self.members[number];
        let Some(process) = &mut member.process else {
            return Ok(());
        };
        let now = member.clock.read(self.now);
        let mut steps = Steps::new(self.conditions.turn_steps);
        process
            .shard
            .handle(event, now, &mut steps, &mut self.effects);
        self.observe(number)?;
        self.perform(number)?;
        self.plan_more(number);
        Ok(())
    }

    /// Performs what a member wants, one after the other; a trap may end that anywhere.
    fn perform(&mut self, number: usize) -> Verdict {
        let mut effects = std::mem::take(&mut self.effects);
        let mut alive = true;
        for effect in effects.log.drain(..) {
            alive = alive && self.survives(number);
            if alive {
                self.log_effect(number, effect);
            }
        }
        for effect in effects.checkpoint.drain(..) {
            alive = alive && self.survives(number);
            if alive {
                self.checkpoint_effect(number, effect);
            }
        }
        for (to, message) in effects.messages.drain(..) {
            alive = alive && self.survives(number);
            if alive {
                self.send(number, member_number(to), message);
            }
        }
        for read in effects.log_reads.drain(..) {
            if alive {
                let life = self.members[number].life;
                let after = self.dice.around(self.conditions.sync_time);
                self.plan_in(after, Next::LogRead(number, life, Box::new(read)));
            }
        }
        if let Some(known) = effects.known_members.take()
            && alive
        {
            let life = self.members[number].life;
            let after = self.sync_time(number);
            self.plan_in(after, Next::Known(number, life, Box::new(known)));
        }
        for answer in effects.answers.drain(..) {
            alive = alive && self.survives(number);
            if alive {
                self.answered(number, &answer)?;
            }
        }
        let end = effects.end.take().filter(|_| alive);
        self.effects = effects;
        end.map_or(Ok(()), |reason| self.ended(number, reason))
    }

    /// A member says that it must not go on.
    fn ended(&mut self, number: usize, reason: EndReason) -> Verdict {
        let (words, expected) = match reason {
            EndReason::Removed => ("removed", false),
            EndReason::OtherDirectory => ("other directory", self.members[number].is_wiped()),
            EndReason::Diverged(_) => ("diverged", false),
        };
        self.line(number, What::Ended(words));
        if !expected {
            return Err(broken(
                Promise::OneHistory,
                format_args!("member {number} gives up: {reason}"),
            ));
        }
        self.unwipe(number);
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        let (what, term) = kind_of_message(&message);
        self.line(from, What::Sends { to, what, term });
        let fate = self
            .network
            .fate(from, to, self.now, &mut self.network_dice);
        let life = self.members[to].life;
        let deliver = |message| {
            Next::Deliver(Box::new(Delivery {
                from,
                to,
                life,
                message,
            }))
        };
        match fate {
            Fate::Lost => {}
            Fate::Twice(first, second) if matches!(message, PeerMessage::Raft { .. }) => {
                self.schedule.plan(first, deliver(message.clone()));
                self.schedule.plan(second, deliver(message));
            }
            // A connection never doubles what consensus does not look at.
            Fate::Once(at) | Fate::Twice(at, _) => self.schedule.plan(at, deliver(message)),
        }
    }

    fn deliver(&mut self, delivery: Delivery) -> Verdict {
        let Delivery {
            from,
            to,
            life,
            message,
        } = delivery;
        if self.network.is_cut(from, to) || self.process(to, life).is_none() {
            return Ok(());
        }
        let (what, term) = kind_of_message(&message);
        self.line(to, What::Receives { from, what, term });
        let from = member_id(from);
        self.hand_in(to, Event::Peer { from, message })
    }

    /// Whether a member lives to perform its next effect.
    fn survives(&mut self, number: usize) -> bool {
        let Some(trap) = &mut self.members[number].trap else {
            return true;
        };
        if trap.effects_left > 0 {
            trap.effects_left -= 1;
            return true;
        }
        if trap.writing {
            return true;
        }
        let power = trap.power;
        self.crash(number, power);
        false
    }

    fn log_effect(&mut self, number: usize, effect: LogEffect) {
        let job = match effect {
            LogEffect::Commit(commit) => {
                self.line(
                    number,
                    What::Commit {
                        segment: commit.segment.0,
                        offset: commit.offset,
                        length: commit.bytes().len() as u64,
                    },
                );
                Job::Commit(commit)
            }
            LogEffect::OpenSegment(opening) => {
                let segment = opening.sequence.0;
                self.line(number, What::Open { segment });
                Job::Opening(opening)
            }
            LogEffect::Recycle(segment) => {
                self.line(number, What::Recycle { segment: segment.0 });
                return self.members[number].disk.recycle(segment);
            }
            LogEffect::PrepareSegment(segment) => {
                self.line(number, What::Prepare { segment: segment.0 });
                let life = self.members[number].life;
                let after = self.dice.around(PREPARE_TIME);
                return self.plan_in(after, Next::Prepared(number, life, segment));
            }
        };
        let after = self.sync_time(number);
        let member = &mut self.members[number];
        let life = member.life;
        let process = member.process.as_mut().expect("a living member writes");
        assert!(process.job.is_none(), "one write is under way at a time");
        process.job = Some(job);
        self.plan_in(after, Next::Written(number, life));
        if let Some(trap) = member_trap(&self.members[number]) {
            let within = self.dice.around(after / 2);
            self.plan_in(within, Next::Crash(number, life, trap.power));
        }
    }

    fn checkpoint_effect(&mut self, number: usize, effect: CheckpointEffect) {
        let life = self.members[number].life;
        let disk = &mut self.members[number].disk;
        match effect {
            CheckpointEffect::Begin(_) => disk.begin_checkpoint(),
            CheckpointEffect::Block(block) => {
                disk.write_checkpoint(block.offset(), &block.bytes);
                let after = self.dice.around(BLOCK_TIME);
                self.plan_in(after, Next::CheckpointBlock(number, life));
            }
            CheckpointEffect::Finish(id) => {
                let after = self.sync_time(number);
                self.plan_in(after, Next::CheckpointDurable(number, life, id));
            }
            CheckpointEffect::RemoveBefore(index) => disk.remove_checkpoints_before(index),
        }
    }

    fn sync_time(&mut self, number: usize) -> Duration {
        let slow = self.members[number].faults.slow_until > self.now;
        let mean = if slow {
            self.conditions.slow_sync_time
        } else {
            self.conditions.sync_time
        };
        self.dice.around(mean)
    }

    /// A sync has ended.
    fn written(&mut self, number: usize, life: u32) -> Verdict {
        if self.process(number, life).is_none() {
            return Ok(());
        }
        if std::mem::take(&mut self.members[number].faults.sync_fails) {
            self.line(number, What::SyncFailed);
            if !self.options.planted.has(Defect::FailedSyncRetried) {
                // Fatal for the process; what of its pages reached the disk is anybody's guess.
                self.crash(number, Some(Tear::Pages));
                return Ok(());
            }
            // The kernel has dropped the pages and calls the next sync a success.
            if let Some(process) = self.process(number, life) {
                let job = process.job.take();
                return job.map_or(Ok(()), |job| self.durable(number, job));
            }
        }
        let member = &mut self.members[number];
        let now = member.clock.read(self.now);
        let process = member.process.as_mut().expect("just seen");
        process.last_write = now;
        let Some(job) = process.job.take() else {
            return Ok(());
        };
        for (segment, offset, bytes) in job.writes() {
            member.disk.write_synced(segment, offset, bytes, now);
        }
        self.durable(number, job)
    }

    fn durable(&mut self, number: usize, job: Job) -> Verdict {
        match job {
            Job::Commit(commit) => {
                self.line(number, What::CommitDurable);
                self.hand_in(number, Event::CommitDurable(commit))
            }
            Job::Opening(opening) => {
                self.line(number, What::Opened);
                self.hand_in(number, Event::SegmentOpened(opening))
            }
        }
    }

    fn prepared(&mut self, number: usize, life: u32, segment: SegmentSequence) -> Verdict {
        if self.process(number, life).is_none() {
            return Ok(());
        }
        let member = &mut self.members[number];
        let process = member.process.as_mut().expect("just seen");
        if member.faults.full_until > self.now {
            let told = process.waiting_for_room.replace(segment).is_some();
            self.plan_in(ROOM_RETRY, Next::Prepared(number, life, segment));
            if told {
                return Ok(());
            }
            self.line(number, What::NoRoom);
            return self.hand_in(number, Event::SegmentRefused);
        }
        process.waiting_for_room = None;
        member.disk.prepare(segment);
        let salt = self.dice.number().max(1);
        self.line(number, What::Prepared { segment: segment.0 });
        let prepared = PreparedSegment {
            sequence: segment,
            salt,
        };
        self.hand_in(number, Event::SegmentPrepared(prepared))
    }

    /// What a member wants to be called for later: a seal after idleness, or another turn.
    fn plan_more(&mut self, number: usize) {
        let member = &mut self.members[number];
        let life = member.life;
        let Some(process) = &mut member.process else {
            return;
        };
        let tick = member.clock.true_time(Duration::from_millis(TICK_MILLIS));
        let local = member.clock.read(self.now);
        let due = process
            .shard
            .next_deadline()
            .map(|deadline| member.clock.true_time(deadline.since(local)));
        // Not within this moment: a member that is late is not called again and again.
        let after = due.map_or(tick, |due| due.min(tick)) + TICK_LATE;
        let tick_at = self.now.after(after);
        let tick = process.tick_planned.is_none_or(|planned| planned > tick_at);
        if tick {
            process.tick_planned = Some(tick_at);
        }
        let seal = !process.seal_planned && process.shard.needs_seal();
        let turn = !process.turn_planned && process.shard.has_work();
        process.seal_planned |= seal;
        process.turn_planned |= turn;
        if tick {
            self.schedule.plan(tick_at, Next::Tick(number, life));
        }
        if seal {
            let idle = Duration::from_micros(SEAL_IDLE_MICROS);
            self.plan_in(idle, Next::Seal(number, life));
        }
        if turn {
            self.plan_in(Duration::from_micros(1), Next::Turn(number, life));
        }
    }

    fn seal(&mut self, number: usize, life: u32) -> Verdict {
        let now = self.members[number].clock.read(self.now);
        let Some(process) = self.process(number, life) else {
            return Ok(());
        };
        process.seal_planned = false;
        if now.since(process.last_write) >= Duration::from_micros(SEAL_IDLE_MICROS) {
            return self.hand_in(number, Event::LogIdle);
        }
        self.plan_more(number);
        Ok(())
    }

    // Clients.

    fn burst(&mut self) -> Verdict {
        if self.phase == Phase::Quiet {
            return Ok(());
        }
        let after = self.dice.around(self.conditions.burst_interval);
        self.plan_in(after, Next::Burst);
        let must_succeed =
            matches!(self.phase, Phase::Calm { since } if self.now.since(since) > CALM_GRACE);
        for _ in 0..self.dice.between(1, self.conditions.burst_max) {
            let member = self.dice.place(self.members.len());
            let (request, kind) = self.workload.next(&self.history);
            self.ask(member, request, kind, must_succeed)?;
        }
        Ok(())
    }

    fn ask(
        &mut self,
        number: usize,
        request: Request,
        kind: &'static str,
        must_succeed: bool,
    ) -> Verdict {
        let member = &self.members[number];
        // Nobody answers at a member that is down.
        if member.process.is_none() {
            return Ok(());
        }
        let operation = self.history.next_operation();
        self.history.asked(&request);
        self.statistics.operations += 1;
        self.line(number, What::Asked { operation, kind });
        let asked = Asked {
            member: number,
            must_succeed,
        };
        self.asked.insert(operation, asked);
        let deadline = self.members[number].clock.read(self.now) + self.conditions.patience;
        let ticket = Ticket {
            core: 0,
            connection: 0,
            generation: 0,
            request: operation,
        };
        let request = ClientRequest {
            ticket,
            deadline,
            request,
        };
        if self.members[number].paused_until > self.now {
            let life = self.members[number].life;
            let request = Next::Request(number, life, Box::new(request));
            self.schedule.plan(self.now, request);
            return Ok(());
        }
        self.hand_in(number, Event::Requests(&mut vec![request]))
    }

    fn answered(&mut self, number: usize, answer: &Answer) -> Verdict {
        let operation = answer.ticket.request;
        let Some(asked) = self.asked.remove(&operation) else {
            return Err(broken(
                Promise::OnceAndWhole,
                format_args!("request {operation} is answered again: {:?}", answer.result),
            ));
        };
        let revision = answer.header.revision;
        let kind = kind_of(&answer.result);
        self.line(
            number,
            What::Answered {
                operation,
                revision,
                kind,
            },
        );
        match self.history.answer(operation, revision, &answer.result)? {
            Outcome::Done => self.statistics.done += 1,
            Outcome::Declined => self.statistics.declined += 1,
            outcome @ (Outcome::Refused | Outcome::Unknown) => {
                if asked.must_succeed {
                    return Err(broken(
                        Promise::Liveness,
                        format_args!(
                            "request {operation} is refused though the faults have ended: {:?}",
                            answer.result
                        ),
                    ));
                }
                if outcome == Outcome::Refused {
                    self.statistics.refused += 1;
                } else {
                    self.statistics.unknown += 1;
                }
            }
        }
        if matches!(answer.result, Ok(Response::Compact)) {
            self.statistics.compactions += 1;
        }
        Ok(())
    }

    // What the checkers see.

    /// Shows the checkers what changed at a member.
    fn observe(&mut self, number: usize) -> Verdict {
        let member = &self.members[number];
        let Some(process) = &member.process else {
            return Ok(());
        };
        let Process { shard, watched, .. } = process;
        let keyspace = shard.keyspace();
        let raft = shard.raft();
        let mut seen: Watched = *watched;
        let leads = raft.role() == Role::Leader;
        let mut leader_term = None;
        if leads && !seen.leads {
            let life = Life {
                member: number,
                life: member.life,
            };
            self.replicas
                .leads(life, raft.term(), |index| raft.log().term_at(index))?;
            leader_term = Some(What::Leads {
                term: raft.term().0,
            });
        } else if !leads && seen.leads {
            leader_term = Some(What::Follows {
                term: raft.term().0,
            });
        }
        seen.leads = leads;
        let committed = keyspace.committed_index();
        let folded = keyspace.folded_index();
        let mut truncated = None;
        let kept = keyspace.digest(seen.folded).map(|digest| digest.0);
        if seen.folded > Index(0) && (folded < seen.folded || kept != Some(seen.folded_digest)) {
            // A tail was cut. What is committed was not in it.
            truncated = Some(What::Truncated { index: folded.0 });
            seen.folded = seen.folded.min(seen.committed);
        }
        if seen.folded == Index(0) {
            // A life begins: what is committed was shown in an earlier one, or by somebody else.
            let known = self.replicas.committed_index();
            seen.folded = Index(committed.min(known).0.saturating_sub(1));
            seen.committed = seen.folded;
        }
        while seen.folded < folded {
            seen.folded = seen.folded.next();
            if let Some(held) = held(shard, seen.folded) {
                self.replicas.holds(number, held)?;
                seen.folded_digest = held.digest;
            }
        }
        let moved = committed > seen.committed;
        while seen.committed < committed {
            seen.committed = seen.committed.next();
            if let Some(held) = held(shard, seen.committed) {
                self.replicas.commits(number, held, raft.term())?;
            }
        }
        let mut events = Vec::new();
        let shown = self.history.model().revision();
        if keyspace.committed_revision() > shown {
            // Another one each time: a cursor remembers places of one member's memory.
            let mut cursor = EventCursor::at(shown + 1);
            let mut steps = Steps::new(CHECKER_STEPS);
            let read = keyspace.read_events(&mut cursor, &self.filter, &mut steps, &mut events);
            read.expect("clients compact only what was shown to them");
        }
        if !events.is_empty() {
            self.history.committed(&events)?;
        }
        let digest = keyspace.digest(committed).map_or(0, |digest| digest.0);
        let commits = moved.then_some(What::Commits {
            index: committed.0,
            digest,
        });
        if truncated.is_some() {
            self.statistics.truncations += 1;
        }
        for what in [leader_term, truncated, commits].into_iter().flatten() {
            self.line(number, what);
        }
        if let Some(process) = &mut self.members[number].process {
            process.watched = seen;
        }
        Ok(())
    }

    // The end.

    fn calm(&mut self) -> Verdict {
        self.phase = Phase::Calm { since: self.now };
        self.line(0, What::Calm);
        self.mend();
        for number in 0..self.members.len() {
            self.relieve(number);
        }
        Ok(())
    }

    /// Every member reads everything, when nothing else is under way any more.
    fn last_reads(&mut self) -> Verdict {
        self.all_answered()?;
        for number in 0..self.members.len() {
            self.ask(number, Workload::everything(), "everything", true)?;
        }
        Ok(())
    }

    fn all_answered(&self) -> Verdict {
        if let Some((operation, asked)) = self.asked.first_key_value() {
            return Err(broken(
                Promise::Liveness,
                format_args!(
                    "request {operation} at member {} was never answered",
                    asked.member
                ),
            ));
        }
        Ok(())
    }

    fn finish(&mut self) -> Verdict {
        self.line(0, What::Over);
        self.all_answered()?;
        for number in 0..self.members.len() {
            let committed = self.replicas.committed_index();
            let process = self.members[number].process.as_ref();
            let reached = process.map(|process| process.shard.keyspace().committed_index());
            if reached != Some(committed) {
                return Err(broken(
                    Promise::Liveness,
                    format_args!("member {number} ends at {reached:?}, the cluster at {committed}"),
                ));
            }
        }
        self.history.finish()
    }
}

/// The trap that springs while what has just begun is being written.
fn member_trap(member: &Member) -> Option<Trap> {
    member
        .trap
        .filter(|trap| trap.writing && trap.effects_left == 0)
}

fn held(shard: &crate::shard::Shard, index: Index) -> Option<Held> {
    Some(Held {
        index,
        term: shard.raft().log().term_at(index)?,
        digest: shard.keyspace().digest(index)?.0,
    })
}

/// What a message is, and its term, for the trace.
fn kind_of_message(message: &PeerMessage) -> (&'static str, u64) {
    let PeerMessage::Raft { message, .. } = message else {
        return match message {
            PeerMessage::Introduce(_) => ("introduction", 0),
            PeerMessage::Forward { .. } => ("forward", 0),
            _ => ("forwarded", 0),
        };
    };
    let kind = match &message.body {
        Body::VoteRequest(request) if request.pre => "pre-vote request",
        Body::VoteRequest(_) => "vote request",
        Body::VoteResponse(response) if response.granted => "vote",
        Body::VoteResponse(_) => "no vote",
        Body::Append(append) if append.entries.is_empty() => "probe",
        Body::Append(_) => "append",
        Body::AppendResponse(_) => "append response",
        Body::Heartbeat(_) => "heartbeat",
        Body::HeartbeatResponse(_) => "heartbeat response",
        Body::ReadRequest(_) => "read request",
        Body::ReadResponse { .. } => "read response",
        Body::TimeoutNow => "timeout now",
        Body::NewerTerm => "newer term",
        Body::IdentityQuestion => "identity question",
        Body::IdentityConfirmed { .. } => "identity confirmed",
        Body::IdentityRefused { .. } => "identity refused",
        Body::Removed => "removed",
    };
    (kind, message.term.0)
}

fn kind_of(result: &Result<Response, Refusal>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(Refusal::Keyspace(_)) => "declined",
        Err(Refusal::NoLeader) => "no leader",
        Err(Refusal::LeaderChanged) => "leader changed",
        Err(Refusal::TimedOut) => "timed out",
        Err(Refusal::TooManyRequests) => "too many requests",
        Err(Refusal::NoSpace) => "no space",
        Err(Refusal::Corrupt) => "corrupt",
        Err(Refusal::TooLarge) => "too large",
        Err(Refusal::Stopped) => "stopped",
    }
}

/// The time since which a block must have lain on a disk to be vouched for.
pub(super) fn vouched_before(member: &Member, now: Moment) -> Instant {
    let local = member.clock.read(now);
    if local.since(member.undisturbed_since) < UNDISTURBED_MIN {
        return Instant(0);
    }
    let age = u64::try_from(VOUCHED_AGE_MIN.as_nanos()).expect("a tenth of a second");
    Instant(local.0.saturating_sub(age))
}
