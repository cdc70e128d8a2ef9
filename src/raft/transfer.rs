//! Handing leadership over (dissertation, section 3.10): on request, on stopping, and away from a disk
//! that does not complete its syncs.
//!
//! The leader takes no more entries, brings the target up to date and asks it to campaign at once. If that does not
//! happen within an election timeout, it goes on leading; only one whose disk is still stalled then leads no longer, if
//! somebody has a better disk.

use super::Raft;
use super::message::Body;
use super::progress::Progress;
use super::types::{Output, Role, StepDown};
use crate::base::{Index, Instant, MemberId};

/// A transfer under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    to: MemberId,
    deadline: Instant,
    /// Whether the target was asked to campaign.
    asked: bool,
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefusal {
    /// This member does not lead.
    #[error("this member does not lead")]
    NotLeader,
    /// The target has no vote.
    #[error("the member has no vote")]
    NotVoter,
    /// It leads already.
    #[error("the member leads already")]
    LeadsAlready,
    /// Another transfer is under way.
    #[error("another transfer is under way")]
    UnderWay,
    /// No other voter can be reached.
    #[error("no other voter can be reached")]
    Nobody,
}

impl Raft {
    /// Hands leadership over to `to`, or with `None` to the voter that has most of the log.
    ///
    /// # Errors
    /// [`TransferRefusal`].
    pub fn transfer_leader(
        &mut self,
        to: Option<MemberId>,
        now: Instant,
    ) -> Result<MemberId, TransferRefusal> {
        self.observe(now);
        if self.role != Role::Leader {
            return Err(TransferRefusal::NotLeader);
        }
        if self.leading.transfer.is_some() {
            return Err(TransferRefusal::UnderWay);
        }
        let to = to
            .or_else(|| self.best_successor())
            .ok_or(TransferRefusal::Nobody)?;
        if to == self.id {
            return Err(TransferRefusal::LeadsAlready);
        }
        if !self.membership().voters.contains(&to) {
            return Err(TransferRefusal::NotVoter);
        }
        self.leading.transfer = Some(Transfer {
            to,
            deadline: self.now + self.election_timeout,
            asked: false,
        });
        Ok(to)
    }

    /// To whom this leader is handing over, if it is.
    #[must_use]
    pub fn transfer_target(&self) -> Option<MemberId> {
        let transfer = self.leading.transfer.filter(|_| self.role == Role::Leader);
        transfer.map(|transfer| transfer.to)
    }

    /// This member's disk does not complete a sync, of a log that ended at `staged` when it began: somebody whose disk is
    /// better should lead. Entries can be committed without it, so a leader hands over to such a one. Said `again`, the
    /// attempt has ended: perhaps what the others lack can be read from no disk. Then it leads no longer, and they elect
    /// one of them. Where all disks are as slow it leads on: an election takes more syncs than a write.
    pub fn sync_stalled(
        &mut self,
        again: bool,
        staged: Index,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) {
        self.observe(now);
        // It may have been cut off since.
        let staged = staged.min(self.terms.last_index());
        let better = self.successor(|progress| progress.keeps_up(staged));
        if self.role != Role::Leader || better.is_none() {
            return;
        }
        if again {
            self.step_down(StepDown::SyncStalled, outputs);
        } else {
            // A refusal changes nothing: it is handing over.
            let _handing_over = self.transfer_leader(better, now);
        }
    }

    /// The voter that was heard lately and has most of the log; of equals the one with the highest id.
    fn best_successor(&self) -> Option<MemberId> {
        self.successor(|_| true)
    }

    /// The best one of those that are good enough.
    fn successor(&self, is_good: impl Fn(&Progress) -> bool) -> Option<MemberId> {
        let followers = self.leading.progress.iter();
        followers
            .filter(|(id, progress)| {
                self.membership().voters.contains(id)
                    && progress.counts
                    && self.now.since(progress.heard) < self.election_timeout
                    && is_good(progress)
            })
            .max_by_key(|(id, progress)| (progress.matched, **id))
            .map(|(&id, _)| id)
    }

    /// Asks the target to campaign once it has everything.
    pub(super) fn hand_over_when_ready(&mut self, outputs: &mut Vec<Output>) {
        let Some(transfer) = self.leading.transfer else {
            return;
        };
        let target = self.leading.progress.get(&transfer.to);
        let ready = target.is_some_and(|progress| progress.matched == self.terms.last_index());
        if ready && !transfer.asked {
            self.ask_to_campaign(transfer.to, outputs);
            self.leading.transfer = Some(Transfer {
                asked: true,
                ..transfer
            });
        }
    }

    /// From here on the target may be elected although this leader is alive: a lease is worth nothing.
    fn ask_to_campaign(&mut self, to: MemberId, outputs: &mut Vec<Output>) {
        self.leading.lease_forfeited = true;
        self.send(to, Body::TimeoutNow, outputs);
    }

    pub(super) fn abandon_transfer_when_late(&mut self, outputs: &mut Vec<Output>) {
        if let Some(transfer) = self.leading.transfer
            && transfer.deadline <= self.now
        {
            self.leading.transfer = None;
            outputs.push(Output::TransferAbandoned { to: transfer.to });
        }
    }

    /// A leader that leaves the group lets somebody else begin at once. Who learns that its removal is
    /// committed hears it no more, so this comes first.
    pub(super) fn leave_to_successor(&mut self, outputs: &mut Vec<Output>) {
        if let Some(to) = self.best_successor() {
            self.ask_to_campaign(to, outputs);
        }
    }

    /// What a leader has not sent to a follower yet, in entries; zero for who is no follower.
    #[must_use]
    pub fn lag(&self, of: MemberId) -> u64 {
        let matched = self.leading.progress.get(&of).map(|of| of.matched);
        matched.map_or(0, |Index(matched)| self.terms.last_index().0 - matched)
    }
}
