//! Threads beside the cores: for what takes long and may wait, such as filling a segment.
//!
//! A thread inherits the CPU of the thread that starts it. Started from a pinned core it would take turns
//! with that core on its CPU, milliseconds at a time; so every thread is started here. It may run on any CPU
//! the process had at its start, but for that of the core that starts it, when there is another: what a
//! shard's core hands over, such as checking its log, is done beside it and not in turns with it.

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

/// Starts a thread that is bound to no core and keeps off the CPU of the core that starts it.
///
/// # Errors
/// The kernel refuses the thread.
pub fn spawn_beside(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let cpus = ALLOWED.get().map(|allowed| match sched_getaffinity(None) {
        Ok(own) => beside_cpus(allowed, &own),
        Err(_) => *allowed,
    });
    Builder::new().name(name.into()).spawn(move || {
        if let Some(cpus) = cpus {
            // If it is refused, the thread is slower and the core has longer turns, no more.
            let _set = sched_setaffinity(None, &cpus);
        }
        work();
    })
}

/// The CPUs of `allowed` that a thread with the CPUs `own` leaves, or all when that leaves none.
fn beside_cpus(allowed: &CpuSet, own: &CpuSet) -> CpuSet {
    let mut others = *allowed;
    for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| own.is_set(cpu)) {
        others.unset(cpu);
    }
    if others.count() == 0 {
        *allowed
    } else {
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a thread started from a pinned one runs wherever the process may, but not in turns with the one
    /// that started it while there is another CPU.
    #[test]
    fn not_pinned() {
        remember_cpus();
        let process = *ALLOWED.get().expect("remembered");
        std::thread::spawn(move || {
            let first = (0..CpuSet::MAX_CPU)
                .find(|&cpu| process.is_set(cpu))
                .expect("a process has a CPU");
            let mut pinned = CpuSet::new();
            pinned.set(first);
            sched_setaffinity(None, &pinned).expect("a subset is allowed");
            let beside = spawn_beside("beside", move || {
                let found = sched_getaffinity(None).expect("readable");
                let mut expected = process;
                if process.count() > 1 {
                    expected.unset(first);
                }
                assert!(found == expected, "{found:?}");
            });
            beside
                .expect("a thread")
                .join()
                .expect("it has the other CPUs");
        })
        .join()
        .expect("the pinned thread ends well");
    }

    /// Goal: an unpinned thread, and a pinned one with no other CPU, share all there are.
    #[test]
    fn nothing_to_leave() {
        let mut both = CpuSet::new();
        both.set(0);
        both.set(3);
        assert!(beside_cpus(&both, &both) == both);
        let mut one = CpuSet::new();
        one.set(3);
        assert!(beside_cpus(&one, &one) == one);
    }
}
