//! How a process ends that must not go on, seen from outside: exit code and message.
//!
//! Each case runs this very test again as a child, which then does the one thing that ends it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};

use kontiki::runtime::fatal::{EXIT_CODE_FATAL, fatal, install_panic_hook};
use kontiki::runtime::mmap::{MappedSegment, install_sigbus_handler};
use kontiki::runtime::preflight;

/// Set in the child: what it is to do.
const CASE: &str = "KONTIKI_TEST_CASE";
const SIZE: u64 = 64 << 10;

/// Runs the test `name` as a child in which `CASE` is set.
fn child(name: &str) -> Output {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CASE, "1")
        .output()
        .expect("started")
}

fn is_child() -> bool {
    std::env::var_os(CASE).is_some()
}

fn check(output: &Output, code: Option<i32>, expected: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), code, "{stderr}");
    assert!(stderr.contains(expected), "{stderr:?} lacks {expected:?}");
}

/// Goal: a mapped log file that loses its pages ends the process with a line that names the log.
#[test]
fn lost_mapping() {
    if is_child() {
        let path = PathBuf::from(std::env::var_os("KONTIKI_TEST_FILE").expect("set"));
        install_sigbus_handler(path.parent().expect("a directory")).expect("installed");
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .expect("opened");
        let map = MappedSegment::map(&path, &file, SIZE).expect("mapped");
        file.set_len(0).expect("truncated");
        let byte = map.read(4_096, 1)[0];
        unreachable!("read {byte} from a page that is gone");
    }
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("1.wal");
    std::fs::write(&path, vec![0; usize::try_from(SIZE).expect("small")]).expect("written");
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "lost_mapping", "--nocapture", "--test-threads=1"])
        .env(CASE, "1")
        .env("KONTIKI_TEST_FILE", &path)
        .output()
        .expect("started");
    check(
        &output,
        Some(EXIT_CODE_FATAL),
        "SIGBUS: a mapped log file under",
    );
    check(
        &output,
        Some(EXIT_CODE_FATAL),
        &root.path().display().to_string(),
    );
}

/// Goal: a fatal error ends the process with its code and its message.
#[test]
fn fatal_error() {
    if is_child() {
        fatal("the disk said no");
    }
    check(
        &child("fatal_error"),
        Some(EXIT_CODE_FATAL),
        "kontiki: fatal: the disk said no\n",
    );
}

/// Goal: a panic on any thread ends the whole process, by a signal, after its message.
#[test]
fn panic_anywhere() {
    if is_child() {
        install_panic_hook();
        let thread = std::thread::spawn(|| panic!("an index went backwards"));
        // Never reached: the hook does not return.
        let _ = thread.join();
        return;
    }
    check(&child("panic_anywhere"), None, "an index went backwards");
}

/// Goal: too little lockable memory is said before any executor is built, with the cure.
#[test]
fn little_memlock() {
    if is_child() {
        let limit = rustix::process::Rlimit {
            current: Some(64 << 10),
            maximum: Some(64 << 10),
        };
        rustix::process::setrlimit(rustix::process::Resource::Memlock, limit).expect("lowered");
        let error = preflight::check().expect_err("refused");
        eprintln!("{error}");
        return;
    }
    check(&child("little_memlock"), Some(0), "LimitMEMLOCK=infinity");
}
