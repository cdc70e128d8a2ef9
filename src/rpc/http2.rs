//! One HTTP/2 connection: takes every request that is there, hands them on as one batch, answers what
//! has come back, and sends once.
//!
//! Runs on the core that accepted the connection, as one task; no call has a task of its own. Must never
//! wait for one call while others could go on, and never hold more than its budgets: a client that
//! floods, stalls or lies loses its connection or its call, and no other client notices.
//!
//! The HTTP/2 library answers pings by itself; `frames` counts them beside it. What cannot be done with
//! it: answer a ping late, or put text into a GOAWAY (the one for pings is therefore written here).

mod calls;
mod messages;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite};
use h2::server::{Builder, Connection, Handshake};
use h2::{Ping, PingPong};
use slab::Slab;

use self::calls::slot_number;
use super::call::{Call, State};
use super::edge::{Admission, Edge, count};
use super::frames::{self, FrameWalker, PingRule, ResetRule};
use super::status;
use super::wakes::Wakes;
use super::wire::{Pipe, Wire};
use crate::base::Instant;
use crate::base::limits::{
    EDGE_CONNECTION_WINDOW_BYTES, EDGE_DRAIN_MS_MAX, EDGE_FIRST_BYTES_MS_MAX, EDGE_FRAME_BYTES_MAX,
    EDGE_HEADER_LIST_BYTES_MAX, EDGE_LOCAL_RESETS_MAX, EDGE_PENDING_RESETS_MAX, EDGE_PIECE_PAUSE,
    EDGE_STALL_MS_MAX, EDGE_STREAM_ERRORS_MAX, EDGE_STREAM_SEND_BUFFER_BYTES,
    EDGE_STREAM_WINDOW_BYTES, EDGE_STREAMS_MAX, EDGE_TICK_MS, EDGE_TURN_PASSES_MAX,
    EDGE_TURN_PIECES, EDGE_TURN_SEND_BYTES_MAX,
};
use crate::runtime::router::Session;
use crate::shard::event::Answer;

/// A connection whose protocol is known to be HTTP/2. Completes when it is over.
pub(super) struct Http2<IO> {
    phase: Phase<IO>,
    shared: Shared<IO>,
    timer: Option<Timer>,
}

/// When the connection looks at the clock next, and what wakes it then.
type Timer = (Instant, Pin<Box<dyn Future<Output = ()>>>);

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
    /// Pieces of large answers that may still be encoded in this turn.
    pieces: u32,
    /// Calls that have an answer and wait for their share of a turn.
    waiting_for_room: VecDeque<u32>,
    /// Calls with a large answer that wait for the next turn, which `pause` begins.
    waiting_for_piece: VecDeque<u32>,
    pause: Option<Pin<Box<dyn Future<Output = ()>>>>,
    answers: Vec<Answer>,
    now: Instant,
    began: Instant,
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
        wire.incoming = Some(FrameWalker::before_preface());
        wire.outgoing = Some(FrameWalker::before_frames());
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
                wakes: Wakes::new(),
                calls: Slab::new(),
                calls_max,
                generation: 0,
                held_bytes: 0,
                room: 0,
                moved: false,
                began: now,
                pieces: 0,
                waiting_for_room: VecDeque::new(),
                waiting_for_piece: VecDeque::new(),
                pause: None,
                answers: Vec::new(),
                now,
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
        this.shared.begin_turn(cx);
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
        this.shared.pause_for_pieces(cx);
        this.shared.wakes.end_turn(cx.waker());
        let result = ready!(result);
        if result.is_err() {
            count(&this.shared.edge.counters().expelled);
        }
        Poll::Ready(())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Shared<IO> {
    fn begin_turn(&mut self, cx: &mut Context<'_>) {
        self.now = self.edge.clock.now();
        self.pieces = EDGE_TURN_PIECES;
        if let Some(pause) = &mut self.pause
            && pause.as_mut().poll(cx).is_ready()
        {
            self.pause = None;
            self.waiting_for_room.append(&mut self.waiting_for_piece);
        }
        self.wakes.begin_turn();
        self.wire.borrow_mut().begin_turn();
    }

    /// Has a timer begin the next turn for what is left of large answers. Never a wake at once: a task
    /// that is always ready keeps the core from looking at its sockets.
    fn pause_for_pieces(&mut self, cx: &mut Context<'_>) {
        if self.waiting_for_piece.is_empty() || self.pause.is_some() {
            return;
        }
        let mut pause = self.edge.clock.sleep(EDGE_PIECE_PAUSE);
        if pause.as_mut().poll(cx).is_pending() {
            self.pause = Some(pause);
            return;
        }
        // Over before it began.
        self.waiting_for_room.append(&mut self.waiting_for_piece);
        cx.waker().wake_by_ref();
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
            if let Some(call) = self.calls.get_mut(slot as usize) {
                call.in_line = false;
            }
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
        let Wire {
            incoming: Some(incoming),
            outgoing: Some(outgoing),
            ..
        } = &mut *wire
        else {
            return Ok(());
        };
        let pings = std::mem::take(&mut incoming.pings);
        let resets = std::mem::take(&mut incoming.resets);
        let last_stream = incoming.last_stream;
        // HTTP/2 sends a large answer piece by piece as the client makes room, so what counts is what was
        // sent and not when it was handed over.
        let mut answered = pings > 0 && std::mem::take(&mut outgoing.on_streams) > 0;
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
            let answered = std::mem::take(&mut answered);
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
                State::Confirming(_) | State::Waiting(..) => {}
                // It moves on by itself.
                State::Measuring(_) => {}
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
