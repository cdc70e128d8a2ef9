//! A log that was damaged where it had been durable: a lone member stops, and its operator can give up what is lost.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use kontiki::base::limits::SEGMENT_SIZE_BYTES;
use kontiki::wal::SegmentSequence;
use kontiki_harness::client::{Client, block_on};
use kontiki_harness::server::{Server, ServerOptions};

use crate::{Scratch, program, put, read};

/// Each is a commit of one page, and a seal may follow it.
const PUTS: u32 = 60;
/// The page of a commit in the middle of the log, and a place in its header: a seal has little more.
const DAMAGED_AT: u64 = 40 * 4_096 + 8;
const END_TIME_MAX: Duration = Duration::from_secs(30);

fn first_segment(options: &ServerOptions) -> PathBuf {
    let log = options.data_dir.join("shard-0/wal");
    let names = std::fs::read_dir(log).expect("a directory");
    let paths = names.map(|entry| entry.expect("an entry").path());
    let is_segment = |path: &PathBuf| path.metadata().is_ok_and(|file| file.len() > 1_000_000);
    paths.filter(is_segment).min().expect("a segment")
}

fn flip(path: &PathBuf, offset: u64) {
    let file = File::options().read(true).write(true).open(path);
    let file = file.expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a page");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("damaged");
    file.sync_all().expect("synced");
}

/// Runs the command for operators; whether it succeeded, and what it said.
fn recover(options: &ServerOptions, words: &[&str]) -> (bool, String) {
    let output = Command::new(program())
        .arg("recover")
        .args(words)
        .arg("--data-dir")
        .arg(&options.data_dir)
        .output()
        .expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(said).expect("text"),
    )
}

/// How many of the keys are there: all before the first that is not.
fn keys_left(options: &ServerOptions) -> u32 {
    block_on(async {
        let client = Client::connect(options.client_address()).await;
        let client = client.expect("a ready server accepts");
        let mut left = 0;
        for number in 0..PUTS {
            let found = read(&client, &number.to_be_bytes(), 0)
                .await
                .expect("an answer");
            if !found.kvs.is_empty() {
                assert_eq!(left, number, "a key before it is gone");
                left += 1;
            }
        }
        left
    })
}

/// Goal: a lone member with a damaged log says what is damaged and stops; only when its operator accepts the loss it
/// goes on, without what is lost and with everything else; and that is recorded, and happens once.
#[test]
fn accepted_by_the_operator() {
    let scratch = Scratch::new("damage");
    let options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    let server = Server::start(&options).expect("a start");
    block_on(async {
        let client = Client::connect(options.client_address()).await;
        let client = client.expect("a ready server accepts");
        for number in 0..PUTS {
            let put = put(&client, &number.to_be_bytes(), vec![7; 100]).await;
            put.expect("a put");
        }
    });
    let (accepted, said) = recover(&options, &["--accept-cut"]);
    assert!(
        !accepted && said.contains("locked"),
        "the member runs: {said}"
    );
    server.terminate(END_TIME_MAX).expect("an end");
    let (accepted, said) = recover(&options, &["--accept-cut"]);
    assert!(accepted && said.contains("nothing is damaged"), "{said}");

    flip(&first_segment(&options), DAMAGED_AT);
    let (status, log) = options.run_to_end(END_TIME_MAX).expect("an end by itself");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("offset {}", 40 * 4_096)), "{log}");
    assert!(log.contains("kontiki recover --accept-cut"), "{log}");
    let (accepted, said) = recover(&options, &[]);
    assert!(!accepted && said.contains("--accept-cut"), "{said}");

    let (accepted, said) = recover(&options, &["--accept-cut"]);
    assert!(accepted && said.contains("everything from index"), "{said}");
    let cuts = std::fs::read_to_string(options.data_dir.join("shard-0/wal/cuts"));
    let cuts = cuts.expect("a record");
    assert!(cuts.contains("everything from index"), "{cuts}");

    let server = Server::start(&options).expect("a start without what is lost");
    let left = keys_left(&options);
    assert!((15..40).contains(&left), "{left}");
    block_on(async {
        let client = Client::connect(options.client_address()).await;
        let client = client.expect("a ready server accepts");
        let key = left.to_be_bytes();
        put(&client, &key, vec![8; 100]).await.expect("a put");
    });
    server.kill().expect("it lived");
    let server = Server::start(&options).expect("a start on what was appended behind the cut");
    assert_eq!(keys_left(&options), left + 1);
    server.terminate(END_TIME_MAX).expect("an end");
    let (accepted, said) = recover(&options, &["--accept-cut"]);
    assert!(accepted && said.contains("nothing is damaged"), "{said}");
}

fn log_directory(options: &ServerOptions) -> PathBuf {
    options.data_dir.join("shard-0/wal")
}

fn remove_segments(options: &ServerOptions) {
    for entry in std::fs::read_dir(log_directory(options)).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            std::fs::remove_file(path).expect("removed");
        }
    }
}

/// A member that has acknowledged a key, and whose log has no file any more.
fn without_segments(scratch: &Scratch) -> ServerOptions {
    let options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    let server = Server::start(&options).expect("a start");
    block_on(async {
        let client = Client::connect(options.client_address()).await;
        let client = client.expect("a ready server accepts");
        let put = put(&client, &0_u32.to_be_bytes(), vec![7; 100]).await;
        put.expect("a put");
    });
    server.terminate(END_TIME_MAX).expect("an end");
    remove_segments(&options);
    options
}

/// Goal: a lone member whose log has no file any more does not begin anew by itself: it names the directory and the way
/// out. An operator who takes that gets an empty store.
#[test]
fn no_file_of_the_log_is_left() {
    let scratch = Scratch::new("lost-log");
    let options = without_segments(&scratch);
    let (status, log) = options.run_to_end(END_TIME_MAX).expect("an end by itself");
    assert_eq!(status.code(), Some(1), "{log}");
    for expected in [
        &*log_directory(&options).to_string_lossy(),
        "the file is missing",
        "kontiki recover --accept-cut",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    let (accepted, said) = recover(&options, &["--accept-cut"]);
    assert!(accepted && said.contains("the file is missing"), "{said}");
    let server = Server::start(&options).expect("a start with nothing");
    assert_eq!(keys_left(&options), 0);
    server.kill().expect("it lived");
    let server = Server::start(&options).expect("a start on what was begun anew");
    server.terminate(END_TIME_MAX).expect("an end");
    // The loss that was accepted is over: another one is not taken for it.
    remove_segments(&options);
    let (status, log) = options.run_to_end(END_TIME_MAX).expect("an end by itself");
    assert_eq!(status.code(), Some(1), "{log}");
}

/// Goal: a first start that is killed before or right after the first file of the log has its name is no loss: the next
/// one begins the log.
#[test]
fn a_first_start_that_was_killed() {
    for has_segment in [false, true] {
        let scratch = Scratch::new("first-start");
        let options = without_segments(&scratch);
        let log = log_directory(&options);
        std::fs::remove_file(log.join("begun")).expect("it had begun");
        if has_segment {
            let segment = File::create(log.join(SegmentSequence(1).file_name()));
            let segment = segment.expect("made");
            segment.set_len(SEGMENT_SIZE_BYTES).expect("zeros");
        }
        let server = Server::start(&options).expect("a start");
        assert_eq!(keys_left(&options), 0);
        server.terminate(END_TIME_MAX).expect("an end");
        assert!(log.join("begun").exists());
    }
}
