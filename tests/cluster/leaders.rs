//! Members that serve, leaders that die, stop, or lose the others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use kontiki_harness::client::{CallError, block_on};
use kontiki_harness::messages::{
    MOVE_LEADER, MoveLeaderRequest, MoveLeaderResponse, STATUS, StatusRequest, StatusResponse,
};
use kontiki_harness::server::Server;
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::group::{Group, TIME_MAX, ask, get, put};

/// Writers of each member.
const WRITERS: usize = 8;
/// Acknowledged puts before a leader is hurt, and after it.
const PUTS: usize = 400;

/// For a member that is told to stop and cannot answer everything.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);

/// Writes through all members until `PUTS` more are acknowledged after `hurt`, which runs when the first `PUTS` are.
/// Gives what was acknowledged: key and revision.
async fn write_while(group: &mut Group, hurt: impl FnOnce(&mut Group)) -> Vec<(String, i64)> {
    let acknowledged = Rc::new(RefCell::new(Vec::new()));
    let hurting = Rc::new(Cell::new(true));
    let until = Rc::new(Cell::new(usize::MAX));
    let mut writers = JoinSet::new();
    for (member, _) in group.running() {
        for writer in 0..WRITERS {
            let client = group.client(member).await;
            let (acknowledged, hurting) = (Rc::clone(&acknowledged), Rc::clone(&hurting));
            let until = Rc::clone(&until);
            writers.spawn_local(async move {
                let mut number = 0;
                while acknowledged.borrow().len() < until.get() {
                    number += 1;
                    let key = format!("{member}/{writer}/{number}");
                    match put(&client, &key, &key).await {
                        Ok(revision) => acknowledged.borrow_mut().push((key, revision)),
                        // Its member is gone.
                        Err(CallError::Broken(_) | CallError::NotTaken(_)) => return,
                        // Nobody leads at the moment, or its member stops: whether it was written is not known.
                        Err(CallError::Refused { code: 4 | 14, .. }) => {}
                        Err(other) => panic!("{key}: {other}"),
                    }
                }
                assert!(!hurting.get(), "the writers go on until the leader is hurt");
            });
        }
    }
    let progress = |goal: usize| {
        let acknowledged = Rc::clone(&acknowledged);
        async move {
            let reached = async {
                while acknowledged.borrow().len() < goal {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(TIME_MAX, reached)
                .await
                .unwrap_or_else(|_| panic!("only {} puts", acknowledged.borrow().len()));
        }
    };
    progress(PUTS).await;
    hurt(group);
    hurting.set(false);
    let goal = acknowledged.borrow().len() + PUTS;
    until.set(goal);
    progress(goal).await;
    while let Some(ended) = writers.join_next().await {
        ended.expect("writers do not panic");
    }
    acknowledged.take()
}

/// Every acknowledged put is there, with its revision, wherever it is read.
async fn check_all_there(group: &Group, acknowledged: &[(String, i64)]) {
    for (member, _) in group.running() {
        let client = group.client(member).await;
        for (key, revision) in acknowledged {
            let found = get(&client, key).await.expect("an answer");
            assert_eq!(found, Some((key.clone(), *revision)), "on m{}", member + 1);
        }
    }
}

/// Goal: what is put on any member is read on every member at once.
#[test]
fn every_member_serves() {
    let group = Group::start("serve", &[]);
    block_on(async {
        let (leader, term) = group.leader().await;
        assert!(term > 0 && leader < 3);
        let mut last = 0;
        for writer in 0..3 {
            let client = group.client(writer).await;
            let key = format!("k{writer}");
            let revision = put(&client, &key, "v").await.expect("taken");
            assert!(revision > last, "{revision} after {last}");
            last = revision;
            for reader in 0..3 {
                let client = group.client(reader).await;
                let found = get(&client, &key).await.expect("an answer");
                assert_eq!(found, Some(("v".to_owned(), revision)));
            }
        }
    });
}

/// Goal: leadership moves on request, and whoever is asked in vain says why as etcd does.
#[test]
fn leader_is_moved() {
    let group = Group::start("move", &[]);
    block_on(async {
        let (leader, term) = group.leader().await;
        let mut ids = Vec::new();
        for options in &group.options {
            let status = ask(options).await.expect("it runs");
            ids.push(status.header.expect("a header").member_id);
        }
        let next = (leader + 1) % ids.len();
        let ask_to_lead = async |asked: usize, target_id: u64| {
            let client = group.client(asked).await;
            let request = MoveLeaderRequest { target_id };
            let answer = client.call::<MoveLeaderResponse>(MOVE_LEADER, &request);
            answer.await.map(drop)
        };
        let refused = |text: &str| {
            Err(CallError::Refused {
                code: 9,
                message: format!("etcdserver: {text}"),
            })
        };
        assert_eq!(ask_to_lead(next, ids[next]).await, refused("not leader"));
        assert_eq!(
            ask_to_lead(leader, 77).await,
            refused("bad leader transferee")
        );
        assert_eq!(ask_to_lead(leader, ids[leader]).await, Ok(()));
        assert_eq!(group.leader().await, (leader, term));
        assert_eq!(ask_to_lead(leader, ids[next]).await, Ok(()));
        let (now, later) = group.leader().await;
        assert!(now == next && later > term, "m{} in term {later}", now + 1);
    });
}

/// Goal: kill -9 of the leader amid writes loses nothing that was acknowledged; the others go on, and the dead
/// one catches up when it comes back.
#[test]
fn leader_is_killed() {
    let mut group = Group::start(
        "kill",
        &["--heartbeat-interval=50", "--election-timeout=500"],
    );
    block_on(async {
        let (leader, term) = group.leader().await;
        let acknowledged = write_while(&mut group, |group| group.kill(leader)).await;
        let (next, later) = group.leader().await;
        assert!(next != leader && later > term);
        check_all_there(&group, &acknowledged).await;
        group.start_missing();
        let _agreed = group.leader().await;
        check_all_there(&group, &acknowledged).await;
    });
}

/// Goal: a leader that is told to stop hands over first: it sees its successor lead before it ends, in the next
/// term, and ends well. Its log says how its connections fared.
#[test]
fn leader_hands_over() {
    let mut group = Group::start(
        "stop",
        &["--heartbeat-interval=50", "--election-timeout=1000"],
    );
    block_on(async {
        let (leader, term) = group.leader().await;
        let before = group.log(leader).len();
        let acknowledged = write_while(&mut group, |group| {
            group.servers[leader]
                .as_ref()
                .expect("it runs")
                .signal(Signal::TERM);
        })
        .await;
        let server = group.servers[leader].take().expect("it was told to stop");
        let status = server.wait(TIME_MAX).expect("an end");
        assert_eq!(status.code(), Some(0), "{status}");
        let (next, later) = group.leader().await;
        assert!(next != leader);
        assert_eq!(later, term + 1, "one election was enough");
        let said = group.log(leader)[before..].to_owned();
        assert!(
            said.contains("a leader is known") || said.contains("the leader changed"),
            "it did not see a successor:\n{said}"
        );
        assert!(said.contains("dropped_messages"), "{said}");
        check_all_there(&group, &acknowledged).await;
        group.start_missing();
        check_all_there(&group, &acknowledged).await;
    });
}

/// Waits for the end of a member that was told to stop, while its clients go on: they have to hear that they are to leave.
async fn ends_well(server: Server) {
    let ended = tokio::task::spawn_blocking(move || server.wait(STOP_TIME_MAX));
    let status = ended.await.expect("no panic").expect("an end in time");
    assert_eq!(status.code(), Some(0), "{status}");
}

/// Goal: a leader that is told to stop hands over to another member when the first choice does not answer, and takes calls
/// until that one leads, with its vote: a client that is told to go elsewhere finds somebody who can answer.
#[test]
fn second_choice_takes_over() {
    // Short heartbeats, so that the first attempt is given up between two ticks.
    let mut group = Group::start(
        "second",
        &["--heartbeat-interval=10", "--election-timeout=500"],
    );
    block_on(async {
        let (leader, term) = group.leader().await;
        let client = group.client(leader).await;
        put(&client, "key", "v").await.expect("taken");
        let mut ids = Vec::new();
        for member in 0..3 {
            let status = ask(&group.options[member]).await.expect("an answer");
            ids.push(status.header.expect("every answer has a header").member_id);
            let client = group.client(member).await;
            get(&client, "key").await.expect("all have it");
        }
        let mut followers = [(leader + 1) % 3, (leader + 2) % 3];
        // Of equals it chooses the one with the highest id.
        followers.sort_by_key(|&follower| ids[follower]);
        let [second, first] = followers;
        group.servers[first]
            .as_ref()
            .expect("it runs")
            .signal(Signal::STOP);
        let server = group.servers[leader].take().expect("it runs");
        server.signal(Signal::TERM);
        let taken = async || -> Result<StatusResponse, CallError> {
            client.call(STATUS, &StatusRequest {}).await
        };
        while taken().await.is_ok() {}
        // The paused one has no voice, so this is with the vote of the one that stops.
        let seen = ask(&group.options[second]).await.expect("an answer");
        let (led_by, led_in) = (seen.leader, seen.raft_term);
        assert!(
            led_by == ids[second] && led_in > term,
            "sent away too early"
        );
        ends_well(server).await;
        let paused = group.servers[first].as_ref().expect("it runs");
        paused.signal(Signal::CONT);
        group.start_missing();
        let _agreed = group.leader().await;
    });
}

/// Goal: a member that was away for longer than the leader remembers is sent the log's files.
#[test]
fn late_member_catches_up() {
    let mut group = Group::start(
        "late",
        &["--heartbeat-interval=50", "--election-timeout=500"],
    );
    block_on(async {
        let (leader, _) = group.leader().await;
        let late = (leader + 1) % 3;
        group.kill(late);
        let client = group.client(leader).await;
        // More than the 16 MiB that are kept in memory for followers.
        let value = "v".repeat(1_000_000);
        let mut revisions = Vec::new();
        for number in 0..24 {
            let revision = put(&client, &format!("k{number}"), &value).await;
            revisions.push(revision.expect("taken"));
        }
        group.start_missing();
        let client = group.client(late).await;
        for (number, revision) in revisions.into_iter().enumerate() {
            let found = get(&client, &format!("k{number}"))
                .await
                .expect("an answer");
            assert!(found == Some((value.clone(), revision)), "k{number}");
        }
    });
}

/// Goal: a member that has lost the others takes connections and says of writes and of linearizable reads that they took
/// too long; it stops in time all the same, and all serve again when all are back.
#[test]
fn majority_is_lost() {
    let mut group = Group::start(
        "lost",
        &["--heartbeat-interval=20", "--election-timeout=200"],
    );
    block_on(async {
        let (leader, _) = group.leader().await;
        let client = group.client(leader).await;
        let revision = put(&client, "before", "v").await.expect("taken");
        let [one, other] = [(leader + 1) % 3, (leader + 2) % 3];
        group.kill(one);
        group.kill(other);
        group
            .wait(|status| (status[0].1.as_ref()?.leader == 0).then_some(()))
            .await;
        let (written, read) = tokio::join!(put(&client, "amid", "v"), get(&client, "before"));
        let refused = |code, message: &str| CallError::Refused {
            code,
            message: message.to_owned(),
        };
        assert_eq!(written, Err(refused(4, "context deadline exceeded")));
        assert_eq!(read, Err(refused(14, "etcdserver: request timed out")));
        // What it cannot answer any more does not keep it.
        let amid = {
            let client = client.clone();
            tokio::task::spawn_local(async move { put(&client, "amid", "w").await })
        };
        tokio::task::yield_now().await;
        let server = group.servers[leader].take().expect("it runs");
        server.signal(Signal::TERM);
        amid.await
            .expect("no panic")
            .expect_err("without a majority");
        let status = server.wait(STOP_TIME_MAX).expect("an end in time");
        assert_eq!(status.code(), Some(0), "{status}");
        group.start_missing();
        let _agreed = group.leader().await;
        let client = group.client(one).await;
        let found = get(&client, "before").await.expect("an answer");
        assert_eq!(found, Some(("v".to_owned(), revision)));
    });
}
