//! CPU time and memory of the servers and of the generator.

use std::fs;
use std::io;
use std::path::Path;

use kontiki_harness::cpu::CpuTime;

use crate::result::{CpuCost, ServerCost};

/// Bytes of a kibibyte, which the kernel counts memory in.
const KIB: u64 = 1024;

/// The watched processes. One that ends keeps what was last seen of it.
#[derive(Debug)]
pub(crate) struct Watched(Vec<Process>);

#[derive(Debug)]
struct Process {
    pid: u32,
    name: String,
    begin: CpuTime,
    last: CpuTime,
    rss_bytes: u64,
    gone: bool,
}

impl Watched {
    /// Looks at each process for the first time.
    ///
    /// # Errors
    /// When there is none with one of the ids.
    pub(crate) fn new(pids: &[u32]) -> io::Result<Watched> {
        let process = |pid: &u32| {
            let cpu = CpuTime::of_process(*pid).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("no server with process id {pid}: {error}"),
                )
            })?;
            Ok(Process {
                pid: *pid,
                name: name_of(*pid),
                begin: cpu,
                last: cpu,
                rss_bytes: 0,
                gone: false,
            })
        };
        Ok(Watched(
            pids.iter().map(process).collect::<io::Result<_>>()?,
        ))
    }

    /// The measured part begins.
    pub(crate) fn begin(&mut self) {
        self.look();
        for process in &mut self.0 {
            process.begin = process.last;
            process.rss_bytes = 0;
        }
        self.look();
    }

    /// Takes what they use now. Called about once a second, so that the highest memory is seen.
    pub(crate) fn look(&mut self) {
        for process in &mut self.0 {
            match CpuTime::of_process(process.pid) {
                Ok(cpu) => process.last = cpu,
                Err(_) => process.gone = true,
            }
            process.rss_bytes = process.rss_bytes.max(rss_bytes(process.pid));
        }
    }

    /// The processes that have ended.
    pub(crate) fn gone(&self) -> Vec<u32> {
        self.0
            .iter()
            .filter(|process| process.gone)
            .map(|process| process.pid)
            .collect()
    }

    /// What they used since the beginning.
    pub(crate) fn costs(&self) -> Vec<ServerCost> {
        let cost = |process: &Process| ServerCost {
            pid: process.pid,
            name: process.name.clone(),
            cpu: used(process.begin, process.last),
            rss_bytes: process.rss_bytes,
        };
        self.0.iter().map(cost).collect()
    }
}

/// CPU time of this process so far.
pub(crate) fn own_cpu() -> CpuTime {
    // Only a system without /proc says no, and then no figure is better than none of the others.
    CpuTime::of_process(std::process::id()).unwrap_or_default()
}

/// CPU time between two looks.
pub(crate) fn used(from: CpuTime, to: CpuTime) -> CpuCost {
    CpuCost {
        user: to.user.saturating_sub(from.user),
        system: to.system.saturating_sub(from.system),
    }
}

/// The program's file name; the process id is beside it in results.
fn name_of(pid: u32) -> String {
    let program = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = program.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = String::from_utf8_lossy(program).into_owned();
    let name = Path::new(&program)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "server".into())
}

/// Resident memory of a process; zero when it is gone.
pub(crate) fn rss_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0)
        * KIB
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a living process has a name, memory and rising time; one that is not there is refused at once.
    #[test]
    fn watches() {
        let mut watched = Watched::new(&[std::process::id()]).expect("this process");
        watched.begin();
        watched.look();
        let costs = watched.costs();
        assert!(costs[0].rss_bytes > KIB && costs[0].name.starts_with("kontiki_load"));
        assert!(watched.gone().is_empty());
        assert!(Watched::new(&[u32::MAX / 2]).is_err());
    }
}
