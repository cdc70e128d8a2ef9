//! Members that begin: alone, together, and with a directory that is not theirs.

use kontiki_harness::client::{CallError, block_on};
use kontiki_harness::server::Server;

use crate::group::{Group, TIME_MAX, ask, put, wait_for_text};

/// Goal: one of three new members serves nothing, and says for whom it waits; it answers clients that there is no
/// leader, and the cluster serves as soon as the others are there.
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
            Err(CallError::Refused { code: 14, message }) => {
                assert_eq!(message, "etcdserver: no leader");
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

/// Goal: what flags say about the first members counts once: later starts go on with what the directory says.
#[test]
fn later_flags_are_ignored() {
    let mut group = Group::start("flags", &[]);
    block_on(async {
        let (leader, _) = group.leader().await;
        let follower = (leader + 1) % 3;
        group.kill(follower);
        group.options[follower].initial_cluster = "nonsense".to_owned();
        group.start_missing();
        let _agreed = group.leader().await;
        let client = group.client(follower).await;
        put(&client, "key", "v").await.expect("taken");
    });
}
