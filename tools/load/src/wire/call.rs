//! One call on a connection of its own, waiting for its answer: for questions before and after a run.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ClientConfig;
use thiserror::Error;

use super::{
    CallOptions, Connection, End, Endpoint, EndpointError, Event, Method, READ_BYTES, Received,
    Sent, Socket,
};

/// Why a call has no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// The name of the endpoint is not known.
    #[error("{0}")]
    Name(#[from] EndpointError),
    /// No connection, or not to its end.
    #[error("{0}: {1}")]
    Connection(Endpoint, String),
    /// The server answered with another status than OK.
    #[error("{endpoint}: the server answers with gRPC code {code}: {message}")]
    Refused {
        /// Which server.
        endpoint: Endpoint,
        /// gRPC's code.
        code: u32,
        /// What it says.
        message: String,
    },
}

/// Calls `method` with one message and gives the one message of the answer. Blocks, at most for `time_max`.
///
/// # Errors
/// See [`CallError`].
pub fn call(
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
    method: Method,
    message: &[u8],
    time_max: Duration,
) -> Result<Vec<u8>, CallError> {
    let deadline = Instant::now() + time_max;
    let failed = |why: String| CallError::Connection(endpoint.clone(), why);
    let io_failed = |error: io::Error| failed(error.to_string());
    let mut socket = Socket::connect(endpoint, endpoint.address()?, tls).map_err(io_failed)?;
    wait(&socket, PollFlags::OUT, deadline).map_err(io_failed)?;
    socket.connected().map_err(io_failed)?;
    let mut connection = Connection::new(&CallOptions {
        scheme: endpoint.scheme(),
        authority: endpoint.authority(),
        timeout: None,
    });
    let mut started = false;
    let mut answer = None;
    let mut ended = None;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if connection.is_ready() && !started {
            connection.start(method, message, true, 0);
            started = true;
        }
        let mut flags = PollFlags::IN;
        if socket.send(connection.out()).map_err(io_failed)? == Sent::Part {
            flags |= PollFlags::OUT;
        }
        wait(&socket, flags, deadline).map_err(io_failed)?;
        let mut sink = |event: Event<'_>| match event {
            Event::Ready => {}
            Event::Message(_, message) => answer = Some(message.to_vec()),
            Event::Ended(_, end) => ended = Some(end),
        };
        match socket.read(&mut buffer).map_err(io_failed)? {
            Received::Nothing => {}
            Received::Bytes(count) => {
                let received = connection.receive(&buffer[..count], &mut sink);
                // A farewell after the answer does not matter.
                if let (Err(fault), None) = (received, &ended) {
                    return Err(failed(fault.0));
                }
            }
            Received::End => return Err(failed("the server closed the connection".into())),
        }
        return match ended.take() {
            None => continue,
            Some(End::Ok) => answer.ok_or_else(|| failed("an answer without a message".into())),
            Some(End::Status(code, message)) => Err(CallError::Refused {
                endpoint: endpoint.clone(),
                code,
                message,
            }),
            Some(End::NoStatus(_, why) | End::NotTaken(why) | End::Broken(why)) => Err(failed(why)),
        };
    }
}

fn wait(socket: &Socket, flags: PollFlags, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(socket, flags)], Some(&timeout)) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
