//! CPU time of processes, and binding to CPUs.

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time of a process since its start: all threads, those that have exited included.
///
/// The kernel's io_uring workers (`iou-wrk-*`) are threads of the process that uses the ring, so that
/// their time is in here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

impl CpuTime {
    /// Of the process `pid`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of_process(pid: u32) -> io::Result<CpuTime> {
        parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
    }

    /// Of the process' living io_uring workers alone: the part of [`CpuTime::of_process`] that threads
    /// of the kernel spent.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of_io_workers(pid: u32) -> io::Result<CpuTime> {
        let mut sum = CpuTime::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may exit between the listing and the reading.
            let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else {
                continue;
            };
            if stat.contains("(iou-wrk-") {
                let time = parse_stat(&stat)?;
                sum.user += time.user;
                sum.system += time.system;
            }
        }
        Ok(sum)
    }

    /// User and system time together.
    #[must_use]
    pub fn total(self) -> Duration {
        self.user + self.system
    }
}

/// Busy time of the whole machine since its start, summed over its CPUs; time stolen by the
/// hypervisor is no busy time.
///
/// # Errors
/// When `/proc/stat` is not readable.
pub fn machine_busy() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal ...
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        return Err(io::Error::other("/proc/stat has an unknown form"));
    };
    Ok(ticks_to_time(user + nice + system + irq + softirq))
}

/// Binds the calling thread, and the threads it starts later, to one CPU.
///
/// # Errors
/// When this process may not use that CPU.
pub fn bind_to_cpu(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

fn parse_stat(stat: &str) -> io::Result<CpuTime> {
    // The name in parentheses may hold blanks and parentheses; the fields begin after the last one.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    // Fields 14 and 15 of proc(5), counted from one; the first after the name is number 3.
    let ticks = |number: usize| fields.get(number - 3).and_then(|field| field.parse().ok());
    let (Some(user), Some(system)) = (ticks(14), ticks(15)) else {
        return Err(io::Error::other(format!(
            "unknown form of a stat file: {stat}"
        )));
    };
    Ok(CpuTime {
        user: ticks_to_time(user),
        system: ticks_to_time(system),
    })
}

fn ticks_to_time(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a name with blanks and parentheses does not shift the fields.
    #[test]
    fn stat_with_a_hostile_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 150 250 0 0 20 0 1";
        let time = parse_stat(&format!("42 (a) b (c)) {tail}")).expect("well formed");
        let tick = ticks_to_time(1);
        assert_eq!(time.user, tick * 150);
        assert_eq!(time.system, tick * 250);
    }

    /// Goal: time a thread spent before it exited is still counted.
    #[test]
    fn exited_threads_count() {
        let before = CpuTime::of_process(std::process::id()).expect("this process");
        let work = std::thread::spawn(|| {
            let start = std::time::Instant::now();
            let mut sum = 0_u64;
            while start.elapsed() < Duration::from_millis(400) {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
        });
        work.join().expect("no panic");
        let after = CpuTime::of_process(std::process::id()).expect("this process");
        assert!(after.total() - before.total() >= Duration::from_millis(50));
    }
}
