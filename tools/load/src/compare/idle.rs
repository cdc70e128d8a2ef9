//! What members cost of which nothing is asked, without clients and with connected ones.
//!
//! Each client has a connection of its own and has been answered once; then it is silent, and so is the generator
//! but for a look at the members each second. Must never ask anything while it measures.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use kontiki_harness::client::{Client, block_on};
use kontiki_harness::messages::{STATUS, StatusRequest, StatusResponse};

use crate::measure::{Watched, own_cpu, used};
use crate::result::{Machine, RunResult, Target, Workload};

/// Between two looks at the members, so that the highest memory is seen.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the clients may take to connect and to be answered.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);

/// What is to be measured.
pub(super) struct IdleSpec {
    /// For columns.
    pub(super) label: String,
    /// The command line.
    pub(super) command: Vec<String>,
    /// Where clients connect, in turn.
    pub(super) addresses: Vec<SocketAddr>,
    /// The members.
    pub(super) pids: Vec<u32>,
    /// Connected clients.
    pub(super) clients: usize,
    /// Silence before the measured part: what a start leaves behind is over then.
    pub(super) warm_up: Duration,
    /// The measured part.
    pub(super) duration: Duration,
}

/// Measures it, until `stop`. A run without operations comes back: its servers' CPU is all that it has.
pub(super) fn run(spec: &IdleSpec, stop: &AtomicBool) -> Result<RunResult, String> {
    let mut watched = Watched::new(&spec.pids).map_err(|error| error.to_string())?;
    let started = SystemTime::now();
    let (measured, generator, alive) = block_on(async {
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, connect(spec));
        let clients = match connected.await {
            Ok(clients) => clients?,
            Err(_) => return Err(format!("no {} clients in time", spec.clients)),
        };
        sleep(spec.warm_up, stop, || {}).await;
        watched.begin();
        let (begin, cpu_begin) = (Instant::now(), own_cpu());
        sleep(spec.duration, stop, || watched.look()).await;
        watched.look();
        let measured = (begin.elapsed(), used(cpu_begin, own_cpu()));
        // Only after the measured part: asking is work.
        let mut alive = 0;
        for client in &clients {
            alive += usize::from(ask(client).await.is_ok());
        }
        Ok((measured.0, measured.1, alive))
    })?;
    let mut partial = None;
    if alive < spec.clients {
        let gone = spec.clients - alive;
        partial = Some(format!("{gone} of {} clients were cut off", spec.clients));
    }
    for pid in watched.gone() {
        partial.get_or_insert_with(|| format!("the server with process id {pid} has ended"));
    }
    if stop.load(Ordering::Relaxed) {
        partial.get_or_insert_with(|| "interrupted".to_owned());
    }
    let summary = format!("nothing asked, {} connected clients", spec.clients);
    Ok(RunResult {
        label: spec.label.clone(),
        command: spec.command.clone(),
        generator_version: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        warmup: spec.warm_up,
        duration: measured,
        endpoints: spec.addresses.iter().map(SocketAddr::to_string).collect(),
        target: Target::default(),
        machine: Machine::read(),
        workload: Workload {
            summary,
            ..Workload::default()
        },
        operations: Vec::new(),
        servers: watched.costs(),
        generator,
        steps: Vec::new(),
        pairing: None,
        optimum: None,
        notes: Vec::new(),
        partial,
    })
}

/// All clients, each answered once; over the members in turn.
async fn connect(spec: &IdleSpec) -> Result<Vec<Client>, String> {
    let mut clients = Vec::with_capacity(spec.clients);
    for address in spec.addresses.iter().cycle().take(spec.clients) {
        let client = Client::connect(*address).await;
        let client = client.map_err(|error| format!("{address}: {error}"))?;
        ask(&client).await?;
        clients.push(client);
    }
    Ok(clients)
}

async fn ask(client: &Client) -> Result<(), String> {
    let answer = client.call::<StatusResponse>(STATUS, &StatusRequest {});
    match tokio::time::timeout(CONNECT_TIME_MAX, answer).await {
        Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {CONNECT_TIME_MAX:?}")),
    }
}

/// Lets the time pass, in steps after each of which `look` is called; ends early at `stop`.
async fn sleep(time: Duration, stop: &AtomicBool, mut look: impl FnMut()) {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()) {
        if left.is_zero() || stop.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
        look();
    }
}
