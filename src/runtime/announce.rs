//! Says in the log what an operator of a group must see: what this member waits for, and who leads.
//!
//! Runs on the shard's core at the end of a turn and compares a few numbers; a line is written on a change, or
//! seldom while nothing changes. Must never decide anything.

use std::time::Duration;

use crate::base::{Instant, MemberId, Term};
use crate::raft::ReadMode;
use crate::shard::Shard;

/// Between two lines about the same wait.
const WAIT_LINES: Duration = Duration::from_secs(10);

/// What was said last.
#[derive(Default)]
pub(super) struct Announcer {
    leader: Option<MemberId>,
    term: Term,
    /// When the wait for confirmation was spoken of, and what it was.
    waiting: Option<(Instant, usize)>,
    /// When the rebuilding of a damaged log was spoken of.
    rebuilding: Option<Instant>,
    /// On what reads rest.
    read_mode: ReadMode,
}

impl Announcer {
    pub(super) fn observe(&mut self, shard: &Shard, now: Instant) {
        self.observe_confirmation(shard, now);
        self.observe_rebuild(shard, now);
        self.observe_leader(shard);
        self.observe_read_mode(shard);
    }

    /// A new group of three does nothing while one is up alone: that must not look like a hang.
    fn observe_confirmation(&mut self, shard: &Shard, now: Instant) {
        let Some(confirmation) = shard.raft().confirmation() else {
            if self.waiting.take().is_some() {
                tracing::info!("enough members have confirmed this data directory: it may vote");
            }
            return;
        };
        let (confirmed, needed) = (confirmation.confirmed, confirmation.needed);
        let said = self
            .waiting
            .is_some_and(|(at, count)| count == confirmed && now.since(at) < WAIT_LINES);
        if !said {
            self.waiting = Some((now, confirmed));
            let missing: Vec<String> = confirmation
                .missing
                .iter()
                .map(ToString::to_string)
                .collect();
            tracing::info!(
                confirmed,
                needed,
                not_heard = ?missing,
                "waiting for {} of {} members to confirm that they know no other data directory of this \
                 one: it votes only after that, so a new group needs them running once",
                needed - confirmed,
                needed,
            );
        }
    }

    /// A member that follows and does not count looks like any other from outside.
    fn observe_rebuild(&mut self, shard: &Shard, now: Instant) {
        let raft = shard.raft();
        if !raft.is_rebuilding() {
            if self.rebuilding.take().is_some() {
                tracing::info!(
                    index = raft.commit().0,
                    "the damaged log is whole again: this member votes and counts"
                );
            }
            return;
        }
        if self.rebuilding.is_some_and(|at| now.since(at) < WAIT_LINES) {
            return;
        }
        self.rebuilding = Some(now);
        tracing::warn!(
            index = raft.commit().0,
            "the damaged log is being rebuilt from the other members: this member does not vote or count until \
             a leader with a majority of whole members has sent everything; if no such majority is left, see \
             kontiki recover --accept-cut"
        );
    }

    /// Under leases clocks matter, and a leader that is lost is replaced later: whoever looks for the reason of either
    /// finds it here, after each start as well.
    fn observe_read_mode(&mut self, shard: &Shard) {
        let mode = shard.cluster().read_mode();
        if std::mem::replace(&mut self.read_mode, mode) != mode {
            tracing::info!(%mode, "what linearizable reads rest on, in the whole cluster, is another one");
        }
    }

    fn observe_leader(&mut self, shard: &Shard) {
        let raft = shard.raft();
        let (leader, term) = (raft.leader(), raft.term());
        if leader == self.leader && (leader.is_none() || term == self.term) {
            return;
        }
        let own = raft.id();
        match (leader, self.leader) {
            (Some(leader), _) if leader == own => {
                tracing::info!(member_id = %own, term = term.0, "this member leads");
            }
            (Some(leader), None) => {
                tracing::info!(member_id = %own, leader = %leader, term = term.0, "a leader is known");
            }
            (Some(leader), Some(before)) => tracing::info!(
                member_id = %own, leader = %leader, before = %before, term = term.0, "the leader changed"
            ),
            (None, before) => {
                let before = before.map(|before| before.to_string());
                tracing::warn!(member_id = %own, ?before, term = term.0, "the leader was lost");
            }
        }
        (self.leader, self.term) = (leader, term);
    }
}
