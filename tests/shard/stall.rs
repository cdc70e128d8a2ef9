//! A disk that hangs: the member says so, and does not lead on.

use std::time::Duration;

use kontiki::raft::StepDown;
use kontiki::shard::event::Notice;

use crate::driver::put;
use crate::group::Group;

/// Goal: a leader whose disk completes no sync hands over within a few election timeouts, says why, and writes go on.
/// When the disk is back, it has what the others have.
#[test]
fn a_leader_whose_sync_stalls_hands_over() {
    let mut group = Group::start(3, 1 << 20);
    let old = group.leader();
    group.call(old, put("before", "v")).expect("written");
    group.member(old).notices.clear();
    group.member(old).disk_hangs = true;
    group.ask(old, put("during", "v"));
    group.run(Duration::from_secs(3));
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
    assert_eq!(group.contents(old).len(), 3);
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
    group.run(Duration::from_secs(5));
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
