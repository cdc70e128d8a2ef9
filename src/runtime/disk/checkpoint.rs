//! The files of checkpoints: written and removed on a thread of their own, read at start.
//!
//! A file has the name of a checkpoint only when all of it is durable: it is written under another name,
//! synced, renamed, and the directory synced. Every few megabytes are synced on their own and leave the page
//! cache, so that the log's syncs never wait behind a whole checkpoint. Must never run on a core. A
//! failure here loses nothing, because the log still has everything; it is reported, and tried again. Also read
//! here: the parts of a checkpoint that a follower is sent.

mod load;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::JoinHandle;

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded};
use rustix::fs::{Advice, fadvise};

use self::load::checkpoints_in;
pub use self::load::{FileError, Loaded, Unusable, load_newest};
use super::directory::{DirectoryError, sync_directory};
use crate::base::Index;
use crate::base::limits::{CHECKPOINT_BLOCKS_WAITING_MAX, CHECKPOINT_SYNC_BYTES};
use crate::checkpoint::{Block, CheckpointId, Source};
use crate::keyspace::Keyspace;
use crate::runtime::beside::spawn_beside;
use crate::runtime::mailbox;
use crate::shard::event::CheckpointRead;

/// A checkpoint that is being written; never the name of one.
const UNFINISHED: &str = "unfinished.tmp";
/// Requests that wait for the thread: the blocks, and what stands around them.
const REQUESTS_MAX: usize = 2 * CHECKPOINT_BLOCKS_WAITING_MAX;
/// What the thread answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointAnswer {
    /// The oldest block that was not reported is written.
    Written,
    /// The checkpoint has its name, and both are durable.
    Durable(CheckpointId),
    /// The checkpoint that was begun cannot be written; what else was sent of it is dropped.
    Failed,
    /// A part of a checkpoint.
    Read {
        /// From the request.
        read: CheckpointRead,
        /// What is there; nothing when it cannot be read.
        bytes: Bytes,
    },
}

enum Request {
    Begin(CheckpointId),
    Block(Block),
    Finish(CheckpointId, Source),
    Settle(CheckpointId),
    RemoveBefore(Index),
    Read(CheckpointRead),
    Free(Box<Keyspace>),
}

/// The thread does not take requests: it has ended, or the caller does not wait for its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint thread does not take requests")]
pub struct NotTaken;

/// The handle of the thread. Dropping it ends the thread after the request at hand.
#[derive(Debug)]
pub struct CheckpointThread {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl CheckpointThread {
    /// Starts the thread for the checkpoints in `directory`; what an earlier run left unfinished goes.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(
        directory: PathBuf,
        answers: mailbox::Sender<CheckpointAnswer>,
    ) -> io::Result<CheckpointThread> {
        let (requests, received) = bounded(REQUESTS_MAX);
        let worker = Worker {
            directory,
            answers,
            writing: None,
            reading: None,
        };
        let thread = spawn_beside("checkpoint", move || worker.run(&received))?;
        Ok(CheckpointThread {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Begins a checkpoint. One that was begun before and not finished is given up.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn begin(&self, id: CheckpointId) -> Result<(), NotTaken> {
        self.request(Request::Begin(id))
    }

    /// Writes a block of it.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn write(&self, block: Block) -> Result<(), NotTaken> {
        self.request(Request::Block(block))
    }

    /// Makes it durable and gives it its name, which says where it comes from.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn finish(&self, id: CheckpointId, source: Source) -> Result<(), NotTaken> {
        self.request(Request::Finish(id, source))
    }

    /// Gives one that was received the name of one of its own.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn settle(&self, id: CheckpointId) -> Result<(), NotTaken> {
        self.request(Request::Settle(id))
    }

    /// Removes the checkpoints below `index`.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn remove_before(&self, index: Index) -> Result<(), NotTaken> {
        self.request(Request::RemoveBefore(index))
    }

    /// Reads a part of a checkpoint that has its name.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn read(&self, read: CheckpointRead) -> Result<(), NotTaken> {
        self.request(Request::Read(read))
    }

    /// Frees a state that nothing needs.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn free(&self, state: Box<Keyspace>) -> Result<(), NotTaken> {
        self.request(Request::Free(state))
    }

    fn request(&self, request: Request) -> Result<(), NotTaken> {
        let requests = self.requests.as_ref().expect("open until dropped");
        requests.try_send(request).map_err(|_| NotTaken)
    }
}

impl Drop for CheckpointThread {
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
    directory: PathBuf,
    answers: mailbox::Sender<CheckpointAnswer>,
    writing: Option<Unfinished>,
    /// The file that was read last.
    reading: Option<(Index, File)>,
}

struct Unfinished {
    file: File,
    unsynced_bytes: u64,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Request>) {
        let _ = std::fs::remove_file(self.unfinished());
        for request in requests {
            let answer = match request {
                Request::Begin(id) => self.begin(id),
                Request::Block(block) => self.write(&block),
                Request::Finish(id, source) => self.finish(id, source),
                Request::Settle(id) => {
                    self.settle(id);
                    None
                }
                Request::RemoveBefore(index) => {
                    self.reading.take_if(|(reading, _)| *reading < index);
                    self.remove_before(index);
                    None
                }
                Request::Read(read) => Some(self.read(read)),
                Request::Free(state) => {
                    drop(state);
                    None
                }
            };
            if let Some(answer) = answer
                && !self.answers.send_waiting(answer)
            {
                return;
            }
        }
        if self.writing.take().is_some() {
            let _ = std::fs::remove_file(self.unfinished());
        }
    }

    fn unfinished(&self) -> PathBuf {
        self.directory.join(UNFINISHED)
    }

    fn begin(&mut self, id: CheckpointId) -> Option<CheckpointAnswer> {
        match File::create(self.unfinished()) {
            Ok(file) => {
                self.writing = Some(Unfinished {
                    file,
                    unsynced_bytes: 0,
                });
                tracing::debug!(index = %id.index, "checkpoint begun");
                None
            }
            Err(error) => Some(self.fail(&error)),
        }
    }

    fn write(&mut self, block: &Block) -> Option<CheckpointAnswer> {
        // What was sent before the failure was known is dropped.
        let writing = self.writing.as_mut()?;
        match writing.write(block) {
            Ok(()) => Some(CheckpointAnswer::Written),
            Err(error) => Some(self.fail(&error)),
        }
    }

    fn finish(&mut self, id: CheckpointId, source: Source) -> Option<CheckpointAnswer> {
        let mut writing = self.writing.take()?;
        let path = self.named(id.index, source);
        let named = writing
            .sync()
            .and_then(|()| std::fs::rename(self.unfinished(), &path))
            .and_then(|()| self.remove_other(id.index, source))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        match named {
            Ok(()) => {
                tracing::info!(index = %id.index, term = %id.term, ?source, "checkpoint durable");
                Some(CheckpointAnswer::Durable(id))
            }
            Err(error) => Some(self.fail(&error)),
        }
    }

    /// One that was received and did not hold is replaced by one of one's own, under another name.
    fn remove_other(&self, index: Index, source: Source) -> io::Result<()> {
        let other = match source {
            Source::Log => Source::Member,
            Source::Member => Source::Log,
        };
        match std::fs::remove_file(self.named(index, other)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// What does not succeed leaves a name that promises less, nothing else.
    fn settle(&self, id: CheckpointId) {
        let received = self.named(id.index, Source::Member);
        let settled = std::fs::rename(received, self.named(id.index, Source::Log))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        if let Err(error) = settled {
            let directory = self.directory.display();
            tracing::warn!(%error, index = %id.index, "{directory}: cannot rename a checkpoint");
        }
    }

    fn named(&self, index: Index, source: Source) -> PathBuf {
        let name = CheckpointId::file_name(index, source);
        self.directory.join(name)
    }

    fn fail(&mut self, error: &io::Error) -> CheckpointAnswer {
        let directory = self.directory.display();
        tracing::warn!(%error, "{directory}: cannot write a checkpoint; the log grows until it is possible");
        self.writing = None;
        // Space for others.
        let _ = std::fs::remove_file(self.unfinished());
        CheckpointAnswer::Failed
    }

    fn read(&mut self, read: CheckpointRead) -> CheckpointAnswer {
        let bytes = self.read_part(&read).unwrap_or_else(|error| {
            let directory = self.directory.display();
            let index = read.id.index;
            tracing::warn!(%error, %index, "{directory}: cannot read a checkpoint");
            self.reading = None;
            Bytes::new()
        });
        CheckpointAnswer::Read { read, bytes }
    }

    fn read_part(&mut self, read: &CheckpointRead) -> io::Result<Bytes> {
        let index = read.id.index;
        let open = self.reading.take().filter(|(reading, _)| *reading == index);
        let (_, file) = match open {
            Some(open) => self.reading.insert(open),
            None => {
                let file = match File::open(self.named(index, Source::Log)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        File::open(self.named(index, Source::Member))?
                    }
                    opened => opened?,
                };
                self.reading.insert((index, file))
            }
        };
        let mut bytes = vec![0; read.size_bytes()];
        let mut length = 0;
        while length < bytes.len() {
            match file.read_at(&mut bytes[length..], read.offset() + length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(length);
        Ok(Bytes::from(bytes))
    }

    /// What cannot be removed costs space, nothing else: the next checkpoint tries again.
    fn remove_before(&self, index: Index) {
        let remove = || -> Result<(), DirectoryError> {
            for (found, _, path) in checkpoints_in(&self.directory)? {
                if found < index
                    && let Err(error) = std::fs::remove_file(&path)
                {
                    tracing::warn!(path = %path.display(), %error, "cannot remove an old checkpoint");
                }
            }
            sync_directory(&self.directory)
        };
        if let Err(error) = remove() {
            tracing::warn!(%error, "cannot remove old checkpoints");
        }
    }
}

impl Unfinished {
    fn write(&mut self, block: &Block) -> io::Result<()> {
        self.file.write_all_at(&block.bytes, block.offset())?;
        self.unsynced_bytes += block.bytes.len() as u64;
        if self.unsynced_bytes >= CHECKPOINT_SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced_bytes = 0;
        self.file.sync_data()?;
        // Nobody reads it before the next start.
        Ok(fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::base::{ClusterId, MemberId, ShardId, Term};
    use crate::checkpoint::{Origin, Writer};
    use crate::keyspace::Keyspace;
    use crate::keyspace::fold::FoldJob;
    use crate::keyspace::state::StateWalk;
    use crate::keyspace::steps::Steps;
    use crate::runtime::disk::directory::files_in;
    use crate::runtime::executor;

    const CLUSTER: ClusterId = ClusterId(3);
    const SHARD: ShardId = ShardId(0);

    fn id(index: u64) -> CheckpointId {
        CheckpointId {
            index: Index(index),
            term: Term(2),
        }
    }

    /// The blocks of an empty keyspace that stands at an index.
    fn blocks(index: u64) -> Vec<Block> {
        let mut keyspace = Keyspace::new();
        for index in 1..=index {
            let folded = FoldJob::replay(&mut keyspace, Index(index)).run(
                &mut keyspace,
                &[],
                &mut Steps::new(1),
            );
            assert!(folded.is_some());
        }
        keyspace.commit(Index(index));
        let walk = StateWalk::new(&mut keyspace);
        let origin = Origin {
            cluster: CLUSTER,
            shard: SHARD,
            term: Term(2),
            mark: walk.mark(),
        };
        let mut writer = Writer::new(origin, walk, &[]);
        let mut blocks = Vec::new();
        while !writer.is_done() {
            blocks.extend(writer.next_block(&keyspace, &mut Steps::new(10)));
        }
        blocks
    }

    fn start(directory: &Path) -> (CheckpointThread, mailbox::Receiver<CheckpointAnswer>) {
        let (answers, received) = mailbox::mailbox(1);
        let thread = CheckpointThread::start(directory.to_owned(), answers);
        (thread.expect("a thread"), received)
    }

    fn take(thread: &CheckpointThread, index: u64, source: Source) {
        thread.begin(id(index)).expect("room");
        for block in blocks(index) {
            thread.write(block).expect("room");
        }
        thread.finish(id(index), source).expect("room");
    }

    fn names(directory: &Path) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().expect("a name").to_string_lossy().into();
        let files = files_in(directory).expect("listed");
        files.into_iter().map(name).collect()
    }

    fn load_index(directory: &Path) -> (Option<Index>, usize) {
        let loaded = load_newest(directory, CLUSTER, SHARD).expect("listed");
        let index = loaded.restored.map(|restored| restored.origin.mark.index);
        (index, loaded.unusable.len())
    }

    /// Goal: a file gets its name last, and is read then; older ones go when told to; leftovers of a crash go.
    #[test]
    fn taken_and_removed() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().to_owned();
        std::thread::spawn(move || {
            executor::run(async move {
                std::fs::write(path.join(UNFINISHED), b"of an earlier life").expect("written");
                let (thread, mut answers) = start(&path);
                for (index, source) in [(3, Source::Member), (9, Source::Log)] {
                    take(&thread, index, source);
                    assert_eq!(answers.receive().await, Some(CheckpointAnswer::Written));
                    let durable = CheckpointAnswer::Durable(id(index));
                    assert_eq!(answers.receive().await, Some(durable));
                }
                for (index, expected) in [(3, blocks(3)[0].bytes.clone()), (4, Bytes::new())] {
                    let read = CheckpointRead {
                        to: MemberId(2),
                        attempt: 1,
                        id: id(index),
                        first_block: 0,
                        block_count: 4,
                    };
                    thread.read(read).expect("room");
                    let bytes = expected;
                    let expected = CheckpointAnswer::Read { read, bytes };
                    assert_eq!(answers.receive().await, Some(expected));
                }
                let name = |index, source| CheckpointId::file_name(Index(index), source);
                let newest = name(9, Source::Log);
                let received = [newest.clone(), name(3, Source::Member)];
                assert_eq!(names(&path), received);
                assert_eq!(load_index(&path), (Some(Index(9)), 0));
                thread.settle(id(3)).expect("room");
                // Answered in order.
                take(&thread, 9, Source::Member);
                assert_eq!(answers.receive().await, Some(CheckpointAnswer::Written));
                let durable = CheckpointAnswer::Durable(id(9));
                assert_eq!(answers.receive().await, Some(durable));
                let settled = [name(3, Source::Log), name(9, Source::Member)];
                assert_eq!(names(&path), settled);
                let loaded = load_newest(&path, CLUSTER, SHARD).expect("listed");
                assert_eq!((loaded.source, loaded.led_to), (Source::Member, Index(3)));
                thread.remove_before(Index(9)).expect("room");
                drop(thread);
                assert_eq!(names(&path), settled[1..]);
            })
            .expect("a ring");
        })
        .join()
        .expect("the test passes");
    }

    /// Goal: a checkpoint that cannot be written is reported once, what else was sent of it is dropped, and
    /// the next one is taken.
    #[test]
    fn failure_is_reported() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("later");
        std::thread::spawn(move || {
            executor::run(async move {
                let (thread, mut answers) = start(&path);
                take(&thread, 3, Source::Log);
                assert_eq!(answers.receive().await, Some(CheckpointAnswer::Failed));
                std::fs::create_dir(&path).expect("made");
                take(&thread, 4, Source::Log);
                assert_eq!(answers.receive().await, Some(CheckpointAnswer::Written));
                let durable = CheckpointAnswer::Durable(id(4));
                assert_eq!(answers.receive().await, Some(durable));
            })
            .expect("a ring");
        })
        .join()
        .expect("the test passes");
    }

    /// Goal: damaged, cut, renamed and foreign files are named and passed over; the next older one counts.
    #[test]
    fn unusable_files() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path();
        let write = |name: Index, bytes: &[u8]| {
            let name = CheckpointId::file_name(name, Source::Log);
            std::fs::write(path.join(name), bytes).expect("written");
        };
        assert_eq!(load_index(path), (None, 0));
        let good = blocks(5)[0].bytes.to_vec();
        write(Index(5), &good);
        write(Index(6), &good);
        write(Index(7), &blocks(7)[0].bytes[1..]);
        write(Index(8), &[]);
        let mut bad = blocks(9)[0].bytes.to_vec();
        bad[40] ^= 1;
        write(Index(9), &bad);
        let loaded = load_newest(path, CLUSTER, SHARD).expect("listed");
        let indexes: Vec<Index> = loaded.unusable.iter().map(|file| file.index).collect();
        assert_eq!(indexes, [9, 8, 7, 6].map(Index));
        assert_eq!(load_index(path), (Some(Index(5)), 4));
        let foreign = load_newest(path, ClusterId(4), SHARD).expect("listed");
        assert!(foreign.restored.is_none());
        assert_eq!(foreign.unusable.len(), 5);
    }
}
