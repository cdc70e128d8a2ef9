//! `kontiki read-mode`: on what linearizable reads rest, shown and changed for a cluster that runs.

use std::process::Command;
use std::time::{Duration, Instant};

use kontiki_harness::client::block_on;
use rustix::process::Signal;

use crate::group::{Group, TIME_MAX, get, program, put};

/// Far longer than a leader needs that asks nobody, far shorter than the election timeout.
const ALONE: Duration = Duration::from_millis(700);

impl Group {
    /// Runs the command for these members; what it says, line by line.
    fn read_mode(&self, wanted: Option<&str>, members: &[usize]) -> Vec<String> {
        let endpoint = |member: &usize| self.options[*member].client_address().to_string();
        let endpoints: Vec<String> = members.iter().map(endpoint).collect();
        let output = Command::new(program())
            .arg("read-mode")
            .args(wanted)
            .arg(format!("--endpoints={}", endpoints.join(",")))
            .output()
            .expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.lines().map(str::to_owned).collect()
    }

    /// Waits until every member says so.
    fn wait_for_mode(&self, mode: &str) {
        let start = Instant::now();
        loop {
            let said = self.read_mode(None, &[0, 1, 2]);
            if said.len() == 3 && said.iter().all(|line| line.ends_with(&format!(": {mode}"))) {
                return;
            }
            assert!(start.elapsed() < TIME_MAX, "{said:?}");
        }
    }

    /// Whether the leader answers a linearizable read while both others stand still.
    async fn leader_answers_alone(&self, key: &str) -> bool {
        let (leader, _) = self.leader().await;
        let client = self.client(leader).await;
        get(&client, key).await.expect("all are there");
        let others = || self.running().filter(|(member, _)| *member != leader);
        for (_, server) in others() {
            server.signal(Signal::STOP);
            wait_until_stopped(server.pid());
        }
        let answer = tokio::time::timeout(ALONE, get(&client, key)).await;
        for (_, server) in others() {
            server.signal(Signal::CONT);
        }
        answer.is_ok_and(|found| found.is_ok())
    }
}

/// Waits until no thread of a process runs.
fn wait_until_stopped(pid: u32) {
    let start = Instant::now();
    let stopped = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.expect("a thread").path().join("stat"));
        // The state follows the name, which stands in brackets.
        stat.is_ok_and(|stat| {
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.starts_with(" T"))
        })
    };
    loop {
        let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
        if tasks.all(stopped) {
            return;
        }
        assert!(start.elapsed() < TIME_MAX, "{pid} does not stop");
        std::thread::yield_now();
    }
}

/// Goal: one command switches the whole cluster through any member, each member says so and reads what was written
/// through the others, a leader under leases answers without them, and one after the way back does not.
#[test]
fn switched_and_back() {
    let group = Group::start(
        "read-mode",
        &["--heartbeat-interval=100", "--election-timeout=4000"],
    );
    block_on(async {
        let (leader, _) = group.leader().await;
        let client = group.client(leader).await;
        put(&client, "key", "0").await.expect("taken");
        group.wait_for_mode("index");
        assert!(!group.leader_answers_alone("key").await);

        let (leader, _) = group.leader().await;
        let follower = (leader + 1) % 3;
        assert_eq!(
            group.read_mode(Some("lease"), &[follower]),
            ["the whole cluster: lease"]
        );
        group.wait_for_mode("lease");
        for writer in 0..3 {
            let client = group.client(writer).await;
            let value = format!("v{writer}");
            put(&client, "key", &value).await.expect("taken");
            for reader in 0..3 {
                let client = group.client(reader).await;
                let found = get(&client, "key").await.expect("an answer");
                assert_eq!(found.map(|(found, _)| found), Some(value.clone()));
            }
        }
        // A lease begins with the first heartbeats that are answered after the change.
        let start = Instant::now();
        while !group.leader_answers_alone("key").await {
            assert!(start.elapsed() < TIME_MAX, "there is no lease");
        }

        let (leader, _) = group.leader().await;
        assert_eq!(
            group.read_mode(Some("index"), &[leader, follower]),
            ["the whole cluster: index"]
        );
        group.wait_for_mode("index");
        assert!(!group.leader_answers_alone("key").await);
        assert!(
            group
                .log(follower)
                .contains("what linearizable reads rest on")
        );
    });
}
