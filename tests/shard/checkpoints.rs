//! Checkpoints of a shard: when they are taken, what a crash between any two steps leaves, and that the
//! log gets shorter.

use std::time::Duration;

use bytes::Bytes;
use kontiki::base::Index;
use kontiki::base::limits::CHECKPOINT_RETRY_SECONDS;
use kontiki::shard::Settings;
use kontiki::shard::checkpoints::CheckpointLimits;
use kontiki::shard::event::{AlarmKind, AlarmRequest, Event, Request, Response};

use super::driver::{Disk, Driver, SEGMENT_SIZE_BYTES, put, settings};

/// Entries between two checkpoints, and the size of the values here.
const PAYLOAD_BYTES: u64 = 200_000;
const VALUE_BYTES: usize = 20_000;

fn small() -> Settings {
    let checkpoints = CheckpointLimits {
        payload_bytes_min: PAYLOAD_BYTES,
        log_bytes_max: 8 * SEGMENT_SIZE_BYTES,
    };
    Settings {
        checkpoints,
        ..settings()
    }
}

fn write(driver: &mut Driver, key: &str, value_bytes: usize) {
    let (_, answer) = driver.call(put(key, vec![b'v'; value_bytes]));
    assert!(matches!(answer, Ok(Response::Put(_))));
}

fn compact(driver: &mut Driver) {
    let revision = driver.shard.keyspace().committed_revision();
    let (_, answer) = driver.call(Request::Compact {
        revision,
        physical: true,
    });
    assert!(matches!(answer, Ok(Response::Compact)));
}

fn digest(driver: &Driver) -> (Index, kontiki::keyspace::digest::Digest) {
    let keyspace = driver.shard.keyspace();
    let index = keyspace.committed_index();
    (index, keyspace.digest(index).expect("kept"))
}

/// Goal: under endless puts to the same keys, with compaction, the log and the checkpoints keep to a bound;
/// a restart needs only the newest checkpoint and the log after it, and finds the same state.
#[test]
fn the_log_gets_shorter() {
    let mut driver = Driver::start(Disk::default(), small());
    let mut taken = 0;
    let mut last = None;
    for number in 0..400 {
        write(&mut driver, &format!("{}", number % 5), VALUE_BYTES);
        if number % 10 == 9 {
            compact(&mut driver);
        }
        assert!(
            driver.disk.log_size_bytes() <= 5 * SEGMENT_SIZE_BYTES,
            "{} bytes of log after put {number}",
            driver.disk.log_size_bytes()
        );
        assert!(driver.disk.checkpoints.len() <= 1, "older ones are removed");
        let newest = driver.shard.last_checkpoint();
        taken += u32::from(newest != last);
        last = newest;
    }
    assert!(taken > 20, "{taken} checkpoints");
    let status = driver.shard.status();
    let before = digest(&driver);
    let contents = driver.contents();
    let mut driver = driver.crash();
    assert_eq!(
        driver.shard.last_checkpoint().map(|last| last.id),
        last.map(|last| last.id)
    );
    assert_eq!(driver.shard.keyspace().digest(before.0), Some(before.1));
    assert_eq!(driver.contents(), contents);
    let (_, Ok(Response::MemberList(members))) =
        driver.call(Request::MemberList { linearizable: true })
    else {
        panic!("no member list");
    };
    assert_eq!(members, [driver.settings.member.clone()]);
    assert!(driver.shard.status().raft_term > status.raft_term);
    let revision = driver.shard.keyspace().committed_revision();
    let (next, _) = driver.call(put("next", "v"));
    assert_eq!(next, revision + 1);
}

/// Goal: whichever step of log and checkpoint is the last before a crash, nothing acknowledged is lost,
/// and revisions go on; the steps of the two interleave in many ways.
#[test]
fn crash_at_every_step() {
    let mut checkpoints_seen = 0;
    for crash_after in 0..150 {
        let mut driver = Driver::start(Disk::default(), small());
        let mut random = fastrand::Rng::with_seed(crash_after);
        let mut asked = 0;
        let mut acknowledged = 0;
        let mut performed = 0;
        while performed < crash_after {
            if random.u8(..) < 100 {
                asked += 1;
                driver.ask(vec![put(&format!("{asked:06}"), vec![b'v'; VALUE_BYTES])]);
            }
            performed += match random.u8(..3) {
                0 => u64::from(driver.perform_checkpoint()),
                1 => u64::from(driver.perform_one()),
                _ => {
                    if driver.shard.has_work() {
                        driver.hand_in(Event::Continue);
                    }
                    u64::from(driver.perform_one())
                }
            };
            let answers = driver.answers.drain(..);
            acknowledged += answers.filter(|answer| answer.result.is_ok()).count();
        }
        checkpoints_seen += driver.disk.checkpoints.len();
        // Twice, because the first restart takes up again what the crash left.
        let mut driver = driver.crash().crash();
        let found: Vec<Bytes> = driver.contents().into_keys().collect();
        assert!(
            found.len() >= acknowledged,
            "{} of {acknowledged} acknowledged, crash after {crash_after}",
            found.len()
        );
        let prefix: Vec<Bytes> = (1..=found.len())
            .map(|n| Bytes::from(format!("{n:06}")))
            .collect();
        assert_eq!(found, prefix, "crash after {crash_after}");
        let (revision, _) = driver.call(put("next", "v"));
        assert_eq!(revision, 2 + found.len() as i64);
    }
    assert!(checkpoints_seen > 20, "{checkpoints_seen} crashes with one");
}

/// Goal: a checkpoint that cannot be written is given up without harm, tried again after a while and not
/// before, and then taken.
#[test]
fn failure_is_retried() {
    let mut driver = Driver::start(Disk::default(), small());
    driver.checkpoint_space = false;
    let fill = |driver: &mut Driver| {
        for number in 0..20 {
            write(driver, &format!("{number}"), VALUE_BYTES);
        }
    };
    fill(&mut driver);
    driver.checkpoint_space = true;
    fill(&mut driver);
    assert_eq!(driver.shard.last_checkpoint(), None, "not yet");
    driver.now = driver.now + Duration::from_secs(CHECKPOINT_RETRY_SECONDS);
    driver.tick();
    driver.settle();
    assert!(driver.shard.last_checkpoint().is_some());
    assert_eq!(driver.disk.checkpoints.len(), 1);
}

/// Goal: what is in no key survives in a checkpoint: alarms, members, the version.
#[test]
fn tables_are_kept() {
    let mut driver = Driver::start(Disk::default(), small());
    let member = driver.settings.identity.member;
    let alarm = AlarmRequest::Activate(member, AlarmKind::NoSpace);
    assert!(driver.call(Request::Alarm(alarm)).1.is_ok());
    let clear = AlarmRequest::Deactivate(member, AlarmKind::NoSpace);
    assert!(driver.call(Request::Alarm(clear)).1.is_ok());
    for number in 0..20 {
        write(&mut driver, &format!("{number}"), VALUE_BYTES);
    }
    let alarm = AlarmRequest::Activate(member, AlarmKind::Corrupt);
    assert!(driver.call(Request::Alarm(alarm)).1.is_ok());
    let first = driver.shard.last_checkpoint().expect("one was taken");
    // From here on each start takes one, of the entries of its election.
    driver.settings.checkpoints.log_bytes_max = 1;
    let alarms = driver.shard.status().alarms;
    assert_eq!(alarms.len(), 1);
    let driver = driver.crash().crash().crash();
    let last = driver.shard.last_checkpoint().expect("still there");
    assert!(last.id.index > first.id.index, "a later one was taken");
    assert!(last.id.term > first.id.term);
    assert_eq!(driver.shard.status().alarms, alarms);
}

/// Goal: a log of small commits is long on disk although few entries are in it; its length alone makes a
/// checkpoint due, once for every segment it has grown.
#[test]
fn a_long_log_of_few_entries() {
    let mut settings = small();
    settings.checkpoints.payload_bytes_min = u64::MAX;
    settings.checkpoints.log_bytes_max = 4 * SEGMENT_SIZE_BYTES;
    let mut driver = Driver::start(Disk::default(), settings);
    let mut taken = 0;
    let mut last = None;
    for _ in 0..1_000 {
        write(&mut driver, "key", 1);
        taken += u32::from(driver.shard.last_checkpoint() != last);
        last = driver.shard.last_checkpoint();
        assert!(driver.disk.log_size_bytes() <= 6 * SEGMENT_SIZE_BYTES);
    }
    // A commit takes a page: 62 of them fill a segment.
    assert!((4..=16).contains(&taken), "{taken} checkpoints");
}

/// Goal: damage in a segment that is not written any more is repaired by a checkpoint, before one is due: nothing
/// damaged is left of the log, and the alarm, which ends writes meanwhile, is taken back.
#[test]
fn damage_is_repaired_by_a_checkpoint() {
    let mut driver = Driver::start(
        Disk::default(),
        Settings {
            checkpoints: CheckpointLimits {
                payload_bytes_min: u64::MAX,
                log_bytes_max: u64::MAX,
            },
            ..settings()
        },
    );
    while driver.shard.log().sealed_segments().len() < 3 {
        write(&mut driver, "a", VALUE_BYTES);
    }
    let damaged = driver.shard.log().sealed_segments()[1].summary.sequence;
    assert_eq!(driver.shard.last_checkpoint(), None);
    let before = driver.contents();
    driver.hand_in(Event::LogDamaged);
    driver.settle();
    let (_, raised) = driver.call(put("b", vec![b'v'; 10]));
    let corrupt = matches!(raised, Err(kontiki::shard::event::Refusal::Corrupt));
    let repaired = |driver: &Driver| {
        let sealed = driver.shard.log().sealed_segments();
        sealed
            .iter()
            .all(|segment| segment.summary.sequence > damaged)
    };
    assert!(corrupt || repaired(&driver));
    for _ in 0..10 {
        driver.tick();
        driver.settle();
    }
    assert!(repaired(&driver), "the damaged segment is still needed");
    let (_, alarms) = driver.call(Request::Alarm(AlarmRequest::List(Some(AlarmKind::Corrupt))));
    assert!(matches!(alarms, Ok(Response::Alarm(alarms)) if alarms.is_empty()));
    write(&mut driver, "b", VALUE_BYTES);
    let mut driver = driver.crash();
    assert!(driver.contents().len() == before.len() + 1);
}
