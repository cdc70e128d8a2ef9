//! What a shard's core does for the sake of the other members of its group.
//!
//! Owns the way to the peers, the timer for heartbeats and elections, reads of the log for followers that
//! lag, and the file about known members. Must never wait: what takes time runs in tasks and on threads beside
//! the core, and comes back as events of a later turn.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::announce::Announcer;
use super::beside::spawn_beside;
use super::clock::Clock;
use super::core::Timer;
use super::disk::known;
use super::disk::read::read_part;
use super::executor::{Queue, sleep, spawn_local};
use super::fatal::fatal;
use super::mailbox::{Receiver, Sender, mailbox};
use super::router::Doorbell;
use crate::base::limits::PEER_EVENTS_PER_TURN_MAX;
use crate::base::{Incarnation, Instant, MemberId};
use crate::raft::Directories;
use crate::shard::Shard;
use crate::shard::event::{Effects, EndReason, Event, KnownMembers, LogRead, PeerMessage};
use crate::wal::SegmentSequence;

/// A deadline that has passed is not due again before this: a shard that cannot act on it must not keep the core.
const DEADLINE_PAUSE: Duration = Duration::from_millis(1);
/// After a read of the log failed, before the shard is told and tries again.
const READ_RETRY: Duration = Duration::from_millis(100);

/// The way to the other members. Nothing in it blocks, and everything sent may be lost.
pub trait Peers {
    /// Where the others are, all of them: connects to who is new, leaves who is gone.
    fn set_peers(&mut self, peers: &[(MemberId, Vec<String>)]);
    /// Whom to let in: members from these data directories, or from one that the group has agreed on since.
    fn set_directories(&mut self, directories: Directories);
    /// Queues a message; it leaves with the next flush.
    fn send(&mut self, to: MemberId, message: PeerMessage);
    /// The end of a turn: what was queued leaves.
    fn flush(&mut self);
    /// What the others said, in order for each of them.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent>;
}

/// Something that came from another member.
#[derive(Debug)]
pub enum PeerEvent {
    /// It said something. The connection vouches for who it is.
    Received {
        /// Which member.
        from: MemberId,
        /// From which data directory.
        incarnation: Incarnation,
        /// What it said.
        message: PeerMessage,
    },
    /// The connection to it was closed: what was on its way is lost.
    Disconnected(MemberId),
}

/// Parts of the log that were read, until the next turn.
type Reads = Rc<RefCell<VecDeque<(LogRead, Vec<u8>)>>>;

/// A member's side of its group.
pub(super) struct Group {
    peers: Box<dyn Peers>,
    clock: Clock,
    log_directory: PathBuf,
    doorbell: Rc<Doorbell>,
    events: VecDeque<PeerEvent>,
    reads: Reads,
    /// Answers of the thread that stores; one at a time is under way.
    stored_sender: Sender<KnownMembers>,
    stored: Receiver<KnownMembers>,
    stored_events: VecDeque<KnownMembers>,
    /// The changes of the membership that were looked at.
    membership_changes: Option<u64>,
    /// What the peers were set to.
    others: Vec<(MemberId, Vec<String>)>,
    /// Segments that could not be read, so that it is said once.
    unreadable: Rc<RefCell<BTreeSet<SegmentSequence>>>,
    /// Armed for a moment not later than the shard's next deadline.
    deadline: Option<(Instant, Timer)>,
    announcer: Announcer,
    /// Whether this member was removed.
    removed: bool,
}

impl Group {
    pub(super) fn new(
        peers: Box<dyn Peers>,
        clock: Clock,
        log_directory: PathBuf,
        doorbell: Rc<Doorbell>,
    ) -> Group {
        let (stored_sender, stored) = mailbox(1);
        Group {
            peers,
            clock,
            log_directory,
            doorbell,
            events: VecDeque::new(),
            reads: Reads::default(),
            stored_sender,
            stored,
            stored_events: VecDeque::new(),
            membership_changes: None,
            others: Vec::new(),
            unreadable: Rc::default(),
            deadline: None,
            announcer: Announcer::default(),
            removed: false,
        }
    }

    /// Collects what came from others; whether that is anything. Reads of the log ring the doorbell.
    pub(super) fn poll_gather(&mut self, cx: &mut Context<'_>) -> bool {
        while self.events.len() < PEER_EVENTS_PER_TURN_MAX
            && let Poll::Ready(event) = self.peers.poll_event(cx)
        {
            self.events.push_back(event);
        }
        while let Poll::Ready(Some(stored)) = self.stored.poll_receive(cx) {
            self.stored_events.push_back(stored);
        }
        !(self.events.is_empty() && self.stored_events.is_empty())
    }

    /// Whether the shard's deadline has come.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let due = self
            .deadline
            .as_mut()
            .is_some_and(|(_, timer)| timer.as_mut().poll(cx).is_ready());
        if due {
            self.deadline = None;
        }
        due
    }

    /// The next thing that happened.
    pub(super) fn next_event(&mut self) -> Option<Event<'static>> {
        if let Some(event) = self.events.pop_front() {
            return Some(match event {
                PeerEvent::Received {
                    from,
                    incarnation,
                    message,
                } => Event::Peer {
                    from,
                    incarnation,
                    message,
                },
                PeerEvent::Disconnected(peer) => Event::PeerDisconnected(peer),
            });
        }
        if let Some(stored) = self.stored_events.pop_front() {
            return Some(Event::KnownMembersStored(stored));
        }
        let (read, bytes) = self.reads.borrow_mut().pop_front()?;
        Some(Event::LogRead { read, bytes })
    }

    /// Performs what concerns others.
    pub(super) fn perform(&mut self, effects: &mut Effects, shard: &Shard) {
        // Both first, so that everybody a message can be for is known.
        if let Some(directories) = effects.directories.take() {
            self.peers.set_directories(directories);
        }
        self.follow_membership(shard);
        for (to, message) in effects.messages.drain(..) {
            self.peers.send(to, message);
        }
        for read in effects.log_reads.drain(..) {
            self.read_log(read);
        }
        if let Some(known) = effects.known_members.take() {
            self.store(known);
        }
        match effects.end {
            None => {}
            // The others and its clients have yet to hear what it said about that.
            Some(EndReason::Removed) => self.removed = true,
            Some(reason @ (EndReason::OtherDirectory | EndReason::Diverged(_))) => fatal(reason),
        }
    }

    /// Whether the group has removed this member: it must end, in order.
    pub(super) fn is_removed(&self) -> bool {
        self.removed
    }

    /// The end of a turn: messages leave, the timer follows the shard, and what changed is said.
    pub(super) fn end_turn(&mut self, shard: &Shard, now: Instant) {
        self.peers.flush();
        self.arm(shard.next_deadline(), now);
        self.announcer.observe(shard, now);
    }

    fn follow_membership(&mut self, shard: &Shard) {
        let changes = shard.membership_changes();
        if self.membership_changes == Some(changes) {
            return;
        }
        self.membership_changes = Some(changes);
        let own = shard.raft().id();
        let members = shard.members_at_head().into_iter();
        let others: Vec<(MemberId, Vec<String>)> = members
            .filter(|member| member.id != own)
            .map(|member| (member.id, member.peer_urls))
            .collect();
        // What is agreed about members changes more often than where they are.
        if self.others != others {
            self.peers.set_peers(&others);
            self.others = others;
        }
    }

    /// A timer that fires early costs one look; arming one for every message would cost each time.
    fn arm(&mut self, due: Option<Instant>, now: Instant) {
        let Some(due) = due else {
            return;
        };
        if self.deadline.as_ref().is_some_and(|(at, _)| *at <= due) {
            return;
        }
        // The turn took a while since `now`.
        let span = due.since(self.clock.now().max(now)).max(DEADLINE_PAUSE);
        self.deadline = Some((due, Box::pin(sleep(span))));
    }

    fn read_log(&self, read: LogRead) {
        let path = self.log_directory.join(read.location.segment.file_name());
        let (reads, doorbell) = (Rc::clone(&self.reads), Rc::clone(&self.doorbell));
        let unreadable = Rc::clone(&self.unreadable);
        let task = async move {
            let segment = read.location.segment;
            let size = usize::try_from(read.size_bytes).expect("at most a segment");
            let bytes = match read_part(&path, read.location.offset, size).await {
                Ok(bytes) => {
                    unreadable.borrow_mut().remove(&segment);
                    bytes
                }
                Err(error) => {
                    // Not a reason to end: the shard asks some times more, and then sends a checkpoint. It is
                    // said once.
                    if unreadable.borrow_mut().insert(segment) {
                        let path = path.display();
                        tracing::warn!(index = %read.index, "{path}: cannot be read for a follower: {error}");
                    }
                    sleep(READ_RETRY).await;
                    Vec::new()
                }
            };
            reads.borrow_mut().push_back((read, bytes));
            doorbell.ring();
        };
        spawn_local(Queue::Shard, task).detach();
    }

    /// On a thread: replacing a file waits for the disk twice.
    fn store(&self, known: KnownMembers) {
        let (directory, done) = (self.log_directory.clone(), self.stored_sender.clone());
        let thread = spawn_beside("known-members", move || {
            if let Err(error) = known::store(&directory, &known) {
                fatal(error);
            }
            done.send_waiting(known);
        });
        if let Err(error) = thread {
            fatal(format_args!("cannot start a thread: {error}"));
        }
    }
}
