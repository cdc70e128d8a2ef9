//! What goes wrong, one fault at a time.
//!
//! Faults are chosen by the seed's weights and fall on any member. What a disk may lose is bounded by what the
//! product promises: damage strikes one block at a time, and only blocks that a later one vouches for.

use std::time::Duration;

use super::checker::Verdict;
use super::cluster::{Cluster, Next, vouched_before};
use super::conditions::FaultKind;
use super::disk::{Damage, Tear};
use super::member::{DiskFaults, Trap, drift_ppm};
use super::trace::What;

/// A trap springs within so many effects.
const TRAP_EFFECTS_MAX: u64 = 60;
const PAUSE_MAX: Duration = Duration::from_secs(3);
const SLOW_MAX: Duration = Duration::from_secs(4);
const FULL_MAX: Duration = Duration::from_secs(2);

impl Cluster {
    /// One fault.
    pub(super) fn fault(&mut self) -> Verdict {
        let Some(kind) = self.dice.weighted(&self.conditions.faults) else {
            return Ok(());
        };
        let number = self.dice.place(self.members.len());
        if self.inflict(number, kind) {
            *self.statistics.faults.entry(kind).or_default() += 1;
        }
        Ok(())
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
            FaultKind::Drift => {
                let drift = drift_ppm(&mut self.dice);
                self.members[number].clock.set_drift(drift, self.now);
                self.line(number, What::Drift(drift));
            }
            FaultKind::Kill
            | FaultKind::TrapKill
            | FaultKind::TrapPowerCut
            | FaultKind::Pause
            | FaultKind::SyncFailure => return false,
        }
        true
    }

    fn tear(&mut self) -> Tear {
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
        let member = &mut self.members[number];
        if member.process.is_none() || !member.disk.spoil(damage, before, &mut self.dice) {
            return false;
        }
        self.line(number, What::Spoiled(damage));
        self.crash(number, None);
        true
    }

    /// Something keeps a member from sealing its log for a while.
    fn disturb(&mut self, number: usize) {
        let member = &mut self.members[number];
        let faults = &member.faults;
        let until = member
            .paused_until
            .max(faults.slow_until)
            .max(faults.full_until);
        member.undisturbed_since = member.clock.read(until.max(self.now));
    }

    /// Every fault of a member ends.
    pub(super) fn relieve(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.faults = DiskFaults::default();
        member.trap = None;
        member.paused_until = self.now;
        member.disk.undo_damage();
        let after = self.conditions.down_max;
        self.plan_in(after, Next::Start(number));
    }
}
