//! Disks that complete nothing: for seconds, until their machine loses power, or while nothing else is wrong.
//!
//! The process of such a member lives, answers and sends heartbeats; only what it writes never becomes durable. A leader
//! must not stay one then. When every other fault has ended and one disk hangs, the others must serve.
//! Where all disks are slow instead, nobody is better, and somebody must go on leading.

use std::time::Duration;

use super::checker::{Promise, Verdict, broken};
use super::clock::Moment;
use super::cluster::{Cluster, Next, Phase};
use super::member::{member_id, member_number};
use super::trace::What;
use crate::raft::Role;

/// The calm has begun this long ago when a disk hangs in it, and when that ends.
pub(super) const CALM_HANG_BEGINS: Duration = Duration::from_secs(4);
const CALM_HANG_ENDS: Duration = Duration::from_secs(20);
/// Who hung must serve like all others this long after that: time to get what it has missed.
const CALM_HANG_GRACE: Duration = Duration::from_secs(5);
/// A calm of less is too short to hang in, and to catch up afterwards.
const CALM_MIN: Duration = Duration::from_secs(28);

/// All disks are slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowCalm {
    pub(super) until: Moment,
    /// How often somebody looked who leads, and how often nobody did.
    looks: u32,
    leaderless: u32,
}

impl SlowCalm {
    /// Until when nobody need serve for that.
    pub(super) fn excused_until(&self) -> Moment {
        self.until.after(CALM_HANG_GRACE)
    }
}

impl Cluster {
    /// A disk hangs. Of three, one does so until the power is off.
    pub(super) fn hang(&mut self, number: usize) {
        let shortest = self
            .conditions
            .election_timeout
            .min(self.conditions.hang_max);
        let span = self.dice.time(shortest, self.conditions.hang_max);
        let mut until = self.now.after(span);
        if self.dice.below(3) == 0 {
            let tear = self.tear();
            let life = self.members[number].life;
            self.plan_in(span, Next::Crash(number, life, Some(tear)));
            until = until.after(Duration::from_secs(1));
        }
        self.hang_until(number, until);
        self.disturb(number);
    }

    fn hang_until(&mut self, number: usize, until: Moment) {
        let reads = self.dice.below(2) == 0;
        let faults = &mut self.members[number].faults;
        faults.hangs_until = until;
        faults.hangs_reads = reads;
        self.line(number, What::Hung(until.since(self.now)));
    }

    /// A leader, or somebody who was one, is seen after an event.
    pub(super) fn note_end_of_leading(&mut self, number: usize) {
        let member = &self.members[number];
        let writes = member
            .process
            .as_ref()
            .is_some_and(|process| process.job.is_some());
        if member.is_hung(self.now) && writes {
            self.statistics.hung_leaders_left += 1;
        }
    }

    /// In some seeds every fault ends but one.
    pub(super) fn plan_calm_hang(&mut self) {
        if self.conditions.hangs_in_calm && self.options.calm_for >= CALM_MIN {
            self.plan_in(CALM_HANG_BEGINS, Next::CalmHang);
        } else if self.conditions.slow_in_calm && self.options.calm_for >= CALM_MIN {
            self.plan_in(CALM_HANG_BEGINS, Next::CalmSlow);
        }
    }

    /// All disks are slow, if all members are whole and somebody leads.
    pub(super) fn slow_disks_in_calm(&mut self) {
        let Phase::Calm { since } = self.phase else {
            return;
        };
        if self.settled_voters().is_none() {
            return;
        }
        let until = since.after(CALM_HANG_ENDS);
        self.slow_in_calm = Some(SlowCalm {
            until,
            looks: 0,
            leaderless: 0,
        });
        self.statistics.calm_slow += 1;
        self.line(0, What::Slow(until.since(self.now)));
        self.look_later();
        self.schedule.plan(until, Next::CalmSlowOver);
    }

    fn look_later(&mut self) {
        self.plan_in(self.conditions.election_timeout / 2, Next::CalmSlowLook);
    }

    /// Who leads while all disks are slow?
    pub(super) fn look_for_leader(&mut self) {
        let led = (0..self.members.len()).any(|number| self.leads(number));
        let now = self.now;
        let Some(slow) = self.slow_in_calm.as_mut().filter(|slow| now < slow.until) else {
            return;
        };
        slow.looks += 1;
        slow.leaderless += u32::from(!led);
        self.look_later();
    }

    /// # Errors
    /// Mostly nobody led, though no disk was worse than another.
    pub(super) fn slow_calm_over(&mut self) -> Verdict {
        let Some(SlowCalm {
            looks, leaderless, ..
        }) = self.slow_in_calm
        else {
            return Ok(());
        };
        if 2 * leaderless > looks {
            return Err(broken(
                Promise::Liveness,
                format_args!(
                    "nobody leads at {leaderless} of {looks} looks while all disks are slow"
                ),
            ));
        }
        Ok(())
    }

    /// How long a sync takes while all disks are slow: longer than a leader is waited for.
    pub(super) fn slow_calm_sync(&mut self) -> Option<Duration> {
        let now = self.now;
        let slow = self.slow_in_calm.filter(|slow| now < slow.until)?;
        let timeout = self.conditions.election_timeout;
        let takes = self.dice.time(2 * timeout, 4 * timeout);
        Some(takes.min(slow.until.since(now)))
    }

    /// The voters, if somebody leads them, no change is under way, and all are whole.
    fn settled_voters(&self) -> Option<Vec<usize>> {
        let leader = (0..self.members.len()).find(|&number| self.leads(number))?;
        let listed = self.group.newest();
        let voters: Vec<usize> = listed
            .iter()
            .filter(|member| !member.is_learner)
            .map(|member| member_number(member.id))
            .collect();
        let process = self.members[leader].process.as_ref();
        let in_force = process.map(|process| &process.shard.raft().membership().voters);
        let settled = in_force.is_some_and(|in_force| {
            in_force.len() == voters.len()
                && voters
                    .iter()
                    .all(|&voter| in_force.contains(&member_id(voter)))
        });
        let healthy = |&number: &usize| {
            let member = &self.members[number];
            member.process.is_some() && member.is_whole() && member.known.confirmed
        };
        (voters.len() >= 3 && settled && self.serving().iter().all(healthy)).then_some(voters)
    }

    /// The disk of a leader hangs, or of somebody else, if all others are whole and have a majority without it.
    pub(super) fn hang_in_calm(&mut self) {
        let leader = (0..self.members.len()).find(|&number| self.leads(number));
        let (Some(leader), Some(voters)) = (leader, self.settled_voters()) else {
            return;
        };
        let any = voters[self.dice.place(voters.len())];
        let number = if self.dice.below(4) == 0 { any } else { leader };
        let Phase::Calm { since } = self.phase else {
            return;
        };
        let until = since.after(CALM_HANG_ENDS);
        self.statistics.calm_hangs += 1;
        self.hung_in_calm = Some((number, until.after(CALM_HANG_GRACE)));
        self.hang_until(number, until);
        // Just before what hung goes on.
        self.schedule
            .plan(Moment(until.0 - 1), Next::CalmHangOver(number));
    }

    fn leads(&self, number: usize) -> bool {
        let process = self.members[number].process.as_ref();
        process.is_some_and(|process| process.shard.raft().role() == Role::Leader)
    }

    /// # Errors
    /// Nobody could ever write with that leader, and it leads all the same, after seconds in which clients asked all
    /// members: also beside another one, for then no majority answers it.
    pub(super) fn calm_hang_over(&mut self, number: usize) -> Verdict {
        if self.leads(number) {
            return Err(broken(
                Promise::Liveness,
                format_args!("member {number} leads though its disk completes nothing"),
            ));
        }
        Ok(())
    }
}
