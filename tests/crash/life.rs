//! Starts that must be refused, a stop that must be orderly, and peers that talk nonsense.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kontiki_harness::client::{CallError, Client, block_on};
use kontiki_harness::server::{Server, ServerOptions};
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::{Scratch, program, put, read};

/// A stop, and a refused start, are done after this.
const END_TIME_MAX: Duration = Duration::from_secs(30);

/// Goal: SIGTERM answers what was taken, takes nothing more, exits with 0; what was answered is there.
#[test]
fn sigterm_drains() {
    let scratch = Scratch::new("drain");
    let options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    let server = Server::start(&options).expect("a start");
    let acknowledged = block_on(async {
        let client = Client::connect(options.client_address())
            .await
            .expect("a connection");
        let mut calls = JoinSet::new();
        for number in 0..1000_u32 {
            let client = client.clone();
            calls.spawn_local(async move {
                let key = number.to_be_bytes();
                (key, put(&client, &key, vec![7; 256]).await)
            });
        }
        let mut acknowledged = Vec::new();
        while let Some(ended) = calls.join_next().await {
            let (key, result) = ended.expect("calls do not panic");
            match result {
                Ok(revision) => {
                    acknowledged.push((key, revision));
                    if acknowledged.len() == 1 {
                        server.signal(Signal::TERM);
                    }
                }
                Err(CallError::NotTaken(_)) => {}
                // gRPC's UNAVAILABLE: a call that came in too late.
                Err(CallError::Refused { code: 14, .. }) => {}
                Err(other) => panic!("a call in flight at SIGTERM ended as {other}"),
            }
        }
        acknowledged
    });
    let status = server.wait(END_TIME_MAX).expect("an end");
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(
        !acknowledged.is_empty(),
        "the signal was sent after an answer"
    );

    let server = Server::start(&options).expect("a restart");
    block_on(async {
        let client = Client::connect(options.client_address())
            .await
            .expect("a connection");
        for (key, revision) in acknowledged {
            let found = read(&client, &key, 0).await.expect("an answer").kvs;
            assert_eq!(found.len(), 1, "key {key:?} of revision {revision} is lost");
            assert_eq!(found[0].mod_revision, revision);
        }
    });
    let status = server
        .terminate(END_TIME_MAX)
        .expect("an end without clients");
    assert_eq!(status.code(), Some(0), "{status}");
}

/// Goal: whatever is sent to the client port, others are served on and the process lives.
#[test]
fn garbage_on_the_port() {
    let scratch = Scratch::new("garbage");
    let options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    let mut server = Server::start(&options).expect("a start");
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut random = fastrand::Rng::with_seed(20);
    let mut noise = vec![0; 64 * 1024];
    random.fill(&mut noise);
    let inputs: Vec<Vec<u8>> = vec![
        Vec::new(),
        noise.clone(),
        preface[..10].to_vec(),
        [preface, &noise[..1000]].concat(),
        [preface, settings, &noise[..1000]].concat(),
        // A frame that claims 16 MiB, and a HEADERS frame on stream 0.
        [preface, settings, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        [preface, settings, &[0, 0, 1, 1, 4, 0, 0, 0, 0, 0x82]].concat(),
        b"GET / HTTP/1.1\r\n".to_vec(),
        [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat(),
        [vec![0x16, 3, 1, 2, 0, 1], noise[..500].to_vec()].concat(),
    ];
    block_on(async {
        let client = Client::connect(options.client_address())
            .await
            .expect("a connection");
        for (position, input) in inputs.iter().enumerate() {
            let mut stranger = TcpStream::connect(options.client_address()).expect("accepted");
            // The server may close before everything is sent.
            let _ = stranger.write_all(input);
            put(&client, b"key", vec![1; 100])
                .await
                .unwrap_or_else(|error| panic!("while stranger {position} talks: {error}"));
            // Closing our side must end the conversation on theirs.
            let _ = stranger.shutdown(std::net::Shutdown::Write);
            stranger
                .set_read_timeout(Some(END_TIME_MAX))
                .expect("a socket");
            let mut answer = [0; 4096];
            while let Ok(1..) = stranger.read(&mut answer) {}
        }
        let again = Client::connect(options.client_address())
            .await
            .expect("a connection");
        let found = read(&again, b"key", 0).await.expect("an answer").kvs;
        assert_eq!(found[0].version, inputs.len() as i64);
    });
    assert!(server.is_running().expect("a child"));
}

/// Starts a server that must refuse to, and checks that it says why.
fn check_refused(options: &ServerOptions, said: &[&str]) {
    let (status, log) = options.run_to_end(END_TIME_MAX).expect("an end by itself");
    assert_eq!(status.code(), Some(1), "{status}, it said:\n{log}");
    for part in said {
        assert!(log.contains(part), "`{part}` is missing in:\n{log}");
    }
}

/// Goal: a data directory has one process; the second is told which directory is in use.
#[test]
fn data_directory_in_use() {
    let scratch = Scratch::new("locked");
    let options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    let mut server = Server::start(&options).expect("a start");
    let mut second = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    second.data_dir.clone_from(&options.data_dir);
    check_refused(&second, &[&options.data_dir.display().to_string()]);
    assert!(
        server.is_running().expect("a child"),
        "the first is not disturbed"
    );
}

/// Goal: a port has one process, although each core listens with SO_REUSEPORT; the second is told
/// which port is taken.
#[test]
fn port_in_use() {
    let scratch = Scratch::new("first");
    let options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    let mut server = Server::start(&options).expect("a start");
    let other = Scratch::new("second");
    let mut second = ServerOptions::new(&program(), other.path()).expect("free ports");
    second.client_port = options.client_port;
    check_refused(&second, &[&options.client_port.to_string()]);
    assert!(
        server.is_running().expect("a child"),
        "the first is not disturbed"
    );
}

/// Goal: a real etcd's directory is left alone, with a hint what it is.
#[test]
fn data_directory_of_etcd() {
    let scratch = Scratch::new("etcd");
    let options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    for part in ["snap", "wal"] {
        std::fs::create_dir_all(options.data_dir.join("member").join(part)).expect("room");
    }
    std::fs::write(options.data_dir.join("member/snap/db"), [0; 4096]).expect("room");
    check_refused(&options, &["etcd", &options.data_dir.display().to_string()]);
    let left: Vec<_> = std::fs::read_dir(&options.data_dir)
        .expect("readable")
        .collect();
    assert_eq!(left.len(), 1, "nothing was added: {left:?}");
}
