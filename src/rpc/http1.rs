//! One HTTP/1.1 connection, for people, probes and load balancers.
//!
//! Runs as one task on the core that accepted it, one request at a time. Bodies are never read: no path
//! here takes one. The library has no timers of its own; a connection that finishes no request within a
//! limit is closed.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite};
use http::{HeaderName, HeaderValue, StatusCode, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;

use super::edge::{Admission, Edge};
use super::http::{self as pages, Check, Page, Route};
use super::status::{self, Status as RpcStatus};
use super::wire::{Line, Wire};
use crate::base::MemberId;
use crate::base::limits::{EDGE_HTTP1_HEAD_BYTES_MAX, EDGE_HTTP1_IDLE_MS_MAX};
use crate::runtime::router::Session;
use crate::shard::event::{Answer, ClientRequest, Request, Response, Status};

/// A body that is there as a whole.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// The way of one connection to the shard, one question at a time.
struct Asker {
    edge: Rc<Edge>,
    session: Session,
    /// The number of the last question.
    last: Cell<u32>,
    /// Requests that have been answered.
    finished: Cell<u64>,
}

/// Serves a connection that does not speak HTTP/2.
pub(super) async fn serve<IO>(wire: Wire<IO>, edge: Rc<Edge>, admission: Admission)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let asker = Rc::new(Asker {
        session: edge.router.open(),
        edge: Rc::clone(&edge),
        last: Cell::new(0),
        finished: Cell::new(0),
    });
    let service = service_fn(|request| {
        let asker = Rc::clone(&asker);
        async move { Ok::<_, Infallible>(asker.serve(&request).await) }
    });
    let connection = Builder::new()
        .header_read_timeout(None)
        // A script that closes its sending side after the request still wants the answer.
        .half_close(true)
        .max_buf_size(EDGE_HTTP1_HEAD_BYTES_MAX)
        .serve_connection(Line(wire), service);
    let mut connection = pin!(connection);
    let idle = Duration::from_millis(EDGE_HTTP1_IDLE_MS_MAX);
    let mut patience = edge.clock.sleep(idle);
    let mut finished = 0;
    let mut stopping = false;
    poll_fn(|cx| {
        if !stopping && admission.is_stopping(cx.waker()) {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while patience.as_mut().poll(cx).is_ready() {
            if asker.finished.get() == finished {
                return Poll::Ready(());
            }
            finished = asker.finished.get();
            patience = edge.clock.sleep(idle);
        }
        Poll::Pending
    })
    .await;
}

impl Asker {
    async fn serve(&self, request: &http::Request<Incoming>) -> http::Response<Whole> {
        let uri = request.uri();
        // The target counts before the header when it names a host itself.
        let header = |name| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let authority = uri.authority().map(http::uri::Authority::as_str);
        let authority = authority
            .or_else(|| header(header::HOST))
            .unwrap_or_default();
        if let Some(page) = pages::misdirected(&self.edge.config.hosts, authority) {
            self.finished.set(self.finished.get() + 1);
            return respond(page, None);
        }
        let page = match pages::route(request.method().as_str(), uri.path(), uri.query()) {
            Route::Page(page) => page,
            Route::Health {
                exclude,
                serializable,
            } => {
                let reason = self.health(&exclude, serializable).await;
                pages::health_page(reason.as_deref())
            }
            Route::Checks { checks, verbose } => {
                let mut results = Vec::with_capacity(checks.len());
                for check in checks {
                    results.push((check, self.check(check).await.err()));
                }
                pages::checks_page(&results, verbose)
            }
        };
        self.finished.set(self.finished.get() + 1);
        let origins = &self.edge.config.origins;
        respond(page, pages::allowed_origin(origins, header(header::ORIGIN)))
    }

    /// Why this member is not healthy, if it is not: alarms first, then the leader, then a read.
    async fn health(&self, exclude: &[String], serializable: bool) -> Option<String> {
        let status = match self.status().await {
            Ok(status) => status,
            Err(status) => return Some(pages::read_reason(&status)),
        };
        if let Some(reason) = pages::alarm_reason(&status.alarms, exclude) {
            return Some(reason.to_owned());
        }
        if !serializable && status.leader == MemberId(0) {
            return Some("RAFT NO LEADER".to_owned());
        }
        let read = self.ask(Request::Range(pages::probe(serializable))).await;
        read.err().map(|status| pages::read_reason(&status))
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        let text = |status: RpcStatus| status.message.into_owned();
        match check {
            Check::SerializableRead | Check::LinearizableRead => {
                let probe = pages::probe(check == Check::SerializableRead);
                self.ask(Request::Range(probe))
                    .await
                    .map(drop)
                    .map_err(text)
            }
            Check::DataCorruption => {
                let status = self.status().await.map_err(text)?;
                match pages::alarm_reason(&status.alarms, &["NOSPACE".to_owned()]) {
                    None => Ok(()),
                    Some(reason) => Err(reason.to_owned()),
                }
            }
            Check::NonLearner => {
                let status = self.status().await.map_err(text)?;
                if status.is_learner {
                    Err("not ready as it is still a learner".to_owned())
                } else {
                    Ok(())
                }
            }
        }
    }

    async fn status(&self) -> Result<Box<Status>, RpcStatus> {
        match self.ask(Request::Status).await? {
            Response::Status(status) => Ok(status),
            _ => Err(status::WRONG_ANSWER),
        }
    }

    /// Asks the shard and waits for the answer; answers to earlier, abandoned questions are dropped.
    async fn ask(&self, request: Request) -> Result<Response, RpcStatus> {
        let number = self.last.get().wrapping_add(1);
        self.last.set(number);
        let ticket = self.session.ticket(number);
        let request = ClientRequest {
            ticket,
            deadline: self.edge.clock.now() + self.edge.config.request_timeout,
            request,
        };
        if self.session.submit(Edge::SHARD, request).is_err() {
            return Err(status::TOO_MANY_REQUESTS);
        }
        let mut answers: Vec<Answer> = Vec::new();
        let answer = poll_fn(|cx| {
            while self.session.poll_answers(cx, &mut answers).is_ready() {
                if let Some(answer) = answers.drain(..).find(|answer| answer.ticket == ticket) {
                    return Poll::Ready(answer);
                }
            }
            Poll::Pending
        })
        .await;
        answer.result.map_err(RpcStatus::from)
    }
}

fn respond(page: Page, origin: Option<&str>) -> http::Response<Whole> {
    let mut response = http::Response::new(Whole(None));
    *response.status_mut() = StatusCode::from_u16(page.status).expect("pages have valid statuses");
    let headers = response.headers_mut();
    let mut fixed = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value))
    };
    fixed(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        "POST, GET, OPTIONS, PUT, DELETE",
    );
    fixed(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "accept, content-type, authorization",
    );
    if let Some(content_type) = page.content_type {
        fixed(header::CONTENT_TYPE, content_type);
    }
    if let Some(allow) = page.allow {
        fixed(header::ALLOW, allow);
    }
    if page.nosniff {
        fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    }
    if let Some(origin) = origin.and_then(|origin| HeaderValue::from_str(origin).ok()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    if !page.body.is_empty() {
        *response.body_mut() = Whole(Some(page.body.into()));
    }
    response
}
