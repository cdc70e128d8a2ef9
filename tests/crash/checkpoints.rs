//! The log stops growing, and what is left of it with a checkpoint is a whole member again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kontiki_harness::client::{Client, block_on};
use kontiki_harness::messages::{COMPACT, CompactionRequest, CompactionResponse};
use kontiki_harness::server::{Server, ServerOptions};

use crate::{Scratch, program, put, read};

/// Values of the puts, and how many keys they go to.
const VALUE_BYTES: usize = 1024 * 1024;
const KEYS: u32 = 8;
/// Puts: nine segments of the log.
const PUTS: u32 = 9 * 63;
/// What the log may take: the active segment, its successor, two that are used again, and those that were
/// written while a checkpoint was.
const LOG_BYTES_MAX: u64 = 6 * 64 * 1024 * 1024;
/// A refused start is over after this.
const END_TIME_MAX: Duration = Duration::from_secs(30);

/// The names and sizes of the files in a part of the shard's directory.
fn files(data_dir: &Path, part: &str) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data_dir.join("shard-0").join(part)).expect("a directory") {
        let entry = entry.expect("an entry");
        // A file may go between the listing and the look.
        if let Ok(metadata) = entry.metadata() {
            found.push((entry.path(), metadata.len()));
        }
    }
    found.sort();
    found
}

fn log_bytes(data_dir: &Path) -> u64 {
    files(data_dir, "wal").iter().map(|(_, size)| size).sum()
}

/// The checkpoints that have their name.
pub(crate) fn checkpoints(data_dir: &Path) -> Vec<PathBuf> {
    let is_named = |path: &PathBuf| path.extension().is_none();
    let found = files(data_dir, "checkpoints").into_iter();
    found.map(|(path, _)| path).filter(is_named).collect()
}

fn options(scratch: &Scratch) -> ServerOptions {
    let mut options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    options.extra = vec![format!("--checkpoint-payload-bytes={}", 16 * 1024 * 1024)];
    options
}

async fn connect(options: &ServerOptions) -> Client {
    let client = Client::connect(options.client_address()).await;
    client.expect("a ready server accepts")
}

/// Puts large values to few keys again and again, compacting now and then; the highest size of the log
/// meanwhile.
async fn churn(options: &ServerOptions) -> u64 {
    let client = connect(options).await;
    let mut highest = 0;
    for number in 0..PUTS {
        let key = (number % KEYS).to_be_bytes();
        let value = vec![number as u8; VALUE_BYTES];
        let revision = put(&client, &key, value).await.expect("a put");
        if number % 16 == 15 {
            let request = CompactionRequest {
                revision,
                physical: true,
            };
            let answer = client.call::<CompactionResponse>(COMPACT, &request).await;
            answer.expect("a compaction");
        }
        highest = highest.max(log_bytes(&options.data_dir));
    }
    highest
}

async fn check(options: &ServerOptions) {
    let client = connect(options).await;
    for number in PUTS - KEYS..PUTS {
        let key = (number % KEYS).to_be_bytes();
        let found = read(&client, &key, 0).await.expect("an answer").kvs;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].mod_revision, i64::from(number) + 2);
        assert!(found[0].value.iter().all(|byte| *byte == number as u8));
        assert_eq!(found[0].value.len(), VALUE_BYTES);
    }
}

/// Flips a bit in the middle.
fn damage(path: &Path) {
    let file = File::options().read(true).write(true).open(path);
    let file = file.expect("a checkpoint");
    let middle = file.metadata().expect("a file").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("not empty");
    file.write_all_at(&[byte[0] ^ 1], middle).expect("damaged");
}

/// Goal: endless puts to the same keys, compacted now and then, take a bounded part of the disk; kill -9
/// and a restart lose nothing; a damaged checkpoint that the log cannot replace is named, and not passed over.
#[test]
fn the_log_stops_growing() {
    let scratch = Scratch::new("retention");
    let options = options(&scratch);
    let server = Server::start(&options).expect("a start");
    let highest = block_on(churn(&options));
    assert!(highest <= LOG_BYTES_MAX, "the log took {highest} bytes");
    server.kill().expect("an end");

    let server = Server::start(&options).expect("a restart");
    block_on(check(&options));
    assert!(!checkpoints(&options.data_dir).is_empty());
    assert!(
        u64::from(PUTS) * VALUE_BYTES as u64 > log_bytes(&options.data_dir),
        "the log could not hold all of it"
    );
    server.kill().expect("an end");

    let damaged = checkpoints(&options.data_dir);
    damaged.iter().for_each(|path| damage(path));
    let (status, said) = options.run_to_end(END_TIME_MAX).expect("an end by itself");
    assert_eq!(status.code(), Some(1), "{status}, it said:\n{said}");
    let newest = damaged.last().expect("at least one").display().to_string();
    for part in [&newest[..], "is damaged", "cannot replace it"] {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
}

/// Goal: while the log still reaches back, a damaged checkpoint costs time and nothing else; it is named,
/// and the next one takes its place.
#[test]
fn the_log_replaces_a_damaged_checkpoint() {
    let scratch = Scratch::new("damaged");
    let mut options = options(&scratch);
    options.extra = vec![format!("--checkpoint-payload-bytes={}", 1024 * 1024)];
    let write = async |until: fn(&[PathBuf], &[PathBuf]) -> bool| {
        let client = connect(&options).await;
        let before = checkpoints(&options.data_dir);
        // Far less than a segment.
        for number in 0..32_u32 {
            let value = vec![number as u8; VALUE_BYTES];
            put(&client, &number.to_be_bytes(), value)
                .await
                .expect("a put");
            if until(&before, &checkpoints(&options.data_dir)) {
                return number;
            }
        }
        panic!("no checkpoint was taken");
    };
    let server = Server::start(&options).expect("a start");
    let last = block_on(write(|_, now| !now.is_empty()));
    server.kill().expect("an end");
    let damaged = checkpoints(&options.data_dir);
    damaged.iter().for_each(|path| damage(path));

    let server = Server::start(&options).expect("a restart");
    let said = fs::read_to_string(&options.log).expect("a log");
    for part in [&damaged[0].display().to_string(), "is damaged"] {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
    block_on(async {
        let client = connect(&options).await;
        for number in 0..=last {
            let found = read(&client, &number.to_be_bytes(), 0).await;
            assert_eq!(found.expect("an answer").kvs[0].value[0], number as u8);
        }
    });
    block_on(write(|before, now| {
        now.iter().any(|path| !before.contains(path))
    }));
    server.kill().expect("an end");
    Server::start(&options).expect("a restart from the next one");
}
