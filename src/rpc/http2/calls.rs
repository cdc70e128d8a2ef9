//! The calls of one HTTP/2 connection: from whole messages to questions, and from answers to frames.
//!
//! A call moves through the states of `call::State`, and its bytes are counted in the budgets at every
//! step. Nothing here waits: what cannot go on is parked with a waker of its own.

use std::task::{Context, Waker};

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request as HttpRequest;

use super::Shared;
use super::messages::{Received, encode, receive};
use crate::base::limits::{EDGE_CALL_BYTES, EDGE_CONNECTION_HELD_BYTES_MAX};
use crate::base::{Instant, MemberId};
use crate::keyspace::request::RangeRequest;
use crate::rpc::call::{
    self, Asked, Call, Confirming, Measuring, Outgoing, Paging, Receiving, Responder, Sent, State,
};
use crate::rpc::edge::{Edge, count};
use crate::rpc::grpc::{self, Assembler, Head};
use crate::rpc::large::Large;
use crate::rpc::method::Method;
use crate::rpc::range_stream::{Pager, Step};
use crate::rpc::status::{self, Status};
use crate::rpc::{admin, cluster, convert, health, kv, maintenance};
use crate::shard::event::{Answer, ClientRequest, Request, Response};

impl<IO: AsyncRead + AsyncWrite + Unpin> Shared<IO> {
    /// Takes a new call.
    pub(super) fn begin(
        &mut self,
        request: HttpRequest<RecvStream>,
        respond: SendResponse<Bytes>,
        cx: &mut Context<'_>,
    ) {
        count(&self.edge.counters().calls);
        self.moved = true;
        let (parts, mut body) = request.into_parts();
        let mut respond = Responder::new(respond, &parts.headers);
        let head = match grpc::read_head(&parts) {
            Ok(head) => head,
            Err(refused) => {
                return call::refuse_head(respond, &refused);
            }
        };
        if self.calls.len() >= self.calls_max || !self.has_budget(EDGE_CALL_BYTES) {
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
        respond: Responder,
        deadline: Option<Instant>,
    ) {
        let size = message.len() as u64;
        if !self.has_budget(size) {
            count(&self.edge.counters().overloaded);
            return self.refuse(respond, &status::TOO_MANY_REQUESTS);
        }
        let stopping = self.edge.is_stopping();
        let asked = match head.method {
            Method::Kv(method) => kv::parse(method, message, &self.edge.form),
            Method::Status => maintenance::parse_status(message),
            Method::Alarm => maintenance::parse_alarm(message),
            Method::MoveLeader => maintenance::parse_move_leader(message),
            Method::MemberList => cluster::parse_member_list(message),
            Method::ReadMode => admin::parse_read_mode(message),
            Method::SetReadMode => admin::parse_set_read_mode(message),
            Method::RangeStream => {
                let asked = kv::parse_stream(message).map(Asked::Pages);
                return self.begin_asking(&head, asked, size, respond, deadline);
            }
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
        self.begin_asking(&head, asked.map(Asked::Answer), size, respond, deadline);
    }

    /// Asks what the message says, after the question for a leader if the head wants that.
    fn begin_asking(
        &mut self,
        head: &Head,
        asked: Result<Asked, Status>,
        size: u64,
        respond: Responder,
        deadline: Option<Instant>,
    ) {
        let asked = match asked {
            Ok(asked) => asked,
            Err(status) => return self.refuse(respond, &status),
        };
        let confirming = Confirming {
            method: head.method,
            asked,
            size,
            respond,
        };
        if head.needs_leader {
            let state = State::Confirming(Box::new(confirming));
            self.insert_asking(state, size, Request::Status, deadline);
        } else {
            self.ask(confirming, deadline);
        }
    }

    fn ask(&mut self, confirmed: Confirming, deadline: Option<Instant>) {
        let Confirming {
            method,
            asked,
            size,
            respond,
        } = confirmed;
        match asked {
            Asked::Answer(request) => {
                self.insert_asking(State::Waiting(respond, method), size, request, deadline);
            }
            Asked::Pages(range) => self.begin_paging(range, size, respond, deadline),
        }
    }

    /// Parks a call that waits for the shard's answer to `request`.
    fn insert_asking(
        &mut self,
        state: State,
        size: u64,
        request: Request,
        deadline: Option<Instant>,
    ) {
        let slot = self.insert(state, deadline);
        self.hold(slot, size);
        if !self.submit(slot, request) {
            self.fail(slot, &status::TOO_MANY_REQUESTS);
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
    pub(super) fn answer(&mut self, answer: Answer) {
        let slot = answer.ticket.request & 0xffff;
        let generation = answer.ticket.request >> 16;
        let Some(call) = self.calls.get_mut(slot as usize) else {
            return;
        };
        if u32::from(call.generation) != generation {
            return;
        }
        let took = self
            .now
            .since(std::mem::replace(&mut call.touched, self.now));
        match &mut call.state {
            State::Waiting(_, method) => {
                if took > self.edge.config.slow_request {
                    self.edge.note_slow(*method, took, self.now);
                }
                let State::Waiting(respond, _) = self.remove(slot).state else {
                    unreachable!("the state was just looked at");
                };
                let response = match answer.result {
                    Ok(response) => response,
                    Err(refusal) => return self.refuse(respond, &refusal.into()),
                };
                match Large::take(&self.edge.identity, &answer.header, response) {
                    Ok(large) => self.begin_measuring(respond, large),
                    Err(response) => {
                        let frame = encode(&self.edge, &answer.header, response);
                        self.answer_at_once(respond, frame);
                    }
                }
            }
            State::Confirming(_) => {
                let call = self.remove(slot);
                let State::Confirming(confirming) = call.state else {
                    unreachable!("the state was just looked at");
                };
                let refused = match answer.result {
                    Ok(Response::Status(status)) if status.leader != MemberId(0) => {
                        return self.ask(*confirming, call.deadline);
                    }
                    Ok(Response::Status(_)) => status::NO_LEADER,
                    Ok(_) => status::WRONG_ANSWER,
                    Err(refusal) => refusal.into(),
                };
                self.refuse(confirming.respond, &refused);
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
            State::Receiving(_)
            | State::Measuring(_)
            | State::Sending(_)
            | State::Paging(_)
            | State::Watching(_) => {}
        }
    }

    fn begin_measuring(&mut self, respond: Responder, large: Large) {
        if !self.may_begin_large() {
            count(&self.edge.counters().overloaded);
            return self.refuse(respond, &status::TOO_MANY_REQUESTS);
        }
        let held = large.held_bytes() as u64;
        let state = State::Measuring(Box::new(Measuring { large, respond }));
        let slot = self.insert(state, None);
        self.hold(slot, held);
        self.advance(slot);
    }

    /// Adds up more of a large answer's size, and begins the answer once it is known.
    fn advance_measuring(&mut self, slot: u32) {
        if self.pieces == 0 {
            return self.wait_for_piece(slot);
        }
        self.pieces -= 1;
        let State::Measuring(measuring) = &mut self.calls[slot as usize].state else {
            return;
        };
        if measuring.respond.is_reset() {
            self.moved = true;
            drop(self.remove(slot));
            return;
        }
        match measuring.large.measure() {
            Ok(true) => {}
            Ok(false) => return self.wait_for_piece(slot),
            Err(status) => return self.fail(slot, &status),
        }
        let State::Measuring(measuring) = self.remove(slot).state else {
            unreachable!("the state was just looked at");
        };
        let Measuring { large, mut respond } = *measuring;
        self.moved = true;
        if let Some(outgoing) = Outgoing::begin_large(&self.edge, &mut respond, large) {
            let held = outgoing.held_bytes();
            let slot = self.insert(State::Sending(outgoing), None);
            self.hold(slot, held);
            self.advance(slot);
        }
    }

    /// Puts a call into the line for the next turn's pieces.
    fn wait_for_piece(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.calls[slot as usize].in_line, true) {
            self.waiting_for_piece.push_back(slot);
        }
    }

    /// Answers a unary call, now if the client's window allows.
    fn answer_at_once(&mut self, mut respond: Responder, frame: Result<Bytes, Status>) {
        self.moved = true;
        let frame = match frame {
            Ok(frame) => frame,
            Err(status) => return call::refuse(respond, &status),
        };
        let Some(mut outgoing) = Outgoing::begin(&self.edge, &mut respond, frame) else {
            return;
        };
        let mut cx = Context::from_waker(Waker::noop());
        match outgoing.poll_send(&mut cx, &mut self.room, &mut self.pieces) {
            Sent::Done => outgoing.finish(&self.edge, &status::OK),
            Sent::Gone => {}
            Sent::Blocked | Sent::NoRoom | Sent::NoPiece => {
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
        respond: Responder,
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

    fn begin_watching(&mut self, frame: Bytes, mut respond: Responder, deadline: Option<Instant>) {
        if let Some(outgoing) = Outgoing::begin(&self.edge, &mut respond, frame) {
            let slot = self.insert(State::Watching(outgoing), deadline);
            self.advance(slot);
        }
    }

    /// Does for a parked call what can be done now.
    pub(super) fn advance(&mut self, slot: u32) {
        let Some(call) = self.calls.get_mut(slot as usize) else {
            return;
        };
        let waker = call
            .waker
            .get_or_insert_with(|| self.wakes.waker(slot))
            .clone();
        let mut cx = Context::from_waker(&waker);
        let before = self.room;
        let (room, pieces) = (&mut self.room, &mut self.pieces);
        let sent = match &mut call.state {
            State::Confirming(_) | State::Waiting(..) => return,
            State::Receiving(_) => return self.advance_receiving(slot, &mut cx),
            State::Measuring(_) => return self.advance_measuring(slot),
            State::Sending(outgoing) => outgoing.poll_send(&mut cx, room, pieces),
            State::Paging(paging) => match &mut paging.outgoing {
                Some(outgoing) if !paging.asking => outgoing.poll_send(&mut cx, room, pieces),
                _ => return,
            },
            State::Watching(outgoing) => match outgoing.poll_send(&mut cx, room, pieces) {
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
            Sent::NoRoom if !std::mem::replace(&mut call.in_line, true) => {
                self.waiting_for_room.push_back(slot);
            }
            Sent::NoRoom => {}
            Sent::NoPiece => self.wait_for_piece(slot),
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
            let more = (EDGE_CALL_BYTES + size).saturating_sub(call.held_bytes);
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
    pub(super) fn fail(&mut self, slot: u32, status: &Status) {
        self.moved = true;
        match self.remove(slot).state {
            State::Confirming(confirming) => call::refuse(confirming.respond, status),
            State::Waiting(respond, _) => call::refuse(respond, status),
            State::Measuring(measuring) => call::refuse(measuring.respond, status),
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
    pub(super) fn abandon(&mut self, slot: u32) {
        self.moved = true;
        match self.remove(slot).state {
            State::Confirming(mut confirming) => confirming.respond.send_reset(Reason::CANCEL),
            State::Waiting(mut respond, _) => respond.send_reset(Reason::CANCEL),
            State::Measuring(mut measuring) => measuring.respond.send_reset(Reason::CANCEL),
            State::Receiving(mut receiving) => receiving.respond.send_reset(Reason::CANCEL),
            State::Sending(outgoing) | State::Watching(outgoing) => outgoing.reset(Reason::CANCEL),
            State::Paging(mut paging) => match paging.outgoing {
                Some(outgoing) => outgoing.reset(Reason::CANCEL),
                None => paging.respond.send_reset(Reason::CANCEL),
            },
        }
    }

    fn refuse(&mut self, respond: Responder, status: &Status) {
        self.moved = true;
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
        let slot = slot_number(slot);
        self.hold(slot, 0);
        slot
    }

    fn remove(&mut self, slot: u32) -> Call {
        self.account(slot, 0);
        self.calls.remove(slot as usize)
    }

    /// Whether the budgets allow this many bytes more.
    fn has_budget(&self, more: u64) -> bool {
        self.held_bytes + more <= EDGE_CONNECTION_HELD_BYTES_MAX
            && self.edge.held_bytes.get() + more <= self.edge.config.held_bytes_max
    }

    /// Whether one more large answer may begin: what is held is below the budgets, and so one answer may
    /// be larger than they are.
    fn may_begin_large(&self) -> bool {
        self.has_budget(0)
    }

    /// Sets what a call holds, beside what every call costs.
    fn hold(&mut self, slot: u32, bytes: u64) {
        self.account(slot, EDGE_CALL_BYTES + bytes);
    }

    /// Sets what a call counts for in the budgets.
    fn account(&mut self, slot: u32, bytes: u64) {
        let call = &mut self.calls[slot as usize];
        let before = std::mem::replace(&mut call.held_bytes, bytes);
        self.held_bytes = self.held_bytes - before + bytes;
        self.edge
            .held_bytes
            .set(self.edge.held_bytes.get() - before + bytes);
    }
}

/// Slots are far below 2^16: streams are limited, and calls with them.
pub(super) fn slot_number(slot: usize) -> u32 {
    u32::from(u16::try_from(slot).expect("calls are limited to 2^16"))
}
