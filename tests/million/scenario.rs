//! A million keys of a real server: put, deleted by one request, and gone after a restart.
//!
//! Used by a test, which looks at what the clients see, and by a bench, which looks at how long the core
//! worked at once.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kontiki::rpc::pb::etcdserverpb as pb;
use kontiki_harness::client::{Client, block_on};
use kontiki_harness::segments::log_end;
use kontiki_harness::server::{Server, ServerOptions};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const TXN: &str = "/etcdserverpb.KV/Txn";
const RANGE: &str = "/etcdserverpb.KV/Range";
const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Puts of one transaction: etcd's default maximum.
const TXN_PUTS: usize = 128;
/// Transactions in flight.
const TXNS_IN_FLIGHT: usize = 32;
/// A stop is done after this.
const END_TIME_MAX: Duration = Duration::from_secs(30);

/// What happened.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Keys the one request deleted.
    pub(crate) deleted: i64,
    /// Revisions it took.
    pub(crate) revisions: i64,
    /// Entries it took.
    pub(crate) entries: u64,
    /// Bytes by which it made the log longer, commits that follow of themselves included.
    pub(crate) log_bytes: u64,
    /// Keys left after it, and after the restart.
    pub(crate) left: [i64; 2],
    /// Whether the revision was the same after the restart.
    pub(crate) revision_kept: bool,
    /// How long putting, deleting and the restart took.
    pub(crate) took: [(&'static str, Duration); 3],
    /// The longest turn of any core before and after the restart, in microseconds.
    pub(crate) longest_turn_us: [u64; 2],
    /// What the processes say about their cores, line by line.
    pub(crate) cores: Vec<String>,
}

/// Runs it with `keys` keys with values of `value_bytes`, with everything below `home`.
pub(crate) fn run(program: &Path, home: &Path, keys: usize, value_bytes: usize) -> Outcome {
    let options = ServerOptions::new(program, home).expect("free ports");
    let server = Server::start(&options).expect("a start");
    let start = Instant::now();
    block_on(fill(&options, keys, value_bytes));
    let filled = start.elapsed();

    let (before, log_before) = (block_on(status(&options)), log_bytes(&options));
    let start = Instant::now();
    let deletion = block_on(async {
        let (key, range_end) = everything();
        let request = pb::DeleteRangeRequest {
            key,
            range_end,
            prev_kv: false,
        };
        let answer: pb::DeleteRangeResponse = call(&options, DELETE_RANGE, &request).await;
        answer
    });
    let deleting = start.elapsed();
    let (after, log_after) = (block_on(status(&options)), log_bytes(&options));
    let (left, revision) = block_on(count(&options));
    end(server);
    let first_cores = cores(&options.log).expect("a log");

    let start = Instant::now();
    let server = Server::start(&options).expect("a restart");
    let restarting = start.elapsed();
    let (left_after, revision_after) = block_on(count(&options));
    end(server);
    let cores = cores(&options.log).expect("a log");
    let (first, second) = cores.split_at(first_cores.len());
    Outcome {
        deleted: deletion.deleted,
        revisions: revision - revision_of(before.header.as_ref()),
        entries: after.raft_index - before.raft_index,
        log_bytes: log_after - log_before,
        left: [left, left_after],
        revision_kept: revision_after == revision,
        took: [
            ("put", filled),
            ("delete", deleting),
            ("restart", restarting),
        ],
        longest_turn_us: [longest(first), longest(second)],
        cores,
    }
}

fn end(server: Server) {
    let status = server.terminate(END_TIME_MAX).expect("an end");
    assert_eq!(status.code(), Some(0), "{status}");
}

/// The interval that holds every key of [`fill`].
fn everything() -> (Bytes, Bytes) {
    (
        Bytes::from_static(b"/registry/pods/"),
        Bytes::from_static(b"/registry/pods0"),
    )
}

async fn call<A: prost::Message + Default>(
    options: &ServerOptions,
    path: &'static str,
    request: &impl prost::Message,
) -> A {
    let client = Client::connect(options.client_address())
        .await
        .expect("a connection");
    client.call(path, request).await.expect("an answer")
}

async fn fill(options: &ServerOptions, keys: usize, value_bytes: usize) {
    let client = Client::connect(options.client_address())
        .await
        .expect("a connection");
    let in_flight = Rc::new(Semaphore::new(TXNS_IN_FLIGHT));
    let value = Bytes::from(vec![7; value_bytes]);
    let mut calls = JoinSet::new();
    for first in (0..keys).step_by(TXN_PUTS) {
        let permit = Rc::clone(&in_flight);
        // The numbers are spread, so that neighbours in the key space are none in memory.
        let put = |number: usize| {
            let spread = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let put = pb::PutRequest {
                key: Bytes::from(format!("/registry/pods/{spread:016x}")),
                value: value.clone(),
                ..pb::PutRequest::default()
            };
            let request = Some(pb::request_op::Request::RequestPut(put));
            pb::RequestOp { request }
        };
        let request = pb::TxnRequest {
            success: (first..(first + TXN_PUTS).min(keys)).map(put).collect(),
            ..pb::TxnRequest::default()
        };
        let slot = in_flight.acquire().await.expect("it is never closed");
        slot.forget();
        let client = client.clone();
        calls.spawn_local(async move {
            let answer: pb::TxnResponse = client.call(TXN, &request).await.expect("an answer");
            permit.add_permits(1);
            assert!(answer.succeeded);
        });
        while let Some(ended) = calls.try_join_next() {
            ended.expect("calls do not panic");
        }
    }
    while let Some(ended) = calls.join_next().await {
        ended.expect("calls do not panic");
    }
}

async fn status(options: &ServerOptions) -> pb::StatusResponse {
    call(options, STATUS, &pb::StatusRequest::default()).await
}

/// The number of keys, and the current revision.
async fn count(options: &ServerOptions) -> (i64, i64) {
    let (key, range_end) = everything();
    let request = pb::RangeRequest {
        key,
        range_end,
        count_only: true,
        ..pb::RangeRequest::default()
    };
    let answer: pb::RangeResponse = call(options, RANGE, &request).await;
    (answer.count, revision_of(answer.header.as_ref()))
}

fn revision_of(header: Option<&pb::ResponseHeader>) -> i64 {
    header.expect("every answer has a header").revision
}

/// Bytes of the log that are written, in all segments but for headers.
fn log_bytes(options: &ServerOptions) -> u64 {
    let end = log_end(&options.data_dir).expect("log files");
    end.segments.saturating_sub(1) as u64 * end.size_bytes + end.used_bytes
}

/// The lines in which ended cores say how they did.
fn cores(log: &Path) -> io::Result<Vec<String>> {
    let log = std::fs::read_to_string(log)?;
    let lines = log.lines().filter(|line| line.contains("core ended"));
    Ok(lines.map(str::to_owned).collect())
}

fn longest(cores: &[String]) -> u64 {
    let turn = |line: &String| -> u64 {
        let line: serde_json::Value = serde_json::from_str(line).expect("log lines are JSON");
        line["longest_turn_us"].as_u64().expect("a number")
    };
    cores.iter().map(turn).max().expect("there is a core")
}
