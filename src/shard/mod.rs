//! One replica of one shard: raft, log and keyspace as one deterministic machine. Events and the time
//! go in, effects come out; the same inputs give the same bytes.
//!
//! It runs on the core that owns the shard and shares nothing. It must never do I/O, read a clock, or
//! work longer than a slice before it gives the core back: what is left it says by [`Shard::has_work`].
//!
//! ```text
//! Requests -> evaluate at the head -> one entry: raft position, log, fold -> waiter for its index
//!                                                   |
//! CommitDurable -> raft counts -> Committed(index) -+-> keyspace and waiters follow -> Answers
//! ```

pub mod cluster;
mod entry;
mod evaluate;
pub mod event;
mod reads;
pub mod replay;
mod waiters;

use std::collections::VecDeque;
use std::time::Duration;

use self::cluster::{ClusterChange, ClusterState};
use self::entry::{ClusterEffect, EntryBody};
use self::evaluate::WriteJob;
use self::event::{
    Alarm, AlarmKind, Answer, ClientRequest, Effects, Event, Header, Identity, LogEffect, Member,
    Refusal, Request, Response, Status, Ticket,
};
use self::reads::Reads;
use self::replay::Replayed;
use self::waiters::{Waiter, Waiters};
use crate::base::limits::{SHARD_QUEUE_REQUESTS_MAX, SLICE_READS_STEPS, SLICE_RECLAIM_STEPS};
use crate::base::planted::{Defect, Planted};
use crate::base::{Index, Instant, ShardId, Term};
use crate::keyspace::Keyspace;
use crate::keyspace::fold::FoldJob;
use crate::keyspace::steps::Steps;
use crate::raft::{Output, Raft, Role};
use crate::wal::{Appender, CommitStep, PreparedSegment, StageError, Staged};

/// What a shard is started with beside its log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which shard.
    pub shard: ShardId,
    /// Cluster and member.
    pub identity: Identity,
    /// How this member introduces itself: name, peer and client URLs.
    pub member: Member,
    /// The cluster version this member supports.
    pub version: (u32, u32),
    /// `--quota-backend-bytes` in force; `None` is no quota.
    pub quota_bytes: Option<u64>,
    /// Memory the process may use, in bytes; above it writes that grow the keyspace are refused.
    pub memory_budget_bytes: u64,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// Decides every random choice.
    pub seed: u64,
    /// What is wrong on purpose: nothing in a build that serves.
    pub planted: Planted,
}

/// One replica of one shard.
pub struct Shard {
    settings: Settings,
    raft: Raft,
    outputs: Vec<Output>,
    log: Appender,
    keyspace: Keyspace,
    cluster: ClusterState,
    /// Requests that wait for their turn at the head.
    writes: VecDeque<ClientRequest>,
    /// The write at the head that did not finish in one slice.
    job: Option<WriteJob>,
    reads: Reads,
    waiters: Waiters,
    /// Compactions whose answers wait for the space: the revision, and the answer.
    physical: Vec<(i64, Waiter)>,
    /// The segment that is ready to follow the active one.
    spare: Option<PreparedSegment>,
    /// Whether a spare was asked for and has not come.
    preparing: bool,
    /// Whether the file system had no room for the spare.
    log_space_exhausted: bool,
    /// Whether compaction left something to free that could be freed now.
    reclaiming: bool,
    memory_used_bytes: u64,
    /// Whether a sealed segment was found damaged and the alarm is not raised yet.
    log_damaged: bool,
    stopping: bool,
}

impl Shard {
    /// A member's replica, from its replayed log. An empty log is bootstrapped: the first entry, of
    /// term 1, is the membership that every first member computes alike, as in etcd.
    #[must_use]
    pub fn new(settings: Settings, log: Appender, replayed: Replayed) -> Shard {
        let Replayed {
            keyspace,
            mut cluster,
            mut terms,
            hard_state,
        } = replayed;
        let durable = terms.last_index();
        let mut log = log;
        let mut keyspace = keyspace;
        log.plant(settings.planted);
        keyspace.plant(settings.planted);
        let mut hard_state = hard_state;
        if durable == Index(0) {
            let member = Member {
                name: String::new(),
                client_urls: Vec::new(),
                ..settings.member.clone()
            };
            let change = ClusterChange::MemberAdded(member);
            let body = EntryBody::Cluster(vec![ClusterEffect::from(&change)]);
            let index = terms.append(Term(1));
            log.stage_entry(Term(1), index, &body)
                .expect("an empty log has room for a member");
            cluster.fold(index, change);
            hard_state.term = Term(1);
        }
        let config = crate::raft::Config {
            id: settings.identity.member,
            voters: cluster.voters(),
            election_timeout: settings.election_timeout,
            seed: settings.seed,
        };
        let mut raft = Raft::new(config, hard_state, terms, durable);
        raft.plant(settings.planted);
        let mut shard = Shard {
            raft,
            settings,
            outputs: Vec::new(),
            log,
            keyspace,
            cluster,
            writes: VecDeque::new(),
            job: None,
            reads: Reads::default(),
            waiters: Waiters::default(),
            physical: Vec::new(),
            spare: None,
            preparing: false,
            log_space_exhausted: false,
            reclaiming: false,
            memory_used_bytes: 0,
            log_damaged: false,
            stopping: false,
        };
        if durable == Index(0) {
            // As a replay does, so that the digests of both agree.
            shard.fold_nothing(Index(1));
        }
        shard
    }

    /// Takes one event and says what must be done. The same upkeep follows every event. `steps` is what
    /// is left of the turn, for all of its events together.
    pub fn handle(
        &mut self,
        event: Event<'_>,
        now: Instant,
        steps: &mut Steps,
        effects: &mut Effects,
    ) {
        match event {
            Event::Requests(batch) => self.take_requests(batch, effects),
            Event::CommitDurable(commit) => {
                let durable = self.log.durable(commit);
                if durable.hard_state {
                    self.raft
                        .hard_state_durable(self.raft.hard_state(), &mut self.outputs);
                }
                self.raft.log_durable(durable.index, &mut self.outputs);
            }
            Event::SegmentOpened(opening) => self.log.segment_opened(opening),
            Event::SegmentPrepared(prepared) => {
                self.preparing = false;
                self.log_space_exhausted = false;
                self.spare = Some(prepared);
            }
            Event::SegmentRefused => self.log_space_exhausted = true,
            Event::Tick { memory_used_bytes } => {
                self.memory_used_bytes = memory_used_bytes;
                self.raft.tick(now, &mut self.outputs);
                self.expire(now, effects);
            }
            Event::LogIdle => {
                if self.log.needs_seal() {
                    self.log.stage_seal();
                }
            }
            Event::LogDamaged => self.log_damaged = true,
            Event::Continue => {}
            Event::Stop => self.stopping = true,
        }
        self.upkeep(steps, effects);
    }

    /// Whether [`Event::Continue`] would get something done.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.job.is_some()
            || (!self.writes.is_empty() && self.may_evaluate())
            || self.reads.has_work()
            || self.reclaiming
    }

    /// Whether the last commit is durable and nothing on disk says so yet: a seal is due after about a
    /// millisecond of idleness.
    #[must_use]
    pub fn needs_seal(&self) -> bool {
        self.log.needs_seal()
    }

    /// Whether everything that was taken is answered, and durable and sealed as far as the disk has
    /// room: what waits for a segment that cannot be made was never acknowledged.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let answered = self.writes.is_empty()
            && self.job.is_none()
            && self.reads.is_empty()
            && self.waiters.is_empty();
        let stuck = self.log_space_exhausted && self.spare.is_none();
        let at_rest = stuck || !(self.log.has_work() || self.log.needs_seal());
        answered && at_rest && !self.log.in_flight()
    }

    /// Requests that are being worked on or waited for.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.log.in_flight() || !self.waiters.is_empty() || self.has_work()
    }

    /// Whether this member leads and has committed an entry of its term, so that it serves.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.raft.may_read()
    }

    /// This member's own view.
    #[must_use]
    pub fn status(&self) -> Status {
        let size = i64::try_from(self.keyspace.size_bytes()).unwrap_or(i64::MAX);
        let quota = self
            .settings
            .quota_bytes
            .map_or(i64::MAX, |quota| i64::try_from(quota).unwrap_or(i64::MAX));
        Status {
            db_size_bytes: size,
            db_size_in_use_bytes: size,
            db_size_quota_bytes: quota,
            leader: self.raft.leader().unwrap_or_default(),
            raft_index: self.raft.commit().0,
            raft_term: self.raft.term().0,
            raft_applied_index: self.keyspace.committed_index().0,
            alarms: self.cluster.alarms(None),
            is_learner: false,
        }
    }

    /// The committed keyspace, for checks from outside.
    #[must_use]
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Consensus, for checks from outside.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The log's end, for checks from outside.
    #[must_use]
    pub fn log(&self) -> &Appender {
        &self.log
    }

    fn take_requests(&mut self, batch: &mut Vec<ClientRequest>, effects: &mut Effects) {
        for request in batch.drain(..) {
            if self.stopping {
                effects
                    .answers
                    .push(self.refuse(request.ticket, Refusal::Stopped));
                continue;
            }
            match request.request {
                Request::Status => {
                    let status = Response::Status(Box::new(self.status()));
                    effects
                        .answers
                        .push(self.answer(request.ticket, Ok(status)));
                }
                Request::MemberList {
                    linearizable: false,
                } => {
                    effects.answers.push(self.member_list(request.ticket));
                }
                _ if is_read(&request.request) => {
                    if self.reads.is_full() {
                        let refusal = Refusal::TooManyRequests;
                        effects.answers.push(self.refuse(request.ticket, refusal));
                    } else {
                        self.reads.push(request);
                    }
                }
                _ if self.writes.len() >= SHARD_QUEUE_REQUESTS_MAX => {
                    effects
                        .answers
                        .push(self.refuse(request.ticket, Refusal::TooManyRequests));
                }
                _ => self.writes.push_back(request),
            }
        }
    }

    /// What follows every event: consensus says what is decided, the head moves on, the log gets its
    /// next commit, and answers that have become true leave.
    ///
    /// Writes, reads and reclaim share the turn: none of them stops the others for longer than it.
    fn upkeep(&mut self, steps: &mut Steps, effects: &mut Effects) {
        self.follow_raft();
        let for_reclaim = steps.part(share(self.reclaiming, SLICE_RECLAIM_STEPS));
        let for_reads = steps.part(share(self.reads.has_work(), SLICE_READS_STEPS));
        self.raise_corrupt();
        self.evaluate_writes(steps);
        steps.put_back(for_reads);
        self.run_reads(steps, effects);
        steps.put_back(for_reclaim);
        self.reclaiming = self.keyspace.reclaim(steps);
        self.drive_log(effects);
        self.release(effects);
    }

    fn follow_raft(&mut self) {
        while !self.outputs.is_empty() {
            for output in std::mem::take(&mut self.outputs) {
                match output {
                    Output::PersistHardState(_) => {}
                    Output::BecameLeader { .. } => self.lead(),
                    Output::Committed(index) => self.commit(index),
                }
            }
            self.log.set_hard_state(self.raft.hard_state());
        }
    }

    /// The first entries of a term: the no-op that commits what came before, and what this member has
    /// to say about itself.
    fn lead(&mut self) {
        let appended = self.append(&EntryBody::Noop);
        let (index, _) = appended.expect("the log has room for an election's entries");
        self.fold_nothing(index);
        let member = &self.settings.member;
        let known = self.cluster.member_at_head(member.id);
        let same = known.is_some_and(|known| {
            known.name == member.name && known.client_urls == member.client_urls
        });
        if !same {
            let change = ClusterChange::MemberAttributes {
                id: member.id,
                name: member.name.clone(),
                client_urls: member.client_urls.clone(),
            };
            self.append_cluster_change(change)
                .expect("the log has room for a member's attributes");
        }
        if self
            .cluster
            .version_at_head()
            .is_none_or(|version| version < self.settings.version)
        {
            let (major, minor) = self.settings.version;
            let change = ClusterChange::Version { major, minor };
            self.append_cluster_change(change)
                .expect("the log has room for a version");
        }
    }

    fn commit(&mut self, index: Index) {
        self.keyspace.commit(index);
        self.cluster.commit(index);
    }

    /// Puts an entry at the end of the log. The caller folds it.
    fn append(&mut self, body: &EntryBody) -> Result<(Index, Staged), Refusal> {
        let (term, index) = self.raft.next_position().ok_or(Refusal::NoLeader)?;
        let staged = self
            .log
            .stage_entry(term, index, body)
            .map_err(|error| match error {
                StageError::Full { .. } => Refusal::TooManyRequests,
                StageError::Encode(_) => Refusal::TooLarge,
            })?;
        let appended = self.raft.append();
        assert_eq!(
            appended,
            (term, index),
            "raft and log disagree about the next entry"
        );
        Ok((index, staged))
    }

    fn append_cluster_change(&mut self, change: ClusterChange) -> Result<Index, Refusal> {
        let body = EntryBody::Cluster(vec![ClusterEffect::from(&change)]);
        let (index, _) = self.append(&body)?;
        self.cluster.fold(index, change);
        self.fold_nothing(index);
        Ok(index)
    }

    /// Folds an entry that changes no key, so that the keyspace stands at its index.
    fn fold_nothing(&mut self, index: Index) {
        let folded = FoldJob::replay(&mut self.keyspace, index).run(
            &mut self.keyspace,
            &[],
            &mut Steps::new(1),
        );
        assert!(folded.is_some(), "nothing is folded in one step");
    }

    /// What is acknowledged after damage would be gone after a restart, so writes end with the CORRUPT
    /// alarm. Not in the middle of a fold: the next entry follows when that is complete.
    fn raise_corrupt(&mut self) {
        if !self.log_damaged || self.job.is_some() || self.raft.role() != Role::Leader {
            return;
        }
        self.log_damaged = false;
        let alarm = Alarm {
            member: self.settings.identity.member,
            kind: AlarmKind::Corrupt,
        };
        if !self.cluster.is_raised_at_head(alarm) {
            // Without room for the alarm the log line of the scrub stands alone.
            let _raised = self.append_cluster_change(ClusterChange::AlarmRaised(alarm));
        }
    }

    fn drive_log(&mut self, effects: &mut Effects) {
        if !self.log.in_flight() {
            match self.log.commit() {
                CommitStep::Nothing => {}
                CommitStep::Commit(commit) => {
                    if self.settings.planted.has(Defect::AcknowledgedBeforeSync) {
                        self.raft.log_durable(commit.last_index, &mut self.outputs);
                        self.follow_raft();
                    }
                    effects.log.push(LogEffect::Commit(commit));
                }
                CommitStep::OpenSegment(_) => {
                    if let Some(spare) = self.spare.take() {
                        effects
                            .log
                            .push(LogEffect::OpenSegment(self.log.open_segment(spare)));
                    }
                }
            }
        }
        // While a segment is being opened the next sequence is not known yet.
        if self.spare.is_none() && !self.preparing && !self.log.is_opening() {
            self.preparing = true;
            effects
                .log
                .push(LogEffect::PrepareSegment(self.log.next_segment()));
        }
    }

    fn release(&mut self, effects: &mut Effects) {
        let term = self.raft.term();
        let reclaimed = self.keyspace.reclaimed_through();
        let physical = &mut self.physical;
        self.waiters
            .release(self.keyspace.committed_index(), |waiter| {
                match waiter.reclaim_through {
                    Some(revision) if revision > reclaimed => physical.push((revision, waiter)),
                    _ => effects.answers.push(waiter.into_answer(term)),
                }
            });
        if !self.physical.is_empty() {
            for (revision, waiter) in std::mem::take(&mut self.physical) {
                if revision <= reclaimed {
                    effects.answers.push(waiter.into_answer(term));
                } else {
                    self.physical.push((revision, waiter));
                }
            }
        }
    }

    /// Tells every client whose deadline has passed. An entry that is on its way may still be
    /// committed: the client knows only that it did not hear in time.
    fn expire(&mut self, now: Instant, effects: &mut Effects) {
        let mut late = Vec::new();
        self.writes.retain(|request| {
            let keep = request.deadline > now;
            if !keep {
                late.push(request.ticket);
            }
            keep
        });
        self.reads.expire(now, &mut late);
        self.waiters.expire(now, |waiter| late.push(waiter.ticket));
        self.physical.retain(|(_, waiter)| {
            let keep = waiter.deadline > now;
            if !keep {
                late.push(waiter.ticket);
            }
            keep
        });
        let refusal = if self.settings.planted.has(Defect::TimeoutAnsweredAsRefusal) {
            Refusal::TooManyRequests
        } else if self.raft.leader().is_some() {
            Refusal::TimedOut
        } else {
            Refusal::NoLeader
        };
        effects
            .answers
            .extend(late.into_iter().map(|ticket| self.refuse(ticket, refusal)));
    }

    fn member_list(&self, ticket: Ticket) -> Answer {
        self.answer(ticket, Ok(Response::MemberList(self.cluster.members())))
    }

    fn answer(&self, ticket: Ticket, result: Result<Response, Refusal>) -> Answer {
        let header = Header {
            revision: self.keyspace.committed_revision(),
            term: self.raft.term(),
        };
        Answer {
            ticket,
            header,
            result,
        }
    }

    fn refuse(&self, ticket: Ticket, refusal: Refusal) -> Answer {
        self.answer(ticket, Err(refusal))
    }
}

/// What is kept for something that has work to do, or has not.
fn share(has_work: bool, steps: usize) -> usize {
    if has_work { steps } else { 0 }
}

/// Whether a request changes nothing, by its form alone.
fn is_read(request: &Request) -> bool {
    match request {
        Request::Range(_) | Request::MemberList { .. } => true,
        Request::Txn(txn) => txn.is_read_only(),
        _ => false,
    }
}
