//! Deadlines: who has waited too long is told so, in the words that fit how far the request came.
//!
//! Whoever holds requests takes out those that are late; here is decided what is said of them.

use std::time::Duration;

use super::Shard;
use super::event::Refusal;
use crate::base::Instant;
use crate::base::limits::REQUEST_TIME;
use crate::base::planted::Defect;

/// How long a request waits for its answer at most, where members replace a leader after this election timeout.
#[must_use]
pub fn request_time_max(election_timeout: Duration) -> Duration {
    REQUEST_TIME + 2 * election_timeout
}

impl Shard {
    /// Tells everybody whose deadline has passed. An entry that is on its way may still be committed: who
    /// asked knows only that it was not heard in time.
    pub(super) fn expire(&mut self, now: Instant) {
        // Each kind with what etcd says of it.
        let (mut waiting, mut late, mut late_reads) = (Vec::new(), Vec::new(), Vec::new());
        self.writes.expire(now, &mut waiting);
        self.reads.expire(now, &mut late_reads);
        self.forwards.expire(now, &mut late);
        self.expire_member_requests(now, &mut late);
        self.waiters.expire(now, |waiter| late.push(waiter.asker));
        self.physical.retain(|(_, waiter)| {
            let keep = waiter.deadline > now;
            if !keep {
                late.push(waiter.asker);
            }
            keep
        });
        // All have waited as long, but for those whose clients have a limit of their own: they do not hear it any more.
        let span = request_time_max(self.settings.election_timeout);
        let refusal = if self.settings.planted.has(Defect::TimeoutAnsweredAsRefusal) {
            Refusal::TooManyRequests
        } else {
            let outage = self.raft.outage_within(span);
            outage.map_or(Refusal::TimedOut, Refusal::TimedOutBy)
        };
        let not_begun = match self.raft.leader() {
            Some(_) => refusal,
            None => Refusal::NoLeaderInTime,
        };
        for (askers, refusal) in [
            (waiting, not_begun),
            (late, refusal),
            (late_reads, Refusal::TimedOut),
        ] {
            for asker in askers {
                self.refuse(asker, refusal);
            }
        }
    }
}
