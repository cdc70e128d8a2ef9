//! Threads that burn CPU beside the servers, at the same priority and on whatever CPU the kernel gives them.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Threads at most.
pub const STRESS_MAX: usize = 256;
/// Turns of the loop between two looks for its end: well below a millisecond.
const TURNS: u64 = 100_000;

/// Running threads. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Stress {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Stress {
    /// Starts so many, at most [`STRESS_MAX`].
    pub(super) fn start(threads: usize) -> io::Result<Stress> {
        let mut stress = Stress {
            end: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for number in 0..threads.min(STRESS_MAX) {
            let end = Arc::clone(&stress.end);
            let thread = std::thread::Builder::new().name(format!("stress-{number}"));
            stress.threads.push(thread.spawn(move || burn(&end))?);
        }
        Ok(stress)
    }

    /// Ends them; the CPU time that they have got in all.
    pub(super) fn finish(mut self) -> Duration {
        self.end()
    }

    fn end(&mut self) -> Duration {
        self.end.store(true, Ordering::Relaxed);
        let burned = self.threads.drain(..).map(|thread| {
            let burned = thread.join();
            burned.expect("what burns CPU does not panic")
        });
        burned.sum()
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        self.end();
    }
}

fn burn(end: &AtomicBool) -> Duration {
    let mut value = 0_u64;
    while !end.load(Ordering::Relaxed) {
        for turn in 0..TURNS {
            value = black_box(value.wrapping_mul(6_364_136_223_846_793_005) ^ turn);
        }
    }
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(used.tv_sec).unwrap_or(0),
        u32::try_from(used.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: threads burn CPU until they are told to end, none do nothing, and there are never more than allowed.
    #[test]
    fn burns_until_the_end() {
        assert_eq!(Stress::start(0).expect("none").finish(), Duration::ZERO);
        let stress = Stress::start(2).expect("threads");
        assert_eq!(stress.threads.len(), 2);
        let end = Arc::clone(&stress.end);
        assert!(stress.finish() > Duration::ZERO);
        assert!(end.load(Ordering::Relaxed));
        let dropped = Stress::start(STRESS_MAX + 1).expect("threads");
        assert_eq!(dropped.threads.len(), STRESS_MAX);
    }
}
