//! A disk that fills up under a running member.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kontiki_harness::client::{CallError, Client, block_on};
use kontiki_harness::messages::{ALARM, AlarmRequest, AlarmResponse};
use kontiki_harness::server::{Server, ServerOptions};

use crate::{Scratch, program, put, read, report};

/// Size of the small disk: two segments of 64 MiB, the ballast, and less than two segments more.
const DISK_BYTES: u64 = 384 * 1024 * 1024;
/// Size of the file whose removal makes room again, for one segment and more.
const BALLAST_BYTES: usize = 144 * 1024 * 1024;
/// Size of a put, so that a few hundred fill the disk.
const VALUE_BYTES: usize = 1024 * 1024;
/// After so many puts the disk must have been full.
const PUTS_MAX: usize = 400;
/// Space that has come back must be noticed within this time.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(60);
/// Pause between two tries while waiting for that.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Action of an alarm request that clears one.
const ALARM_DEACTIVATE: i32 = 2;

/// An ext4 file system in a file, mounted until dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Makes and mounts one, or says what this machine does not allow.
    fn mount(home: &Path) -> Result<SmallDisk, String> {
        let image = home.join("disk.img");
        let at = home.join("disk");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(DISK_BYTES)
            .map_err(|error| error.to_string())?;
        fs::create_dir(&at).map_err(|error| error.to_string())?;
        succeed(
            Command::new("mkfs.ext4")
                .arg("-q")
                .args(["-m", "0"])
                .arg(&image),
        )?;
        succeed(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&at),
        )?;
        Ok(SmallDisk(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = succeed(Command::new("umount").arg(&self.0)) {
            report(&format!("{} stays mounted: {error}", self.0.display()));
        }
    }
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?}: {}, {said}", output.status))
}

/// Goal: a full disk refuses writes with etcd's words for it and nothing else happens: the process
/// lives, reads work, and once there is room again writes do too; a restart finds everything.
#[test]
fn full_disk_refuses_and_recovers() {
    let scratch = Scratch::new("full");
    let disk = match SmallDisk::mount(scratch.path()) {
        Ok(disk) => disk,
        Err(reason) => {
            assert!(
                !rustix::process::geteuid().is_root(),
                "root could not mount a small disk: {reason}"
            );
            report(&format!(
                "SKIPPED full_disk_refuses_and_recovers: needs root: {reason}"
            ));
            return;
        }
    };
    let mut options = ServerOptions::new(&program(), scratch.path()).expect("free ports");
    options.data_dir = disk.0.join("data");
    let ballast = disk.0.join("ballast");
    let mut server = Server::start(&options).expect("a start");
    fs::write(&ballast, vec![1; BALLAST_BYTES]).expect("room for the ballast");

    let written = block_on(async {
        let client = Client::connect(options.client_address())
            .await
            .expect("a connection");
        let mut revisions = Vec::new();
        let refused = loop {
            match put(&client, &key(revisions.len()), vec![5; VALUE_BYTES]).await {
                Ok(revision) => revisions.push(revision),
                Err(error) => break error,
            }
            assert!(revisions.len() < PUTS_MAX, "the disk never became full");
        };
        check_no_space(&refused);
        // Refused again, and again: no state changes by itself.
        for _ in 0..20 {
            let again = put(&client, b"late", vec![5; VALUE_BYTES]).await;
            check_no_space(&again.expect_err("there is still no room"));
        }
        let found = read(&client, &key(0), 0).await.expect("reads work").kvs;
        assert_eq!(found[0].mod_revision, revisions[0]);
        assert!(server.is_running().expect("a child"), "the process lives");

        fs::remove_file(&ballast).expect("the ballast");
        revisions.push(retry_put(&client, revisions.len()).await);
        revisions
    });

    server.kill().expect("a kill");
    let server = Server::start(&options).expect("a restart");
    block_on(async {
        let client = Client::connect(options.client_address())
            .await
            .expect("a connection");
        for (number, revision) in written.iter().enumerate() {
            let found = read(&client, &key(number), 0).await.expect("an answer").kvs;
            assert_eq!(
                found.len(),
                1,
                "put {number} of revision {revision} is lost"
            );
            assert_eq!(found[0].mod_revision, *revision);
        }
    });
    server.kill().expect("a kill");
    drop(disk);
}

/// Puts until it works again, clearing the alarm as an operator does, and gives the revision.
async fn retry_put(client: &Client, number: usize) -> i64 {
    let start = Instant::now();
    loop {
        clear_alarms(client).await;
        match put(client, &key(number), vec![6; VALUE_BYTES]).await {
            Ok(revision) => return revision,
            Err(error) => check_no_space(&error),
        }
        assert!(
            start.elapsed() < NOTICE_TIME_MAX,
            "there is room for {NOTICE_TIME_MAX:?}, writes are still refused"
        );
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn clear_alarms(client: &Client) {
    let listed: AlarmResponse = client
        .call(ALARM, &AlarmRequest::default())
        .await
        .expect("alarms can be listed");
    for alarm in listed.alarms {
        let request = AlarmRequest {
            action: ALARM_DEACTIVATE,
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        let cleared: Result<AlarmResponse, _> = client.call(ALARM, &request).await;
        cleared.expect("an alarm can be cleared");
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("full/{number:04}").into_bytes()
}

/// ResourceExhausted with etcd's text.
fn check_no_space(error: &CallError) {
    let expected = CallError::Refused {
        code: 8,
        message: "etcdserver: mvcc: database space exceeded".into(),
    };
    assert_eq!(*error, expected);
}
