//! Members that never come to rest keep up with compaction all the same: what they hold has the bound that is
//! derived at [`RECLAIM_UNPAID_CHANGES_MAX`].

use bytes::Bytes;
use kontiki::base::limits::{RECLAIM_UNPAID_CHANGES_MAX, SLICE_STEPS_MAX};
use kontiki::keyspace::request::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use kontiki::keyspace::steps::{PUT_STEPS, RECLAIM_STEPS};
use kontiki::keyspace::{KEY_OVERHEAD_BYTES, VERSION_OVERHEAD_BYTES};
use kontiki::shard::Settings;
use kontiki::shard::checkpoints::CheckpointLimits;
use kontiki::shard::event::{Answer, Event, Request, Response};

use crate::driver::{Disk, Driver, everything, settings};
use crate::group::Group;

const KEY_BYTES: u64 = 8;
/// Versions that are written from where a compaction is evaluated until its floor is followed: those of a few turns.
const LATE: u64 = 1_000;
/// Requests that wait at least, so that every turn is full.
const QUEUED: u64 = 2_000;

/// Puts of keys in turn, and compactions at intervals.
#[derive(Clone, Copy)]
struct Load {
    keys: u64,
    value_bytes: u64,
    /// Puts of one transaction; one stands alone.
    puts: u64,
    /// Every other revision deletes all keys.
    deletes: bool,
    /// Revisions between two compactions, and how many each of them keeps.
    interval: u64,
    kept: u64,
    /// Revisions so far.
    revisions: u64,
}

impl Load {
    fn new(keys: u64, interval: u64, kept: u64) -> Load {
        Load {
            keys,
            value_bytes: 64,
            puts: 1,
            deletes: false,
            interval,
            kept,
            revisions: 0,
        }
    }

    fn requests(&mut self, count: u64) -> Vec<Request> {
        let mut requests = Vec::new();
        for _ in 0..count {
            let first = self.revisions * self.puts;
            let put = |number: u64| PutRequest {
                key: Bytes::from(format!("{:08}", number % self.keys)),
                value: Bytes::from(vec![b'v'; self.value_bytes as usize]),
                ..PutRequest::default()
            };
            let deletes = self.deletes && !self.revisions.is_multiple_of(2);
            requests.push(match self.puts {
                _ if deletes => Request::DeleteRange(DeleteRangeRequest {
                    range: everything(),
                    prev_kv: false,
                }),
                1 => Request::Put(put(first)),
                _ => Request::Txn(TxnRequest {
                    success: (first..first + self.puts)
                        .map(|number| RequestOp::Put(put(number)))
                        .collect(),
                    ..TxnRequest::default()
                }),
            });
            self.revisions += 1;
            if self.revisions.is_multiple_of(self.interval) && self.revisions > self.kept {
                requests.push(compact(1 + self.revisions - self.kept, false));
            }
        }
        requests
    }

    /// Every key once.
    fn fill(&mut self) -> Vec<Request> {
        self.requests(self.keys.div_ceil(self.puts))
    }

    /// Versions that a member holds; one for each key that is not there less.
    fn held(&self, driver: &Driver) -> u64 {
        let keys = self.keys * (KEY_BYTES + KEY_OVERHEAD_BYTES);
        let versions = driver.shard.keyspace().size_bytes().saturating_sub(keys);
        versions / (self.value_bytes + VERSION_OVERHEAD_BYTES)
    }

    /// As many as it may hold.
    fn held_max(&self) -> u64 {
        let at_the_floor = self.puts;
        let waiting = RECLAIM_UNPAID_CHANGES_MAX + self.interval * self.puts + at_the_floor;
        self.keys + self.kept * self.puts + waiting + LATE
    }

    #[track_caller]
    fn check(&self, driver: &Driver, pinned: u64) {
        let (held, held_max) = (self.held(driver), self.held_max() + pinned);
        assert!(
            held <= held_max,
            "{held} versions after {} revisions, at most {held_max} are to be held",
            self.revisions
        );
    }
}

fn compact(revision: u64, physical: bool) -> Request {
    Request::Compact {
        revision: i64::try_from(revision).expect("small"),
        physical,
    }
}

/// A member with every key, and requests waiting.
fn busy(settings: Settings, load: &mut Load) -> Driver {
    let mut driver = Driver::start(Disk::default(), settings);
    driver.ask(load.fill());
    driver.settle();
    driver.answers.clear();
    driver
}

/// One more turn among requests that never end, no longer than any other. Every request is answered well.
fn turn(driver: &mut Driver, load: &mut Load) {
    let before = (driver.shard.keyspace().head_revision(), load.held(driver));
    let answered = driver.shard.keyspace().committed_revision() as u64;
    driver.begin_turn();
    if load.revisions < answered + QUEUED / load.puts {
        driver.ask(load.requests(QUEUED / load.puts));
    }
    driver.hand_in(Event::Continue);
    while driver.perform_one() || driver.perform_checkpoint() {}
    driver.end_turn();
    for answer in &driver.answers {
        assert!(answer.result.is_ok(), "{answer:?}");
    }
    assert!(driver.shard.has_work(), "the turns are not full");
    if load.puts == 1 {
        let written = (driver.shard.keyspace().head_revision() - before.0) as usize;
        let freed = (before.1 as usize + written) - load.held(driver) as usize;
        let steps = written * PUT_STEPS + freed * RECLAIM_STEPS;
        assert!(
            steps <= SLICE_STEPS_MAX + SLICE_STEPS_MAX / 32,
            "a turn of {steps} steps: {written} versions written, {freed} freed"
        );
    }
}

/// Goal: a leader whose turns are all full frees what compactions give up as fast as it writes, whether revisions
/// are small or every floor lies at a large one.
#[test]
fn leader_keeps_up() {
    let check = |mut load: Load, revisions: u64| {
        let mut driver = busy(settings(), &mut load);
        while load.revisions < revisions {
            turn(&mut driver, &mut load);
            driver.answers.clear();
            load.check(&driver, 0);
        }
        driver.settle();
        let versions = load.keys + (load.kept + load.revisions % load.interval) * load.puts;
        assert!(load.held(&driver) <= versions, "all is freed in the end");
    };
    check(Load::new(500, 8_000, 500), 60_000);
    check(Load::new(500, 500, 10), 40_000);
    let transactions = Load {
        puts: 128,
        ..Load::new(512, 1, 0)
    };
    check(transactions, 500);
}

/// Goal: what a compaction gives up at once, because there was none for long, is freed although further ones follow;
/// also while half of all that is written is deletions.
#[test]
fn backlog_ends() {
    let check = |mut load: Load| {
        let interval = std::mem::replace(&mut load.interval, u64::MAX);
        let mut driver = busy(settings(), &mut load);
        let mut run = |load: &mut Load, versions: u64| {
            while load.revisions * load.puts < versions {
                turn(&mut driver, load);
                driver.answers.clear();
            }
            load.held(&driver)
        };
        assert!(run(&mut load, 40_000) > 30_000, "nothing is given up yet");
        load.interval = interval;
        let (held, held_max) = (run(&mut load, 100_000), load.held_max());
        assert!(held <= held_max, "{held} versions are held, not {held_max}");
    };
    check(Load::new(500, 4_000, 500));
    let deletions = Load {
        puts: 128,
        deletes: true,
        value_bytes: 0,
        ..Load::new(128, 10, 0)
    };
    check(deletions);
}

/// Goal: a follower that is sent more in each of its turns than it can fold frees as fast as it folds.
#[test]
fn follower_keeps_up() {
    let mut group = Group::start(2, 1 << 20);
    let (leader, follower) = (group.leader(), group.followers()[0]);
    let mut load = Load::new(500, 8_000, 500);
    group.member(leader).ask(load.fill());
    group.settle();
    let mut waited = 0;
    while load.revisions < 50_000 {
        let requests = load.requests(600);
        group.member(leader).ask(requests);
        group.member(leader).settle();
        let mail: Vec<_> = group.member(leader).messages.drain(..).collect();
        group.member(follower).begin_turn();
        for (to, message) in mail {
            group.deliver(leader, to, message);
        }
        while group.member(follower).perform_one() {}
        group.member(follower).end_turn();
        load.check(group.member(follower), 0);
        let mail: Vec<_> = group.member(follower).messages.drain(..).collect();
        for (to, message) in mail {
            group.deliver(follower, to, message);
        }
        group.member(leader).settle();
        group.member(leader).answers.clear();
        load.check(group.member(leader), 0);
        let folded = |driver: &Driver| driver.shard.keyspace().folded_index().0;
        waited = folded(group.member(leader)) - folded(group.member(follower));
    }
    assert!(waited > 20_000, "{waited} entries wait for the fold");
    while group.member(follower).shard.has_work() {
        group.member(follower).begin_turn();
        group.member(follower).hand_in(Event::Continue);
        while group.member(follower).perform_one() {}
        group.member(follower).end_turn();
        load.check(group.member(follower), 0);
    }
}

/// Goal: what a checkpoint keeps from being freed while it is taken depends on what it holds, and not on how many
/// writes come meanwhile.
#[test]
fn checkpoint_keeps_up() {
    let check = |mut load: Load| {
        let checkpoints = CheckpointLimits {
            payload_bytes_min: 1 << 20,
            ..CheckpointLimits::default()
        };
        let settings = Settings {
            checkpoints,
            ..settings()
        };
        let mut driver = busy(settings, &mut load);
        let changes = load.kept + load.interval + LATE;
        let pinned = RECLAIM_UNPAID_CHANGES_MAX + load.keys + changes / 2;
        let (mut taken, mut last) = (0, driver.shard.last_checkpoint());
        while taken < 4 {
            turn(&mut driver, &mut load);
            driver.answers.clear();
            load.check(&driver, pinned);
            let newest = driver.shard.last_checkpoint();
            taken += u32::from(newest != last);
            last = newest;
        }
    };
    check(Load::new(10_000, 2_000, 0));
    check(Load::new(500, 2_000, 28_000));
}

/// Goal: a checkpoint under way takes more of a turn from writes for what it keeps from being freed itself, and not
/// for what a read keeps.
#[test]
fn checkpoint_does_not_hurry_for_a_read() {
    let checkpoints = CheckpointLimits {
        payload_bytes_min: 2 << 20,
        ..CheckpointLimits::default()
    };
    let settings = Settings {
        checkpoints,
        ..settings()
    };
    let mut load = Load::new(10_000, 1_000, 0);
    let mut driver = busy(settings, &mut load);
    let all = Request::Range(RangeRequest {
        range: everything(),
        serializable: true,
        ..RangeRequest::default()
    });
    driver.ask(vec![all; 16]);
    let (mut turns, mut written) = (0, 0);
    while turns < 100 {
        let before = driver.shard.keyspace().head_revision();
        turn(&mut driver, &mut load);
        assert!(driver.answers.iter().all(is_small), "the reads have ended");
        driver.answers.clear();
        assert!(load.revisions < 60_000, "no checkpoint was under way");
        let is_under_way = !driver.unfinished.is_empty();
        if is_under_way && driver.shard.keyspace().changes_pinned() > RECLAIM_UNPAID_CHANGES_MAX {
            turns += 1;
            written += driver.shard.keyspace().head_revision() - before;
        }
    }
    assert!(written > turns * 80, "{written} writes in {turns} turns");
}

/// Whether it is not the answer to a read.
fn is_small(answer: &Answer) -> bool {
    !matches!(answer.result, Ok(Response::Range(_)))
}

/// Goal: a physical compaction is answered when what it gave up is freed, although later compactions come on and on
/// and there is always something to free.
#[test]
fn physical_compaction_ends() {
    let mut load = Load::new(500, 1_000, 0);
    let mut driver = busy(settings(), &mut load);
    while load.revisions < 30_000 {
        turn(&mut driver, &mut load);
        driver.answers.clear();
    }
    let asked_at = load.revisions;
    // Those in the queue compact up to here.
    let number = driver.ask(vec![compact(asked_at + 1, true)])[0];
    let mut answered = None;
    while answered.is_none() {
        turn(&mut driver, &mut load);
        answered = driver.take(number);
        driver.answers.clear();
        let since = load.revisions - asked_at;
        assert!(since < 200_000, "{since} revisions later");
    }
    assert!(matches!(answered, Some((_, Ok(Response::Compact)))));
    let through = driver.shard.keyspace().reclaimed_through();
    let floor = driver.shard.keyspace().compacted_revision();
    assert!((asked_at as i64..floor).contains(&through), "{through}");
}
