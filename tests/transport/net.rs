//! Transports of one executor over loopback, and hand-made peers with plain sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use kontiki::base::checksum::crc32c;
use kontiki::base::{ClusterId, Incarnation, MemberId, ShardId};
use kontiki::raft::Body;
use kontiki::runtime::executor::{run, sleep, timeout};
use kontiki::runtime::net::{Listener, Sharing, open};
use kontiki::shard::event::PeerMessage;
use kontiki::transport::{Transport, TransportConfig, TransportEvent};

/// Nothing on loopback takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const SHARD: ShardId = ShardId(0);
pub(crate) const A: MemberId = MemberId(1);
pub(crate) const B: MemberId = MemberId(2);
pub(crate) const C: MemberId = MemberId(3);

/// What no count reaches.
const LAST: u64 = 1 << 40;

/// Runs a test on an executor of its own.
pub(crate) fn on_new_thread<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || run(test()).expect("a ring"))
        .join()
        .expect("the test passes");
}

/// A member's end of the network.
pub(crate) struct Node {
    pub(crate) id: MemberId,
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
}

pub(crate) fn config(id: MemberId) -> TransportConfig {
    TransportConfig::new(CLUSTER, id, incarnation(id), SHARD)
}

pub(crate) fn incarnation(id: MemberId) -> Incarnation {
    Incarnation(u128::from(id.0) << 64)
}

pub(crate) fn listen(address: SocketAddr) -> Listener {
    open(address, 1, Sharing::Exclusive)
        .expect("a free port")
        .remove(0)
}

impl Node {
    pub(crate) fn start(id: MemberId) -> Node {
        Node::start_with(config(id), "127.0.0.1:0".parse().expect("an address"))
    }

    pub(crate) fn start_with(config: TransportConfig, address: SocketAddr) -> Node {
        let listener = listen(address);
        let id = config.member;
        Node {
            id,
            address: listener.local_addr(),
            transport: Transport::start(config, vec![listener]),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A message at once.
    pub(crate) fn say(&mut self, to: MemberId, message: PeerMessage) {
        self.transport.send(to, message);
        self.transport.flush();
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> TransportEvent {
        let next = std::future::poll_fn(|cx| self.transport.poll_event(cx));
        timeout(PATIENCE, next).await.expect("something happens")
    }

    /// The next event if there is one already.
    pub(crate) async fn event_now(&mut self) -> Option<TransportEvent> {
        std::future::poll_fn(|cx| {
            Poll::Ready(match self.transport.poll_event(cx) {
                Poll::Ready(event) => Some(event),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> (MemberId, PeerMessage) {
        match self.event().await {
            TransportEvent::Received { from, message, .. } => (from, message),
            TransportEvent::Disconnected(member) => panic!("{member} is lost"),
        }
    }

    /// Says numbers to a member until one of them is heard there, then takes all of them out.
    pub(crate) async fn reach(&mut self, other: &mut Node) {
        let deadline = std::time::Duration::from_millis(1);
        let mut number = 0;
        loop {
            number += 1;
            self.say(other.id, crate::messages::heartbeat(number));
            let heard = timeout(
                deadline,
                std::future::poll_fn(|cx| other.transport.poll_event(cx)),
            )
            .await;
            match heard {
                Ok(TransportEvent::Received { from, .. }) if from == self.id => break,
                Ok(TransportEvent::Received { .. }) => {}
                Ok(TransportEvent::Disconnected(member)) => panic!("{member} is lost"),
                Err(_) => assert!(number < 20_000, "{} never hears {}", other.id, self.id),
            }
        }
        // What was said after the first that arrived.
        self.say(other.id, crate::messages::heartbeat(LAST));
        loop {
            if let (from, message) = other.message().await
                && from == self.id
                && number_of(&message) == LAST
            {
                return;
            }
        }
    }
}

/// Everyone knows everyone.
pub(crate) fn introduce(nodes: &mut [Node]) {
    let peers: Vec<_> = nodes
        .iter()
        .map(|node| (node.id, vec![node.url()]))
        .collect();
    for node in nodes {
        node.transport.set_peers(&peers);
    }
}

/// Waits until all messages of every path reach everyone.
pub(crate) async fn connected(nodes: &mut [Node]) {
    for from in 0..nodes.len() {
        for to in 0..nodes.len() {
            if from != to {
                let [one, other] = nodes.get_disjoint_mut([from, to]).expect("two of them");
                one.reach(other).await;
            }
        }
    }
    // The connections of the other paths, and those that stand by.
    sleep(Duration::from_millis(50)).await;
}

/// What a heartbeat of these tests says.
pub(crate) fn number_of(message: &PeerMessage) -> u64 {
    match message {
        PeerMessage::Raft { message, .. } => match &message.body {
            Body::Heartbeat(heartbeat) => heartbeat.commit.0,
            Body::Append(append) => append.prev.index.0,
            other => panic!("not said here: {other:?}"),
        },
        other => panic!("not said here: {other:?}"),
    }
}

/// A greeting as its description has it, written by hand.
#[derive(Clone, Copy)]
pub(crate) struct HandMade {
    pub(crate) versions: (u8, u8),
    pub(crate) path: u8,
    pub(crate) shard: u32,
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    pub(crate) wanted: u64,
    pub(crate) incarnation: u128,
    pub(crate) agreed: bool,
}

impl HandMade {
    /// One that is welcome.
    pub(crate) fn from(member: MemberId, wanted: MemberId) -> HandMade {
        HandMade {
            versions: (1, 1),
            path: 2,
            shard: SHARD.0,
            cluster: CLUSTER.0,
            member: member.0,
            wanted: wanted.0,
            incarnation: incarnation(member).0,
            agreed: false,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"KTKHELLO".to_vec();
        bytes.extend([self.versions.0, self.versions.1, self.path, 0]);
        bytes.extend(self.shard.to_le_bytes());
        for id in [self.cluster, self.member, self.wanted] {
            bytes.extend(id.to_le_bytes());
        }
        bytes.extend(self.incarnation.to_le_bytes());
        bytes.push(u8::from(self.agreed));
        bytes.resize(76, 0);
        bytes.extend(crc32c(&bytes).to_le_bytes());
        bytes
    }
}
