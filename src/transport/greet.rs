//! The first exchange on a connection, from both sides, and what is said about those that are not wanted.
//!
//! Owns the waiting that [`super::hello`] must not do. A connection that does not say in time who it is, or
//! is not wanted, is closed; both sides log the reason once and not at each attempt.

use std::cell::RefMut;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use super::hello::{HELLO_BYTES, Hello, HelloError, Path, Refusal, Reply};
use super::link::{Link, LinkError, LinkTerms};
use super::table::Table;
use super::{Shared, TransportEvent};
use crate::base::limits::{PEER_HANDSHAKES_MAX, PEER_RECEIVE_BUFFER_BYTES};
use crate::base::{MemberId, Term};
use crate::raft::{Body, Message};
use crate::runtime::executor::{Elapsed, Queue, spawn_local, timeout};
use crate::runtime::net::{Accepted, Listener};
use crate::runtime::peer_socket::{PeerSocket, Receiver, Sender};
use crate::shard::event::PeerMessage;

/// Why a connection did not come to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetError {
    /// The kernel's answer.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side closed it.
    #[error("the connection was closed before a greeting")]
    Closed,
    /// The other side says nothing.
    #[error("no greeting within {:?}", .0.0)]
    Late(#[from] Elapsed),
    /// What it says is no greeting.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// More than a greeting came before its answer.
    #[error("it sent more than a greeting")]
    More,
    /// The other side does not want it.
    #[error("the peer refuses this member: {0}")]
    RefusedByPeer(Refusal),
    /// This side does not want it.
    #[error("refused: {0}")]
    Refused(Refusal),
}

/// A connection whose sides know each other, and what of it was received already.
pub(super) struct Greeted {
    pub(super) link: Rc<Link>,
    pub(super) receiver: Receiver,
    pub(super) rest: Vec<u8>,
}

impl Greeted {
    /// Serves the connection until it ends.
    pub(super) async fn run(self, shared: &Shared) -> LinkError {
        let error = self.link.run(self.receiver, self.rest, &shared.inbox).await;
        let mut table = shared.table.borrow_mut();
        table.closed(shared.own.member, &self.link, &shared.inbox);
        error
    }
}

/// Says hello on a connection that was opened to find `wanted`, and hears the answer.
pub(super) async fn greet(
    shared: &Shared,
    mut socket: PeerSocket,
    wanted: MemberId,
    path: Path,
) -> Result<Greeted, GreetError> {
    let hello = Hello {
        from: shared.own.as_known(&shared.table.borrow().admission),
        wanted,
        path,
    };
    send_whole(&socket.sender, &hello.to_bytes())?;
    let mut buffer = Vec::with_capacity(PEER_RECEIVE_BUFFER_BYTES);
    let hearing = async {
        loop {
            if let Some(reply) = Reply::parse(&buffer)? {
                return Ok::<_, GreetError>(reply);
            }
            if socket.receiver.receive(&mut buffer).await? == 0 {
                return Err(GreetError::Closed);
            }
        }
    };
    let reply = timeout(shared.config.handshake_timeout, hearing).await??;
    let verdict = {
        let table = shared.table.borrow();
        reply.judge(&shared.own, wanted, &table.admission)
    };
    let version = verdict.map_err(|refusal| match reply.verdict {
        Err(theirs) if theirs == refusal => {
            if refusal == Refusal::OtherIncarnation {
                tell_own_refused(shared, &reply);
            }
            GreetError::RefusedByPeer(refusal)
        }
        _ => GreetError::Refused(refusal),
    })?;
    buffer.drain(..HELLO_BYTES);
    let terms = LinkTerms {
        peer: wanted,
        incarnation: reply.from.incarnation,
        agreed: reply.from.agreed,
        path,
        dialed: true,
        version,
        shard: shared.own.shard,
    };
    let link = open_link(shared, terms, socket.sender);
    Ok(Greeted {
        link,
        receiver: socket.receiver,
        rest: buffer,
    })
}

/// Another directory belongs to this member's id: what the peer would answer to the question about it, and consensus
/// must hear it, for no question gets through.
fn tell_own_refused(shared: &Shared, reply: &Reply) {
    let message = Message {
        term: Term::default(),
        incarnation: reply.from.incarnation,
        body: Body::IdentityRefused {
            incarnation: shared.own.incarnation,
        },
    };
    shared.inbox.push_own(TransportEvent::Received {
        from: reply.from.member,
        incarnation: reply.from.incarnation,
        message: PeerMessage::Raft {
            message,
            records: Vec::new(),
        },
    });
}

fn open_link(shared: &Shared, terms: LinkTerms, sender: Sender) -> Rc<Link> {
    let mut table = shared.table.borrow_mut();
    let shares = table.shared_by(terms.peer, terms.path);
    let link = Link::new(terms, sender, shares, &shared.config);
    table.opened(shared.own.member, &link, &shared.inbox);
    link
}

/// A greeting fits into the buffer of any new connection.
fn send_whole(sender: &Sender, bytes: &[u8]) -> io::Result<()> {
    match sender.try_send(&[IoSlice::new(bytes)])? {
        Some(count) if count == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Accepts connections of other members, until it is dropped.
pub(super) async fn accept(shared: Weak<Shared>, listener: Listener) {
    listener
        .serve(move |accepted| {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            // Counted here: many may be accepted before the first of their tasks runs.
            if let Some(unknown) = Unknown::new(&shared) {
                spawn_local(Queue::Connections, welcome(shared, unknown, accepted)).detach();
            }
        })
        .await;
}

/// One that has not said who it is; counted as long as it has not.
struct Unknown(Rc<Shared>);

impl Unknown {
    /// None when there are too many.
    fn new(shared: &Rc<Shared>) -> Option<Unknown> {
        let mut table = shared.table.borrow_mut();
        if table.handshakes >= PEER_HANDSHAKES_MAX {
            return None;
        }
        table.handshakes += 1;
        Some(Unknown(Rc::clone(shared)))
    }
}

impl Drop for Unknown {
    fn drop(&mut self) {
        self.0.table.borrow_mut().handshakes -= 1;
    }
}

/// Serves a connection that somebody has opened.
async fn welcome(shared: Rc<Shared>, unknown: Unknown, accepted: Accepted) {
    let address = accepted.peer_addr();
    let heard = hear(&shared, accepted).await;
    drop(unknown);
    match heard {
        Ok(greeted) => {
            let peer = greeted.link.terms.peer;
            let path = greeted.link.terms.path;
            tracing::debug!(%peer, %path, %address, "peer connected");
            let error = greeted.run(&shared).await;
            complain_of_link(&shared, peer, &error);
        }
        Err((member, error)) => complain(&shared, member, address, &error),
    }
}

/// Hears who it is, and answers.
async fn hear(
    shared: &Shared,
    accepted: Accepted,
) -> Result<Greeted, (Option<MemberId>, GreetError)> {
    let nobody = |error: GreetError| (None, error);
    let mut socket =
        PeerSocket::accepted(accepted, shared.config.silence_max).map_err(|e| nobody(e.into()))?;
    let mut buffer = Vec::with_capacity(PEER_RECEIVE_BUFFER_BYTES);
    let hearing = async {
        loop {
            if let Some(hello) = Hello::parse(&buffer)? {
                return Ok::<_, GreetError>(hello);
            }
            if socket.receiver.receive(&mut buffer).await? == 0 {
                return Err(GreetError::Closed);
            }
        }
    };
    let hello = timeout(shared.config.handshake_timeout, hearing)
        .await
        .map_err(|error| nobody(error.into()))?
        .map_err(nobody)?;
    let member = hello.from.member;
    let because = |error: GreetError| (Some(member), error);
    if buffer.len() > HELLO_BYTES {
        return Err(because(GreetError::More));
    }
    let reply = {
        let table = shared.table.borrow();
        let verdict = hello
            .judge(&shared.own, &table.admission)
            .and_then(|version| table.admit(member).map(|()| version));
        Reply {
            from: shared.own.as_known(&table.admission),
            verdict,
        }
    };
    send_whole(&socket.sender, &reply.to_bytes(member)).map_err(|e| because(e.into()))?;
    let version = reply
        .verdict
        .map_err(|refusal| because(GreetError::Refused(refusal)))?;
    let terms = LinkTerms {
        peer: member,
        incarnation: hello.from.incarnation,
        agreed: hello.from.agreed,
        path: hello.path,
        dialed: false,
        version,
        shard: shared.own.shard,
    };
    let link = open_link(shared, terms, socket.sender);
    buffer.clear();
    Ok(Greeted {
        link,
        receiver: socket.receiver,
        rest: buffer,
    })
}

/// Says why a connection that somebody opened is not wanted.
fn complain(shared: &Shared, member: Option<MemberId>, address: SocketAddr, error: &GreetError) {
    let mut table: RefMut<'_, Table> = shared.table.borrow_mut();
    table.stats.refused_connections += 1;
    // Not by all that was sent: a stranger must not fill the log.
    let kind = match error {
        GreetError::Hello(_) => "foreign".to_owned(),
        other => other.to_string(),
    };
    // Whoever is not a peer may claim another id each time.
    let peer = member.filter(|member| table.peers.contains_key(member));
    let whose = format!("{} {}: {kind}", address.ip(), peer.unwrap_or_default());
    if !table.complaints.is_new(None, whose) {
        return;
    }
    match member {
        Some(member) => {
            tracing::warn!(peer = %member, %address, reason = %error, "refused a connection to the peer port");
        }
        None => {
            tracing::warn!(%address, reason = %error, "refused a connection to the peer port");
        }
    }
}

/// Says why a connection ended, unless that is what connections do.
pub(super) fn complain_of_link(shared: &Shared, peer: MemberId, error: &LinkError) {
    match error {
        LinkError::Closed | LinkError::Lost(_) => {
            tracing::debug!(%peer, %error, "a connection to a peer ended");
        }
        LinkError::Frame(_)
        | LinkError::Message(_)
        | LinkError::TooLong { .. }
        | LinkError::Stalled => {
            let mut table = shared.table.borrow_mut();
            table.stats.damaged_connections += 1;
            if table.complaints.is_new(None, format!("{peer}: {error}")) {
                tracing::warn!(%peer, %error, "closed a connection to a peer");
            }
        }
    }
}
