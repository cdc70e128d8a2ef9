//! The log through the runtime: segments prepared ahead, commits through the ring, recovery from the disk.

use std::path::{Path, PathBuf};

use kontiki::base::{ClusterId, HardState, Incarnation, Index, MemberId, ShardId, Term};
use kontiki::checkpoint::{CheckpointId, Origin, Source, Writer};
use kontiki::frame;
use kontiki::keyspace::Keyspace;
use kontiki::keyspace::fold::FoldJob;
use kontiki::keyspace::state::StateWalk;
use kontiki::keyspace::steps::Steps;
use kontiki::raft::Position;
use kontiki::runtime::clock::Clock;
use kontiki::runtime::disk::directory::files_in;
use kontiki::runtime::disk::log::{LogDone, LogJob, LogWriter, WriteMode};
use kontiki::runtime::disk::read::{read_file, sync_files};
use kontiki::runtime::disk::segments::{DiskAnswer, DiskSettings, DiskThread};
use kontiki::runtime::disk::{identity, workers};
use kontiki::runtime::recovery::{self, Beside, Places, Turns};
use kontiki::runtime::stats::CoreStats;
use kontiki::runtime::survey::survey;
use kontiki::runtime::{executor, mailbox};
use kontiki::shard::event::KnownMembers;
use kontiki::wal::{
    Appender, Commit, CommitStep, Geometry, LogIdentity, Outcome, PreparedSegment, Recovery,
    Replayed, SegmentFile, SegmentOpening, SegmentSequence,
};

const SEGMENT_SIZE_BYTES: u64 = 64 << 10;
const TERM: Term = Term(1);

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Value {
    bytes: Vec<u8>,
}

/// What the writer holds while it writes.
enum Staged {
    Commit(Commit),
    Opening(SegmentOpening),
}

impl AsRef<[u8]> for Staged {
    fn as_ref(&self) -> &[u8] {
        match self {
            Staged::Commit(commit) => commit.bytes(),
            Staged::Opening(opening) => opening.page(),
        }
    }
}

/// A log with its files, as a shard's core drives it.
struct Log {
    appender: Appender,
    writer: LogWriter<Staged>,
    disk: DiskThread,
    answers: mailbox::Receiver<DiskAnswer>,
    directory: PathBuf,
}

fn log_identity() -> LogIdentity {
    LogIdentity {
        cluster: ClusterId(1),
        member: MemberId(2),
        incarnation: Incarnation(3),
        shard: ShardId(0),
    }
}

/// The entry at `index`: of varying size, and telling its index.
fn value(index: Index) -> Value {
    let length = usize::try_from(index.0 % 97 * 31).expect("small") + 8;
    let mut bytes = vec![index.0 as u8; length];
    bytes[..8].copy_from_slice(&index.0.to_le_bytes());
    Value { bytes }
}

/// Reads what is on the disk and returns how many entries it holds, after checking each.
async fn recover(directory: &Path, geometry: Geometry) -> (u64, Appender) {
    let paths: Vec<PathBuf> = files_in(directory).expect("listed");
    let files: Vec<SegmentFile> = paths
        .iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            Some(SegmentFile {
                sequence: SegmentSequence::from_file_name(name)?,
                size_bytes: path.metadata().ok()?.len(),
            })
        })
        .collect();
    let mut recovery = Recovery::new(geometry, log_identity(), Index(0), &files).expect("in order");
    let mut bytes = Vec::new();
    let mut count = 0;
    while let Some(sequence) = recovery.next_file() {
        let path = directory.join(sequence.file_name());
        read_file(&path, &mut bytes).await.expect("readable");
        recovery
            .segment(&bytes, &mut |replayed| {
                if let Replayed::Entry(record) = replayed {
                    count += 1;
                    assert_eq!(record.header.index, Index(count));
                    let archived = frame::access::<Value>(record.body)?;
                    assert_eq!(archived.bytes.as_slice(), value(Index(count)).bytes);
                }
                Ok(())
            })
            .expect("ours");
    }
    let recovered = recovery.finish();
    assert!(
        matches!(recovered.outcome, Outcome::Clean),
        "{:?}",
        recovered.outcome
    );
    sync_files(&paths).await.expect("synced");
    (count, Appender::resume(geometry, log_identity(), recovered))
}

impl Log {
    fn open(directory: &Path, mode: WriteMode, appender: Appender) -> Log {
        let (sender, answers) = mailbox::mailbox(4);
        let settings = DiskSettings {
            directory: directory.to_owned(),
            segment_size_bytes: SEGMENT_SIZE_BYTES,
            mode,
            core_thread: Some(workers::current_thread()),
        };
        Log {
            appender,
            writer: LogWriter::start(mode),
            disk: DiskThread::start(settings, sender).expect("a thread"),
            answers,
            directory: directory.to_owned(),
        }
    }

    async fn prepared(&mut self, sequence: SegmentSequence) -> LogJob<Staged> {
        let path = self.directory.join(sequence.file_name());
        self.disk.prepare(sequence.0, path).expect("taken");
        match self.answers.receive().await {
            Some(DiskAnswer::Ready(prepared)) => LogJob::Open(prepared),
            other => panic!("no segment: {other:?}"),
        }
    }

    /// Puts the segment in use before the end back into use.
    async fn resume(&mut self) {
        let active = SegmentSequence(self.appender.next_segment().0 - 1);
        let job = self.prepared(active).await;
        assert!(self.writer.submit(job).is_ok());
        self.settle().await;
    }

    /// Writes everything that is staged.
    async fn settle(&mut self) {
        loop {
            match self.appender.commit() {
                CommitStep::Nothing => return,
                CommitStep::Commit(commit) => {
                    let job = LogJob::Commit {
                        tag: commit.sequence.0,
                        offset: commit.offset,
                        also_at: None,
                        bytes: Staged::Commit(commit),
                    };
                    assert!(self.writer.submit(job).is_ok());
                }
                CommitStep::OpenSegment(sequence) => {
                    let job = self.prepared(sequence).await;
                    assert!(self.writer.submit(job).is_ok());
                    let opening = self.appender.open_segment(PreparedSegment {
                        sequence,
                        salt: identity::random_u64().expect("random") | 1,
                    });
                    let [offset, copy] = opening.offsets;
                    let job = LogJob::Commit {
                        tag: 0,
                        offset,
                        also_at: Some(copy),
                        bytes: Staged::Opening(opening),
                    };
                    assert!(self.writer.submit(job).is_ok());
                }
            }
            loop {
                match self.writer.done().await {
                    LogDone::Opened { .. } => continue,
                    LogDone::Durable {
                        bytes: Staged::Commit(commit),
                        ..
                    } => {
                        self.appender.durable(commit);
                    }
                    LogDone::Durable {
                        bytes: Staged::Opening(opening),
                        ..
                    } => {
                        self.appender.segment_opened(opening);
                    }
                }
                break;
            }
        }
    }
}

/// Goal: in both modes entries written over many segments, in three lives of the member, are all read back.
#[test]
fn three_lives() {
    for mode in [WriteMode::Mapped, WriteMode::Written] {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().to_owned();
        std::thread::spawn(move || {
            executor::run(async move {
                let geometry = Geometry::new(SEGMENT_SIZE_BYTES);
                let mut written = 0;
                for life in 0..3 {
                    let (found, appender) = recover(&directory, geometry).await;
                    assert_eq!(found, written, "life {life}, {mode:?}");
                    let mut log = Log::open(&directory, mode, appender);
                    if life > 0 {
                        log.resume().await;
                    }
                    for batch in 1..=40 {
                        for _ in 0..batch % 7 + 1 {
                            written += 1;
                            let index = Index(written);
                            log.appender
                                .stage_entry(TERM, index, &value(index))
                                .expect("it fits");
                        }
                        log.settle().await;
                    }
                    assert_eq!(log.appender.durable_index(), Index(written));
                }
                let (found, appender) = recover(&directory, geometry).await;
                assert_eq!(found, written);
                assert!(
                    appender.segments().count() > 3,
                    "several segments were used"
                );
            })
            .expect("a ring");
        })
        .join()
        .expect("the test passes");
    }
}

/// A new log with what `stage` stages.
async fn written(directory: &Path, stage: impl FnOnce(&mut Appender)) {
    let geometry = Geometry::new(SEGMENT_SIZE_BYTES);
    let appender = Appender::new(geometry, log_identity());
    let mut log = Log::open(directory, WriteMode::Written, appender);
    log.appender.set_hard_state(HardState {
        term: TERM,
        ..HardState::default()
    });
    stage(&mut log.appender);
    log.settle().await;
}

/// Goal: who looks at a log without using it finds that it does not lead to a checkpoint of its own.
#[test]
fn surveyed_behind_a_checkpoint() {
    for (term, leads_there) in [(TERM, true), (Term(2), false)] {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().to_owned();
        std::thread::spawn(move || {
            executor::run(async move {
                let geometry = Geometry::new(SEGMENT_SIZE_BYTES);
                let entries = |appender: &mut Appender| {
                    for index in (1..=5).map(Index) {
                        let staged = appender.stage_entry(TERM, index, &value(index));
                        staged.expect("it fits");
                    }
                };
                written(&directory, entries).await;
                let index = Index(5);
                let base = (Position { term, index }, index);
                let judged = survey(&directory, geometry, log_identity(), base, false);
                let outcome = judged.expect("judged").found.outcome;
                assert_eq!(outcome == Outcome::Clean, leads_there, "{outcome:?}");
            })
            .expect("a ring");
        })
        .join()
        .expect("the test passes");
    }
}

/// Goal: a member of a group whose newest checkpoint is damaged is to be rebuilt if its log led there once; if another member
/// sent it, and the log does not say yet that it leads there, nothing is lost that it ever vouched for. The file goes.
#[test]
fn damaged_checkpoints() {
    for (source, index, begins_anew, rebuilds) in [
        (Source::Log, 5, None, true),
        (Source::Log, 5, Some(5), true),
        // The received one that it began anew after went when this one was taken.
        (Source::Log, 9, Some(5), true),
        (Source::Member, 5, None, false),
        (Source::Member, 5, Some(5), true),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let places = Places {
            log: root.path().join("log"),
            checkpoints: root.path().join("checkpoints"),
        };
        for directory in [&places.log, &places.checkpoints] {
            std::fs::create_dir(directory).expect("made");
        }
        let index = Index(index);
        let file = places
            .checkpoints
            .join(CheckpointId::file_name(index, source));
        std::fs::write(&file, "rot").expect("written");
        std::thread::spawn(move || {
            executor::run(async move {
                let anew = |appender: &mut Appender| {
                    if let Some(base) = begins_anew {
                        let staged = appender.stage_base(TERM, TERM, Index(base));
                        staged.expect("it fits");
                        for index in (base + 1..=index.0).map(Index) {
                            let staged = appender.stage_entry(TERM, index, &value(index));
                            staged.expect("it fits");
                        }
                    }
                };
                written(&places.log, anew).await;
                let beside = Beside {
                    known: KnownMembers::default(),
                    began_in_group: true,
                };
                let turns = Turns {
                    clock: Clock::new(),
                    stats: &CoreStats::default(),
                };
                let geometry = Geometry::new(SEGMENT_SIZE_BYTES);
                let found =
                    recovery::recover(&places, geometry, log_identity(), beside, &turns).await;
                let known = found.expect("it goes on").known;
                let expected = (rebuilds, rebuilds);
                assert_eq!(
                    (known.rebuild.is_some(), known.just_cut),
                    expected,
                    "{source:?}, {index}, {begins_anew:?}"
                );
            })
            .expect("a ring");
        })
        .join()
        .expect("the test passes");
        assert!(!file.exists(), "{source:?}, {index}, {begins_anew:?}");
    }
}

/// The blocks of an empty state that stands at an index.
fn checkpoint(index: Index) -> Vec<u8> {
    let mut keyspace = Keyspace::new();
    for index in (1..=index.0).map(Index) {
        let folded =
            FoldJob::replay(&mut keyspace, index).run(&mut keyspace, &[], &mut Steps::new(1));
        assert!(folded.is_some());
    }
    keyspace.commit(index);
    let walk = StateWalk::new(&mut keyspace);
    let origin = Origin {
        cluster: log_identity().cluster,
        shard: log_identity().shard,
        term: Term(2),
        mark: walk.mark(),
    };
    let mut writer = Writer::new(origin, walk, &[]);
    let mut bytes = Vec::new();
    while !writer.is_done() {
        let block = writer.next_block(&keyspace, &mut Steps::new(10));
        bytes.extend(block.into_iter().flat_map(|block| block.bytes));
    }
    bytes
}

/// Goal: a log that does not lead to a received checkpoint begins anew behind it, unless it ends before an older one of
/// its own: that one's name says that there was more, whatever has become of the file. Then the member is to be rebuilt.
#[test]
fn behind_a_received_checkpoint() {
    let received = Index(9);
    for (own, led_to, rebuilds) in [
        (None, 3, false),
        (Some(5), 5, false),
        (Some(5), 7, false),
        (Some(5), 4, true),
        (Some(9), 9, true),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let places = Places {
            log: root.path().join("log"),
            checkpoints: root.path().join("checkpoints"),
        };
        for directory in [&places.log, &places.checkpoints] {
            std::fs::create_dir(directory).expect("made");
        }
        let name = |index, source| {
            let name = CheckpointId::file_name(index, source);
            places.checkpoints.join(name)
        };
        if let Some(own) = own.map(Index) {
            std::fs::write(name(own, Source::Log), "rot").expect("written");
        }
        let file = name(received, Source::Member);
        std::fs::write(file, checkpoint(received)).expect("written");
        std::thread::spawn(move || {
            executor::run(async move {
                // Of another term than the checkpoint.
                let entries = |appender: &mut Appender| {
                    for index in (1..=led_to).map(Index) {
                        let staged = appender.stage_entry(TERM, index, &value(index));
                        staged.expect("it fits");
                    }
                };
                written(&places.log, entries).await;
                let geometry = Geometry::new(SEGMENT_SIZE_BYTES);
                let mut known = KnownMembers::default();
                // The second time is after a crash before anything else was written.
                for _ in 0..2 {
                    let beside = Beside {
                        known,
                        began_in_group: true,
                    };
                    let turns = Turns {
                        clock: Clock::new(),
                        stats: &CoreStats::default(),
                    };
                    let found =
                        recovery::recover(&places, geometry, log_identity(), beside, &turns).await;
                    let found = found.expect("it goes on");
                    known = found.known;
                    let rebuild = known.rebuild.map(|rebuild| rebuild.every_voter);
                    let expected = (rebuilds.then_some(true), rebuilds);
                    assert_eq!((rebuild, known.just_cut), expected, "{own:?}, {led_to}");
                    assert_eq!(found.appender.last_index(), received);
                }
            })
            .expect("a ring");
        })
        .join()
        .expect("the test passes");
    }
}
