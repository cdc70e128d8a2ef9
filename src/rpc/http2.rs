//! One HTTP/2 connection: takes every request that is there, hands them on as one batch, answers what
//! has come back, and sends once.
//!
//! Runs on the core that accepted the connection, as one task; no call has a task of its own. Must never
//! wait for one call while others could go on, and never hold more than its budgets: a client that
//! floods, stalls or lies loses its connection or its call, and no other client notices.
//!
//! The HTTP/2 library answers pings by itself; `frames` counts them beside it. What cannot be done with
//! it: answer a ping late, or put text into a GOAWAY (the one for pings is therefore written here).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite};
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request as HttpRequest;
use slab::Slab;

use super::call::{self, Call, Outgoing, Paging, Receiving, Sent, State};
use super::edge::{Admission, Edge, count};
use super::frames::{self, FrameWalker, PingRule, ResetRule};
use super::grpc::{self, Assembler, Head};
use super::method::Method;
use super::pb::etcdserverpb::CompactionResponse;
use super::range_stream::{Pager, Step};
use super::status::{self, Status};
use super::wakes::Wakes;
use super::wire::{Pipe, Wire};
use super::{cluster, convert, health, kv, maintenance};
use crate::base::Instant;
use crate::base::limits::{
    EDGE_CONNECTION_HELD_BYTES_MAX, EDGE_CONNECTION_WINDOW_BYTES, EDGE_DRAIN_MS_MAX,
    EDGE_FIRST_BYTES_MS_MAX, EDGE_FRAME_BYTES_MAX, EDGE_HEADER_LIST_BYTES_MAX,
    EDGE_LOCAL_RESETS_MAX, EDGE_PENDING_RESETS_MAX, EDGE_STALL_MS_MAX, EDGE_STREAM_ERRORS_MAX,
    EDGE_STREAM_SEND_BUFFER_BYTES, EDGE_STREAM_WINDOW_BYTES, EDGE_STREAMS_MAX, EDGE_TICK_MS,
    EDGE_TURN_PASSES_MAX, EDGE_TURN_SEND_BYTES_MAX,
};
use crate::keyspace::request::RangeRequest;
use crate::runtime::router::Session;
use crate::shard::event::{Answer, ClientRequest, Header, Request, Response};

/// A connection whose protocol is known to be HTTP/2. Completes when it is over.
pub(super) struct Http2<IO> {
    phase: Phase<IO>,
    shared: Shared<IO>,
    timer: Option<(Instant, Pin<Box<dyn Future<Output = ()>>>)>,
}

enum Phase<IO> {
    /// Settings are being exchanged.
    Handshake(Handshake<Pipe<IO>, Bytes>),
    /// Calls come and go.
    Open(Connection<Pipe<IO>, Bytes>),
    /// The last bytes leave.
    Closing,
}

/// Why a connection ends at once.
struct Expelled;

/// Everything of a connection but the HTTP/2 state itself.
struct Shared<IO> {
    edge: Rc<Edge>,
    admission: Admission,
    session: Session,
    wire: Rc<RefCell<Wire<IO>>>,
    wakes: Arc<Wakes>,
    calls: Slab<Call>,
    calls_max: usize,
    generation: u16,
    /// Bytes counted for all calls.
    held_bytes: u64,
    /// Answer bytes that may still be handed over in this pass.
    room: usize,
    /// Something was handed to HTTP/2 that it has not looked at.
    moved: bool,
    /// Calls that have an answer and wait for their share of a turn.
    waiting_for_room: VecDeque<u32>,
    answers: Vec<Answer>,
    now: Instant,
    began: Instant,
    /// Something was sent on a stream since the client's last ping.
    answered: bool,
    ping_rule: PingRule,
    reset_rule: ResetRule,
    ping_pong: Option<PingPong>,
    /// When the client was last heard, and how many bytes it had sent then.
    heard: (Instant, u64),
    /// A ping of ours that is not answered.
    pinged: Option<Instant>,
    /// When the socket last took something, and how many bytes it had taken then.
    drained: (Instant, u64),
    /// The end of the shutdown, once it has begun.
    drain_until: Option<Instant>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Http2<IO> {
    /// Takes over a wire on which the preface lies unread.
    pub(super) fn new(mut wire: Wire<IO>, edge: Rc<Edge>, admission: Admission) -> Http2<IO> {
        wire.walker = Some(FrameWalker::new());
        let wire = Rc::new(RefCell::new(wire));
        let streams_max = edge
            .config
            .streams_per_connection_max
            .clamp(1, EDGE_STREAMS_MAX);
        let handshake = Builder::new()
            .initial_window_size(EDGE_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(EDGE_CONNECTION_WINDOW_BYTES)
            .max_frame_size(EDGE_FRAME_BYTES_MAX)
            .max_header_list_size(EDGE_HEADER_LIST_BYTES_MAX)
            .max_concurrent_streams(streams_max)
            .max_concurrent_reset_streams(EDGE_LOCAL_RESETS_MAX)
            .max_pending_accept_reset_streams(EDGE_PENDING_RESETS_MAX)
            .max_local_error_reset_streams(Some(EDGE_STREAM_ERRORS_MAX))
            .reset_stream_duration(Duration::from_secs(1))
            .max_send_buffer_size(EDGE_STREAM_SEND_BUFFER_BYTES)
            .handshake(Pipe(Rc::clone(&wire)));
        // Calls of streams that the client has reset stay until their answer comes, hence twice.
        let calls_max = 2 * streams_max as usize;
        let now = edge.clock.now();
        Http2 {
            phase: Phase::Handshake(handshake),
            shared: Shared {
                admission,
                session: edge.router.open(),
                wire,
                wakes: Wakes::new(calls_max),
                calls: Slab::new(),
                calls_max,
                generation: 0,
                held_bytes: 0,
                room: 0,
                moved: false,
                began: now,
                waiting_for_room: VecDeque::new(),
                answers: Vec::new(),
                now,
                answered: false,
                ping_rule: PingRule::default(),
                reset_rule: ResetRule::default(),
                ping_pong: None,
                heard: (now, 0),
                pinged: None,
                drained: (now, 0),
                drain_until: None,
                edge,
            },
            timer: None,
        }
    }

    /// One turn. Ready when the connection is over.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Expelled>> {
        for _ in 0..EDGE_TURN_PASSES_MAX {
            let progressed = match &mut self.phase {
                Phase::Handshake(handshake) => match Pin::new(handshake).poll(cx) {
                    Poll::Ready(Ok(mut connection)) => {
                        self.shared.ping_pong = connection.ping_pong();
                        self.phase = Phase::Open(connection);
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Expelled)),
                    Poll::Pending => false,
                },
                Phase::Open(connection) => match self.shared.pass(connection, cx) {
                    Poll::Ready(Ok(())) => {
                        self.phase = Phase::Closing;
                        continue;
                    }
                    Poll::Ready(Err(Expelled)) => return Poll::Ready(Err(Expelled)),
                    Poll::Pending => self.shared.progressed(),
                },
                Phase::Closing => {
                    let mut wire = self.shared.wire.borrow_mut();
                    // The client may have closed first; either way it is over.
                    return wire.poll_finish(cx).map(|_| Ok(()));
                }
            };
            if !progressed {
                let mut wire = self.shared.wire.borrow_mut();
                let refused = wire.has_refused();
                match wire.poll_send(cx) {
                    Poll::Ready(Ok(())) if refused => {}
                    Poll::Ready(Ok(())) if !self.shared.waiting_for_room.is_empty() => {}
                    Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                }
            }
        }
        // Others first. What is written leaves now, the rest in the next turn.
        cx.waker().wake_by_ref();
        match self.shared.wire.borrow_mut().poll_send(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Looks at the clock when it is time to. Err: this connection has used up its patience.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<(), Expelled> {
        loop {
            let at = match &self.phase {
                Phase::Handshake(_) => {
                    self.shared.began + Duration::from_millis(EDGE_FIRST_BYTES_MS_MAX)
                }
                Phase::Open(_) | Phase::Closing => self.shared.next_look(),
            };
            let (_, sleep) = match &mut self.timer {
                Some(timer) if timer.0 <= at => timer,
                timer => {
                    let span = at.since(self.shared.now);
                    timer.insert((at, self.shared.edge.clock.sleep(span)))
                }
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.timer = None;
            self.shared.now = self.shared.edge.clock.now();
            if let Phase::Handshake(_) = &self.phase {
                return Err(Expelled);
            }
            self.shared.look(cx)?;
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Http2<IO> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.shared.begin_turn();
        if this.shared.admission.is_stopping(cx.waker())
            && let Phase::Open(connection) = &mut this.phase
        {
            this.shared.begin_drain(connection);
        }
        let mut result = this.poll_turn(cx);
        if result.is_pending() {
            match this.poll_timer(cx) {
                // Deadlines that passed have written statuses: those leave now.
                Ok(()) if this.shared.progressed() => result = this.poll_turn(cx),
                Ok(()) => {}
                Err(expelled) => result = Poll::Ready(Err(expelled)),
            }
        }
        if result.is_pending() && !this.shared.wakes.is_empty() {
            cx.waker().wake_by_ref();
        }
        this.shared.wakes.end_turn(cx.waker());
        let result = ready!(result);
        if result.is_err() {
            count(&this.shared.edge.counters().expelled);
        }
        Poll::Ready(())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Shared<IO> {
    fn begin_turn(&mut self) {
        self.now = self.edge.clock.now();
        self.wakes.begin_turn();
        self.wire.borrow_mut().begin_turn();
    }

    /// Whether something was written that HTTP/2 has not seen, since the last time.
    fn progressed(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Takes what has come, answers what is answered. Ready when the connection is over; pending
    /// otherwise, whether or not something moved.
    fn pass(
        &mut self,
        connection: &mut Connection<Pipe<IO>, Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Expelled>> {
        self.room = if self.wire.borrow().is_backed_up() {
            0
        } else {
            EDGE_TURN_SEND_BYTES_MAX
        };
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond, cx),
                Poll::Ready(Some(Err(error))) => {
                    let expelled = error.is_library() || error.is_go_away() && !error.is_remote();
                    return Poll::Ready(if expelled { Err(Expelled) } else { Ok(()) });
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        self.enforce_rules(cx)?;
        let mut answers = std::mem::take(&mut self.answers);
        if self.session.poll_answers(cx, &mut answers).is_ready() {
            for answer in answers.drain(..) {
                self.answer(answer);
            }
            // Another look registers for the next ones.
            self.moved = true;
        }
        self.answers = answers;
        if self.wakes.take_overflow() {
            let all: Vec<u32> = self
                .calls
                .iter()
                .map(|(slot, _)| slot_number(slot))
                .collect();
            for slot in all {
                self.advance(slot);
            }
        }
        // Calls woken by what happens here come in the next pass.
        for _ in 0..self.calls_max {
            let Some(slot) = self.wakes.pop() else { break };
            self.advance(slot);
        }
        for _ in 0..self.waiting_for_room.len() {
            if self.room == 0 {
                break;
            }
            let Some(slot) = self.waiting_for_room.pop_front() else {
                break;
            };
            self.advance(slot);
        }
        Poll::Pending
    }

    /// Sends away clients that ping or reset more than anyone needs to.
    fn enforce_rules(&mut self, cx: &mut Context<'_>) -> Result<(), Expelled> {
        let wire = Rc::clone(&self.wire);
        let mut wire = wire.borrow_mut();
        if wire.read_total != self.heard.1 {
            self.heard = (self.now, wire.read_total);
            self.pinged = None;
        }
        let Some(walker) = &mut wire.walker else {
            return Ok(());
        };
        let pings = std::mem::take(&mut walker.pings);
        let resets = std::mem::take(&mut walker.resets);
        let last_stream = walker.last_stream;
        let mut expel = |text: &[u8]| {
            wire.append_frame(&frames::goaway(last_stream, text));
            // As much as the socket takes: the connection ends either way.
            let _ = wire.poll_send(cx);
            Err(Expelled)
        };
        if resets > 0 && self.reset_rule.resets(self.now, resets) {
            return expel(frames::TOO_MANY_RESETS);
        }
        for _ in 0..pings {
            let answered = std::mem::take(&mut self.answered);
            let min_time = self.edge.config.keepalive_min_time;
            if self
                .ping_rule
                .ping(self.now, min_time, !self.calls.is_empty(), answered)
            {
                return expel(frames::TOO_MANY_PINGS);
            }
        }
        Ok(())
    }

    /// Takes a new call.
    fn begin(
        &mut self,
        request: HttpRequest<RecvStream>,
        mut respond: SendResponse<Bytes>,
        cx: &mut Context<'_>,
    ) {
        count(&self.edge.counters().calls);
        self.moved = true;
        let (parts, mut body) = request.into_parts();
        let head = match grpc::read_head(&parts) {
            Ok(head) => head,
            Err(refused) => {
                self.answered = true;
                return call::refuse_head(respond, &refused);
            }
        };
        if self.calls.len() >= self.calls_max {
            count(&self.edge.counters().overloaded);
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let deadline = head.timeout.map(|timeout| self.now + timeout);
        let mut message = Assembler::default();
        let limit = self.edge.message_size_bytes_max();
        match receive(&mut body, &mut message, limit, cx) {
            Received::Whole(message) => self.dispatch(head, message, respond, deadline),
            Received::Refused(status) => self.refuse(respond, &status),
            Received::Gone => {}
            Received::Incomplete => {
                let receiving = Receiving {
                    head,
                    body,
                    message,
                    respond,
                };
                let slot = self.insert(State::Receiving(Box::new(receiving)), deadline);
                // Once more, so that the stream knows this call's own waker.
                self.advance(slot);
            }
        }
    }

    /// Acts on a whole message.
    fn dispatch(
        &mut self,
        head: Head,
        message: Bytes,
        respond: SendResponse<Bytes>,
        deadline: Option<Instant>,
    ) {
        let size = message.len() as u64;
        if !self.has_budget(size) {
            count(&self.edge.counters().overloaded);
            return self.refuse(respond, &status::TOO_MANY_REQUESTS);
        }
        let stopping = self.edge.is_stopping();
        let request = match head.method {
            Method::Kv(method) => kv::parse(method, message, &self.edge.form),
            Method::Status => maintenance::parse_status(message),
            Method::Alarm => maintenance::parse_alarm(message),
            Method::MemberList => cluster::parse_member_list(message),
            Method::RangeStream => match kv::parse_stream(message) {
                Ok(range) => return self.begin_paging(range, size, respond, deadline),
                Err(status) => Err(status),
            },
            Method::HealthCheck => {
                let answer =
                    health::parse(message).and_then(|service| health::check(&service, stopping));
                return self
                    .answer_at_once(respond, answer.and_then(|answer| convert::frame(&answer)));
            }
            Method::HealthList => {
                let answer = health::list(message, stopping);
                return self
                    .answer_at_once(respond, answer.and_then(|answer| convert::frame(&answer)));
            }
            Method::HealthWatch => {
                let answer =
                    health::parse(message).map(|service| health::watch(&service, stopping));
                return match answer.and_then(|answer| convert::frame(&answer)) {
                    Ok(frame) => self.begin_watching(frame, respond, deadline),
                    Err(status) => self.refuse(respond, &status),
                };
            }
        };
        match request {
            Ok(request) => {
                let slot = self.insert(State::Waiting(respond), deadline);
                self.hold(slot, size);
                if !self.submit(slot, request) {
                    self.fail(slot, &status::TOO_MANY_REQUESTS);
                }
            }
            Err(status) => self.refuse(respond, &status),
        }
    }

    /// Asks the shard on behalf of a call. False when its queue is full.
    fn submit(&mut self, slot: u32, request: Request) -> bool {
        let call = &self.calls[slot as usize];
        let own = self.now + self.edge.config.request_timeout;
        let request = ClientRequest {
            ticket: self.session.ticket(u32::from(call.generation) << 16 | slot),
            deadline: call.deadline.map_or(own, |deadline| deadline.min(own)),
            request,
        };
        let submitted = self.session.submit(Edge::SHARD, request).is_ok();
        if !submitted {
            count(&self.edge.counters().overloaded);
        }
        submitted
    }

    /// Takes an answer of the shard to the call it belongs to, if that is still there.
    fn answer(&mut self, answer: Answer) {
        let slot = answer.ticket.request & 0xffff;
        let generation = answer.ticket.request >> 16;
        let Some(call) = self.calls.get_mut(slot as usize) else {
            return;
        };
        if u32::from(call.generation) != generation {
            return;
        }
        call.touched = self.now;
        match &mut call.state {
            State::Waiting(_) => {
                let State::Waiting(respond) = self.remove(slot).state else {
                    unreachable!("the state was just looked at");
                };
                let frame = match answer.result {
                    Ok(response) => encode(&self.edge, &answer.header, response),
                    Err(refusal) => Err(refusal.into()),
                };
                self.answer_at_once(respond, frame);
            }
            State::Paging(paging) if paging.asking => {
                let step = match answer.result {
                    Ok(Response::Range(page)) => {
                        Ok(paging
                            .pager
                            .answer(&self.edge.identity, answer.header, page))
                    }
                    Ok(_) => Err(status::WRONG_ANSWER),
                    Err(refusal) => Err(refusal.into()),
                };
                self.take_page(slot, step);
            }
            State::Receiving(_) | State::Sending(_) | State::Paging(_) | State::Watching(_) => {}
        }
    }

    /// Answers a unary call, now if the client's window allows.
    fn answer_at_once(&mut self, mut respond: SendResponse<Bytes>, frame: Result<Bytes, Status>) {
        self.moved = true;
        self.answered = true;
        let frame = match frame {
            Ok(frame) => frame,
            Err(status) => return call::refuse(respond, &status),
        };
        let Some(mut outgoing) = Outgoing::begin(&self.edge, &mut respond, frame) else {
            return;
        };
        let mut cx = Context::from_waker(Waker::noop());
        match outgoing.poll_send(&mut cx, &mut self.room) {
            Sent::Done => outgoing.finish(&self.edge, &status::OK),
            Sent::Gone => {}
            Sent::Blocked | Sent::NoRoom => {
                let held = outgoing.held_bytes();
                let slot = self.insert(State::Sending(outgoing), None);
                self.hold(slot, held);
                self.advance(slot);
            }
        }
    }

    fn begin_paging(
        &mut self,
        range: RangeRequest,
        size: u64,
        respond: SendResponse<Bytes>,
        deadline: Option<Instant>,
    ) {
        let pager = Pager::new(range, self.edge.config.request_size_bytes_max);
        let ask = pager.ask();
        let paging = Paging {
            pager,
            respond,
            outgoing: None,
            asking: true,
            next: None,
        };
        let slot = self.insert(State::Paging(Box::new(paging)), deadline);
        self.hold(slot, size);
        if !self.submit(slot, Request::Range(ask)) {
            self.fail(slot, &status::TOO_MANY_REQUESTS);
        }
    }

    /// Goes on with a streamed read after a page.
    fn take_page(&mut self, slot: u32, step: Result<Step, Status>) {
        let piece = match step {
            Ok(Step::Ask(ask)) => {
                if !self.submit(slot, Request::Range(ask)) {
                    self.fail(slot, &status::TOO_MANY_REQUESTS);
                }
                return;
            }
            Ok(Step::Piece(piece, next)) => convert::frame(&piece).map(|frame| (frame, Some(next))),
            Ok(Step::Last(piece)) => convert::frame(&piece).map(|frame| (frame, None)),
            Err(status) => Err(status),
        };
        let (frame, next) = match piece {
            Ok(piece) => piece,
            Err(status) => return self.fail(slot, &status),
        };
        self.moved = true;
        self.answered = true;
        let size = frame.len() as u64;
        let State::Paging(paging) = &mut self.calls[slot as usize].state else {
            return;
        };
        paging.asking = false;
        paging.next = next;
        match &mut paging.outgoing {
            Some(outgoing) => outgoing.refill(frame),
            None => match Outgoing::begin(&self.edge, &mut paging.respond, frame) {
                Some(outgoing) => paging.outgoing = Some(outgoing),
                None => return drop(self.remove(slot)),
            },
        }
        self.hold(slot, size);
        self.advance(slot);
    }

    fn begin_watching(
        &mut self,
        frame: Bytes,
        mut respond: SendResponse<Bytes>,
        deadline: Option<Instant>,
    ) {
        self.answered = true;
        if let Some(outgoing) = Outgoing::begin(&self.edge, &mut respond, frame) {
            let slot = self.insert(State::Watching(outgoing), deadline);
            self.advance(slot);
        }
    }

    /// Does for a parked call what can be done now.
    fn advance(&mut self, slot: u32) {
        let Some(call) = self.calls.get_mut(slot as usize) else {
            return;
        };
        call.in_line = false;
        let waker = call
            .waker
            .get_or_insert_with(|| self.wakes.waker(slot))
            .clone();
        let mut cx = Context::from_waker(&waker);
        let before = self.room;
        let sent = match &mut call.state {
            State::Waiting(_) => return,
            State::Receiving(_) => return self.advance_receiving(slot, &mut cx),
            State::Sending(outgoing) => outgoing.poll_send(&mut cx, &mut self.room),
            State::Paging(paging) => match &mut paging.outgoing {
                Some(outgoing) if !paging.asking => outgoing.poll_send(&mut cx, &mut self.room),
                _ => return,
            },
            State::Watching(outgoing) => match outgoing.poll_send(&mut cx, &mut self.room) {
                Sent::Done if outgoing.poll_gone(&mut cx) => Sent::Gone,
                Sent::Done => Sent::Blocked,
                other => other,
            },
        };
        if self.room < before {
            self.moved = true;
            call.touched = self.now;
        }
        match sent {
            Sent::NoRoom => {
                call.in_line = true;
                self.waiting_for_room.push_back(slot);
            }
            Sent::Blocked => {
                let left = match &call.state {
                    State::Sending(outgoing) | State::Watching(outgoing) => outgoing.held_bytes(),
                    State::Paging(paging) => {
                        paging.outgoing.as_ref().map_or(0, Outgoing::held_bytes)
                    }
                    _ => 0,
                };
                self.hold(slot, left);
            }
            Sent::Gone => drop(self.remove(slot)),
            Sent::Done => self.finish_piece(slot),
        }
    }

    /// Goes on after a whole message has been handed over.
    fn finish_piece(&mut self, slot: u32) {
        self.hold(slot, 0);
        if let State::Paging(paging) = &mut self.calls[slot as usize].state
            && let Some(ask) = paging.next.take()
        {
            paging.asking = true;
            if !self.submit(slot, Request::Range(ask)) {
                self.fail(slot, &status::TOO_MANY_REQUESTS);
            }
            return;
        }
        self.fail(slot, &status::OK);
    }

    fn advance_receiving(&mut self, slot: u32, cx: &mut Context<'_>) {
        let limit = self.edge.message_size_bytes_max();
        let call = &mut self.calls[slot as usize];
        let State::Receiving(receiving) = &mut call.state else {
            return;
        };
        let received = receive(&mut receiving.body, &mut receiving.message, limit, cx);
        if let Received::Incomplete = received {
            let size = receiving.message.held_bytes() as u64;
            let more = size.saturating_sub(call.held_bytes);
            if more > 0 {
                call.touched = self.now;
                // Windows are given back as data is taken.
                self.moved = true;
            }
            if self.has_budget(more) {
                return self.hold(slot, size);
            }
            count(&self.edge.counters().overloaded);
            return self.fail(slot, &status::TOO_MANY_REQUESTS);
        }
        self.moved = true;
        let call = self.remove(slot);
        let State::Receiving(receiving) = call.state else {
            unreachable!("the state was just looked at");
        };
        let Receiving { head, respond, .. } = *receiving;
        match received {
            Received::Whole(message) => self.dispatch(head, message, respond, call.deadline),
            Received::Refused(status) => self.refuse(respond, &status),
            Received::Gone | Received::Incomplete => {}
        }
    }

    /// Ends a parked call with a status, as far as its response has got.
    fn fail(&mut self, slot: u32, status: &Status) {
        self.moved = true;
        self.answered = true;
        match self.remove(slot).state {
            State::Waiting(respond) => call::refuse(respond, status),
            State::Receiving(receiving) => call::refuse(receiving.respond, status),
            State::Sending(outgoing) | State::Watching(outgoing) => {
                outgoing.finish(&self.edge, status)
            }
            State::Paging(paging) => match paging.outgoing {
                Some(outgoing) => outgoing.finish(&self.edge, status),
                None => call::refuse(paging.respond, status),
            },
        }
    }

    /// Gives a parked call up without a word, since the client does not listen.
    fn abandon(&mut self, slot: u32) {
        self.moved = true;
        match self.remove(slot).state {
            State::Waiting(mut respond) => respond.send_reset(Reason::CANCEL),
            State::Receiving(mut receiving) => receiving.respond.send_reset(Reason::CANCEL),
            State::Sending(outgoing) | State::Watching(outgoing) => outgoing.reset(Reason::CANCEL),
            State::Paging(mut paging) => match paging.outgoing {
                Some(outgoing) => outgoing.reset(Reason::CANCEL),
                None => paging.respond.send_reset(Reason::CANCEL),
            },
        }
    }

    fn refuse(&mut self, respond: SendResponse<Bytes>, status: &Status) {
        self.moved = true;
        self.answered = true;
        call::refuse(respond, status);
    }

    fn insert(&mut self, state: State, deadline: Option<Instant>) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.calls.insert(Call {
            generation: self.generation,
            state,
            deadline,
            touched: self.now,
            held_bytes: 0,
            in_line: false,
            waker: None,
        });
        slot_number(slot)
    }

    fn remove(&mut self, slot: u32) -> Call {
        self.hold(slot, 0);
        self.calls.remove(slot as usize)
    }

    /// Whether the budgets allow this many bytes more.
    fn has_budget(&self, more: u64) -> bool {
        self.held_bytes + more <= EDGE_CONNECTION_HELD_BYTES_MAX
            && self.edge.held_bytes.get() + more <= self.edge.config.held_bytes_max
    }

    /// Sets what a call counts for in the budgets.
    fn hold(&mut self, slot: u32, bytes: u64) {
        let call = &mut self.calls[slot as usize];
        let before = std::mem::replace(&mut call.held_bytes, bytes);
        self.held_bytes = self.held_bytes - before + bytes;
        self.edge
            .held_bytes
            .set(self.edge.held_bytes.get() - before + bytes);
    }

    /// Begins the shutdown of this connection, once.
    fn begin_drain(&mut self, connection: &mut Connection<Pipe<IO>, Bytes>) {
        if self.drain_until.is_some() {
            return;
        }
        self.drain_until = Some(self.now + Duration::from_millis(EDGE_DRAIN_MS_MAX));
        connection.graceful_shutdown();
        // Nobody else ends these.
        let watching = |(slot, call): (usize, &Call)| {
            matches!(call.state, State::Watching(_)).then(|| slot_number(slot))
        };
        let slots: Vec<u32> = self.calls.iter().filter_map(watching).collect();
        for slot in slots {
            self.fail(slot, &status::STOPPED);
        }
    }

    /// When the clock matters next.
    fn next_look(&self) -> Instant {
        let busy = !self.calls.is_empty()
            || self.wire.borrow().unsent_bytes() > 0
            || self.drain_until.is_some();
        if busy {
            return self.now + Duration::from_millis(EDGE_TICK_MS);
        }
        match self.pinged {
            Some(pinged) => pinged + self.edge.config.keepalive_timeout,
            None => self.heard.0 + self.edge.config.keepalive_interval,
        }
    }

    /// Ends what has run out of time.
    fn look(&mut self, cx: &mut Context<'_>) -> Result<(), Expelled> {
        let stall = Duration::from_millis(EDGE_STALL_MS_MAX);
        {
            let wire = self.wire.borrow();
            if wire.unsent_bytes() == 0 || wire.sent_total != self.drained.1 {
                self.drained = (self.now, wire.sent_total);
            }
        }
        if self.now.since(self.drained.0) >= stall
            || self.drain_until.is_some_and(|until| until <= self.now)
        {
            return Err(Expelled);
        }
        let config = &self.edge.config;
        match self.pinged {
            Some(pinged) if self.now.since(pinged) >= config.keepalive_timeout => {
                return Err(Expelled);
            }
            None if self.now.since(self.heard.0) >= config.keepalive_interval => {
                if let Some(ping_pong) = &mut self.ping_pong {
                    // The answer to the ping before, if there was one, makes room for the next.
                    let _ = ping_pong.poll_pong(cx);
                    let _ = ping_pong.send_ping(Ping::opaque());
                }
                self.pinged = Some(self.now);
                self.moved = true;
            }
            Some(_) | None => {}
        }
        let slots: Vec<u32> = self
            .calls
            .iter()
            .map(|(slot, _)| slot_number(slot))
            .collect();
        for slot in slots {
            let call = &self.calls[slot as usize];
            let expired = call.deadline.is_some_and(|deadline| deadline <= self.now);
            let stalled = self.now.since(call.touched) >= stall;
            match &call.state {
                // The shard has the deadline, and answers.
                State::Waiting(_) => {}
                State::Paging(paging) if !paging.asking && stalled => self.abandon(slot),
                State::Sending(_) if expired || stalled => self.abandon(slot),
                State::Receiving(_) if !expired && stalled => self.abandon(slot),
                State::Receiving(_) | State::Paging(_) | State::Watching(_) if expired => {
                    self.fail(slot, &status::DEADLINE_EXCEEDED);
                }
                State::Receiving(_) | State::Paging(_) | State::Watching(_) | State::Sending(_) => {
                }
            }
        }
        Ok(())
    }
}

impl<IO> Drop for Shared<IO> {
    fn drop(&mut self) {
        self.edge
            .held_bytes
            .set(self.edge.held_bytes.get() - self.held_bytes);
    }
}

/// What a stream has given so far.
enum Received {
    /// The message.
    Whole(Bytes),
    /// Part of it.
    Incomplete,
    /// What is no message.
    Refused(Status),
    /// The client has reset the stream.
    Gone,
}

fn receive(
    body: &mut RecvStream,
    message: &mut Assembler,
    size_bytes_max: u64,
    cx: &mut Context<'_>,
) -> Received {
    loop {
        let chunk = match body.poll_data(cx) {
            Poll::Pending => return Received::Incomplete,
            Poll::Ready(None) => return Received::Refused(message.end()),
            Poll::Ready(Some(Err(_))) => return Received::Gone,
            Poll::Ready(Some(Ok(chunk))) => chunk,
        };
        // Taken is taken: the budgets count it from here on. Fails only when the stream is gone.
        let _ = body.flow_control().release_capacity(chunk.len());
        match message.push(chunk, size_bytes_max) {
            Ok(Some(message)) => return Received::Whole(message),
            Ok(None) => {}
            Err(status) => return Received::Refused(status),
        }
    }
}

/// A shard's answer to a unary call as a gRPC message.
fn encode(edge: &Edge, header: &Header, response: Response) -> Result<Bytes, Status> {
    let header = convert::header(&edge.identity, header);
    match response {
        Response::Range(response) => convert::frame(&convert::range_response(header, response)),
        Response::Put(response) => convert::frame(&convert::put_response(header, response)),
        Response::DeleteRange(response) => {
            convert::frame(&convert::delete_range_response(header, response))
        }
        Response::Txn(response) => convert::frame(&convert::transaction_response(header, response)),
        Response::Compact => convert::frame(&CompactionResponse { header }),
        Response::Status(status) => convert::frame(&maintenance::status_response(header, &status)),
        Response::MemberList(members) => {
            convert::frame(&cluster::member_list_response(header, members))
        }
        Response::Alarm(alarms) => convert::frame(&maintenance::alarm_response(header, &alarms)),
    }
}

/// Slots are far below 2^16: streams are limited, and calls with them.
fn slot_number(slot: usize) -> u32 {
    u32::from(u16::try_from(slot).expect("calls are limited to 2^16"))
}
