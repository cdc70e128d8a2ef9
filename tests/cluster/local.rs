//! `kontiki local-cluster`: one command starts, watches and ends three members.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use kontiki_harness::client::{Client, block_on};
use kontiki_harness::server::free_port;
use rustix::process::{Pid, Signal, kill_process};

use crate::group::{get, program, put};

/// A port from which on those of three members are free.
fn first_port() -> u16 {
    let free = |first: &u16| {
        (0..3).all(|member| {
            let client = first + 10_000 * member;
            [client, client + 1]
                .iter()
                .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        })
    };
    let mut tries = (0..100).filter_map(|_| free_port().ok());
    tries.find(free).expect("free ports")
}

/// Goal: it prints how to use the cluster when that serves; a member that dies is named and the others go on; one
/// SIGTERM or SIGHUP ends all of them well, and a second start finds the data again.
#[test]
fn one_command() {
    let home = tempfile::Builder::new()
        .prefix("local")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a directory below target");
    let port = first_port();
    for start in 0..2 {
        // Whoever runs this test may ignore SIGHUP, as nohup does, and children inherit that.
        let mut starter = Command::new("env")
            .arg("--default-signal=HUP")
            .arg(program())
            .arg("local-cluster")
            // Later starts find both.
            .args((start == 0).then_some("--members=3"))
            .args((start == 0).then(|| format!("--port={port}")))
            .arg("--data-dir")
            .arg(home.path())
            .args(["--", "--heartbeat-interval=50", "--election-timeout=500"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = starter.stdout.take().expect("piped");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let mut pids = Vec::new();
        let usage = lines
            .by_ref()
            .inspect(|line| pids.extend(pid(line)))
            .find(|line| line.starts_with("etcdctl "))
            .expect("it says how to use it");
        assert_eq!(pids.len(), 3, "{usage}");
        assert!(usage.contains(&format!("127.0.0.1:{port},")), "{usage}");
        let addresses = usage.split_whitespace().nth(2).expect("endpoints");
        let addresses: Vec<_> = addresses
            .split(',')
            .map(|address| address.parse().expect("an address"))
            .collect();
        block_on(async {
            let client = Client::connect(addresses[start]).await.expect("served");
            if start == 0 {
                put(&client, "key", "v").await.expect("taken");
            }
            let found = get(&client, "key").await.expect("an answer");
            assert_eq!(found.map(|(value, _)| value).as_deref(), Some("v"));
        });
        if start == 1 {
            signal(pids[1], Signal::KILL);
            let said = lines.by_ref().find(|line| line.contains("ended by itself"));
            let said = said.expect("it is noticed");
            assert!(
                said.starts_with("m2 ") && said.contains("the others go on"),
                "{said}"
            );
            block_on(async {
                let client = Client::connect(addresses[0]).await.expect("served");
                // A leader that died took what was forwarded to it along.
                while put(&client, "after", "v").await.is_err() {}
            });
        }
        // A terminal that is closed sends the second.
        let end = [Signal::HUP, Signal::TERM][start];
        signal(starter.id(), end);
        let rest: Vec<String> = lines.collect();
        let status = starter.wait().expect("an end");
        assert_eq!(status.success(), start == 0, "{status}: {rest:?}");
        let ended = rest
            .iter()
            .filter(|line| line.contains("ended: exit status: 0"));
        assert_eq!(ended.count(), 3 - start, "{rest:?}");
    }
}

/// Goal: another number of members or another port than the cluster began with is refused in words, and at once.
#[test]
fn other_shape() {
    let home = tempfile::Builder::new()
        .prefix("shape")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a directory below target");
    let began = "{\"members\":3,\"first_port\":3379}\n";
    std::fs::write(home.path().join("cluster.json"), began).expect("written");
    for flag in ["--members=5", "--port=4379"] {
        let output = Command::new(program())
            .args(["local-cluster", flag, "--data-dir"])
            .arg(home.path())
            .output()
            .expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(flag) && said.contains("began with"), "{said}");
    }
}

/// The process id in `m1 (pid 17) serves at ...`.
fn pid(line: &str) -> Option<u32> {
    let (_, behind) = line.split_once("(pid ")?;
    behind.split_once(')')?.0.parse().ok()
}

/// Signals a process that was started here and is not reaped yet.
fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), signal).expect("it lives");
}
