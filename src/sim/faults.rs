//! What goes wrong, one fault at a time.
//!
//! Faults are chosen by the seed's weights and fall on any member. What a disk may lose is bounded by what the
//! product promises: damage strikes one block at a time, and only blocks that a later one vouches for.

use std::time::Duration;

use super::clock::Moment;
use super::cluster::{Cluster, Next, Phase};
use super::conditions::FaultKind;
use super::disk::{Damage, Loss, Tear};
use super::member::{Directory, DiskFaults, Member, Trap, drift_ppm, member_id};
use super::network::Weather;
use super::trace::What;
use crate::base::{Instant, Term};
use crate::raft::{Role, majority_size};

/// A trap springs within so many effects.
const TRAP_EFFECTS_MAX: u64 = 60;
const PAUSE_MAX: Duration = Duration::from_secs(3);
const SLOW_MAX: Duration = Duration::from_secs(4);
/// How long a damaged checkpoint lies there while its member runs.
const UNNOTICED_MAX: Duration = Duration::from_secs(20);
const WIPED_MAX: Duration = Duration::from_secs(20);
/// Between two looks whether the group has agreed on a member's directory.
const AGREEMENT_INTERVAL: Duration = Duration::from_secs(1);
/// A log that was made whole may be lost again within so much.
const LOST_AGAIN_MAX: Duration = Duration::from_secs(10);
const FULL_MAX: Duration = Duration::from_secs(2);
/// A member that nothing has disturbed for this long has written everything it had to.
const UNDISTURBED_MIN: Duration = Duration::from_secs(1);
/// What such a member wrote this long ago has a seal, or something else behind it.
const VOUCHED_AGE_MIN: Duration = Duration::from_millis(100);

impl Cluster {
    /// One fault, and when the next one comes.
    pub(super) fn fault(&mut self) {
        let pursued = self.dice.chance(self.conditions.pursued_per_million);
        let mean = if pursued {
            self.conditions.pursuit
        } else {
            self.conditions.fault_interval
        };
        let after = self.dice.around(mean);
        self.plan_in(after, Next::Fault);
        self.strike();
    }

    /// A term has a leader: while the others still learn that, something may happen.
    pub(super) fn strike_new_leader(&mut self) {
        let struck = self
            .dice
            .chance(self.conditions.new_leader_struck_per_million);
        if struck && self.phase == Phase::Faults {
            let after = self.dice.around(self.conditions.pursuit);
            self.plan_in(after, Next::Strike);
        }
    }

    /// One fault, now.
    pub(super) fn strike(&mut self) {
        let Some(kind) = self.dice.weighted(&self.conditions.faults) else {
            return;
        };
        let again = self.dice.chance(self.conditions.again_per_million);
        let number = match self.last_victim {
            Some(last) if again => last,
            _ => self.victim(),
        };
        self.last_victim = Some(number);
        self.strike_one(number, kind);
    }

    pub(super) fn strike_one(&mut self, number: usize, kind: FaultKind) {
        if self.inflict(number, kind) {
            *self.statistics.faults.entry(kind).or_default() += 1;
        }
    }

    /// Whether it could be done.
    fn inflict(&mut self, number: usize, kind: FaultKind) -> bool {
        let running = self.members[number].process.is_some();
        match kind {
            FaultKind::Kill if running => self.crash(number, None),
            // Also a machine whose process is down already.
            FaultKind::PowerCut => {
                let tear = self.tear();
                self.crash(number, Some(tear));
            }
            FaultKind::TrapKill | FaultKind::TrapPowerCut if running => {
                let effects = u32::try_from(self.dice.below(TRAP_EFFECTS_MAX)).expect("small");
                let writing = self.dice.below(2) == 0;
                let power = (kind == FaultKind::TrapPowerCut).then(|| self.tear());
                self.members[number].trap = Some(Trap {
                    effects_left: effects,
                    writing,
                    power,
                });
                self.line(number, What::Trapped { effects, writing });
            }
            FaultKind::Pause if running => {
                let span = self.dice.around(PAUSE_MAX / 2);
                self.members[number].paused_until = self.now.after(span);
                self.disturb(number);
                self.line(number, What::Paused(span));
            }
            FaultKind::SlowDisk => {
                let span = self.dice.around(SLOW_MAX / 2);
                self.members[number].faults.slow_until = self.now.after(span);
                self.disturb(number);
                self.line(number, What::Slow(span));
            }
            FaultKind::HungDisk if running => self.hang(number),
            FaultKind::SyncFailure if running => {
                self.members[number].faults.sync_fails = true;
                self.line(number, What::SyncWillFail);
            }
            FaultKind::FullDisk => {
                let span = self.dice.around(FULL_MAX / 2);
                self.members[number].faults.full_until = self.now.after(span);
                self.disturb(number);
                self.line(number, What::Full);
            }
            FaultKind::ReadError => {
                self.members[number].faults.read_fails = true;
                self.line(number, What::ReadWillFail);
            }
            FaultKind::Spoil => return self.spoil(number),
            FaultKind::LoseLog => return self.lose_log(number),
            FaultKind::SpoilCheckpoint => return self.spoil_checkpoint(number),
            FaultKind::Drift => {
                let drift = drift_ppm(&mut self.dice);
                self.members[number].clock.set_drift(drift, self.now);
                self.line(number, What::Drift(drift));
            }
            FaultKind::Blackout => {
                for number in self.present() {
                    let tear = self.tear();
                    self.crash(number, Some(tear));
                }
            }
            FaultKind::Reset => return self.reset(number),
            FaultKind::CutOff => {
                let Some(to) = self.another(number) else {
                    return false;
                };
                self.network.cut(number, to);
                self.line(number, What::CutOff { to });
                self.plan_mending();
            }
            FaultKind::Partition => self.partition(number),
            FaultKind::Storm => {
                self.network.set_weather(self.conditions.storm);
                self.line(number, What::Stormy);
                self.plan_mending();
            }
            FaultKind::Wipe if running => return self.wipe(number),
            FaultKind::Swap => return self.swap(number),
            FaultKind::Copy => return self.copy(number),
            FaultKind::Membership => return self.order_changes(),
            FaultKind::Transfer => return self.order_transfer(),
            FaultKind::Kill
            | FaultKind::Wipe
            | FaultKind::TrapKill
            | FaultKind::TrapPowerCut
            | FaultKind::Pause
            | FaultKind::HungDisk
            | FaultKind::SyncFailure
            // It has a time of its own.
            | FaultKind::Estrange => return false,
        }
        true
    }

    /// Any member, the leader more often than others.
    fn victim(&mut self) -> usize {
        let present = self.present();
        let any = present[self.dice.place(present.len())];
        let leads = |member: &Member| {
            let process = member.process.as_ref();
            process.is_some_and(|process| process.shard.raft().role() == Role::Leader)
        };
        let leader = self.members.iter().position(leads);
        let at_leader = self.dice.below(3) == 0;
        leader.filter(|_| at_leader).unwrap_or(any)
    }

    /// Any member but this one, if there is one.
    fn another(&mut self, number: usize) -> Option<usize> {
        let others = self.peers(number);
        let count = others.len();
        (count > 0).then(|| others[self.dice.place(count)])
    }

    pub(super) fn plan_mending(&mut self) {
        let after = self.dice.around(self.conditions.network_fault_max / 2);
        self.plan_in(after, Next::Mend);
    }

    /// A connection breaks and is made again.
    fn reset(&mut self, number: usize) -> bool {
        let Some(other) = self.another(number) else {
            return false;
        };
        self.plan_in(Duration::from_micros(1), Next::Disconnected(number, other));
        self.plan_in(Duration::from_micros(1), Next::Disconnected(other, number));
        true
    }

    /// Two groups, `number` in the first: any, or it alone, which is the hardest for a leader.
    fn partition(&mut self, number: usize) {
        let alone = self.dice.below(3) == 0;
        let group = if alone { 0 } else { self.dice.number() } | 1 << number;
        let groups: Vec<usize> = (0..self.members.len())
            .map(|member| usize::from(group & (1 << member) != 0))
            .collect();
        // Sometimes what lies between them closes the connections: then nobody waits for a timeout.
        let noticed = self.dice.below(3) == 0;
        self.part(&groups, noticed);
        let mask = (1 << self.members.len()) - 1;
        self.line(
            number,
            What::Partition {
                group: group & mask,
            },
        );
        self.plan_mending();
    }

    /// Cuts what is between groups, and closes the connections if that is `noticed`.
    pub(super) fn part(&mut self, groups: &[usize], noticed: bool) {
        self.network.partition(groups);
        if !noticed {
            return;
        }
        for (one, of_one) in groups.iter().enumerate() {
            for (other, _) in groups.iter().enumerate().filter(|(_, of)| *of != of_one) {
                let noticed = self.dice.around(Duration::from_millis(2));
                self.plan_in(noticed, Next::Broken(one, other));
            }
        }
    }

    /// The links work again. Connections that were stuck are made anew.
    pub(super) fn mend(&mut self) {
        self.network.mend();
        self.network.set_weather(Weather::FAIR);
        self.line(0, What::Mended);
        for one in self.present() {
            for other in self.peers(one) {
                self.plan_in(Duration::from_millis(1), Next::Disconnected(one, other));
            }
        }
    }

    /// A member loses its directory and comes back without anything; one at a time.
    pub(super) fn wipe(&mut self, number: usize) -> bool {
        let incarnation = self.dice.number();
        // The founder of a lone cluster would found another one.
        if self.options.members == 1 || !self.may_lose(number) {
            return false;
        }
        self.crash(number, None);
        self.members[number].wipe(incarnation);
        self.line(number, What::Wiped);
        let after = self.dice.around(WIPED_MAX / 2);
        self.plan_in(after, Next::Unwipe(number));
        true
    }

    /// Whether all members keep what they promised, and this one has promised something: one of them may be struck.
    pub(super) fn may_lose(&self, number: usize) -> bool {
        let whole = self.members.iter().all(Member::is_whole);
        whole && self.members[number].known.confirmed
    }

    /// Two members come back, each on the other's directory.
    fn swap(&mut self, number: usize) -> bool {
        let other = self.another(number);
        let Some(other) = other.filter(|&other| self.may_misplace(number, other)) else {
            return false;
        };
        for member in [number, other] {
            self.crash(member, None);
        }
        let (one, two) = (
            self.members[number].directory(),
            self.members[other].directory(),
        );
        self.misplace(number, other, two);
        self.misplace(other, number, one);
        true
    }

    /// A member comes back on a copy of the directory of another one, which runs on.
    fn copy(&mut self, number: usize) -> bool {
        let other = self.another(number);
        let Some(other) = other.filter(|&other| self.may_misplace(number, other)) else {
            return false;
        };
        self.crash(number, None);
        let directory = self.members[other].directory();
        self.misplace(number, other, directory);
        true
    }

    fn may_misplace(&self, number: usize, other: usize) -> bool {
        let (one, two) = (&self.members[number], &self.members[other]);
        one.is_marked() && two.is_marked() && !self.members.iter().any(Member::is_displaced)
    }

    fn misplace(&mut self, number: usize, of: usize, directory: Directory) {
        self.members[number].misplace(directory);
        self.line(number, What::Misplaced { of });
    }

    /// An operator notices a member without its directory, and brings that back.
    pub(super) fn unwipe(&mut self, number: usize) {
        let member = &self.members[number];
        if !member.is_displaced() {
            return;
        }
        // Who had not met the first directory may have made the group agree on the second one.
        let agreed = self.agreed.get(&member_id(number)).copied();
        let adopted = member.is_wiped() && agreed == Some(member.incarnation());
        if member.is_wiped() && agreed.is_none() && self.phase == Phase::Faults {
            self.plan_in(AGREEMENT_INTERVAL, Next::Unwipe(number));
            return;
        }
        self.crash(number, None);
        if adopted {
            self.statistics.adopted += 1;
            self.members[number].adopt();
            self.line(number, What::Adopted);
        } else {
            self.members[number].unwipe();
            self.line(number, What::Restored);
        }
        let after = self.dice.around(self.conditions.down_max);
        self.plan_in(after, Next::Start(number));
    }

    pub(super) fn tear(&mut self) -> Tear {
        let tears = [
            Tear::Nothing,
            Tear::Everything,
            Tear::Pages,
            Tear::Sectors,
            Tear::Prefix,
        ];
        tears[self.dice.place(tears.len())]
    }

    /// Damage at rest. It is noticed at the next start, which follows soon.
    fn spoil(&mut self, number: usize) -> bool {
        let damages = [
            Damage::Flip,
            Damage::Zero,
            Damage::Lost,
            Damage::Misdirected,
        ];
        let damage = damages[self.dice.place(damages.len())];
        let before = vouched_before(&self.members[number], self.now);
        if !self.may_spoil(number) {
            return false;
        }
        let member = &mut self.members[number];
        if member.process.is_none() || !member.disk.spoil(damage, before, &mut self.dice) {
            return false;
        }
        self.line(number, What::Spoiled(damage));
        self.crash(number, None);
        true
    }

    /// Files of a member's log are gone when it starts the next time, also while the log is being rebuilt.
    pub(super) fn lose_log(&mut self, number: usize) -> bool {
        let losses = [Loss::Everything, Loss::Begun, Loss::Tail, Loss::TailBegun];
        let loss = losses[self.dice.place(losses.len())];
        let member = &self.members[number];
        let running = member.process.is_some() && !member.is_displaced();
        if !running || !self.is_spared(number) {
            return false;
        }
        let again = member.known.vote_floor > Term(0);
        // Of the process nothing remains that was not on the disk when the files went.
        self.crash(number, None);
        let member = &mut self.members[number];
        let now = member.clock.read(self.now);
        if !member.disk.lose(loss, &mut self.dice, now) {
            return false;
        }
        if again {
            self.statistics.lost_again += 1;
        }
        self.line(number, What::LogLost(loss));
        true
    }

    /// A member that was rebuilt may lose its log again.
    pub(super) fn strike_rebuilt(&mut self, number: usize) {
        if self.phase == Phase::Faults && self.dice.chance(self.conditions.lost_again_per_million) {
            let after = self.dice.around(LOST_AGAIN_MAX / 2);
            self.plan_in(after, Next::LoseLog(number));
        }
    }

    /// One at a time.
    fn may_spoil(&self, number: usize) -> bool {
        self.is_spared(number) && self.members.iter().all(Member::is_whole)
    }

    /// Whether all but this member are whole, and a majority without it wherever a membership is in force: nobody could
    /// repair a member of a group of two. A lone one is repaired by its operator.
    fn is_spared(&self, number: usize) -> bool {
        if self.members.len() == 1 {
            return true;
        }
        let spared = |of: usize| {
            let voters = self.members[of].voters();
            let others = voters.len() - usize::from(voters.contains(&member_id(number)));
            voters.is_empty() || others >= majority_size(voters.len())
        };
        // Unchecked, somebody else may still be removed then.
        let settled = self.conditions.membership.strict || self.is_unchanging();
        let peers = self.peers(number);
        let whole = peers.iter().all(|&peer| self.members[peer].is_whole());
        whole && settled && !self.had_company() && self.present().into_iter().all(spared)
    }

    fn had_company(&self) -> bool {
        self.options.members == 1 && self.members.len() > 1
    }

    /// Damage in the file of a checkpoint. It is noticed when it is to be sent, or at the next start.
    fn spoil_checkpoint(&mut self, number: usize) -> bool {
        let damages = [
            Damage::Flip,
            Damage::Zero,
            Damage::Lost,
            Damage::Misdirected,
        ];
        let damage = damages[self.dice.place(damages.len())];
        let possible = self.may_spoil(number) && self.members[number].process.is_some();
        let disk = &mut self.members[number].disk;
        if !possible || !disk.spoil_checkpoint(damage, &mut self.dice) {
            return false;
        }
        self.line(number, What::CheckpointSpoiled(damage));
        // A lone member would have company before it noticed.
        if self.members.len() == 1 || self.dice.below(2) == 0 {
            self.crash(number, None);
        } else {
            let after = self.dice.around(UNNOTICED_MAX / 2);
            let life = self.members[number].life;
            self.plan_in(after, Next::Crash(number, life, None));
        }
        true
    }

    /// Something keeps a member from sealing its log for a while.
    pub(super) fn disturb(&mut self, number: usize) {
        let member = &mut self.members[number];
        let faults = &member.faults;
        let until = member
            .paused_until
            .max(faults.slow_until)
            .max(faults.full_until)
            .max(faults.hangs_until);
        member.undisturbed_since = member.clock.read(until.max(self.now));
    }

    /// Every fault of a member ends.
    pub(super) fn relieve(&mut self, number: usize) {
        self.unwipe(number);
        if self.members[number].is_hung(self.now) {
            let tear = self.tear();
            self.crash(number, Some(tear));
        }
        let member = &mut self.members[number];
        member.faults = DiskFaults::default();
        member.trap = None;
        member.paused_until = self.now;
        member.disk.undo_damage();
        let after = self.conditions.down_max;
        self.plan_in(after, Next::Start(number));
    }
}

/// The time since which a block must have lain on a disk to be vouched for.
fn vouched_before(member: &Member, now: Moment) -> Instant {
    let local = member.clock.read(now);
    if local.since(member.undisturbed_since) < UNDISTURBED_MIN {
        return Instant(0);
    }
    let age = u64::try_from(VOUCHED_AGE_MIN.as_nanos()).expect("a tenth of a second");
    Instant(local.0.saturating_sub(age))
}
