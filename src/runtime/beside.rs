//! Threads beside the cores: for what takes long and may wait, such as filling a segment.
//!
//! A thread inherits the CPU of the thread that starts it. Started from a pinned core it would take turns
//! with that core on its CPU, milliseconds at a time; so every thread is started here, and may run on any
//! CPU the process had at its start.

use std::io;
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs of this process before any thread was pinned.
static ALLOWED: OnceLock<CpuSet> = OnceLock::new();

/// Remembers the calling thread's CPUs as the process's. Called before the first core is pinned.
pub fn remember_cpus() {
    if let Ok(allowed) = sched_getaffinity(None) {
        ALLOWED.get_or_init(|| allowed);
    }
}

/// Starts a thread that is bound to no core.
///
/// # Errors
/// The kernel refuses the thread.
pub fn spawn_beside(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).spawn(move || {
        if let Some(allowed) = ALLOWED.get() {
            // If it is refused, the thread is slower and the core has longer turns, no more.
            let _set = sched_setaffinity(None, allowed);
        }
        work();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a thread started from a pinned one may run wherever the process may.
    #[test]
    fn not_pinned() {
        remember_cpus();
        let process = *ALLOWED.get().expect("remembered");
        std::thread::spawn(move || {
            let first = (0..CpuSet::MAX_CPU).find(|&cpu| process.is_set(cpu));
            let mut pinned = CpuSet::new();
            pinned.set(first.expect("a process has a CPU"));
            sched_setaffinity(None, &pinned).expect("a subset is allowed");
            let beside = spawn_beside("beside", move || {
                let found = sched_getaffinity(None).expect("readable");
                assert!(found == process, "the CPUs of the thread that started it");
            });
            beside
                .expect("a thread")
                .join()
                .expect("it has the process's CPUs");
        })
        .join()
        .expect("the pinned thread ends well");
    }
}
