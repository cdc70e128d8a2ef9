//! One call to a member, for commands of operators: connects, asks and waits, and blocks its thread meanwhile.
//!
//! Not for a core of a server. Speaks the same HTTP/2 as the server side, over a plain socket that the kernel is
//! asked about; no runtime is needed for one question.

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::admin;
use super::convert::{FRAME_PREFIX_BYTES, frame};
use super::edge::{GRPC_CONTENT_TYPE, GRPC_MESSAGE, GRPC_STATUS};
use super::method::Method;
use super::pb::kontiki as pb;
use crate::base::Instant;
use crate::base::limits::{CLIENT_ANSWER_BYTES_MAX, CLIENT_CALL_TIME_MAX, CLIENT_CONNECT_TIME_MAX};
use crate::base::url::Url;
use crate::raft::ReadMode;
use crate::runtime::clock::Clock;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The name has no address, nobody listens there, or the connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What speaks there is no member.
    #[error("{0}")]
    Http2(#[from] h2::Error),
    /// The member says no.
    #[error("{message} (code {code})")]
    Refused {
        /// gRPC's number.
        code: String,
        /// Its text.
        message: String,
    },
    /// The member closed the connection instead of answering.
    #[error("the connection was closed before an answer")]
    Closed,
    /// Nothing came in time. What was asked for may have happened.
    #[error("no answer within {CLIENT_CALL_TIME_MAX:?}")]
    Late,
    /// What came is no answer.
    #[error("what came is no answer to that")]
    Nonsense,
}

/// Asks a member on what linearizable reads rest, as far as it knows.
///
/// # Errors
/// See [`ClientError`].
pub fn read_mode(member: &Url) -> Result<ReadMode, ClientError> {
    let answer = call(member, Method::ReadMode, &pb::ReadModeRequest {})?;
    mode(answer)
}

/// Has a member change that for the whole cluster. To ask again does no harm.
///
/// # Errors
/// See [`ClientError`].
pub fn set_read_mode(member: &Url, wanted: ReadMode) -> Result<ReadMode, ClientError> {
    let mode_number = admin::number(wanted);
    let request = pb::SetReadModeRequest { mode: mode_number };
    mode(call(member, Method::SetReadMode, &request)?)
}

fn mode(answer: Bytes) -> Result<ReadMode, ClientError> {
    let answer = pb::ReadModeResponse::decode(answer).map_err(|_| ClientError::Nonsense)?;
    admin::mode(answer.mode).ok_or(ClientError::Nonsense)
}

/// The message that answers a unary call.
fn call(member: &Url, method: Method, message: &impl Message) -> Result<Bytes, ClientError> {
    let message = frame(message).map_err(|_| ClientError::Nonsense)?;
    let stream = connect(member)?;
    let uri = Uri::builder()
        .scheme("http")
        .authority(member.as_str().trim_start_matches("http://"))
        .path_and_query(method.path())
        .build()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut head = Request::new(());
    *head.method_mut() = http::Method::POST;
    *head.uri_mut() = uri;
    let headers = head.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let clock = Clock::new();
    let due = clock.now() + CLIENT_CALL_TIME_MAX;
    let watched = stream.try_clone()?;
    let answer = exchange(Socket(stream), head, message);
    block_on(answer, &watched, &clock, due).unwrap_or(Err(ClientError::Late))
}

fn connect(member: &Url) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (member.host(), member.port()).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CLIENT_CONNECT_TIME_MAX) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn exchange(socket: Socket, head: Request<()>, message: Bytes) -> Result<Bytes, ClientError> {
    let (send, connection) = h2::client::handshake(socket).await?;
    let answered = async {
        let mut send = send.ready().await?;
        let (response, mut body) = send.send_request(head, false)?;
        body.send_data(message, true)?;
        let response = response.await?;
        // An end without a message has its status here.
        check_status(response.headers())?;
        receive(response.into_body()).await
    };
    let broken = async {
        connection.await?;
        Err(ClientError::Closed)
    };
    futures_lite::future::or(answered, broken).await
}

async fn receive(mut body: RecvStream) -> Result<Bytes, ClientError> {
    let mut received = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        if received.len() + part.len() > CLIENT_ANSWER_BYTES_MAX {
            return Err(ClientError::Nonsense);
        }
        // Fails only when the stream is gone.
        let _ = body.flow_control().release_capacity(part.len());
        received.extend_from_slice(&part);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    check_status(&trailers)?;
    if received.len() < FRAME_PREFIX_BYTES {
        return Err(ClientError::Nonsense);
    }
    Ok(received.split_off(FRAME_PREFIX_BYTES).freeze())
}

/// A status that is no OK.
fn check_status(headers: &HeaderMap) -> Result<(), ClientError> {
    let text = |name| {
        let value = headers.get(name).map(HeaderValue::as_bytes);
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    match text(GRPC_STATUS) {
        None => Ok(()),
        Some(code) if code == "0" => Ok(()),
        Some(code) => Err(ClientError::Refused {
            code,
            message: text(GRPC_MESSAGE).unwrap_or_default(),
        }),
    }
}

/// A socket as HTTP/2 wants it. Whoever drives it asks the kernel when it is ready; no waker is kept here.
struct Socket(TcpStream);

fn ready<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready(self.0.read(buffer.initialize_unfilled())).map_ok(|count| buffer.advance(count))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready(self.0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(std::net::Shutdown::Write))
    }
}

/// Whether a part of the future has asked for another look.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Looks at a future that waits for one socket until it is done; none when that was not in time.
fn block_on<T>(
    future: impl Future<Output = T>,
    socket: &TcpStream,
    clock: &Clock,
    due: Instant,
) -> Option<T> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        if woken.0.swap(false, Ordering::AcqRel) {
            continue;
        }
        let left = due.since(clock.now());
        if left == Duration::ZERO {
            return None;
        }
        // The little that is asked fits into the kernel's buffer: only answers are waited for.
        let mut ready = [PollFd::new(socket, PollFlags::IN)];
        let span = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // Interrupted, or out of memory: the next look shows what is there, and the time is limited.
        let _ = poll(&mut ready, Some(&span));
    }
}
