//! The life of one core: the shard's, or one with connections only.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{SHARD_CORE, peers};
use crate::base::limits::{
    CHECKPOINT_ANSWERS_MAX, CONNECTION_DRAIN_SECONDS_MAX, DISK_ANSWERS_MAX, HAND_OVER_SECONDS_MAX,
    LEADER_WAIT_SECONDS_MAX, SEGMENT_SIZE_BYTES,
};
use crate::rpc::{self, CoreClock, Edge, EdgeConfig, EdgeReading};
use crate::runtime::active::open_active;
use crate::runtime::clock::Clock;
use crate::runtime::core::{Ending, Mail, ShardCore, Turns};
use crate::runtime::disk::checkpoint::CheckpointThread;
use crate::runtime::disk::log::{LogWriter, WriteMode};
use crate::runtime::disk::segments::{DiskSettings, DiskThread};
use crate::runtime::disk::workers;
use crate::runtime::executor::{Queue, sleep, spawn_local, timeout};
use crate::runtime::mailbox::{Receiver, Sender, mailbox};
use crate::runtime::net::Listener;
use crate::runtime::placement::{Core, Ready};
use crate::runtime::recovery::{self, Beside, Places, RecoveryError, recover};
use crate::runtime::router::{Doorbell, Outbound, Router};
use crate::runtime::scrub::{self, Scrubbed};
use crate::runtime::signals::Signal;
use crate::runtime::stats::CoreStats;
use crate::shard::event::{self, ClientRequest};
use crate::shard::{Settings, Shard};
use crate::wal::{Geometry, LogIdentity};

/// Between two looks at whether somebody else leads, or all connections have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// What every core knows.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    pub(super) edge: EdgeConfig,
    pub(super) log_identity: LogIdentity,
    pub(super) places: Places,
    pub(super) mode: WriteMode,
    /// Whether connections are closed: somebody else leads, or that was waited for long enough. Said by the shard's core.
    pub(super) closing: Arc<AtomicBool>,
    /// Cores whose connections have not all ended.
    pub(super) open_edges: Arc<AtomicUsize>,
}

/// What one core is started with.
pub(super) struct Part {
    pub(super) shared: Shared,
    pub(super) listeners: Vec<Listener>,
    pub(super) mail: Receiver<Mail>,
    pub(super) stopped: Receiver<Signal>,
    /// How the core's client connections fared, once they have ended.
    pub(super) clients: Arc<OnceLock<EdgeReading>>,
    pub(super) role: Role,
}

pub(super) enum Role {
    /// Owns the shard, and the connections to other members.
    Shard {
        requests: Receiver<Vec<ClientRequest>>,
        cores: Vec<Option<Sender<Mail>>>,
        peer_listeners: Vec<Listener>,
        /// Where every core hears that it is to stop.
        stop: Vec<Sender<Signal>>,
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
pub(super) struct StoppedEarly;

/// A core's whole life.
pub(super) async fn core_main(core: Core, part: Part, ready: Ready) {
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
        Role::Shard {
            requests,
            cores,
            peer_listeners,
            stop,
        } => {
            let ending = Rc::new(Ending::default());
            let others = ShardMail {
                requests,
                cores: cores.clone(),
                doorbell: Rc::clone(&doorbell),
                peer_listeners,
                stop,
            };
            let local = (outbound, Rc::clone(&router), Rc::clone(&ending));
            let turns = start_shard(&core, &shared, others, local);
            // A signal counts from the first moment on: recovery may take long, and a full disk for ever.
            let serving = async {
                let mut turns = turns.await?;
                until_serving(&mut turns).await;
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
            stopped.receive().await;
            ending.handing_over.set(true);
            ending.leaving.set(true);
            doorbell.ring();
            // Before a client is told to go elsewhere: there would be nobody yet who can answer it. What is not answered
            // by then goes to whoever leads now.
            handed_over(&ending).await;
            shared.closing.store(true, Ordering::Release);
            drain_edge(&edge, &shared.open_edges).await;
            while shared.open_edges.load(Ordering::Acquire) > 0 {
                sleep(DRAIN_LOOK).await;
            }
            ending.stopping.set(true);
            doorbell.ring();
            shard.await;
        }
        Role::Connections { requests } => {
            let answers = Answers {
                router: Rc::clone(&router),
                stats: Arc::clone(&core.stats),
            };
            let forward = forward(Rc::clone(&outbound), doorbell, requests, answers.clone());
            spawn_local(Queue::Shard, forward).detach();
            ready.succeed();
            let receive = receive_mail(mail, answers, listeners, Rc::clone(&edge));
            spawn_local(Queue::Shard, receive).detach();
            stopped.receive().await;
            while !shared.closing.load(Ordering::Acquire) {
                sleep(DRAIN_LOOK).await;
            }
            drain_edge(&edge, &shared.open_edges).await;
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
    peer_listeners: Vec<Listener>,
    stop: Vec<Sender<Signal>>,
}

/// Turns until the shard serves. A member of a group does not wait for ever: one that has lost the others must say
/// that there is no leader, not nothing.
async fn until_serving(turns: &mut Turns) {
    if turns.is_alone() {
        return turns.until_serving().await;
    }
    let patience = Duration::from_secs(LEADER_WAIT_SECONDS_MAX);
    if timeout(patience, turns.until_serving()).await.is_err() {
        tracing::warn!(
            waited_seconds = LEADER_WAIT_SECONDS_MAX,
            "no leader is known yet; requests that need one fail until there is one"
        );
    }
}

/// Waits until somebody else leads, a limited time.
async fn handed_over(ending: &Ending) {
    let patience = Duration::from_secs(HAND_OVER_SECONDS_MAX);
    let handed_over = async {
        while ending.handing_over.get() {
            sleep(DRAIN_LOOK).await;
        }
    };
    if timeout(patience, handed_over).await.is_err() {
        tracing::warn!("nobody has taken over in time; the others will elect a leader");
    }
}

/// Finds the log again and makes the shard of it.
async fn start_shard(
    core: &Core,
    shared: &Shared,
    mail: ShardMail,
    local: (Rc<Outbound>, Rc<Router>, Rc<Ending>),
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
    let beside = Beside {
        known: shared.settings.known.clone(),
        began_in_group: shared.settings.initial_members.len() > 1,
    };
    let log = match recover(
        &shared.places,
        geometry,
        shared.log_identity,
        beside,
        &turns,
    )
    .await
    {
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
    let peers = peers::start(&shared.settings, mail.peer_listeners);
    let (outbound, router, ending) = local;
    // Damage that was found is stored by now.
    let settings = Settings {
        known: log.known,
        ..shared.settings.clone()
    };
    let shard_core = ShardCore {
        shard: Shard::new(settings, log.appender, log.replayed),
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
        ending,
        stop: mail.stop,
        scrubbed,
        memory_used_bytes: allocated_bytes,
    };
    Ok(Turns::new(shard_core, peers))
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

/// Takes no new calls, and waits for the end of those of this core's connections, a limited time.
async fn drain_edge(edge: &Rc<Edge>, open_edges: &AtomicUsize) {
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

/// Answers to the requests of a core without a shard.
#[derive(Clone)]
struct Answers {
    router: Rc<Router>,
    stats: Arc<CoreStats>,
}

impl Answers {
    fn deliver(&self, answers: impl IntoIterator<Item = event::Answer>) {
        self.router.deliver(answers);
        self.tell_busy();
    }

    /// A wake-up that comes from another core is one that may be lost.
    fn tell_busy(&self) {
        self.stats.set_busy(self.router.is_waiting());
    }
}

/// Mails this core's requests to the shard's core, a batch per turn.
async fn forward(
    outbound: Rc<Outbound>,
    doorbell: Rc<Doorbell>,
    requests: Sender<Vec<ClientRequest>>,
    answers: Answers,
) {
    loop {
        doorbell.wait().await;
        let mut batch = Vec::new();
        outbound.take_into(&mut batch);
        answers.tell_busy();
        if batch.is_empty() {
            continue;
        }
        if let Err(refused) = requests.send(batch) {
            let refused = refused.into_batch();
            answers.deliver(refused.into_iter().map(|request| event::Answer {
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
    own: Answers,
    listeners: Vec<Listener>,
    edge: Rc<Edge>,
) {
    let mut listeners = Some(listeners);
    while let Some(received) = mail.receive().await {
        match received {
            Mail::Answers(answers) => own.deliver(answers),
            Mail::Serve => accept(listeners.take().unwrap_or_default(), &edge),
        }
    }
}
