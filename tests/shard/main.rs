//! The shard as a state machine: what is answered when, what survives, what is refused. No file, no
//! clock, no thread: a driver performs the effects one at a time.

mod checkpoints;
mod driver;
mod forward;
mod group;
mod hostile;
mod install;
mod members;
mod read_mode;
mod reclaim;
mod stall;

use bytes::Bytes;
use kontiki::base::MemberId;
use kontiki::keyspace::request::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyRange, RangeRequest, RequestOp,
    TxnRequest,
};
use kontiki::shard::event::{Alarm, AlarmKind, AlarmRequest, Event, Refusal, Request, Response};

use driver::{Disk, Driver, PATIENCE, everything, put, settings};

fn fresh() -> Driver {
    Driver::start(Disk::default(), settings())
}

fn serializable() -> Request {
    Request::Range(RangeRequest {
        range: everything(),
        serializable: true,
        ..Default::default()
    })
}

pub(crate) fn never_true() -> Request {
    let key = Bytes::from_static(b"a");
    Request::Txn(TxnRequest {
        compare: vec![Compare {
            range: KeyRange {
                key: key.clone(),
                range_end: Bytes::new(),
            },
            result: CompareResult::Equal,
            target: CompareTarget::Version(99),
        }],
        success: vec![RequestOp::Put(kontiki::keyspace::request::PutRequest {
            key,
            ..Default::default()
        })],
        failure: Vec::new(),
    })
}

/// Goal: a put is answered when its commit is durable and not before, and nobody reads it before.
#[test]
fn acknowledged_when_durable() {
    let mut driver = fresh();
    let number = driver.ask(vec![put("a", "1")])[0];
    assert!(driver.take(number).is_none(), "not durable yet");
    let read = driver.ask(vec![serializable()])[0];
    let Some((1, Ok(Response::Range(range)))) = driver.take(read) else {
        panic!("not answered")
    };
    assert_eq!(range.count, 0, "an uncommitted version is visible");
    driver.settle();
    assert!(matches!(
        driver.take(number),
        Some((2, Ok(Response::Put(_))))
    ));
    assert_eq!(driver.contents().len(), 1);
}

/// Goal: an answer that changed nothing, but depends on a write that is not durable, waits for it.
#[test]
fn answers_without_an_entry_wait_for_the_head() {
    let mut driver = fresh();
    let numbers = driver.ask(vec![put("a", "1"), never_true(), put("a", "2")]);
    assert!(
        numbers.iter().all(|&number| driver.take(number).is_none()),
        "nothing is durable yet"
    );
    driver.settle();
    let Some((2, Ok(Response::Txn(txn)))) = driver.take(numbers[1]) else {
        panic!("the transaction saw the first put and changed nothing");
    };
    assert!(!txn.succeeded);
    assert!(matches!(driver.take(numbers[2]), Some((3, Ok(_)))));
}

/// Goal: what arrives during a sync shares the next commit, whatever its number.
#[test]
fn group_commit() {
    let mut driver = fresh();
    let first = driver.ask(vec![put("a", "1")])[0];
    let commits = driver.shard.log().durable_commit().0;
    let others = driver.ask((0..100).map(|n| put(&format!("k{n}"), "v")).collect());
    driver.settle();
    assert!(driver.take(first).is_some());
    assert!(others.iter().all(|&number| driver.take(number).is_some()));
    assert_eq!(driver.shard.log().durable_commit().0, commits + 2);
}

/// Goal: at every point of a busy life, a crash loses nothing that was acknowledged, and what is left is
/// a prefix of what was asked; revisions and answers go on from there.
#[test]
fn crash_at_every_effect() {
    for crash_after in 0..60 {
        let mut driver = fresh();
        let mut asked = 0;
        let mut acknowledged = 0;
        let mut performed = 0;
        while performed < crash_after {
            asked += 1;
            // Large enough that segments change within the loop.
            driver.ask(vec![put(&format!("{asked:06}"), vec![b'v'; 20_000])]);
            for _ in 0..2 {
                performed += u32::from(driver.perform_one());
            }
            acknowledged += driver
                .answers
                .drain(..)
                .filter(|answer| answer.result.is_ok())
                .count();
        }
        let mut driver = driver.crash();
        let found: Vec<Bytes> = driver.contents().into_keys().collect();
        assert!(
            found.len() >= acknowledged,
            "{} of {acknowledged} acknowledged",
            found.len()
        );
        let prefix: Vec<Bytes> = (1..=found.len())
            .map(|n| Bytes::from(format!("{n:06}")))
            .collect();
        assert_eq!(found, prefix, "after {crash_after} effects");
        let (revision, _) = driver.call(put("next", "v"));
        assert_eq!(
            revision,
            2 + found.len() as i64,
            "after {crash_after} effects"
        );
    }
}

/// Goal: the same events give the same bytes on disk and the same digest.
#[test]
fn deterministic() {
    let life = || {
        let mut driver = fresh();
        for n in 0..50 {
            driver.ask(vec![
                put(&format!("{}", n % 7), format!("{n}")),
                never_true(),
            ]);
            driver.perform_one();
        }
        driver.settle();
        let keyspace = driver.shard.keyspace();
        (
            keyspace.digest(keyspace.committed_index()),
            keyspace.committed_revision(),
            driver.contents(),
        )
    };
    assert_eq!(life(), life());
}

/// Goal: a request whose deadline passes is told so once, in the queue and behind a stuck disk alike.
#[test]
fn deadlines() {
    let mut driver = fresh();
    let number = driver.ask(vec![put("a", "1")])[0];
    driver.now = driver.now + PATIENCE;
    driver.tick();
    assert!(matches!(
        driver.take(number),
        Some((_, Err(Refusal::TimedOut)))
    ));
    driver.settle();
    assert!(driver.take(number).is_none(), "answered twice");
    // It may have been committed all the same: the client knew only that it did not hear in time.
    assert_eq!(driver.contents().len(), 1);
}

/// Goal: above the quota growth is refused, an alarm is raised and survives a restart; reads, deletes and
/// compaction go on; disarming lets writes through again when there is room.
#[test]
fn quota() {
    let mut limited = settings();
    limited.quota_bytes = Some(20_000);
    let mut driver = Driver::start(Disk::default(), limited);
    let big = "x".repeat(9_000);
    assert!(driver.call(put("a", big.clone())).1.is_ok());
    assert!(driver.call(put("b", big.clone())).1.is_ok());
    assert!(matches!(
        driver.call(put("c", big.clone())).1,
        Err(Refusal::NoSpace)
    ));
    assert!(
        matches!(driver.call(put("d", "")).1, Err(Refusal::NoSpace)),
        "the alarm holds"
    );
    let mut driver = driver.crash();
    let alarm = Alarm {
        member: MemberId(7),
        kind: AlarmKind::NoSpace,
    };
    let (_, listed) = driver.call(Request::Alarm(AlarmRequest::List(None)));
    assert!(matches!(listed, Ok(Response::Alarm(alarms)) if alarms == [alarm]));
    assert!(driver.call(serializable()).1.is_ok());
    let delete = DeleteRangeRequest {
        range: everything(),
        prev_kv: false,
    };
    assert!(matches!(
        driver.call(Request::DeleteRange(delete)),
        (4, Ok(Response::DeleteRange(deleted))) if deleted.deleted == 2
    ));
    assert!(
        driver
            .call(Request::Compact {
                revision: 4,
                physical: true
            })
            .1
            .is_ok()
    );
    let disarm = AlarmRequest::Deactivate(alarm.member, alarm.kind);
    let (_, disarmed) = driver.call(Request::Alarm(disarm));
    assert!(matches!(disarmed, Ok(Response::Alarm(alarms)) if alarms == [alarm]));
    let (_, disarmed) = driver.call(Request::Alarm(disarm));
    assert!(matches!(disarmed, Ok(Response::Alarm(alarms)) if alarms.is_empty()));
    assert!(driver.call(put("c", big)).1.is_ok());
}

/// Goal: a process above its budget refuses growth until it is below again; a keyspace above it raises
/// the alarm, because that does not go by itself.
#[test]
fn memory_budget() {
    let mut limited = settings();
    limited.memory_budget_bytes = 1_000_000;
    let mut driver = Driver::start(Disk::default(), limited);
    assert!(driver.call(put("a", "1")).1.is_ok());
    driver.memory_used_bytes = 1_000_000;
    driver.tick();
    assert!(matches!(
        driver.call(put("a", "2")).1,
        Err(Refusal::NoSpace)
    ));
    assert!(driver.call(serializable()).1.is_ok());
    driver.memory_used_bytes = 0;
    driver.tick();
    assert!(driver.call(put("a", "2")).1.is_ok());

    let refused = (0..30).find_map(|n| {
        let big = vec![b'v'; 40_000];
        driver.call(put(&format!("{n}"), big)).1.err()
    });
    assert_eq!(refused, Some(Refusal::NoSpace));
    let (_, alarms) = driver.call(Request::Alarm(AlarmRequest::List(None)));
    assert!(matches!(alarms, Ok(Response::Alarm(alarms)) if alarms.len() == 1));
}

/// Goal: a full file system refuses writes before the active segment is full, keeps the member alive
/// and readable, and is forgotten when there is room again.
#[test]
fn full_disk() {
    let mut driver = fresh();
    driver.space = false;
    let mut refused = 0;
    for n in 0..60 {
        let number = driver.ask(vec![put(&format!("{n:02}"), vec![b'v'; 20_000])])[0];
        driver.settle();
        refused += u32::from(matches!(
            driver.take(number),
            Some((_, Err(Refusal::NoSpace)))
        ));
    }
    assert!(refused > 0, "nothing was refused");
    assert!(driver.call(serializable()).1.is_ok());
    driver.space = true;
    driver.settle();
    assert!(driver.call(put("room", "again")).1.is_ok());
}

/// Goal: the state of one alarm type NONE, of an unknown alarm, and of the member list.
#[test]
fn cluster_state() {
    let mut driver = fresh();
    let (_, nothing) = driver.call(Request::Alarm(AlarmRequest::Nothing));
    assert!(matches!(nothing, Ok(Response::Alarm(alarms)) if alarms.is_empty()));
    let corrupt = AlarmRequest::Activate(MemberId(9), AlarmKind::Corrupt);
    assert!(driver.call(Request::Alarm(corrupt)).1.is_ok());
    assert!(matches!(
        driver.call(put("a", "1")).1,
        Err(Refusal::Corrupt)
    ));
    assert!(driver.call(serializable()).1.is_ok());
    let (_, members) = driver.call(Request::MemberList { linearizable: true });
    assert!(matches!(members, Ok(Response::MemberList(list)) if list == [settings().member]));
}

/// Goal: a log that could not be replayed ends writes with an alarm, once, and reads go on.
#[test]
fn damaged_log() {
    let mut driver = fresh();
    assert!(driver.call(put("a", "1")).1.is_ok());
    driver.hand_in(Event::LogDamaged);
    driver.hand_in(Event::LogDamaged);
    driver.settle();
    assert!(matches!(
        driver.call(put("a", "2")).1,
        Err(Refusal::Corrupt)
    ));
    assert_eq!(driver.contents().len(), 1);
    let (_, listed) = driver.call(Request::Alarm(AlarmRequest::List(None)));
    let corrupt = Alarm {
        member: MemberId(7),
        kind: AlarmKind::Corrupt,
    };
    assert!(matches!(listed, Ok(Response::Alarm(alarms)) if alarms == [corrupt]));
}

/// Goal: a restart with another name or other client URLs shows them.
#[test]
fn changed_attributes() {
    let mut driver = fresh();
    driver.settings.member.name = "renamed".into();
    let mut driver = driver.crash();
    let (_, members) = driver.call(Request::MemberList {
        linearizable: false,
    });
    assert!(matches!(members, Ok(Response::MemberList(list)) if list[0].name == "renamed"));
}

/// Goal: a long deletion and long reads go in slices, other reads pass between them, and all answers come.
#[test]
fn long_work_in_slices() {
    let mut driver = fresh();
    for n in 0..200 {
        let keys = (0..100)
            .map(|m| put(&format!("{n:04}{m:04}"), "v"))
            .collect();
        driver.ask(keys);
        driver.settle();
    }
    driver.answers.clear();
    let delete = DeleteRangeRequest {
        range: everything(),
        prev_kv: false,
    };
    let long = driver.ask(vec![
        Request::DeleteRange(delete),
        serializable(),
        put("after", "v"),
    ]);
    let mut turns = 0;
    while driver.shard.has_work() {
        turns += 1;
        driver.hand_in(Event::Continue);
        while driver.perform_one() {}
    }
    assert!(turns > 5, "20,000 keys in {turns} turns");
    driver.settle();
    let Some((_, Ok(Response::DeleteRange(deleted)))) = driver.take(long[0]) else {
        panic!("no answer to the deletion");
    };
    assert_eq!(deleted.deleted, 20_000);
    let Some((_, Ok(Response::Range(range)))) = driver.take(long[1]) else {
        panic!("no answer to the read");
    };
    assert_eq!(
        (range.count, range.kvs.len()),
        (20_000, 20_000),
        "the state before the deletion"
    );
    assert!(matches!(
        driver.take(long[2]),
        Some((_, Ok(Response::Put(_))))
    ));
    assert_eq!(driver.contents().len(), 1);
}

/// Goal: a short read passes any number of long ones.
#[test]
fn short_reads_pass_long_ones() {
    let mut driver = fresh();
    for n in 0..100 {
        driver.ask(
            (0..100)
                .map(|m| put(&format!("{n:04}{m:04}"), "v"))
                .collect(),
        );
        driver.settle();
    }
    driver.ask((0..64).map(|_| serializable()).collect());
    let short = Request::Range(RangeRequest {
        range: KeyRange {
            key: Bytes::from_static(b"00010001"),
            range_end: Bytes::new(),
        },
        ..Default::default()
    });
    let number = driver.ask(vec![short])[0];
    let mut turns = 0;
    while driver.take(number).is_none() {
        turns += 1;
        assert!(turns < 70, "behind the long reads");
        driver.hand_in(Event::Continue);
    }
    assert!(
        driver.shard.has_work(),
        "the long reads are still under way"
    );
}

/// Goal: damage that is found while a long deletion is folded raises its alarm after the deletion.
#[test]
fn damage_during_a_long_fold() {
    let mut driver = fresh();
    for n in 0..100 {
        driver.ask(
            (0..100)
                .map(|m| put(&format!("{n:04}{m:04}"), "v"))
                .collect(),
        );
        driver.settle();
    }
    let delete = DeleteRangeRequest {
        range: everything(),
        prev_kv: false,
    };
    let number = driver.ask(vec![Request::DeleteRange(delete)])[0];
    assert!(driver.shard.has_work(), "done in one slice");
    driver.hand_in(Event::LogDamaged);
    driver.settle();
    assert!(matches!(
        driver.take(number),
        Some((_, Ok(Response::DeleteRange(_))))
    ));
    // What is damaged is replaced by a checkpoint, behind the fold as well.
    assert!(driver.shard.last_checkpoint().is_some());
    assert!(driver.call(put("a", "2")).1.is_ok());
}

/// Goal: a restart needs no more memory than the member did: what compaction freed is freed by replay too.
#[test]
fn replay_reclaims() {
    let mut driver = fresh();
    for round in 0..50 {
        driver.ask(
            (0..100)
                .map(|n| put(&format!("{n:03}"), vec![b'v'; 100]))
                .collect(),
        );
        driver.settle();
        let revision = 1 + (round + 1) * 100;
        let compact = Request::Compact {
            revision,
            physical: true,
        };
        assert!(driver.call(compact).1.is_ok());
    }
    let before = driver.shard.keyspace().size_bytes();
    let driver = driver.crash();
    let after = driver.shard.keyspace().size_bytes();
    assert!(
        after <= before,
        "{after} bytes after a restart, {before} before"
    );
}

/// Goal: a member whose disk is full stops when it is told to, with clients waiting for what never
/// became durable.
#[test]
fn stop_on_a_full_disk() {
    let mut driver = fresh();
    driver.space = false;
    // In one batch, so that more is taken than the segment holds.
    driver.ask(
        (0..20)
            .map(|n| put(&format!("{n:02}"), vec![b'v'; 20_000]))
            .collect(),
    );
    driver.settle();
    driver.hand_in(Event::Stop);
    driver.now = driver.now + PATIENCE;
    driver.tick();
    driver.settle();
    driver.hand_in(Event::LogIdle);
    driver.settle();
    assert!(driver.shard.is_drained());
}

/// Goal: a stopping shard takes nothing new, finishes what it took, and leaves a sealed log.
#[test]
fn stop() {
    let mut driver = fresh();
    let taken = driver.ask(vec![put("a", "1")])[0];
    driver.hand_in(Event::Stop);
    let late = driver.ask(vec![put("b", "1")])[0];
    assert!(matches!(
        driver.take(late),
        Some((_, Err(Refusal::Stopped)))
    ));
    assert!(!driver.shard.is_drained());
    driver.settle();
    driver.hand_in(Event::LogIdle);
    driver.settle();
    assert!(driver.take(taken).is_some());
    assert!(driver.shard.is_drained());
}
