//! A member is handed an event, and what it wants is performed, one effect after the other.
//!
//! Between any two of them a trap may end it; what it has not performed by then never happened.

use std::time::Duration;

use super::checker::Verdict;
use super::cluster::{Cluster, Next};
use super::member::{Watched, member_number};
use super::trace::What;
use crate::base::limits::{SEAL_IDLE_MICROS, TICK_MILLIS};
use crate::keyspace::steps::Steps;
use crate::shard::event::{Event, Notice};

/// How late a timer is: a clock is not exact, and nobody is called again and again within a moment.
const TICK_LATE: Duration = Duration::from_micros(50);
/// A shard that works on and on within one moment hangs.
const TURNS_PER_MOMENT_MAX: u32 = 1_000_000;
/// Of so many events one: what was not said stays unsaid, and comparing each time would take long.
const DIRECTORIES_COMPARED_EVERY: u64 = 64;

impl Cluster {
    pub(super) fn hand_in(&mut self, number: usize, event: Event<'_>) -> Verdict {
        self.turns_of_moment += 1;
        assert!(
            self.turns_of_moment < TURNS_PER_MOMENT_MAX,
            "a shard has work for ever"
        );
        let member = &mut self.members[number];
        let Some(process) = &mut member.process else {
            return Ok(());
        };
        let now = member.clock.read(self.now);
        let mut steps = Steps::new(self.conditions.turn_steps);
        process
            .shard
            .handle(event, now, &mut steps, &mut self.effects);
        self.note(number);
        self.observe(number)?;
        self.perform(number)?;
        self.plan_more(number);
        Ok(())
    }

    /// What a member says about checkpoints on their way.
    fn note(&mut self, number: usize) {
        for notice in std::mem::take(&mut self.effects.notices) {
            let (what, id) = match notice {
                Notice::SyncStalled { .. } => {
                    self.line(number, What::Says("sync stalled"));
                    continue;
                }
                Notice::SteppedDown(_) => {
                    self.line(number, What::Says("leads no longer"));
                    continue;
                }
                Notice::FollowerForgot { .. } => {
                    self.line(number, What::Says("follower forgot"));
                    continue;
                }
                Notice::RefusedPeer { .. } => {
                    self.line(number, What::Says("refuses a peer"));
                    continue;
                }
                Notice::LogUnreadable { index, .. } => {
                    let index = index.0;
                    let what = "log unreadable";
                    self.line(number, What::Transfer { what, index });
                    continue;
                }
                Notice::TransferBegins { id, .. } => ("begins", id),
                Notice::TransferAbandoned { id, .. } => {
                    self.statistics.transfers_abandoned += 1;
                    ("abandoned", id)
                }
                Notice::Unreadable { id } => {
                    self.statistics.bad_checkpoints += 1;
                    ("unreadable", id)
                }
                Notice::BlockRefused { id, .. } => ("block refused", id),
                Notice::Refused { id, .. } => ("refused", id),
                Notice::Installed { id } => {
                    self.statistics.checkpoint_installs += 1;
                    if let Some(process) = &mut self.members[number].process {
                        // Its state is another one: what it shows begins anew, as after a restart.
                        let leads = process.watched.leads;
                        process.watched = Watched {
                            leads,
                            ..Watched::default()
                        };
                    }
                    ("installed", id)
                }
            };
            let index = id.index.0;
            self.line(number, What::Transfer { what, index });
        }
    }

    /// Performs what a member wants, one after the other; a trap may end that anywhere.
    fn perform(&mut self, number: usize) -> Verdict {
        let mut effects = std::mem::take(&mut self.effects);
        let mut alive = true;
        if let Some(process) = &mut self.members[number].process {
            if let Some(directories) = effects.directories.take() {
                process.directories = directories;
            }
            if self
                .statistics
                .events
                .is_multiple_of(DIRECTORIES_COMPARED_EVERY)
            {
                let directories = process.shard.raft().directories();
                assert_eq!(process.directories, directories, "a change was not said");
            }
        }
        for effect in effects.log.drain(..) {
            alive = alive && self.survives(number);
            if alive {
                self.log_effect(number, effect);
            }
        }
        for effect in effects.checkpoint.drain(..) {
            alive = alive && self.survives(number);
            if alive {
                self.checkpoint_effect(number, effect);
            }
        }
        for (to, message) in effects.messages.drain(..) {
            alive = alive && self.survives(number);
            if alive {
                let to = member_number(to);
                self.pledge(number, to, &message)?;
                self.send(number, to, message);
            }
        }
        for read in effects.log_reads.drain(..) {
            if alive {
                let life = self.members[number].life;
                let after = self.dice.around(self.conditions.sync_time);
                self.plan_in(after, Next::LogRead(number, life, Box::new(read)));
            }
        }
        if let Some(known) = effects.known_members.take()
            && alive
        {
            let life = self.members[number].life;
            let after = self.sync_time(number);
            self.plan_in(after, Next::Known(number, life, Box::new(known)));
        }
        for answer in effects.answers.drain(..) {
            alive = alive && self.survives(number);
            if alive {
                self.answered(number, &answer)?;
            }
        }
        let end = effects.end.take().filter(|_| alive);
        self.effects = effects;
        end.map_or(Ok(()), |reason| self.ended(number, reason))
    }

    /// Whether a member lives to perform its next effect.
    pub(super) fn survives(&mut self, number: usize) -> bool {
        let Some(trap) = &mut self.members[number].trap else {
            return true;
        };
        if trap.effects_left > 0 {
            trap.effects_left -= 1;
            return true;
        }
        if trap.writing {
            return true;
        }
        let power = trap.power;
        self.crash(number, power);
        false
    }

    /// What a member wants to be called for later: a seal after idleness, or another turn.
    pub(super) fn plan_more(&mut self, number: usize) {
        let member = &mut self.members[number];
        let life = member.life;
        let Some(process) = &mut member.process else {
            return;
        };
        let tick = member.clock.true_time(Duration::from_millis(TICK_MILLIS));
        let local = member.clock.read(self.now);
        let due = process
            .shard
            .next_deadline()
            .map(|deadline| member.clock.true_time(deadline.since(local)));
        // Not within this moment: a member that is late is not called again and again.
        let after = due.map_or(tick, |due| due.min(tick)) + TICK_LATE;
        let tick_at = self.now.after(after);
        let tick = process.tick_planned.is_none_or(|planned| planned > tick_at);
        if tick {
            process.tick_planned = Some(tick_at);
        }
        let seal = !process.seal_planned && process.shard.needs_seal();
        let turn = !process.turn_planned && process.shard.has_work();
        process.seal_planned |= seal;
        process.turn_planned |= turn;
        if tick {
            self.schedule.plan(tick_at, Next::Tick(number, life));
        }
        if seal {
            let idle = Duration::from_micros(SEAL_IDLE_MICROS);
            self.plan_in(idle, Next::Seal(number, life));
        }
        if turn {
            self.plan_in(Duration::from_micros(1), Next::Turn(number, life));
        }
    }

    pub(super) fn seal(&mut self, number: usize, life: u32) -> Verdict {
        let now = self.members[number].clock.read(self.now);
        let Some(process) = self.process(number, life) else {
            return Ok(());
        };
        process.seal_planned = false;
        if now.since(process.last_write) >= Duration::from_micros(SEAL_IDLE_MICROS) {
            return self.hand_in(number, Event::LogIdle);
        }
        self.plan_more(number);
        Ok(())
    }
}
