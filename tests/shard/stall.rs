//! A disk that hangs: the member says so, and does not lead on.

use std::time::Duration;

use kontiki::base::MemberId;
use kontiki::raft::StepDown;
use kontiki::shard::event::{Event, Notice};

use crate::driver::put;
use crate::group::{Group, pair};

/// Lets time pass in which somebody writes, through whoever leads, and waits for no answer.
fn run_writing(group: &mut Group, through: MemberId, span: Duration) {
    for number in 0..span.as_millis() / 100 {
        group.ask(through, put(&format!("meanwhile {number}"), "v"));
        group.run(Duration::from_millis(100));
    }
}

/// Goal: a leader whose disk completes no sync hands over within a few election timeouts, says why, and writes go on.
/// When the disk is back, it has what the others have.
#[test]
fn a_leader_whose_sync_stalls_hands_over() {
    let mut group = Group::start(3, 1 << 20);
    let old = group.leader();
    group.call(old, put("before", "v")).expect("written");
    group.member(old).notices.clear();
    group.member(old).disk_hangs = true;
    run_writing(&mut group, old, Duration::from_secs(3));
    let new = group.leader();
    assert_ne!(new, old);
    group
        .call(new, put("after", "v"))
        .expect("written without it");
    let notices = &group.member(old).notices;
    let is_said = |is: fn(&Notice) -> bool| notices.iter().filter(|&notice| is(notice)).count();
    assert_eq!(
        is_said(|notice| matches!(notice, Notice::SyncStalled { to: Some(_), .. })),
        1
    );
    assert_eq!(
        is_said(|notice| *notice == Notice::SteppedDown(StepDown::HigherTerm)),
        1
    );
    group.member(old).disk_hangs = false;
    group.run(Duration::from_secs(1));
    assert!(group.contents(old).contains(&pair("after", "v")));
    group.assert_same();
}

/// Goal: a leader whose disk hangs while the others lack what only that disk could give them cannot hand over: it leads
/// no longer, says why, and the others write on.
#[test]
fn a_leader_that_cannot_hand_over_steps_down() {
    // Nothing is kept in memory for the others.
    let mut group = Group::start(3, 0);
    let old = group.leader();
    group.call(old, put("before", "v")).expect("written");
    group.member(old).notices.clear();
    group.member(old).disk_hangs = true;
    for _ in 0..3 {
        group.ask(old, put("during", "v"));
    }
    group.run(Duration::from_secs(9));
    let new = group.leader();
    assert_ne!(new, old);
    group
        .call(new, put("after", "v"))
        .expect("written without it");
    let stalled = Notice::SteppedDown(StepDown::SyncStalled);
    assert!(group.member(old).notices.contains(&stalled));
    group.member(old).disk_hangs = false;
    group.run(Duration::from_secs(1));
    group.assert_same();
}

/// Goal: a leader that waits for a segment, because its disk prepares none, hands over like one whose sync hangs. One
/// whose disk says that it is full leads on.
#[test]
fn a_leader_without_a_segment_hands_over() {
    for is_full in [false, true] {
        let mut group = Group::start(3, 1 << 20);
        let old = group.leader();
        group.call(old, put("before", "v")).expect("written");
        group.member(old).notices.clear();
        group.member(old).prepares_nothing = !is_full;
        group.member(old).space = !is_full;
        // More than what is left of one segment, and the whole of the spare one.
        for number in 0..40 {
            let value = vec![b'v'; 16 << 10];
            group.ask(old, put(&format!("during {number}"), value));
            group.settle();
        }
        run_writing(&mut group, old, Duration::from_secs(3));
        let new = group.leader();
        assert_eq!(new == old, is_full);
        let stalled = |notice: &Notice| matches!(notice, Notice::SyncStalled { .. });
        let notices = &group.member(old).notices;
        assert_eq!(notices.iter().any(stalled), !is_full, "{notices:?}");
        if !is_full {
            group
                .call(new, put("after", "v"))
                .expect("written without it");
        }
        group.member(old).prepares_nothing = false;
        group.member(old).space = true;
        group.run(Duration::from_secs(1));
        group.assert_same();
    }
}

/// Goal: a leader whose disk hangs leads on where nobody could be elected without its disk: reads go on, and writes
/// when it is back.
#[test]
fn a_leader_that_is_needed_leads_on() {
    for count in [2, 3] {
        let mut group = Group::start(count, 1 << 20);
        let old = group.leader();
        group.call(old, put("before", "v")).expect("written");
        if count == 3 {
            let gone = group.followers()[0];
            group.cut_off.insert(gone);
        }
        group.member(old).notices.clear();
        group.member(old).disk_hangs = true;
        let during = group.ask(old, put("during", "v"));
        run_writing(&mut group, old, Duration::from_secs(5));
        assert_eq!(group.leader(), old);
        assert_eq!(group.contents(old).len(), 1);
        group.member(old).disk_hangs = false;
        group.run(Duration::from_secs(1));
        let answer = group.member(old).take(during);
        answer.expect("answered").1.expect("written");
        let notices = &group.member(old).notices;
        assert!(
            matches!(notices[..], [Notice::SyncStalled { to: None, .. }]),
            "{notices:?}"
        );
    }
}

/// Goal: where all disks are slow, though they work, a leader stays one: whatever its syncs carry, a seal of what was
/// written among them, and however they lie to those of the others; also where the others get nothing before
/// it is on the leader's own disk.
#[test]
fn a_leader_among_slow_disks_is_not_disturbed_by_pauses() {
    let together =
        [[2_000; 3], [600; 3], [1_100, 1_500, 2_000]].map(|syncs_ms| (syncs_ms, 1 << 20));
    let nothing_kept = ([2_000; 3], 0);
    for (syncs_ms, recent_bytes_max) in together.into_iter().chain([nothing_kept]) {
        let mut group = Group::start(3, recent_bytes_max);
        let old = group.leader();
        group.call(old, put("before", "v")).expect("written");
        for (driver, ms) in group.members.values_mut().zip(syncs_ms) {
            driver.notices.clear();
            driver.sync_takes = Duration::from_millis(ms);
        }
        let mut written = 1;
        let mut asked = None;
        for _ in 0..2_000 {
            for driver in group.members.values_mut() {
                driver.now = driver.now + Duration::from_millis(10);
                driver.tick();
                if driver.effects.log.is_empty() {
                    driver.hand_in(Event::LogIdle);
                }
            }
            group.settle();
            match asked {
                // After a pause, which is when the log is sealed.
                None => asked = Some(group.ask(old, put(&format!("{written}"), "v"))),
                Some(number) => {
                    if let Some((_, answer)) = group.member(old).take(number) {
                        answer.expect("written");
                        written += 1;
                        asked = None;
                    }
                }
            }
            assert_eq!(group.leader(), old, "{syncs_ms:?}");
        }
        assert!(written > 4, "{syncs_ms:?}: {written}");
        let gives_way = |notice: &Notice| {
            let stepped_down = matches!(notice, Notice::SteppedDown(_));
            stepped_down || matches!(notice, Notice::SyncStalled { to: Some(_), .. })
        };
        let notices = &group.member(old).notices;
        assert!(!notices.iter().any(gives_way), "{syncs_ms:?}: {notices:?}");
    }
}

/// Goal: a disk that hangs in a sync without entries, while nobody writes, makes nobody give way; the first write does.
#[test]
fn a_leader_whose_seal_hangs_hands_over_when_there_is_something_to_write() {
    for recent_bytes_max in [0, 1 << 20] {
        let mut group = Group::start(3, recent_bytes_max);
        let old = group.leader();
        group.call(old, put("before", "v")).expect("written");
        group.member(old).disk_hangs = true;
        group.member(old).hand_in(Event::LogIdle);
        assert!(!group.member(old).effects.log.is_empty(), "it seals");
        group.run(Duration::from_secs(5));
        assert_eq!(group.leader(), old);
        run_writing(&mut group, old, Duration::from_secs(5));
        let new = group.leader();
        assert_ne!(new, old);
        group
            .call(new, put("after", "v"))
            .expect("written without it");
        group.member(old).disk_hangs = false;
        group.run(Duration::from_secs(1));
        group.assert_same();
    }
}

/// Goal: all disks stop for a while just when the others have made an entry durable, and the leader's has not: it stays
/// one.
#[test]
fn a_freeze_of_all_disks_costs_no_leader() {
    let mut group = Group::start(3, 1 << 20);
    let old = group.leader();
    group.call(old, put("before", "v")).expect("written");
    group.member(old).disk_hangs = true;
    group.call(old, put("first", "v")).expect("by the others");
    for driver in group.members.values_mut() {
        driver.disk_hangs = true;
    }
    run_writing(&mut group, old, Duration::from_secs(3));
    assert_eq!(group.leader(), old);
    for driver in group.members.values_mut() {
        driver.disk_hangs = false;
    }
    group.run(Duration::from_secs(1));
    assert_eq!(group.leader(), old);
    let gives_way = |notice: &Notice| {
        let stepped_down = matches!(notice, Notice::SteppedDown(_));
        stepped_down || matches!(notice, Notice::SyncStalled { to: Some(_), .. })
    };
    let notices = &group.member(old).notices;
    assert!(!notices.iter().any(gives_way), "{notices:?}");
    group.assert_same();
}

/// Goal: where all disks are as slow, a leader stays one: nobody could be elected sooner than they complete a sync.
#[test]
fn a_leader_among_slow_disks_leads_on() {
    let mut group = Group::start(3, 1 << 20);
    let old = group.leader();
    group.call(old, put("before", "v")).expect("written");
    let all: Vec<_> = group.members.keys().copied().collect();
    for round in 0..3 {
        for &id in &all {
            group.member(id).disk_hangs = true;
        }
        group.ask(old, put(&format!("during {round}"), "v"));
        group.run(Duration::from_secs(4));
        assert_eq!(group.leader(), old);
        for &id in &all {
            group.member(id).disk_hangs = false;
        }
        group.run(Duration::from_millis(200));
    }
    assert_eq!(group.contents(old).len(), 4);
    let said = |notice: &Notice| matches!(notice, Notice::SteppedDown(_));
    assert!(!group.member(old).notices.iter().any(said));
    group.assert_same();
}

/// Goal: a lone member has nobody to hand over to: it says once that its disk hangs, and leads on.
#[test]
fn a_lone_member_says_so_once() {
    let mut group = Group::start(1, 0);
    let lone = group.leader();
    group.member(lone).notices.clear();
    group.member(lone).disk_hangs = true;
    group.ask(lone, put("during", "v"));
    group.run(Duration::from_secs(5));
    assert_eq!(group.leader(), lone);
    let notices = &group.member(lone).notices;
    assert!(
        matches!(notices[..], [Notice::SyncStalled { to: None, .. }]),
        "{notices:?}"
    );
}
