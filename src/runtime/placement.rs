//! Which CPUs this process uses, and one pinned executor on each.
//!
//! Owns the start of the cores and their guard rails: the heartbeat, without which a wake-up that the
//! executor loses would be lost for ever, and the watchdog, which tells a frozen core and ends a stuck
//! process. CPUs are chosen from the affinity mask (containers, taskset), which the library ignores.

use std::error::Error;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{JoinHandle, park_timeout};
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::executor::{self, IO_MEMORY_BYTES, Queue};
use super::fatal::fatal;
use super::stats::CoreStats;
use crate::base::CoreId;
use crate::base::limits::{CORE_FROZEN, CORE_STUCK, HEARTBEAT_BUSY, HEARTBEAT_IDLE};

/// Which CPUs the operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreRequest {
    /// One hardware thread of every physical core that this process may use.
    All,
    /// That many: physical cores first, their second threads after.
    Count(usize),
    /// Exactly these, by the kernel's numbers.
    List(Vec<usize>),
}

/// Why the wanted CPUs cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Not in this process's affinity mask, or not in this machine.
    #[error(
        "CPU {cpu} cannot be used: this process is allowed CPUs {}",
        list(allowed)
    )]
    NotAllowed {
        /// The CPU that was asked for.
        cpu: usize,
        /// Those it may use.
        allowed: Vec<usize>,
    },
    /// Named twice.
    #[error("CPU {cpu} is named twice")]
    Twice {
        /// The CPU.
        cpu: usize,
    },
    /// More than there are.
    #[error(
        "{asked} cores are wanted, but this process is allowed CPUs {}",
        list(allowed)
    )]
    TooMany {
        /// The number that was asked for.
        asked: usize,
        /// Those it may use.
        allowed: Vec<usize>,
    },
    /// A count of zero or an empty list.
    #[error("at least one core is needed")]
    NoCore,
    /// The kernel does not say which CPUs are allowed.
    #[error("cannot read this process's CPU affinity mask")]
    Unreadable,
}

fn list(cpus: &[usize]) -> String {
    let mut text = String::new();
    for (position, cpu) in cpus.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        write!(text, "{comma}{cpu}").expect("a string takes all text");
    }
    text
}

/// Chooses CPUs among those this process may use.
///
/// # Errors
/// [`PlacementError`] with the allowed CPUs.
pub fn choose(request: &CoreRequest) -> Result<Vec<usize>, PlacementError> {
    let mut allowed: Vec<usize> = core_affinity::get_core_ids()
        .ok_or(PlacementError::Unreadable)?
        .iter()
        .map(|core| core.id)
        .collect();
    allowed.sort_unstable();
    let physical = allowed
        .iter()
        .filter(|&&cpu| is_first_allowed_thread(cpu, &allowed))
        .copied()
        .collect();
    pick(request, allowed, physical)
}

/// Whether no lower allowed CPU shares `cpu`'s physical core. A kernel that does not tell counts as no sharing.
fn is_first_allowed_thread(cpu: usize, allowed: &[usize]) -> bool {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    let siblings = std::fs::read_to_string(path).unwrap_or_default();
    let first = parse_cpu_list(siblings.trim())
        .into_iter()
        .find(|sibling| allowed.contains(sibling));
    first.is_none_or(|first| first == cpu)
}

/// The kernel's notation: `0-3,8,10-11`. What does not parse is left out.
fn parse_cpu_list(text: &str) -> Vec<usize> {
    let mut cpus: Vec<usize> = text
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect();
    cpus.sort_unstable();
    cpus
}

fn pick(
    request: &CoreRequest,
    allowed: Vec<usize>,
    physical: Vec<usize>,
) -> Result<Vec<usize>, PlacementError> {
    match request {
        CoreRequest::All => Ok(physical),
        CoreRequest::Count(0) => Err(PlacementError::NoCore),
        &CoreRequest::Count(asked) if asked > allowed.len() => {
            Err(PlacementError::TooMany { asked, allowed })
        }
        &CoreRequest::Count(count) => {
            let second = allowed.iter().filter(|cpu| !physical.contains(cpu));
            let mut chosen: Vec<usize> =
                physical.iter().chain(second).copied().take(count).collect();
            chosen.sort_unstable();
            Ok(chosen)
        }
        CoreRequest::List(cpus) => {
            for (position, &cpu) in cpus.iter().enumerate() {
                if !allowed.contains(&cpu) {
                    return Err(PlacementError::NotAllowed { cpu, allowed });
                }
                if cpus[..position].contains(&cpu) {
                    return Err(PlacementError::Twice { cpu });
                }
            }
            if cpus.is_empty() {
                return Err(PlacementError::NoCore);
            }
            Ok(cpus.clone())
        }
    }
}

/// What a core's work is given.
#[derive(Clone, Debug)]
pub struct Core {
    /// Counted from zero in the order of the chosen CPUs.
    pub id: CoreId,
    /// The kernel's number of the CPU it is pinned to.
    pub cpu: usize,
    /// Its counters.
    pub stats: Arc<CoreStats>,
}

/// How a core reports that it is up, once. Dropping it unused is a failure.
#[derive(Debug)]
pub struct Ready(mpsc::SyncSender<Result<(), Failure>>);

type Failure = Box<dyn Error + Send + Sync>;

impl Ready {
    /// The core serves.
    pub fn succeed(self) {
        // The starter may have given up because of another core.
        let _ = self.0.send(Ok(()));
    }

    /// The core cannot serve; its work should end now.
    pub fn fail(self, cause: impl Into<Failure>) {
        let _ = self.0.send(Err(cause.into()));
    }
}

/// A core did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its executor could not be built: see the pre-flight for the usual causes.
    #[error("core {core} (CPU {cpu}): cannot start an io_uring executor: {cause}")]
    Executor {
        /// Which core.
        core: CoreId,
        /// Its CPU.
        cpu: usize,
        /// The library's words.
        cause: String,
    },
    /// Its work reported a failure; the cause speaks for itself.
    #[error("{source}")]
    Work {
        /// Which core.
        core: CoreId,
        /// What it said.
        source: Failure,
    },
    /// Its work ended without a report.
    #[error("core {core} ended before it was ready")]
    Ended {
        /// Which core.
        core: CoreId,
    },
    /// A thread could not be made.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The running cores.
#[derive(Debug)]
pub struct Cores {
    handles: Vec<(CoreId, ExecutorJoinHandle<()>)>,
    stats: Vec<Arc<CoreStats>>,
    watchdog: Watchdog,
}

/// Starts one executor per place (a CPU and what its core's work needs), each pinned, and waits until
/// every one has reported. `spin` lets a core poll that long before it sleeps: only for CPUs that are its alone.
///
/// # Errors
/// The first failure. Cores that had come up keep running: the caller ends the process.
pub fn start<I, W, F>(
    places: Vec<(usize, I)>,
    spin: Option<Duration>,
    work: W,
) -> Result<Cores, StartError>
where
    I: Send + 'static,
    W: Fn(Core, I, Ready) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let mut starting = Vec::with_capacity(places.len());
    for (id, (cpu, input)) in (0..).map(CoreId).zip(places) {
        let stats = Arc::new(CoreStats::default());
        let core = Core {
            id,
            cpu,
            stats: Arc::clone(&stats),
        };
        let (report, reported) = mpsc::sync_channel(1);
        let work = work.clone();
        let handle = LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .name("core")
            .io_memory(IO_MEMORY_BYTES)
            .spin_before_park(spin.unwrap_or_default())
            .spawn(move || async move {
                let stats = Arc::clone(&core.stats);
                executor::spawn_local(Queue::Shard, heartbeat(Arc::clone(&stats))).detach();
                executor::spawn_local(Queue::Shard, work(core, input, Ready(report))).await;
                stats.end();
            })
            .map_err(|error| StartError::Executor {
                core: id,
                cpu,
                cause: error.to_string(),
            })?;
        starting.push((id, cpu, stats, handle, reported));
    }
    let mut handles = Vec::with_capacity(starting.len());
    let mut all_stats = Vec::with_capacity(starting.len());
    for (core, cpu, stats, handle, reported) in starting {
        match reported.recv() {
            Ok(Ok(())) => {}
            Ok(Err(source)) => return Err(StartError::Work { core, source }),
            Err(mpsc::RecvError) => {
                return Err(match handle.join() {
                    Ok(()) => StartError::Ended { core },
                    Err(error) => StartError::Executor {
                        core,
                        cpu,
                        cause: error.to_string(),
                    },
                });
            }
        }
        handles.push((core, handle));
        all_stats.push(stats);
    }
    let watchdog = Watchdog::start(all_stats.clone())?;
    Ok(Cores {
        handles,
        stats: all_stats,
        watchdog,
    })
}

impl Cores {
    /// The counters of all cores, by [`CoreId`].
    #[must_use]
    pub fn stats(&self) -> &[Arc<CoreStats>] {
        &self.stats
    }

    /// Waits until the work of every core has ended.
    pub fn join(self) {
        for (core, handle) in self.handles {
            if let Err(error) = handle.join() {
                fatal(format_args!("core {core} failed: {error}"));
            }
        }
        self.watchdog.stop();
    }
}

/// Keeps a wake-up that the executor lost from staying lost: this timer's completion ends any sleep.
async fn heartbeat(stats: Arc<CoreStats>) {
    loop {
        stats.heartbeat();
        let busy = stats.is_busy();
        executor::sleep(if busy { HEARTBEAT_BUSY } else { HEARTBEAT_IDLE }).await;
    }
}

/// How often the watchdog looks.
const LOOK: Duration = HEARTBEAT_IDLE;

/// A thread that looks at every core's heartbeats. It counts its own looks and not time, so that a
/// process that was stopped as a whole (a debugger, a paused machine) is not taken for a stuck core.
#[derive(Debug)]
struct Watchdog {
    thread: JoinHandle<()>,
    stopped: Arc<AtomicBool>,
}

/// One core as the watchdog sees it.
struct Watched {
    stats: Arc<CoreStats>,
    heartbeats: u64,
    looks_without: u128,
}

impl Watchdog {
    fn start(stats: Vec<Arc<CoreStats>>) -> std::io::Result<Watchdog> {
        let stopped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopped);
        let mut watched: Vec<Watched> = stats
            .into_iter()
            .map(|stats| Watched {
                heartbeats: stats.heartbeats(),
                stats,
                looks_without: 0,
            })
            .collect();
        let thread = std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || {
                loop {
                    // Channels spin and yield before they sleep, for each look.
                    park_timeout(LOOK);
                    if told.load(Ordering::Acquire) {
                        return;
                    }
                    for (core, watched) in watched.iter_mut().enumerate() {
                        watched.look(core);
                    }
                }
            })?;
        Ok(Watchdog { thread, stopped })
    }

    fn stop(self) {
        self.stopped.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().expect("the watchdog does not panic");
    }
}

impl Watched {
    fn look(&mut self, core: usize) {
        let heartbeats = self.stats.heartbeats();
        if heartbeats != self.heartbeats || self.stats.is_ended() {
            if self.looks_without >= FROZEN_LOOKS {
                let frozen =
                    LOOK.saturating_mul(u32::try_from(self.looks_without).unwrap_or(u32::MAX));
                tracing::warn!(core, ?frozen, "core makes progress again");
            }
            self.heartbeats = heartbeats;
            self.looks_without = 0;
            return;
        }
        self.looks_without += 1;
        if self.looks_without == FROZEN_LOOKS {
            self.stats.count_freeze();
            tracing::warn!(core, limit = ?CORE_FROZEN, "core makes no progress");
        }
        if self.looks_without >= STUCK_LOOKS {
            fatal(format_args!(
                "core {core} has made no progress for {CORE_STUCK:?}"
            ));
        }
    }
}

const FROZEN_LOOKS: u128 = CORE_FROZEN.as_millis() / LOOK.as_millis();
const STUCK_LOOKS: u128 = CORE_STUCK.as_millis() / LOOK.as_millis();

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every request picks what it says, or says why not and what is allowed.
    #[test]
    fn picks() {
        let check = |request: CoreRequest, expected: Result<&[usize], &str>| {
            // CPUs 2 and 6 share a core, as do 3 and 7; 4 is alone.
            let picked = pick(&request, vec![2, 3, 4, 6, 7], vec![2, 3, 4]);
            match (picked, expected) {
                (Ok(cpus), Ok(expected)) => assert_eq!(cpus, expected, "{request:?}"),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (picked, expected) => panic!("{request:?}: {picked:?}, expected {expected:?}"),
            }
        };
        check(CoreRequest::All, Ok(&[2, 3, 4]));
        check(CoreRequest::Count(1), Ok(&[2]));
        check(CoreRequest::Count(4), Ok(&[2, 3, 4, 6]));
        check(
            CoreRequest::Count(6),
            Err("6 cores are wanted, but this process is allowed CPUs 2,3,4,6,7"),
        );
        check(CoreRequest::Count(0), Err("at least one"));
        check(CoreRequest::List(vec![7, 2]), Ok(&[7, 2]));
        check(CoreRequest::List(vec![0]), Err("CPU 0 cannot be used"));
        check(CoreRequest::List(vec![2, 2]), Err("CPU 2 is named twice"));
        check(CoreRequest::List(vec![]), Err("at least one"));
    }

    /// Goal: the kernel's list notation is understood, and nonsense is nothing.
    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-2,8,10-11"), [0, 1, 2, 8, 10, 11]);
        assert_eq!(parse_cpu_list("5"), [5]);
        assert!(parse_cpu_list("").is_empty());
        assert!(parse_cpu_list("x-3").is_empty());
    }

    /// Goal: each core runs its own work with its own input, beats, and ends; a failure is reported as it is.
    #[test]
    fn cores_start_and_report() {
        let cpu = choose(&CoreRequest::Count(1)).expect("one core")[0];
        let cores = start(
            vec![(cpu, 5), (cpu, 6)],
            None,
            |core, input, ready| async move {
                assert_eq!(core.id.0 + 5, input);
                ready.succeed();
                executor::sleep(HEARTBEAT_IDLE * 4).await;
                assert!(core.stats.heartbeats() > 2, "the heartbeat beats");
            },
        )
        .expect("both come up");
        assert_eq!(cores.stats().len(), 2);
        cores.join();

        let failed = start(vec![(cpu, ())], None, |_, (), ready| async move {
            ready.fail("the disk is on fire");
        });
        assert_eq!(
            failed.expect_err("it failed").to_string(),
            "the disk is on fire"
        );
        let silent = start(
            vec![(cpu, ())],
            None,
            |_, (), ready| async move { drop(ready) },
        );
        assert!(matches!(silent, Err(StartError::Ended { .. })));
    }

    /// Goal: a core that blocks is counted as frozen and recovers.
    #[test]
    fn frozen_core_is_counted() {
        let cpu = choose(&CoreRequest::Count(1)).expect("one core")[0];
        let (go, wait) = mpsc::channel::<()>();
        let cores = start(vec![(cpu, wait)], None, |_, wait, ready| async move {
            ready.succeed();
            // Blocks the executor until the test has seen the freeze.
            wait.recv().expect("released");
            executor::sleep(HEARTBEAT_IDLE).await;
        })
        .expect("it comes up");
        let stats = Arc::clone(&cores.stats()[0]);
        while stats.read().freezes == 0 {
            std::thread::yield_now();
        }
        go.send(()).expect("it waits");
        cores.join();
        assert!(stats.read().freezes >= 1);
    }
}
