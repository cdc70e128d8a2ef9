//! A member's life: it starts, it dies, it says that it must not go on.

use std::time::Duration;

use super::checker::{Promise, Verdict, broken};
use super::cluster::{Cluster, Next};
use super::disk::Tear;
use super::member::{Started, member_id};
use super::trace::{StartFailure, What};
use crate::shard::event::EndReason;

/// How long it takes to notice a closed connection, or to make one.
const CONNECT_TIME: Duration = Duration::from_millis(1);

impl Cluster {
    pub(super) fn start(&mut self, number: usize) -> Verdict {
        let member = &self.members[number];
        if member.process.is_some() || member.retired {
            return Ok(());
        }
        let seed = self.dice.number();
        let member = &self.members[number];
        let damaged = member.disk.is_damaged() || member.known.rebuild.is_some();
        let interrupted = damaged && self.dice.below(3) == 0;
        let planted = self.options.planted;
        match self.members[number].start(self.now, seed, planted, interrupted) {
            Ok(_) if self.members[number].is_misplaced() => Err(broken(
                Promise::OwnDirectory,
                format_args!("member {number} starts on another member's directory"),
            )),
            Ok(Started { misread: true, .. }) => Err(broken(
                Promise::DamageNoticed,
                format_args!("member {number} starts on a damaged checkpoint"),
            )),
            // It does not count itself whole.
            Ok(Started { lost: true, .. }) if self.members[number].known.rebuild.is_none() => {
                Err(broken(
                    Promise::DamageNoticed,
                    format_args!(
                        "member {number} starts without files of its log as if it had them"
                    ),
                ))
            }
            Ok(Started {
                torn,
                cut,
                unusable,
                lost,
                ..
            }) => {
                if lost {
                    self.statistics.lost_logs += 1;
                }
                if (cut || unusable > 0) && !damaged {
                    return Err(broken(
                        Promise::DamageNoticed,
                        format_args!("member {number} finds damage where there is none"),
                    ));
                }
                if cut {
                    self.statistics.damage_found += 1;
                    let process = self.members[number].process.as_ref();
                    let log = process.map(|process| process.shard.raft().last_index());
                    let last_index = log.map_or(0, |index| index.0);
                    self.line(number, What::Rebuilds { last_index });
                }
                if unusable > 0 {
                    self.statistics.bad_checkpoints += unusable as u64;
                    self.line(number, What::CheckpointsUnusable(unusable));
                }
                if let Some((segment, offset)) = torn {
                    self.statistics.torn_tails += 1;
                    self.line(number, What::TornTail { segment, offset });
                }
                self.started(number)
            }
            Err((failure @ (StartFailure::ReadError | StartFailure::CutInterrupted), _)) => {
                self.line(number, What::StartFailed(failure));
                let after = self.dice.around(self.conditions.down_max);
                self.plan_in(after, Next::Start(number));
                Ok(())
            }
            Err((failure, words)) => {
                self.line(number, What::StartFailed(failure));
                if self.members[number].is_misplaced() {
                    self.statistics.foreign_directories += 1;
                    let after = self.dice.around(self.conditions.down_max);
                    self.plan_in(after, Next::Unwipe(number));
                    return Ok(());
                }
                if !damaged {
                    return Err(broken(
                        Promise::DamageNoticed,
                        format_args!(
                            "member {number} does not start on a disk without damage: {words}"
                        ),
                    ));
                }
                // No other member can repair it: an operator brings the directory back.
                self.statistics.damage_found += 1;
                let disk = &mut self.members[number].disk;
                if disk.has_lost() {
                    self.statistics.lost_logs += 1;
                }
                disk.undo_damage();
                self.line(number, What::Restored);
                let after = self.dice.around(self.conditions.down_max);
                self.plan_in(after, Next::Start(number));
                Ok(())
            }
        }
    }

    fn started(&mut self, number: usize) -> Verdict {
        self.statistics.starts += 1;
        // What is still wrong with its disk keeps the new process, as it kept the old one, from sealing its log.
        self.disturb(number);
        let member = &self.members[number];
        let life = member.life;
        let shard = &member.process.as_ref().expect("just started").shard;
        let last_index = shard.keyspace().folded_index();
        let commit = shard.keyspace().committed_index().0;
        self.line(
            number,
            What::Started {
                life,
                last_index: last_index.0,
                commit,
            },
        );
        if self.members.len() == 1 {
            self.replicas.lone_restart(number, last_index)?;
        }
        self.recall(number)?;
        self.observe(number)?;
        self.plan_more(number);
        for peer in self.peers(number) {
            self.plan_in(CONNECT_TIME, Next::Disconnected(peer, number));
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, number: usize, power: Option<Tear>) {
        if self.members[number].process.is_some() {
            self.statistics.crashes += 1;
            self.statistics.unknown += self
                .asked
                .extract_if(.., |_, asked| asked.member == number)
                .count() as u64;
            self.operator_forgets(number);
            let after = self.dice.around(self.conditions.down_max);
            self.plan_in(after, Next::Start(number));
            // The kernel of a machine that lives closes what its processes leave behind.
            if power.is_none() {
                for peer in self.peers(number) {
                    self.plan_in(CONNECT_TIME, Next::Disconnected(peer, number));
                }
            }
        }
        self.line(number, power.map_or(What::Killed, What::PowerCut));
        self.members[number].die(power, &mut self.dice, self.now);
    }

    /// A member says that it must not go on.
    pub(super) fn ended(&mut self, number: usize, reason: EndReason) -> Verdict {
        let (words, expected) = match reason {
            EndReason::Removed => ("removed", self.group.is_removed(member_id(number))),
            EndReason::OtherDirectory => {
                let member = &self.members[number];
                let unsettled = member.adopted && !member.log_names_own();
                ("other directory", member.is_wiped() || unsettled)
            }
            EndReason::Diverged(_) => ("diverged", false),
        };
        self.line(number, What::Ended(words));
        if !expected {
            return Err(broken(
                Promise::OneHistory,
                format_args!("member {number} gives up: {reason}"),
            ));
        }
        if reason == EndReason::Removed {
            self.statistics.removals += 1;
            self.retire(number);
        } else {
            self.unwipe(number);
            // Which of its directories the group knows is not settled yet.
            let adopted = self.members[number].adopted;
            if adopted || self.members[number].is_displaced() {
                self.crash(number, None);
            }
        }
        Ok(())
    }

    /// A member stops, and is not started any more.
    pub(super) fn retire(&mut self, number: usize) {
        self.crash(number, None);
        let member = &mut self.members[number];
        member.unwipe();
        member.retired = true;
        self.line(number, What::Retired);
    }

    /// Members that run or will run again, but this one.
    pub(super) fn peers(&self, number: usize) -> Vec<usize> {
        let there = |&peer: &usize| peer != number && !self.members[peer].retired;
        (0..self.members.len()).filter(there).collect()
    }

    /// Members that run or will run again.
    pub(super) fn present(&self) -> Vec<usize> {
        let there = |&number: &usize| !self.members[number].retired;
        (0..self.members.len()).filter(there).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;

    /// Goal: who starts on a slow disk is disturbed until that ends: nothing vouches yet for what it wrote last.
    #[test]
    fn a_start_ends_no_disturbance() {
        let mut cluster = Cluster::new(Options::of_seed(1));
        let slow_until = cluster.now.after(Duration::from_secs(4));
        cluster.members[0].faults.slow_until = slow_until;
        cluster.start(0).expect("an empty disk");
        let member = &cluster.members[0];
        assert!(member.process.is_some());
        assert_eq!(member.undisturbed_since, member.clock.read(slow_until));
    }
}
