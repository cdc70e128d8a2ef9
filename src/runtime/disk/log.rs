//! The write path of one log: commits become durable, in order, one sync at a time.
//!
//! Owns all I/O on the segment in use, in one detached task that nothing cancels, because the outcome of a
//! cancelled sync is unknown. Runs on the shard's core. The seam is narrow on purpose: a prepared segment goes
//! in, commits go in, completions come out, and behind it are two ways to write. A failure of either ends
//! the process; it must never be retried, because after a failed sync the kernel forgets what it could not write.
//!
//! ```text
//! mapped    copy into the mapping, fdatasync through the ring     (default)
//! written   one write through the ring on a file opened O_DSYNC; the mapping is then only read
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::iter;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use glommio::io::{BufferedFile, OpenOptions};

use super::segments::PreparedSegment;
use crate::base::limits::LOG_JOBS_MAX;
use crate::runtime::beside::spawn_beside;
use crate::runtime::executor::{self, Queue};
use crate::runtime::fatal::fatal;

/// How commits reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// A copy into the mapped segment, then fdatasync.
    #[default]
    Mapped,
    /// One synchronous write.
    Written,
}

/// A piece of work for the log.
#[derive(Debug)]
pub enum LogJob<B> {
    /// Commits go to this segment from here on. Everything before is durable in the one before.
    Open(PreparedSegment),
    /// Makes `bytes` durable at `offset` of the segment in use. Offset and length are whole pages.
    Commit {
        /// Comes back with the completion.
        tag: u64,
        /// In bytes from the segment's start.
        offset: u64,
        /// A second place for the same bytes, under the same sync: a segment's header has a copy at its end.
        also_at: Option<u64>,
        /// The staged bytes; come back with the completion.
        bytes: B,
    },
}

/// A piece of work that is done, in the order of the jobs.
#[derive(Debug, PartialEq, Eq)]
pub enum LogDone<B> {
    /// The segment is in use.
    Opened {
        /// Its number.
        sequence: u64,
    },
    /// The bytes are on the disk.
    Durable {
        /// From the job.
        tag: u64,
        /// From the job, to be used again.
        bytes: B,
    },
}

struct Shared<B> {
    jobs: VecDeque<LogJob<B>>,
    done: VecDeque<LogDone<B>>,
    /// Jobs taken out of `jobs` and not yet in `done`: zero or one.
    in_flight: usize,
    segment: Option<PreparedSegment>,
    writer: Option<Waker>,
    owner: Option<Waker>,
    closed: bool,
}

/// The owner's end of a log's write path.
pub struct LogWriter<B> {
    shared: Rc<RefCell<Shared<B>>>,
}

impl<B: AsRef<[u8]> + 'static> LogWriter<B> {
    /// Starts the writing task on this core.
    #[must_use]
    pub fn start(mode: WriteMode) -> LogWriter<B> {
        let shared = Rc::new(RefCell::new(Shared {
            jobs: VecDeque::with_capacity(LOG_JOBS_MAX),
            done: VecDeque::with_capacity(LOG_JOBS_MAX),
            in_flight: 0,
            segment: None,
            writer: None,
            owner: None,
            closed: false,
        }));
        let task = WriterTask {
            shared: Rc::clone(&shared),
            mode,
            file: None,
        };
        executor::spawn_local(Queue::Shard, task.run()).detach();
        LogWriter { shared }
    }

    /// Hands in a job. Jobs are done one after the other.
    ///
    /// # Errors
    /// The job, when [`LOG_JOBS_MAX`] are not yet taken back with [`LogWriter::poll_done`].
    pub fn submit(&self, job: LogJob<B>) -> Result<(), LogJob<B>> {
        let mut shared = self.shared.borrow_mut();
        if shared.jobs.len() + shared.in_flight + shared.done.len() >= LOG_JOBS_MAX {
            return Err(job);
        }
        shared.jobs.push_back(job);
        if let Some(writer) = shared.writer.take() {
            writer.wake();
        }
        Ok(())
    }

    /// The next job that is done.
    pub fn poll_done(&self, cx: &mut Context<'_>) -> Poll<LogDone<B>> {
        let mut shared = self.shared.borrow_mut();
        if let Some(done) = shared.done.pop_front() {
            return Poll::Ready(done);
        }
        shared.owner = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits for the next job that is done. Dropping the future loses nothing.
    pub async fn done(&self) -> LogDone<B> {
        std::future::poll_fn(|cx| self.poll_done(cx)).await
    }

    /// Shows bytes of the segment in use to `look`, as the page cache has them; `None` when another
    /// segment than `sequence` is in use.
    pub fn read<T>(
        &self,
        sequence: u64,
        offset: u64,
        length: usize,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        let shared = self.shared.borrow();
        let segment = shared.segment.as_ref()?;
        (segment.sequence == sequence).then(|| look(segment.map.read(offset, length)))
    }
}

impl<B> Drop for LogWriter<B> {
    /// The task finishes what it was given, then ends.
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.closed = true;
        if let Some(writer) = shared.writer.take() {
            writer.wake();
        }
    }
}

struct WriterTask<B> {
    shared: Rc<RefCell<Shared<B>>>,
    mode: WriteMode,
    file: Option<BufferedFile>,
}

impl<B: AsRef<[u8]> + 'static> WriterTask<B> {
    async fn run(mut self) {
        while let Some(job) = self.next_job().await {
            let done = match job {
                LogJob::Open(segment) => self.open(segment).await,
                LogJob::Commit {
                    tag,
                    offset,
                    also_at,
                    bytes,
                } => {
                    let offsets = iter::once(offset).chain(also_at);
                    self.commit(offsets, bytes.as_ref()).await;
                    LogDone::Durable { tag, bytes }
                }
            };
            let mut shared = self.shared.borrow_mut();
            shared.in_flight = 0;
            shared.done.push_back(done);
            if let Some(owner) = shared.owner.take() {
                owner.wake();
            }
        }
    }

    async fn next_job(&self) -> Option<LogJob<B>> {
        std::future::poll_fn(|cx| {
            let mut shared = self.shared.borrow_mut();
            if let Some(job) = shared.jobs.pop_front() {
                shared.in_flight = 1;
                return Poll::Ready(Some(job));
            }
            if shared.closed {
                return Poll::Ready(None);
            }
            shared.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    async fn open(&mut self, segment: PreparedSegment) -> LogDone<B> {
        let synchronous = match self.mode {
            WriteMode::Mapped => 0,
            WriteMode::Written => libc::O_DSYNC,
        };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(synchronous)
            .buffered_open(&segment.path)
            .await;
        match opened {
            Ok(file) => {
                if let Some(previous) = self.file.replace(file) {
                    // Nothing is unwritten: every commit was synced.
                    let _ = previous.close().await;
                }
            }
            Err(error) => stop(&segment.path, "open", &error),
        }
        let sequence = segment.sequence;
        let previous = self.shared.borrow_mut().segment.replace(segment);
        if let Some(previous) = previous {
            unmap_elsewhere(previous);
        }
        LogDone::Opened { sequence }
    }

    async fn commit(&mut self, offsets: impl Iterator<Item = u64>, bytes: &[u8]) {
        let file = self
            .file
            .as_ref()
            .expect("a segment is opened before the first commit");
        let outcome = match self.mode {
            WriteMode::Mapped => {
                self.copy_in(offsets, bytes);
                file.fdatasync().await.map_err(|error| ("sync", error))
            }
            WriteMode::Written => write_at_all(file, offsets, bytes)
                .await
                .map_err(|error| ("write", error)),
        };
        if let Err((action, error)) = outcome {
            let shared = self.shared.borrow();
            let segment = shared.segment.as_ref().expect("it was there");
            stop(&segment.path, action, &error);
        }
    }

    /// Apart from the sync, because the owner hands in jobs while that runs.
    fn copy_in(&self, offsets: impl Iterator<Item = u64>, bytes: &[u8]) {
        let mut shared = self.shared.borrow_mut();
        let segment = shared
            .segment
            .as_mut()
            .expect("it has a file, so it is there");
        for offset in offsets {
            segment.map.copy_in(offset, bytes);
        }
    }
}

async fn write_at_all(
    file: &BufferedFile,
    offsets: impl Iterator<Item = u64>,
    bytes: &[u8],
) -> Result<(), glommio::GlommioError<()>> {
    for offset in offsets {
        write_all(file, offset, bytes).await?;
    }
    Ok(())
}

/// One write is what the kernel does for these lengths; a signal or a quota may make it shorter.
async fn write_all(
    file: &BufferedFile,
    offset: u64,
    bytes: &[u8],
) -> Result<(), glommio::GlommioError<()>> {
    let mut written = 0;
    while written < bytes.len() {
        // The ring owns the buffer it writes from, so the staged bytes are copied once.
        let rest = bytes[written..].to_vec();
        match file.write_at(rest, offset + written as u64).await? {
            0 => return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()),
            count => written += count,
        }
    }
    Ok(())
}

/// Unmapping tens of megabytes of locked pages takes longer than a turn may.
fn unmap_elsewhere(segment: PreparedSegment) {
    let spawned = spawn_beside("unmap", move || drop(segment));
    if let Err(error) = spawned {
        tracing::warn!(%error, "unmapped a log segment on its core");
    }
}

fn stop(path: &Path, action: &str, error: &glommio::GlommioError<()>) -> ! {
    fatal(format_args!(
        "{}: cannot {action} the log: {error}; what was not acknowledged before may be lost, \
         nothing is acknowledged any more",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::disk::read::{read_file, sync_files};
    use crate::runtime::mmap::MappedSegment;

    const SIZE: u64 = 64 << 10;
    const PAGE: usize = 4_096;

    fn prepared(directory: &Path, sequence: u64) -> PreparedSegment {
        let path = directory.join(format!("{sequence}.wal"));
        std::fs::write(&path, vec![0; SIZE as usize]).expect("written");
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .expect("opened");
        let map = MappedSegment::map(&path, &file, SIZE).expect("mapped");
        PreparedSegment {
            sequence,
            path,
            recycled: false,
            map,
        }
    }

    /// Goal: in both modes commits complete in order with their buffers, across a segment change, and are on
    /// the disk as direct reads see it.
    #[test]
    fn commits_are_on_disk() {
        for mode in [WriteMode::Mapped, WriteMode::Written] {
            let root = tempfile::tempdir().expect("a directory");
            let path = root.path().to_owned();
            std::thread::spawn(move || {
                executor::run(async move {
                    let log = LogWriter::start(mode);
                    let page = |byte: u8| vec![byte; PAGE];
                    let (first, second) = (prepared(&path, 1), prepared(&path, 2));
                    let files = [first.path.clone(), second.path.clone()];
                    let commit = |tag: u64, offset, bytes| {
                        let also_at = (tag == 1).then_some(SIZE - PAGE as u64);
                        LogJob::Commit {
                            tag,
                            offset,
                            also_at,
                            bytes,
                        }
                    };
                    for job in [
                        LogJob::Open(first),
                        commit(1, 0, page(1)),
                        commit(2, PAGE as u64, page(2)),
                        LogJob::Open(second),
                        commit(3, 0, [page(3), page(4)].concat()),
                    ] {
                        log.submit(job).expect("room for five");
                    }
                    assert_eq!(log.done().await, LogDone::Opened { sequence: 1 });
                    assert_eq!(
                        log.done().await,
                        LogDone::Durable {
                            tag: 1,
                            bytes: page(1)
                        }
                    );
                    assert_eq!(
                        log.done().await,
                        LogDone::Durable {
                            tag: 2,
                            bytes: page(2)
                        }
                    );
                    assert_eq!(log.done().await, LogDone::Opened { sequence: 2 });
                    let both = [page(3), page(4)].concat();
                    assert_eq!(
                        log.done().await,
                        LogDone::Durable {
                            tag: 3,
                            bytes: both.clone()
                        }
                    );
                    let seen = log.read(2, 0, 2 * PAGE, |bytes| bytes == both);
                    assert_eq!(seen, Some(true), "the mapping shows what was committed");
                    assert_eq!(log.read(1, 0, 1, |_| ()), None, "not the one in use");

                    sync_files(&files).await.expect("synced");
                    let mut bytes = vec![9; 3];
                    read_file(&files[0], &mut bytes).await.expect("read");
                    assert_eq!(bytes.len() as u64, SIZE);
                    assert_eq!(bytes[..2 * PAGE], [page(1), page(2)].concat());
                    assert_eq!(bytes[SIZE as usize - PAGE..], page(1), "the copy");
                    read_file(&files[1], &mut bytes).await.expect("read");
                    assert_eq!(bytes[..2 * PAGE], both);
                })
                .expect("a ring");
            })
            .join()
            .expect("the test passes");
        }
    }

    /// Goal: more jobs than the bound are given back, also while earlier ones wait to be taken.
    #[test]
    fn jobs_are_bounded() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().to_owned();
        std::thread::spawn(move || {
            executor::run(async move {
                let log = LogWriter::start(WriteMode::Mapped);
                log.submit(LogJob::Open(prepared(&path, 1))).expect("room");
                let commit = |tag| LogJob::Commit {
                    tag,
                    offset: 0,
                    also_at: None,
                    bytes: vec![0; PAGE],
                };
                for tag in 1..LOG_JOBS_MAX as u64 {
                    log.submit(commit(tag)).expect("room");
                }
                assert!(log.submit(commit(99)).is_err());
                assert_eq!(log.done().await, LogDone::Opened { sequence: 1 });
                log.submit(commit(100)).expect("room again");
            })
            .expect("a ring");
        })
        .join()
        .expect("the test passes");
    }
}
