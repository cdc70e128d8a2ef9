//! `kontiki-load lease`: leases granted, renewed, revoked and ended by time.

use std::process::ExitCode;
use std::time::Duration;

use super::Failure;
use super::load::LoadArguments;
use crate::workload::{Kind, WorkloadSpec};

/// Seconds that a lease lives when nothing else is said.
const TTL_SECONDS: u32 = 60;
/// The same where its end is what is measured: the least that servers with usual election timeouts grant.
const EXPIRING_TTL_SECONDS: u32 = 2;

/// Command line of `kontiki-load lease`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is done with leases.
    #[arg(long, value_enum, default_value = "renew")]
    operation: Operation,
    /// Leases that are there at the same time.
    #[arg(long, default_value_t = 1000)]
    leases: u64,
    /// Seconds that a lease lives [default: 60; with --operation expire 2].
    #[arg(long)]
    ttl: Option<u32>,
    #[command(flatten)]
    load: LoadArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Operation {
    /// Keep-alive messages over one stream for each connection.
    Renew,
    /// Grants; beyond --leases, each revokes the oldest.
    Grant,
    /// Each lease gets one key, and how much later than promised the key is deleted is measured. Needs --rate, of
    /// grants and puts together.
    Expire,
}

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    arguments.load.run(workload(arguments)?)
}

fn workload(arguments: &Arguments) -> Result<WorkloadSpec, Failure> {
    let kind = match arguments.operation {
        Operation::Renew => Kind::Renew,
        Operation::Grant => Kind::Grant,
        Operation::Expire => Kind::Expiry,
    };
    let mut workload = arguments.load.workload(vec![(kind, 1)]);
    workload.leases = arguments.leases.max(1);
    let mut ttl = arguments.ttl.unwrap_or(TTL_SECONDS).max(1);
    if arguments.operation == Operation::Expire {
        if !arguments.load.has_rate() {
            return Err(
                "--operation expire needs --rate: leases end by time, not by answers".into(),
            );
        }
        ttl = arguments.ttl.unwrap_or(EXPIRING_TTL_SECONDS).max(1);
        if let Some(span) = arguments.load.span()
            && span <= Duration::from_secs(u64::from(ttl))
        {
            return Err(format!(
                "no lease ends within the load: --ttl is {ttl} s, --warm-up and --duration are {span:?} together"
            )
            .into());
        }
        // Each thread sees the end of its own leases: through a watcher of the whole key space.
        workload.watchers = arguments.load.threads() as u64;
    }
    workload.lease_ttl_seconds = i64::from(ttl);
    Ok(workload)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// Goal: leases end within a load that measures their ends, or it is refused.
    #[test]
    fn leases_that_end() {
        let check = |line: &str, expected: Option<i64>| {
            let words = ["lease"].into_iter().chain(line.split_whitespace());
            let arguments = Line::parse_from(words).arguments;
            let ttl = workload(&arguments).map(|workload| workload.lease_ttl_seconds);
            assert_eq!(ttl.ok(), expected, "{line}");
        };
        check("", Some(60));
        check("--ttl 5", Some(5));
        check("--operation expire", None);
        check("--operation expire --rate 10", Some(2));
        check("--operation expire --rate 10 --ttl 11", Some(11));
        check("--operation expire --rate 10 --ttl 12", None);
        check(
            "--operation expire --rate 10 --duration 100s --ttl 60",
            Some(60),
        );
        check(
            "--operation expire --rate 10 --warm-up 0s --duration 2s",
            None,
        );
        check("--operation expire --rate 10 --total 50 --ttl 60", Some(60));
    }
}
