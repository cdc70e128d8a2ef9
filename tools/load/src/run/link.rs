//! One connection of a thread: its socket, its protocol, and how it comes up again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustls::ClientConfig;

use crate::wire::{CallOptions, Connection, Endpoint, Event, READ_BYTES, Received, Sent, Socket};

/// Reads of one turn from one connection, so that none starves the others.
const READS_MAX: usize = 16;
/// Time between two attempts to connect again.
const RECONNECT_NS: u64 = 100_000_000;

/// Where connections of one endpoint go.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) endpoint: Endpoint,
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) options: CallOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down { again_ns: u64 },
    Connecting,
    Open,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) place: Place,
    number: u64,
    state: State,
    socket: Option<Socket>,
    pub(super) connection: Connection,
    /// Closed loop: calls it keeps open.
    pub(super) quota: usize,
    /// The socket did not take everything.
    stuck: bool,
    /// Since when, and why, there is no connection.
    pub(super) down: Option<(u64, String)>,
}

impl Link {
    pub(super) fn new(number: usize, place: Place, quota: usize) -> Link {
        Link {
            number: number as u64,
            state: State::Down { again_ns: 0 },
            socket: None,
            connection: Connection::new(&place.options),
            place,
            quota,
            stuck: false,
            down: Some((0, "not connected yet".into())),
        }
    }

    /// Whether calls may start.
    pub(super) fn is_up(&self) -> bool {
        self.state == State::Open && self.connection.is_ready()
    }

    /// Begins to connect, if it is down and the time has come.
    pub(super) fn revive(&mut self, poller: &OwnedFd, now_ns: u64) {
        let State::Down { again_ns } = self.state else {
            return;
        };
        if now_ns < again_ns {
            return;
        }
        match self.connect(poller) {
            Ok(()) => self.state = State::Connecting,
            Err(error) => self.fall(poller, now_ns, &error.to_string(), &mut |_, _| {}),
        }
    }

    fn connect(&mut self, poller: &OwnedFd) -> io::Result<()> {
        let place = &self.place;
        let socket = Socket::connect(&place.endpoint, place.address, place.tls.as_ref())?;
        let both = epoll::EventFlags::IN | epoll::EventFlags::OUT;
        epoll::add(
            poller,
            socket.as_fd(),
            epoll::EventData::new_u64(self.number),
            both,
        )?;
        self.connection = Connection::new(&place.options);
        self.socket = Some(socket);
        self.stuck = true;
        Ok(())
    }

    /// The socket is readable, writable or broken.
    pub(super) fn ready(
        &mut self,
        poller: &OwnedFd,
        clock: &impl Fn() -> u64,
        buffer: &mut [u8],
        sink: &mut impl FnMut(Event<'_>, u64),
    ) {
        if let Err(why) = self.progress(clock, buffer, sink) {
            self.fall(poller, clock(), &why, sink);
        } else if self.down.is_some() && self.is_up() {
            self.down = None;
        }
    }

    fn progress(
        &mut self,
        clock: &impl Fn() -> u64,
        buffer: &mut [u8],
        sink: &mut impl FnMut(Event<'_>, u64),
    ) -> Result<(), String> {
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        if self.state == State::Connecting {
            socket.connected().map_err(|error| error.to_string())?;
            self.state = State::Open;
        }
        for _ in 0..READS_MAX {
            match socket.read(buffer).map_err(|error| error.to_string())? {
                Received::Bytes(count) => {
                    // After the read: an answer must not seem to have come before it was sent.
                    let at_ns = clock();
                    self.connection
                        .receive(&buffer[..count], &mut |event| sink(event, at_ns))
                        .map_err(|fault| fault.0)?;
                    // A short read was all there is.
                    if count < READ_BYTES && !self.place.endpoint.tls {
                        break;
                    }
                }
                Received::Nothing => break,
                Received::End => return Err("the server closed the connection".into()),
            }
        }
        Ok(())
    }

    /// Sends what waits: once a turn.
    pub(super) fn flush(
        &mut self,
        poller: &OwnedFd,
        clock: &impl Fn() -> u64,
        sink: &mut impl FnMut(Event<'_>, u64),
    ) {
        let Some(socket) = self.socket.as_mut().filter(|_| self.state == State::Open) else {
            return;
        };
        if self.connection.out().is_empty() && !self.stuck && !socket.wants_send() {
            return;
        }
        let sent = socket.send(self.connection.out());
        let changed = match sent {
            Err(error) => return self.fall(poller, clock(), &error.to_string(), sink),
            Ok(sent) => std::mem::replace(&mut self.stuck, sent == Sent::Part) != self.stuck,
        };
        if changed {
            let flags = match self.stuck {
                true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
                false => epoll::EventFlags::IN,
            };
            let data = epoll::EventData::new_u64(self.number);
            if let Err(error) = epoll::modify(poller, socket.as_fd(), data, flags) {
                self.fall(poller, clock(), &error.to_string(), sink);
            }
        }
    }

    /// The connection is lost: its calls end, and it is tried again a little later.
    pub(super) fn fall(
        &mut self,
        poller: &OwnedFd,
        now_ns: u64,
        why: &str,
        sink: &mut impl FnMut(Event<'_>, u64),
    ) {
        if let Some(socket) = self.socket.take() {
            // Closing removes it as well, but not while another process holds a copy.
            let _ = epoll::delete(poller, socket.as_fd());
        }
        let why = format!("{}: {why}", self.place.endpoint);
        self.connection.fail(&why, &mut |event| sink(event, now_ns));
        self.state = State::Down {
            again_ns: now_ns + RECONNECT_NS,
        };
        self.stuck = false;
        match &mut self.down {
            Some((_, known)) => *known = why,
            None => self.down = Some((now_ns, why)),
        }
    }
}
