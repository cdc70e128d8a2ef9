//! `kontiki local-cluster`: its flags, and the flags of each member it starts.
//!
//! Pure, like the rest of the configuration: what is done with it is the business of `local_cluster` above.

use std::path::PathBuf;

use super::error::ConfigError;
use super::value::ValueError;

/// The word on the command line.
pub const LOCAL_CLUSTER: &str = "local-cluster";
/// More would not fit between the first port and the last there is.
pub const LOCAL_MEMBERS_MAX: usize = 7;
/// Between the ports of two members.
const PORT_STEP: u16 = 10_000;
const FIRST_PORT: u16 = 2_379;
const DATA_DIR: &str = "local-cluster.kontiki";

/// What the help says.
const USAGE: &str = "\
Usage:
  kontiki local-cluster [flags] [-- flags of every member]
    Run a cluster on this machine, each member a process of its own. SIGTERM, Ctrl-C and the end of the
    terminal end all of them.

  --members '3'
    How many, 1 to 7.
  --data-dir 'local-cluster.kontiki'
    Directories m1, m2, ... and their logs m1.log, m2.log, ... lie here. A cluster that is found here goes on.
  --port '2379'
    The client port of the first member; its peer port follows it. Each further member has both 10000 higher.
";

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCluster {
    /// Its members and ports.
    pub shape: LocalShape,
    /// Below which their directories and logs lie.
    pub data_dir: PathBuf,
    /// Further flags of every member.
    pub flags: Vec<String>,
    /// Whether the flags say how many members, and at which port.
    given: (bool, bool),
}

/// What a cluster keeps for its life: the members know each other by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LocalShape {
    /// How many members, at least one.
    pub members: usize,
    /// The first member's client port.
    pub first_port: u16,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalClusterInvocation {
    /// Print this text and exit with zero.
    Print(&'static str),
    /// Start a cluster.
    Run(LocalCluster),
}

/// One member of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalMember {
    /// Its name, and that of its directory.
    pub name: String,
    /// Its client port on 127.0.0.1.
    pub client_port: u16,
    /// Its command line, without the program.
    pub words: Vec<String>,
    /// Where its log lines go.
    pub log: PathBuf,
}

/// Reads the words behind `local-cluster`.
///
/// # Errors
/// Unknown flags, values that are none, and members whose ports there are not.
pub fn parse_local_cluster(words: &[String]) -> Result<LocalClusterInvocation, ConfigError> {
    let mut cluster = LocalCluster {
        shape: LocalShape {
            members: 3,
            first_port: FIRST_PORT,
        },
        data_dir: PathBuf::from(DATA_DIR),
        flags: Vec::new(),
        given: (false, false),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            cluster.flags = words.cloned().collect();
            break;
        }
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            return Err(ConfigError::StrayText { text: word.clone() });
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let mut value = |name: &'static str| {
            let next = given.clone().or_else(|| words.next().cloned());
            next.ok_or(ConfigError::MissingValue { name })
        };
        match name {
            "h" | "help" => return Ok(LocalClusterInvocation::Print(USAGE)),
            "members" => {
                cluster.shape.members = number("members", &value("members")?)?;
                cluster.given.0 = true;
            }
            "data-dir" => cluster.data_dir = PathBuf::from(value("data-dir")?),
            "port" => {
                cluster.shape.first_port = number("port", &value("port")?)?;
                cluster.given.1 = true;
            }
            _ => {
                let name = name.to_owned();
                return Err(ConfigError::UnknownFlag { name });
            }
        }
    }
    cluster.shape.check()?;
    Ok(LocalClusterInvocation::Run(cluster))
}

fn number<N: std::str::FromStr>(flag: &str, text: &str) -> Result<N, ConfigError> {
    text.parse().map_err(|_| ConfigError::InvalidValue {
        place: format!("--{flag}"),
        value: text.to_owned(),
        reason: ValueError::NotNumber,
    })
}

impl LocalCluster {
    /// Goes on with a cluster that was found: what the flags do not say is as it was.
    ///
    /// # Errors
    /// A flag that says something else, or a shape that cannot be.
    pub fn go_on_with(&mut self, found: LocalShape) -> Result<(), ConfigError> {
        found.check()?;
        let wanted = self.shape;
        for (flag, given, value, found) in [
            ("members", self.given.0, wanted.members, found.members),
            (
                "port",
                self.given.1,
                wanted.first_port.into(),
                found.first_port.into(),
            ),
        ] {
            if given && value != found {
                return Err(ConfigError::OutOfRange {
                    flag,
                    value: value.to_string(),
                    bounds: format!(
                        "{found}, as that is what the cluster in {} began with",
                        self.data_dir.display()
                    ),
                });
            }
        }
        self.shape = found;
        Ok(())
    }
}

impl LocalShape {
    fn check(self) -> Result<(), ConfigError> {
        if self.members == 0 || self.members > LOCAL_MEMBERS_MAX {
            return Err(ConfigError::OutOfRange {
                flag: "members",
                value: self.members.to_string(),
                bounds: format!("1 to {LOCAL_MEMBERS_MAX}"),
            });
        }
        // The last member's peer port must exist too.
        let steps = usize::from(PORT_STEP) * (self.members - 1) + 1;
        let last = usize::from(u16::MAX) - steps;
        if self.first_port == 0 || usize::from(self.first_port) > last {
            return Err(ConfigError::OutOfRange {
                flag: "port",
                value: self.first_port.to_string(),
                bounds: format!("1 to {last}, so that all members have ports"),
            });
        }
        Ok(())
    }
}

impl LocalCluster {
    /// The members, spread over these CPUs: each has its own while there are enough, and one executor else.
    #[must_use]
    pub fn plan(&self, cpus: &[usize]) -> Vec<LocalMember> {
        let peers: Vec<String> = (0..self.shape.members)
            .map(|index| format!("{}={}", name(index), self.peer_url(index)))
            .collect();
        let initial_cluster = peers.join(",");
        (0..self.shape.members)
            .map(|index| self.member(index, cpus, &initial_cluster))
            .collect()
    }

    fn member(&self, index: usize, cpus: &[usize], initial_cluster: &str) -> LocalMember {
        let name = name(index);
        let client_url = format!("http://127.0.0.1:{}", self.client_port(index));
        let mut words = vec![
            format!("--name={name}"),
            format!("--data-dir={}", self.data_dir.join(&name).display()),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={}", self.peer_url(index)),
            format!("--initial-advertise-peer-urls={}", self.peer_url(index)),
            format!("--initial-cluster={initial_cluster}"),
            format!("--initial-cluster-token={LOCAL_CLUSTER}"),
        ];
        words.extend(cores(cpus, self.shape.members, index));
        // Last, so that they count.
        words.extend(self.flags.iter().cloned());
        LocalMember {
            client_port: self.client_port(index),
            log: self.data_dir.join(format!("{name}.log")),
            name,
            words,
        }
    }

    fn client_port(&self, index: usize) -> u16 {
        let steps = u16::try_from(index).expect("at most seven members");
        self.shape.first_port + PORT_STEP * steps
    }

    fn peer_url(&self, index: usize) -> String {
        format!("http://127.0.0.1:{}", self.client_port(index) + 1)
    }
}

fn name(index: usize) -> String {
    format!("m{}", index + 1)
}

/// The share of one member; nothing where no CPU is known.
fn cores(cpus: &[usize], members: usize, index: usize) -> Option<String> {
    let count = cpus.len();
    let share = if count >= members {
        &cpus[index * count / members..(index + 1) * count / members]
    } else {
        let at = index % count.max(1);
        cpus.get(at..=at)?
    };
    // A lone number would be a count.
    let list: Vec<String> = share.iter().map(|cpu| format!("{cpu}-{cpu}")).collect();
    Some(format!("--cores={}", list.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<LocalClusterInvocation, ConfigError> {
        let words: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
        parse_local_cluster(&words)
    }

    #[track_caller]
    fn run(line: &str) -> LocalCluster {
        match parse(line) {
            Ok(LocalClusterInvocation::Run(cluster)) => cluster,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// Goal: flags reach their fields in both forms, and what follows `--` is the members'.
    #[test]
    fn flags() {
        let plain = run("");
        assert_eq!((plain.shape.members, plain.shape.first_port), (3, 2_379));
        let cluster =
            run("--members 5 --port=12000 --data-dir /d -- --election-timeout=500 --help");
        assert_eq!(
            (cluster.shape.members, cluster.shape.first_port),
            (5, 12_000)
        );
        assert_eq!(cluster.data_dir, PathBuf::from("/d"));
        assert_eq!(cluster.flags, ["--election-timeout=500", "--help"]);
        assert_eq!(
            parse("--members=3 -h"),
            Ok(LocalClusterInvocation::Print(USAGE))
        );
    }

    /// Goal: what cannot be started is refused in words that name the flag.
    #[test]
    fn refusals() {
        let check = |line: &str, message: &str| {
            let refused = parse(line).expect_err(line);
            assert_eq!(refused.to_string(), message, "{line}");
        };
        check("--nmae=x", "flag provided but not defined: -nmae");
        check("members", "\"members\" is not a valid flag");
        check("--members", "flag needs an argument: -members");
        check(
            "--members=0",
            "--members=0 is out of range: it must be 1 to 7",
        );
        check(
            "--members=8",
            "--members=8 is out of range: it must be 1 to 7",
        );
        check(
            "--port=45535",
            "--port=45535 is out of range: it must be 1 to 45534, so that all members have ports",
        );
        let refused = parse("--members=x").expect_err("no number").to_string();
        assert!(
            refused.starts_with("invalid value \"x\" for --members"),
            "{refused}"
        );
    }

    /// Goal: a cluster that is found goes on as it began, and a flag that says otherwise is refused by its name.
    #[test]
    fn found() {
        let began = LocalShape {
            members: 5,
            first_port: 3_379,
        };
        for line in ["", "--port=3379", "--members=5 --port=3379"] {
            let mut cluster = run(line);
            assert_eq!(cluster.go_on_with(began), Ok(()), "{line}");
            assert_eq!(cluster.shape, began, "{line}");
        }
        let check = |line: &str, message: &str| {
            let refused = run(line).go_on_with(began).expect_err(line);
            assert_eq!(refused.to_string(), message);
        };
        check(
            "--members=3",
            "--members=3 is out of range: it must be 5, as that is what the cluster in local-cluster.kontiki began with",
        );
        check(
            "--port=2379",
            "--port=2379 is out of range: it must be 3379, as that is what the cluster in local-cluster.kontiki began with",
        );
    }

    /// Goal: every member gets its own ports, directory and CPUs, and the same list of all; its line is one that a
    /// member accepts.
    #[test]
    fn plan() {
        let cluster = run("--data-dir=/d -- --election-timeout=500");
        let members = cluster.plan(&[0, 1]);
        let ports: Vec<u16> = members.iter().map(|member| member.client_port).collect();
        assert_eq!(ports, [2_379, 12_379, 22_379]);
        for (index, member) in members.iter().enumerate() {
            let parsed = crate::config::parse(&member.words, &[], None);
            let Ok(crate::config::Invocation::Run(config, _)) = parsed else {
                panic!("{parsed:?}")
            };
            let founding = config.initial.founding.expect("founded");
            assert_eq!(founding.members.len(), 3);
            assert_eq!(config.name, format!("m{}", index + 1));
            assert_eq!(config.raft.election_timeout.as_millis(), 500);
        }
    }

    /// Goal: CPUs are shared out evenly, and shared where there are too few.
    #[test]
    fn spread() {
        let check = |cpus: &[usize], members: usize, expected: &[&str]| {
            let found: Vec<_> = (0..members)
                .map(|index| cores(cpus, members, index).unwrap_or_default())
                .collect();
            assert_eq!(found, expected, "{cpus:?}");
        };
        check(&[0, 1], 3, &["--cores=0-0", "--cores=1-1", "--cores=0-0"]);
        check(
            &[2, 3, 5],
            3,
            &["--cores=2-2", "--cores=3-3", "--cores=5-5"],
        );
        check(
            &[0, 1, 2, 3],
            3,
            &["--cores=0-0", "--cores=1-1", "--cores=2-2,3-3"],
        );
        check(&[], 2, &["", ""]);
    }
}
