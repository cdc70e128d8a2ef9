//! Starting a cluster: ports, CPUs, flags, and the wait until all members know their leader.

use std::path::PathBuf;
use std::sync::OnceLock;

use kontiki_harness::server::{Server, ServerOptions, Starting, free_port};
use serde::{Deserialize, Serialize};

use super::proxy::Proxies;
use super::{
    AGREE_TIME_MAX, Cluster, ClusterError, Kind, MEMBERS_MAX, Member, Program, home, world,
};

/// Attempts to find a port that no other member was given.
const PORT_ATTEMPTS_MAX: usize = 100;
/// Lines of the log shown of a member that does not start.
const SHOWN_LINES_MAX: usize = 2;

/// Which CPUs the members run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Placement {
    /// Each member on one CPU, in turn; the last CPU is left to the generator where there are enough.
    #[default]
    Spread,
    /// Wherever the kernel puts them; who leads is chance in a comparison, as no member has a better seat.
    Free,
}

/// Heartbeat interval and election timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Settings {
    /// Heartbeat interval, in milliseconds.
    pub heartbeat_ms: u64,
    /// Election timeout, in milliseconds.
    pub election_ms: u64,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The server.
    pub program: Program,
    /// How many of it, at most [`MEMBERS_MAX`].
    pub members: usize,
    /// Below which the members' directories are made, on a disk.
    pub data_dir: PathBuf,
    /// Who runs where.
    pub placement: Placement,
    /// None for the server's defaults.
    pub settings: Option<Settings>,
    /// Whether members talk through proxies, so that one can be cut off.
    pub proxied: bool,
    /// Further flags of the server.
    pub flags: Vec<String>,
}

impl Cluster {
    /// Starts all members on fresh directories, and waits until they agree on a leader. They end with the calling thread
    /// at the latest, also when this program is killed.
    ///
    /// # Errors
    /// When the settings are senseless, a member ends, or no leader is found in time; nothing is left running.
    pub fn start(options: &ClusterOptions) -> Result<Cluster, ClusterError> {
        if options.members == 0 || options.members > MEMBERS_MAX {
            return Err(ClusterError::Settings(format!(
                "{} members: from 1 to {MEMBERS_MAX} can be started",
                options.members
            )));
        }
        let home = home::prepare(&options.data_dir)?;
        let mut members = prepare(options, home.path().to_owned())?;
        let proxies = match options.proxied {
            true => Some(Proxies::start(&mut members).map_err(world("proxies between members"))?),
            false => None,
        };
        let cluster_list: Vec<String> = members
            .iter()
            .map(|options| format!("{}={}", options.name, options.peer_url()))
            .collect();
        for member in &mut members {
            member.initial_cluster = cluster_list.join(",");
        }
        let members = members
            .into_iter()
            .map(|options| Member {
                options,
                server: None,
                stopped: false,
            })
            .collect();
        let mut cluster = Cluster {
            program: options.program.clone(),
            members,
            proxies,
            home,
        };
        cluster.start_missing()?;
        cluster.wait_agreed(AGREE_TIME_MAX)?;
        Ok(cluster)
    }

    /// Starts every member that does not run, on the data that it has, all at once: none is ready alone.
    ///
    /// # Errors
    /// When one does not become ready.
    pub fn start_missing(&mut self) -> Result<(), ClusterError> {
        let (size, kind, program) = (
            self.members.len(),
            self.program.kind,
            self.program.to_string(),
        );
        // By this thread, which lives as long as what it does with them: they end with it, whatever ends it.
        let missing = self
            .members
            .iter_mut()
            .filter(|member| member.server.is_none());
        let begun: Vec<_> = missing
            .map(|member| {
                let starting = Starting::begin(&member.options);
                (member, starting)
            })
            .collect();
        let started: Vec<Result<(), ClusterError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = begun
                .into_iter()
                .map(|(member, starting)| {
                    let program = program.clone();
                    scope.spawn(move || {
                        let server = starting.and_then(Starting::wait);
                        let cause = |error: std::io::Error| ClusterError::Start {
                            kind,
                            program,
                            members: size,
                            cause: last_lines(&error.to_string()),
                        };
                        member.server = Some(server.map_err(cause)?);
                        member.stopped = false;
                        Ok(())
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("waiting does not panic"))
                .collect()
        });
        if let Some(proxies) = &self.proxies {
            for (index, member) in self.members.iter().enumerate() {
                proxies.set_pid(index, member.server.as_ref().map(Server::pid));
            }
        }
        started.into_iter().collect()
    }
}

/// Names, ports, directories and CPUs of all members.
fn prepare(options: &ClusterOptions, home: PathBuf) -> Result<Vec<ServerOptions>, ClusterError> {
    let cpus = usable_cpus();
    let mut taken: Vec<u16> = Vec::new();
    let mut members = Vec::new();
    for index in 0..options.members {
        let name = member_name(index);
        let directory = home.join(&name);
        std::fs::create_dir(&directory).map_err(world(directory.display().to_string()))?;
        let mut member = ServerOptions::new(&options.program.path, &directory)
            .map_err(world("a port on loopback"))?;
        member.name = name;
        member.client_port = another_port(&mut taken)?;
        member.peer_port = another_port(&mut taken)?;
        member.cpu = match options.placement {
            Placement::Spread => Some(cpu_of(&cpus, options.members, index)),
            Placement::Free => None,
        };
        member.ends_with_starter = true;
        member.extra = flags(options);
        members.push(member);
    }
    Ok(members)
}

/// What a member is called, counted from zero.
pub(super) fn member_name(index: usize) -> String {
    format!("m{}", index + 1)
}

fn flags(options: &ClusterOptions) -> Vec<String> {
    let mut flags = Vec::new();
    if options.program.kind == Kind::Kontiki && options.placement == Placement::Spread {
        flags.push("--cores=1".to_owned());
    }
    if let Some(settings) = options.settings {
        flags.push(format!("--heartbeat-interval={}", settings.heartbeat_ms));
        flags.push(format!("--election-timeout={}", settings.election_ms));
    }
    flags.extend(options.flags.iter().cloned());
    flags
}

/// A port that is free, and was not given to another member that has not bound it yet.
fn another_port(taken: &mut Vec<u16>) -> Result<u16, ClusterError> {
    for _ in 0..PORT_ATTEMPTS_MAX {
        let port = free_port().map_err(world("a port on loopback"))?;
        if !taken.contains(&port) {
            taken.push(port);
            return Ok(port);
        }
    }
    Err(ClusterError::Settings(
        "no free port on loopback".to_owned(),
    ))
}

/// The CPU of a member: with more CPUs than members, the last one is the generator's.
fn cpu_of(cpus: &[usize], members: usize, index: usize) -> usize {
    let for_members = if cpus.len() > members {
        cpus.len() - 1
    } else {
        cpus.len()
    };
    cpus[index % for_members]
}

/// The CPU that [`Placement::Spread`] leaves to the generator, if it leaves one.
#[must_use]
pub fn generator_cpu(members: usize) -> Option<usize> {
    let cpus = usable_cpus();
    (cpus.len() > members).then(|| *cpus.last().expect("more than none"))
}

/// The end of a log, on one line.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let (_, shown) = lines.split_at(lines.len().saturating_sub(SHOWN_LINES_MAX));
    shown.join("; ")
}

/// CPUs that this process could use when they were first asked for; never empty. Later the generator binds
/// itself to one of them, and the members must not follow it there.
fn usable_cpus() -> Vec<usize> {
    static CPUS: OnceLock<Vec<usize>> = OnceLock::new();
    CPUS.get_or_init(read_cpus).clone()
}

fn read_cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).ok();
    let allowed = |set: &rustix::thread::CpuSet| -> Vec<usize> {
        (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect()
    };
    set.as_ref()
        .map(allowed)
        .filter(|cpus| !cpus.is_empty())
        .unwrap_or_else(|| vec![0])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Goal: members share CPUs evenly, and the generator has one alone where there is one more.
    #[test]
    fn members_over_cpus() {
        let check = |cpus: &[usize], members: usize, expected: &[usize]| {
            let found: Vec<usize> = (0..members)
                .map(|index| cpu_of(cpus, members, index))
                .collect();
            assert_eq!(found, expected, "{members} members on {cpus:?}");
        };
        check(&[0], 1, &[0]);
        check(&[0, 1], 1, &[0]);
        check(&[0, 1], 3, &[0, 1, 0]);
        check(&[2, 3, 5, 7], 3, &[2, 3, 5]);
        check(&[0, 1, 2, 3, 4, 5], 3, &[0, 1, 2]);
    }

    /// Goal: ports of members that are not started yet are never given twice.
    #[test]
    fn ports_differ() {
        let mut taken = Vec::new();
        for _ in 0..20 {
            another_port(&mut taken).expect("a port");
        }
        let mut sorted = taken.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), taken.len());
    }

    /// Goal: a member does not outlive the thread that started it, so that it does not outlive this program either.
    #[test]
    fn members_end_with_their_starter() {
        let home = tempfile::tempdir().expect("a directory");
        let program = home.path().join("server");
        // Written by another process: what this one has open to write, a child of another test may have open too, and
        // then nobody can run it.
        let script = "printf '#!/bin/sh\necho ready to serve client requests >&2\nexec sleep 600\n' > \"$1\" && chmod +x \"$1\"";
        let written = std::process::Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&program)
            .status();
        assert!(written.is_ok_and(|status| status.success()));
        let options = ClusterOptions {
            program: Program {
                kind: Kind::Etcd,
                path: program,
                version: String::new(),
            },
            members: 1,
            data_dir: home.path().to_owned(),
            placement: Placement::Spread,
            settings: None,
            proxied: false,
            flags: Vec::new(),
        };
        let members = prepare(&options, home.path().to_owned()).expect("a member");
        let starter = std::thread::spawn(move || Server::start(&members[0]).expect("it starts"));
        let server = starter.join().expect("no panic");
        let ended = server.wait(Duration::from_secs(10)).expect("it ends");
        assert!(!ended.success(), "{ended}");
    }
}
