//! The binary's command line as a process: what it prints where, and its exit codes.

use std::process::{Command, Output};

fn kontiki(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kontiki"));
    command
        .env_clear()
        .args(arguments)
        .output()
        .expect("the binary starts")
}

/// `arguments` end with `code`, print nothing on standard output, and say `message`.
#[track_caller]
fn check_refused(arguments: &[&str], code: i32, message: &str) {
    let output = kontiki(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty() && text.contains(message), "{text}");
}

/// Goal: help and version go to standard output and succeed.
#[test]
fn help_and_version() {
    for flag in ["--help", "-h"] {
        let output = kontiki(&[flag]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("--listen-client-urls"));
    }
    let output = kontiki(&["--version"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("\netcd Version: 3.7.1\n"),
        "{text}"
    );
}

/// Goal: refusals reach standard error with their exit codes.
#[test]
fn refusals() {
    check_refused(&["--nmae=a"], 2, "flag provided but not defined: -nmae");
    check_refused(
        &["--cert-file=c"],
        2,
        "--cert-file=c asks for what this version",
    );
    check_refused(
        &["--unsafe-no-fsync"],
        2,
        "every acknowledged write is synced",
    );
    check_refused(
        &["--heartbeat-interval=0"],
        1,
        "--heartbeat-interval must be >0",
    );
    check_refused(&["--config-file=/nonexistent/f"], 1, "/nonexistent/f");
    check_refused(
        &["--log-outputs=/nonexistent/f"],
        1,
        "--log-outputs: cannot open /nonexistent/f",
    );
}

/// Goal: a cluster on this machine is asked for by a word of its own, with flags of its own.
#[test]
fn local_cluster() {
    let output = kontiki(&["local-cluster", "--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("--members '3'"));
    check_refused(&["local-cluster", "--members=0"], 1, "it must be 1 to 7");
    check_refused(
        &["local-cluster", "--cores=1"],
        2,
        "flag provided but not defined: -cores",
    );
}

/// Goal: the command about reads explains itself, refuses what is no wish, and says which member it cannot reach.
#[test]
fn read_mode() {
    let output = kontiki(&["read-mode", "--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("CLOCK_BOOTTIME"));
    check_refused(
        &["read-mode", "quorum"],
        2,
        "\"quorum\" is not a valid flag",
    );
    // A port that nobody listens on.
    let endpoint = "--endpoints=127.0.0.1:1";
    check_refused(&["read-mode", endpoint], 1, "http://127.0.0.1:1: ");
    check_refused(
        &["read-mode", "lease", "--endpoints=127.0.0.1:1,127.0.0.1:1"],
        1,
        "2 of 2 members did not answer",
    );
}

/// Goal: a file is read, bounded in size, and its faults name it.
#[test]
fn configuration_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("kontiki.yaml");
    let argument = format!("--config-file={}", path.display());
    std::fs::write(&path, "heartbeat-interval: 0\n").expect("written");
    check_refused(&[&argument], 1, "--heartbeat-interval must be >0");
    std::fs::write(&path, "name: [\n").expect("written");
    check_refused(&[&argument], 1, "kontiki.yaml");
    std::fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).expect("written");
    check_refused(&[&argument], 1, "larger than 1048576 bytes");
}

/// Goal: the build gives the allocator its settings, wherever it is built from within the tree.
#[test]
fn allocator_settings() {
    let settings = tikv_jemalloc_ctl::config::malloc_conf::read().expect("jemalloc tells");
    assert_eq!(
        settings.trim_end_matches('\0'),
        "thp:always",
        "see .cargo/config.toml"
    );
}
