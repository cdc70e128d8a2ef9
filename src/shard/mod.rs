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

mod asker;
pub mod checkpoints;
pub mod cluster;
mod consensus;
mod deadlines;
mod entry;
mod evaluate;
pub mod event;
mod folder;
mod forward;
mod install;
pub mod members;
mod peers;
mod reads;
mod recent;
mod repair;
pub mod replay;
mod request;
pub mod size;
mod stall;
mod transfer;
mod view;
mod waiters;
mod writes;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use self::asker::{Ask, Asker, Reply};
use self::checkpoints::{CheckpointLimits, Checkpoints};
use self::cluster::{ClusterChange, ClusterState};
use self::consensus::has_others;
pub use self::deadlines::request_time_max;
use self::entry::{ClusterEffect, EntryBody};
use self::evaluate::WriteJob;
use self::event::{
    Effects, EndReason, Event, Header, Identity, KnownMembers, LogEffect, Member, Notice,
    PeerMessage, Refusal, Request, Response,
};
use self::folder::Folder;
use self::forward::Forwards;
use self::members::{MemberRequests, MembershipRules};
use self::peers::Sending;
use self::reads::Reads;
use self::recent::Recent;
use self::repair::Repair;
use self::replay::Replayed;
use self::stall::SyncWatch;
use self::transfer::Transfers;
use self::waiters::{Waiter, Waiters};
use self::writes::Writes;
use crate::base::limits::{
    RECLAIM_UNPAID_CHANGES_MAX, SLICE_AWAITED_CHECKPOINT_STEPS, SLICE_CHECKPOINT_STEPS,
    SLICE_READS_STEPS, SLICE_RECLAIM_STEPS,
};
use crate::base::planted::{Defect, Planted};
use crate::base::{Incarnation, Index, Instant, MemberId, ShardId, Term};
use crate::keyspace::Keyspace;
use crate::keyspace::steps::Steps;
use crate::raft::{self, DirectoriesVersion, Output, Raft, StateDigest, Windows};
use crate::wal::{Appender, CommitStep, PreparedSegment};

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
    /// This member's data directory.
    pub incarnation: Incarnation,
    /// What is stored beside the log about directories.
    pub known: KnownMembers,
    /// The members that form a new cluster, this one among them: what every first member is started with.
    /// None for a member that joins an existing cluster: its log begins empty, and everything comes from the
    /// leader. Only an empty log looks at them.
    pub initial_members: Vec<Member>,
    /// What is asked before the membership is changed.
    pub membership: MembershipRules,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// How much may be on its way to one follower.
    pub windows: Windows,
    /// Bytes of the newest entries that are kept in memory for followers.
    pub recent_bytes_max: usize,
    /// When a checkpoint is taken.
    pub checkpoints: CheckpointLimits,
    /// Decides every random choice.
    pub seed: u64,
    /// What is wrong on purpose: nothing in a build that serves.
    pub planted: Planted,
}

/// One replica of one shard.
pub struct Shard {
    settings: Settings,
    raft: Raft,
    /// Whether the group has anybody else.
    has_peers: bool,
    /// What is, or will be, stored beside the log.
    known: KnownMembers,
    /// Whether it has changed since the driver was asked to store it.
    store_known_members: bool,
    storing_known_members: bool,
    /// Of [`Effects::directories`], as last said: with the changes of the membership.
    directories_version: Option<(u64, DirectoriesVersion)>,
    /// The newest entries, for followers.
    recent: Recent,
    /// What waits for older ones.
    sending: Sending,
    /// Writes that the leader was asked for.
    forwards: Forwards,
    /// What was said to other members in this event.
    messages: Vec<(MemberId, PeerMessage)>,
    /// The leader's digest to compare with, at an index that is not committed here yet.
    compare: Option<StateDigest>,
    /// Why this member must not go on.
    end: Option<EndReason>,
    outputs: Vec<Output>,
    log: Appender,
    keyspace: Keyspace,
    cluster: ClusterState,
    /// Entries of the log that the keyspace does not hold yet.
    folder: Folder,
    /// Requests that wait for their turn at the head.
    writes: Writes,
    /// Those that change the members, or who leads.
    member_requests: MemberRequests,
    /// The write at the head that did not finish in one slice.
    job: Option<WriteJob>,
    reads: Reads,
    waiters: Waiters,
    checkpoints: Checkpoints,
    /// Followers that need one.
    transfers: Transfers,
    /// What an operator may want to know of this event.
    notices: Vec<Notice>,
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
    /// What was said in this event.
    replies: Vec<Reply>,
    memory_used_bytes: u64,
    /// What is done about a sealed segment that was found damaged.
    repair: Repair,
    /// How long the disk takes.
    sync: SyncWatch,
    /// Whose messages are refused, as far as that was said.
    refused_peers: BTreeSet<MemberId>,
    stopping: bool,
}

impl Shard {
    /// A member's replica, from its replayed log. The empty log of a first member is bootstrapped: the first
    /// entry, of term 1, is the membership that every first member computes alike, as in etcd. That of
    /// a member that joins stays empty until its leader speaks.
    #[must_use]
    pub fn new(settings: Settings, log: Appender, replayed: Replayed) -> Shard {
        let Replayed {
            keyspace,
            mut cluster,
            mut terms,
            hard_state,
            checkpoint,
        } = replayed;
        let durable = log.durable_index();
        let mut log = log;
        let mut folder = Folder::default();
        let mut keyspace = keyspace;
        log.plant(settings.planted);
        keyspace.plant(settings.planted);
        let mut hard_state = hard_state;
        // A log that was lost as a whole comes back from the leader, from its first entry on.
        let founds = !settings.initial_members.is_empty() && settings.known.rebuild.is_none();
        if terms.last_index() == Index(0) && founds {
            let index = Index(1);
            let mut members = settings.initial_members.clone();
            members.sort_by_key(|member| member.id);
            let changes: Vec<ClusterChange> = members
                .into_iter()
                .map(|member| {
                    ClusterChange::MemberAdded(Member {
                        name: String::new(),
                        client_urls: Vec::new(),
                        ..member
                    })
                })
                .collect();
            let body = EntryBody::Cluster(changes.iter().map(ClusterEffect::from).collect());
            let staged = log
                .stage_entry(Term(1), index, &body)
                .expect("an empty log has room for the first members");
            terms.append(Term(1), staged.range.len() as u64);
            for change in changes {
                cluster.fold(index, change);
            }
            folder.push_nothing(index);
            // Every first member computes the same: there is nothing to agree on.
            hard_state.term = Term(1);
            hard_state.commit = index;
        }
        let id = settings.identity.member;
        let memberships = cluster.memberships();
        cluster.commit(hard_state.commit);
        // Who was removed may have been stored after that, or the file not been written again since.
        let mut known = settings.known.clone();
        known
            .incarnations
            .retain(|&member, _| !cluster.is_removed(member));
        let store_known_members = known != settings.known;
        let config = raft::Config {
            id,
            incarnation: settings.incarnation,
            confirmed: known.confirmed,
            incarnations: known.incarnations.clone(),
            memberships,
            rebuild: known.rebuild,
            vote_floor: known.vote_floor,
            election_timeout: settings.election_timeout,
            heartbeat_interval: settings.heartbeat_interval,
            windows: settings.windows,
            pre_vote: settings.pre_vote,
            check_quorum: true,
            seed: settings.seed,
        };
        let end = cluster.is_removed(id).then_some(EndReason::Removed);
        let mut raft = Raft::new(config, hard_state, terms, durable);
        raft.plant(settings.planted);
        log.set_hard_state(raft.hard_state());
        let has_peers = has_others(id, raft.membership().members());
        let mut shard = Shard {
            raft,
            has_peers,
            known,
            store_known_members,
            storing_known_members: false,
            directories_version: None,
            recent: Recent::new(settings.recent_bytes_max),
            sending: Sending::default(),
            forwards: Forwards::new(settings.seed),
            messages: Vec::new(),
            compare: None,
            end,
            checkpoints: Checkpoints::new(settings.checkpoints, checkpoint),
            settings,
            outputs: Vec::new(),
            log,
            keyspace,
            cluster,
            folder,
            writes: Writes::default(),
            member_requests: MemberRequests::default(),
            job: None,
            reads: Reads::default(),
            waiters: Waiters::default(),
            transfers: Transfers::default(),
            notices: Vec::new(),
            physical: Vec::new(),
            spare: None,
            preparing: false,
            log_space_exhausted: false,
            reclaiming: false,
            replies: Vec::new(),
            memory_used_bytes: 0,
            repair: Repair::default(),
            sync: SyncWatch::default(),
            refused_peers: BTreeSet::new(),
            stopping: false,
        };
        shard.commit(hard_state.commit);
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
            Event::Requests(batch) => {
                for request in batch.drain(..) {
                    self.take(request.into());
                }
            }
            Event::CommitDurable(commit) => {
                self.sync.end();
                let durable = self.log.durable(commit);
                if durable.hard_state {
                    self.raft
                        .hard_state_durable(self.raft.hard_state(), &mut self.outputs);
                }
                self.raft.log_durable(durable.index, &mut self.outputs);
                // What the log begins anew with is in its first commit.
                let kept = self.settings.planted.has(Defect::LossTakenForTheCut);
                if !kept && std::mem::take(&mut self.known.just_cut) {
                    self.store_known_members = true;
                }
            }
            Event::SegmentOpened(opening) => {
                self.sync.end();
                self.log.segment_opened(opening);
            }
            Event::SegmentPrepared(prepared) => {
                self.preparing = false;
                self.log_space_exhausted = false;
                self.spare = Some(prepared);
            }
            Event::SegmentRefused => self.segment_refused(),
            Event::Peer {
                from,
                incarnation,
                message,
            } => self.take_peer_message(from, incarnation, message, now),
            Event::PeerDisconnected(peer) => {
                self.transfers.peer_disconnected(peer);
                // Raft starts over with it.
                self.sending.forget(peer);
                self.forwards.peer_disconnected(peer);
                self.raft.peer_disconnected(peer, now, &mut self.outputs);
                if self.raft.leader() == Some(peer) {
                    self.forwards.leader_lost();
                }
            }
            Event::KnownMembersStored(stored) => self.known_members_stored(&stored),
            Event::LogRead { read, bytes } => self.log_read(&read, &bytes),
            Event::Tick { memory_used_bytes } => {
                self.memory_used_bytes = memory_used_bytes;
                self.checkpoints.tick(now);
                self.forwards.tick();
                self.raft.tick(now, &mut self.outputs);
                self.watch_sync(now);
                self.tick_membership();
                self.expire(now);
            }
            Event::LogIdle => {
                if self.log.needs_seal() {
                    self.log.stage_seal();
                }
            }
            Event::LogDamaged => self.damage_found(),
            Event::CheckpointBlock => self.checkpoints.block_written(),
            Event::CheckpointDurable(id) => self.checkpoints.durable(id),
            Event::CheckpointRead { read, bytes } => self.checkpoint_read(&read, &bytes),
            Event::CheckpointFailed => self.checkpoints.failed(now),
            Event::Continue => {}
            Event::HandOver => {
                // Refused where it does not lead, hands over already, or nobody could follow.
                let _handing_over = self.raft.transfer_leader(None, now);
            }
            Event::Stop => self.stopping = true,
        }
        self.upkeep(now, steps, effects);
    }

    fn take(&mut self, ask: Ask) {
        let asker = ask.asker;
        if self.stopping {
            return self.refuse(asker, Refusal::Stopped);
        }
        match ask.request {
            Request::Status => {
                let status = Response::Status(Box::new(self.status()));
                self.answer(asker, Ok(status));
            }
            Request::MemberList {
                linearizable: false,
            } => self.answer_member_list(asker),
            Request::MoveLeader(to) => self.take_move(asker, ask.deadline, to),
            Request::ReadMode => {
                let mode = Response::ReadMode(self.cluster.read_mode());
                self.answer(asker, Ok(mode));
            }
            _ if is_read(&ask.request) => self.take_read(ask),
            _ if !self.writes.has_room(&ask) => self.refuse(asker, Refusal::TooManyRequests),
            _ => self.writes.push(ask),
        }
    }

    /// What follows every event: consensus says what is decided, the head moves on, the log gets its
    /// next commit, and answers that have become true leave.
    ///
    /// Writes, reads, reclaim and checkpoints share the turn: none of them stops the others for longer than it.
    fn upkeep(&mut self, now: Instant, steps: &mut Steps, effects: &mut Effects) {
        self.raft.flush(now, &mut self.outputs);
        self.follow_raft(VecDeque::new());
        self.settle_reads();
        let for_reclaim = steps.part(share(self.reclaiming, SLICE_RECLAIM_STEPS));
        // What it keeps from being freed grows with every write.
        let is_awaited = self.keyspace.changes_pinned() > RECLAIM_UNPAID_CHANGES_MAX
            && self.checkpoints.is_pinned_lowest(&mut self.keyspace);
        let for_checkpoint = steps.part(share(
            self.checkpoints.has_work(),
            if is_awaited {
                SLICE_AWAITED_CHECKPOINT_STEPS
            } else {
                SLICE_CHECKPOINT_STEPS
            },
        ));
        let for_reads = steps.part(share(self.reads.has_work(), SLICE_READS_STEPS));
        self.repair_log();
        self.evaluate_writes(steps);
        self.change_members();
        self.move_leader(now);
        // Answers that leave make room for what is forwarded.
        self.release_forwards();
        self.forward_writes(now);
        // What was appended leaves in this turn, and what was evaluated without an entry asks for its round.
        self.raft.flush(now, &mut self.outputs);
        self.follow_raft(VecDeque::new());
        self.settle_reads();
        steps.put_back(for_reads);
        self.run_reads(steps);
        steps.put_back(for_reclaim);
        self.reclaiming = self.keyspace.reclaim(steps);
        steps.put_back(for_checkpoint);
        self.drive_transfers(now);
        self.receive_checkpoint(now, steps);
        self.write_checkpoint(steps, effects);
        self.release_log(now, effects);
        self.compare_digest();
        self.drive_log(now, effects);
        self.release();
        self.deliver(effects);
    }

    /// Reads whose round has ended, and whose index is committed here, may start.
    fn settle_reads(&mut self) {
        let committed = if self.settings.planted.has(Defect::ReadBeforeCaughtUp) {
            Index(u64::MAX)
        } else {
            self.keyspace.committed_index()
        };
        self.reads.settle(committed);
    }

    fn drive_log(&mut self, now: Instant, effects: &mut Effects) {
        if !self.log.in_flight() {
            match self.log.commit() {
                CommitStep::Nothing => {}
                CommitStep::Commit(commit) => {
                    if self.settings.planted.has(Defect::AcknowledgedBeforeSync) {
                        self.raft.log_durable(commit.last_index, &mut self.outputs);
                        self.follow_raft(VecDeque::new());
                    }
                    self.sync_begins(now);
                    effects.log.push(LogEffect::Commit(commit));
                }
                CommitStep::OpenSegment(_) => match self.spare.take() {
                    Some(spare) => {
                        self.sync_begins(now);
                        let opening = self.log.open_segment(spare);
                        effects.log.push(LogEffect::OpenSegment(opening));
                    }
                    None => self.waits_for_segment(now),
                },
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

    fn release(&mut self) {
        let term = self.raft.term();
        let reclaimed = self.keyspace.reclaimed_through();
        let (physical, replies) = (&mut self.physical, &mut self.replies);
        let (committed, confirmed) = (self.keyspace.committed_index(), self.reads.confirmed());
        self.waiters.release(committed, confirmed, |waiter| {
            match waiter.reclaim_through {
                Some(revision) if revision > reclaimed => physical.push((revision, waiter)),
                _ => replies.push(waiter.into_reply(term)),
            }
        });
        // A checkpoint that came in this turn holds what some of them waited for.
        self.release_forwards();
        if !self.physical.is_empty() {
            for (revision, waiter) in std::mem::take(&mut self.physical) {
                if revision <= reclaimed {
                    self.replies.push(waiter.into_reply(term));
                } else {
                    self.physical.push((revision, waiter));
                }
            }
        }
    }

    fn answer_member_list(&mut self, asker: Asker) {
        let members = Response::MemberList(self.cluster.members());
        self.answer(asker, Ok(members));
    }

    fn refuse(&mut self, asker: Asker, refusal: Refusal) {
        self.answer(asker, Err(refusal));
    }

    /// Answers at the state that readers see.
    fn answer(&mut self, asker: Asker, result: Result<Response, Refusal>) {
        let header = Header {
            revision: self.keyspace.committed_revision(),
            term: self.raft.term(),
        };
        self.replies.push(Reply {
            asker,
            index: self.keyspace.committed_index(),
            header,
            result,
        });
    }

    /// Hands out what was said to clients of this member and to other members.
    fn deliver(&mut self, effects: &mut Effects) {
        for reply in self.replies.drain(..) {
            match reply.asker {
                Asker::Client(ticket) => effects.answers.push(reply.into_answer(ticket)),
                Asker::Member { member, request } => {
                    let message = PeerMessage::Forwarded {
                        request,
                        index: reply.index,
                        header: reply.header,
                        result: reply.result,
                    };
                    self.messages.push((member, message));
                }
            }
        }
        self.send_lagging(&mut effects.log_reads);
        let directories_version = (self.membership_changes(), self.raft.directories_version());
        if self.directories_version != Some(directories_version) {
            self.directories_version = Some(directories_version);
            effects.directories = Some(self.raft.directories());
        }
        effects.messages.append(&mut self.messages);
        effects.notices.append(&mut self.notices);
        if self.store_known_members && !self.storing_known_members {
            self.store_known_members = false;
            self.storing_known_members = true;
            effects.known_members = Some(self.known.clone());
        }
        effects.end = self.end;
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
