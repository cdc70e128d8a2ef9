//! Two and three transports over loopback: order, loss, bounds, and who goes first.

use std::time::Duration;

use kontiki::base::limits::{
    PEER_CLIENT_QUEUED_BYTES_MAX, PEER_QUEUED_BYTES_MAX, PEER_RECEIVED_BYTES_MAX,
    RAFT_INFLIGHT_BYTES_MAX,
};
use kontiki::base::{Incarnation, Index, MemberId};
use kontiki::keyspace::request::{DeleteRangeResponse, KeyValue};
use kontiki::raft::{Body, Directories};
use kontiki::runtime::executor::{Queue, sleep, spawn_local, timeout};
use kontiki::shard::event::{Header, PeerMessage, Response};
use kontiki::transport::{Admission, TransportEvent};

use crate::messages::{append, block, heartbeat};
use crate::net::{
    A, B, C, Node, PATIENCE, config, connected, incarnation, introduce, number_of, on_new_thread,
};

async fn pair() -> [Node; 2] {
    let mut nodes = [Node::start(A), Node::start(B)];
    introduce(&mut nodes);
    connected(&mut nodes).await;
    nodes
}

/// Goal: among three, everything that is said arrives once, in order and from whom it came.
#[test]
fn three_in_order() {
    on_new_thread(|| async {
        let mut nodes = [Node::start(A), Node::start(B), Node::start(C)];
        introduce(&mut nodes);
        connected(&mut nodes).await;
        const COUNT: u64 = 2_000;
        for number in 1..=COUNT {
            for (from, to) in [(0, B), (0, C), (1, A), (1, C), (2, A), (2, B)] {
                let size = usize::try_from(number % 7 * 100).expect("small");
                nodes[from].transport.send(to, append(number, &[size, 1]));
            }
            if number % 10 == 0 {
                for node in &mut nodes {
                    node.transport.flush();
                }
            }
        }
        for node in &mut nodes {
            let mut heard = [0_u64; 4];
            for _ in 0..2 * COUNT {
                let (from, message) = node.message().await;
                let last = &mut heard[usize::try_from(from.0).expect("small")];
                assert_eq!(number_of(&message), *last + 1, "{from} to {}", node.id);
                *last += 1;
            }
            assert!(node.event_now().await.is_none());
            assert_eq!(node.transport.stats().damaged_connections, 0);
        }
    });
}

/// Goal: a member that goes away is noticed at once and once, and when it is back it is heard again quickly.
#[test]
fn away_and_back() {
    on_new_thread(|| async {
        let [mut a, mut b] = pair().await;
        for _ in 0..3 {
            let address = b.address;
            drop(b);
            assert!(matches!(a.event().await, TransportEvent::Disconnected(B)));
            b = Node::start_with(config(B), address);
            b.transport.set_peers(&[(A, vec![a.url()])]);
            a.reach(&mut b).await;
            b.reach(&mut a).await;
        }
    });
}

/// Goal: a member is found by its name, where it has moved to, and not any more when it was removed.
#[test]
fn moved_and_removed() {
    on_new_thread(|| async {
        let mut a = Node::start(A);
        let mut b = Node::start(B);
        let by_name = |node: &Node| vec![format!("http://localhost:{}", node.address.port())];
        let nowhere = vec!["http://no-such-host.invalid:1".to_owned()];
        b.transport.set_peers(&[(A, nowhere.clone())]);
        a.transport.set_peers(&[(B, by_name(&b))]);
        a.reach(&mut b).await;
        // Over the same connection, for b cannot find a.
        b.reach(&mut a).await;

        drop(b);
        assert!(matches!(a.event().await, TransportEvent::Disconnected(B)));
        let mut b = Node::start(B);
        b.transport.set_peers(&[(A, nowhere)]);
        a.transport
            .set_peers(&[(B, vec!["http://127.0.0.1:1".into(), b.url()])]);
        a.reach(&mut b).await;

        a.transport.set_peers(&[]);
        assert!(matches!(b.event().await, TransportEvent::Disconnected(A)));
        let before = a.transport.stats().dropped_messages;
        a.say(B, heartbeat(1));
        assert_eq!(a.transport.stats().dropped_messages, before + 1);
    });
}

/// Goal: connections over IPv6, also with a second URL that leads nowhere.
#[test]
fn over_ipv6() {
    on_new_thread(|| async {
        let address = "[::1]:0".parse().expect("an address");
        let mut nodes = [A, B].map(|id| Node::start_with(config(id), address));
        introduce(&mut nodes);
        connected(&mut nodes).await;
    });
}

/// Goal: a heartbeat does not wait behind a full window of entries.
#[test]
fn heartbeat_overtakes() {
    on_new_thread(|| async {
        let [mut a, mut b] = pair().await;
        let size = 512 << 10;
        let count = RAFT_INFLIGHT_BYTES_MAX / size;
        for number in 1..=count {
            a.transport.send(B, append(number, &[size as usize]));
        }
        a.transport.flush();
        a.say(B, heartbeat(77));
        let mut before = 0;
        loop {
            let (_, message) = b.message().await;
            if number_of(&message) == 77 {
                break;
            }
            before += 1;
        }
        assert!(
            before < count / 2,
            "{before} of {count} messages came first"
        );
        for number in before + 1..=count {
            assert_eq!(number_of(&b.message().await.1), number);
        }
    });
}

/// Goal: a member that does not listen costs the sender its queue and no more; what was not dropped arrives
/// whole and in order when it listens again, and others are not held up.
#[test]
fn slow_reader() {
    on_new_thread(|| async {
        let mut nodes = [Node::start(A), Node::start(B), Node::start(C)];
        introduce(&mut nodes);
        connected(&mut nodes).await;
        let [a, b, c] = &mut nodes;
        const SIZE: usize = 256 << 10;
        let bound = PEER_QUEUED_BYTES_MAX + PEER_RECEIVED_BYTES_MAX;
        let count = 3 * bound / SIZE;
        let before = a.transport.stats();
        for number in 1..=count as u64 {
            a.say(B, append(number, &[SIZE]));
            a.say(C, heartbeat(number));
            assert_eq!(number_of(&c.message().await.1), number);
        }
        let after = a.transport.stats();
        let dropped = after.dropped_messages - before.dropped_messages;
        let sent = after.sent_messages - before.sent_messages - count as u64;
        assert_eq!(sent + dropped, count as u64);
        // The kernel's buffers hold some, too.
        assert!(
            sent as usize * SIZE < bound + (24 << 20),
            "{sent} were taken"
        );
        assert!(dropped > 0);
        let mut last = 0;
        for _ in 0..sent {
            let number = number_of(&b.message().await.1);
            assert!(number > last);
            last = number;
        }
        assert!(b.event_now().await.is_none());
    });
}

/// Goal: an answer of many small versions, which take more memory than their bytes on the wire, arrives whole, also where
/// that memory is above what may wait for one peer.
#[test]
fn answer_of_many_versions() {
    on_new_thread(|| async {
        let [mut a, mut b] = pair().await;
        b.transport.set_admission(Admission {
            directories: Directories {
                stored: [(A, incarnation(A))].into(),
                ..Directories::default()
            },
            hear_strangers: true,
        });
        let version = |number: u32| KeyValue {
            key: number.to_be_bytes().to_vec().into(),
            ..KeyValue::default()
        };
        let prev_kvs: Vec<_> = (0..400_000).map(version).collect();
        let held: usize = prev_kvs.len() * size_of::<KeyValue>();
        assert!(held > PEER_CLIENT_QUEUED_BYTES_MAX);
        let response = DeleteRangeResponse {
            deleted: 400_000,
            prev_kvs: prev_kvs.clone(),
        };
        let answer = PeerMessage::Forwarded {
            request: 7,
            index: Index(1),
            header: Header::default(),
            result: Ok(Response::DeleteRange(response)),
        };
        a.say(B, answer);
        match b.message().await {
            (A, PeerMessage::Forwarded { result, .. }) => match result {
                Ok(Response::DeleteRange(response)) => assert!(response.prev_kvs == prev_kvs),
                other => panic!("not what was sent: {:?}", other.err()),
            },
            (from, _) => panic!("another message, of {from}"),
        }
    });
}

/// Goal: blocks of a checkpoint have a connection of their own, made when there are some, and everything else
/// overtakes them.
#[test]
fn checkpoint_blocks() {
    on_new_thread(|| async {
        let [mut a, mut b] = pair().await;
        let bytes = vec![7; 64 << 10];
        for _ in 0..20 {
            a.transport.send(B, block(&bytes));
        }
        a.transport.send(B, append(1, &[10]));
        a.transport.flush();
        let (_, first) = b.message().await;
        assert_eq!(number_of(&first), 1);
        for _ in 0..20 {
            let (from, message) = b.message().await;
            let PeerMessage::CheckpointBlock { block, .. } = message else {
                panic!("a block: {message:?}");
            };
            assert_eq!((from, &block.bytes[..]), (A, &bytes[..]));
        }
    });
}

/// Goal: a member that is not known is refused, or heard and answered when the shard wants that; one whose
/// data directory is known to be another one is not.
#[test]
fn strangers() {
    on_new_thread(|| async {
        let mut a = Node::start(A);
        let mut b = Node::start(B);
        a.transport.set_peers(&[(B, vec![b.url()])]);
        while b.transport.stats().refused_connections < 4 {
            sleep(Duration::from_millis(1)).await;
        }
        b.transport.set_admission(Admission {
            hear_strangers: true,
            ..Admission::default()
        });
        a.reach(&mut b).await;
        b.reach(&mut a).await;

        let refusing = |member: MemberId, incarnation| Admission {
            directories: Directories {
                stored: [(member, incarnation)].into(),
                ..Directories::default()
            },
            hear_strangers: true,
        };
        let mut c = Node::start(C);
        c.transport.set_admission(refusing(A, Incarnation(5)));
        a.transport.set_peers(&[(C, vec![c.url()])]);
        while c.transport.stats().refused_connections < 4 {
            sleep(Duration::from_millis(1)).await;
        }
        c.transport.set_admission(refusing(A, incarnation(A)));
        a.reach(&mut c).await;
        // The side that connects looks as well.
        a.transport.set_admission(refusing(C, Incarnation(6)));
        let url = a.url();
        c.transport.set_peers(&[(A, vec![url])]);
        while a.transport.stats().refused_connections < 4 {
            sleep(Duration::from_millis(1)).await;
        }
    });
}

/// Goal: a connection of a directory that turns out to be another one than the member's ends, and the member is told
/// so when it connects again, as consensus would tell it.
#[test]
fn other_directory() {
    on_new_thread(|| async {
        let [mut a, mut b] = pair().await;
        a.transport.set_admission(Admission {
            directories: Directories {
                stored: [(B, Incarnation(5))].into(),
                ..Directories::default()
            },
            hear_strangers: true,
        });
        assert!(matches!(a.event().await, TransportEvent::Disconnected(B)));
        loop {
            match b.event().await {
                TransportEvent::Disconnected(from) => assert_eq!(from, A),
                TransportEvent::Received { from, message, .. } => {
                    let PeerMessage::Raft { message, .. } = message else {
                        panic!("not of consensus: {message:?}");
                    };
                    assert_eq!((from, message.incarnation), (A, incarnation(A)));
                    let refused = Body::IdentityRefused {
                        incarnation: incarnation(B),
                    };
                    assert_eq!(message.body, refused);
                    break;
                }
            }
        }
    });
}

/// Goal: a member whose directory the group has agreed on is let in where another one is stored for it, says so of itself
/// on both sides of a greeting, and is not where the group is known to have agreed on another one.
#[test]
fn agreed_directory() {
    on_new_thread(|| async {
        let admission = |directories: Directories| Admission {
            directories,
            hear_strangers: true,
        };
        let other = Directories {
            stored: [(B, Incarnation(5))].into(),
            ..Directories::default()
        };
        let mut a = Node::start(A);
        let mut b = Node::start(B);
        a.transport.set_admission(admission(other.clone()));
        b.transport.set_admission(admission(Directories {
            own_agreed: true,
            ..Directories::default()
        }));
        // One connects, then the other.
        let url = a.url();
        b.transport.set_peers(&[(A, vec![url])]);
        b.reach(&mut a).await;
        b.transport.set_peers(&[]);
        loop {
            if matches!(a.event().await, TransportEvent::Disconnected(B)) {
                break;
            }
        }
        let url = b.url();
        a.transport.set_peers(&[(B, vec![url])]);
        a.reach(&mut b).await;
        a.transport.set_admission(admission(Directories {
            agreed: other.stored,
            ..Directories::default()
        }));
        assert!(matches!(a.event().await, TransportEvent::Disconnected(B)));
    });
}

/// Goal: of two live directories of one member, where neither is known to be agreed on, the one that says so of itself
/// takes the connections of the other one, which gets none back while it is there.
#[test]
fn two_directories() {
    on_new_thread(|| async {
        let admission = |directories: Directories| Admission {
            directories,
            hear_strangers: true,
        };
        let mut a = Node::start(A);
        a.transport.set_admission(admission(Directories {
            stored: [(B, incarnation(B))].into(),
            ..Directories::default()
        }));
        let peers = [(A, vec![a.url()])];
        let mut stored = Node::start(B);
        stored.transport.set_peers(&peers);
        stored.reach(&mut a).await;

        let mut other = config(B);
        other.incarnation = Incarnation(5);
        let mut agreed = Node::start_with(other, "127.0.0.1:0".parse().expect("an address"));
        agreed.transport.set_admission(admission(Directories {
            own_agreed: true,
            ..Directories::default()
        }));
        agreed.transport.set_peers(&peers);
        assert!(matches!(a.event().await, TransportEvent::Disconnected(B)));
        agreed.reach(&mut a).await;
        // It connects again and again.
        for _ in 0..3 {
            let event = stored.event().await;
            assert!(matches!(event, TransportEvent::Disconnected(A)));
        }
        assert!(a.event_now().await.is_none(), "something was lost");
        a.say(B, heartbeat(7));
        let (from, message) = agreed.message().await;
        assert_eq!((from, number_of(&message)), (A, 7));

        drop(agreed);
        assert!(matches!(a.event().await, TransportEvent::Disconnected(B)));
        stored.reach(&mut a).await;
    });
}

/// Goal: the end of a transport ends its connections and gives its port back.
#[test]
fn dropped() {
    on_new_thread(|| async {
        let [a, mut b] = pair().await;
        let address = a.address;
        let ended = spawn_local(Queue::Connections, async move { drop(a) });
        ended.await;
        assert!(matches!(b.event().await, TransportEvent::Disconnected(A)));
        let quiet = std::future::poll_fn(|cx| b.transport.poll_event(cx));
        assert!(
            timeout(Duration::from_millis(200), quiet).await.is_err(),
            "said once"
        );
        let again = timeout(PATIENCE, async { Node::start_with(config(A), address) });
        drop(again.await.expect("the port is free"));
    });
}
