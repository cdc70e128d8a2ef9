//! Crash and life-cycle tests of the real binary: kill -9, SIGTERM, a full disk, wrong starts.
//!
//! `KONTIKI_BIN` names another binary, `KONTIKI_CRASH_CYCLES` and `KONTIKI_CRASH_SEED` the length and the
//! seed of the kill -9 test; see `docs/testing.md`.

#![allow(
    clippy::disallowed_methods,
    reason = "real clocks, sockets and processes are what these tests are about"
)]

mod checkpoints;
mod cycles;
mod damage;
mod disk_full;
mod life;
mod model;

use std::io::Write;
use std::path::{Path, PathBuf};

use kontiki_harness::client::{CallError, Client};
use kontiki_harness::messages::{PUT, PutRequest, PutResponse, RANGE, RangeRequest, RangeResponse};

/// The binary under test.
fn program() -> PathBuf {
    std::env::var_os("KONTIKI_BIN")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_kontiki").into())
        .into()
}

/// Says something even when the test passes: the test runner hides only what goes through `print`.
fn report(text: &str) {
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A directory on the disk of the build, kept for inspection when the test fails.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let directory = tempfile::Builder::new()
            .prefix(name)
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a directory below target");
        Scratch(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            report(&format!("kept for inspection: {}", self.path().display()));
        }
    }
}

/// Puts one value and gives its revision.
async fn put(client: &Client, key: &[u8], value: Vec<u8>) -> Result<i64, CallError> {
    let request = PutRequest {
        key: key.to_vec().into(),
        value: value.into(),
    };
    let answer: PutResponse = client.call(PUT, &request).await?;
    Ok(answer.header.expect("every answer has a header").revision)
}

/// Reads one key at a revision, zero for now.
async fn read(client: &Client, key: &[u8], revision: i64) -> Result<RangeResponse, CallError> {
    let request = RangeRequest {
        key: key.to_vec().into(),
        revision,
        ..RangeRequest::default()
    };
    client.call(RANGE, &request).await
}
