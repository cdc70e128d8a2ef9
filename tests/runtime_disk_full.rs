//! A full disk is an answer: the segment comes as soon as there is space.

use std::path::Path;
use std::process::Command;

use kontiki::runtime::disk::log::WriteMode;
use kontiki::runtime::disk::segments::{DiskAnswer, DiskSettings, DiskThread};
use kontiki::runtime::{executor, mailbox};

const SIZE: u64 = 256 << 10;

/// A small file system in memory, unmounted when dropped.
struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    /// `None` where mounting is not permitted.
    fn new(path: &Path) -> Option<Mounted<'_>> {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=400k", "tmpfs"])
            .arg(path)
            .stderr(std::process::Stdio::null())
            .status();
        status
            .is_ok_and(|status| status.success())
            .then_some(Mounted(path))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Goal: out of space is said once, leaves nothing behind, and ends when somebody makes room.
#[test]
fn room_comes_later() {
    let root = tempfile::tempdir().expect("a directory");
    let Some(mounted) = Mounted::new(root.path()) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let path = mounted.0.to_owned();
    let outcome = std::thread::spawn(move || {
        executor::run(async move {
            let (sender, mut answers) = mailbox::mailbox(4);
            let settings = DiskSettings {
                directory: path.clone(),
                segment_size_bytes: SIZE,
                mode: WriteMode::Written,
                core_thread: None,
            };
            let disk = DiskThread::start(settings, sender).expect("a thread");
            let ballast = path.join("ballast");
            std::fs::write(&ballast, vec![1; 300 << 10]).expect("it fits");
            disk.prepare(1, path.join("1.wal")).expect("taken");
            match answers.receive().await {
                Some(DiskAnswer::OutOfSpace { sequence: 1 }) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(
                path.read_dir().expect("listed").count(),
                1,
                "only the ballast"
            );
            std::fs::remove_file(ballast).expect("removed");
            match answers.receive().await {
                Some(DiskAnswer::Ready(segment)) => assert_eq!(segment.sequence, 1),
                other => panic!("{other:?}"),
            }
        })
        .expect("a ring");
    })
    .join();
    drop(mounted);
    outcome.expect("the test passes");
}
