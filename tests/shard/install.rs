//! A follower that needs what the others' logs have not any more: it gets a checkpoint, block by block, and goes
//! on from there, whatever breaks on the way.

use std::time::Duration;

use bytes::Bytes;
use kontiki::base::limits::CHECKPOINT_RETRY_SECONDS;
use kontiki::base::{Index, MemberId, Term};
use kontiki::checkpoint::CheckpointId;
use kontiki::shard::checkpoints::CheckpointLimits;
use kontiki::shard::event::{Event, Notice, PeerMessage, Request, Response};

use crate::driver::{Driver, SEGMENT_SIZE_BYTES, put};
use crate::group::Group;

const LIMITS: CheckpointLimits = CheckpointLimits {
    payload_bytes_min: 200_000,
    log_bytes_max: 8 * SEGMENT_SIZE_BYTES,
};
const VALUE_BYTES: usize = 40_000;
/// Keys in the state that travels: some 20 blocks.
const KEYS: u64 = 30;

/// A group, and a member of it that is back after the others have released what it needs.
fn far_behind() -> (Group, MemberId) {
    let mut group = Group::start_with(3, 0, LIMITS);
    let late = group.followers()[0];
    let leader = group.leader();
    group
        .call(leader, put("first", "v"))
        .expect("all are there");
    group.cut_off.insert(late);
    // So long that the leader hears nothing of it any more.
    group.run(Duration::from_secs(2));
    write(&mut group, KEYS);
    group.cut_off.clear();
    (group, late)
}

fn write(group: &mut Group, count: u64) {
    let leader = group.leader();
    for number in 0..count {
        let value = vec![b'v'; VALUE_BYTES];
        let answer = group.call(leader, put(&format!("k{number:03}"), value));
        assert!(matches!(answer, Ok(Response::Put(_))), "{answer:?}");
    }
}

fn installs(driver: &Driver) -> usize {
    let installed = |notice: &&Notice| matches!(notice, Notice::Installed { .. });
    driver.notices.iter().filter(installed).count()
}

/// The late member has everything, and so has it after a restart; a checkpoint that it was sent is one of its own by
/// then.
fn assert_caught_up(group: &mut Group, late: MemberId) {
    group.run(Duration::from_secs(3));
    assert!(group.member(late).disk.received.is_empty());
    assert_eq!(group.contents(late).len() as u64, KEYS + 1);
    group.assert_same();
    restart(group, late);
    group.run(Duration::from_secs(3));
    assert_eq!(group.contents(late).len() as u64, KEYS + 1);
    group.assert_same();
    let leader = group.leader();
    group.call(leader, put("last", "v")).expect("it goes on");
    group.run(Duration::from_secs(1));
    assert_eq!(group.contents(late).len() as u64, KEYS + 2);
    group.assert_same();
}

/// Kills a member, and starts it on what its disk holds.
fn restart(group: &mut Group, id: MemberId) {
    let driver = group.members.remove(&id).expect("a member");
    let (disk, settings, now) = (driver.disk, driver.settings, driver.now);
    let mut driver = Driver::recover(disk, settings);
    driver.now = now;
    group.members.insert(id, driver);
    for (&other, driver) in &mut group.members {
        if other != id {
            driver.hand_in(Event::PeerDisconnected(id));
        }
    }
}

/// Goal: the follower is brought up with one checkpoint and the log after it, holds the same state, keeps one
/// checkpoint and a short log, and is the same after a restart.
#[test]
fn a_follower_far_behind() {
    let (mut group, late) = far_behind();
    group.run(Duration::from_secs(2));
    assert_eq!(installs(group.member(late)), 1);
    assert_eq!(group.member(late).disk.checkpoints.len(), 1);
    assert!(group.member(late).disk.log_size_bytes() <= LIMITS.log_bytes_max);
    assert_caught_up(&mut group, late);
}

/// Delivers what was said until nothing is left; `deliver` sees each message and may change or drop it. `step` is
/// asked before the late member performs an effect; when it says no, the member dies there.
fn settle_by_hand(
    group: &mut Group,
    late: MemberId,
    deliver: &mut dyn FnMut(MemberId, PeerMessage) -> Option<PeerMessage>,
    step: &mut dyn FnMut() -> bool,
) {
    loop {
        let mut idle = true;
        let ids: Vec<MemberId> = group.members.keys().copied().collect();
        for id in ids {
            if id != late {
                group.member(id).settle();
                continue;
            }
            loop {
                if !step() {
                    restart(group, late);
                }
                let driver = group.member(late);
                if !(driver.perform_checkpoint() || driver.perform_one()) {
                    if !driver.shard.has_work() {
                        break;
                    }
                    driver.hand_in(Event::Continue);
                }
                idle = false;
            }
        }
        let mut mail = Vec::new();
        for (&from, driver) in &mut group.members {
            let messages = driver.messages.drain(..);
            mail.extend(messages.map(|(to, message)| (from, to, message)));
        }
        if mail.is_empty() && idle {
            return;
        }
        for (from, to, message) in mail {
            if let Some(message) = deliver(to, message) {
                group.deliver(from, to, message);
            }
        }
    }
}

fn tick(group: &mut Group) {
    for driver in group.members.values_mut() {
        driver.now = driver.now + Duration::from_millis(100);
        driver.tick();
    }
}

/// Goal: whichever step of file and log is the last before the follower dies, the next process goes on from what
/// is there, and ends with the same state.
#[test]
fn a_crash_at_every_step() {
    let mut installs_cut = 0;
    for crash_after in (1..).step_by(3) {
        let (mut group, late) = far_behind();
        let mut performed = 0;
        let mut crashed = false;
        for _ in 0..20 {
            let mut step = || {
                performed += 1;
                let dies = performed == crash_after;
                crashed |= dies;
                !dies
            };
            tick(&mut group);
            settle_by_hand(&mut group, late, &mut |_, message| Some(message), &mut step);
        }
        installs_cut += usize::from(crashed && installs(group.member(late)) == 1);
        assert_caught_up(&mut group, late);
        if !crashed {
            break;
        }
    }
    assert!(installs_cut > 5, "{installs_cut} crashes before an install");
}

/// Goal: what was read of a checkpoint whose file cannot be written is freed beside the shard, as is the state that
/// another one takes the place of.
#[test]
fn what_was_received_is_freed_beside() {
    let (mut group, late) = far_behind();
    group.member(late).checkpoint_space = false;
    group.run(Duration::from_secs(2));
    assert_eq!(installs(group.member(late)), 0);
    assert_eq!(group.member(late).freed_states, 1);
    group.member(late).checkpoint_space = true;
    group.run(Duration::from_secs(CHECKPOINT_RETRY_SECONDS));
    assert_eq!(installs(group.member(late)), 1);
    assert_eq!(group.member(late).freed_states, 2);
    assert_caught_up(&mut group, late);
}

/// Goal: a received checkpoint that the log does not lead to yet is not acknowledged: when the member dies and the file has
/// rotted, the same leader sends it once more.
#[test]
fn a_received_checkpoint_that_rots() {
    let (mut group, late) = far_behind();
    group.run(Duration::from_millis(100));
    // It has met the leader, and now its log takes nothing.
    group.member(late).disk_hangs = true;
    group.run(Duration::from_secs(2));
    let driver = group.member(late);
    assert_eq!(installs(driver), 1);
    let index = *driver.disk.received.first().expect("it was not settled");
    assert!(driver.shard.raft().last_index() >= index);
    assert!(driver.shard.log().durable_index() < index);
    driver.disk.received.clear();
    driver.disk.checkpoints.clear();
    let (leader, term) = (group.leader(), group.member(late).shard.raft().term());
    restart(&mut group, late);
    group.run(Duration::from_secs(3));
    assert_eq!(group.contents(late).len() as u64, KEYS + 1);
    let led = (group.leader(), group.member(late).shard.raft().term());
    assert_eq!(led, (leader, term), "another leader would have asked anew");
    assert_caught_up(&mut group, late);
}

/// Goal: after a break of the connection the transfer goes on where it was: no block is taken twice.
#[test]
fn a_transfer_is_resumed() {
    let (mut group, late) = far_behind();
    let mut taken = Vec::new();
    let mut breaks = 0;
    for _ in 0..60 {
        tick(&mut group);
        let before = taken.len();
        let mut deliver = |to, message| {
            if let PeerMessage::CheckpointBlock { block, .. } = &message
                && to == late
            {
                // Three blocks pass, the rest is lost with the connection.
                if taken.len() == before + 3 {
                    return None;
                }
                taken.push(block.ordinal);
            }
            Some(message)
        };
        settle_by_hand(&mut group, late, &mut deliver, &mut || true);
        if installs(group.member(late)) == 1 {
            break;
        }
        let leader = group.leader();
        breaks += u32::from(taken.len() > before);
        group.member(leader).hand_in(Event::PeerDisconnected(late));
    }
    assert!(breaks >= 3, "{breaks} breaks");
    let in_order: Vec<u32> = (0..).take(taken.len()).collect();
    assert_eq!(taken, in_order);
    assert_caught_up(&mut group, late);
}

/// Goal: a block that was damaged on its way is refused, said so, and replaced by the right one.
#[test]
fn a_damaged_block_is_refused() {
    let (mut group, late) = far_behind();
    let mut damaged = false;
    for _ in 0..30 {
        tick(&mut group);
        let mut deliver = |to, mut message| {
            if let PeerMessage::CheckpointBlock { block, .. } = &mut message
                && to == late
                && block.ordinal == 3
                && !damaged
            {
                damaged = true;
                let mut bytes = block.bytes.to_vec();
                bytes[5_000] ^= 4;
                block.bytes = Bytes::from(bytes);
            }
            Some(message)
        };
        settle_by_hand(&mut group, late, &mut deliver, &mut || true);
    }
    let refused = |notice: &&Notice| matches!(notice, Notice::BlockRefused { ordinal: 3, .. });
    let notices = &group.member(late).notices;
    assert_eq!(notices.iter().filter(refused).count(), 1);
    assert_eq!(installs(group.member(late)), 1);
    assert_caught_up(&mut group, late);
}

/// Goal: a leader whose own file is damaged does not send it: it takes another checkpoint, and sends that.
#[test]
fn a_damaged_file_is_replaced() {
    let (mut group, late) = far_behind();
    let leader = group.leader();
    let files = &mut group.member(leader).disk.checkpoints;
    let (_, blocks) = files.iter_mut().next_back().expect("one was taken");
    let mut bytes = blocks[2].bytes.to_vec();
    bytes[70] ^= 1;
    blocks[2].bytes = Bytes::from(bytes);
    group.run(Duration::from_secs(5));
    let unreadable = |notice: &Notice| matches!(notice, Notice::Unreadable { .. });
    assert!(group.member(leader).notices.iter().any(unreadable));
    assert_eq!(installs(group.member(late)), 1);
    assert_caught_up(&mut group, late);
}

/// Goal: a transfer that does not end before the log is too long is given up, the log gets shorter, and during the
/// next one writes wait for it.
#[test]
fn a_race_is_not_lost_for_ever() {
    let (mut group, late) = far_behind();
    let leader = group.leader();
    let mut lose_blocks = |to, message| match message {
        PeerMessage::CheckpointBlock { .. } if to == late => None,
        message => Some(message),
    };
    let abandoned = |driver: &Driver| {
        let is = |notice: &Notice| matches!(notice, Notice::TransferAbandoned { .. });
        driver.notices.iter().any(is)
    };
    let mut written = 0;
    while !abandoned(group.member(leader)) {
        tick(&mut group);
        for number in 0..5 {
            let value = vec![b'w'; VALUE_BYTES];
            group.ask(leader, put(&format!("k{number:03}"), value));
        }
        written += 5;
        settle_by_hand(&mut group, late, &mut lose_blocks, &mut || true);
        let most = 2 * LIMITS.log_bytes_max / VALUE_BYTES as u64;
        assert!(written < most, "{written} puts and no end of the transfer");
    }
    // Now the follower takes nothing, so writes wait before the log is half as long as it may be.
    group.member(leader).answers.clear();
    let asked = LIMITS.log_bytes_max / VALUE_BYTES as u64;
    for number in 0..asked {
        let value = vec![b'w'; VALUE_BYTES];
        group.ask(leader, put(&format!("k{:03}", number % KEYS), value));
        settle_by_hand(&mut group, late, &mut lose_blocks, &mut || true);
    }
    let answered = group.member(leader).answers.len() as u64;
    assert!(answered < asked / 2, "{answered} of {asked} writes went on");
    settle_by_hand(
        &mut group,
        late,
        &mut |_, message| Some(message),
        &mut || true,
    );
    group.run(Duration::from_secs(3));
    assert_eq!(installs(group.member(late)), 1);
    assert_eq!(group.member(leader).answers.len() as u64, asked);
    assert_caught_up(&mut group, late);
}

/// Goal: a leader that is written to so fast that much log has come after every checkpoint by the time it is durable still
/// sends one to a follower that needs it: one that was taken for it is not too old for it.
#[test]
fn a_checkpoint_that_is_never_new_is_sent() {
    let (mut group, late) = far_behind();
    let leader = group.leader();
    let mut offered = None;
    for step in 0..2_000 {
        let driver = group.member(leader);
        if driver.shard.status().raft_index == driver.shard.raft().last_index().0 {
            let revision = driver.shard.keyspace().committed_revision();
            let value = vec![b'v'; VALUE_BYTES];
            let write = put(&format!("k{:03}", step % KEYS), value);
            let physical = false;
            let mut requests = vec![write; 4];
            requests.push(Request::Compact { revision, physical });
            driver.ask(requests);
        }
        if step % 10 == 0 {
            tick(&mut group);
        }
        // A step of its checkpoint for some of the log.
        let driver = group.member(leader);
        if step % 2 == 0 {
            driver.perform_checkpoint();
        }
        let mut mail = Vec::new();
        for (&from, driver) in &mut group.members {
            while driver.perform_one() || (from != leader && driver.perform_checkpoint()) {}
            if driver.shard.has_work() {
                driver.hand_in(Event::Continue);
            }
            let messages = driver.messages.drain(..);
            mail.extend(messages.map(|(to, message)| (from, to, message)));
        }
        for (from, to, message) in mail {
            // It is away until every checkpoint is old.
            if step >= 200 || (from != late && to != late) {
                group.deliver(from, to, message);
            }
        }
        let driver = group.member(leader);
        if offered.is_none() {
            let begins = |notice: &Notice| match notice {
                Notice::TransferBegins { id, .. } => Some(id.index),
                _ => None,
            };
            let id = driver.notices.iter().find_map(begins);
            // Four puts and a compaction.
            let last = driver.shard.raft().last_index().0;
            offered = id.map(|id| (last - id.0) / 5 * 4 * VALUE_BYTES as u64);
        }
        if installs(group.member(late)) == 1 {
            break;
        }
    }
    let log_after = offered.expect("one was offered");
    assert!(log_after > LIMITS.log_bytes_max / 2, "{log_after} bytes");
    assert_eq!(installs(group.member(late)), 1);
    group.member(leader).answers.clear();
    assert_caught_up(&mut group, late);
}

/// Goal: a transfer that nobody goes on with, of a checkpoint that the log has led beyond, does not keep a member from
/// taking its own: its log stays short.
#[test]
fn a_transfer_that_nobody_ends() {
    let mut group = Group::start_with(3, 1 << 20, LIMITS);
    let late = group.followers()[0];
    let leader = group.leader();
    group.call(leader, put("first", "v")).expect("written");
    let raft = group.member(leader).shard.raft();
    let (term, commit) = (raft.term(), raft.commit());
    let id = CheckpointId {
        term,
        index: Index(commit.0 + 2),
    };
    // The offer overtakes the entries, and is the last that is heard of it.
    let message = PeerMessage::CheckpointOffer {
        term,
        attempt: 1,
        id,
        size_bytes: 100_000,
    };
    group.deliver(leader, late, message);
    for _ in 0..4 {
        write(&mut group, KEYS);
        group.run(Duration::from_secs(3));
    }
    let driver = group.member(late);
    assert!(driver.shard.last_checkpoint().is_some(), "none was taken");
    assert!(driver.disk.log_size_bytes() <= LIMITS.log_bytes_max);
    assert_eq!(installs(driver), 0);
    group.assert_same();
}

/// Goal: a member that has taken a checkpoint itself, and whose log then lost its whole tail, from before the checkpoint
/// on, is damaged: it is not taken for one that died while it installed what another member had sent. Nor is it when it
/// was rebuilt once before.
#[test]
fn a_lost_tail_behind_an_own_checkpoint_is_damage() {
    for was_rebuilt in [false, true] {
        let mut group = Group::start_with(3, 1 << 20, LIMITS);
        write(&mut group, KEYS);
        group.run(Duration::from_secs(1));
        let victim = group.followers()[0];
        let driver = group.members.remove(&victim).expect("a member");
        let (mut disk, settings, now) = (driver.disk, driver.settings, driver.now);
        assert_eq!((disk.checkpoints.len(), disk.received.len()), (1, 0));
        let index = *disk.checkpoints.keys().next().expect("one");
        let first = *disk.segments.keys().next().expect("one");
        let begins = driver.shard.log().segments().next().expect("one");
        assert!(begins.first_index <= index, "what is lost was below it");
        disk.segments.retain(|&segment, _| segment == first);
        let bytes = disk.segments.get_mut(&first).expect("kept");
        let end = bytes.len() - 4_096;
        bytes[4_096..end].fill(0);
        if was_rebuilt {
            disk.known.vote_floor = Term(1);
        }
        let mut driver = Driver::recover(disk, settings);
        driver.now = now;
        assert!(driver.shard.raft().is_rebuilding());
        group.members.insert(victim, driver);
        let leader = group.leader();
        group
            .member(leader)
            .hand_in(Event::PeerDisconnected(victim));
        group.run(Duration::from_secs(4));
        assert!(!group.member(victim).shard.raft().is_rebuilding());
        group.assert_same();
    }
}

/// Goal: a member that died while it installed what another had sent, and whose log then lost its tail from before an
/// older checkpoint of its own on, is damaged: it has forgotten term and vote, and must not vote before it is rebuilt.
#[test]
fn a_lost_tail_below_a_received_checkpoint_is_damage() {
    let mut group = Group::start_with(3, 0, LIMITS);
    let late = group.followers()[0];
    write(&mut group, KEYS);
    group.run(Duration::from_secs(1));
    group.cut_off.insert(late);
    group.run(Duration::from_secs(2));
    write(&mut group, KEYS);
    group.cut_off.clear();
    group.run(Duration::from_millis(100));
    group.member(late).disk_hangs = true;
    group.run(Duration::from_secs(2));
    let driver = group.members.remove(&late).expect("a member");
    let (mut disk, settings, now) = (driver.disk, driver.settings, driver.now);
    let received = *disk.received.first().expect("it was not settled");
    let mut names = disk.checkpoints.keys().copied();
    let own = names.next().expect("its own");
    assert_eq!((own < received, names.next()), (true, Some(received)));
    let begins = driver.shard.log().segments().next().expect("one");
    assert!(begins.first_index <= own, "what is lost was below it");
    let mut whole = Driver::recover(disk.clone(), settings.clone());
    assert!(!whole.shard.raft().is_rebuilding(), "it begins anew");
    whole.now = now;
    whole.tick();
    whole.settle();
    assert_eq!(whole.shard.log().durable_index(), received);
    let first = *disk.segments.keys().next().expect("one");
    disk.segments.retain(|&segment, _| segment == first);
    let bytes = disk.segments.get_mut(&first).expect("kept");
    let end = bytes.len() - 4_096;
    bytes[4_096..end].fill(0);
    let mut driver = Driver::recover(disk, settings);
    driver.now = now;
    assert!(driver.shard.raft().is_rebuilding());
    // A crash in the middle of the rebuild: the loss was noted, so the log is as short as it may be.
    let (disk, settings) = (driver.disk, driver.settings);
    assert!(disk.known.just_cut);
    let mut driver = Driver::recover(disk, settings);
    driver.now = now;
    driver.tick();
    driver.settle();
    assert!(!driver.disk.known.just_cut);
    assert_eq!(driver.shard.log().durable_index(), received);
    group.members.insert(late, driver);
    let leader = group.leader();
    group.member(leader).hand_in(Event::PeerDisconnected(late));
    group.run(Duration::from_secs(4));
    assert!(!group.member(late).shard.raft().is_rebuilding());
    group.assert_same();
}

/// Goal: damage in a leader's log that a follower needs is not read again without end: the follower gets a checkpoint.
#[test]
fn a_damaged_segment_is_not_read_for_ever() {
    let mut group = Group::start(3, 0);
    let late = group.followers()[0];
    let leader = group.leader();
    group.call(leader, put("first", "v")).expect("written");
    group.cut_off.insert(late);
    write(&mut group, KEYS);
    // Rot in all commits of the first segment but those of its first pages.
    let segments = &mut group.member(leader).disk.segments;
    let (_, bytes) = segments.iter_mut().next().expect("one");
    let end = bytes.len() - 8_192;
    for at in (65_536..end).step_by(4_096) {
        bytes[at + 77] ^= 4;
    }
    group.cut_off.clear();
    let mut reads = 0;
    for _ in 0..30 {
        tick(&mut group);
        for _ in 0..2_000 {
            let mut mail = Vec::new();
            for (&id, driver) in &mut group.members {
                let worked = driver.perform_checkpoint() || driver.perform_one();
                reads += u64::from(id == leader && worked);
                let messages = driver.messages.drain(..);
                mail.extend(messages.map(|(to, message)| (id, to, message)));
            }
            for (from, to, message) in mail {
                group.deliver(from, to, message);
            }
        }
    }
    assert!(reads < 2_000, "the leader's disk was used {reads} times");
    let unreadable = |notice: &&Notice| matches!(notice, Notice::LogUnreadable { .. });
    let notices = &group.member(leader).notices;
    assert_eq!(notices.iter().filter(unreadable).count(), 1);
    assert_eq!(installs(group.member(late)), 1);
    assert_caught_up(&mut group, late);
}

/// Goal: while a leader's disk is slow to read, messages to the follower that waits for it do not pile up.
#[test]
fn slow_reads_do_not_pile_up() {
    let mut group = Group::start(3, 0);
    let late = group.followers()[0];
    let leader = group.leader();
    group.call(leader, put("first", "v")).expect("written");
    group.cut_off.insert(late);
    write(&mut group, KEYS);
    group.cut_off.clear();
    let mut held = Vec::new();
    let mut appends = 0;
    let mut round = |group: &mut Group, held: &mut Vec<_>, hold: bool| {
        tick(group);
        for _ in 0..400 {
            let mut mail = Vec::new();
            for (&id, driver) in &mut group.members {
                if id == leader && hold {
                    held.append(&mut driver.effects.log_reads);
                }
                let _ = driver.perform_checkpoint() || driver.perform_one();
                let messages = driver.messages.drain(..);
                mail.extend(messages.map(|(to, message)| (id, to, message)));
            }
            for (from, to, message) in mail {
                if let PeerMessage::Raft { records, .. } = &message
                    && !records.is_empty()
                    && to == late
                {
                    appends += 1;
                }
                group.deliver(from, to, message);
            }
        }
        appends
    };
    for _ in 0..100 {
        round(&mut group, &mut held, true);
    }
    group.member(leader).effects.log_reads.append(&mut held);
    for _ in 0..20 {
        round(&mut group, &mut held, false);
    }
    let sent = round(&mut group, &mut held, false);
    let (has, wants) = (
        group.member(late).shard.raft().last_index(),
        group.member(leader).shard.raft().last_index(),
    );
    assert!(sent < 40, "{sent}");
    assert_eq!(has, wants);
}
