//! What is no member, or not this one's, on the peer port: refused with a reason, and without harm.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use kontiki::base::limits::PEER_FRAME_BYTES_MAX;
use kontiki::base::{MemberId, ShardId};
use kontiki::frame::{FrameEncoder, PageBuffer};
use kontiki::runtime::executor::sleep;
use kontiki::shard::event::PeerMessage;
use kontiki::transport::TransportEvent;
use kontiki::transport::wire::{attachment, encode};

use crate::messages::{append, heartbeat};
use crate::net::{A, B, C, HandMade, Node, PATIENCE, SHARD, number_of, on_new_thread};

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
