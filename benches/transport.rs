//! What a message between members costs: its way into the kernel, and there and back over loopback.
//!
//! `cargo bench --bench transport` prints one line per run and the medians; without `--bench`, or with
//! `--test`, it runs small, as a test. The first part compares ways to hand the records of an append to the
//! kernel: all copied into one row, all gathered from where they lie, and what the product does, small ones
//! copied and large ones gathered. The second sends appends to a member on another core, which acknowledges
//! each; CPU is that of both cores' threads.

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kontiki::base::limits::{ENTRY_SIZE_BYTES_MAX, PEER_COPIED_BYTES_MAX};
use kontiki::base::{ClusterId, Incarnation, Index, MemberId, ShardId, Term};
use kontiki::frame::{Encoder, PageBuffer};
use kontiki::raft::{
    Append, AppendResponse, AppendResult, Body, Entries, Matched, Message, Position, Standing,
};
use kontiki::runtime::clock::Clock;
use kontiki::runtime::executor::{self, sleep};
use kontiki::runtime::mailbox::{Sender, mailbox};
use kontiki::runtime::net::{Listener, Sharing, open};
use kontiki::runtime::peer_socket::PeerSocket;
use kontiki::runtime::placement::{Core, CoreRequest, Ready, choose, start};
use kontiki::runtime::preflight;
use kontiki::shard::event::PeerMessage;
use kontiki::transport::outgoing::Unsent;
use kontiki::transport::{Transport, TransportConfig, TransportEvent};

const SILENCE: Duration = Duration::from_secs(10);
const SHARD: ShardId = ShardId(0);
/// Bytes of one append, as far as records of one size fit.
const APPEND_BYTES: usize = 512 << 10;
/// Values of the records that are compared.
const VALUES: [usize; 6] = [64, 256, 1 << 10, 4 << 10, 16 << 10, 256 << 10];
/// Ways to the kernel: up to which size records are copied.
const WAYS: [(&str, usize); 3] = [
    ("copied", usize::MAX),
    ("gathered", 0),
    ("product", PEER_COPIED_BYTES_MAX),
];
/// Appends under way at the same time, and the records of each.
const WINDOWS: [(usize, usize); 4] = [(1, 1), (1, 64), (16, 1), (16, 64)];

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    repetitions: usize,
    sent_bytes: usize,
    round_trips: usize,
}

const FULL: Scale = Scale {
    repetitions: 5,
    sent_bytes: 256 << 20,
    round_trips: 20_000,
};
const SMALL: Scale = Scale {
    repetitions: 1,
    sent_bytes: 1 << 20,
    round_trips: 50,
};

/// An append of records with such values, which lie in one piece of memory as a shard's newest do.
fn append(value_bytes: usize, count: usize, first: u64) -> PeerMessage {
    let mut encoder = Encoder::new(ENTRY_SIZE_BYTES_MAX);
    let mut entries = Entries::default();
    let mut lengths = Vec::new();
    let mut buffer = PageBuffer::new();
    for index in (first..).take(count) {
        let record = encoder
            .entry(
                Term(1),
                Index(index),
                &vec![0x5a_u8; value_bytes],
                &mut buffer,
            )
            .expect("it fits");
        entries.push(Term(1), record.len() as u64);
        lengths.push(record.len());
    }
    let mut chunk = BytesMut::from(&buffer[..]);
    let records = lengths
        .iter()
        .map(|length| chunk.split_to(*length).freeze());
    let records: Vec<Bytes> = records.collect();
    raft(
        Body::Append(Append {
            prev: Position {
                term: Term(1),
                index: Index(first - 1),
            },
            entries,
            commit: Index(0),
            probe: false,
        }),
        records,
    )
}

fn acknowledgement(index: Index) -> PeerMessage {
    let matched = Matched {
        durable: index,
        verified: index,
    };
    raft(
        Body::AppendResponse(AppendResponse {
            result: AppendResult::Accepted(matched),
            standing: Standing::Whole,
        }),
        Vec::new(),
    )
}

fn raft(body: Body, records: Vec<Bytes>) -> PeerMessage {
    PeerMessage::Raft {
        message: Message {
            term: Term(1),
            incarnation: Incarnation(1),
            body,
        },
        records,
    }
}

/// Nanoseconds that this thread has used a CPU.
fn thread_cpu_nanos() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts");
    let first = text.split_whitespace().next().expect("three numbers");
    first.parse().expect("a number")
}

/// Sends so many bytes in appends to a thread that throws them away; nanoseconds of CPU for each record.
fn to_the_kernel(cpu: usize, copied_bytes_max: usize, value_bytes: usize, bytes: usize) -> f64 {
    let listener = open(loopback(), 1, Sharing::Exclusive)
        .expect("a port")
        .remove(0);
    let address = listener.local_addr();
    let (result, mut results) = mailbox(1);
    let work = move |_core: Core, (): (), ready: Ready| {
        let result = result.clone();
        async move {
            ready.succeed();
            let socket = PeerSocket::connect(address, SILENCE).await.expect("open");
            let mut sender = socket.sender;
            let count = (APPEND_BYTES / (value_bytes + 48)).max(1);
            let message = append(value_bytes, count, 1);
            let mut unsent = Unsent::copying(1, SHARD, copied_bytes_max);
            let (mut sent, mut records) = (0, 0);
            // Read seldom: the kernel counts in ticks.
            let before = thread_cpu_nanos();
            while sent < bytes {
                unsent.add(&message).expect("it fits");
                records += count;
                sent += unsent.size_bytes();
                while unsent.size_bytes() > 0 {
                    let taken = sender.try_send(&unsent.slices()).expect("open");
                    let count = match taken {
                        Some(count) => count,
                        None => std::future::poll_fn(|cx| sender.poll_send(cx, unsent.first()))
                            .await
                            .expect("open"),
                    };
                    unsent.sent(count);
                }
            }
            let nanos = thread_cpu_nanos() - before;
            sender.close();
            result
                .send(nanos as f64 / records as f64)
                .expect("one result");
        }
    };
    let reader = std::thread::spawn(move || {
        executor::run(async move {
            let (taken, mut take) = mailbox(1);
            let serving = executor::spawn_local(
                executor::Queue::Connections,
                listener.serve(move |accepted| {
                    // More than one would be somebody else's.
                    let _taken = taken.send(accepted);
                }),
            );
            let accepted = take.receive().await.expect("connected");
            drop(serving);
            let mut socket = PeerSocket::accepted(accepted, SILENCE).expect("open");
            let mut buffer = Vec::with_capacity(1 << 20);
            while socket
                .receiver
                .receive(&mut buffer)
                .await
                .is_ok_and(|n| n > 0)
            {
                buffer.clear();
            }
        })
        .expect("a ring");
    });
    start(vec![(cpu, ())], None, work).expect("a core").join();
    reader.join().expect("all was read");
    results.try_receive().expect("a result")
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// One side of the round trips.
struct Side {
    leads: bool,
    window: usize,
    records: usize,
    round_trips: usize,
    listener: Listener,
    peer: (MemberId, Vec<String>),
    found: Sender<Found>,
}

/// What a side found: times of the round trips, of all of them together, and of its CPU, in nanoseconds.
struct Found {
    each: Vec<u64>,
    total: u64,
    cpu: u64,
}

/// Appends to a member on another CPU and back: p50 and p99 in us, records in a second, CPU of both sides for
/// each append in us.
fn round_trips(cpus: [usize; 2], window: usize, records: usize, count: usize) -> [f64; 4] {
    let (found, mut all) = mailbox(2);
    let [first, second] = [1, 2].map(|_| {
        open(loopback(), 1, Sharing::Exclusive)
            .expect("a port")
            .remove(0)
    });
    let url = |listener: &Listener| vec![format!("http://{}", listener.local_addr())];
    let side = |leads, listener, peer| Side {
        leads,
        window,
        records,
        round_trips: count,
        listener,
        peer,
        found: found.clone(),
    };
    let (to_second, to_first) = (url(&second), url(&first));
    let sides = [
        side(true, first, (MemberId(2), to_second)),
        side(false, second, (MemberId(1), to_first)),
    ];
    let places = cpus.into_iter().zip(sides).collect();
    start(places, None, play).expect("two cores").join();
    let mut found = [all.try_receive(), all.try_receive()].map(|found| found.expect("both"));
    let cpu: u64 = found.iter().map(|found| found.cpu).sum();
    let lead = found
        .iter_mut()
        .find(|found| !found.each.is_empty())
        .expect("one leads");
    lead.each.sort_unstable();
    let at = |percent: usize| lead.each[(lead.each.len() - 1) * percent / 100] as f64 / 1e3;
    [
        at(50),
        at(99),
        (lead.each.len() * records) as f64 / (lead.total as f64 / 1e9),
        cpu as f64 / lead.each.len() as f64 / 1e3,
    ]
}

async fn play(_core: Core, side: Side, ready: Ready) {
    ready.succeed();
    let id = MemberId(if side.leads { 1 } else { 2 });
    let config = TransportConfig::new(ClusterId(1), id, Incarnation(id.0.into()), SHARD);
    let mut transport = Transport::start(config, vec![side.listener]);
    transport.set_peers(std::slice::from_ref(&side.peer));
    let found = if side.leads {
        let message = append(256, side.records, 1);
        // What both sides have opened is there, and what was sent meanwhile is gone.
        sleep(Duration::from_millis(200)).await;
        lead(
            &mut transport,
            side.peer.0,
            &message,
            side.window,
            side.round_trips,
        )
        .await
    } else {
        follow(&mut transport).await
    };
    side.found.send(found).ok().expect("room for two");
}

/// Keeps a window of appends under way; each acknowledgement sends the next one.
async fn lead(
    transport: &mut Transport,
    to: MemberId,
    message: &PeerMessage,
    window: usize,
    count: usize,
) -> Found {
    let clock = Clock::new();
    let mut under_way: VecDeque<u64> = VecDeque::new();
    let mut each = Vec::with_capacity(count);
    let started = clock.now();
    let cpu = thread_cpu_nanos();
    let mut sent = 0;
    while each.len() < count {
        while under_way.len() < window && sent < count {
            transport.send(to, message.clone());
            under_way.push_back(clock.now().0);
            sent += 1;
        }
        transport.flush();
        let mut next = Some(event(transport).await);
        while let Some(event) = next {
            if let TransportEvent::Received { .. } = event {
                let since = under_way.pop_front().expect("each is answered once");
                each.push(clock.now().0 - since);
            }
            next = event_now(transport).await;
        }
    }
    Found {
        each,
        total: u64::try_from(clock.now().since(started).as_nanos()).expect("not for centuries"),
        cpu: thread_cpu_nanos() - cpu,
    }
}

/// Acknowledges until the other side leaves.
async fn follow(transport: &mut Transport) -> Found {
    let mut cpu = None;
    loop {
        let mut next = Some(event(transport).await);
        while let Some(event) = next {
            let TransportEvent::Received { from, .. } = event else {
                return Found {
                    each: Vec::new(),
                    total: 0,
                    cpu: thread_cpu_nanos() - cpu.expect("something came first"),
                };
            };
            cpu = cpu.or_else(|| Some(thread_cpu_nanos()));
            transport.send(from, acknowledgement(Index(1)));
            next = event_now(transport).await;
        }
        transport.flush();
    }
}

async fn event(transport: &mut Transport) -> TransportEvent {
    std::future::poll_fn(|cx| transport.poll_event(cx)).await
}

async fn event_now(transport: &mut Transport) -> Option<TransportEvent> {
    std::future::poll_fn(|cx| match transport.poll_event(cx) {
        Poll::Ready(event) => Poll::Ready(Some(event)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The median of some figures.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name| arguments.iter().any(|argument| argument == name);
    let scale = if has("--bench") && !has("--test") {
        FULL
    } else {
        SMALL
    };
    preflight::check().unwrap_or_else(|error| panic!("{error}"));
    let allowed = choose(&CoreRequest::All).expect("cores");
    let cpus = [allowed[0], *allowed.last().expect("at least one")];

    println!(
        "to the kernel, ns of the sender's CPU for each record (median of {})",
        scale.repetitions
    );
    println!("value bytes,{}", WAYS.map(|(name, _)| name).join(","));
    for value_bytes in VALUES {
        // What is compared takes turns.
        let mut figures = WAYS.map(|_| Vec::new());
        for _ in 0..scale.repetitions {
            for ((_, copied), figures) in WAYS.iter().zip(&mut figures) {
                figures.push(to_the_kernel(
                    cpus[1],
                    *copied,
                    value_bytes,
                    scale.sent_bytes,
                ));
            }
        }
        let medians = figures.map(|figures| format!("{:.0}", median(figures)));
        println!("{value_bytes},{}", medians.join(","));
    }

    println!(
        "there and back, values of 256 bytes (medians of {})",
        scale.repetitions
    );
    println!("appends under way,records each,p50 us,p99 us,records/s,CPU us of both for an append");
    for (window, records) in WINDOWS {
        let mut figures = [const { Vec::new() }; 4];
        for _ in 0..scale.repetitions {
            let found = round_trips(cpus, window, records, scale.round_trips);
            for (figures, figure) in figures.iter_mut().zip(found) {
                figures.push(figure);
            }
        }
        let [p50, p99, rate, cpu] = figures.map(median);
        println!("{window},{records},{p50:.1},{p99:.1},{rate:.0},{cpu:.2}");
    }
}
