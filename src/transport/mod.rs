//! Connections between the members of one shard's group.
//!
//! Owns them all, for one shard, on its core: who is connected, what waits to be sent, what was received and
//! checked. A message that is put in either arrives whole and as it was, or not at all; those of one path to
//! one peer arrive in order while a connection lasts. Must never block a turn, hold more than its bounds, or
//! believe a byte that was not checked; what a message means is the shard's affair.
//!
//! ```text
//! send -> table: waiting, by peer and path -> link: bytes -> the kernel          flush, once a turn
//! poll_event <- inbox: prompt, ordered, bulk <- link: frames, checked <- kernel  a task for each connection
//! dial, greet: make connections and find out who is there                        a task for each path
//! ```

mod dial;
mod greet;
mod hello;
mod inbox;
mod link;
pub mod outgoing;
mod table;
pub mod wire;

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use self::hello::Admission;
use self::hello::{Own, Path};
use self::inbox::Inbox;
use self::table::Table;
use crate::base::limits::{
    PEER_CONNECT_TIMEOUT, PEER_FRAME_TIMEOUT, PEER_HANDSHAKE_TIMEOUT, PEER_RECEIVED_BYTES_MAX,
    PEER_RECONNECT_MAX, PEER_RECONNECT_MIN, PEER_SILENCE_MAX,
};
use crate::base::prng::Prng;
use crate::base::{ClusterId, Incarnation, MemberId, ShardId};
use crate::runtime::clock;
use crate::runtime::executor::{Queue, Task, spawn_local};
use crate::runtime::net::Listener;
use crate::shard::event::PeerMessage;

/// Who this member is, and how patient.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Its cluster: others are refused.
    pub cluster: ClusterId,
    /// Itself.
    pub member: MemberId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// The shard whose messages these are.
    pub shard: ShardId,
    /// For a peer's kernel to answer.
    pub connect_timeout: Duration,
    /// For a peer to say who it is.
    pub handshake_timeout: Duration,
    /// For a frame that has begun to go on.
    pub frame_timeout: Duration,
    /// How long bytes may go without an acknowledgement by the peer's kernel.
    pub silence_max: Duration,
    /// The pause after a lost connection, at most.
    pub reconnect_min: Duration,
    /// The pause between two attempts, at most.
    pub reconnect_max: Duration,
    /// Bytes that one connection may receive before the shard has looked at them.
    pub received_bytes_max: usize,
}

impl TransportConfig {
    /// With the limits of [`crate::base::limits`].
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        member: MemberId,
        incarnation: Incarnation,
        shard: ShardId,
    ) -> TransportConfig {
        TransportConfig {
            cluster,
            member,
            incarnation,
            shard,
            connect_timeout: PEER_CONNECT_TIMEOUT,
            handshake_timeout: PEER_HANDSHAKE_TIMEOUT,
            frame_timeout: PEER_FRAME_TIMEOUT,
            silence_max: PEER_SILENCE_MAX,
            reconnect_min: PEER_RECONNECT_MIN,
            reconnect_max: PEER_RECONNECT_MAX,
            received_bytes_max: PEER_RECEIVED_BYTES_MAX,
        }
    }
}

/// What the connections tell the shard.
#[derive(Debug)]
pub enum TransportEvent {
    /// A member said something.
    Received {
        /// Who.
        from: MemberId,
        /// From which data directory.
        incarnation: Incarnation,
        /// What.
        message: PeerMessage,
    },
    /// The connection to a member ended: what was on its way is lost. Said once, until something is heard
    /// of the member again.
    Disconnected(MemberId),
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// Messages that wait or went to the kernel.
    pub sent_messages: u64,
    /// Messages that were dropped: no connection, or no room.
    pub dropped_messages: u64,
    /// Connections of others that were not wanted.
    pub refused_connections: u64,
    /// Connections that were closed because of what came over them.
    pub damaged_connections: u64,
}

/// What the tasks of one transport share.
struct Shared {
    own: Own,
    config: TransportConfig,
    inbox: Inbox,
    table: RefCell<Table>,
    /// For the pauses between attempts.
    random: RefCell<Prng>,
}

/// The connections of one shard. Dropping it ends them.
pub struct Transport {
    shared: Rc<Shared>,
    _listening: Vec<Task<()>>,
}

impl Transport {
    /// Begins to listen. Nobody is known yet: see [`Transport::set_peers`].
    #[must_use]
    pub fn start(config: TransportConfig, listeners: Vec<Listener>) -> Transport {
        let own = Own::new(
            config.cluster,
            config.member,
            config.incarnation,
            config.shard,
        );
        // Members that start together must not try together.
        let seed = config.member.0 ^ clock::wall().as_nanos() as u64;
        let shared = Rc::new(Shared {
            own,
            config,
            inbox: Inbox::default(),
            table: RefCell::default(),
            random: RefCell::new(Prng::from_seed(seed)),
        });
        let listening = listeners
            .into_iter()
            .map(|listener| {
                let accepting = greet::accept(Rc::downgrade(&shared), listener);
                spawn_local(Queue::Connections, accepting)
            })
            .collect();
        Transport {
            shared,
            _listening: listening,
        }
    }

    /// These are the others, with the URLs where they are to be found. Who is not among them any more is
    /// disconnected; who is found elsewhere now is connected to there.
    pub fn set_peers(&mut self, peers: &[(MemberId, Vec<String>)]) {
        let own = self.shared.own.member;
        let known: Vec<MemberId> = {
            let table = self.shared.table.borrow();
            let known = table.peers.iter().filter(|(_, peer)| peer.urls.is_some());
            known.map(|(member, _)| *member).collect()
        };
        for member in known {
            if !peers.iter().any(|(peer, _)| *peer == member) {
                self.forget(member);
            }
        }
        for (member, urls) in peers.iter().filter(|(member, _)| *member != own) {
            self.look_for(*member, urls);
        }
    }

    fn forget(&self, member: MemberId) {
        let removed = self.shared.table.borrow_mut().forget(member);
        // Its tasks are cancelled here, when nothing is borrowed.
        drop(removed);
    }

    fn look_for(&self, member: MemberId, urls: &[String]) {
        let before = self.shared.table.borrow_mut().found_at(member, urls);
        let Some(before) = before else {
            return;
        };
        if !before.is_empty() {
            self.abandon_dialed(member);
        }
        drop(before);
        let dialers = Path::ALL
            .into_iter()
            .map(|path| {
                let dialing = dial::dial(Rc::downgrade(&self.shared), member, path, urls.to_vec());
                spawn_local(Queue::Connections, dialing)
            })
            .collect();
        let mut table = self.shared.table.borrow_mut();
        if let Some(peer) = table.peers.get_mut(&member) {
            peer.dialers = dialers;
        }
    }

    /// The connections that were opened to where a member was: their tasks end with those that dial.
    fn abandon_dialed(&self, member: MemberId) {
        let mut table = self.shared.table.borrow_mut();
        table.abandon_dialed(self.shared.own.member, member, &self.shared.inbox);
    }

    /// Whom to let in, as far as the shard knows. A connection of a directory that is not welcome any more ends.
    pub fn set_admission(&mut self, admission: Admission) {
        self.shared.table.borrow_mut().set_admission(admission);
    }

    /// Puts a message in, which leaves at [`Transport::flush`]. It is dropped when there is no connection or
    /// no room.
    pub fn send(&mut self, to: MemberId, message: PeerMessage) {
        self.shared.table.borrow_mut().send(to, message);
    }

    /// The end of a turn: what was put in leaves, with one system call for each peer and path if the kernel
    /// has room. What does not fit follows beside the shard.
    pub fn flush(&mut self) {
        self.shared.table.borrow_mut().flush();
    }

    /// The next event, or the caller is woken when there is one.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<TransportEvent> {
        self.shared.inbox.poll(cx)
    }

    /// What was counted since the start.
    #[must_use]
    pub fn stats(&self) -> TransportStats {
        self.shared.table.borrow().stats
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        let members: Vec<MemberId> = {
            let table = self.shared.table.borrow();
            table.peers.keys().copied().collect()
        };
        for member in members {
            self.forget(member);
        }
    }
}
