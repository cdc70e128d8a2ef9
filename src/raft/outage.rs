//! What a member remembers of outages, to say what may have kept a request from its answer.
//!
//! Owns when this member was elected last, and when its connections to others were closed last. Consensus decides nothing
//! by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Membership, Raft};
use crate::base::{Instant, MemberId};

/// What may have kept a request that needs the leader from its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The leader that it was for has failed: this member was elected soon after. As in etcd, the others do not say so.
    LeaderFailed,
    /// The connection to the leader was closed meanwhile; or this member leads, and those to a majority were.
    ConnectionLost,
}

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Outages {
    /// When this member was elected last.
    pub(super) elected: Option<Instant>,
    /// When the connection to each member was closed last.
    closed: BTreeMap<MemberId, Instant>,
}

impl Outages {
    /// A connection was closed. Those of strangers tell nothing.
    pub(super) fn note_closed(&mut self, peer: MemberId, membership: &Membership, now: Instant) {
        let members: BTreeSet<MemberId> = membership.members().collect();
        self.closed.retain(|id, _| members.contains(id));
        if members.contains(&peer) {
            self.closed.insert(peer, now);
        }
    }
}

impl Raft {
    /// What may have kept a request from its answer that came in `span` ago.
    #[must_use]
    pub fn outage_within(&self, span: Duration) -> Option<Outage> {
        let ago = |at: Instant| self.now.since(at);
        // It may have waited in vain for the leader before, which is replaced after an election timeout or two.
        let replaced = |at| ago(at) < span && ago(at) + 2 * self.election_timeout > span;
        if self.outages.elected.is_some_and(replaced) {
            return Some(Outage::LeaderFailed);
        }
        let closed = |id: &MemberId| {
            self.outages
                .closed
                .get(id)
                .is_some_and(|&at| ago(at) <= span)
        };
        let is_lost = match self.leader? {
            own if own == self.id => {
                let voters = self.membership().voters.iter().copied();
                let connected: BTreeSet<MemberId> = voters.filter(|id| !closed(id)).collect();
                !self.membership().is_majority(&connected)
            }
            other => closed(&other),
        };
        is_lost.then_some(Outage::ConnectionLost)
    }
}
