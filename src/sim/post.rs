//! Messages between members: what becomes of each, and its arrival.

use super::checker::Verdict;
use super::cluster::{Cluster, Next};
use super::member::member_id;
use super::network::Fate;
use super::trace::What;
use crate::raft::Body;
use crate::shard::event::{Event, PeerMessage};

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    from: usize,
    pub(super) to: usize,
    /// The receiver's life when it was sent: it does not survive a connection.
    life: u32,
    message: PeerMessage,
}

impl Cluster {
    pub(super) fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        let (what, term) = kind_of_message(&message);
        self.line(from, What::Sends { to, what, term });
        let fate = self
            .network
            .fate(from, to, self.now, &mut self.network_dice);
        let life = self.members[to].life;
        let deliver = |message| {
            Next::Deliver(Box::new(Delivery {
                from,
                to,
                life,
                message,
            }))
        };
        match fate {
            Fate::Lost => {}
            Fate::Twice(first, second) if matches!(message, PeerMessage::Raft { .. }) => {
                self.schedule.plan(first, deliver(message.clone()));
                self.schedule.plan(second, deliver(message));
            }
            // A connection never doubles what consensus does not look at.
            Fate::Once(at) | Fate::Twice(at, _) => self.schedule.plan(at, deliver(message)),
        }
    }

    pub(super) fn deliver(&mut self, delivery: Delivery) -> Verdict {
        let Delivery {
            from,
            to,
            life,
            message,
        } = delivery;
        if self.network.is_cut(from, to) || self.process(to, life).is_none() {
            return Ok(());
        }
        let (what, term) = kind_of_message(&message);
        self.line(to, What::Receives { from, what, term });
        let event = Event::Peer {
            from: member_id(from),
            incarnation: self.members[from].incarnation(),
            message,
        };
        self.hand_in(to, event)
    }
}

/// What a message is, and its term, for the trace.
fn kind_of_message(message: &PeerMessage) -> (&'static str, u64) {
    let PeerMessage::Raft { message, .. } = message else {
        return match message {
            PeerMessage::Introduce(_) => ("introduction", 0),
            PeerMessage::Forward { .. } => ("forward", 0),
            PeerMessage::CheckpointOffer { term, .. } => ("checkpoint offer", term.0),
            PeerMessage::CheckpointBlock { term, .. } => ("checkpoint block", term.0),
            PeerMessage::CheckpointPosition { term, .. } => ("checkpoint position", term.0),
            _ => ("forwarded", 0),
        };
    };
    let kind = match &message.body {
        Body::VoteRequest(request) if request.pre => "pre-vote request",
        Body::VoteRequest(_) => "vote request",
        Body::VoteResponse(response) if response.granted => "vote",
        Body::VoteResponse(_) => "no vote",
        Body::Append(append) if append.entries.is_empty() => "probe",
        Body::Append(_) => "append",
        Body::AppendResponse(_) => "append response",
        Body::Heartbeat(_) => "heartbeat",
        Body::HeartbeatResponse(_) => "heartbeat response",
        Body::ReadRequest { .. } => "read request",
        Body::ReadResponse { .. } => "read response",
        Body::TimeoutNow => "timeout now",
        Body::NewerTerm => "newer term",
        Body::IdentityQuestion => "identity question",
        Body::IdentityConfirmed { .. } => "identity confirmed",
        Body::IdentityRefused { .. } => "identity refused",
        Body::Removed => "removed",
    };
    (kind, message.term.0)
}
