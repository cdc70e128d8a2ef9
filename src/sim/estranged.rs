//! Members that have not met: links that do not work from the beginning, and what that leads to when a member
//! loses its directory.
//!
//! A member is known by its directory to whoever has met it. A leader of the past that has not met one can be
//! deceived by an empty directory in its place:
//!
//! ```text
//! 0 leads, and has never heard 4        {0,1} | {2,3,4}: 2 or 3 leads and commits with 4
//! 4 loses its directory and comes back  {0,1,4'} | {2,3}: 0 leads still, hears 4' for the first time, and has a
//!                                       majority, if 4' is believed; 1 and 4' do not hear each other
//! ```

use std::time::Duration;

use super::cluster::{Cluster, Next, Phase};
use super::conditions::FaultKind;
use super::member::Member;
use super::trace::What;
use crate::raft::Role;

/// How often that is tried while strangers have not met.
const TRIES: u64 = 12;
/// An empty directory is started this soon.
const EMPTIED_FOR: Duration = Duration::from_millis(2);

/// Who is deceived, and by whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estranged {
    leader: usize,
    friend: usize,
    stranger: usize,
}

impl Cluster {
    /// Some pairs of the first members do not hear each other for a while.
    pub(super) fn keep_strangers_apart(&mut self) {
        let mut left: Vec<usize> = (0..self.options.members).collect();
        for _ in 0..self.conditions.unmet_pairs {
            let one = left.swap_remove(self.dice.place(left.len()));
            let other = left.swap_remove(self.dice.place(left.len()));
            self.network.keep_apart(one, other);
            self.line(one, What::Apart { from: other });
            let met = self
                .dice
                .time(Duration::from_secs(1), self.conditions.unmet_max);
            self.plan_in(met, Next::Meet(one, other));
            for _ in 0..self.dice.between(1, TRIES) {
                let after = self.dice.time(Duration::from_millis(500), met);
                self.plan_in(after, Next::Estrange);
            }
        }
    }

    /// Their link works from now on.
    pub(super) fn meet(&mut self, one: usize, other: usize) {
        if self.network.stranger_to(one) != Some(other) {
            return;
        }
        self.statistics.meetings += 1;
        self.network.meet(one, other);
        self.line(one, What::Meets { other });
        for (member, peer) in [(one, other), (other, one)] {
            self.plan_in(Duration::from_millis(1), Next::Disconnected(member, peer));
        }
    }

    /// Everybody meets.
    pub(super) fn meet_all(&mut self) {
        for member in 0..self.options.members {
            if let Some(other) = self.network.stranger_to(member) {
                self.meet(member, other);
            }
        }
    }

    /// A leader and a friend are cut off; whom it has not met is with the others.
    pub(super) fn estrange(&mut self) {
        let leads = |member: &Member| {
            let process = member.process.as_ref();
            process.is_some_and(|process| process.shard.raft().role() == Role::Leader)
        };
        let Some(leader) = self.members.iter().position(leads) else {
            return;
        };
        let Some(stranger) = self.network.stranger_to(leader) else {
            return;
        };
        if !self.may_lose(stranger) {
            return;
        }
        let others: Vec<usize> = (0..self.options.members)
            .filter(|&member| member != leader && member != stranger)
            .collect();
        let estranged = Estranged {
            leader,
            friend: others[self.dice.place(others.len())],
            stranger,
        };
        self.part_from(&[leader, estranged.friend]);
        let after = self.dice.around(self.conditions.election_timeout / 2);
        self.plan_in(after, Next::Emptied(estranged));
    }

    /// The stranger comes back without its directory, on the other side.
    pub(super) fn empty(&mut self, estranged: Estranged) {
        let Estranged {
            leader,
            friend,
            stranger,
        } = estranged;
        let possible = self.phase == Phase::Faults && self.members[stranger].process.is_some();
        if possible && self.wipe(stranger) {
            *self
                .statistics
                .faults
                .entry(FaultKind::Estrange)
                .or_default() += 1;
            self.plan_in(EMPTIED_FOR, Next::Start(stranger));
            self.meet(leader, stranger);
            self.part_from(&[leader, friend, stranger]);
            // The friend knows better, and would say so.
            self.network.cut(friend, stranger);
            self.network.cut(stranger, friend);
        }
        self.plan_mending();
    }

    /// These and the others do not hear each other, and know it.
    fn part_from(&mut self, together: &[usize]) {
        let groups: Vec<usize> = (0..self.members.len())
            .map(|member| usize::from(together.contains(&member)))
            .collect();
        self.part(&groups, true);
        let group = together.iter().fold(0, |group, member| group | 1 << member);
        self.line(together[0], What::Partition { group });
    }
}
