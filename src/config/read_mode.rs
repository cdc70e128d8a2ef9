//! `kontiki read-mode`: its words. Pure, like the rest of the configuration.

use super::error::ConfigError;
use crate::base::url::Url;
use crate::raft::ReadMode;

/// The word on the command line.
pub const READ_MODE: &str = "read-mode";
/// etcdctl's default.
const ENDPOINT: &str = "127.0.0.1:2379";
/// More members than a cluster has.
const ENDPOINTS_MAX: usize = 64;

/// What the help says.
const USAGE: &str = "\
Usage:
  kontiki read-mode [flags]
    Say on what linearizable reads rest, as each of these members knows it.
  kontiki read-mode index|lease [flags]
    Change it for the whole cluster, through the first of these members that takes it. It is part of the
    cluster's replicated state: no flag, and kept over restarts.

    index  each batch of reads waits until a majority has confirmed the leader (the default)
    lease  a leader that a majority has lately promised to follow answers by itself. It needs members whose
           clocks (CLOCK_BOOTTIME) differ in speed by less than a tenth and never stand still: not on virtual
           machines that are paused, restored or moved while they run. A leader that is lost is replaced
           after --election-timeout, also where its connections close at once.

  --endpoints '127.0.0.1:2379'
    Members, with commas in between.
";

/// What the words ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadModeInvocation {
    /// Print this text.
    Print(&'static str),
    /// Ask members.
    Run(ReadModeCommand),
}

/// What members are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadModeCommand {
    /// What is to hold from now on; without it they are asked what holds.
    pub wanted: Option<ReadMode>,
    /// Where they are, at least one.
    pub endpoints: Vec<Url>,
}

/// Reads the words behind `read-mode`.
///
/// # Errors
/// Unknown flags, modes and endpoints that are none.
pub fn parse_read_mode(words: &[String]) -> Result<ReadModeInvocation, ConfigError> {
    let mut wanted = None;
    let mut endpoints = ENDPOINT.to_owned();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            let mode = [ReadMode::Quorum, ReadMode::Lease]
                .into_iter()
                .find(|mode| mode.to_string() == *word);
            match mode {
                Some(mode) if wanted.is_none() => wanted = Some(mode),
                _ => return Err(ConfigError::StrayText { text: word.clone() }),
            }
            continue;
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        match name {
            "h" | "help" => return Ok(ReadModeInvocation::Print(USAGE)),
            "endpoints" => {
                let value = given.or_else(|| words.next().cloned());
                endpoints = value.ok_or(ConfigError::MissingValue { name: "endpoints" })?;
            }
            _ => {
                let name = name.to_owned();
                return Err(ConfigError::UnknownFlag { name });
            }
        }
    }
    let count = endpoints.split(',').count();
    if count > ENDPOINTS_MAX {
        return Err(ConfigError::OutOfRange {
            flag: "endpoints",
            value: format!("{count} endpoints"),
            bounds: format!("1 to {ENDPOINTS_MAX}"),
        });
    }
    let endpoints: Result<Vec<Url>, ConfigError> = endpoints.split(',').map(endpoint).collect();
    Ok(ReadModeInvocation::Run(ReadModeCommand {
        wanted,
        endpoints: endpoints?,
    }))
}

/// A member's client URL, which may lack its scheme.
fn endpoint(text: &str) -> Result<Url, ConfigError> {
    let parsed = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("http://{}", text.trim()))
    };
    parsed.map_err(|fault| ConfigError::Url {
        flag: "endpoints",
        url: text.to_owned(),
        fault,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<ReadModeInvocation, ConfigError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse_read_mode(&words)
    }

    /// Goal: the words mean what they look like, with etcdctl's default and both ways to write an endpoint.
    #[test]
    fn words() {
        let check = |line: &str, wanted: Option<ReadMode>, endpoints: &[&str]| {
            let Ok(ReadModeInvocation::Run(command)) = parse(line) else {
                panic!("{line}: {:?}", parse(line));
            };
            let found: Vec<String> = command.endpoints.iter().map(Url::to_string).collect();
            assert_eq!(
                (command.wanted, found),
                (
                    wanted,
                    endpoints.iter().map(|url| (*url).to_owned()).collect()
                )
            );
        };
        check("", None, &["http://127.0.0.1:2379"]);
        check("lease", Some(ReadMode::Lease), &["http://127.0.0.1:2379"]);
        check(
            "--endpoints a:1,http://[::1]:2 index",
            Some(ReadMode::Quorum),
            &["http://a:1", "http://[::1]:2"],
        );
        assert!(matches!(parse("-h"), Ok(ReadModeInvocation::Print(_))));
    }

    /// Goal: what is no wish is refused by name.
    #[test]
    fn refused() {
        let check = |line: &str, message: &str| {
            let refused = parse(line).expect_err(line).to_string();
            assert!(refused.contains(message), "{line}: {refused}");
        };
        check("quorum", "\"quorum\" is not a valid flag");
        check("lease index", "\"index\" is not a valid flag");
        check("--endpoint=a:1", "not defined: -endpoint");
        check("--endpoints", "needs an argument: -endpoints");
        check("--endpoints=a", "--endpoints: URL address");
        check("--endpoints=https://a:1", "only http URLs");
        check("--endpoints=a:1,", "--endpoints: URL address");
    }
}
