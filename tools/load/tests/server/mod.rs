//! A small gRPC server made with `h2`: another implementation of HTTP/2 on the other side, and one that can be
//! told to misbehave. It keeps no keys: a put gets the next revision, a read finds nothing.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use kontiki_harness::client::framed;
use kontiki_harness::messages::{PutResponse, ResponseHeader};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// What the server does with puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers.
    Good,
    /// Answers the first so many, and none after.
    SilentAfter(i64),
    /// Answers the first so many, and is gone: its port closes.
    GoneAfter(i64),
    /// Answers the first so many with rising revisions, then all with the same one.
    RepeatsAfter(i64),
    /// Refuses with a status and no message (trailers only).
    Refuses,
    /// Answers one after the other, each after so long.
    Slow(Duration),
    /// Says farewell on each connection after so many calls, and takes new connections.
    FarewellEvery(usize),
}

/// A server on a thread of its own.
pub(crate) struct TestServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    /// Starts it; with `tls` it speaks nothing else.
    pub(crate) fn start(manner: Manner, tls: Option<Arc<ServerConfig>>) -> TestServer {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            kontiki_harness::client::block_on(serve(listener, manner, tls, stopped));
        });
        TestServer {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have gone by itself.
            let _ = stop.send(());
        }
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server failed");
        }
    }
}

struct State {
    manner: Manner,
    revision: Cell<i64>,
    /// Held by the put that is worked on, if one at a time is.
    turn: tokio::sync::Mutex<()>,
    gone: tokio::sync::Notify,
}

async fn serve(
    listener: std::net::TcpListener,
    manner: Manner,
    tls: Option<Arc<ServerConfig>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let listener = TcpListener::from_std(listener).expect("a reactor");
    let state = Rc::new(State {
        manner,
        revision: Cell::new(0),
        turn: tokio::sync::Mutex::new(()),
        gone: tokio::sync::Notify::new(),
    });
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted.expect("a connection");
                let state = Rc::clone(&state);
                let acceptor = tls.clone().map(TlsAcceptor::from);
                connections.spawn_local(async move {
                    match acceptor {
                        None => connection(socket, state).await,
                        // A client that does not trust us goes away: that is its right.
                        Some(acceptor) => if let Ok(socket) = acceptor.accept(socket).await {
                            connection(socket, state).await;
                        },
                    }
                });
            }
            () = state.gone.notified() => return,
            _ = &mut stopped => return,
        }
    }
}

async fn connection(socket: impl AsyncRead + AsyncWrite + Unpin, state: Rc<State>) {
    let mut builder = h2::server::Builder::new();
    // Small, so that the client has to wait for both windows, and to share few streams.
    builder
        .initial_window_size(1000)
        .initial_connection_window_size(70_000)
        .max_concurrent_streams(20);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else {
        return;
    };
    let mut calls = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        calls += 1;
        let state = Rc::clone(&state);
        if state.manner == Manner::FarewellEvery(calls) {
            connection.graceful_shutdown();
        }
        tokio::task::spawn_local(answer(request, respond, state));
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    state: Rc<State>,
) {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    while let Some(Ok(part)) = body.data().await {
        // The caller may be gone already.
        let _ = body.flow_control().release_capacity(part.len());
    }
    let is_put = path == "/etcdserverpb.KV/Put";
    if let Manner::Slow(time) = state.manner
        && is_put
    {
        let _turn = state.turn.lock().await;
        tokio::time::sleep(time).await;
    }
    let revision = state.revision.get() + i64::from(is_put);
    match state.manner {
        Manner::SilentAfter(count) if is_put && revision > count => {
            return std::future::pending().await;
        }
        Manner::GoneAfter(count) if is_put && revision > count => return state.gone.notify_one(),
        Manner::RepeatsAfter(count) if is_put && revision > count => {}
        Manner::Refuses if is_put => {
            let mut response = Response::new(());
            let headers = response.headers_mut();
            headers.insert("content-type", "application/grpc".parse().expect("a value"));
            headers.insert("grpc-status", "14".parse().expect("a value"));
            headers.insert(
                "grpc-message",
                "no%20leader: 100%25".parse().expect("a value"),
            );
            let _ = respond.send_response(response, true);
            return;
        }
        _ => state.revision.set(revision),
    }
    let header = Some(ResponseHeader {
        cluster_id: u64::MAX,
        member_id: 7,
        revision: state.revision.get(),
        raft_term: 2,
    });
    let message = framed(&PutResponse { header });
    // In three parts and with a pause, so that a message does not always arrive whole.
    let mut response = Response::new(());
    response
        .headers_mut()
        .insert("content-type", "application/grpc".parse().expect("a value"));
    let Ok(mut stream) = respond.send_response(response, false) else {
        return;
    };
    let mut rest = BytesMut::new();
    rest.put(message);
    if revision % 50 == 1 {
        let front = rest.split_to(3).freeze();
        let _ = stream.send_data(front, false);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let _ = stream.send_data(rest.freeze(), false);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    trailers.insert("grpc-message", "".parse().expect("a value"));
    let _ = stream.send_trailers(trailers);
}
