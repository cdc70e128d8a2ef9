//! One member as its owner would drive it: a core, a log in memory, and a disk that holds what was synced.

use std::collections::BTreeMap;
use std::time::Duration;

use kontiki::base::{HardState, Incarnation, Index, Instant, MemberId, Term};
use kontiki::raft::{
    Body, Change, Config, LogTerms, Membership, Message, Output, Position, Raft, Rebuild, Windows,
};

pub(crate) const ELECTION_TIMEOUT: Duration = Duration::from_millis(1_000);
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
/// What every entry is said to take. Small windows are a few of these.
pub(crate) const ENTRY_SIZE_BYTES: u64 = 8 * 1_024;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Noop,
    Data(u64),
    Change(Change),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) payload: Payload,
}

/// A log after a checkpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) base: Position,
    pub(crate) membership: Membership,
    pub(crate) entries: Vec<Entry>,
}

impl Log {
    pub(crate) fn last(&self) -> Index {
        Index(self.base.index.0 + self.entries.len() as u64)
    }

    pub(crate) fn last_term(&self) -> Term {
        self.entries
            .last()
            .map_or(self.base.term, |entry| entry.term)
    }

    pub(crate) fn at(&self, index: Index) -> Option<Entry> {
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries
            .get(usize::try_from(offset).expect("small"))
            .copied()
    }

    fn truncate(&mut self, after: Index) {
        let kept = after.0 - self.base.index.0;
        self.entries.truncate(usize::try_from(kept).expect("small"));
    }

    /// The state at `index` becomes the base.
    pub(crate) fn compact(&mut self, index: Index) {
        let Some(entry) = self.at(index) else { return };
        self.membership = self.membership_at(index);
        let through = usize::try_from(index.0 - self.base.index.0).expect("small");
        self.entries.drain(..through);
        let term = entry.term;
        self.base = Position { term, index };
    }

    pub(crate) fn membership_at(&self, index: Index) -> Membership {
        let count = usize::try_from(index.0 - self.base.index.0).expect("small");
        let mut membership = self.membership.clone();
        for entry in &self.entries[..count] {
            if let Payload::Change(change) = entry.payload {
                membership = membership.after(&change).expect("it was appended");
            }
        }
        membership
    }

    fn memberships(&self) -> Vec<(Index, Membership)> {
        let mut history = vec![(self.base.index, self.membership.clone())];
        for (offset, entry) in self.entries.iter().enumerate() {
            if let Payload::Change(change) = entry.payload {
                let index = Index(self.base.index.0 + 1 + offset as u64);
                let next = history
                    .last()
                    .expect("one")
                    .1
                    .after(&change)
                    .expect("appended");
                history.push((index, next));
            }
        }
        history
    }
}

/// What survives a crash.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) incarnation: Incarnation,
    pub(crate) confirmed: bool,
    pub(crate) incarnations: BTreeMap<MemberId, Incarnation>,
    pub(crate) hard_state: HardState,
    pub(crate) log: Log,
    pub(crate) rebuild: Option<Rebuild>,
    pub(crate) vote_floor: Term,
    /// It was damaged or emptied: what it once had durable counts as durable.
    pub(crate) lost_something: bool,
}

impl Disk {
    /// An empty directory.
    pub(crate) fn new(incarnation: u128, membership: Membership) -> Disk {
        Disk {
            incarnation: Incarnation(incarnation),
            confirmed: false,
            incarnations: BTreeMap::new(),
            hard_state: HardState::default(),
            log: Log {
                membership,
                ..Log::default()
            },
            rebuild: None,
            vote_floor: Term(0),
            lost_something: false,
        }
    }
}

/// A sync under way: what it will have put on the disk, and what may be reported of it.
#[derive(Clone, Debug)]
struct Sync {
    hard_state: HardState,
    log: Log,
    durable: Index,
}

/// What travels: a message, and the entries that were attached to it.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Message(Message, Vec<Entry>),
    Checkpoint {
        term: Term,
        base: Position,
        membership: Membership,
        sender: Incarnation,
    },
}

/// What the cluster has to do for a member, or wants to know.
#[derive(Clone, Debug)]
pub(crate) enum Doing {
    Send(MemberId, Packet),
    Said(Output),
}

/// What options a test gives its members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) windows: Windows,
    pub(crate) pre_vote: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            windows: Windows::default(),
            pre_vote: true,
        }
    }
}

pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) raft: Raft,
    pub(crate) log: Log,
    pub(crate) disk: Disk,
    sync: Option<Sync>,
    /// Whether something changed since the last sync began.
    dirty: bool,
}

impl Member {
    pub(crate) fn start(id: MemberId, disk: Disk, options: Options, seed: u64) -> Member {
        let mut terms = LogTerms::after(disk.log.base);
        for entry in &disk.log.entries {
            terms.append(entry.term, ENTRY_SIZE_BYTES);
        }
        let config = Config {
            id,
            incarnation: disk.incarnation,
            confirmed: disk.confirmed,
            incarnations: disk.incarnations.clone(),
            memberships: disk.log.memberships(),
            rebuild: disk.rebuild,
            vote_floor: disk.vote_floor,
            election_timeout: ELECTION_TIMEOUT,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            windows: options.windows,
            pre_vote: options.pre_vote,
            check_quorum: true,
            seed,
        };
        let last = terms.last_index();
        let raft = Raft::new(config, disk.hard_state, terms, last);
        Member {
            id,
            // A vote that cannot be given any more is written like one that was.
            dirty: raft.hard_state() != disk.hard_state,
            raft,
            log: disk.log.clone(),
            disk,
            sync: None,
        }
    }

    pub(crate) fn is_syncing(&self) -> bool {
        self.sync.is_some()
    }

    pub(crate) fn needs_sync(&self) -> bool {
        self.sync.is_some() || self.dirty
    }

    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Doing> {
        let mut outputs = Vec::new();
        self.raft.tick(now, &mut outputs);
        self.finish(now, outputs, &[])
    }

    pub(crate) fn receive(&mut self, from: MemberId, packet: Packet, now: Instant) -> Vec<Doing> {
        let mut outputs = Vec::new();
        match packet {
            Packet::Message(message, entries) => {
                let first = match &message.body {
                    Body::Append(append) => append.prev.index.0 + 1,
                    _ => 0,
                };
                self.raft.step(from, message, now, &mut outputs);
                let numbered: Vec<_> = (first..).map(Index).zip(entries).collect();
                self.finish(now, outputs, &numbered)
            }
            Packet::Checkpoint {
                term,
                base,
                membership,
                sender,
            } => {
                // A bulk connection is checked like any other before it may say anything.
                if self.raft.directory_of(from) == Some(sender) {
                    self.raft
                        .install_checkpoint(from, term, base, membership, now, &mut outputs);
                }
                self.finish(now, outputs, &[])
            }
        }
    }

    pub(crate) fn propose(&mut self, payload: Payload, now: Instant) -> Vec<Doing> {
        let mut outputs = Vec::new();
        match payload {
            Payload::Change(change) => {
                if self.raft.check_change(&change).is_ok() {
                    let (term, _) =
                        self.raft
                            .append_change(&change, ENTRY_SIZE_BYTES, &mut outputs);
                    self.push(Entry { term, payload });
                }
            }
            payload => {
                if self.raft.next_position().is_some() {
                    let (term, _) = self.raft.append(ENTRY_SIZE_BYTES);
                    self.push(Entry { term, payload });
                }
            }
        }
        self.finish(now, outputs, &[])
    }

    pub(crate) fn with(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Raft, &mut Vec<Output>),
    ) -> Vec<Doing> {
        let mut outputs = Vec::new();
        act(&mut self.raft, &mut outputs);
        self.finish(now, outputs, &[])
    }

    /// Submits a sync of what there is, unless one is under way.
    pub(crate) fn begin_sync(&mut self) {
        if self.sync.is_none() && self.dirty {
            self.dirty = false;
            self.sync = Some(Sync {
                hard_state: self.raft.hard_state(),
                log: self.log.clone(),
                durable: self.log.last(),
            });
        }
    }

    /// The sync under way is complete.
    pub(crate) fn end_sync(&mut self, now: Instant) -> Vec<Doing> {
        let mut outputs = Vec::new();
        if let Some(sync) = self.sync.take() {
            self.place(sync.clone());
            self.raft.hard_state_durable(sync.hard_state, &mut outputs);
            // A checkpoint may have replaced the log meanwhile.
            let durable = sync.durable.min(self.log.last());
            self.raft.log_durable(durable, &mut outputs);
        }
        self.finish(now, outputs, &[])
    }

    fn place(&mut self, sync: Sync) {
        self.disk.hard_state = sync.hard_state;
        // A checkpoint of its own is on disk by itself, and the newer one counts.
        if sync.log.base.index >= self.disk.log.base.index {
            self.disk.log = sync.log;
        } else if sync
            .log
            .at(self.disk.log.base.index)
            .map(|entry| entry.term)
            == Some(self.disk.log.base.term)
        {
            let base = self.disk.log.base.index;
            self.disk.log = sync.log;
            self.disk.log.compact(base);
        }
        let hard_state = &mut self.disk.hard_state;
        hard_state.commit = hard_state
            .commit
            .min(self.disk.log.last())
            .max(self.disk.log.base.index);
    }

    /// The process dies; a sync under way may or may not have reached the disk.
    pub(crate) fn crash(mut self, reached: bool) -> Disk {
        if let Some(sync) = self.sync.take().filter(|_| reached) {
            self.place(sync);
        }
        self.disk
    }

    fn push(&mut self, entry: Entry) {
        self.log.entries.push(entry);
        self.dirty = true;
    }

    /// Does what came out, and what comes out of that.
    fn finish(
        &mut self,
        now: Instant,
        outputs: Vec<Output>,
        received: &[(Index, Entry)],
    ) -> Vec<Doing> {
        let mut doings = Vec::new();
        self.perform(outputs, received, &mut doings);
        let mut outputs = Vec::new();
        self.raft.flush(now, &mut outputs);
        self.perform(outputs, &[], &mut doings);
        assert_eq!(
            self.raft.last_index(),
            self.log.last(),
            "core and log of {}",
            self.id
        );
        doings
    }

    fn perform(
        &mut self,
        outputs: Vec<Output>,
        received: &[(Index, Entry)],
        doings: &mut Vec<Doing>,
    ) {
        for output in outputs {
            let mut further = Vec::new();
            doings.push(Doing::Said(output.clone()));
            match output {
                Output::PersistHardState(_) => self.dirty = true,
                Output::Send { to, message } => {
                    let entries = self.attach(&message);
                    doings.push(Doing::Send(to, Packet::Message(message, entries)));
                }
                Output::TruncateLog { after } => {
                    self.log.truncate(after);
                    if let Some(sync) = &mut self.sync {
                        sync.durable = sync.durable.min(after);
                    }
                    self.dirty = true;
                }
                Output::AppendEntries { first, last } => {
                    for &(index, entry) in received {
                        if index < first || index > last {
                            continue;
                        }
                        assert_eq!(index, self.log.last().next(), "entries in order");
                        self.push(entry);
                        if let Payload::Change(_) = entry.payload {
                            let membership = self.log.membership_at(index);
                            self.raft
                                .membership_appended(index, membership, &mut further);
                        }
                    }
                    assert_eq!(last, self.log.last(), "all of the entries were attached");
                }
                Output::ResetLog { base } => {
                    let membership = self.raft.membership().clone();
                    self.log = Log {
                        base,
                        membership,
                        entries: Vec::new(),
                    };
                    // Until the next sync the disk says nothing of it. What is under way may be void.
                    if let Some(sync) = &mut self.sync {
                        sync.durable = sync.durable.min(self.disk.hard_state.commit);
                    }
                    self.dirty = true;
                }
                Output::BecameLeader { .. } => {
                    let (term, _) = self.raft.append(ENTRY_SIZE_BYTES);
                    self.push(Entry {
                        term,
                        payload: Payload::Noop,
                    });
                }
                Output::NeedsCheckpoint { to } => {
                    doings.push(Doing::Send(
                        to,
                        Packet::Checkpoint {
                            term: self.raft.term(),
                            base: self.log.base,
                            membership: self.log.membership.clone(),
                            sender: self.disk.incarnation,
                        },
                    ));
                }
                Output::LearnIncarnation {
                    member,
                    incarnation,
                } => {
                    self.disk.incarnations.insert(member, incarnation);
                    self.raft.incarnation_durable(member, incarnation);
                }
                Output::ForgetIncarnation { member } => {
                    self.disk.incarnations.remove(&member);
                }
                Output::IdentityConfirmed => self.disk.confirmed = true,
                Output::Rebuilt => self.disk.rebuild = None,
                Output::Committed(_)
                | Output::SteppedDown(_)
                | Output::LeaderChanged(_)
                | Output::ReadReady { .. }
                | Output::MembershipChanged(_)
                | Output::CompareDigest(_)
                | Output::RefusedPeer { .. }
                | Output::FollowerForgot { .. }
                | Output::OwnIdentityRefused
                | Output::Removed
                | Output::TransferAbandoned { .. } => {}
            }
            self.perform(further, &[], doings);
        }
    }

    fn attach(&self, message: &Message) -> Vec<Entry> {
        let Body::Append(append) = &message.body else {
            return Vec::new();
        };
        let mut entries = Vec::new();
        let mut index = append.prev.index.next();
        for run in &append.entries.runs {
            for _ in 0..run.count {
                let entry = self.log.at(index).expect("a range of the log");
                assert_eq!(entry.term, run.term, "the range's term at {index}");
                entries.push(entry);
                index = index.next();
            }
        }
        entries
    }

    /// Makes the committed prefix up to `index` a checkpoint, and releases the entries.
    pub(crate) fn compact(&mut self, index: Index) {
        let index = index.min(self.disk.log.last()).min(self.raft.commit());
        if index > self.log.base.index && self.disk.log.at(index) == self.log.at(index) {
            self.log.compact(index);
            self.disk.log.compact(index);
            let commit = &mut self.disk.hard_state.commit;
            *commit = (*commit).max(index);
            self.disk.hard_state.term = self.disk.hard_state.term.max(self.log.base.term);
            self.raft.log_released(index);
        }
    }
}
