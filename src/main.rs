//! Reads the flags and runs the server, or a command for operators; nothing else.

#[cfg(feature = "planted")]
compile_error!(
    "a server is not built with the feature `planted`: its defects are for the simulator"
);

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kontiki::base::limits::CONFIG_FILE_SIZE_BYTES_MAX;
use kontiki::config::{
    self, Config, ConfigError, ConfigFile, EXIT_SETTINGS, Invocation, LOCAL_CLUSTER,
    LocalClusterInvocation, READ_MODE, ReadModeInvocation,
};
use kontiki::{local_cluster, logging, read_mode, server};

/// Without this word nothing is given up.
const ACCEPT_CUT: &str = "--accept-cut";

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut words = match words() {
        Ok(words) => words,
        Err(error) => return refuse(&error),
    };
    if let Some((word, words)) = words.split_first()
        && word == LOCAL_CLUSTER
    {
        return run_local_cluster(words);
    }
    if let Some((word, words)) = words.split_first()
        && word == READ_MODE
    {
        return run_read_mode(words);
    }
    let recover = words.first().is_some_and(|word| word == "recover");
    if recover {
        words.remove(0);
        let accepted = words.iter().position(|word| word == ACCEPT_CUT);
        let Some(at) = accepted else {
            eprintln!(
                "kontiki: recover gives up what a damaged log has lost, for ever; say {ACCEPT_CUT} if that is \
                 meant"
            );
            return ExitCode::from(EXIT_SETTINGS);
        };
        words.remove(at);
    }
    let (mut config, notices) = match read_configuration(&words) {
        Ok(Invocation::Run(config, _)) if recover => return recover_member(&config),
        Ok(Invocation::Run(config, notices)) => (config, notices),
        Ok(Invocation::Print(text)) => {
            // A reader that closes early, such as `head`, is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&error),
    };
    let logging = match logging::start(&config.log) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("kontiki: {error}");
            return ExitCode::from(EXIT_SETTINGS);
        }
    };
    logging::log_notices(&notices);
    let memory_budget_bytes = config
        .memory_budget_bytes
        .unwrap_or_else(probe_memory_budget);
    config.memory_budget_bytes = Some(memory_budget_bytes);
    tracing::info!(
        name = %config.name,
        data_dir = %config.data_dir.display(),
        version = config::KONTIKI_VERSION,
        etcd_version = config::ETCD_VERSION,
        memory_budget_bytes,
        "starting a member"
    );
    let outcome = server::run(*config);
    if let Err(error) = &outcome {
        tracing::error!("{error}");
        eprintln!("kontiki: {error}");
    }
    drop(logging);
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_SETTINGS)
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("kontiki: {error}\nkontiki --help lists all flags");
    ExitCode::from(error.exit_code())
}

/// The way out when a log is damaged and nobody can restore it.
fn recover_member(config: &Config) -> ExitCode {
    match server::accept_cut(config) {
        Ok(lines) => {
            let _ = io::stdout().write_all(lines.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("kontiki: {error}");
            ExitCode::from(EXIT_SETTINGS)
        }
    }
}

fn run_local_cluster(words: &[String]) -> ExitCode {
    let cluster = match config::parse_local_cluster(words) {
        Ok(LocalClusterInvocation::Run(cluster)) => cluster,
        Ok(LocalClusterInvocation::Print(text)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&error),
    };
    match local_cluster::run(cluster) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kontiki: {error}");
            ExitCode::from(EXIT_SETTINGS)
        }
    }
}

fn run_read_mode(words: &[String]) -> ExitCode {
    let command = match config::parse_read_mode(words) {
        Ok(ReadModeInvocation::Run(command)) => command,
        Ok(ReadModeInvocation::Print(text)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&error),
    };
    match read_mode::run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kontiki: {error}");
            ExitCode::from(EXIT_SETTINGS)
        }
    }
}

/// The command line without the program's name.
fn words() -> Result<Vec<String>, ConfigError> {
    let text = |(position, word): (usize, OsString)| {
        let position = position + 1;
        word.into_string()
            .map_err(|_| ConfigError::NotUtf8 { position })
    };
    std::env::args_os().skip(1).enumerate().map(text).collect()
}

/// Reads command line, environment and the file they name.
fn read_configuration(words: &[String]) -> Result<Invocation, ConfigError> {
    // A variable that is not text cannot be a valid value; the lossy form says so in the message.
    let environment: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .filter(|(name, _)| name.starts_with("ETCD_") || name.starts_with("KONTIKI_"))
        .collect();
    let Some(path) = config::config_file(words, &environment)? else {
        return config::parse(words, &environment, None);
    };
    let unreadable = |reason: String| ConfigError::FileUnreadable {
        path: path.clone(),
        reason,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| {
            file.take(CONFIG_FILE_SIZE_BYTES_MAX + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > CONFIG_FILE_SIZE_BYTES_MAX {
        return Err(unreadable(format!(
            "it is larger than {CONFIG_FILE_SIZE_BYTES_MAX} bytes"
        )));
    }
    config::parse(
        words,
        &environment,
        Some(&ConfigFile {
            path: &path,
            bytes: &bytes,
        }),
    )
}

/// A safe share of what this machine and this process's control groups allow.
fn probe_memory_budget() -> u64 {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits: Vec<String> = groups
        .lines()
        .flat_map(memory_limit_files)
        .filter_map(|path| read(&path))
        .collect();
    let meminfo = read(Path::new("/proc/meminfo"));
    config::default_budget(meminfo.as_deref(), limits.iter().map(String::as_str))
}

/// The files with the memory limits of one line of `/proc/self/cgroup` (`id:controllers:path`), from the
/// group itself up to the root. Inside a container the path may be the host's; then the root's file counts.
fn memory_limit_files(group: &str) -> Vec<PathBuf> {
    let mut parts = group.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        v1 if v1.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let group = Path::new(path.trim_start_matches('/'));
    group
        .ancestors()
        .map(|ancestor| Path::new(root).join(ancestor).join(file))
        .collect()
}
