//! Members that begin: alone, together, and with a directory that is not theirs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use kontiki::base::checksum::crc32c;
use kontiki::base::{Incarnation, MemberId, ShardId, Term};
use kontiki::config::member_id;
use kontiki::frame::{FrameEncoder, PageBuffer};
use kontiki::raft::{Body, Message};
use kontiki::shard::event::PeerMessage;
use kontiki::transport::wire;
use kontiki_harness::client::{CallError, block_on, framed};
use kontiki_harness::messages::{PUT, PutRequest};
use kontiki_harness::server::Server;

use crate::group::{Group, TIME_MAX, ask, put, wait_for_text};

/// Goal: one of three new members serves nothing, and says for whom it waits; it answers clients that it took too long,
/// and the cluster serves as soon as the others are there.
#[test]
fn first_member_waits() {
    let mut group = Group::prepare(
        "first",
        3,
        &["--heartbeat-interval=20", "--election-timeout=200"],
    );
    let first = Server::start(&group.options[0]).expect("ready without a leader");
    wait_for_text(
        &group.options[0].log,
        "waiting for 2 of 2 members to confirm",
    );
    group.servers[0] = Some(first);
    block_on(async {
        let status = ask(&group.options[0]).await.expect("an answer");
        assert_eq!(status.leader, 0, "{status:?}");
        let client = group.client(0).await;
        match put(&client, "key", "v").await {
            Err(CallError::Refused { code: 4, message }) => {
                assert_eq!(message, "context deadline exceeded");
            }
            other => panic!("alone: {other:?}"),
        }
        group.start_missing();
        let _agreed = group.leader().await;
        put(&client, "key", "v").await.expect("taken");
    });
}

/// Goal: an emptied directory does not come back as the member it was: the others refuse it, and it says why it ends.
/// They go on without it.
#[test]
fn emptied_directory() {
    let mut group = Group::start(
        "emptied",
        &["--heartbeat-interval=20", "--election-timeout=200"],
    );
    block_on(async {
        let (leader, _) = group.leader().await;
        let client = group.client(leader).await;
        put(&client, "key", "v").await.expect("taken");
        let victim = (leader + 1) % 3;
        group.kill(victim);
        std::fs::remove_dir_all(&group.options[victim].data_dir).expect("emptied");
        let (status, said) = group.options[victim]
            .run_to_end(TIME_MAX)
            .expect("an end by itself");
        assert_eq!(status.code(), Some(3), "{status}");
        assert!(
            said.contains("the other members know another data directory of this member"),
            "{said}"
        );
        put(&client, "key", "v").await.expect("still taken");
    });
}

/// Goal: on the peer port, a directory that is not the member's is refused as such, and so is who is no member.
#[test]
fn directories_at_the_door() {
    let group = Group::start("door", &[]);
    block_on(async {
        let _agreed = group.leader().await;
        let mut members = Vec::new();
        for member in 0..2 {
            let status = ask(&group.options[member]).await.expect("an answer");
            let header = status.header.expect("every answer has a header");
            members.push((header.cluster_id, header.member_id));
        }
        let [(cluster, wanted), (_, other)] = members[..] else {
            unreachable!("two were asked");
        };
        const STRANGER: u8 = 4;
        const OTHER_INCARNATION: u8 = 5;
        for (member, expected) in [(other, OTHER_INCARNATION), (77, STRANGER)] {
            let port = group.options[0].peer_port;
            let (_socket, refused) = greet(port, &greeting(cluster, member, wanted));
            assert_eq!(refused, expected, "member {member}");
        }
    });
}

/// Greets a member at its peer port. The connection, and for what reason it was refused: zero for none.
fn greet(port: u16, hello: &[u8]) -> (TcpStream, u8) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    socket.set_read_timeout(Some(TIME_MAX)).expect("a socket");
    socket.write_all(hello).expect("it fits");
    let mut reply = [0; 80];
    socket.read_exact(&mut reply).expect("an answer");
    assert_eq!(&reply[..8], b"KTKREPLY");
    (socket, reply[11])
}

/// The frame in which a member says that the receiver was removed.
fn removal() -> Vec<u8> {
    let message = PeerMessage::Raft {
        message: Message {
            term: Term(1),
            incarnation: Incarnation(u128::from_le_bytes([7; 16])),
            body: Body::Removed,
        },
        records: Vec::new(),
    };
    let mut frame = PageBuffer::new();
    let mut encoder = FrameEncoder::new();
    wire::encode(&mut encoder, 1, ShardId(0), &message, &mut frame).expect("it is small");
    frame.to_vec()
}

/// Goal: a member that learns that it was removed ends with an exit code of its own, and not before a client that waits
/// has heard how its call ended.
#[test]
fn removed_while_a_client_waits() {
    let mut group = Group::prepare(
        "removed",
        3,
        &["--heartbeat-interval=20", "--election-timeout=200"],
    );
    // The others are played here. Nothing is decided without them.
    let member = Server::start(&group.options[0]).expect("ready without a leader");
    group.servers[0] = Some(member);
    block_on(async {
        let status = ask(&group.options[0]).await.expect("an answer");
        let header = status.header.expect("every answer has a header");
        let client = group.client(0).await;
        let mut head = client.prepare(PUT);
        let patience = "2S".parse().expect("a header");
        head.headers_mut().insert("grpc-timeout", patience);
        let request = PutRequest {
            key: "key".into(),
            value: "v".into(),
        };
        let waits = client.send(head, framed(&request));
        let port = group.options[0].peer_port;
        let MemberId(other) = member_id([group.options[1].peer_url().as_str()], "etcd-cluster");
        let hello = greeting(header.cluster_id, other, header.member_id);
        let (mut socket, refused) = greet(port, &hello);
        assert_eq!(refused, 0);
        let told = tokio::task::spawn_local(async move {
            // The first one only makes this directory known, and must have arrived before.
            while socket.write_all(&removal()).is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        match waits.await {
            Err(CallError::Refused { .. }) => {}
            other => panic!("{other:?}"),
        }
        told.await.expect("it closes the connection");
        let server = group.servers[0].take().expect("it runs");
        let status = server.wait(TIME_MAX).expect("an end by itself");
        assert_eq!(status.code(), Some(4), "{status}");
        wait_for_text(&group.options[0].log, "this member was removed");
    });
}

/// A hello for the ordered path, from a directory that nobody knows.
fn greeting(cluster: u64, member: u64, wanted: u64) -> Vec<u8> {
    let mut bytes = b"KTKHELLO".to_vec();
    bytes.extend([1, 1, 2, 0, 0, 0, 0, 0]);
    for id in [cluster, member, wanted] {
        bytes.extend(id.to_le_bytes());
    }
    bytes.extend([7; 16]);
    bytes.resize(76, 0);
    bytes.extend(crc32c(&bytes).to_le_bytes());
    bytes
}

/// Goal: what flags say about the first members counts once: later starts go on with what the directory says. Where they
/// would found another cluster, also with this very member in it, the log says so, and with whom this one began.
#[test]
fn later_flags_are_ignored() {
    let mut group = Group::start("flags", &[]);
    block_on(async {
        let (leader, _) = group.leader().await;
        let follower = (leader + 1) % 3;
        let began_with = group.options[follower].initial_cluster.clone();
        const WARNING: &str = "belongs to a member of another cluster";
        let mut start_with = |initial_cluster: String| {
            group.kill(follower);
            group.options[follower].initial_cluster = initial_cluster;
            let before = group.log(follower).len();
            group.start_missing();
            let said = group.log(follower)[before..].to_owned();
            let warning = said.lines().find(|line| line.contains(WARNING));
            warning.map(str::to_owned)
        };
        assert_eq!(start_with("nonsense".to_owned()), None);
        assert_eq!(start_with(began_with.clone()), None);
        let own = format!("m{}=", follower + 1);
        let own = began_with.split(',').find(|one| one.starts_with(&own));
        let warning = start_with(own.expect("it is listed").to_owned());
        let warning = warning.expect("another cluster");
        for one in began_with.split(',') {
            let (_, url) = one.split_once('=').expect("a name and a URL");
            assert!(warning.contains(url), "{url} is not in {warning}");
        }
        let _agreed = group.leader().await;
        let client = group.client(follower).await;
        put(&client, "key", "v").await.expect("taken");
    });
}
