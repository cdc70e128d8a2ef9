//! The server programs: which kinds there are, where their binaries are, and what versions they say they are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ClusterError;

/// The environment variable that names an etcd binary, as the other tests use it.
const ETCD_VARIABLE: &str = "ETCD_BIN";
/// Where `tools/fetch-etcd` puts one, below the build directory.
const ETCD_FETCHED: &str = "etcd/usr/bin/etcd";

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Kontiki,
    /// The original.
    Etcd,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Kontiki => "kontiki",
            Kind::Etcd => "etcd",
        })
    }
}

/// A binary that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Whose.
    pub kind: Kind,
    /// Where.
    pub path: PathBuf,
    /// What it says it is, in one line.
    pub version: String,
}

impl Program {
    /// Ours: the binary given, else the one beside this executable.
    ///
    /// # Errors
    /// When there is none, or it does not run.
    pub fn kontiki(given: Option<&Path>) -> Result<Program, ClusterError> {
        let beside = || beside_this_executable(0).map(|directory| directory.join("kontiki"));
        let path = given
            .map(Path::to_owned)
            .or_else(beside)
            .unwrap_or_default();
        Program::at(
            Kind::Kontiki,
            path,
            "build it with `cargo build --release`, or name one with --kontiki",
        )
    }

    /// etcd: the binary given, else that of ETCD_BIN, else the one that tools/fetch-etcd has fetched.
    ///
    /// # Errors
    /// When there is none, or it does not run.
    pub fn etcd(given: Option<&Path>) -> Result<Program, ClusterError> {
        let named = || std::env::var_os(ETCD_VARIABLE).map(PathBuf::from);
        let fetched = || beside_this_executable(1).map(|directory| directory.join(ETCD_FETCHED));
        let path = given
            .map(Path::to_owned)
            .or_else(named)
            .or_else(fetched)
            .unwrap_or_default();
        Program::at(
            Kind::Etcd,
            path,
            "run tools/fetch-etcd (Debian), set ETCD_BIN, or name one with --etcd",
        )
    }

    fn at(kind: Kind, path: PathBuf, hint: &'static str) -> Result<Program, ClusterError> {
        let output = Command::new(&path).arg("--version").output().ok();
        let version = output
            .filter(|output| output.status.success())
            .and_then(|output| {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                Some(version_of(said.lines().next()?))
            });
        match version {
            Some(version) => Ok(Program {
                kind,
                path,
                version,
            }),
            None => Err(ClusterError::NoProgram {
                kind,
                path: path.display().to_string(),
                hint,
            }),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.version)
    }
}

/// The number in `etcd Version: 3.5.30`.
fn version_of(line: &str) -> String {
    let words = line.split_whitespace();
    words.last().unwrap_or_default().to_owned()
}

/// The directory of this executable, or one so many levels above.
fn beside_this_executable(levels: usize) -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    executable.ancestors().nth(levels + 1).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a binary that is missing or no server is named with the way to get one.
    #[test]
    fn missing_programs() {
        let check = |path: &str| {
            let refused = Program::etcd(Some(Path::new(path))).expect_err("no etcd");
            let said = refused.to_string();
            assert!(
                said.contains(path) && said.contains("tools/fetch-etcd"),
                "{said}"
            );
        };
        check("/nowhere/etcd");
        check("/bin/false");
        assert_eq!(version_of("etcd Version: 3.5.30"), "3.5.30");
    }
}
