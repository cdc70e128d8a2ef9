//! One call to a member, for commands of operators: connects, asks and waits, and blocks its thread meanwhile.
//!
//! Not for a core of a server. Speaks the same HTTP/2 as the server side, over a plain socket that the kernel is
//! asked about; no runtime is needed for one question.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::admin;
use super::convert::frame;
use super::edge::{GRPC_CONTENT_TYPE, GRPC_MESSAGE, GRPC_STATUS};
use super::grpc::{self, Assembler};
use super::method::Method;
use super::pb::kontiki as pb;
use super::status::{self, Code};
use crate::base::Instant;
use crate::base::limits::{
    CLIENT_ANSWER_BYTES_MAX, CLIENT_CALL_TIME_MAX, CLIENT_CONNECT_TIME_MAX,
    CLIENT_HEADERS_BYTES_MAX, CLIENT_REASON_CHARS_MAX,
};
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
    /// What answers there knows HTTP/2, but not gRPC.
    #[error("HTTP {status}, and no gRPC: no member of kontiki there?")]
    NotGrpc {
        /// HTTP's.
        status: StatusCode,
    },
    /// The member does not know the call.
    #[error("there are no read modes: an older version of kontiki, or another server")]
    Unknown,
    /// The member says no.
    #[error("{message} (code {code})")]
    Refused {
        /// gRPC's number.
        code: u32,
        /// Its text, fit to be shown.
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
    let clock = Clock::new();
    let due = clock.now() + CLIENT_CALL_TIME_MAX;
    let stream = connect(member, &clock, due)?;
    let uri = Uri::builder()
        .scheme("http")
        .authority(authority(member))
        .path_and_query(method.path())
        .build()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut head = Request::new(());
    *head.method_mut() = http::Method::POST;
    *head.uri_mut() = uri;
    let headers = head.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    ask(stream, head, message, clock, due)
}

/// One request and its answer, over a connection of their own.
fn ask(
    stream: TcpStream,
    head: Request<()>,
    message: Bytes,
    clock: Clock,
    due: Instant,
) -> Result<Bytes, ClientError> {
    let watched = stream.try_clone()?;
    let clock = Rc::new(clock);
    let full = Rc::new(Cell::new(false));
    let socket = Socket {
        stream,
        full: Rc::clone(&full),
        clock: Rc::clone(&clock),
        due,
    };
    let answer = exchange(socket, head, message);
    block_on(answer, &watched, &full, &clock, due).unwrap_or(Err(ClientError::Late))
}

/// Host and port as a request names them.
fn authority(member: &Url) -> String {
    let (host, port) = (member.host(), member.port());
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// To the first address of its name that takes it. How long a name may take to look up, the system says.
fn connect(member: &Url, clock: &Clock, due: Instant) -> Result<TcpStream, ClientError> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (member.host(), member.port()).to_socket_addrs()? {
        let left = due.since(clock.now());
        if left == Duration::ZERO {
            return Err(ClientError::Late);
        }
        match TcpStream::connect_timeout(&address, left.min(CLIENT_CONNECT_TIME_MAX)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure.into())
}

async fn exchange(socket: Socket, head: Request<()>, message: Bytes) -> Result<Bytes, ClientError> {
    let (send, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(CLIENT_HEADERS_BYTES_MAX)
        .handshake::<_, Bytes>(socket)
        .await?;
    let answered = async {
        let mut send = send.ready().await?;
        let (response, mut body) = send.send_request(head, false)?;
        body.send_data(message, true)?;
        let (head, body) = response.await?.into_parts();
        check_head(head.status, &head.headers)?;
        receive(body).await
    };
    let broken = async {
        connection.await?;
        Err(ClientError::Closed)
    };
    futures_lite::future::or(answered, broken).await
}

/// What the headers of an answer say, when they end it or are none of gRPC.
fn check_head(status: StatusCode, headers: &HeaderMap) -> Result<(), ClientError> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|value| grpc::is_grpc(value.as_bytes()));
    match headers.contains_key(GRPC_STATUS) {
        // An end without a message has its status here.
        true if is_grpc => check_end(headers),
        false if is_grpc && status == StatusCode::OK => Ok(()),
        _ => Err(ClientError::NotGrpc { status }),
    }
}

async fn receive(mut body: RecvStream) -> Result<Bytes, ClientError> {
    let mut assembler = Assembler::default();
    let mut message = None;
    let mut received_bytes = 0;
    while let Some(part) = body.data().await {
        let part = part?;
        received_bytes += part.len();
        if received_bytes > CLIENT_ANSWER_BYTES_MAX {
            return Err(ClientError::Nonsense);
        }
        // Fails only when the stream is gone.
        let _ = body.flow_control().release_capacity(part.len());
        if message.is_none() {
            let pushed = assembler.push(part, CLIENT_ANSWER_BYTES_MAX as u64);
            message = pushed.map_err(|_| ClientError::Nonsense)?;
        }
    }
    check_end(&body.trailers().await?.unwrap_or_default())?;
    message.ok_or(ClientError::Nonsense)
}

/// How a call ended: what does not say that it went well did not.
fn check_end(trailers: &HeaderMap) -> Result<(), ClientError> {
    let code = trailers
        .get(GRPC_STATUS)
        .and_then(|code| code.to_str().ok());
    let code: u32 = code
        .and_then(|code| code.parse().ok())
        .ok_or(ClientError::Nonsense)?;
    if code == Code::Ok as u32 {
        return Ok(());
    }
    if code == Code::Unimplemented as u32 {
        return Err(ClientError::Unknown);
    }
    let message = trailers.get(GRPC_MESSAGE).map(HeaderValue::as_bytes);
    Err(ClientError::Refused {
        code,
        message: shown(&status::message_text(message.unwrap_or_default())),
    })
}

/// A text of somebody else, fit for a terminal: not endless, and without what a terminal would obey.
fn shown(text: &str) -> String {
    let visible = |letter: char| match letter {
        // What turns the direction of the text around it.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        letter if letter.is_control() => char::REPLACEMENT_CHARACTER,
        letter => letter,
    };
    text.chars()
        .take(CLIENT_REASON_CHARS_MAX)
        .map(visible)
        .collect()
}

/// A socket as HTTP/2 wants it. Whoever drives it asks the kernel when it is ready; no waker is kept here.
struct Socket {
    stream: TcpStream,
    /// The kernel has not taken what was written: whoever waits must wait for that as well.
    full: Rc<Cell<bool>>,
    clock: Rc<Clock>,
    /// Nothing is read from then on.
    due: Instant,
}

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
        // HTTP/2 reads for as long as something comes, and a peer may see to that. Whoever drives this looks at the
        // time as soon as nothing does.
        if self.clock.now() >= self.due {
            return Poll::Pending;
        }
        ready(self.stream.read(buffer.initialize_unfilled())).map_ok(|count| buffer.advance(count))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready(self.stream.write(bytes));
        self.full.set(written.is_pending());
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown(std::net::Shutdown::Write))
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
    full: &Cell<bool>,
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
        // First of all: a peer that always has something to say must not be listened to for ever.
        let left = due.since(clock.now());
        if left == Duration::ZERO {
            return None;
        }
        if woken.0.swap(false, Ordering::AcqRel) {
            continue;
        }
        // Taken back, so that nobody waits for room that is no longer wanted.
        let wanted = match full.take() {
            true => PollFlags::IN | PollFlags::OUT,
            false => PollFlags::IN,
        };
        let mut ready = [PollFd::new(socket, wanted)];
        let span = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // Interrupted, or out of memory: the next look shows what is there, and the time is limited.
        let _ = poll(&mut ready, Some(&span));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// No connection on loopback takes so long.
    const PATIENCE: Duration = Duration::from_secs(3);

    /// Goal: a member is named as HTTP wants it, however its URL is spelt.
    #[test]
    fn authorities() {
        let check = |url: &str, expected: &str| {
            let url = Url::parse(url).expect("a URL");
            assert_eq!(authority(&url), expected);
        };
        check("http://member:2379", "member:2379");
        check("HTTP://Member:2379", "Member:2379");
        check("http://10.0.0.1:1", "10.0.0.1:1");
        check("http://[::1]:2379", "[::1]:2379");
    }

    /// Goal: what is shown of a text has an end and moves no cursor.
    #[test]
    fn shown_texts() {
        assert_eq!(shown("no \u{e9} is left"), "no \u{e9} is left");
        assert_eq!(shown("\u{1b}[2J\n"), "\u{fffd}[2J\u{fffd}");
        assert_eq!(shown("\u{202e}a\u{2069}"), "\u{fffd}a\u{fffd}");
        let long = "\u{e9}".repeat(CLIENT_REASON_CHARS_MAX + 1);
        assert_eq!(shown(&long).chars().count(), CLIENT_REASON_CHARS_MAX);
    }

    /// Goal: when the time is over nothing is read any more, however much is there; so a peer that never stops talking,
    /// and says nothing, is left. What is over when it begins is not begun.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a peer on a thread of its own, which blocks, and whose port is any"
    )]
    fn an_endless_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let talking = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("it connects");
            // Its settings, and then frames of a type that nobody knows: they are skipped.
            let _ = peer.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
            let noise = [0, 0, 0, 0xfa, 0, 0, 0, 0, 0].repeat(8 << 10);
            while peer.write_all(&noise).is_ok() {}
        });
        let clock = Rc::new(Clock::new());
        let member = Url::parse(&format!("http://{address}")).expect("a URL");
        let began = clock.now();
        let stream = connect(&member, &clock, began + PATIENCE).expect("it listens");

        let read = |due: Instant| {
            let _ = poll(&mut [PollFd::new(&stream, PollFlags::IN)], None);
            let mut socket = Socket {
                stream: stream.try_clone().expect("another handle"),
                full: Rc::default(),
                clock: Rc::clone(&clock),
                due,
            };
            let mut byte = [0; 1];
            let mut buffer = ReadBuf::new(&mut byte);
            let mut cx = Context::from_waker(Waker::noop());
            Pin::new(&mut socket).poll_read(&mut cx, &mut buffer)
        };
        assert!(read(began).is_pending());

        let mut head = Request::new(());
        *head.uri_mut() = Uri::from_static("http://member/none");
        let due = clock.now() + PATIENCE / 10;
        let handle = stream.try_clone().expect("another handle");
        let answer = ask(handle, head, Bytes::new(), Clock::new(), due);
        assert!(matches!(answer, Err(ClientError::Late)), "{answer:?}");
        assert!(read(clock.now() + PATIENCE).is_ready());
        drop(stream);
        talking.join().expect("its peer has gone");

        let answer = connect(&member, &clock, began);
        assert!(matches!(answer, Err(ClientError::Late)), "{answer:?}");
    }
}
