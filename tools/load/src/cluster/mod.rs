//! Clusters of real servers on this machine: started on free ports of loopback, watched, hurt and ended.
//!
//! Owns child processes and a directory on a real disk, and removes both. Must never signal a process that
//! it did not start, and must never keep data in memory file systems: a sync there costs nothing, so that
//! every figure would be wrong. All calls block the calling thread; the proxies have a thread of their own.

mod brake;
mod control;
mod home;
mod program;
mod proxy;
mod start;

pub use brake::{Brake, Held, NoBrake};
pub use control::{ClusterStatus, MemberStatus};
pub use home::default_data_dir;
pub use program::{Kind, Program};
pub use start::{ClusterOptions, Placement, Settings, generator_cpu};

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kontiki_harness::server::{Server, ServerOptions};
use tempfile::TempDir;
use thiserror::Error;

use proxy::Proxies;

/// Members of a cluster. etcd itself advises against more than seven.
pub const MEMBERS_MAX: usize = 9;
/// How long members may take until they agree on a leader.
pub const AGREE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long one question about a member's state may take.
pub const STATUS_TIME_MAX: Duration = Duration::from_secs(1);
/// How long a leader may take to say that another member leads.
pub const TRANSFER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a member may take to end after SIGTERM.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// Why a cluster cannot be used.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// No binary at the place given, or none given and none found.
    #[error("no {kind} at {path}: {hint}")]
    NoProgram {
        /// Which one.
        kind: Kind,
        /// Where it was looked for.
        path: String,
        /// How to get one.
        hint: &'static str,
    },
    /// The data would not be on a disk.
    #[error(
        "{path} is on {file_system}, which keeps files in memory: a sync costs nothing there, and every figure would be \
         wrong. Name a directory on a disk with --data-dir"
    )]
    InMemory {
        /// Which directory.
        path: String,
        /// What it is on.
        file_system: &'static str,
    },
    /// The file system or the kernel said no.
    #[error("{what}: {error}")]
    World {
        /// What was tried.
        what: String,
        /// What it said.
        error: io::Error,
    },
    /// A member does not start.
    #[error("{program} does not start as one of {members} members: {cause}")]
    Start {
        /// Which program.
        kind: Kind,
        /// Program and version.
        program: String,
        /// Members of the cluster.
        members: usize,
        /// The end of its log, on one line.
        cause: String,
    },
    /// The members do not agree on a leader.
    #[error("no leader that all members know after {AGREE_TIME_MAX:?}: {seen}")]
    NoLeader {
        /// What each member said last.
        seen: String,
    },
    /// A member does not lead although the leaders were asked to make way for it.
    #[error("member {} does not lead after {waited:?}: {seen}", .member + 1)]
    NotSeated {
        /// Which member, from zero.
        member: usize,
        /// How long it was tried.
        waited: Duration,
        /// What the leader said last.
        seen: String,
    },
    /// Some member stays behind the others.
    #[error("not all members have the same revision: {seen}")]
    Behind {
        /// What each member said last.
        seen: String,
    },
    /// Something was asked of a member in a state that forbids it.
    #[error("member {member} is {state}")]
    State {
        /// Which member, from zero.
        member: usize,
        /// What it is doing.
        state: &'static str,
    },
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(String),
}

/// Running members. Dropping it kills them and removes their data.
#[derive(Debug)]
pub struct Cluster {
    program: Program,
    members: Vec<Member>,
    proxies: Option<Proxies>,
    /// Dropped last: the processes are gone by then.
    home: TempDir,
}

/// One member.
#[derive(Debug)]
struct Member {
    options: ServerOptions,
    server: Option<Server>,
    stopped: bool,
}

impl Cluster {
    /// What runs in it.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// How many members it has, running or not.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Where clients reach each member.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members
            .iter()
            .map(|member| member.options.client_address())
            .collect()
    }

    /// The members' processes, in their order; those that do not run are left out.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.members
            .iter()
            .filter_map(|member| Some(member.server.as_ref()?.pid()))
            .collect()
    }

    /// Where everything of this cluster is kept.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    /// The CPU each member is bound to.
    #[must_use]
    pub fn cpus(&self) -> Vec<Option<usize>> {
        self.members
            .iter()
            .map(|member| member.options.cpu)
            .collect()
    }
}

fn world(what: impl Into<String>) -> impl FnOnce(io::Error) -> ClusterError {
    let what = what.into();
    |error| ClusterError::World { what, error }
}
