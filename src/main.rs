//! Reads the flags and runs the server; nothing else.

#[cfg(feature = "planted")]
compile_error!(
    "a server is not built with the feature `planted`: its defects are for the simulator"
);

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kontiki::base::limits::CONFIG_FILE_SIZE_BYTES_MAX;
use kontiki::config::{self, ConfigError, ConfigFile, EXIT_SETTINGS, Invocation};
use kontiki::{logging, server};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let (mut config, notices) = match read_configuration() {
        Ok(Invocation::Run(config, notices)) => (config, notices),
        Ok(Invocation::Print(text)) => {
            // A reader that closes early, such as `head`, is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("kontiki: {error}\nkontiki --help lists all flags");
            return ExitCode::from(error.exit_code());
        }
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

/// Reads command line, environment and the file they name.
fn read_configuration() -> Result<Invocation, ConfigError> {
    let words = std::env::args_os()
        .skip(1)
        .enumerate()
        .map(|(position, word)| {
            word.into_string().map_err(|_| ConfigError::NotUtf8 {
                position: position + 1,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
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
    let Some(path) = config::config_file(&words, &environment)? else {
        return config::parse(&words, &environment, None);
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
        &words,
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
