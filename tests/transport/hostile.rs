//! What is no member, or not this one's, on the peer port: refused with a reason, and without harm.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use kontiki::base::limits::{PEER_FRAME_BYTES_MAX, PEER_STRANGER_FRAME_BYTES_MAX};
use kontiki::base::{HardState, Index, Instant, MemberId, ShardId, Term};
use kontiki::frame::{FrameEncoder, PageBuffer};
use kontiki::raft::{self, Body, LogTerms, Membership, Message, Raft};
use kontiki::runtime::executor::sleep;
use kontiki::shard::event::PeerMessage;
use kontiki::transport::wire::{attachment, encode};
use kontiki::transport::{Admission, TransportEvent};

use crate::messages::{append, heartbeat};
use crate::net::{
    A, B, C, HandMade, Node, PATIENCE, SHARD, config, incarnation, number_of, on_new_thread,
};

/// Sends bytes on a thread, and returns what comes back until the other side closes.
async fn answer_to(address: SocketAddr, bytes: Vec<u8>) -> Vec<u8> {
    let talking = std::thread::spawn(move || {
        let mut socket = TcpStream::connect(address).expect("the port is open");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        // The other side may close before it has read everything.
        let _sent = socket.write_all(&bytes);
        let mut answer = Vec::new();
        if let Err(error) = socket.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        answer
    });
    while !talking.is_finished() {
        sleep(Duration::from_millis(1)).await;
    }
    talking.join().expect("an answer")
}

/// Member A, which knows B at an address where nobody is.
fn listening() -> Node {
    let mut a = Node::start(A);
    a.transport
        .set_peers(&[(B, vec!["http://127.0.0.1:1".into()])]);
    a
}

fn framed(message: &PeerMessage, shard: ShardId) -> Vec<u8> {
    let mut buffer = PageBuffer::new();
    encode(&mut FrameEncoder::new(), 1, shard, message, &mut buffer).expect("it fits");
    [&buffer[..], &attachment(message).concat()].concat()
}

/// Goal: other protocols and garbage are closed without an answer.
#[test]
fn other_protocols() {
    on_new_thread(|| async {
        let a = listening();
        let http = b"GET /raft/probing HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        let mut damaged = HandMade::from(B, A).bytes();
        damaged[40] ^= 1;
        let hello = HandMade::from(B, A).bytes();
        let attempts = [
            http,
            b"\x16\x03\x01\x02\x00\x01".to_vec(),
            vec![0; 4_096],
            damaged,
            [&hello[..], b"more"].concat(),
        ];
        for (number, bytes) in attempts.into_iter().enumerate() {
            assert_eq!(answer_to(a.address, bytes).await, b"", "attempt {number}");
            assert_eq!(a.transport.stats().refused_connections, number as u64 + 1);
        }
    });
}

/// Goal: one that says nothing, or half of a greeting, is given up in time.
#[test]
fn silent() {
    on_new_thread(|| async {
        let a = listening();
        let half = HandMade::from(B, A).bytes()[..30].to_vec();
        for bytes in [Vec::new(), half] {
            assert_eq!(answer_to(a.address, bytes).await, b"");
        }
        assert_eq!(a.transport.stats().refused_connections, 2);
    });
}

/// Goal: each reason for a refusal is told to the other side, by its number.
#[test]
fn refusals() {
    on_new_thread(|| async {
        let a = listening();
        let good = HandMade::from(B, A);
        for (hello, reason) in [
            (HandMade { cluster: 9, ..good }, 1),
            (
                HandMade {
                    wanted: C.0,
                    ..good
                },
                2,
            ),
            (
                HandMade {
                    member: A.0,
                    ..good
                },
                3,
            ),
            (HandMade::from(C, A), 4),
            (HandMade { shard: 5, ..good }, 6),
            (
                HandMade {
                    versions: (2, 200),
                    ..good
                },
                7,
            ),
        ] {
            let answer = answer_to(a.address, hello.bytes()).await;
            assert_eq!(answer.len(), 80);
            assert_eq!(&answer[..8], b"KTKREPLY");
            assert_eq!((answer[10], answer[11]), (0, reason));
        }
    });
}

/// Goal: after a good greeting, what is no message ends the connection, and what came before it counts.
#[test]
fn hostile_frames() {
    on_new_thread(|| async {
        let mut a = listening();
        let good = framed(&heartbeat(5), SHARD);
        let mut flipped = framed(&append(9, &[100]), SHARD);
        let last = flipped.len() - 20;
        flipped[last] ^= 1;
        let mut long = good.clone();
        long[8..12].copy_from_slice(&(PEER_FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
        let mut records = match append(9, &[100, 200]) {
            PeerMessage::Raft { records, .. } => records,
            other => panic!("an append: {other:?}"),
        };
        records.swap(0, 1);
        records.push(Bytes::from_static(&[0; 48]));
        let mut too_many = append(9, &[100, 200]);
        if let PeerMessage::Raft { records: of, .. } = &mut too_many {
            *of = records;
        }
        let hostile = [
            b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n".to_vec(),
            vec![0xff; 100_000],
            flipped,
            long,
            framed(&heartbeat(1), ShardId(9)),
            framed(&too_many, SHARD),
        ];
        for (number, hostile) in hostile.into_iter().enumerate() {
            let bytes = [&HandMade::from(B, A).bytes()[..], &[]].concat();
            let before = a.transport.stats().damaged_connections;
            let talking = std::thread::spawn({
                let (address, good) = (a.address, good.clone());
                move || {
                    let mut socket = TcpStream::connect(address).expect("the port is open");
                    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
                    socket.write_all(&bytes).expect("sent");
                    let mut reply = [0; 80];
                    socket.read_exact(&mut reply).expect("answered");
                    assert_eq!((reply[10], reply[11]), (1, 0), "accepted");
                    let _sent = socket.write_all(&[&good[..], &hostile].concat());
                    // Closed by the other side, politely or not.
                    let mut nothing = Vec::new();
                    let _end = socket.read_to_end(&mut nothing);
                    assert_eq!(nothing, b"");
                }
            });
            let (from, message) = a.message().await;
            assert_eq!((from, number_of(&message)), (B, 5), "attempt {number}");
            assert!(matches!(a.event().await, TransportEvent::Disconnected(B)));
            while !talking.is_finished() {
                sleep(Duration::from_millis(1)).await;
            }
            talking.join().expect("closed");
            assert_eq!(a.transport.stats().damaged_connections, before + 1);
        }
    });
}

/// Greets, in vain or not, and leaves the connection open.
fn connect(address: SocketAddr, hello: HandMade) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("the port is open");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    socket.write_all(&hello.bytes()).expect("sent");
    let mut reply = [0; 80];
    socket.read_exact(&mut reply).expect("answered");
    assert_eq!((reply[10], reply[11]), (1, 0), "accepted");
    socket
}

/// Runs what waits for a socket on a thread, while the executor goes on.
async fn beside<T: Send + 'static>(talk: impl FnOnce() -> T + Send + 'static) -> T {
    let talking = std::thread::spawn(talk);
    while !talking.is_finished() {
        sleep(Duration::from_millis(1)).await;
    }
    talking.join().expect("no panic")
}

/// Whether the other side closes the connection, without a word.
fn is_closed(socket: &mut TcpStream) -> bool {
    let end = socket.read(&mut [0]);
    end.map_or_else(
        |error| error.kind() == ErrorKind::ConnectionReset,
        |count| count == 0,
    )
}

/// Waits for a message of this member. Connections that end meanwhile are no matter.
async fn heard(node: &mut Node, member: MemberId) {
    loop {
        match node.event().await {
            TransportEvent::Disconnected(_) => {}
            TransportEvent::Received { from, .. } => return assert_eq!(from, member),
        }
    }
}

/// Goal: a directory that anybody may have made up gets no memory for a long frame, but one connection at a time that
/// says it is agreed on; a directory that is known gets it.
#[test]
fn long_frames() {
    on_new_thread(|| async {
        let mut a = Node::start(A);
        let mut admission = Admission {
            hear_strangers: true,
            ..Admission::default()
        };
        a.transport.set_admission(admission.clone());
        let address = a.address;
        let frame = framed(&append(9, &[PEER_STRANGER_FRAME_BYTES_MAX]), SHARD);
        let (begin, rest) = frame.split_at(frame.len() / 2);
        let (begin, rest) = (begin.to_vec(), rest.to_vec());
        let begins = |hello: HandMade| {
            let begin = begin.clone();
            beside(move || {
                let mut socket = connect(address, hello);
                // It may be closed at the header.
                let _sent = socket.write_all(&begin);
                socket
            })
        };
        let ends = |mut socket: TcpStream| {
            let rest = rest.clone();
            beside(move || socket.write_all(&rest).map(|()| socket).expect("sent"))
        };
        let refused = |mut socket: TcpStream| beside(move || is_closed(&mut socket));

        let stranger = HandMade::from(C, A);
        assert!(refused(begins(stranger).await).await);
        assert_eq!(a.transport.stats().damaged_connections, 1);

        let says_agreed = |member| HandMade {
            agreed: true,
            ..HandMade::from(MemberId(member), A)
        };
        let first = begins(says_agreed(4)).await;
        assert!(refused(begins(says_agreed(5)).await).await);
        assert_eq!(a.transport.stats().damaged_connections, 2);
        let first = ends(first).await;
        heard(&mut a, MemberId(4)).await;
        // The place is free again, also when a frame does not come to its end.
        let second = begins(says_agreed(5)).await;
        drop(second);
        assert!(matches!(
            a.event().await,
            TransportEvent::Disconnected(MemberId(5))
        ));
        let third = ends(begins(says_agreed(6)).await).await;
        heard(&mut a, MemberId(6)).await;
        drop((first, third));

        let known = begins(stranger).await;
        admission.directories.stored.insert(C, incarnation(C));
        a.transport.set_admission(admission);
        a.transport
            .set_peers(&[(C, vec!["http://127.0.0.1:1".into()])]);
        assert!(refused(known).await, "it was not known when it began");
        let known = ends(begins(stranger).await).await;
        heard(&mut a, C).await;
        drop(known);
    });
}

/// Member A of a group of its own, as consensus has it.
fn consensus() -> Raft {
    let config = raft::Config {
        id: A,
        incarnation: incarnation(A),
        confirmed: true,
        incarnations: BTreeMap::new(),
        memberships: vec![(Index(0), Membership::of_voters([A, B]))],
        rebuild: None,
        vote_floor: Term(0),
        election_timeout: Duration::from_secs(1),
        heartbeat_interval: Duration::from_millis(100),
        windows: raft::Windows::default(),
        pre_vote: true,
        check_quorum: true,
        seed: 1,
    };
    Raft::new(config, HardState::default(), LogTerms::default(), Index(0))
}

/// Goal: an invented member that first makes consensus store its directory gets no memory for a long frame by that; once
/// it is one that is looked for, the same connection does.
#[test]
fn long_frame_after_a_question() {
    on_new_thread(|| async {
        let mut a = Node::start(A);
        let mut raft = consensus();
        let admission = |raft: &Raft| Admission {
            directories: raft.directories(),
            hear_strangers: true,
        };
        a.transport.set_admission(admission(&raft));
        let address = a.address;
        let question = PeerMessage::Raft {
            message: Message {
                term: Term(0),
                incarnation: incarnation(C),
                body: Body::IdentityQuestion,
            },
            records: Vec::new(),
        };
        let question = framed(&question, SHARD);
        let long = framed(&append(9, &[PEER_STRANGER_FRAME_BYTES_MAX]), SHARD);
        let asks = || {
            let question = question.clone();
            beside(move || {
                let mut socket = connect(address, HandMade::from(C, A));
                socket.write_all(&question).map(|()| socket).expect("sent")
            })
        };
        let goes_on = |mut socket: TcpStream| {
            let long = long.clone();
            beside(move || {
                // It may be closed at the header.
                let _sent = socket.write_all(&long);
                socket
            })
        };

        let asked = asks().await;
        let (from, message) = a.message().await;
        let PeerMessage::Raft { message, .. } = message else {
            panic!("a question: {message:?}");
        };
        let mut outputs = Vec::new();
        raft.step(from, message, Instant(1), &mut outputs);
        raft.incarnation_durable(C, incarnation(C));
        assert!(raft.hears(C, incarnation(C)), "{outputs:?}");
        a.transport.set_admission(admission(&raft));
        let mut refused = goes_on(asked).await;
        assert!(beside(move || is_closed(&mut refused)).await);
        assert_eq!(a.transport.stats().damaged_connections, 1);

        // The same from a connection that was there before, and from one that was not.
        let asked = asks().await;
        heard(&mut a, C).await;
        a.transport
            .set_peers(&[(C, vec!["http://127.0.0.1:1".into()])]);
        let _welcome = goes_on(asked).await;
        heard(&mut a, C).await;
        let asked = asks().await;
        heard(&mut a, C).await;
        let _welcome = goes_on(asked).await;
        heard(&mut a, C).await;
        assert_eq!(a.transport.stats().damaged_connections, 1);
    });
}

/// Goal: a frame that has begun and does not go on ends its connection; one over which nothing has begun stays.
#[test]
fn half_a_frame() {
    on_new_thread(|| async {
        let mut config = config(A);
        config.frame_timeout = Duration::from_millis(50);
        let mut a = Node::start_with(config, "127.0.0.1:0".parse().expect("an address"));
        a.transport
            .set_peers(&[B, C].map(|peer| (peer, vec!["http://127.0.0.1:1".into()])));
        let address = a.address;
        let whole = framed(&heartbeat(5), SHARD);
        let idle = beside({
            let whole = whole.clone();
            move || {
                let mut socket = connect(address, HandMade::from(B, A));
                socket.write_all(&whole).map(|()| socket).expect("sent")
            }
        });
        let mut idle = idle.await;
        assert_eq!(a.message().await.0, B);
        // Of a header, and of what follows it.
        for half in [whole[..20].to_vec(), whole[..whole.len() - 1].to_vec()] {
            let before = a.transport.stats().damaged_connections;
            let closed = beside(move || {
                let mut socket = connect(address, HandMade::from(C, A));
                socket.write_all(&half).expect("sent");
                is_closed(&mut socket)
            });
            assert!(closed.await);
            assert!(matches!(a.event().await, TransportEvent::Disconnected(C)));
            assert_eq!(a.transport.stats().damaged_connections, before + 1);
        }
        let _idle = beside(move || idle.write_all(&whole).map(|()| idle).expect("sent")).await;
        assert_eq!(a.message().await.0, B);
    });
}

/// Goal: a crowd that says nothing does not keep members out for longer than it takes to give it up.
#[test]
fn crowd() {
    on_new_thread(|| async {
        let mut a = listening();
        let address = a.address;
        let crowd = std::thread::spawn(move || {
            (0..200)
                .filter_map(|_| TcpStream::connect(address).ok())
                .collect::<Vec<_>>()
        });
        while !crowd.is_finished() {
            sleep(Duration::from_millis(1)).await;
        }
        let crowd = crowd.join().expect("connected");
        let mut b = Node::start(B);
        b.transport.set_peers(&[(MemberId(A.0), vec![a.url()])]);
        b.reach(&mut a).await;
        drop(crowd);
    });
}
