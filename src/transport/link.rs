//! One connection whose two sides know each other: frames out, frames in.
//!
//! Owns the socket and the bytes under way. The shard's turn sends straight from here; when the kernel has no
//! room, a task goes on when it has. Everything received is checked, and a connection over which anything
//! came that does not hold is closed: what it would say next means nothing.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::hello::Path;
use super::inbox::{Credit, Inbox};
use super::outgoing::{Unsent, Waiting};
use super::wire::{self, WireError};
use super::{TransportConfig, TransportEvent};
use crate::base::limits::{
    PEER_FLUSH_BYTES_MAX, PEER_FRAME_GROWTH_BYTES_MIN, PEER_RECEIVE_BUFFER_BYTES,
    PEER_STRANGER_FRAME_BYTES_MAX, PEER_UNSENT_BYTES_MAX,
};
use crate::base::{Incarnation, MemberId, ShardId};
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader};
use crate::runtime::executor::{Queue, spawn_local, timeout, yield_if_needed};
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
    /// What was received begins a frame that is too long for a directory that is not known.
    #[error("the peer sends {length} bytes at once from a data directory that is not known yet")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A frame has begun and does not go on.
    #[error("the peer sent part of a message, and the rest does not come")]
    Stalled,
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
    pub(super) long_frame: LongFrame,
}

/// The place for the one frame that may be as long as any although its sender's directory is not known. A member that
/// leads from a new directory may have to send a long entry before the one that says so.
#[derive(Clone, Default)]
pub(super) struct LongFrame(Rc<Cell<bool>>);

/// Who has the place; dropping it gives it back.
struct LongFrameHeld(LongFrame);

impl LongFrame {
    fn take(&self) -> Option<LongFrameHeld> {
        (!self.0.replace(true)).then(|| LongFrameHeld(self.clone()))
    }
}

impl Drop for LongFrameHeld {
    fn drop(&mut self) {
        self.0.0.set(false);
    }
}

/// A connection to a peer.
pub(super) struct Link {
    pub(super) terms: LinkTerms,
    /// Whether messages go over this one: a peer may have connected to us while we connected to it.
    pub(super) in_use: Cell<bool>,
    /// Whether it comes from a member that is looked for, and from the directory that is known to be its own: less is
    /// held for one that anybody may have made up.
    pub(super) known: Cell<bool>,
    shares: LinkShares,
    sender: RefCell<Sender>,
    unsent: RefCell<Unsent>,
    /// Whether the task that waits for the kernel has the word.
    blocked: Cell<bool>,
    writer: RefCell<Option<Waker>>,
    closed: Cell<bool>,
    credit: Rc<Credit>,
    /// While such a frame is under way.
    long_frame: RefCell<Option<LongFrameHeld>>,
    frame_timeout: Duration,
}

impl Link {
    pub(super) fn new(
        terms: LinkTerms,
        sender: Sender,
        shares: LinkShares,
        config: &TransportConfig,
    ) -> Rc<Link> {
        Rc::new(Link {
            unsent: RefCell::new(Unsent::new(terms.version, terms.shard)),
            terms,
            in_use: Cell::new(false),
            known: Cell::new(false),
            shares,
            sender: RefCell::new(sender),
            blocked: Cell::new(false),
            writer: RefCell::new(None),
            closed: Cell::new(false),
            credit: Rc::new(Credit::new(config.received_bytes_max)),
            long_frame: RefCell::default(),
            frame_timeout: config.frame_timeout,
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
        self.long_frame.take();
        drop(writer);
        error
    }

    async fn read(&self, mut receiver: Receiver, mut buffer: Vec<u8>, inbox: &Inbox) -> LinkError {
        loop {
            self.credit.room().await;
            let received = match self.take_frames(&mut buffer, inbox) {
                Ok(0) => receive_some(&mut receiver, &mut buffer).await,
                Ok(missing_bytes) => {
                    self.receive_rest(&mut receiver, &mut buffer, missing_bytes)
                        .await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = received {
                return error;
            }
            yield_if_needed().await;
        }
    }

    /// Receives more of a frame that has begun: so much in a limited time that what is held for it does not wait for ever.
    async fn receive_rest(
        &self,
        receiver: &mut Receiver,
        buffer: &mut Vec<u8>,
        missing_bytes: usize,
    ) -> Result<(), LinkError> {
        let enough = buffer.len() + missing_bytes.min(PEER_FRAME_GROWTH_BYTES_MIN);
        let growing = async {
            while buffer.len() < enough {
                receive_some(receiver, buffer).await?;
            }
            Ok(())
        };
        let grown = timeout(self.frame_timeout, growing).await;
        grown.unwrap_or(Err(LinkError::Stalled))
    }

    /// Hands the whole frames of `buffer` to the shard, and makes room for the rest of the next one. How many bytes that
    /// one lacks, or its header, if it has begun; else zero.
    fn take_frames(&self, buffer: &mut Vec<u8>, inbox: &Inbox) -> Result<usize, LinkError> {
        let mut headers = Vec::new();
        let mut end = 0;
        let mut begun = None;
        let mut refused = None;
        while let Some(bytes) = buffer[end..].first_chunk::<FRAME_HEADER_BYTES>() {
            match FrameHeader::parse(bytes) {
                Ok(header) if header.length <= buffer.len() - end => {
                    headers.push((end, header));
                    end += header.length;
                }
                Ok(header) => {
                    begun = Some(header.length);
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
        self.check_begun(begun)?;
        let missing_bytes = match buffer.len() {
            0 => 0,
            there => begun.unwrap_or(FRAME_HEADER_BYTES) - there,
        };
        // At most the longest frame, whose header has been checked; usually no more than there is.
        buffer.reserve(missing_bytes.max(PEER_RECEIVE_BUFFER_BYTES / 2));
        Ok(missing_bytes)
    }

    /// Whether memory may be taken for a frame of this length that has begun.
    fn check_begun(&self, length: Option<usize>) -> Result<(), LinkError> {
        let length = length.unwrap_or(0);
        let mut held = self.long_frame.borrow_mut();
        if self.known.get() || length <= PEER_STRANGER_FRAME_BYTES_MAX {
            *held = None;
        } else if held.is_none() {
            let taken = self.terms.agreed.then(|| self.shares.long_frame.take());
            *held = Some(taken.flatten().ok_or(LinkError::TooLong { length })?);
        }
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

/// Receives what there is, something at least.
async fn receive_some(receiver: &mut Receiver, buffer: &mut Vec<u8>) -> Result<(), LinkError> {
    match receiver.receive(buffer).await? {
        0 => Err(LinkError::Closed),
        _ => Ok(()),
    }
}

/// The first `end` bytes of `buffer`, which keeps the rest. Many bytes go with their memory, but not with that of a longer
/// frame behind them: the shard may keep a part of them for long.
fn split_front(buffer: &mut Vec<u8>, end: usize) -> Bytes {
    if end <= COPIED_OUT_BYTES_MAX && buffer.capacity() <= 2 * PEER_RECEIVE_BUFFER_BYTES {
        let whole = Bytes::copy_from_slice(&buffer[..end]);
        buffer.drain(..end);
        return whole;
    }
    let mut rest = Vec::with_capacity(PEER_RECEIVE_BUFFER_BYTES.max(buffer.len() - end));
    rest.extend_from_slice(&buffer[end..]);
    buffer.truncate(end);
    if buffer.capacity() > 2 * end.max(PEER_RECEIVE_BUFFER_BYTES) {
        buffer.shrink_to_fit();
    }
    Bytes::from(std::mem::replace(buffer, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is handed on of a buffer that was made for a longer frame does not keep that memory.
    #[test]
    fn front_of_a_long_buffer() {
        for end in [100, COPIED_OUT_BYTES_MAX + 1] {
            let mut buffer = Vec::with_capacity(16 * PEER_RECEIVE_BUFFER_BYTES);
            buffer.resize(end, 1);
            buffer.extend([2; 50]);
            let front = split_front(&mut buffer, end);
            assert_eq!((&front[..], &buffer[..]), (&vec![1; end][..], &[2; 50][..]));
            let memory = front.try_into_mut().expect("nobody else has it").capacity();
            assert!(memory <= 2 * PEER_RECEIVE_BUFFER_BYTES, "{memory}");
        }
    }
}
