//! Drives `serve_connection` without sockets: an in-memory duplex, a clock that tests move, and a shard
//! loop that a test writes as a closure from requests to answers.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::HeaderMap;
use kontiki::base::{ClusterId, CoreId, Instant, MemberId, Term};
use kontiki::rpc::{Clock, Edge, EdgeConfig, serve_connection};
use kontiki::runtime::router::{Doorbell, Outbound, Router};
use kontiki::shard::event::{Answer, ClientRequest, Header, Identity, Refusal, Request, Response};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;

/// The identity every answer shows.
pub(crate) const IDENTITY: Identity = Identity {
    cluster: ClusterId(0xc),
    member: MemberId(0xb),
};

/// A clock that stands still until a test moves it.
#[derive(Default)]
pub(crate) struct HandClock {
    now: Cell<u64>,
    sleepers: Rc<RefCell<Vec<Waker>>>,
}

impl HandClock {
    /// Moves time and wakes whoever sleeps.
    pub(crate) fn advance(&self, span: Duration) {
        self.now
            .set(self.now.get() + u64::try_from(span.as_nanos()).unwrap());
        for waker in self.sleepers.borrow_mut().drain(..) {
            waker.wake();
        }
    }
}

/// The clock as the edge sees it.
pub(crate) struct SharedClock(pub Rc<HandClock>);

impl Clock for SharedClock {
    fn now(&self) -> Instant {
        Instant(self.0.now.get())
    }

    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        let clock = Rc::clone(&self.0);
        let until = self.now() + span;
        Box::pin(std::future::poll_fn(move |cx| {
            if clock.now.get() >= until.0 {
                return Poll::Ready(());
            }
            clock.sleepers.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        }))
    }
}

/// tokio's in-memory stream with the traits glommio's streams have.
pub(crate) struct Socket(pub DuplexStream);

impl futures_lite::AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        Pin::new(&mut self.0)
            .poll_read(cx, &mut buffer)
            .map_ok(|()| buffer.filled().len())
    }
}

impl futures_lite::AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// One core's edge with a shard loop behind it.
pub(crate) struct Core {
    pub(crate) edge: Rc<Edge>,
    pub(crate) clock: Rc<HandClock>,
    router: Rc<Router>,
    /// Requests the shard has taken and not answered, oldest first.
    pub(crate) unanswered: Rc<RefCell<Vec<ClientRequest>>>,
}

impl Core {
    /// A core whose shard answers with `respond`. Call inside a `LocalSet`.
    pub(crate) fn start(
        config: EdgeConfig,
        mut respond: impl FnMut(&Request) -> Option<Result<Response, Refusal>> + 'static,
    ) -> Core {
        let doorbell = Rc::new(Doorbell::default());
        let outbound = Rc::new(Outbound::new(Rc::clone(&doorbell)));
        let router = Router::new(CoreId(0), vec![Rc::clone(&outbound)]);
        let clock = Rc::new(HandClock::default());
        let edge = Edge::new(
            IDENTITY,
            config,
            Rc::clone(&router),
            Rc::new(SharedClock(Rc::clone(&clock))),
        );
        let unanswered = Rc::new(RefCell::new(Vec::new()));
        let core = Core {
            edge,
            clock,
            router: Rc::clone(&router),
            unanswered: Rc::clone(&unanswered),
        };
        tokio::task::spawn_local(async move {
            let mut batch = Vec::new();
            loop {
                doorbell.wait().await;
                outbound.take_into(&mut batch);
                for request in batch.drain(..) {
                    match respond(&request.request) {
                        Some(result) => router.deliver([answer(&request, result)]),
                        None => unanswered.borrow_mut().push(request),
                    }
                }
            }
        });
        core
    }

    /// Answers the oldest unanswered request.
    pub(crate) fn answer_oldest(&self, result: Result<Response, Refusal>) {
        let request = self.unanswered.borrow_mut().remove(0);
        self.router.deliver([answer(&request, result)]);
    }

    /// A raw connection: the client's end, and the server's task.
    pub(crate) fn connect(&self, buffer_bytes: usize) -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = tokio::io::duplex(buffer_bytes);
        let task =
            tokio::task::spawn_local(serve_connection(Socket(server), Rc::clone(&self.edge)));
        (client, task)
    }

    /// An HTTP/2 client on a connection of its own, and the server's task.
    pub(crate) async fn client(&self) -> (SendRequest<Bytes>, JoinHandle<()>) {
        let (stream, server) = self.connect(1 << 20);
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 24)
            .initial_connection_window_size(1 << 24)
            .handshake::<_, Bytes>(stream)
            .await
            .expect("a handshake");
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        (client.ready().await.expect("an open connection"), server)
    }
}

fn answer(request: &ClientRequest, result: Result<Response, Refusal>) -> Answer {
    Answer {
        ticket: request.ticket,
        header: Header {
            revision: 42,
            term: Term(7),
        },
        result,
    }
}

/// Lets every task run until all of them wait.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Runs a test on one thread, with local tasks.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("no test hangs")
    }))
}

/// A message with gRPC's prefix.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut framed).unwrap();
    framed.freeze()
}

/// The request head of a call.
pub(crate) fn head(path: &str) -> http::Request<()> {
    http::Request::builder()
        .method("POST")
        .uri(format!("http://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) http_status: u16,
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The messages of the body.
    pub(crate) fn messages<M: Message + Default>(&self) -> Vec<M> {
        let mut rest = self.body.clone();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let prefix = rest.split_to(5);
            let size = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
            messages.push(M::decode(rest.split_to(size)).unwrap());
        }
        messages
    }

    /// The only message.
    pub(crate) fn message<M: Message + Default>(&self) -> M {
        let mut messages = self.messages();
        assert_eq!((self.code, messages.len()), (0, 1), "{self:?}");
        messages.remove(0)
    }
}

/// Reads a response to its end.
pub(crate) async fn finish(response: h2::client::ResponseFuture) -> Result<Reply, h2::Error> {
    let (parts, mut stream) = response.await?.into_parts();
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    let find = |name: &str| {
        let value = |map: &HeaderMap| {
            map.get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        value(&trailers).or_else(|| value(&parts.headers))
    };
    Ok(Reply {
        http_status: parts.status.as_u16(),
        code: find("grpc-status")
            .expect("every call has a status")
            .parse()
            .unwrap(),
        message: find("grpc-message").unwrap_or_default(),
        body: body.freeze(),
    })
}

/// One whole call with raw body bytes.
pub(crate) async fn call_raw(
    client: &SendRequest<Bytes>,
    request: http::Request<()>,
    body: Bytes,
) -> Reply {
    let mut client = client.clone().ready().await.expect("an open connection");
    let (response, mut stream) = client.send_request(request, false).expect("a stream");
    // The server may have refused by the headers alone.
    let _ = stream.send_data(body, true);
    finish(response).await.expect("an answer")
}

/// One whole call.
pub(crate) async fn call(client: &SendRequest<Bytes>, path: &str, message: &impl Message) -> Reply {
    call_raw(client, head(path), frame(message)).await
}
