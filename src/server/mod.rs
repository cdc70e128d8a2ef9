//! Puts the pieces together: which cores, which directory, which sockets; starts them in order, and
//! stops them in order.
//!
//! ```text
//! start   pre-flight -> directory, identity -> ports -> cores -> log recovered -> serving -> accept
//! stop    signal -> leadership handed over -> no new calls -> calls end -> log sealed -> exit
//! ```

mod accept_cut;
mod birth;
mod member;
mod peers;
mod settings;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};

use self::member::{Part, Role, Shared, StoppedEarly, core_main};
use crate::base::limits::MAILBOX_BATCHES_MAX;
use crate::base::{CoreId, ShardId};
use crate::config::{Config, ConfigError, Cores as CoresFlag, ListenUrl, WalWrite};
use crate::rpc::EdgeReading;
use crate::runtime::clock::Clock;
use crate::runtime::core::Mail;
use crate::runtime::disk::device::DeviceReport;
use crate::runtime::disk::directory::{DataDirectory, DirectoryError};
use crate::runtime::disk::identity::{self, IdentityError};
use crate::runtime::disk::known::KnownError;
use crate::runtime::disk::log::WriteMode;
use crate::runtime::mailbox::mailbox;
use crate::runtime::net::{self, ListenError, Listener, Sharing};
use crate::runtime::placement::{self, CoreRequest, PlacementError, StartError};
use crate::runtime::preflight::{self, PreflightError};
use crate::runtime::recovery::Places;
use crate::runtime::signals::{self, Signal};
use crate::runtime::{beside, fatal, mmap};
use crate::shard::event::ClientRequest;
use crate::wal::LogIdentity;

/// The one shard there is.
const SHARD: ShardId = ShardId(0);
/// The core that owns it.
const SHARD_CORE: CoreId = CoreId(0);
/// The API level that the cluster version says.
const CLUSTER_VERSION: (u32, u32) = (3, 7);

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
    /// The flags found no cluster.
    #[error(transparent)]
    Founding(#[from] ConfigError),
    /// What is known of the other members cannot be used.
    #[error(transparent)]
    Known(#[from] KnownError),
    /// It is not there at all.
    #[error(
        "{}: this member of a group of {members} has lost its file about the others; remove the member from \
         the cluster and add it again with an empty directory. A copy of the file from a backup has forgotten \
         what the others count on",
        directory.display()
    )]
    KnownLost {
        /// Where it was looked for.
        directory: PathBuf,
        /// With how many members the cluster began.
        members: usize,
    },
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
        "{}: there is a log but no identity file beside it; put a copy of that one file back (it never \
         changes), and no other file, or use another --data-dir",
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

pub use accept_cut::{AcceptCutError, accept_cut};

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
    let identity = birth::found_or_load(&config, &directory, &log_directory)?;
    let known = birth::load_known(&log_directory, &identity)?;
    mmap::install_sigbus_handler(&log_directory).map_err(|source| ServerError::System {
        action: "handle SIGBUS",
        source,
    })?;
    let mut sockets = Sockets::open(&config, cpus.len())?;
    let addresses = sockets.addresses.clone();
    let mut peer_listeners = Vec::new();
    for url in &config.urls.listen_peer {
        peer_listeners.append(&mut open_sockets(url, 1, config.reuse_port)?);
    }
    let peer_addresses: Vec<_> = peer_listeners.iter().map(Listener::local_addr).collect();
    report_device(&log_directory)?;

    let seed = identity::random_u64().map_err(|source| ServerError::System {
        action: "read random bytes",
        source,
    })?;
    let shared = Shared {
        clock: Clock::new(),
        settings: settings::shard_settings(&config, &identity, known, seed),
        edge: settings::edge_config(
            &config,
            settings::connections_max(process.descriptors, cpus.len()),
        ),
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
        closing: Arc::new(AtomicBool::new(false)),
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
                    peer_listeners: std::mem::take(&mut peer_listeners),
                    stop: stop.clone(),
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
        peer_addresses = ?peer_addresses,
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
        let mut sockets = Sockets {
            addresses: Vec::new(),
            listeners: Vec::new(),
        };
        for url in &config.urls.listen_client {
            let listeners = open_sockets(url, core_count, config.reuse_port)?;
            sockets.addresses.push(listeners[0].local_addr());
            sockets.listeners.push(listeners);
        }
        Ok(sockets)
    }

    fn for_core(&mut self) -> Vec<Listener> {
        self.listeners.iter_mut().filter_map(Vec::pop).collect()
    }
}

/// One listener for each of `count` cores.
fn open_sockets(
    url: &ListenUrl,
    count: usize,
    reuse_port: bool,
) -> Result<Vec<Listener>, ListenError> {
    let sharing = if reuse_port {
        Sharing::Shared
    } else {
        Sharing::Exclusive
    };
    net::open(url.socket_address(), count, sharing)
}
