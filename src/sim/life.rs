//! A member's life: it starts, it dies, it says that it must not go on.

use std::time::Duration;

use super::checker::{Promise, Verdict, broken};
use super::cluster::{Cluster, Next};
use super::disk::Tear;
use super::trace::{StartFailure, What};
use crate::shard::event::EndReason;

/// How long it takes to notice a closed connection, or to make one.
const CONNECT_TIME: Duration = Duration::from_millis(1);

impl Cluster {
    pub(super) fn start(&mut self, number: usize) -> Verdict {
        if self.members[number].process.is_some() {
            return Ok(());
        }
        let seed = self.dice.number();
        let damaged = self.members[number].disk.is_damaged();
        let planted = self.options.planted;
        match self.members[number].start(self.now, seed, planted) {
            Ok(torn) => {
                if let Some((segment, offset)) = torn {
                    self.statistics.torn_tails += 1;
                    self.line(number, What::TornTail { segment, offset });
                }
                self.started(number)
            }
            Err((StartFailure::ReadError, _)) => {
                self.line(number, What::StartFailed(StartFailure::ReadError));
                let after = self.dice.around(self.conditions.down_max);
                self.plan_in(after, Next::Start(number));
                Ok(())
            }
            Err((failure, words)) => {
                self.line(number, What::StartFailed(failure));
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
                self.members[number].disk.undo_damage();
                self.line(number, What::Restored);
                let after = self.dice.around(self.conditions.down_max);
                self.plan_in(after, Next::Start(number));
                Ok(())
            }
        }
    }

    fn started(&mut self, number: usize) -> Verdict {
        self.statistics.starts += 1;
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
        for peer in (0..self.members.len()).filter(|&peer| peer != number) {
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
            let after = self.dice.around(self.conditions.down_max);
            self.plan_in(after, Next::Start(number));
            // The kernel of a machine that lives closes what its processes leave behind.
            for peer in (0..self.members.len()).filter(|&peer| peer != number && power.is_none()) {
                self.plan_in(CONNECT_TIME, Next::Disconnected(peer, number));
            }
        }
        self.line(number, power.map_or(What::Killed, What::PowerCut));
        self.members[number].die(power, &mut self.dice, self.now);
    }

    /// A member says that it must not go on.
    pub(super) fn ended(&mut self, number: usize, reason: EndReason) -> Verdict {
        let (words, expected) = match reason {
            EndReason::Removed => ("removed", false),
            EndReason::OtherDirectory => ("other directory", self.members[number].is_wiped()),
            EndReason::Diverged(_) => ("diverged", false),
        };
        self.line(number, What::Ended(words));
        if !expected {
            return Err(broken(
                Promise::OneHistory,
                format_args!("member {number} gives up: {reason}"),
            ));
        }
        self.unwipe(number);
        Ok(())
    }
}
