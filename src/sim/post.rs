//! Messages between members: what becomes of each, and its arrival.
//!
//! Nothing arrives where the greeting of a connection would not let it in: the product's own answer to that, for both
//! sides. Who is refused for its directory is told so at each attempt, as when it connects.

use super::checker::Verdict;
use super::cluster::{Cluster, Next};
use super::member::member_id;
use super::network::Fate;
use super::trace::What;
use crate::base::planted::Defect;
use crate::base::{Incarnation, Term};
use crate::raft::{Body, Directories, Message};
use crate::shard::event::{Event, PeerMessage};

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    from: usize,
    pub(super) to: usize,
    /// The receiver's life when it was sent: it does not survive a connection.
    life: u32,
    /// The sender's.
    sender_life: u32,
    /// What the sender's side of the connection says of its directory.
    greeting: Greeting,
    message: PeerMessage,
}

/// From which directory somebody speaks.
#[derive(Clone, Copy, Debug)]
struct Greeting {
    incarnation: Incarnation,
    /// Whether the group has agreed on it, as it knows.
    agreed: bool,
    /// Whether this is no message but the answer to a greeting.
    is_refusal: bool,
}

impl Cluster {
    pub(super) fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        let (what, term) = kind_of_message(&message);
        self.line(from, What::Sends { to, what, term });
        let fate = self
            .network
            .fate(from, to, self.now, &mut self.network_dice);
        let greeting = self.greeting(from);
        if !self.lets_in(from, to, self.greeting(to)) {
            self.statistics.greetings_refused += 1;
            return;
        }
        let (life, sender_life) = (self.members[to].life, self.members[from].life);
        let deliver = |message| {
            Next::Deliver(Box::new(Delivery {
                from,
                to,
                life,
                sender_life,
                greeting,
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
            sender_life,
            greeting,
            message,
        } = delivery;
        if self.network.is_cut(from, to) || self.process(to, life).is_none() {
            return Ok(());
        }
        if !greeting.is_refusal && !self.lets_in(to, from, greeting) {
            self.statistics.greetings_refused += 1;
            self.refuse(to, from, sender_life, greeting.incarnation);
            return Ok(());
        }
        let (what, term) = kind_of_message(&message);
        self.line(to, What::Receives { from, what, term });
        let event = Event::Peer {
            from: member_id(from),
            incarnation: greeting.incarnation,
            message,
        };
        self.hand_in(to, event)
    }

    /// What a member says of its directory when it connects, or is connected to.
    fn greeting(&self, number: usize) -> Greeting {
        let directories = self.directories(number);
        Greeting {
            incarnation: self.members[number].incarnation(),
            agreed: directories.is_some_and(|directories| directories.own_agreed),
            is_refusal: false,
        }
    }

    fn directories(&self, number: usize) -> Option<&Directories> {
        let process = self.members[number].process.as_ref();
        process.map(|process| &process.directories)
    }

    /// Whether a member has a connection to one that says this of its directory. With one that does not run nobody has.
    fn lets_in(&self, number: usize, other: usize, greeting: Greeting) -> bool {
        let Greeting {
            incarnation,
            agreed,
            ..
        } = greeting;
        // Who believes any directory greets any.
        self.options.planted.has(Defect::WipedDirectoryVotes)
            || self
                .directories(number)
                .is_none_or(|them| them.admit(member_id(other), incarnation, agreed))
    }

    /// Tells a member that another directory belongs to its id.
    fn refuse(&mut self, number: usize, other: usize, life: u32, refused: Incarnation) {
        let fate = self
            .network
            .fate(number, other, self.now, &mut self.network_dice);
        let (Fate::Once(at) | Fate::Twice(at, _)) = fate else {
            return;
        };
        let message = Message {
            term: Term::default(),
            incarnation: self.members[number].incarnation(),
            body: Body::IdentityRefused {
                incarnation: refused,
            },
        };
        let refusal = Delivery {
            from: number,
            to: other,
            life,
            sender_life: self.members[number].life,
            greeting: Greeting {
                is_refusal: true,
                ..self.greeting(number)
            },
            message: PeerMessage::Raft {
                message,
                records: Vec::new(),
            },
        };
        self.schedule.plan(at, Next::Deliver(Box::new(refusal)));
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
