//! One HTTP/2 connection of a gRPC client, without its socket.
//!
//! Owns the streams, both directions' windows and what waits to be sent. Says what happened through [`Event`]s,
//! in the order of arrival. After a [`Fault`] only [`Connection::fail`] may be called.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use super::frame::{self, Frame, flag, kind, reason, setting};
use super::hpack::{Decoder, Encoder, Head};
use super::{HEADER_LIST_BYTES_MAX, MESSAGE_BYTES_MAX, UNSENT_BYTES_MAX};

/// What a server may send on one stream before it must wait for us.
const STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// The same for the whole connection.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// HTTP/2's initial window, until the other side says otherwise.
const DEFAULT_WINDOW_BYTES: i64 = 65_535;
/// The largest window there may be.
const WINDOW_BYTES_MAX: i64 = 0x7fff_ffff;
/// The largest payload we send, even if the server would take more.
const SENT_PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// The last stream of a connection: the next number would not fit.
const STREAM_MAX: u32 = 0x7fff_fffd;
/// Bytes of gRPC's prefix of a message: compression flag and length.
const PREFIX_BYTES: usize = 5;

/// gRPC's codes that this side gives.
mod code {
    pub(super) const CANCELLED: u32 = 1;
    pub(super) const UNKNOWN: u32 = 2;
    pub(super) const PERMISSION_DENIED: u32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(super) const UNIMPLEMENTED: u32 = 12;
    pub(super) const INTERNAL: u32 = 13;
    pub(super) const UNAVAILABLE: u32 = 14;
    pub(super) const UNAUTHENTICATED: u32 = 16;
}

/// The methods that are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// KV.Put.
    Put,
    /// KV.Range.
    Range,
    /// KV.DeleteRange.
    DeleteRange,
    /// KV.Txn.
    Txn,
    /// Watch.Watch, a stream of messages both ways.
    Watch,
    /// Lease.LeaseGrant.
    LeaseGrant,
    /// Lease.LeaseRevoke.
    LeaseRevoke,
    /// Lease.LeaseKeepAlive, a stream of messages both ways.
    LeaseKeepAlive,
    /// Maintenance.Status.
    Status,
    /// Cluster.MemberList.
    MemberList,
}

impl Method {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// The path of the request.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Method::Put => "/etcdserverpb.KV/Put",
            Method::Range => "/etcdserverpb.KV/Range",
            Method::DeleteRange => "/etcdserverpb.KV/DeleteRange",
            Method::Txn => "/etcdserverpb.KV/Txn",
            Method::Watch => "/etcdserverpb.Watch/Watch",
            Method::LeaseGrant => "/etcdserverpb.Lease/LeaseGrant",
            Method::LeaseRevoke => "/etcdserverpb.Lease/LeaseRevoke",
            Method::LeaseKeepAlive => "/etcdserverpb.Lease/LeaseKeepAlive",
            Method::Status => "/etcdserverpb.Maintenance/Status",
            Method::MemberList => "/etcdserverpb.Cluster/MemberList",
        }
    }
}

/// What all calls of a connection share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOptions {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host and port.
    pub authority: String,
    /// What the server is told about the caller's patience, as gRPC writes it: `5000m`.
    pub timeout: Option<String>,
}

/// What arrived. A token is the caller's name of a call, given with [`Connection::start`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The server said its settings: it speaks HTTP/2.
    Ready,
    /// One message of an answer, whole.
    Message(u64, &'a [u8]),
    /// The call is over.
    Ended(u64, End),
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With gRPC's OK.
    Ok,
    /// With another gRPC status, which the server itself gave.
    Status(u32, String),
    /// Without a gRPC status: the call was reset, or what came is no answer of gRPC. The code is what gRPC's clients
    /// make of that. The call may or may not have taken effect.
    NoStatus(u32, String),
    /// The server said before any processing that it does not take the call: it has no effect.
    NotTaken(String),
    /// The connection ended first: the call may or may not have taken effect.
    Broken(String),
}

/// Whether a call was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// On this stream.
    On(u32),
    /// Not: as many streams as the server admits are open, or too much waits to be sent.
    Later,
}

/// The connection is of no use any more; the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

#[derive(Debug)]
struct Stream {
    token: u64,
    /// A watch: it lasts as long as the connection, and nobody waits for its end.
    lasting: bool,
    send_window: i64,
    /// What the windows did not let go yet, framed for gRPC.
    unsent: Vec<u8>,
    /// Nothing follows what is unsent.
    last: bool,
    /// The beginning of a message that arrived in parts.
    partial: Vec<u8>,
    /// Arrived since the server's window was last raised.
    consumed: u32,
    /// What the head of the answer said is wrong, to be told at its end.
    refused: Option<End>,
}

/// The protocol's state.
#[derive(Debug)]
pub struct Connection {
    encoder: Encoder,
    decoder: Decoder,
    streams: HashMap<u32, Stream, FixedState>,
    next_stream: u32,
    /// To be sent, in order.
    out: Vec<u8>,
    /// Bytes of a frame that has not arrived whole.
    partial: Vec<u8>,
    /// A header block whose end has not arrived: stream, flags of its HEADERS, what there is.
    block: Option<(u32, u8, Vec<u8>)>,
    /// Streams with something unsent, oldest first.
    blocked: VecDeque<u32>,
    send_window: i64,
    /// Arrived since the server's window was last raised.
    consumed: u32,
    peer_window: i64,
    peer_payload_bytes_max: usize,
    peer_streams_max: usize,
    ready: bool,
    /// It takes no further calls, for this reason.
    going: Option<String>,
}

impl Connection {
    /// A new connection; its preface waits to be sent.
    #[must_use]
    pub fn new(options: &CallOptions) -> Connection {
        let mut out = Vec::with_capacity(super::READ_BYTES);
        out.extend_from_slice(frame::PREFACE);
        frame::put_settings(
            &mut out,
            &[
                (setting::ENABLE_PUSH, 0),
                (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES),
            ],
        );
        let raise = CONNECTION_WINDOW_BYTES - DEFAULT_WINDOW_BYTES as u32;
        frame::put_number(&mut out, kind::WINDOW_UPDATE, 0, raise);
        Connection {
            encoder: Encoder::new(options.scheme, &options.authority, options.timeout.clone()),
            decoder: Decoder::new(),
            streams: HashMap::with_hasher(FixedState::default()),
            next_stream: 1,
            out,
            partial: Vec::new(),
            block: None,
            blocked: VecDeque::new(),
            send_window: DEFAULT_WINDOW_BYTES,
            consumed: 0,
            peer_window: DEFAULT_WINDOW_BYTES,
            peer_payload_bytes_max: frame::PAYLOAD_BYTES_MAX,
            peer_streams_max: usize::MAX,
            ready: false,
            going: None,
        }
    }

    /// Whether the server has said its settings.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Calls without an end.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.streams.len()
    }

    /// What waits to be sent. The caller takes off the front what it has sent.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether [`Connection::start`] would start a call.
    #[must_use]
    pub fn takes_calls(&self) -> bool {
        self.going.is_none()
            && self.streams.len() < self.peer_streams_max
            && self.out.len() < UNSENT_BYTES_MAX
    }

    /// Starts a call with its first message, of which `last` says that it is the only one.
    pub fn start(&mut self, method: Method, message: &[u8], last: bool, token: u64) -> Started {
        if !self.takes_calls() {
            return Started::Later;
        }
        let id = self.next_stream;
        self.next_stream += 2;
        let head = self.out.len();
        frame::put_header(&mut self.out, 0, kind::HEADERS, flag::END_HEADERS, id);
        let block = self.out.len();
        self.encoder.encode(method, &mut self.out);
        let block_bytes = self.out.len() - block;
        // Methods and addresses are short: a head never needs a second frame.
        debug_assert!(block_bytes <= frame::PAYLOAD_BYTES_MAX);
        self.out[head + 1] = (block_bytes >> 8) as u8;
        self.out[head + 2] = block_bytes as u8;
        let mut stream = Stream {
            token,
            lasting: method == Method::Watch,
            send_window: self.peer_window,
            unsent: Vec::new(),
            last,
            partial: Vec::new(),
            consumed: 0,
            refused: None,
        };
        let size = PREFIX_BYTES + message.len();
        let fits = size as i64 <= self.send_window.min(stream.send_window)
            && size <= self.peer_payload_bytes_max
            && self.blocked.is_empty();
        if fits {
            let flags = if last { flag::END_STREAM } else { 0 };
            frame::put_header(&mut self.out, size, kind::DATA, flags, id);
            put_message(&mut self.out, message);
            self.send_window -= size as i64;
            stream.send_window -= size as i64;
            self.streams.insert(id, stream);
        } else {
            put_message(&mut stream.unsent, message);
            self.streams.insert(id, stream);
            self.blocked.push_back(id);
            self.send_blocked();
        }
        if self.next_stream > STREAM_MAX {
            self.retire("all streams of the connection are used up".into());
        }
        Started::On(id)
    }

    /// Starts nothing more. Streams of questions are told that no further one comes, so that they end with their
    /// last answer; watches go on until they are all that is left.
    fn retire(&mut self, why: String) {
        let mut asking: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.last && !stream.lasting)
            .map(|(id, _)| *id)
            .collect();
        asking.sort_unstable();
        for id in asking {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            // What is unsent takes the end with it.
            stream.last = true;
            if stream.unsent.is_empty() {
                frame::put_header(&mut self.out, 0, kind::DATA, flag::END_STREAM, id);
            }
        }
        self.going = Some(why);
    }

    /// Sends a further message on a call that was not started with its last one. Does nothing on a call that is over, or after
    /// the connection has stopped to take calls.
    pub fn send(&mut self, id: u32, message: &[u8]) {
        let open = self.streams.get_mut(&id).filter(|stream| !stream.last);
        let Some(stream) = open else {
            return;
        };
        if stream.unsent.is_empty() {
            self.blocked.push_back(id);
        }
        put_message(&mut stream.unsent, message);
        self.send_blocked();
    }

    /// Gives up a call. Nothing more is heard of it.
    pub fn cancel(&mut self, id: u32) {
        if self.streams.remove(&id).is_some() {
            frame::put_number(&mut self.out, kind::RST_STREAM, id, reason::CANCEL);
        }
    }

    /// Ends all calls, because the connection has ended for `cause`.
    pub fn fail(&mut self, cause: &str, sink: &mut impl FnMut(Event<'_>)) {
        let mut ids: Vec<u32> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.end(id, End::Broken(cause.to_owned()), sink);
        }
    }

    /// Takes what arrived.
    ///
    /// # Errors
    /// When the server breaks the protocol, or when the connection takes no further calls and none is left that
    /// anybody waits for: watches must find a new connection.
    pub fn receive(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        if self.partial.is_empty() {
            let taken = self.frames(bytes, sink)?;
            self.partial.extend_from_slice(&bytes[taken..]);
        } else {
            let mut joined = std::mem::take(&mut self.partial);
            joined.extend_from_slice(bytes);
            let taken = self.frames(&joined, sink)?;
            joined.drain(..taken);
            self.partial = joined;
        }
        if self.out.len() > 2 * UNSENT_BYTES_MAX {
            return Err(Fault("the server reads less than it asks for".into()));
        }
        match &self.going {
            Some(why) if self.streams.values().all(|stream| stream.lasting) => {
                Err(Fault(why.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Handles all whole frames at the front of `bytes` and says how long they are.
    fn frames(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Fault> {
        let mut taken = 0;
        while let Some((frame, size)) = Frame::parse(&bytes[taken..]).map_err(broke)? {
            self.frame(&frame, sink)?;
            taken += size;
        }
        Ok(taken)
    }

    fn frame(&mut self, frame: &Frame<'_>, sink: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        if self.block.is_some() && frame.kind != kind::CONTINUATION {
            return Err(broke("a frame inside a header block"));
        }
        if !self.ready && frame.kind != kind::SETTINGS {
            return Err(broke("the first frame is not SETTINGS"));
        }
        match frame.kind {
            kind::DATA => self.data(frame, sink),
            kind::HEADERS => {
                let content = frame
                    .content()
                    .ok_or_else(|| broke("padding that does not fit"))?;
                if frame.has(flag::END_HEADERS) {
                    return self.head(frame.stream, frame.flags, content, sink);
                }
                self.block = Some((frame.stream, frame.flags, content.to_vec()));
                Ok(())
            }
            kind::CONTINUATION => {
                let Some((stream, flags, mut block)) = self.block.take() else {
                    return Err(broke("CONTINUATION of nothing"));
                };
                block.extend_from_slice(frame.payload);
                if stream != frame.stream || block.len() > HEADER_LIST_BYTES_MAX {
                    return Err(broke("a header block without end"));
                }
                if frame.has(flag::END_HEADERS) {
                    return self.head(stream, flags, &block, sink);
                }
                self.block = Some((stream, flags, block));
                Ok(())
            }
            kind::RST_STREAM => {
                let code = frame
                    .number()
                    .ok_or_else(|| broke("RST_STREAM of a wrong size"))?;
                self.end(frame.stream, reset(code), sink);
                Ok(())
            }
            kind::SETTINGS => self.settings(frame, sink),
            kind::PUSH_PROMISE => Err(broke("PUSH_PROMISE, which was not allowed")),
            kind::PING => {
                if frame.payload.len() != 8 {
                    return Err(broke("PING of a wrong size"));
                }
                if !frame.has(flag::ACK) {
                    frame::put_header(&mut self.out, 8, kind::PING, flag::ACK, 0);
                    self.out.extend_from_slice(frame.payload);
                }
                Ok(())
            }
            kind::GOAWAY => self.goaway(frame.payload, sink),
            kind::WINDOW_UPDATE => self.window_update(frame),
            // PRIORITY, and whatever comes after our time, is ignored.
            _ => Ok(()),
        }
    }

    fn data(&mut self, frame: &Frame<'_>, sink: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let mut content = frame
            .content()
            .ok_or_else(|| broke("padding that does not fit"))?;
        let size = frame.payload.len() as u32;
        self.consumed += size;
        if self.consumed >= CONNECTION_WINDOW_BYTES / 2 {
            frame::put_number(&mut self.out, kind::WINDOW_UPDATE, 0, self.consumed);
            self.consumed = 0;
        }
        // A call that was given up still has data on its way.
        let Some(stream) = self.streams.get_mut(&frame.stream) else {
            return Ok(());
        };
        stream.consumed += size;
        if stream.consumed >= STREAM_WINDOW_BYTES / 2 {
            frame::put_number(
                &mut self.out,
                kind::WINDOW_UPDATE,
                frame.stream,
                stream.consumed,
            );
            stream.consumed = 0;
        }
        let mut failed = None;
        if stream.partial.is_empty() {
            failed = messages(stream.token, &mut content, sink).err();
            stream.partial.extend_from_slice(content);
        } else {
            stream.partial.extend_from_slice(content);
            let joined = std::mem::take(&mut stream.partial);
            let mut rest = joined.as_slice();
            // Looking at the prefix again for each part of a long message costs nothing.
            failed = failed.or(messages(stream.token, &mut rest, sink).err());
            if rest.len() == joined.len() {
                stream.partial = joined;
            } else {
                stream.partial.extend_from_slice(rest);
            }
        }
        if let Some(end) = failed {
            frame::put_number(
                &mut self.out,
                kind::RST_STREAM,
                frame.stream,
                reason::CANCEL,
            );
            self.end(frame.stream, end, sink);
        } else if frame.has(flag::END_STREAM) {
            let end = End::NoStatus(code::INTERNAL, "the answer ended without a status".into());
            self.end(frame.stream, end, sink);
        }
        Ok(())
    }

    fn head(
        &mut self,
        id: u32,
        flags: u8,
        block: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        // Also for a call that was given up: the table must stay in step.
        let head = self
            .decoder
            .decode(block)
            .map_err(|_| broke("a head that cannot be read"))?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if flags & flag::END_STREAM == 0 {
            stream.refused = refused_by_http(&head);
            return Ok(());
        }
        let end = match head.grpc_status {
            Some(0) => End::Ok,
            Some(code) => End::Status(
                code,
                percent_decoded(head.grpc_message.as_deref().unwrap_or_default()),
            ),
            None => stream
                .refused
                .take()
                .or_else(|| refused_by_http(&head))
                .unwrap_or_else(|| {
                    End::NoStatus(code::UNKNOWN, "the answer ended without a status".into())
                }),
        };
        self.end(id, end, sink);
        Ok(())
    }

    fn settings(
        &mut self,
        frame: &Frame<'_>,
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        if frame.has(flag::ACK) {
            return Ok(());
        }
        let (settings, rest) = frame.payload.as_chunks::<6>();
        if !rest.is_empty() || frame.stream != 0 {
            return Err(broke("SETTINGS of a wrong size"));
        }
        for [id0, id1, value @ ..] in settings {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*id0, *id1]) {
                setting::HEADER_TABLE_SIZE => self.encoder.limit_table(value as usize),
                setting::MAX_CONCURRENT_STREAMS => self.peer_streams_max = value as usize,
                setting::INITIAL_WINDOW_SIZE => {
                    let window = i64::from(value);
                    if window > WINDOW_BYTES_MAX {
                        return Err(broke("a window larger than there is"));
                    }
                    let change = window - self.peer_window;
                    self.peer_window = window;
                    for stream in self.streams.values_mut() {
                        stream.send_window += change;
                    }
                }
                setting::MAX_FRAME_SIZE => {
                    self.peer_payload_bytes_max =
                        (value as usize).clamp(frame::PAYLOAD_BYTES_MAX, SENT_PAYLOAD_BYTES_MAX);
                }
                _ => {}
            }
        }
        frame::put_header(&mut self.out, 0, kind::SETTINGS, flag::ACK, 0);
        self.send_blocked();
        if !std::mem::replace(&mut self.ready, true) {
            sink(Event::Ready);
        }
        Ok(())
    }

    fn goaway(&mut self, payload: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let Some((numbers, said)) = payload.split_first_chunk::<8>() else {
            return Err(broke("GOAWAY of a wrong size"));
        };
        let [a, b, c, d, code @ ..] = *numbers;
        let last = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
        let code = u32::from_be_bytes(code);
        let said = String::from_utf8_lossy(&said[..said.len().min(200)]).into_owned();
        let why = match code {
            reason::NO_ERROR => format!("the server says farewell {said}")
                .trim_end()
                .to_owned(),
            code => format!("the server ends the connection with HTTP/2 error {code} {said}")
                .trim_end()
                .to_owned(),
        };
        let mut excluded: Vec<u32> = self
            .streams
            .keys()
            .copied()
            .filter(|id| *id > last)
            .collect();
        excluded.sort_unstable();
        for id in excluded {
            self.end(id, End::NotTaken(why.clone()), sink);
        }
        if code != reason::NO_ERROR {
            return Err(Fault(why));
        }
        self.retire(why);
        Ok(())
    }

    fn window_update(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        let raise = frame
            .number()
            .ok_or_else(|| broke("WINDOW_UPDATE of a wrong size"))?;
        let raise = i64::from(raise & 0x7fff_ffff);
        let window = if frame.stream == 0 {
            Some(&mut self.send_window)
        } else {
            // It may come for a call that is over.
            self.streams
                .get_mut(&frame.stream)
                .map(|stream| &mut stream.send_window)
        };
        if let Some(window) = window {
            *window += raise;
            if *window > WINDOW_BYTES_MAX {
                return Err(broke("a window larger than there is"));
            }
        }
        if !self.blocked.is_empty() {
            self.send_blocked();
        }
        Ok(())
    }

    /// Sends what waits for windows, as far as they go, oldest call first.
    fn send_blocked(&mut self) {
        for _ in 0..self.blocked.len() {
            let Some(id) = self.blocked.pop_front() else {
                return;
            };
            // A call that ended takes its unsent rest with it.
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let mut sent = 0;
            while sent < stream.unsent.len() {
                let window = self.send_window.min(stream.send_window).max(0) as usize;
                let rest = stream.unsent.len() - sent;
                let size = rest.min(window).min(self.peer_payload_bytes_max);
                if size == 0 {
                    break;
                }
                let flags = if stream.last && size == rest {
                    flag::END_STREAM
                } else {
                    0
                };
                frame::put_header(&mut self.out, size, kind::DATA, flags, id);
                self.out
                    .extend_from_slice(&stream.unsent[sent..sent + size]);
                self.send_window -= size as i64;
                stream.send_window -= size as i64;
                sent += size;
            }
            stream.unsent.drain(..sent);
            if !stream.unsent.is_empty() {
                self.blocked.push_back(id);
            }
        }
    }

    fn end(&mut self, id: u32, end: End, sink: &mut impl FnMut(Event<'_>)) {
        if let Some(stream) = self.streams.remove(&id) {
            sink(Event::Ended(stream.token, end));
        }
    }
}

/// Hands on the whole messages at the front of `content` and takes them off.
fn messages(token: u64, content: &mut &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), End> {
    while let Some(([compressed, size @ ..], rest)) = content.split_first_chunk::<PREFIX_BYTES>() {
        let size = u32::from_be_bytes(*size) as usize;
        if *compressed != 0 {
            let why = "a compressed message, which was not asked for";
            return Err(End::NoStatus(code::INTERNAL, why.into()));
        }
        if size > MESSAGE_BYTES_MAX {
            let why = format!("a message of {size} bytes");
            return Err(End::NoStatus(code::RESOURCE_EXHAUSTED, why));
        }
        let Some((message, rest)) = rest.split_at_checked(size) else {
            break;
        };
        *content = rest;
        sink(Event::Message(token, message));
    }
    Ok(())
}

fn put_message(out: &mut Vec<u8>, message: &[u8]) {
    out.push(0);
    // Requests are bounded far below 4 GiB.
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
}

/// What an HTTP status other than 200 means to a gRPC client.
fn refused_by_http(head: &Head) -> Option<End> {
    let status = head.http_status?;
    let code = match status {
        200 => return None,
        400 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        429 | 502..=504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    };
    Some(End::NoStatus(code, format!("HTTP status {status}")))
}

/// What a reset of a stream means to a gRPC client.
fn reset(code: u32) -> End {
    let text = format!("the server reset the stream with HTTP/2 error {code}");
    match code {
        reason::REFUSED_STREAM => End::NotTaken(text),
        reason::CANCEL => End::NoStatus(code::CANCELLED, text),
        reason::ENHANCE_YOUR_CALM => End::NoStatus(code::RESOURCE_EXHAUSTED, text),
        reason::INADEQUATE_SECURITY => End::NoStatus(code::PERMISSION_DENIED, text),
        _ => End::NoStatus(code::INTERNAL, text),
    }
}

fn broke(what: &str) -> Fault {
    Fault(format!(
        "the server breaks HTTP/2 (error {}): {what}",
        reason::PROTOCOL_ERROR
    ))
}

/// gRPC's messages are percent-encoded in the header; what is no encoding stays as it is.
fn percent_decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let coded = after.get(..2).filter(|_| *first == b'%');
        let digits = coded.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a connection whose streams are used up ends with its last call, although a watch is open, so that a new
    /// one takes its place.
    #[test]
    fn used_up() {
        let mut connection = Connection::new(&CallOptions {
            scheme: "http",
            authority: "127.0.0.1:2379".into(),
            timeout: None,
        });
        let mut settings = Vec::new();
        frame::put_settings(&mut settings, &[]);
        assert_eq!(connection.receive(&settings, &mut |_| {}), Ok(()));
        connection.start(Method::Watch, b"", false, 1);
        connection.next_stream = STREAM_MAX;
        let last = Started::On(STREAM_MAX);
        assert_eq!(connection.start(Method::Put, b"", true, 2), last);
        let later = Started::Later;
        assert_eq!(connection.start(Method::Put, b"", true, 3), later);
        assert_eq!(connection.receive(&[], &mut |_| {}), Ok(()));
        let mut end = Vec::new();
        frame::put_number(&mut end, kind::RST_STREAM, STREAM_MAX, reason::CANCEL);
        assert!(connection.receive(&end, &mut |_| {}).is_err());
    }
}
