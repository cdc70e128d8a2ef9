//! What a member writes, and when that is on its disk: the log, its segments, its checkpoints.

use std::time::Duration;

use super::checker::Verdict;
use super::cluster::{Cluster, Next};
use super::disk::Tear;
use super::member::{Job, Member, Trap};
use super::trace::What;
use crate::base::planted::Defect;
use crate::shard::event::{CheckpointEffect, Event, LogEffect};
use crate::wal::{PreparedSegment, SegmentSequence};

/// Between two tries to make a segment on a full disk.
const ROOM_RETRY: Duration = Duration::from_millis(500);
/// How long a segment takes to be made.
const PREPARE_TIME: Duration = Duration::from_millis(5);
/// How long a block of a checkpoint takes to be written.
const BLOCK_TIME: Duration = Duration::from_millis(1);

impl Cluster {
    pub(super) fn log_effect(&mut self, number: usize, effect: LogEffect) {
        let job = match effect {
            LogEffect::Commit(commit) => {
                self.line(
                    number,
                    What::Commit {
                        segment: commit.segment.0,
                        offset: commit.offset,
                        length: commit.bytes().len() as u64,
                    },
                );
                Job::Commit(commit)
            }
            LogEffect::OpenSegment(opening) => {
                let segment = opening.sequence.0;
                self.line(number, What::Open { segment });
                Job::Opening(opening)
            }
            LogEffect::Recycle(segment) => {
                self.line(number, What::Recycle { segment: segment.0 });
                return self.members[number].disk.recycle(segment);
            }
            LogEffect::PrepareSegment(segment) => {
                self.line(number, What::Prepare { segment: segment.0 });
                let life = self.members[number].life;
                let after = self.dice.around(PREPARE_TIME);
                return self.plan_in(after, Next::Prepared(number, life, segment));
            }
        };
        let after = self.sync_time(number);
        let member = &mut self.members[number];
        let life = member.life;
        let process = member.process.as_mut().expect("a living member writes");
        assert!(process.job.is_none(), "one write is under way at a time");
        process.job = Some(job);
        self.plan_in(after, Next::Written(number, life));
        if let Some(trap) = member_trap(&self.members[number]) {
            let within = self.dice.around(after / 2);
            self.plan_in(within, Next::Crash(number, life, trap.power));
        }
    }

    pub(super) fn checkpoint_effect(&mut self, number: usize, effect: CheckpointEffect) {
        let life = self.members[number].life;
        let disk = &mut self.members[number].disk;
        match effect {
            CheckpointEffect::Begin(_) => disk.begin_checkpoint(),
            CheckpointEffect::Block(block) => {
                disk.write_checkpoint(block.offset(), &block.bytes);
                let after = self.dice.around(BLOCK_TIME);
                self.plan_checkpoint(number, after, Next::CheckpointBlock(number, life));
            }
            CheckpointEffect::Finish(id, source) => {
                disk.name_checkpoint(id.index, source);
                let after = self.sync_time(number);
                self.plan_checkpoint(number, after, Next::CheckpointDurable(number, life, id));
            }
            CheckpointEffect::Settle(id) => {
                disk.settle_checkpoint(id.index);
                let after = self.sync_time(number);
                self.plan_checkpoint(number, after, Next::NamesDurable(number, life));
            }
            CheckpointEffect::RemoveBefore(index) => disk.remove_checkpoints_before(index),
            CheckpointEffect::Read(read) => {
                let after = self.dice.around(BLOCK_TIME);
                let read = Next::CheckpointRead(number, life, Box::new(read));
                self.plan_checkpoint(number, after, read);
            }
            CheckpointEffect::Free(_) => {}
        }
    }

    /// One thread does what checkpoints ask for, one after the other.
    fn plan_checkpoint(&mut self, number: usize, after: Duration, next: Next) {
        let process = self.members[number].process.as_mut();
        let process = process.expect("a living member writes");
        let at = process.checkpoints_until.max(self.now).after(after);
        process.checkpoints_until = at;
        self.schedule.plan(at, next);
    }

    pub(super) fn sync_time(&mut self, number: usize) -> Duration {
        if let Some(slow) = self.slow_calm_sync() {
            return slow;
        }
        let slow = self.members[number].faults.slow_until > self.now;
        let mean = if slow {
            self.conditions.slow_sync_time
        } else {
            self.conditions.sync_time
        };
        self.dice.around(mean)
    }

    /// A sync has ended.
    pub(super) fn written(&mut self, number: usize, life: u32) -> Verdict {
        if self.process(number, life).is_none() {
            return Ok(());
        }
        if std::mem::take(&mut self.members[number].faults.sync_fails) {
            self.line(number, What::SyncFailed);
            if !self.options.planted.has(Defect::FailedSyncRetried) {
                // Fatal for the process; what of its pages reached the disk is anybody's guess.
                self.crash(number, Some(Tear::Pages));
                return Ok(());
            }
            // The kernel has dropped the pages and calls the next sync a success.
            if let Some(process) = self.process(number, life) {
                let job = process.job.take();
                return job.map_or(Ok(()), |job| self.durable(number, job));
            }
        }
        let member = &mut self.members[number];
        let now = member.clock.read(self.now);
        let process = member.process.as_mut().expect("just seen");
        process.last_write = now;
        let Some(job) = process.job.take() else {
            return Ok(());
        };
        for (segment, offset, bytes) in job.writes() {
            member.disk.write_synced(segment, offset, bytes, now);
        }
        self.durable(number, job)
    }

    fn durable(&mut self, number: usize, job: Job) -> Verdict {
        match job {
            Job::Commit(commit) => {
                self.line(number, What::CommitDurable);
                self.hand_in(number, Event::CommitDurable(commit))
            }
            Job::Opening(opening) => {
                self.line(number, What::Opened);
                self.hand_in(number, Event::SegmentOpened(opening))
            }
        }
    }

    pub(super) fn prepared(
        &mut self,
        number: usize,
        life: u32,
        segment: SegmentSequence,
    ) -> Verdict {
        if self.process(number, life).is_none() {
            return Ok(());
        }
        let member = &mut self.members[number];
        let process = member.process.as_mut().expect("just seen");
        if member.faults.full_until > self.now {
            let told = process.waiting_for_room.replace(segment).is_some();
            self.plan_in(ROOM_RETRY, Next::Prepared(number, life, segment));
            if told {
                return Ok(());
            }
            self.line(number, What::NoRoom);
            return self.hand_in(number, Event::SegmentRefused);
        }
        process.waiting_for_room = None;
        member.disk.prepare(segment);
        let salt = self.dice.number().max(1);
        self.line(number, What::Prepared { segment: segment.0 });
        let prepared = PreparedSegment {
            sequence: segment,
            salt,
        };
        self.hand_in(number, Event::SegmentPrepared(prepared))
    }
}

/// The trap that springs while what has just begun is being written.
fn member_trap(member: &Member) -> Option<Trap> {
    member
        .trap
        .filter(|trap| trap.writing && trap.effects_left == 0)
}
