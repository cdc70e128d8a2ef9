//! The puts and reads that show when a cluster serves: a probe at a fixed interval, and load beside it.
//!
//! The probe sends a put and a linearizable read to every endpoint at every interval, whether earlier ones are
//! answered or not: what it sees is the cluster's gap, up to one interval, and not the patience of a client
//! that waits for a lost answer. A read asks for the newest put that was acknowledged before it, of either, so
//! that old data shows itself and not only an old revision. Every operation is kept with its times. Must never
//! send a put again: each has a key of its own, so that its fate can be told afterwards. Runs on two threads of
//! its own.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kontiki_harness::client::{CallError, Client, block_on};
use kontiki_harness::messages::{
    PUT, PutRequest, PutResponse, RANGE, RangeRequest, RangeResponse, ResponseHeader,
};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::verify::Stored;

/// Operations of one trial that are kept.
pub(super) const RECORDS_MAX: usize = 4_000_000;
/// Probes of one endpoint that wait for an answer at a time.
const WAITING_MAX: usize = 1_024;
/// Patience with a connection attempt: one that a stopped member does not answer must not hide its return.
const CONNECT_TIME_MAX: Duration = Duration::from_millis(200);
/// After this long without an answer a connection is given up for a new one.
const SILENT_TIME_MAX: Duration = Duration::from_secs(1);
/// A caller of the load waits so long after a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// What is asked of the stream.
#[derive(Clone, Debug)]
pub(super) struct StreamSpec {
    /// All endpoints.
    pub(super) addresses: Vec<SocketAddr>,
    /// What all keys of this stream begin with.
    pub(super) prefix: String,
    /// Between two probes of one endpoint.
    pub(super) interval: Duration,
    /// Patience with one operation. Its fate is unknown afterwards.
    pub(super) patience: Duration,
    /// Puts of the load in flight, over all endpoints.
    pub(super) in_flight: usize,
    /// Bytes of a value.
    pub(super) value_bytes: usize,
    /// Operations that are kept; at this number the stream ends itself.
    pub(super) records_max: usize,
}

/// What an operation was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// The put of the key with this number.
    Put(u64),
    /// A linearizable read of a put that was acknowledged before; none before there was one.
    Read(Option<Known>),
}

/// A put that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The number of its key.
    pub(super) number: u64,
    /// The revision it was acknowledged with.
    pub(super) revision: i64,
}

/// One operation that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) did: Did,
    /// Through which endpoint.
    pub(super) endpoint: usize,
    /// Whether the probe sent it, not the load.
    pub(super) probe: bool,
    /// Before it was sent.
    pub(super) invoked: Instant,
    /// When its answer came, and that answer's revision; none for an operation without an answer that says OK.
    pub(super) acknowledged: Option<(Instant, i64)>,
    /// What an answered read found under its key.
    pub(super) found: Option<Stored>,
}

/// A running stream. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Stream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    spec: StreamSpec,
    end: AtomicBool,
    next_key: AtomicU64,
    /// The acknowledged put of the highest revision.
    newest: Mutex<Option<Known>>,
    records: Mutex<Vec<Record>>,
}

impl Stream {
    /// Starts probe and load.
    pub(super) fn start(spec: StreamSpec) -> std::io::Result<Stream> {
        let shared = Arc::new(Shared {
            spec,
            end: AtomicBool::new(false),
            next_key: AtomicU64::new(0),
            newest: Mutex::new(None),
            records: Mutex::new(Vec::new()),
        });
        let mut stream = Stream {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        let probe = Arc::clone(&shared);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        stream
            .threads
            .push(thread("probe").spawn(move || block_on(run_probe(probe)))?);
        stream
            .threads
            .push(thread("load").spawn(move || block_on(run_load(shared)))?);
        Ok(stream)
    }

    /// What has ended so far, in the order of the ends.
    pub(super) fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.shared.records()
    }

    /// Whether it has ended itself, as it keeps no more.
    pub(super) fn is_full(&self) -> bool {
        self.records().len() >= self.shared.spec.records_max
    }

    /// Ends it, waits for what is on its way up to its patience, and gives everything; nothing if that was more than is
    /// kept, also only at the end.
    pub(super) fn finish(mut self) -> Option<Vec<Record>> {
        self.end();
        let full = self.is_full();
        (!full).then(|| std::mem::take(&mut *self.records()))
    }

    fn end(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("streams do not panic");
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        // Whoever panicked while holding it has left whole records.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, record: Record) {
        let mut records = self.records();
        if records.len() < self.spec.records_max {
            records.push(record);
        } else {
            self.end.store(true, Ordering::Relaxed);
        }
    }

    fn newest(&self) -> MutexGuard<'_, Option<Known>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    async fn put(&self, link: &Link, probe: bool) -> bool {
        let number = self.next_key.fetch_add(1, Ordering::Relaxed);
        let request = PutRequest {
            key: key(&self.spec.prefix, number).into(),
            value: value(number, self.spec.value_bytes),
        };
        let Some(client) = link.client().await else {
            return false;
        };
        let invoked = Instant::now();
        let answer = timeout(
            self.spec.patience,
            client.call::<PutResponse>(PUT, &request),
        )
        .await;
        let header = link.seen(answer.map(|answer| answer.map(|answer| answer.header)));
        if let Some(revision) = header.as_ref().map(|header| header.revision) {
            let mut newest = self.newest();
            if newest.is_none_or(|newest| newest.revision < revision) {
                *newest = Some(Known { number, revision });
            }
        }
        self.ended(link, Did::Put(number), probe, invoked, header, None)
    }

    async fn read(&self, link: &Link) -> bool {
        let Some(client) = link.client().await else {
            return false;
        };
        let known = *self.newest();
        let request = RangeRequest {
            // Before there is a put, that of the first one.
            key: key(&self.spec.prefix, known.map_or(0, |known| known.number)).into(),
            ..RangeRequest::default()
        };
        let invoked = Instant::now();
        let answer = timeout(
            self.spec.patience,
            client.call::<RangeResponse>(RANGE, &request),
        )
        .await;
        let mut found = None;
        let header = link.seen(answer.map(|answer| {
            answer.map(|answer| {
                let first = answer.kvs.first().zip(known);
                found = first.map(|(kv, known)| Stored {
                    mod_revision: kv.mod_revision,
                    version: kv.version,
                    value_is_right: kv.value == value(known.number, self.spec.value_bytes),
                });
                answer.header
            })
        }));
        self.ended(link, Did::Read(known), true, invoked, header, found)
    }

    fn ended(
        &self,
        link: &Link,
        did: Did,
        probe: bool,
        invoked: Instant,
        header: Option<ResponseHeader>,
        found: Option<Stored>,
    ) -> bool {
        let acknowledged = header.map(|header| (Instant::now(), header.revision));
        self.keep(Record {
            did,
            endpoint: link.endpoint,
            probe,
            invoked,
            acknowledged,
            found,
        });
        acknowledged.is_some()
    }
}

/// The key of a put, by its number.
pub(super) fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:016x}")
}

/// The number in a key.
pub(super) fn number_of(prefix: &str, key: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(key.strip_prefix(prefix.as_bytes())?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

/// The value of a put: its number, again and again.
pub(super) fn value(number: u64, value_bytes: usize) -> Bytes {
    number
        .to_be_bytes()
        .into_iter()
        .cycle()
        .take(value_bytes)
        .collect()
}

async fn run_probe(shared: Arc<Shared>) {
    let tasks: Vec<_> = (0..shared.spec.addresses.len())
        .map(|endpoint| tokio::task::spawn_local(probe_endpoint(Arc::clone(&shared), endpoint)))
        .collect();
    for task in tasks {
        task.await.expect("probes do not panic");
    }
}

async fn probe_endpoint(shared: Arc<Shared>, endpoint: usize) {
    let link = Rc::new(Link::new(endpoint, shared.spec.addresses[endpoint]));
    let waiting = Arc::new(Semaphore::new(WAITING_MAX));
    let mut ticks = interval(shared.spec.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !shared.has_ended() {
        ticks.tick().await;
        for reads in [false, true] {
            let Ok(permit) = Arc::clone(&waiting).try_acquire_owned() else {
                continue;
            };
            let (shared, link) = (Arc::clone(&shared), Rc::clone(&link));
            tokio::task::spawn_local(async move {
                match reads {
                    false => shared.put(&link, true).await,
                    true => shared.read(&link).await,
                };
                drop(permit);
            });
        }
    }
    // Everything that waits has its own end.
    while waiting.available_permits() < WAITING_MAX {
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn run_load(shared: Arc<Shared>) {
    let links = shared.spec.addresses.iter().enumerate();
    let links: Rc<Vec<Link>> = Rc::new(
        links
            .map(|(endpoint, address)| Link::new(endpoint, *address))
            .collect(),
    );
    let callers: Vec<_> = (0..shared.spec.in_flight)
        .map(|caller| {
            let (shared, links) = (Arc::clone(&shared), Rc::clone(&links));
            tokio::task::spawn_local(async move {
                let mut at = caller;
                while !shared.has_ended() {
                    if !shared.put(&links[at % links.len()], false).await {
                        at += 1;
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("callers do not panic");
    }
}

/// A connection to one endpoint, made anew when it breaks or stays silent.
struct Link {
    endpoint: usize,
    address: SocketAddr,
    client: RefCell<Option<Client>>,
    connecting: Cell<bool>,
    /// When it last answered, or was made.
    heard: Cell<Instant>,
}

impl Link {
    fn new(endpoint: usize, address: SocketAddr) -> Link {
        Link {
            endpoint,
            address,
            client: RefCell::new(None),
            connecting: Cell::new(false),
            heard: Cell::new(Instant::now()),
        }
    }

    /// The connection; none while there is none.
    async fn client(&self) -> Option<Client> {
        if let Some(client) = self.client.borrow().clone() {
            return Some(client);
        }
        if self.connecting.replace(true) {
            return None;
        }
        let made = timeout(CONNECT_TIME_MAX, Client::connect(self.address)).await;
        self.connecting.set(false);
        let client = made.ok()?.ok()?;
        self.heard.set(Instant::now());
        *self.client.borrow_mut() = Some(client.clone());
        Some(client)
    }

    /// Takes note of how an operation ended, and gives the header of a good answer. One without a header counts as of
    /// revision zero, which is never right: it is an acknowledgement, and as none it would never be missed.
    fn seen<T>(
        &self,
        ended: Result<Result<Option<ResponseHeader>, CallError>, T>,
    ) -> Option<ResponseHeader> {
        match ended {
            Ok(Ok(header)) => {
                self.heard.set(Instant::now());
                Some(header.unwrap_or_default())
            }
            Ok(Err(CallError::Refused { .. })) => {
                self.heard.set(Instant::now());
                None
            }
            Ok(Err(CallError::Broken(_) | CallError::NotTaken(_))) => {
                self.client.borrow_mut().take();
                None
            }
            Err(_) => {
                if self.heard.get().elapsed() > SILENT_TIME_MAX {
                    self.client.borrow_mut().take();
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an answer without a header is an answer, of a revision that no store gives.
    #[test]
    fn answers_without_a_header() {
        let link = Link::new(0, SocketAddr::from(([127, 0, 0, 1], 1)));
        let header = |revision| ResponseHeader {
            revision,
            ..ResponseHeader::default()
        };
        let check = |ended: Result<Result<Option<ResponseHeader>, CallError>, ()>, expected| {
            let seen = link.seen(ended).map(|header| header.revision);
            assert_eq!(seen, expected);
        };
        check(Ok(Ok(Some(header(7)))), Some(7));
        check(Ok(Ok(None)), Some(0));
        check(Ok(Err(CallError::Broken("gone".to_owned()))), None);
        check(Err(()), None);
    }

    /// Goal: a stream is full also by what ends only while it is finished: by puts and reads that nobody answers.
    #[test]
    fn full_at_the_end() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let finished = |records_max| {
            let spec = StreamSpec {
                addresses: vec![silent.local_addr().expect("bound")],
                prefix: "t/".to_owned(),
                interval: Duration::from_millis(1),
                patience: Duration::from_millis(500),
                in_flight: 4,
                value_bytes: 8,
                records_max,
            };
            let stream = Stream::start(spec).expect("threads");
            // Of probe and load: whoever has made one sends something, and waits for the answer.
            let connections = [(); 2].map(|()| silent.accept().expect("a connection"));
            assert!(!stream.is_full());
            let finished = stream.finish().map(|records| records.len());
            drop(connections);
            finished
        };
        assert_eq!(finished(1), None);
        assert!(finished(RECORDS_MAX).is_some_and(|count| count > 1));
    }

    /// Goal: a key tells its number, and no other key does.
    #[test]
    fn keys_tell_numbers() {
        let check = |key: &[u8], expected: Option<u64>| assert_eq!(number_of("a/", key), expected);
        check(key("a/", 77).as_bytes(), Some(77));
        check(b"b/000000000000004d", None);
        check(b"a/zz", None);
        check(b"a/\xff", None);
        assert_eq!(value(1, 10).as_ref(), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
