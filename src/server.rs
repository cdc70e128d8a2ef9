//! Puts the pieces together: which cores, which directory, which sockets; starts them in order, and
//! stops them in order.
//!
//! ```text
//! start   pre-flight -> directory, identity -> ports -> cores -> log recovered -> serving -> accept
//! stop    signal -> no new calls -> calls end -> log sealed -> exit
//! ```

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::base::limits::{
    CHECKPOINT_ANSWERS_MAX, CONNECTION_DRAIN_SECONDS_MAX, DESCRIPTORS_RESERVED, DISK_ANSWERS_MAX,
    EDGE_CONNECTIONS_DEFAULT, EDGE_CORE_HELD_BYTES_DEFAULT, EDGE_STREAMS_DEFAULT,
    MAILBOX_BATCHES_MAX, RECENT_ENTRIES_BYTES_MAX, SEGMENT_SIZE_BYTES,
};
use crate::base::planted::Planted;
use crate::base::{CoreId, Incarnation, ShardId};
use crate::config::{self, AllowList, ClusterState, Config, Cores as CoresFlag, WalWrite};
use crate::raft::Windows;
use crate::rpc::{self, Allowed, CoreClock, Edge, EdgeConfig, EdgeReading};
use crate::runtime::clock::Clock;
use crate::runtime::core::{Mail, ShardCore, Turns, open_active};
use crate::runtime::disk::checkpoint::CheckpointThread;
use crate::runtime::disk::device::DeviceReport;
use crate::runtime::disk::directory::{DataDirectory, DirectoryError, files_in};
use crate::runtime::disk::identity::{self, Identity, IdentityError};
use crate::runtime::disk::log::{LogWriter, WriteMode};
use crate::runtime::disk::segments::{DiskSettings, DiskThread};
use crate::runtime::disk::workers;
use crate::runtime::executor::{Queue, sleep, spawn_local};
use crate::runtime::mailbox::{Receiver, Sender, mailbox};
use crate::runtime::net::{self, ListenError, Listener, Sharing};
use crate::runtime::placement::{self, Core, CoreRequest, PlacementError, Ready, StartError};
use crate::runtime::preflight::{self, PreflightError};
use crate::runtime::recovery::{self, Places, RecoveryError, recover};
use crate::runtime::router::{Doorbell, Outbound, Router};
use crate::runtime::scrub::{self, Scrubbed};
use crate::runtime::signals::{self, Signal};
use crate::runtime::{beside, fatal, mmap};
use crate::shard::checkpoints::CheckpointLimits;
use crate::shard::event::{self, ClientRequest, KnownMembers, Member};
use crate::shard::members::MembershipRules;
use crate::shard::{Settings, Shard};
use crate::wal::{Geometry, LogIdentity, SegmentSequence};

/// The one shard there is.
const SHARD: ShardId = ShardId(0);
/// The core that owns it.
const SHARD_CORE: CoreId = CoreId(0);
/// The API level that the cluster version says.
const CLUSTER_VERSION: (u32, u32) = (3, 7);
/// Between two looks at whether all connections have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// This machine cannot run it.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The cores asked for are not to be had.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Whose data it is cannot be told.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A member that joins a running cluster is not supported yet.
    #[error(
        "--initial-cluster-state=existing: {} is empty, and joining a running cluster is not \
         supported yet; use --initial-cluster-state=new to found one",
        directory.display()
    )]
    JoinUnsupported {
        /// The data directory.
        directory: PathBuf,
    },
    /// A log without its identity file.
    #[error(
        "{}: there is a log but no identity file beside it; restore the file from a backup, or use \
         another --data-dir",
        directory.display()
    )]
    IdentityLost {
        /// The data directory.
        directory: PathBuf,
    },
    /// A port is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A core did not come up.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The kernel refuses something it grants every process.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Runs a member until it is told to stop.
///
/// # Errors
/// Why it did not start; it then changed nothing that was there before.
pub fn run(config: Config) -> Result<(), ServerError> {
    fatal::install_panic_hook();
    let process = preflight::check()?;
    beside::remember_cpus();
    let cpus = placement::choose(&match &config.placement.cores {
        CoresFlag::All => CoreRequest::All,
        CoresFlag::Count(count) => CoreRequest::Count(*count),
        CoresFlag::List(list) => CoreRequest::List(list.clone()),
    })?;
    let directory = DataDirectory::open(&config.data_dir)?;
    let apart = config
        .wal_dir
        .as_deref()
        .map(DataDirectory::open)
        .transpose()?;
    let log_directory = apart.as_ref().unwrap_or(&directory).log_directory(SHARD)?;
    let checkpoints = directory.checkpoint_directory(SHARD)?;
    let identity = found_or_load(&config, &directory, &log_directory)?;
    mmap::install_sigbus_handler(&log_directory).map_err(|source| ServerError::System {
        action: "handle SIGBUS",
        source,
    })?;
    let mut sockets = Sockets::open(&config, cpus.len())?;
    let addresses = sockets.addresses.clone();
    report_device(&log_directory)?;

    let seed = identity::random_u64().map_err(|source| ServerError::System {
        action: "read random bytes",
        source,
    })?;
    let shared = Shared {
        clock: Clock::new(),
        settings: settings(&config, &identity, seed),
        edge: edge_config(&config, connections_max(process.descriptors, cpus.len())),
        log_identity: LogIdentity {
            cluster: identity.cluster,
            member: identity.member,
            incarnation: identity.incarnation,
            shard: SHARD,
        },
        places: Places {
            log: log_directory,
            checkpoints,
        },
        mode: match config.placement.wal_write {
            WalWrite::Mapped => WriteMode::Mapped,
            WalWrite::Written => WriteMode::Written,
        },
        open_edges: Arc::new(AtomicUsize::new(cpus.len())),
    };
    let mut mail = Vec::new();
    let mut received = Vec::new();
    let mut stop = Vec::new();
    let mut stopped = Vec::new();
    for _ in &cpus {
        let (sender, receiver) = mailbox::<Mail>(MAILBOX_BATCHES_MAX);
        mail.push(sender);
        received.push(receiver);
        let (sender, receiver) = mailbox::<Signal>(1);
        stop.push(sender);
        stopped.push(receiver);
    }
    let (requests, requests_received) = mailbox::<Vec<ClientRequest>>(MAILBOX_BATCHES_MAX);
    let mut requests_received = Some(requests_received);
    let mut places = Vec::new();
    let mut fared: Vec<Arc<OnceLock<EdgeReading>>> = Vec::new();
    for (id, ((&cpu, mail_received), stopped)) in (0..)
        .map(CoreId)
        .zip(cpus.iter().zip(received).zip(stopped))
    {
        let role = match requests_received.take() {
            Some(requests) => {
                let others = (0..).map(CoreId).zip(&mail);
                let others = others.map(|(other, mail)| (other != id).then(|| mail.clone()));
                Role::Shard {
                    requests,
                    cores: others.collect(),
                }
            }
            None => Role::Connections {
                requests: requests.clone(),
            },
        };
        let listeners = sockets.for_core();
        let shared = shared.clone();
        let clients = Arc::new(OnceLock::new());
        fared.push(Arc::clone(&clients));
        places.push((
            cpu,
            Part {
                shared,
                listeners,
                mail: mail_received,
                stopped,
                clients,
                role,
            },
        ));
    }
    drop((requests, mail));
    signals::watch(stop).map_err(|source| ServerError::System {
        action: "watch signals",
        source,
    })?;
    let cores = match placement::start(places, None, core_main) {
        Err(StartError::Work { source, .. }) if source.is::<StoppedEarly>() => {
            tracing::info!("stopped before it served");
            return Ok(());
        }
        started => started?,
    };
    let stats = cores.stats().to_vec();
    tracing::info!(
        cluster_id = %identity.cluster,
        member_id = %identity.member,
        client_addresses = ?addresses,
        cpus = ?cpus,
        "ready to serve client requests"
    );
    cores.join();
    for (core, (stats, clients)) in stats.iter().zip(fared).enumerate() {
        let reading = stats.read();
        let clients = clients.get().copied().unwrap_or_default();
        tracing::info!(
            core,
            turns = reading.turns,
            stalls = reading.stalls,
            longest_turn_us = u64::try_from(reading.longest_turn.as_micros()).unwrap_or(u64::MAX),
            freezes = reading.freezes,
            connections_accepted = clients.accepted,
            connections_refused = clients.refused,
            connections_expelled = clients.expelled,
            calls = clients.calls,
            calls_overloaded = clients.overloaded,
            calls_slow = clients.slow,
            "core ended"
        );
    }
    drop((apart, directory));
    tracing::info!("stopped");
    Ok(())
}

/// The identity of an existing directory, or a new one for an empty one.
fn found_or_load(
    config: &Config,
    directory: &DataDirectory,
    log_directory: &Path,
) -> Result<Identity, ServerError> {
    if let Some(identity) = identity::load(directory)? {
        identity::check_owner(log_directory, identity.incarnation)?;
        return Ok(identity);
    }
    let path = directory.path().to_path_buf();
    let has_segments = files_in(log_directory)?.iter().any(|file| {
        let name = file.file_name().and_then(|name| name.to_str());
        name.and_then(SegmentSequence::from_file_name).is_some()
    });
    if has_segments {
        return Err(ServerError::IdentityLost { directory: path });
    }
    if config.initial.state == ClusterState::Existing {
        return Err(ServerError::JoinUnsupported { directory: path });
    }
    let incarnation = identity::random_u128().map_err(|source| ServerError::System {
        action: "read random bytes",
        source,
    })?;
    let identity = Identity {
        cluster: config.initial.cluster_id,
        member: config.initial.member_id,
        incarnation: Incarnation(incarnation),
        name: config.name.clone(),
        created_by: config::KONTIKI_VERSION.to_owned(),
    };
    identity::store_owner(log_directory, identity.incarnation)?;
    identity::store(directory, &identity)?;
    Ok(identity)
}

/// The line about the log's device, from a thread of its own: its probe waits for the disk.
fn report_device(log_directory: &Path) -> Result<(), ServerError> {
    let directory = log_directory.to_path_buf();
    std::thread::Builder::new()
        .name("device".into())
        .spawn(move || DeviceReport::of(&directory).log())
        .map(drop)
        .map_err(|source| ServerError::System {
            action: "start a thread",
            source,
        })
}

/// The listening sockets of all cores.
struct Sockets {
    addresses: Vec<SocketAddr>,
    /// Per address, one listener for each core.
    listeners: Vec<Vec<Listener>>,
}

impl Sockets {
    fn open(config: &Config, core_count: usize) -> Result<Sockets, ListenError> {
        let sharing = if config.reuse_port {
            Sharing::Shared
        } else {
            Sharing::Exclusive
        };
        let mut sockets = Sockets {
            addresses: Vec::new(),
            listeners: Vec::new(),
        };
        for url in &config.urls.listen_client {
            let listeners = net::open(url.socket_address(), core_count, sharing)?;
            sockets.addresses.push(listeners[0].local_addr());
            sockets.listeners.push(listeners);
        }
        Ok(sockets)
    }

    fn for_core(&mut self) -> Vec<Listener> {
        self.listeners.iter_mut().filter_map(Vec::pop).collect()
    }
}

fn settings(config: &Config, identity: &Identity, seed: u64) -> Settings {
    let texts = |urls: &[config::Url]| urls.iter().map(|url| url.as_str().to_owned()).collect();
    let member = Member {
        id: identity.member,
        name: config.name.clone(),
        peer_urls: texts(&config.urls.advertise_peer),
        client_urls: texts(&config.urls.advertise_client),
        is_learner: false,
    };
    Settings {
        shard: SHARD,
        identity: event::Identity {
            cluster: identity.cluster,
            member: identity.member,
        },
        initial_members: vec![member.clone()],
        membership: MembershipRules::default(),
        member,
        incarnation: identity.incarnation,
        // Alone, this member is the majority that knows no other directory.
        known: KnownMembers {
            confirmed: true,
            ..KnownMembers::default()
        },
        version: CLUSTER_VERSION,
        quota_bytes: config.limits.quota_bytes,
        memory_budget_bytes: config.memory_budget_bytes.unwrap_or(u64::MAX),
        election_timeout: config.raft.election_timeout,
        // A member that is alone sends no heartbeats.
        heartbeat_interval: config.raft.election_timeout / 5,
        pre_vote: true,
        windows: Windows::default(),
        recent_bytes_max: RECENT_ENTRIES_BYTES_MAX,
        checkpoints: CheckpointLimits {
            payload_bytes_min: config.placement.checkpoint_payload_bytes,
            log_bytes_max: config.placement.checkpoint_log_bytes,
        },
        seed,
        planted: Planted::NOTHING,
    }
}

/// Client connections of one core, so that the log never lacks a descriptor because of them.
fn connections_max(descriptors: Option<u64>, core_count: usize) -> usize {
    let for_clients = descriptors.map_or(usize::MAX, |descriptors| {
        usize::try_from(descriptors.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(usize::MAX)
    });
    EDGE_CONNECTIONS_DEFAULT
        .min(for_clients / core_count)
        .max(1)
}

fn edge_config(config: &Config, connections_max: usize) -> EdgeConfig {
    const NEVER: Duration = Duration::from_secs(u32::MAX as u64);
    EdgeConfig {
        request_size_bytes_max: config.limits.request_size_bytes_max,
        transaction_operations_max: usize::try_from(config.limits.txn_operations_max)
            .unwrap_or(usize::MAX),
        request_timeout: Duration::from_secs(5) + 2 * config.raft.election_timeout,
        // etcd's default is no limit at all; every stream costs memory here.
        streams_per_connection_max: match config.limits.concurrent_streams_max {
            u32::MAX => EDGE_STREAMS_DEFAULT,
            asked => asked,
        },
        connections_max,
        // Well below what the process may use, whatever that is.
        held_bytes_max: config
            .memory_budget_bytes
            .map_or(EDGE_CORE_HELD_BYTES_DEFAULT, |budget| {
                EDGE_CORE_HELD_BYTES_DEFAULT.min(budget / 8)
            }),
        keepalive_min_time: config.keepalive.min_time,
        keepalive_interval: config.keepalive.interval.unwrap_or(NEVER),
        keepalive_timeout: config.keepalive.timeout.unwrap_or(NEVER),
        slow_request: config.slow_request.unwrap_or(NEVER),
        origins: allowed(&config.cors),
        hosts: allowed(&config.host_whitelist),
    }
}

fn allowed(list: &AllowList) -> Allowed {
    match list {
        AllowList::Any => Allowed::Any,
        AllowList::Only(these) => Allowed::These(these.clone()),
    }
}

/// What every core knows.
#[derive(Clone)]
struct Shared {
    clock: Clock,
    settings: Settings,
    edge: EdgeConfig,
    log_identity: LogIdentity,
    places: Places,
    mode: WriteMode,
    /// Cores whose connections have not all ended.
    open_edges: Arc<AtomicUsize>,
}

/// What one core is started with.
struct Part {
    shared: Shared,
    listeners: Vec<Listener>,
    mail: Receiver<Mail>,
    stopped: Receiver<Signal>,
    /// How the core's client connections fared, once they have ended.
    clients: Arc<OnceLock<EdgeReading>>,
    role: Role,
}

enum Role {
    /// Owns the shard.
    Shard {
        requests: Receiver<Vec<ClientRequest>>,
        cores: Vec<Option<Sender<Mail>>>,
    },
    /// Owns connections only.
    Connections {
        requests: Sender<Vec<ClientRequest>>,
    },
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The signal to stop came before the member served.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("told to stop")]
struct StoppedEarly;

/// A core's whole life.
async fn core_main(core: Core, part: Part, ready: Ready) {
    let Part {
        shared,
        listeners,
        mail,
        mut stopped,
        clients,
        role,
    } = part;
    let doorbell = Rc::new(Doorbell::default());
    let outbound = Rc::new(Outbound::new(Rc::clone(&doorbell)));
    let router = Router::new(core.id, vec![Rc::clone(&outbound)]);
    let clock: Rc<dyn rpc::Clock> = Rc::new(CoreClock(shared.clock));
    let identity = shared.settings.identity;
    let edge = Edge::new(identity, shared.edge.clone(), Rc::clone(&router), clock);
    match role {
        Role::Shard { requests, cores } => {
            let stopping = Rc::new(Cell::new(false));
            let turns = start_shard(
                &core,
                &shared,
                ShardMail {
                    requests,
                    cores: cores.clone(),
                    doorbell: Rc::clone(&doorbell),
                },
                (outbound, Rc::clone(&router), Rc::clone(&stopping)),
            );
            // A signal counts from the first moment on: recovery may take long, and a full disk for ever.
            let serving = async {
                let mut turns = turns.await?;
                turns.until_serving().await;
                Ok::<_, Failure>(turns)
            };
            let told = async {
                stopped.receive().await;
                Err(StoppedEarly.into())
            };
            let turns = match futures_lite::future::or(serving, told).await {
                Ok(turns) => turns,
                Err(error) => return ready.fail(error),
            };
            accept(listeners, &edge);
            for core in cores.iter().flatten() {
                // An empty mailbox takes one message.
                let _sent = core.send(Mail::Serve);
            }
            ready.succeed();
            let shard = spawn_local(Queue::Shard, turns.run());
            drain_edge(&edge, stopped, &shared.open_edges).await;
            while shared.open_edges.load(Ordering::Acquire) > 0 {
                sleep(DRAIN_LOOK).await;
            }
            stopping.set(true);
            doorbell.ring();
            shard.await;
        }
        Role::Connections { requests } => {
            let forward = forward(Rc::clone(&outbound), doorbell, requests, Rc::clone(&router));
            spawn_local(Queue::Shard, forward).detach();
            ready.succeed();
            let receive = receive_mail(mail, Rc::clone(&router), listeners, Rc::clone(&edge));
            spawn_local(Queue::Shard, receive).detach();
            drain_edge(&edge, stopped, &shared.open_edges).await;
        }
    }
    // The one writer; nobody reads before the core has ended.
    let _ = clients.set(edge.counters().read());
}

/// How the shard's core hears from the others.
struct ShardMail {
    requests: Receiver<Vec<ClientRequest>>,
    cores: Vec<Option<Sender<Mail>>>,
    doorbell: Rc<Doorbell>,
}

/// Finds the log again and makes the shard of it.
async fn start_shard(
    core: &Core,
    shared: &Shared,
    mail: ShardMail,
    local: (Rc<Outbound>, Rc<Router>, Rc<Cell<bool>>),
) -> Result<Turns, Failure> {
    let geometry = Geometry::new(SEGMENT_SIZE_BYTES);
    let Places {
        log: directory,
        checkpoints,
    } = &shared.places;
    let turns = recovery::Turns {
        clock: shared.clock,
        stats: &core.stats,
    };
    let log = match recover(&shared.places, geometry, shared.log_identity, &turns).await {
        Ok(log) => log,
        Err(error @ RecoveryError::Corrupt { .. }) => {
            tracing::error!("{error}");
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    tracing::info!(
        entries = log.entry_count,
        bytes = log.size_bytes,
        checkpoint_bytes = log.checkpoint_bytes,
        revision = log.replayed.keyspace.committed_revision(),
        torn_at = ?log.torn_at,
        "log recovered"
    );
    let (answers, mut disk_answers) = mailbox(DISK_ANSWERS_MAX);
    let disk = DiskThread::start(
        DiskSettings {
            directory: directory.clone(),
            segment_size_bytes: SEGMENT_SIZE_BYTES,
            mode: shared.mode,
            core_thread: Some(workers::current_thread()),
        },
        answers,
    )?;
    let (answers, checkpoint_answers) = mailbox(CHECKPOINT_ANSWERS_MAX);
    let checkpoints = CheckpointThread::start(checkpoints.clone(), answers)?;
    let writer = LogWriter::start(shared.mode);
    if let Some(sequence) = log.active {
        let path = directory.join(sequence.file_name());
        open_active(&writer, &disk, &mut disk_answers, path, sequence).await?;
    }
    let scrubbed = Rc::new(Scrubbed::default());
    scrubbed.sealed.replace(log.appender.sealed_segments());
    let scrub = scrub::run(
        directory.clone(),
        geometry,
        shared.log_identity,
        Rc::clone(&scrubbed),
        Rc::clone(&mail.doorbell),
    );
    spawn_local(Queue::Background, scrub).detach();
    let (outbound, router, stopping) = local;
    Ok(Turns::new(ShardCore {
        shard: Shard::new(shared.settings.clone(), log.appender, log.replayed),
        core: SHARD_CORE,
        clock: shared.clock,
        stats: Arc::clone(&core.stats),
        writer,
        disk,
        disk_answers,
        checkpoints,
        checkpoint_answers,
        log_directory: directory.clone(),
        doorbell: mail.doorbell,
        local: outbound,
        remote: mail.requests,
        router,
        cores: mail.cores,
        stopping,
        scrubbed,
        memory_used_bytes: allocated_bytes,
    }))
}

/// Memory that the allocator has handed out, in bytes.
fn allocated_bytes() -> u64 {
    let refreshed = tikv_jemalloc_ctl::epoch::advance();
    let allocated = refreshed.and_then(|_| tikv_jemalloc_ctl::stats::allocated::read());
    allocated.map_or(0, |bytes| bytes as u64)
}

/// Accepts clients on every socket of this core, for as long as the process lives.
fn accept(listeners: Vec<Listener>, edge: &Rc<Edge>) {
    for listener in listeners {
        let edge = Rc::clone(edge);
        let serve = listener.serve(move |accepted| {
            let connection = rpc::serve_connection(accepted.into_stream(), Rc::clone(&edge));
            spawn_local(Queue::Connections, connection).detach();
        });
        spawn_local(Queue::Connections, serve).detach();
    }
}

/// Waits for the signal, then for the calls of this core's connections, a limited time.
async fn drain_edge(edge: &Rc<Edge>, mut stopped: Receiver<Signal>, open_edges: &AtomicUsize) {
    stopped.receive().await;
    edge.stop();
    let looks = CONNECTION_DRAIN_SECONDS_MAX * 1_000 / DRAIN_LOOK.as_millis() as u64;
    for _ in 0..looks {
        if edge.connection_count() == 0 {
            break;
        }
        sleep(DRAIN_LOOK).await;
    }
    open_edges.fetch_sub(1, Ordering::AcqRel);
}

/// Mails this core's requests to the shard's core, a batch per turn.
async fn forward(
    outbound: Rc<Outbound>,
    doorbell: Rc<Doorbell>,
    requests: Sender<Vec<ClientRequest>>,
    router: Rc<Router>,
) {
    loop {
        doorbell.wait().await;
        let mut batch = Vec::new();
        outbound.take_into(&mut batch);
        if batch.is_empty() {
            continue;
        }
        if let Err(refused) = requests.send(batch) {
            let refused = refused.into_batch();
            router.deliver(refused.into_iter().map(|request| event::Answer {
                ticket: request.ticket,
                header: event::Header::default(),
                result: Err(event::Refusal::TooManyRequests),
            }));
        }
    }
}

/// Takes what the shard's core sends.
async fn receive_mail(
    mut mail: Receiver<Mail>,
    router: Rc<Router>,
    listeners: Vec<Listener>,
    edge: Rc<Edge>,
) {
    let mut listeners = Some(listeners);
    while let Some(received) = mail.receive().await {
        match received {
            Mail::Answers(answers) => router.deliver(answers),
            Mail::Serve => accept(listeners.take().unwrap_or_default(), &edge),
        }
    }
}
