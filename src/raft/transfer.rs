//! Handing leadership over (dissertation, section 3.10): on request, on stopping, and away from a disk
//! that does not complete its syncs.
//!
//! The leader takes no more entries, brings the target up to date and asks it to campaign at once. If that does not
//! happen within an election timeout, it goes on leading; only one whose disk is still stalled then leads no longer, if
//! a majority without it has better disks.
//!
//! ```text
//! looks       |          |          |          every quarter of an election timeout
//! own disk  |-- sync --------------------> ...
//! log           .....................+++++     grows
//! follower                            --|      has made some of what came since the last look durable
//! ```
//! Disks that are all slow, or have all stopped for the moment, do not show this: whoever makes something durable so soon
//! has a disk that works now. While nothing is appended nobody waits for this disk.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Raft;
use super::message::Body;
use super::progress::Progress;
use super::types::{Output, Role, StepDown};
use crate::base::{Index, Instant, MemberId};

/// Election timeouts that a sync lasts before those count as better whose disks have shown nothing, because they cannot
/// be sent what would show it.
const UNTRIED_TIMEOUTS: u32 = 4;

/// A transfer under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    to: MemberId,
    deadline: Instant,
    /// Whether the target was asked to campaign.
    asked: bool,
}

/// A sync of the log that takes long.
#[derive(Clone, Copy, Debug)]
pub struct SyncStall {
    /// How long so far.
    pub span: Duration,
    /// Where the log ended at the last look, a quarter of an election timeout ago.
    pub mark: Index,
    /// Whether nothing can be appended before the disk has taken what waits for it.
    pub is_full: bool,
    /// Whether leadership could not be handed over since it began.
    pub again: bool,
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
    /// Hands leadership over to `to`, or with `None` to the voter that has most of the log, of those first that have not
    /// let a transfer pass.
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

    /// Somebody campaigns: perhaps who was asked to.
    pub(super) fn note_handed_over(&mut self) {
        let asked = self.leading.transfer.filter(|transfer| transfer.asked);
        self.successor_due = asked.map(|_| self.now + 2 * self.election_timeout);
    }

    /// Whether this member has handed over a moment ago, and nobody is known to lead yet: who was asked to take over may
    /// still need its vote.
    #[must_use]
    pub fn waits_for_successor(&self) -> bool {
        self.leader.is_none() && self.successor_due.is_some_and(|due| self.now < due)
    }

    /// This member's disk does not complete its sync. Entries can be committed without it, so a leader hands over, if
    /// the voters with better disks are a majority without it: else nobody could be elected, and this one at least
    /// answers reads. Said `again`, the attempt has come to nothing: perhaps what the others lack can be read from no
    /// disk. Then it leads no longer, and they elect one of them.
    pub fn sync_stalled(&mut self, stall: SyncStall, now: Instant, outputs: &mut Vec<Output>) {
        self.observe(now);
        if self.role != Role::Leader {
            return;
        }
        let better: BTreeSet<MemberId> = self
            .voters_heard()
            .filter(|(_, progress)| self.has_better_disk(progress, stall))
            .map(|(id, _)| id)
            .collect();
        if !self.membership().is_majority(&better) {
            return;
        }
        if stall.again {
            self.step_down(StepDown::SyncStalled, outputs);
        } else {
            let heard = self.voters_heard();
            let to = furthest(heard.filter(|(id, _)| better.contains(id)));
            // A refusal changes nothing: it is handing over.
            let _handing_over = self.transfer_leader(to, now);
        }
    }

    /// Whether a follower's disk works while this one does not: it has made durable what was appended since the last
    /// look, or, when nothing more can be, all there is. Who lacks what was there before, and owes nothing that it was
    /// sent, is not held up by its own disk: it cannot be sent what it lacks. That says nothing of its disk, and what is
    /// still in memory here only to be written can be sent when the sync ends: disks that are all slow must not cost the
    /// leader for that, so it takes longer.
    fn has_better_disk(&self, progress: &Progress, stall: SyncStall) -> bool {
        let last = self.terms.last_index();
        // It may have been cut off since.
        if progress.matched < stall.mark.min(last) {
            // What it said before the log ended there says nothing.
            let lately = self.now.since(progress.heard) < self.election_timeout / 4;
            let long = stall.span >= self.election_timeout * UNTRIED_TIMEOUTS;
            return long && lately && progress.verified <= progress.matched;
        }
        progress.matched > stall.mark || stall.is_full && progress.matched == last
    }

    /// The voter that was heard lately and has most of the log; of equals the one with the highest id. Who was asked and did
    /// not take over, though it is heard, comes after all others: asked again each time, it would keep leadership here
    /// for ever. When nobody else is left everybody is as good as at first.
    fn best_successor(&mut self) -> Option<MemberId> {
        let declined = &self.leading.declined;
        let untried = furthest(self.voters_heard().filter(|(id, _)| !declined.contains(id)));
        untried.or_else(|| {
            self.leading.declined.clear();
            furthest(self.voters_heard())
        })
    }

    fn voters_heard(&self) -> impl Iterator<Item = (MemberId, &Progress)> {
        let followers = self.leading.progress.iter();
        followers
            .map(|(&id, progress)| (id, progress))
            .filter(|&(id, progress)| {
                self.membership().voters.contains(&id)
                    && progress.has_all()
                    && self.now.since(progress.heard) < self.election_timeout
            })
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
            self.leading.declined.insert(transfer.to);
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

fn furthest<'a>(followers: impl Iterator<Item = (MemberId, &'a Progress)>) -> Option<MemberId> {
    followers
        .max_by_key(|&(id, progress)| (progress.matched, id))
        .map(|(id, _)| id)
}
