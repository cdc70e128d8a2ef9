//! One call on an HTTP/2 connection: what it waits for, and how its answer leaves.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::edge::{Edge, GRPC_CONTENT_TYPE};
use super::grpc::{self, Assembler, Head, RefusedHead};
use super::large::Large;
use super::method::Method;
use super::range_stream::Pager;
use super::status::{self, Status};
use crate::base::Instant;
use crate::keyspace::request::RangeRequest;
use crate::shard::event::Request;

/// A call that did not end in the turn it began.
pub(super) struct Call {
    /// Tells successive calls in one slot apart.
    pub(super) generation: u16,
    /// What it waits for.
    pub(super) state: State,
    /// When the client gives up, if it said so.
    pub(super) deadline: Option<Instant>,
    /// When something last moved.
    pub(super) touched: Instant,
    /// Bytes counted for it in the budgets.
    pub(super) held_bytes: u64,
    /// It is in one of the lines of calls that wait for their share of a turn.
    pub(super) in_line: bool,
    /// Puts this call on its connection's list; made when first needed.
    pub(super) waker: Option<Waker>,
}

/// What a call waits for.
pub(super) enum State {
    /// Its message.
    Receiving(Box<Receiving>),
    /// The word of a shard that there is a leader.
    Confirming(Box<Confirming>),
    /// A shard's answer to a unary call.
    Waiting(Responder, Method),
    /// Turns, to add up the size of its large answer.
    Measuring(Box<Measuring>),
    /// Room for its only answer.
    Sending(Outgoing),
    /// A streamed read: a page, or room for one.
    Paging(Box<Paging>),
    /// The end of the server, or of the client's interest.
    Watching(Outgoing),
}

/// The way back of a call whose response has not begun.
pub(super) struct Responder {
    stream: SendResponse<Bytes>,
    /// The response's content type, when it is not the plain one.
    content_type: Option<HeaderValue>,
}

impl Responder {
    /// For a call with these request headers.
    pub(super) fn new(stream: SendResponse<Bytes>, request: &HeaderMap) -> Responder {
        let content_type = request.get(header::CONTENT_TYPE);
        Responder {
            stream,
            content_type: content_type.and_then(grpc::response_content_type),
        }
    }

    /// Whether the client has given the call up.
    pub(super) fn is_reset(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.stream.poll_reset(&mut cx).is_ready()
    }

    /// Gives the call up.
    pub(super) fn send_reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}

/// A message that is not whole.
pub(super) struct Receiving {
    pub(super) head: Head,
    pub(super) body: RecvStream,
    pub(super) message: Assembler,
    pub(super) respond: Responder,
}

/// What a client asks.
pub(super) enum Asked {
    /// For one answer.
    Answer(Request),
    /// For a streamed read.
    Pages(RangeRequest),
}

/// A question that is asked only if there is a leader.
pub(super) struct Confirming {
    pub(super) method: Method,
    pub(super) asked: Asked,
    /// The size of its message, in bytes.
    pub(super) size: u64,
    pub(super) respond: Responder,
}

/// A large answer whose size is not known yet.
pub(super) struct Measuring {
    pub(super) large: Large,
    pub(super) respond: Responder,
}

/// A streamed read.
pub(super) struct Paging {
    pub(super) pager: Pager,
    /// Until the first piece leaves.
    pub(super) respond: Responder,
    /// From then on.
    pub(super) outgoing: Option<Outgoing>,
    /// The shard has been asked for a page and has not answered.
    pub(super) asking: bool,
    /// What to ask when the present piece has left; none: it is the last.
    pub(super) next: Option<RangeRequest>,
}

/// How far an answer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it is with HTTP/2.
    Done,
    /// The client's window is full; the call's waker knows when it opens.
    Blocked,
    /// This turn's share is used up.
    NoRoom,
    /// The next piece of a large answer is for another turn.
    NoPiece,
    /// The client has gone.
    Gone,
}

/// A response that has begun, and the part of its body that has not left.
pub(super) struct Outgoing {
    stream: SendStream<Bytes>,
    frame: Bytes,
    /// What follows `frame` and is not encoded.
    rest: Option<Large>,
}

impl Outgoing {
    /// Sends the response's headers; none when the client has gone.
    pub(super) fn begin(edge: &Edge, respond: &mut Responder, frame: Bytes) -> Option<Outgoing> {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        *headers = edge.response_headers.clone();
        if let Some(content_type) = respond.content_type.take() {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        let stream = respond.stream.send_response(response, false).ok()?;
        Some(Outgoing {
            stream,
            frame,
            rest: None,
        })
    }

    /// The same for a large answer that has been measured.
    pub(super) fn begin_large(
        edge: &Edge,
        respond: &mut Responder,
        large: Large,
    ) -> Option<Outgoing> {
        let outgoing = Outgoing::begin(edge, respond, Bytes::new())?;
        Some(Outgoing {
            rest: Some(large),
            ..outgoing
        })
    }

    /// Puts the next message behind an empty body.
    pub(super) fn refill(&mut self, frame: Bytes) {
        debug_assert!(self.frame.is_empty(), "one message at a time");
        self.frame = frame;
    }

    /// Memory that goes when the rest has left.
    pub(super) fn held_bytes(&self) -> u64 {
        let rest = self.rest.as_ref().map_or(0, Large::held_bytes);
        (self.frame.len() + rest) as u64
    }

    /// Hands over as much as the client's window and `room` allow, and encodes at most `pieces` pieces
    /// of a large answer for it. Both shrink by what was used.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut usize,
        pieces: &mut u32,
    ) -> Sent {
        loop {
            let sent = self.poll_send_frame(cx, room);
            match &mut self.rest {
                Some(rest) if sent == Sent::Done => {
                    if *pieces == 0 {
                        return Sent::NoPiece;
                    }
                    *pieces -= 1;
                    self.frame = rest.next_piece();
                    if rest.left_bytes() == 0 {
                        self.rest = None;
                    }
                }
                _ => return sent,
            }
        }
    }

    fn poll_send_frame(&mut self, cx: &mut Context<'_>, room: &mut usize) -> Sent {
        while !self.frame.is_empty() {
            if *room == 0 {
                return Sent::NoRoom;
            }
            self.stream.reserve_capacity(self.frame.len());
            let mut capacity = self.stream.capacity();
            if capacity == 0 {
                capacity = match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(capacity))) => capacity,
                    Poll::Ready(Some(Err(_)) | None) => return Sent::Gone,
                    Poll::Pending => return Sent::Blocked,
                };
            }
            let size = capacity.min(self.frame.len()).min(*room);
            if size == 0 {
                continue;
            }
            *room -= size;
            if self
                .stream
                .send_data(self.frame.split_to(size), false)
                .is_err()
            {
                return Sent::Gone;
            }
        }
        Sent::Done
    }

    /// Ends the call. A client that has gone does not mind.
    pub(super) fn finish(mut self, edge: &Edge, status: &Status) {
        let trailers = if *status == status::OK {
            edge.ok_trailers.clone()
        } else {
            grpc::trailers(status)
        };
        let _ = self.stream.send_trailers(trailers);
    }

    /// Whether the client has reset the stream; otherwise the waker learns of it.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.poll_reset(cx).is_ready()
    }

    /// Gives the call up.
    pub(super) fn reset(mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}

/// Ends a call that has sent nothing yet with its status alone.
pub(super) fn refuse(mut respond: Responder, status: &Status) {
    send_head(&mut respond, StatusCode::OK, status);
}

/// Ends a call whose headers were refused.
pub(super) fn refuse_head(mut respond: Responder, refused: &RefusedHead) {
    send_head(&mut respond, refused.http_status, &refused.status);
}

fn send_head(respond: &mut Responder, http_status: StatusCode, status: &Status) {
    let mut headers: HeaderMap = grpc::trailers(status);
    let content_type = respond.content_type.take();
    headers.insert(
        header::CONTENT_TYPE,
        content_type.unwrap_or(GRPC_CONTENT_TYPE),
    );
    let mut response = Response::new(());
    *response.status_mut() = http_status;
    *response.headers_mut() = headers;
    // A client that has gone does not mind.
    let _ = respond.stream.send_response(response, true);
}
