//! One connection whose two sides know each other: frames out, frames in.
//!
//! Owns the socket and the bytes under way. The shard's turn sends straight from here; when the kernel has no
//! room, a task goes on when it has. Everything received is checked, and a connection over which anything
//! came that does not hold is closed: what it would say next means nothing.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::TransportEvent;
use super::hello::Path;
use super::inbox::{Credit, Inbox};
use super::outgoing::{Unsent, Waiting};
use super::wire::{self, WireError};
use crate::base::limits::{PEER_FLUSH_BYTES_MAX, PEER_RECEIVE_BUFFER_BYTES, PEER_UNSENT_BYTES_MAX};
use crate::base::{Incarnation, MemberId, ShardId};
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader};
use crate::runtime::executor::{Queue, spawn_local, yield_if_needed};
use crate::runtime::peer_socket::{Receiver, Sender};

/// Received bytes up to this many are copied out of the buffer, which is then used again.
const COPIED_OUT_BYTES_MAX: usize = PEER_RECEIVE_BUFFER_BYTES / 8;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The other side closed it, or this one did.
    #[error("the connection was closed")]
    Closed,
    /// The kernel's answer.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// What was received is no frame.
    #[error("the peer sent what is no message: {0}")]
    Frame(#[from] FrameError),
    /// What was received is a frame, but no message.
    #[error("the peer sent what is no message: {0}")]
    Message(#[from] WireError),
}

/// What a connection was found to be.
pub(super) struct LinkTerms {
    pub(super) peer: MemberId,
    /// Its data directory.
    pub(super) incarnation: Incarnation,
    /// Whether it said that the group has agreed on that one.
    pub(super) agreed: bool,
    pub(super) path: Path,
    /// Whether this side connected.
    pub(super) dialed: bool,
    pub(super) version: u8,
    pub(super) shard: ShardId,
}

impl LinkTerms {
    /// Whether the other one comes from another directory of the same id, that does not say, as this one does, that the
    /// group has agreed on it.
    pub(super) fn outranks(&self, other: &LinkTerms) -> bool {
        self.incarnation != other.incarnation && self.agreed && !other.agreed
    }
}

/// What the connections to one peer share.
pub(super) struct LinkShares {
    /// Messages for this path.
    pub(super) waiting: Rc<RefCell<Waiting>>,
    /// Whether the shard was told that a connection ended, and nothing was received since.
    pub(super) lost: Rc<Cell<bool>>,
}

/// A connection to a peer.
pub(super) struct Link {
    pub(super) terms: LinkTerms,
    /// Whether messages go over this one: a peer may have connected to us while we connected to it.
    pub(super) in_use: Cell<bool>,
    shares: LinkShares,
    sender: RefCell<Sender>,
    unsent: RefCell<Unsent>,
    /// Whether the task that waits for the kernel has the word.
    blocked: Cell<bool>,
    writer: RefCell<Option<Waker>>,
    closed: Cell<bool>,
    credit: Rc<Credit>,
}

impl Link {
    pub(super) fn new(
        terms: LinkTerms,
        sender: Sender,
        shares: LinkShares,
        received_bytes_max: usize,
    ) -> Rc<Link> {
        Rc::new(Link {
            unsent: RefCell::new(Unsent::new(terms.version, terms.shard)),
            terms,
            in_use: Cell::new(false),
            shares,
            sender: RefCell::new(sender),
            blocked: Cell::new(false),
            writer: RefCell::new(None),
            closed: Cell::new(false),
            credit: Rc::new(Credit::new(received_bytes_max)),
        })
    }

    /// Ends it: whoever reads from it is told, on both sides.
    pub(super) fn close(&self) {
        if !self.closed.replace(true) {
            self.sender.borrow().close();
        }
    }

    /// Sends what waits, as far as the kernel has room; the rest follows on its own.
    pub(super) fn flush(&self) {
        if self.blocked.get() || self.closed.get() {
            return;
        }
        match self.send_some() {
            Ok(true) => {}
            Ok(false) => {
                self.blocked.set(true);
                if let Some(writer) = self.writer.borrow_mut().take() {
                    writer.wake();
                }
            }
            Err(error) => {
                tracing::debug!(peer = %self.terms.peer, %error, "cannot send");
                self.close();
            }
        }
    }

    /// Whether everything was sent.
    fn send_some(&self) -> io::Result<bool> {
        let mut unsent = self.unsent.borrow_mut();
        let mut handed_bytes = 0;
        loop {
            self.refill(&mut unsent);
            if unsent.size_bytes() == 0 {
                return Ok(true);
            }
            if handed_bytes >= PEER_FLUSH_BYTES_MAX {
                return Ok(false);
            }
            let sent = self.sender.borrow().try_send(&unsent.slices())?;
            let Some(count) = sent else {
                return Ok(false);
            };
            unsent.sent(count);
            handed_bytes += count;
        }
    }

    /// Messages become bytes.
    fn refill(&self, unsent: &mut Unsent) {
        if !self.in_use.get() {
            return;
        }
        let mut waiting = self.shares.waiting.borrow_mut();
        while unsent.size_bytes() < PEER_UNSENT_BYTES_MAX {
            let Some(message) = waiting.pop() else {
                break;
            };
            if let Err(error) = unsent.add(&message) {
                tracing::error!(peer = %self.terms.peer, %error, "a message fits into no frame");
            }
        }
    }

    /// Goes on sending when the kernel had no room, until the connection ends.
    async fn write(self: Rc<Link>) {
        loop {
            let sent = std::future::poll_fn(|cx| self.poll_write(cx)).await;
            if let Err(error) = sent {
                tracing::debug!(peer = %self.terms.peer, %error, "cannot send");
                self.close();
                return;
            }
            self.blocked.set(false);
            self.flush();
            yield_if_needed().await;
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.blocked.get() {
            *self.writer.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut unsent = self.unsent.borrow_mut();
        let sent = self.sender.borrow_mut().poll_send(cx, unsent.first());
        sent.map_ok(|count| unsent.sent(count))
    }

    /// Receives until the connection ends, and says why it did. `buffer` is what was received already.
    pub(super) async fn run(
        self: &Rc<Link>,
        receiver: Receiver,
        buffer: Vec<u8>,
        inbox: &Inbox,
    ) -> LinkError {
        let writer = spawn_local(Queue::Connections, Rc::clone(self).write());
        let error = self.read(receiver, buffer, inbox).await;
        self.close();
        drop(writer);
        error
    }

    async fn read(&self, mut receiver: Receiver, mut buffer: Vec<u8>, inbox: &Inbox) -> LinkError {
        loop {
            self.credit.room().await;
            if let Err(error) = self.take_frames(&mut buffer, inbox) {
                return error;
            }
            match receiver.receive(&mut buffer).await {
                Ok(0) => return LinkError::Closed,
                Ok(_) => {}
                Err(error) => return LinkError::Lost(error),
            }
            yield_if_needed().await;
        }
    }

    /// Hands the whole frames of `buffer` to the shard, and makes room for the rest of the next one.
    fn take_frames(&self, buffer: &mut Vec<u8>, inbox: &Inbox) -> Result<(), LinkError> {
        let mut headers = Vec::new();
        let mut end = 0;
        let mut missing_bytes = 0;
        let mut refused = None;
        while let Some(bytes) = buffer[end..].first_chunk::<FRAME_HEADER_BYTES>() {
            match FrameHeader::parse(bytes) {
                Ok(header) if header.length <= buffer.len() - end => {
                    headers.push((end, header));
                    end += header.length;
                }
                Ok(header) => {
                    missing_bytes = header.length - (buffer.len() - end);
                    break;
                }
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        if end > 0 {
            let whole = split_front(buffer, end);
            for (start, header) in headers {
                let body = whole.slice(start + FRAME_HEADER_BYTES..start + header.length);
                self.take_frame(&header.open(&body)?, inbox)?;
            }
        }
        if let Some(error) = refused {
            return Err(error.into());
        }
        // At most the longest frame, whose header has been checked; usually no more than there is.
        buffer.reserve(missing_bytes.max(PEER_RECEIVE_BUFFER_BYTES / 2));
        Ok(())
    }

    fn take_frame(&self, frame: &Frame, inbox: &Inbox) -> Result<(), LinkError> {
        let message = wire::decode(frame, self.terms.version, self.terms.shard)?;
        let event = TransportEvent::Received {
            from: self.terms.peer,
            incarnation: self.terms.incarnation,
            message,
        };
        self.shares.lost.set(false);
        inbox.push(self.terms.path, event, &self.credit, frame.header.length);
        Ok(())
    }
}

/// The first `end` bytes of `buffer`, which keeps the rest. Many bytes go with their memory.
fn split_front(buffer: &mut Vec<u8>, end: usize) -> Bytes {
    if end <= COPIED_OUT_BYTES_MAX && buffer.capacity() <= 2 * PEER_RECEIVE_BUFFER_BYTES {
        let whole = Bytes::copy_from_slice(&buffer[..end]);
        buffer.drain(..end);
        return whole;
    }
    let mut rest = Vec::with_capacity(PEER_RECEIVE_BUFFER_BYTES.max(buffer.len() - end));
    rest.extend_from_slice(&buffer[end..]);
    buffer.truncate(end);
    Bytes::from(std::mem::replace(buffer, rest))
}
