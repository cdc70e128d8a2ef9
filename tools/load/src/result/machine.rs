//! The machine that the generator ran on, as far as a reader of the figures must know it.
//!
//! Read once at the start of a run from /proc. What cannot be read stays empty: a missing name must not
//! cost a measurement.

use std::fs;

use serde::{Deserialize, Serialize};

/// Processor, memory and kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// CPUs that the generator may use.
    pub cpus: u32,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// Name and release of the kernel.
    pub kernel: String,
}

impl Machine {
    /// This machine.
    pub fn read() -> Machine {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = text("/proc/sys/kernel/osrelease");
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        Machine {
            cpu: field(&text("/proc/cpuinfo"), "model name"),
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory_bytes: kibibytes(&field(&text("/proc/meminfo"), "MemTotal")),
            kernel: format!("Linux {}", release.trim()),
        }
    }
}

/// The first value of a name in lines of `name : value`.
fn field(text: &str, name: &str) -> String {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// Bytes, from `1234 kB`.
fn kibibytes(text: &str) -> u64 {
    let number = text.split_whitespace().next().unwrap_or_default();
    number.parse::<u64>().unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the files of the kernel are read as they are, and garbage gives nothing.
    #[test]
    fn fields_of_proc() {
        let check =
            |text: &str, name: &str, expected: &str| assert_eq!(field(text, name), expected);
        check("a: 1\nmodel name\t: Fast CPU\n", "model name", "Fast CPU");
        check("no colon\n", "model name", "");
        assert_eq!(kibibytes("24632992 kB"), 24_632_992 * 1024);
        assert_eq!(kibibytes("many"), 0);
    }
}
