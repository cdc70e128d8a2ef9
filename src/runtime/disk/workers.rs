//! The kernel's I/O workers of a core, and their priority.
//!
//! Syncs of the ring run in kernel threads that inherit their core's CPU. With every core saturated a sync
//! would wait its turn behind client work for tens of milliseconds, so the workers get a better
//! priority, where that is permitted. They come and go; the disk thread looks again every second.

use rustix::process::{Pid, setpriority_process};
use rustix::thread::gettid;

/// What the workers are raised to; the server itself runs at the priority it was started with.
const NICE: i32 = -10;

/// The calling thread, whose I/O workers are to be raised.
#[must_use]
pub fn current_thread() -> i32 {
    gettid().as_raw_nonzero().get()
}

/// Remembers what was raised and said, so that each is done once.
#[derive(Debug, Default)]
pub(super) struct Reported {
    raised: Vec<Pid>,
    said: bool,
}

impl Reported {
    /// Raises the priority of the I/O workers of `core_thread` that are new. Says the first outcome in the log.
    pub(super) fn raise_priority(&mut self, core_thread: i32) {
        let workers = workers_of(core_thread);
        self.raised.retain(|raised| workers.contains(raised));
        for worker in workers {
            if self.raised.contains(&worker) {
                continue;
            }
            match setpriority_process(Some(worker), NICE) {
                Ok(()) => self.say_raised(core_thread),
                // It ended between the look and the call.
                Err(rustix::io::Errno::SRCH) => continue,
                Err(errno) => self.say_refused(core_thread, errno),
            }
            self.raised.push(worker);
        }
    }

    fn say_raised(&mut self, core_thread: i32) {
        if !self.said {
            self.said = true;
            tracing::info!(
                core_thread,
                nice = NICE,
                "the log's I/O workers run at a better priority"
            );
        }
    }

    fn say_refused(&mut self, core_thread: i32, errno: rustix::io::Errno) {
        if !self.said {
            self.said = true;
            tracing::warn!(
                core_thread,
                error = %errno,
                "cannot raise the priority of the log's I/O workers: syncs may wait behind other work on \
                 saturated CPUs (LimitNICE=-10 or CAP_SYS_NICE allows it)"
            );
        }
    }
}

/// The kernel names a worker after the thread whose ring it serves.
fn workers_of(core_thread: i32) -> Vec<Pid> {
    let name = format!("iou-wrk-{core_thread}");
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|comm| comm.trim_end() == name)
        })
        .filter_map(|task| Pid::from_raw(task.file_name().to_str()?.parse().ok()?))
        .collect()
}
