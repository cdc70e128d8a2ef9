//! One connection from its first byte to its last: finds out the protocol and hands over.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};

use super::edge::{Edge, count};
use super::frames::PREFACE;
use super::http1;
use super::http2::Http2;
use super::wire::Wire;
use crate::base::limits::EDGE_FIRST_BYTES_MS_MAX;

/// What a client's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// The whole preface of HTTP/2.
    Http2,
    /// Anything else; HTTP/1.1 answers what is not HTTP at all.
    Http1,
}

/// Serves one client until the connection is over.
///
/// `io` is an accepted socket; the connection owns it and closes it. Completes when the client has gone,
/// broke a limit, or the core has been stopped and the calls have ended.
pub async fn serve_connection<IO>(io: IO, edge: Rc<Edge>)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Some(admission) = edge.admit() else {
        return;
    };
    let mut wire = Wire::new(io, Rc::clone(&edge));
    let mut patience = edge
        .clock
        .sleep(Duration::from_millis(EDGE_FIRST_BYTES_MS_MAX));
    let protocol = poll_fn(|cx| {
        if let Poll::Ready(protocol) = poll_protocol(&mut wire, cx) {
            return Poll::Ready(protocol);
        }
        let over = admission.is_stopping(cx.waker()) || patience.as_mut().poll(cx).is_ready();
        if over {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    })
    .await;
    drop(patience);
    match protocol {
        Some(Protocol::Http2) => pin!(Http2::new(wire, edge, admission)).await,
        Some(Protocol::Http1) => http1::serve(wire, edge, admission).await,
        None => count(&edge.counters().expelled),
    }
}

/// Reads until the protocol is clear; none when the client has gone.
fn poll_protocol<IO>(wire: &mut Wire<IO>, cx: &mut Context<'_>) -> Poll<Option<Protocol>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let unread = wire.unread();
        let compared = unread.len().min(PREFACE.len());
        if unread[..compared] != PREFACE[..compared] {
            return Poll::Ready(Some(Protocol::Http1));
        }
        if compared == PREFACE.len() {
            return Poll::Ready(Some(Protocol::Http2));
        }
        match ready!(wire.poll_more(cx)) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Poll::Ready(None),
        }
    }
}
