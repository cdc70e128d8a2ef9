//! The file of a record: a header that says what it is, blocks of entries, an end mark.
//!
//! ```text
//! header   "kontiki-load history 1\n", flags u8, clock 16 bytes
//! block    length u32 (> 0), XXH3 of the payload u64, payload: entries one after the other
//! end      length u32 = 0
//! ```
//!
//! Numbers are little-endian; entries as `codec` says, times relative to the entry before in the block, the
//! first to zero. A recorder fills a block of its own and writes it whole, so threads share one file and meet
//! once per block. A record without its end mark, or with a torn last block, is still good for what it
//! holds: it is *open*, and revisions without a writer are then nobody's fault.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::check::Checker;
use super::codec::{Decoder, Malformed, encode, encode_operation};
use super::operation::{Entry, Nanos, Operation};

/// First bytes of a record; the number is the version.
const MAGIC: &[u8] = b"kontiki-load history 1\n";
const FLAG_EXCLUSIVE: u8 = 1;
/// A recorder's block goes to the file when it is this long.
const BLOCK_BYTES: usize = 64 * 1024;
/// Longest block a reader takes: one entry may exceed `BLOCK_BYTES`, but not by more than a large range.
pub const BLOCK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What holds for a whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which monotonic clock its times are of: two records with the same one can be ordered against each
    /// other, as with the boot id of one machine.
    pub clock: [u8; 16],
    /// Whether the records judged together hold every write and every compaction of the store between the
    /// first and the last operation.
    pub exclusive: bool,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else, or of another version.
    #[error("this is no record of version 1")]
    Foreign,
    /// A block is damaged.
    #[error("block {block} is damaged: {what}")]
    Damaged {
        /// Counted from zero.
        block: u64,
        /// How.
        what: String,
    },
}

struct Shared<W> {
    file: W,
    /// The first failure; nothing is written after it.
    failed: Option<io::Error>,
}

/// Writes one record. Hand a [`Recorder`] to each thread.
pub struct RecordWriter<W> {
    shared: Arc<Mutex<Shared<W>>>,
}

/// Collects the entries of one thread. Dropping it hands over what is left.
pub struct Recorder<W: Write> {
    shared: Arc<Mutex<Shared<W>>>,
    block: Vec<u8>,
    clock: Nanos,
}

impl<W: Write> RecordWriter<W> {
    /// Starts a record.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn new(mut file: W, header: &Header) -> io::Result<RecordWriter<W>> {
        file.write_all(MAGIC)?;
        file.write_all(&[if header.exclusive { FLAG_EXCLUSIVE } else { 0 }])?;
        file.write_all(&header.clock)?;
        Ok(RecordWriter {
            shared: Arc::new(Mutex::new(Shared { file, failed: None })),
        })
    }

    /// A recorder for one more thread.
    #[must_use]
    pub fn recorder(&self) -> Recorder<W> {
        Recorder {
            shared: Arc::clone(&self.shared),
            block: Vec::with_capacity(2 * BLOCK_BYTES),
            clock: 0,
        }
    }

    /// Ends the record. Every recorder must have been dropped, with each operation that got no answer
    /// recorded as unknown: else effects of theirs would be nobody's.
    ///
    /// # Errors
    /// When anything of the record could not be written, or a recorder is still there.
    pub fn finish(self) -> io::Result<W> {
        let shared = Arc::try_unwrap(self.shared)
            .map_err(|_| io::Error::other("a recorder is still in use"))?
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(failed) = shared.failed {
            return Err(failed);
        }
        let mut file = shared.file;
        file.write_all(&0u32.to_le_bytes())?;
        file.flush()?;
        Ok(file)
    }
}

impl<W: Write> Recorder<W> {
    /// Adds an operation that is over.
    pub fn operation(&mut self, operation: &Operation) {
        encode_operation(&mut self.block, &mut self.clock, operation);
        self.hand_over_if_full();
    }

    /// Adds an entry.
    pub fn entry(&mut self, entry: &Entry) {
        encode(&mut self.block, &mut self.clock, entry);
        self.hand_over_if_full();
    }

    fn hand_over_if_full(&mut self) {
        if self.block.len() >= BLOCK_BYTES {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        // The lock guards nothing that a panic could leave half done but the file itself, whose reader
        // checks every block.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.failed.is_none()
            && let Err(error) = write_block(&mut shared.file, &self.block)
        {
            shared.failed = Some(error);
        }
        self.block.clear();
        self.clock = 0;
    }
}

impl<W: Write> Drop for Recorder<W> {
    fn drop(&mut self) {
        if !self.block.is_empty() {
            self.hand_over();
        }
    }
}

fn write_block(file: &mut impl Write, block: &[u8]) -> io::Result<()> {
    let length = u32::try_from(block.len())
        .ok()
        .filter(|_| block.len() <= BLOCK_BYTES_MAX)
        .ok_or_else(|| io::Error::other("an entry is larger than a block may be"))?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(&xxh3_64(block).to_le_bytes())?;
    file.write_all(block)
}

/// Reads one record, block by block.
pub struct RecordReader<R> {
    file: R,
    header: Header,
    block: Bytes,
    block_at: usize,
    blocks: u64,
    clock: Nanos,
    over: Option<Close>,
}

/// How a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// With its end mark: it is whole.
    Closed,
    /// In the middle, because its writer was killed.
    Open,
}

impl<R: Read> RecordReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When this is no record.
    pub fn new(mut file: R) -> Result<RecordReader<R>, RecordError> {
        let mut start = [0; MAGIC.len() + 17];
        file.read_exact(&mut start)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => RecordError::Foreign,
                _ => RecordError::Io(error),
            })?;
        let (magic, rest) = start.split_at(MAGIC.len());
        let flags = rest[0];
        if magic != MAGIC || flags & !FLAG_EXCLUSIVE != 0 {
            return Err(RecordError::Foreign);
        }
        let mut clock = [0; 16];
        clock.copy_from_slice(&rest[1..]);
        Ok(RecordReader {
            file,
            header: Header {
                clock,
                exclusive: flags & FLAG_EXCLUSIVE != 0,
            },
            block: Bytes::new(),
            block_at: 0,
            blocks: 0,
            clock: 0,
            over: None,
        })
    }

    /// What holds for the whole record.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// How the record ended, once [`RecordReader::read`] has given nothing.
    #[must_use]
    pub fn close(&self) -> Option<Close> {
        self.over
    }

    /// The next entry, or nothing at the end.
    ///
    /// # Errors
    /// When the file cannot be read or a block is damaged.
    pub fn read(&mut self) -> Result<Option<Entry>, RecordError> {
        while self.block_at >= self.block.len() {
            if self.over.is_some() || !self.read_block()? {
                return Ok(None);
            }
        }
        let mut decoder = Decoder::new(&self.block, self.block_at);
        match decoder.entry(&mut self.clock) {
            Ok(entry) => {
                self.block_at = decoder.at();
                Ok(Some(entry))
            }
            Err(Malformed { at, what }) => Err(self.damaged(format!("no {what} at byte {at}"))),
        }
    }

    /// Gives everything that is left to `checker`, and says how the record ended.
    ///
    /// # Errors
    /// As for [`RecordReader::read`].
    pub fn give_to(mut self, checker: &mut Checker) -> Result<Close, RecordError> {
        let source = checker.source(&self.header);
        while let Some(entry) = self.read()? {
            checker.add(source, entry);
        }
        let close = self.over.unwrap_or(Close::Open);
        checker.close(close);
        Ok(close)
    }

    fn damaged(&self, what: String) -> RecordError {
        RecordError::Damaged {
            block: self.blocks.saturating_sub(1),
            what,
        }
    }

    /// Whether there was one more. A block that the file's end cuts short was being written when the
    /// writer died.
    fn read_block(&mut self) -> Result<bool, RecordError> {
        let mut length = [0; 4];
        if !self.fill(&mut length)? {
            return Ok(false);
        }
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            self.over = Some(Close::Closed);
            return Ok(false);
        }
        self.blocks += 1;
        if length > BLOCK_BYTES_MAX {
            return Err(self.damaged(format!("it would be {length} bytes long")));
        }
        let mut checksum = [0; 8];
        let mut payload = vec![0; length];
        if !self.fill(&mut checksum)? || !self.fill(&mut payload)? {
            return Ok(false);
        }
        if xxh3_64(&payload) != u64::from_le_bytes(checksum) {
            return Err(self.damaged("its checksum is another".into()));
        }
        self.block = payload.into();
        self.block_at = 0;
        self.clock = 0;
        Ok(true)
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<bool, RecordError> {
        match self.file.read_exact(into) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.over = Some(Close::Open);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
