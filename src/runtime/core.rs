//! The turn: how a core drives the shard it owns.
//!
//! One task per shard, on the shard's core. A turn gathers everything that happened, reads the clock
//! once, hands the events to the shard, and performs its effects: commits to the log's writer, answers
//! to the router of this core and by mail to the others. It must never wait inside a turn, and it never
//! yields busily: a shard with work left gets its next turn after a timer, so that the rings are looked
//! at in between.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::active::LogBytes;
use super::clock::Clock;
use super::disk::checkpoint::{CheckpointAnswer, CheckpointThread};
use super::disk::identity::random_u64;
use super::disk::log::{LogDone, LogJob, LogWriter};
use super::disk::segments::{DiskAnswer, DiskThread, PreparedSegment};
use super::executor::{Stint, sleep};
use super::fatal::{EXIT_CODE_REMOVED, fatal, fatal_with};
use super::group::{Group, Peers};
use super::mailbox::{Receiver, SendError, Sender};
use super::router::{Doorbell, Outbound, Router};
use super::scrub::Scrubbed;
use super::signals::Signal;
use super::stats::CoreStats;
use crate::base::limits::{SEAL_IDLE_MICROS, SLICE_STEPS_MAX, STOP_SECONDS_MAX, TICK_MILLIS};
use crate::base::{CoreId, Instant};
use crate::keyspace::steps::Steps;
use crate::shard::Shard;
use crate::shard::event::{
    Answer, CheckpointEffect, ClientRequest, Effects, EndReason, Event, LogEffect, Notice,
};
use crate::wal::{self, SegmentSequence};

/// What a shard with work left waits for its next turn, at least.
const SLICE_PAUSE: Duration = Duration::from_micros(1);

/// What one core mails to another.
#[derive(Debug)]
pub enum Mail {
    /// Answers for connections of the receiving core.
    Answers(Vec<Answer>),
    /// The shard serves: connections may be accepted.
    Serve,
}

/// Everything a shard's core works with.
pub struct ShardCore {
    /// The replica.
    pub shard: Shard,
    /// This core.
    pub core: CoreId,
    /// Its clock, the same for all cores.
    pub clock: Clock,
    /// Its counters.
    pub stats: Arc<CoreStats>,
    /// The log's write path.
    pub writer: LogWriter<LogBytes>,
    /// Makes segments.
    pub disk: DiskThread,
    /// What the disk thread answers.
    pub disk_answers: Receiver<DiskAnswer>,
    /// What the checkpoint thread answers. Before the thread, so that it never waits for room here when
    /// it is to end.
    pub checkpoint_answers: Receiver<CheckpointAnswer>,
    /// Writes checkpoints.
    pub checkpoints: CheckpointThread,
    /// Where the segments lie.
    pub log_directory: PathBuf,
    /// Rung by whoever leaves something for the shard.
    pub doorbell: Rc<Doorbell>,
    /// Requests of this core's connections.
    pub local: Rc<Outbound>,
    /// Requests of other cores' connections.
    pub remote: Receiver<Vec<ClientRequest>>,
    /// This core's connections.
    pub router: Rc<Router>,
    /// The other cores, by id; none for this one.
    pub cores: Vec<Option<Sender<Mail>>>,
    /// How far the end of the member has come; the doorbell is rung when it changes.
    pub ending: Rc<Ending>,
    /// Where every core, this one too, hears that it is to stop.
    pub stop: Vec<Sender<Signal>>,
    /// What the scrub reads, and what it found.
    pub scrubbed: Rc<Scrubbed>,
    /// Memory the process has allocated, in bytes.
    pub memory_used_bytes: fn() -> u64,
}

/// The end of a member, in steps.
#[derive(Debug, Default)]
pub struct Ending {
    /// It is about to stop: leadership is handed over, while everything is still taken. Writes wait for the next
    /// leader.
    pub leaving: Cell<bool>,
    /// Whether it hands over, or has and does not know yet who leads. Kept by the turns, once they know that it is leaving.
    pub handing_over: Cell<bool>,
    /// It stops: nothing new is taken.
    pub stopping: Cell<bool>,
}

pub(super) type Timer = Pin<Box<dyn Future<Output = ()>>>;

/// What was gathered for a turn.
#[derive(Default)]
struct Gathered {
    requests: Vec<ClientRequest>,
    done: VecDeque<LogDone<LogBytes>>,
    prepared: VecDeque<DiskAnswer>,
    checkpoint: VecDeque<CheckpointAnswer>,
    tick: bool,
    /// The shard's own deadline came between two ticks.
    deadline: bool,
    sealing: bool,
    more: bool,
}

/// The task of one shard.
pub struct Turns {
    core: ShardCore,
    group: Group,
    gathered: Gathered,
    effects: Effects,
    /// The file of the spare that the shard knows of.
    spare: Option<PreparedSegment>,
    /// Segments the log needs no more that the disk thread has not taken yet, oldest first.
    needless: VecDeque<PathBuf>,
    tick: Timer,
    /// Set while a seal may become due, and never cancelled: re-armed at most once a millisecond.
    seal: Option<Timer>,
    last_write: Instant,
    pause: Option<Timer>,
    /// Answers for other cores, gathered over a turn.
    outgoing: Vec<Vec<Answer>>,
    /// As of the last tick, in bytes.
    memory_used_bytes: u64,
    /// Whether clients may be connected.
    serving: bool,
    /// Whether all cores were told that this member was removed.
    removal_told: bool,
    /// When the shard was told to stop.
    stopped_at: Option<Instant>,
}

impl Turns {
    /// Prepares the task; the active segment must be open in the writer already.
    #[must_use]
    pub fn new(core: ShardCore, peers: Box<dyn Peers>) -> Turns {
        let group = Group::new(
            peers,
            core.clock,
            core.log_directory.clone(),
            Rc::clone(&core.doorbell),
        );
        let outgoing = core.cores.iter().map(|_| Vec::new()).collect();
        Turns {
            gathered: Gathered {
                tick: true,
                ..Gathered::default()
            },
            effects: Effects::default(),
            spare: None,
            needless: VecDeque::new(),
            tick: Box::pin(sleep(Duration::from_millis(TICK_MILLIS))),
            seal: None,
            last_write: Instant::default(),
            pause: None,
            outgoing,
            memory_used_bytes: 0,
            serving: false,
            removal_told: false,
            stopped_at: None,
            group,
            core,
        }
    }

    /// Whether the group has nobody else.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.core.shard.members_at_head().len() <= 1
    }

    /// Turns until this member serves: it leads and has committed an entry of its term, or knows who leads.
    pub async fn until_serving(&mut self) {
        self.turn();
        let mut stint = Stint::new(self.core.clock);
        while !self.core.shard.is_serving() {
            self.next_turn(&mut stint).await;
        }
    }

    /// Other cores may send faster than this one turns.
    async fn next_turn(&mut self, stint: &mut Stint) {
        stint.wait(|cx| self.poll_gather(cx)).await;
        self.turn();
    }

    /// Turns until the member stops and everything that was taken is answered, durable and sealed. What waits for
    /// other members is waited for a limited time: they may be gone. A member that was removed ends the process then.
    pub async fn run(mut self) {
        self.serving = true;
        let mut stint = Stint::new(self.core.clock);
        while !self.is_done() {
            self.next_turn(&mut stint).await;
        }
        if self.group.is_removed() {
            end_removed();
        }
    }

    /// The group has removed this member. Those who wait here hear how their calls end, and new ones go elsewhere, as
    /// when it is told to stop.
    fn leave_group(&mut self) {
        if !self.serving {
            end_removed();
        }
        if !std::mem::replace(&mut self.removal_told, true) {
            tracing::error!("{}: stopping", EndReason::Removed);
            for core in &self.core.stop {
                // A full mailbox: it has been told to stop already.
                let _told = core.send(Signal::Removed);
            }
        }
    }

    fn is_done(&self) -> bool {
        let Some(stopped_at) = self.stopped_at else {
            return false;
        };
        let shard = &self.core.shard;
        let waited = self.core.clock.now().since(stopped_at);
        let late = waited >= Duration::from_secs(STOP_SECONDS_MAX) && !self.is_alone();
        shard.is_drained() || late && shard.is_at_rest()
    }

    /// Collects what has happened; pends when that is nothing.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let core = &mut self.core;
        let gathered = &mut self.gathered;
        let mut ready = core.doorbell.poll_rung(cx).is_ready();
        core.local.take_into(&mut gathered.requests);
        while let Poll::Ready(Some(mut batch)) = core.remote.poll_receive(cx) {
            gathered.requests.append(&mut batch);
        }
        ready |= !gathered.requests.is_empty();
        while let Poll::Ready(done) = core.writer.poll_done(cx) {
            gathered.done.push_back(done);
            ready = true;
        }
        while let Poll::Ready(Some(answer)) = core.disk_answers.poll_receive(cx) {
            gathered.prepared.push_back(answer);
            ready = true;
        }
        while let Poll::Ready(Some(answer)) = core.checkpoint_answers.poll_receive(cx) {
            gathered.checkpoint.push_back(answer);
            ready = true;
        }
        if self.tick.as_mut().poll(cx).is_ready() {
            self.tick = Box::pin(sleep(Duration::from_millis(TICK_MILLIS)));
            // A new timer is armed by its first poll.
            let _armed = self.tick.as_mut().poll(cx);
            gathered.tick = true;
            ready = true;
        }
        ready |= self.group.poll_gather(cx);
        if self.group.poll_deadline(cx) {
            gathered.deadline = true;
            ready = true;
        }
        if poll_timer(&mut self.seal, cx) {
            gathered.sealing = true;
            ready = true;
        }
        if poll_timer(&mut self.pause, cx) {
            gathered.more = true;
            ready = true;
        }
        if ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn turn(&mut self) {
        let now = self.core.clock.now();
        self.core.stats.turn_begin(now);
        let mut steps = Steps::new(SLICE_STEPS_MAX);
        let steps = &mut steps;
        let mut requests = std::mem::take(&mut self.gathered.requests);
        if !requests.is_empty() {
            // Before the completion, so that they are part of the commit that it lets go.
            self.hand_in(Event::Requests(&mut requests), now, steps);
        }
        self.gathered.requests = requests;
        // Likewise: what the leader sends shares the next commit.
        while let Some(event) = self.group.next_event() {
            self.hand_in(event, now, steps);
        }
        while let Some(done) = self.gathered.done.pop_front() {
            match done {
                LogDone::Durable {
                    bytes: LogBytes::Commit(commit),
                    ..
                } => {
                    self.last_write = now;
                    self.hand_in(Event::CommitDurable(commit), now, steps);
                }
                LogDone::Durable {
                    bytes: LogBytes::Opening(opening),
                    ..
                } => {
                    self.hand_in(Event::SegmentOpened(opening), now, steps);
                    self.core
                        .scrubbed
                        .sealed
                        .replace(self.core.shard.log().sealed_segments());
                }
                LogDone::Opened { .. } => {}
            }
        }
        while let Some(answer) = self.gathered.prepared.pop_front() {
            self.segment_prepared(answer, now, steps);
        }
        while let Some(answer) = self.gathered.checkpoint.pop_front() {
            let event = match answer {
                CheckpointAnswer::Written => Event::CheckpointBlock,
                CheckpointAnswer::Durable(id) => Event::CheckpointDurable(id),
                CheckpointAnswer::Failed => Event::CheckpointFailed,
                CheckpointAnswer::Read { read, bytes } => Event::CheckpointRead { read, bytes },
            };
            self.hand_in(event, now, steps);
        }
        let tick = std::mem::take(&mut self.gathered.tick);
        if std::mem::take(&mut self.gathered.deadline) || tick {
            if tick {
                self.memory_used_bytes = (self.core.memory_used_bytes)();
            }
            let memory_used_bytes = self.memory_used_bytes;
            self.hand_in(Event::Tick { memory_used_bytes }, now, steps);
        }
        if self.core.scrubbed.take_damage() {
            self.hand_in(Event::LogDamaged, now, steps);
        }
        let leaving = self.core.ending.leaving.get();
        if leaving && self.stopped_at.is_none() && self.core.shard.may_hand_over() {
            // Again, in the turn in which an attempt comes to nothing: whom it was handed to may be gone, or hang, and
            // another one there. Who waits for this looks between the turns.
            self.hand_in(Event::HandOver, now, steps);
        }
        if self.core.ending.stopping.get() && self.stopped_at.is_none() {
            self.stopped_at = Some(now);
            self.hand_in(Event::Stop, now, steps);
        }
        let idle = now.since(self.last_write) >= Duration::from_micros(SEAL_IDLE_MICROS);
        if std::mem::take(&mut self.gathered.sealing) && idle
            || self.stopped_at.is_some() && self.core.shard.needs_seal()
        {
            self.hand_in(Event::LogIdle, now, steps);
        }
        if std::mem::take(&mut self.gathered.more) {
            self.hand_in(Event::Continue, now, steps);
        }
        self.give_up_segments();
        self.mail_answers();
        self.group.end_turn(&self.core.shard, now);
        if self.group.is_removed() {
            self.leave_group();
        }
        if leaving {
            let handing_over = self.core.shard.is_handing_over();
            self.core.ending.handing_over.set(handing_over);
        }
        if self.seal.is_none() && self.core.shard.needs_seal() {
            self.seal = Some(Box::pin(sleep(Duration::from_micros(SEAL_IDLE_MICROS))));
        }
        if self.pause.is_none() && self.core.shard.has_work() {
            self.pause = Some(Box::pin(sleep(SLICE_PAUSE)));
        }
        self.core.stats.set_busy(self.core.shard.is_busy());
        self.core.stats.turn_end(self.core.clock.now());
    }

    fn hand_in(&mut self, event: Event<'_>, now: Instant, steps: &mut Steps) {
        self.core.shard.handle(event, now, steps, &mut self.effects);
        self.perform();
    }

    fn segment_prepared(&mut self, answer: DiskAnswer, now: Instant, steps: &mut Steps) {
        match answer {
            DiskAnswer::Ready(segment) => {
                let salt = match random_u64() {
                    Ok(random) => random.max(1),
                    Err(error) => fatal(format_args!("cannot read random bytes: {error}")),
                };
                let sequence = SegmentSequence(segment.sequence);
                self.spare = Some(segment);
                self.hand_in(
                    Event::SegmentPrepared(wal::PreparedSegment { sequence, salt }),
                    now,
                    steps,
                );
            }
            DiskAnswer::OutOfSpace { sequence } => {
                let directory = self.core.log_directory.display();
                tracing::warn!(
                    sequence,
                    "{directory}: no space for the next log segment; writes are refused when the \
                     active one is nearly full, until there is"
                );
                self.hand_in(Event::SegmentRefused, now, steps);
            }
            DiskAnswer::Failed { error, .. } => {
                fatal(format_args!(
                    "the log's next segment cannot be made: {error}"
                ));
            }
        }
    }

    fn perform(&mut self) {
        for effect in std::mem::take(&mut self.effects.log) {
            match effect {
                LogEffect::Commit(commit) => {
                    let (tag, offset) = (commit.sequence.0, commit.offset);
                    let bytes = LogBytes::Commit(commit);
                    self.submit(LogJob::Commit {
                        tag,
                        offset,
                        also_at: None,
                        bytes,
                    });
                }
                LogEffect::OpenSegment(opening) => {
                    let spare = self
                        .spare
                        .take()
                        .expect("the shard opens what was prepared");
                    self.submit(LogJob::Open(spare));
                    let [offset, copy] = opening.offsets;
                    let tag = opening.sequence.0;
                    let bytes = LogBytes::Opening(opening);
                    self.submit(LogJob::Commit {
                        tag,
                        offset,
                        also_at: Some(copy),
                        bytes,
                    });
                }
                LogEffect::PrepareSegment(sequence) => {
                    let path = self.core.log_directory.join(sequence.file_name());
                    if self.core.disk.prepare(sequence.0, path).is_err() {
                        fatal("the disk thread has ended");
                    }
                }
                LogEffect::Recycle(sequence) => {
                    let path = self.core.log_directory.join(sequence.file_name());
                    self.needless.push_back(path);
                }
            }
        }
        for effect in std::mem::take(&mut self.effects.checkpoint) {
            let thread = &self.core.checkpoints;
            let taken = match effect {
                CheckpointEffect::Begin(id) => thread.begin(id),
                CheckpointEffect::Block(block) => thread.write(block),
                CheckpointEffect::Finish(id, source) => thread.finish(id, source),
                CheckpointEffect::Settle(id) => thread.settle(id),
                CheckpointEffect::RemoveBefore(index) => thread.remove_before(index),
                CheckpointEffect::Read(read) => thread.read(read),
                CheckpointEffect::Free(state) => thread.free(state),
            };
            if let Err(error) = taken {
                fatal(format_args!("{error}"));
            }
        }
        for notice in self.effects.notices.drain(..) {
            match notice {
                Notice::TransferBegins { .. }
                | Notice::Installed { .. }
                | Notice::SteppedDown(_) => {
                    tracing::info!("{notice}");
                }
                Notice::TransferAbandoned { .. }
                | Notice::Unreadable { .. }
                | Notice::LogUnreadable { .. }
                | Notice::SyncStalled { .. }
                | Notice::RefusedPeer { .. }
                | Notice::FollowerForgot { .. }
                | Notice::BlockRefused { .. }
                | Notice::Refused { .. } => tracing::warn!("{notice}"),
            }
        }
        self.group.perform(&mut self.effects, &self.core.shard);
        let own = self.core.core.0;
        if self
            .effects
            .answers
            .iter()
            .all(|answer| answer.ticket.core == own)
        {
            self.core.router.deliver(self.effects.answers.drain(..));
            return;
        }
        let mut answers = std::mem::take(&mut self.effects.answers);
        for answer in answers.extract_if(.., |answer| answer.ticket.core != own) {
            self.outgoing[answer.ticket.core as usize].push(answer);
        }
        self.core.router.deliver(answers.drain(..));
        self.effects.answers = answers;
    }

    /// Hands over what the log needs no more, oldest first; what the disk thread has no room for waits.
    fn give_up_segments(&mut self) {
        if self.needless.is_empty() {
            return;
        }
        // First, so that the scrub knows before a file changes.
        self.core
            .scrubbed
            .sealed
            .replace(self.core.shard.log().sealed_segments());
        while let Some(path) = self.needless.front() {
            if self.core.disk.recycle(path.clone()).is_err() {
                return;
            }
            self.needless.pop_front();
        }
    }

    fn submit(&self, job: LogJob<LogBytes>) {
        let submitted = self.core.writer.submit(job);
        assert!(submitted.is_ok(), "one commit is in flight at a time");
    }

    /// One piece of mail per core and turn. A core whose mailbox is full gets its answers with the next
    /// turn's; that many batches behind, its clients have long given up.
    fn mail_answers(&mut self) {
        for (answers, core) in self.outgoing.iter_mut().zip(&self.core.cores) {
            let Some(core) = core else { continue };
            if answers.is_empty() {
                continue;
            }
            let sent = core.send(Mail::Answers(std::mem::take(answers)));
            if let Err(SendError::Full(Mail::Answers(back))) = sent {
                *answers = back;
            }
        }
    }
}

/// No restart helps a member that was removed, and the exit code says so.
fn end_removed() -> ! {
    fatal_with(EXIT_CODE_REMOVED, EndReason::Removed)
}

/// Whether a timer has fired; it is gone then.
fn poll_timer(timer: &mut Option<Timer>, cx: &mut Context<'_>) -> bool {
    let fired = timer
        .as_mut()
        .is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
    if fired {
        *timer = None;
    }
    fired
}
