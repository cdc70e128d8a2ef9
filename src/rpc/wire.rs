//! One client's socket behind buffers: large reads, and one write per turn.
//!
//! HTTP/2 reads and writes in small steps, each of which would be a system call. Here writes only
//! append, flushing is put off until the connection's turn ends, and reads fill 64 KiB at once. Above a
//! bound of unsent bytes writes pend, so a client that does not read stops its own connection. Buffers
//! are borrowed from the core while there is something in them: an idle connection holds none.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};
use tokio::io::ReadBuf;

use super::edge::Edge;
use super::frames::FrameWalker;
use crate::base::limits::{EDGE_OUTPUT_BYTES_MAX, EDGE_TURN_READ_BYTES_MAX};

/// The buffered socket of one connection.
pub(super) struct Wire<IO> {
    io: IO,
    edge: Rc<Edge>,
    /// Read and not yet consumed: `input[consumed..filled]`.
    input: Box<[u8]>,
    consumed: usize,
    filled: usize,
    /// The client has said its last.
    ended: bool,
    /// Read in this turn, in bytes.
    turn_read: usize,
    /// Read since the connection began, in bytes.
    pub(super) read_total: u64,
    /// Written and not yet sent: `output[sent..]`.
    output: Vec<u8>,
    sent: usize,
    /// Sent since the connection began, in bytes.
    pub(super) sent_total: u64,
    /// The last write was told to wait: a frame may be half appended.
    refused: bool,
    /// Reads the headers of the client's frames as HTTP/2 takes them, once the protocol is known.
    pub(super) incoming: Option<FrameWalker>,
    /// The same for our frames, as HTTP/2 writes them.
    pub(super) outgoing: Option<FrameWalker>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    pub(super) fn new(io: IO, edge: Rc<Edge>) -> Wire<IO> {
        Wire {
            io,
            edge,
            input: Box::default(),
            consumed: 0,
            filled: 0,
            ended: false,
            turn_read: 0,
            read_total: 0,
            output: Vec::new(),
            sent: 0,
            sent_total: 0,
            refused: false,
            incoming: None,
            outgoing: None,
        }
    }

    /// A new turn: the socket may be read again up to the turn's bound.
    pub(super) fn begin_turn(&mut self) {
        self.turn_read = 0;
    }

    /// What has been read and not consumed.
    pub(super) fn unread(&self) -> &[u8] {
        &self.input[self.consumed..self.filled]
    }

    /// Reads more behind what is unread. Ready with false at the end of the stream.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        if self.turn_read >= EDGE_TURN_READ_BYTES_MAX {
            // Others first; this connection comes again at once.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.input.is_empty() {
            self.input = self.edge.buffers.take_input();
        }
        if self.filled == self.input.len() {
            let limit = "more unread bytes than the read buffer holds";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, limit)));
        }
        let read = match Pin::new(&mut self.io).poll_read(cx, &mut self.input[self.filled..]) {
            Poll::Ready(Ok(read)) => read,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                self.release_input();
                return Poll::Pending;
            }
        };
        self.filled += read;
        self.turn_read += read;
        self.read_total += read as u64;
        self.ended = read == 0;
        Poll::Ready(Ok(read != 0))
    }

    /// Reads when nothing is unread. Ready with nothing unread only at the end of the stream.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unread().is_empty() {
            ready!(self.poll_more(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn consume(&mut self, count: usize) {
        if let Some(incoming) = &mut self.incoming {
            incoming.walk(&self.input[self.consumed..self.consumed + count]);
        }
        self.consumed += count;
        if self.consumed == self.filled {
            self.consumed = 0;
            self.filled = 0;
        }
    }

    /// Gives the read buffer back while there is nothing in it.
    fn release_input(&mut self) {
        if self.filled == 0 && !self.input.is_empty() {
            self.edge
                .buffers
                .give_input(std::mem::take(&mut self.input));
        }
    }

    /// Bytes written and not sent.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether writers have to wait.
    pub(super) fn is_backed_up(&self) -> bool {
        self.unsent_bytes() >= EDGE_OUTPUT_BYTES_MAX
    }

    /// Whether a writer was told to wait since it last wrote.
    pub(super) fn has_refused(&self) -> bool {
        self.refused
    }

    /// Appends bytes behind the whole frames written so far; not while a frame may be half written.
    pub(super) fn append_frame(&mut self, frame: &[u8]) {
        if !self.refused {
            self.output.extend_from_slice(frame);
        }
    }

    fn poll_append(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_backed_up() {
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            if self.is_backed_up() {
                self.refused = true;
                return Poll::Pending;
            }
        }
        self.refused = false;
        if self.output.capacity() == 0 {
            self.output = self.edge.buffers.take_output();
        }
        let mut appended = 0;
        for slice in slices {
            self.output.extend_from_slice(slice);
            if let Some(outgoing) = &mut self.outgoing {
                outgoing.walk(slice);
            }
            appended += slice.len();
        }
        Poll::Ready(Ok(appended))
    }

    /// Sends what was written: one system call when the socket takes it all.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.output.len() {
            let sent = match Pin::new(&mut self.io).poll_write(cx, &self.output[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => sent,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // Sent bytes leave the front now, or the buffer would grow past its bound.
                    self.output.drain(..self.sent);
                    self.sent = 0;
                    return Poll::Pending;
                }
            };
            self.sent += sent;
            self.sent_total += sent as u64;
        }
        self.sent = 0;
        if self.output.capacity() > 0 {
            self.edge
                .buffers
                .give_output(std::mem::take(&mut self.output));
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is left and closes the socket's sending side.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// The wire as HTTP/2 sees it: flushing does nothing, since the turn's end does it.
pub(super) struct Pipe<IO>(pub(super) Rc<RefCell<Wire<IO>>>);

impl<IO: AsyncRead + AsyncWrite + Unpin> tokio::io::AsyncRead for Pipe<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        ready!(wire.poll_unread(cx))?;
        let count = wire.unread().len().min(into.remaining());
        into.put_slice(&wire.unread()[..count]);
        wire.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> tokio::io::AsyncWrite for Pipe<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_append(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_append(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        // Payloads then come here directly and are copied once.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_finish(cx)
    }
}

/// The wire as HTTP/1.1 sees it: a flush is a flush.
pub(super) struct Line<IO>(pub(super) Wire<IO>);

impl<IO: AsyncRead + AsyncWrite + Unpin> hyper::rt::Read for Line<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut self.0;
        wire.begin_turn();
        ready!(wire.poll_unread(cx))?;
        let count = wire.unread().len().min(into.remaining());
        into.put_slice(&wire.unread()[..count]);
        wire.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for Line<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_append(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_finish(cx)
    }
}
