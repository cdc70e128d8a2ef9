//! The disk thread of one log: segments made, recycled and mapped ahead of need.
//!
//! Owns everything about segment files that blocks: allocation, filling, syncing of names, mapping and
//! locking. Runs on a thread of its own and answers by mail, so the core never waits. It must never touch a
//! segment that the log still needs: it reuses and removes only what it was given to recycle, oldest first, so
//! that what is left on disk never has a gap.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use rustix::fs::{FallocateFlags, fallocate};

use super::begun;
use super::directory::{DirectoryError, sync_directory};
use super::log::WriteMode;
use super::workers;
use crate::base::limits::{DISK_REQUESTS_MAX, PAGE_SIZE_BYTES, SEGMENTS_RECYCLED_MAX};
use crate::runtime::beside::spawn_beside;
use crate::runtime::mailbox;
use crate::runtime::mmap::{LockRefused, MapError, MappedSegment};

/// Between two attempts to make a segment on a full disk.
const SPACE_RETRY: Duration = Duration::from_secs(1);
/// Between two looks at the kernel's I/O workers, which come and go.
const WORKERS_LOOK: Duration = Duration::from_secs(1);
/// How much of a new segment is written before it is synced. The device works in order: a commit of the log
/// waits for no more than this, where one sync of the whole segment would hold it up for tens of
/// milliseconds.
const FILLED_BYTES_PER_SYNC: u64 = 1 << 20;
/// A segment that is being filled; never a name of the log.
const UNFINISHED: &str = "unfinished.tmp";

/// A segment file that is ready for commits: full length, every page written, mapped.
#[derive(Debug)]
pub struct PreparedSegment {
    /// The caller's number, as it was asked for.
    pub sequence: u64,
    /// The file, under its final name.
    pub path: PathBuf,
    /// Whether it may hold bytes of an earlier life.
    pub recycled: bool,
    /// Its mapping.
    pub map: MappedSegment,
}

/// What the disk thread answers.
#[derive(Debug)]
pub enum DiskAnswer {
    /// The segment that was asked for.
    Ready(PreparedSegment),
    /// The disk is full: the request stays, and is tried again every second. Said once per request.
    OutOfSpace {
        /// The segment that was asked for.
        sequence: u64,
    },
    /// The segment cannot be made, and trying again would not help.
    Failed {
        /// The segment that was asked for.
        sequence: u64,
        /// The file and the cause.
        error: SegmentError,
    },
}

/// A segment could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// It could not be mapped, or has a wrong length.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A name could not be made durable.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Anything else.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl SegmentError {
    fn is_out_of_space(&self) -> bool {
        let source = match self {
            SegmentError::Io { source, .. }
            | SegmentError::Directory(DirectoryError::Io { source, .. }) => source,
            _ => return false,
        };
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

enum Request {
    Prepare { sequence: u64, path: PathBuf },
    Recycle { path: PathBuf },
}

/// The disk thread is behind by [`DISK_REQUESTS_MAX`] requests, or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk thread does not take requests")]
pub struct NotTaken;

/// How a disk thread works.
#[derive(Clone, Debug)]
pub struct DiskSettings {
    /// Where the segments lie.
    pub directory: PathBuf,
    /// The length of every segment in bytes.
    pub segment_size_bytes: u64,
    /// How commits will be written; only the mapped way needs locked pages.
    pub mode: WriteMode,
    /// The thread whose I/O workers get a better priority, from [`workers::current_thread`].
    pub core_thread: Option<i32>,
}

/// The handle of a log's disk thread. Dropping it ends the thread after the request at hand.
#[derive(Debug)]
pub struct DiskThread {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// Starts the thread; `answers` is rung for each answer.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(
        settings: DiskSettings,
        answers: mailbox::Sender<DiskAnswer>,
    ) -> io::Result<DiskThread> {
        let (requests, received) = bounded(DISK_REQUESTS_MAX);
        let worker = Worker {
            settings,
            answers,
            recyclable: VecDeque::new(),
            lock_warned: false,
            workers: workers::Reported::default(),
        };
        let thread = spawn_beside("disk", move || worker.run(&received))?;
        Ok(DiskThread {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Asks for segment `sequence` under `path`. A file that is already there with the right length is
    /// taken as it is: the segment in use at a restart, or a spare of an earlier run.
    ///
    /// # Errors
    /// [`NotTaken`]: too many requests are waiting.
    pub fn prepare(&self, sequence: u64, path: PathBuf) -> Result<(), NotTaken> {
        self.request(Request::Prepare { sequence, path })
    }

    /// Gives up a segment the log needs no more. Oldest first: a gap would be refused at the next start.
    ///
    /// # Errors
    /// [`NotTaken`]: too many requests are waiting; give it again later.
    pub fn recycle(&self, path: PathBuf) -> Result<(), NotTaken> {
        self.request(Request::Recycle { path })
    }

    fn request(&self, request: Request) -> Result<(), NotTaken> {
        let requests = self.requests.as_ref().expect("open until dropped");
        requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => NotTaken,
        })
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        // The sender first: the thread ends when it is gone.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed by the hook.
            let _ = thread.join();
        }
    }
}

struct Worker {
    settings: DiskSettings,
    answers: mailbox::Sender<DiskAnswer>,
    /// Given up by the log, oldest in front.
    recyclable: VecDeque<PathBuf>,
    lock_warned: bool,
    workers: workers::Reported,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Request>) {
        let _ = std::fs::remove_file(self.settings.directory.join(UNFINISHED));
        loop {
            match requests.recv_timeout(WORKERS_LOOK) {
                Ok(Request::Prepare { sequence, path }) => {
                    if !self.prepare(sequence, path, requests) {
                        return;
                    }
                }
                Ok(Request::Recycle { path }) => self.recycle(path),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(thread) = self.settings.core_thread {
                self.workers.raise_priority(thread);
            }
        }
    }

    /// Answers one request, however long the disk stays full; `false` when the log is gone meanwhile.
    fn prepare(&mut self, sequence: u64, path: PathBuf, requests: &Receiver<Request>) -> bool {
        let mut told = false;
        loop {
            let error = match self.make(sequence, &path) {
                Ok(segment) => return self.answer(DiskAnswer::Ready(segment)),
                Err(error) if error.is_out_of_space() => error,
                Err(error) => {
                    return self.answer(DiskAnswer::Failed { sequence, error });
                }
            };
            if !told {
                tracing::warn!(%error, "no space for the next log segment, trying again");
                told = true;
                if !self.answer(DiskAnswer::OutOfSpace { sequence }) {
                    return false;
                }
            }
            // A segment that was given up meanwhile needs no new space.
            match requests.recv_timeout(SPACE_RETRY) {
                Ok(Request::Recycle { path }) => self.recycle(path),
                Ok(Request::Prepare { sequence, .. }) => {
                    tracing::error!(
                        sequence,
                        "a second segment was asked for before the first was there"
                    );
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Mails an answer, waiting while the mailbox is full; `false` when the receiver is gone.
    fn answer(&self, answer: DiskAnswer) -> bool {
        self.answers.send_waiting(answer)
    }

    fn make(&mut self, sequence: u64, path: &Path) -> Result<PreparedSegment, SegmentError> {
        let recycled = path.exists() || self.reuse(path)?;
        if !recycled {
            self.create(path)?;
        }
        // Nobody writes to it before this is said.
        begun::mark(&self.settings.directory)?;
        let io_error = |action| {
            move |source| SegmentError::Io {
                path: path.to_owned(),
                action,
                source,
            }
        };
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(io_error("open the log segment"))?;
        let map = MappedSegment::map(path, &file, self.settings.segment_size_bytes)?;
        if self.settings.mode == WriteMode::Mapped
            && let Err(refused) = map.lock()
        {
            self.warn_lock(&refused);
        }
        Ok(PreparedSegment {
            sequence,
            path: path.to_owned(),
            recycled,
            map,
        })
    }

    /// Gives the oldest recycled segment the new name; `false` when there is none.
    fn reuse(&mut self, path: &Path) -> Result<bool, SegmentError> {
        let Some(old) = self.recyclable.pop_front() else {
            return Ok(false);
        };
        std::fs::rename(&old, path).map_err(|source| SegmentError::Io {
            path: old,
            action: "rename the recycled log segment",
            source,
        })?;
        sync_directory(&self.settings.directory)?;
        Ok(true)
    }

    /// Makes a segment in which every page has been written by a write of its own: larger writes make large
    /// pieces of page cache, which are written back whole for every small commit.
    fn create(&self, path: &Path) -> Result<(), SegmentError> {
        let unfinished = self.settings.directory.join(UNFINISHED);
        let fill = || -> io::Result<()> {
            let file = File::create(&unfinished)?;
            let size = self.settings.segment_size_bytes;
            match fallocate(&file, FallocateFlags::empty(), 0, size) {
                // Some file systems cannot reserve; the writes below reserve as well.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
            let page = [0u8; PAGE_SIZE_BYTES as usize];
            for offset in (0..size).step_by(page.len()) {
                file.write_all_at(&page, offset)?;
                if (offset + PAGE_SIZE_BYTES).is_multiple_of(FILLED_BYTES_PER_SYNC) {
                    file.sync_data()?;
                }
            }
            file.sync_all()?;
            std::fs::rename(&unfinished, path)
        };
        fill().map_err(|source| {
            // Space for others, and a clean start for the next attempt.
            let _ = std::fs::remove_file(&unfinished);
            SegmentError::Io {
                path: path.to_owned(),
                action: "make the log segment",
                source,
            }
        })?;
        Ok(sync_directory(&self.settings.directory)?)
    }

    /// Keeps a segment for reuse, and removes the oldest when there are enough.
    fn recycle(&mut self, path: PathBuf) {
        self.recyclable.push_back(path);
        while self.recyclable.len() > SEGMENTS_RECYCLED_MAX {
            let oldest = self.recyclable.pop_front().expect("more than the maximum");
            let removed = std::fs::remove_file(&oldest)
                .and_then(|()| File::open(&self.settings.directory)?.sync_all());
            if let Err(error) = removed {
                // It costs space, nothing else: the next start gives it up again.
                tracing::warn!(path = %oldest.display(), %error, "cannot remove an old log segment");
            }
        }
    }

    fn warn_lock(&mut self, refused: &LockRefused) {
        if !self.lock_warned {
            self.lock_warned = true;
            tracing::warn!("{refused}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::executor;

    const SIZE: u64 = 256 << 10;

    fn start(directory: &Path) -> (DiskThread, mailbox::Receiver<DiskAnswer>) {
        let (answers, received) = mailbox::mailbox(4);
        let settings = DiskSettings {
            directory: directory.to_owned(),
            segment_size_bytes: SIZE,
            mode: WriteMode::Mapped,
            core_thread: Some(workers::current_thread()),
        };
        (
            DiskThread::start(settings, answers).expect("a thread"),
            received,
        )
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = directory
            .read_dir()
            .expect("listed")
            .map(|entry| {
                entry
                    .expect("read")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        names.sort();
        names
    }

    async fn ready(answers: &mut mailbox::Receiver<DiskAnswer>) -> PreparedSegment {
        match answers.receive().await {
            Some(DiskAnswer::Ready(segment)) => segment,
            other => panic!("no segment: {other:?}"),
        }
    }

    /// Goal: a new segment is complete and mapped; one that is there is taken as it is; leftovers go.
    #[test]
    fn made_and_taken() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().to_owned();
        std::fs::write(path.join(UNFINISHED), "of an earlier run").expect("written");
        std::thread::spawn(move || {
            executor::run(async move {
                let (disk, mut answers) = start(&path);
                disk.prepare(1, path.join("1.wal")).expect("taken");
                let mut first = ready(&mut answers).await;
                assert!(!first.recycled && first.sequence == 1);
                assert!(
                    first
                        .map
                        .read(0, SIZE as usize)
                        .iter()
                        .all(|&byte| byte == 0)
                );
                first.map.copy_in(0, b"header");
                drop(first);
                disk.prepare(1, path.join("1.wal")).expect("taken");
                let again = ready(&mut answers).await;
                assert!(again.recycled);
                assert_eq!(again.map.read(0, 6), b"header");
                assert_eq!(names(&path), ["1.wal", "begun"]);
            })
            .expect("a ring");
        })
        .join()
        .expect("the test passes");
    }

    /// Goal: the oldest recycled segment is reused first, what is too many is removed, and no gap appears.
    #[test]
    fn recycled_in_order() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().to_owned();
        std::thread::spawn(move || {
            executor::run(async move {
                let (disk, mut answers) = start(&path);
                for sequence in 1..=4 {
                    disk.prepare(sequence, path.join(format!("{sequence}.wal")))
                        .expect("taken");
                    ready(&mut answers).await.map.copy_in(0, &[sequence as u8]);
                }
                for sequence in 1..=3 {
                    disk.recycle(path.join(format!("{sequence}.wal")))
                        .expect("taken");
                }
                disk.prepare(5, path.join("5.wal")).expect("taken");
                let reused = ready(&mut answers).await;
                assert!(reused.recycled);
                assert_eq!(
                    reused.map.read(0, 1),
                    [2],
                    "1 was removed, 2 is the oldest kept"
                );
                assert_eq!(names(&path), ["3.wal", "4.wal", "5.wal", "begun"]);
            })
            .expect("a ring");
        })
        .join()
        .expect("the test passes");
    }

    /// Goal: a segment of a wrong length and a directory that is gone are answers, not panics.
    #[test]
    fn failures_are_answers() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().to_owned();
        std::thread::spawn(move || {
            executor::run(async move {
                std::fs::write(path.join("1.wal"), "short").expect("written");
                let (disk, mut answers) = start(&path);
                for (file, expected) in [("1.wal", "5 bytes"), ("gone/2.wal", "cannot make")] {
                    disk.prepare(1, path.join(file)).expect("taken");
                    match answers.receive().await {
                        Some(DiskAnswer::Failed { error, .. }) => {
                            assert!(error.to_string().contains(expected), "{error}");
                        }
                        other => panic!("{other:?}"),
                    }
                }
            })
            .expect("a ring");
        })
        .join()
        .expect("the test passes");
    }
}
