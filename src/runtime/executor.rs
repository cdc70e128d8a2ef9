//! Tasks and timers of one core.
//!
//! Owns the task queues of the executor that runs on this thread. Everything here is for that thread:
//! futures need not be `Send`. All queues have the default latency class and differ by shares only,
//! because the library's latency-sensitive queues lose wake-ups for ever. Loops over batches must work
//! in bounded slices with [`yield_if_needed`] in between and never yield in a circle: a task that is
//! always ready keeps the core from submitting I/O.

use std::cell::OnceCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use glommio::timer::Timer;
use glommio::{Latency, Shares, TaskQueueHandle};

use super::clock::Clock;
use crate::base::Instant;
use crate::base::limits::STINT_MAX;

/// The shortest pause in which the rings are looked at.
const GIVE_WAY_PAUSE: Duration = Duration::from_micros(1);

/// The concerns of a core. The executor's time is divided by shares when more than one has work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// The shard, its log and the mail of other cores: what everybody waits for.
    Shard,
    /// Client and peer connections.
    Connections,
    /// Checkpoints, scrubbing, reclaim: may take as long as they like.
    Background,
}

impl Queue {
    const ALL: [Queue; 3] = [Queue::Shard, Queue::Connections, Queue::Background];

    /// Of the core's time under contention; the unit is a ratio to the other queues.
    const fn shares(self) -> usize {
        match self {
            Queue::Shard => 1_000,
            Queue::Connections => 800,
            Queue::Background => 100,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Queue::Shard => "shard",
            Queue::Connections => "connections",
            Queue::Background => "background",
        }
    }
}

thread_local! {
    /// The handles of this thread's executor, in the order of `Queue::ALL`.
    static QUEUES: OnceCell<[TaskQueueHandle; Queue::ALL.len()]> = const { OnceCell::new() };
}

/// A running task. Dropping it cancels the future at its next suspension; see [`Task::detach`].
#[must_use = "dropping a task cancels it"]
pub struct Task<T>(glommio::Task<T>);

impl<T> Task<T> {
    /// Lets the task run to its end on its own.
    pub fn detach(self) {
        drop(self.0.detach());
    }

    /// Cancels the task and waits until its future is dropped; the output when it had finished.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// Starts `future` on this core, in `queue`. It may run at once, before this returns.
pub fn spawn_local<T: 'static>(queue: Queue, future: impl Future<Output = T> + 'static) -> Task<T> {
    let handle = QUEUES.with(|queues| queues.get_or_init(create_queues)[queue as usize]);
    Task(
        glommio::spawn_local_into(future, handle)
            .expect("the queues live as long as the executor of this thread"),
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place, with the default latency only"
)]
fn create_queues() -> [TaskQueueHandle; Queue::ALL.len()] {
    Queue::ALL.map(|queue| {
        glommio::executor().create_task_queue(
            Shares::Static(queue.shares()),
            Latency::NotImportant,
            queue.name(),
        )
    })
}

/// Completes after `span`.
pub async fn sleep(span: Duration) {
    Timer::new(span).await;
}

/// Lets other tasks of this core run when this one has used up its slice; otherwise returns at once.
pub async fn yield_if_needed() {
    glommio::yield_if_needed().await;
}

/// Lets the others of this core run, and its rings be looked at. [`yield_if_needed`] would keep it from them for a tenth of
/// a second while no other task has work.
pub async fn give_way() {
    let mut pause = GIVE_WAY_PAUSE;
    let mut has_waited = false;
    while !has_waited {
        let mut timer = Timer::new(pause);
        poll_fn(|cx| {
            let polled = Pin::new(&mut timer).poll(cx);
            has_waited |= polled.is_pending();
            polled.map(drop)
        })
        .await;
        // It was due before it was looked at.
        pause *= 2;
    }
}

/// Lets the others of a core run beside a task that may never have to wait, because other cores fill what it waits for
/// while it works.
#[derive(Debug)]
pub struct Stint {
    clock: Clock,
    /// When the task began to find what it waits for there each time.
    began: Option<Instant>,
}

impl Stint {
    /// For one task.
    #[must_use]
    pub fn new(clock: Clock) -> Stint {
        Stint { clock, began: None }
    }

    /// Waits until `poll` is ready. After [`STINT_MAX`] without a wait everybody else has a turn first.
    pub async fn wait<T>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        if let Some(began) = self.began
            && self.clock.now().since(began) >= STINT_MAX
        {
            give_way().await;
            self.began = None;
        }
        let mut has_waited = false;
        let ready = poll_fn(|cx| {
            let polled = poll(cx);
            has_waited |= polled.is_pending();
            polled
        })
        .await;
        if has_waited {
            self.began = None;
        } else if self.began.is_none() {
            self.began = Some(self.clock.now());
        }
        ready
    }
}

/// The time given to [`timeout`] ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out after {0:?}")]
pub struct Elapsed(pub Duration);

/// Runs `future` for at most `span`, then drops it. Never for I/O on the log: dropping a file
/// operation leaves its outcome unknown.
pub async fn timeout<T>(span: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut timer = Timer::new(span);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut timer).poll(cx).map(|_| Err(Elapsed(span)))
    })
    .await
}

/// Runs `future` to its end on a new executor of the calling thread, which is not pinned and has no
/// guard rails: for tools, benchmarks and tests. Servers use [`super::placement`].
///
/// # Errors
/// The kernel refuses a ring, see [`super::preflight`].
pub fn run<T>(future: impl Future<Output = T>) -> Result<T, ExecutorError> {
    let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
        .io_memory(IO_MEMORY_BYTES)
        .make()
        .map_err(|error| ExecutorError(error.to_string()))?;
    Ok(executor.run(future))
}

/// Registered memory per executor, for direct reads; the library's 10 MiB would be locked three times.
pub(super) const IO_MEMORY_BYTES: usize = 256 << 10;

/// An executor could not be built.
#[derive(Debug)]
pub struct ExecutorError(pub(super) String);

impl fmt::Display for ExecutorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot build an io_uring executor: {}", self.0)
    }
}

impl std::error::Error for ExecutorError {}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Goal: a task that always finds what it waits for lets others run, and their timers.
    #[test]
    fn stints_end() {
        let looks = std::thread::spawn(|| {
            run(async {
                let done = Rc::new(Cell::new(false));
                let other = Rc::clone(&done);
                let task = spawn_local(Queue::Connections, async move {
                    sleep(Duration::from_millis(1)).await;
                    other.set(true);
                });
                let mut stint = Stint::new(Clock::new());
                let mut looks = 0_u64;
                while !done.get() && looks < 100_000_000 {
                    stint.wait(|_| Poll::Ready(())).await;
                    looks += 1;
                }
                task.await;
                looks
            })
            .expect("a ring")
        });
        let looks = looks.join().expect("the executor's thread ends well");
        assert!(looks < 100_000_000);
    }

    /// Goal: a dropped task does not go on, a detached one does, and a timeout says so.
    #[test]
    fn tasks_and_timers() {
        std::thread::spawn(|| {
            run(async {
                let count = Rc::new(Cell::new(0));
                let add_later = |amount: u32| {
                    let count = Rc::clone(&count);
                    async move {
                        sleep(Duration::from_millis(5)).await;
                        count.set(count.get() + amount);
                    }
                };
                drop(spawn_local(Queue::Connections, add_later(1)));
                spawn_local(Queue::Shard, add_later(10)).detach();
                let joined = spawn_local(Queue::Background, add_later(100));
                joined.await;
                sleep(Duration::from_millis(20)).await;
                assert_eq!(count.get(), 110);

                let never = std::future::pending::<()>();
                let span = Duration::from_millis(2);
                assert_eq!(timeout(span, never).await, Err(Elapsed(span)));
                assert_eq!(timeout(Duration::from_secs(60), async { 7 }).await, Ok(7));
            })
            .expect("a ring");
        })
        .join()
        .expect("the executor's thread ends well");
    }
}
