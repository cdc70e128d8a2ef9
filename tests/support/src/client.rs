//! A gRPC client for many calls at once on one connection, cheap enough to be a load generator.
//!
//! Everything runs on one thread. Writes of all calls that became ready in one turn leave with one
//! system call: the connection only appends to a buffer, and the driver task sends it at the end of
//! its turn. Without that, `h2` makes one call per message.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that may wait in the send buffer before the connection is told to wait.
const SEND_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Flow-control window of one call: a page of large values fits.
const STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Flow-control window of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// Bytes of a gRPC message's prefix: compression flag and length.
const PREFIX_BYTES: usize = 5;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The server answered with a gRPC status other than OK.
    Refused {
        /// The gRPC status code.
        code: u32,
        /// The status message as it was on the wire.
        message: String,
    },
    /// The server said before any processing that it does not take the call (REFUSED_STREAM, or a
    /// GOAWAY that excludes it): it has no effect.
    NotTaken(String),
    /// The connection ended first: the call may or may not have taken effect.
    Broken(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Refused { code, message } => {
                write!(f, "refused with code {code}: {message}")
            }
            CallError::NotTaken(cause) => write!(f, "not taken: {cause}"),
            CallError::Broken(cause) => write!(f, "broken: {cause}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> CallError {
        let text = error.to_string();
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => CallError::NotTaken(text),
            // h2 ends calls above a graceful GOAWAY's last stream with its NO_ERROR.
            Some(h2::Reason::NO_ERROR) if error.is_go_away() => CallError::NotTaken(text),
            _ => CallError::Broken(text),
        }
    }
}

/// One connection. Clones share it.
#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
    address: SocketAddr,
}

/// Runs a future, with tasks beside it, on this thread.
///
/// # Panics
/// When the thread cannot have a reactor.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a reactor for this thread");
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

impl Client {
    /// Connects; the connection's driver runs as a local task until all clones and calls are gone.
    ///
    /// # Errors
    /// When the port does not accept or does not speak HTTP/2.
    pub async fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let wire = Rc::new(RefCell::new(Wire {
            stream,
            unsent: BytesMut::with_capacity(SEND_BUFFER_BYTES_MAX),
        }));
        let (send, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            // The tests send far more at once than a server may admit; the excess waits here.
            .initial_max_send_streams(usize::from(u16::MAX))
            .handshake(Coalescing(Rc::clone(&wire)))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(poll_fn(move |cx| {
            let driven = Pin::new(&mut connection).poll(cx);
            // A failed send shows as the connection's own error at its next read.
            let _ = wire.borrow_mut().poll_send(cx);
            driven.map(drop)
        }));
        Ok(Client { send, address })
    }

    /// Calls `path` with one message and decodes the one message of the answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<A: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
    ) -> Result<A, CallError> {
        let request = self.prepare(path);
        let answer = self.send(request, framed(message)).await?;
        A::decode(answer).map_err(|error| CallError::Broken(error.to_string()))
    }

    /// The head of a call, to be sent any number of times.
    ///
    /// # Panics
    /// When `path` is no path.
    #[must_use]
    pub fn prepare(&self, path: &'static str) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::builder()
            .scheme("http")
            .authority(self.address.to_string())
            .path_and_query(path)
            .build()
            .expect("an address and a path make a URI");
        let headers = request.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        request
    }

    /// Sends a prepared head with one framed message, and gives the answer's message.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn send(&self, head: Request<()>, message: Bytes) -> Result<Bytes, CallError> {
        let mut send = self.send.clone().ready().await?;
        let (response, mut body) = send.send_request(head, false)?;
        drop(send);
        body.send_data(message, true)?;
        let response = response.await?;
        if response.headers().contains_key("grpc-status") {
            check_status(response.headers())?;
            return Err(CallError::Broken("an OK without a message".into()));
        }
        let mut body = response.into_body();
        let mut received = Bytes::new();
        while let Some(part) = body.data().await {
            let part = part?;
            // Only a stream that is over cannot give back its window, and then nobody needs it.
            let _ = body.flow_control().release_capacity(part.len());
            received = if received.is_empty() {
                part
            } else {
                let mut joined = BytesMut::with_capacity(received.len() + part.len());
                joined.extend_from_slice(&received);
                joined.extend_from_slice(&part);
                joined.freeze()
            };
        }
        let trailers = body.trailers().await?;
        check_status(&trailers.unwrap_or_default())?;
        if received.len() < PREFIX_BYTES {
            return Err(CallError::Broken("an OK without a message".into()));
        }
        Ok(received.split_off(PREFIX_BYTES))
    }
}

/// A message with gRPC's prefix.
///
/// # Panics
/// When it is larger than 4 GiB.
pub fn framed(message: &impl Message) -> Bytes {
    let size = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + size);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(size).expect("a message below 4 GiB"));
    message
        .encode(&mut frame)
        .expect("a growing buffer has room");
    frame.freeze()
}

fn check_status(headers: &HeaderMap) -> Result<(), CallError> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    match text("grpc-status").and_then(|code| code.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(CallError::Refused {
            code,
            message: text("grpc-message").unwrap_or_default().to_owned(),
        }),
        None => Err(CallError::Broken("no grpc-status".into())),
    }
}

/// The socket and what waits to be sent.
struct Wire {
    stream: TcpStream,
    unsent: BytesMut,
}

impl Wire {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
            if sent == self.unsent.len() {
                // Keeps the whole capacity, where `advance` would give up the front of it.
                self.unsent.clear();
            } else {
                bytes::Buf::advance(&mut self.unsent, sent);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What `h2` reads from and writes to: a flush does nothing, the driver sends.
struct Coalescing(Rc<RefCell<Wire>>);

impl AsyncRead for Coalescing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Coalescing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        if wire.unsent.len() >= SEND_BUFFER_BYTES_MAX {
            ready!(wire.poll_send(cx))?;
        }
        wire.unsent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        ready!(wire.poll_send(cx))?;
        Pin::new(&mut wire.stream).poll_shutdown(cx)
    }
}
