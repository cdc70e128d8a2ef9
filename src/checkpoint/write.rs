//! From a keyspace to blocks, in slices.
//!
//! Holds one block and one version in memory, never more. Must never wait: the caller asks for the next
//! block when it has room for one, and gives the steps it may take.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::base::checksum::Crc32c;
use crate::base::limits::{CHECKPOINT_BLOCK_BYTES, CHECKPOINT_ROW_BYTES_MAX};
use crate::checkpoint::format::{
    BLOCK_BODY_BYTES, BLOCK_HEADER_BYTES, End, Origin, Row, open_block, seal_block, write_end,
    write_header, write_row, write_version,
};
use crate::keyspace::Keyspace;
use crate::keyspace::state::StateWalk;
use crate::keyspace::steps::Steps;

/// A piece of a checkpoint's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its place among the blocks, counted from zero.
    pub ordinal: u32,
    /// The bytes, final.
    pub bytes: Bytes,
    /// Whether nothing follows.
    pub is_last: bool,
}

impl Block {
    /// A block as it lies in a file or came from elsewhere, checked; `None` when it is not one, whole and
    /// undamaged.
    #[must_use]
    pub fn parse(bytes: Bytes) -> Option<Block> {
        let (header, _) = open_block(&bytes)?;
        Some(Block {
            ordinal: header.ordinal,
            is_last: header.last,
            bytes,
        })
    }

    /// Where in the file it belongs.
    #[must_use]
    pub fn offset(&self) -> u64 {
        u64::from(self.ordinal) * CHECKPOINT_BLOCK_BYTES as u64
    }
}

/// A checkpoint being written.
pub struct Writer {
    origin: Origin,
    walk: StateWalk,
    stream: Stream,
    ended: bool,
}

/// The stream as far as it is not in blocks yet.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    /// How many of them are in blocks already.
    taken: usize,
    next_ordinal: u32,
    blocks_bytes: u64,
    checksum: Crc32c,
    end: End,
}

impl Stream {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Adds an item and counts it into the checksum.
    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.checksum.update(&self.bytes[start..]);
    }

    fn has_block(&self) -> bool {
        self.waiting().len() >= BLOCK_BODY_BYTES
    }

    /// The next full block, or the rest as the last one.
    fn take_block(&mut self, is_last: bool) -> Block {
        let length = self.waiting().len().min(BLOCK_BODY_BYTES);
        let mut block = Vec::with_capacity(BLOCK_HEADER_BYTES + length);
        block.resize(BLOCK_HEADER_BYTES, 0);
        block.extend_from_slice(&self.waiting()[..length]);
        let ordinal = self.next_ordinal;
        seal_block(&mut block, ordinal, is_last);
        self.next_ordinal += 1;
        self.blocks_bytes += block.len() as u64;
        self.taken += length;
        if !self.has_block() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
            // What one large value needed is given back.
            self.bytes.shrink_to(2 * BLOCK_BODY_BYTES);
        }
        Block {
            ordinal,
            bytes: Bytes::from(block),
            is_last,
        }
    }
}

impl Writer {
    /// Begins the checkpoint of `origin`, which is where `walk` stands. `rows` are the tables without
    /// versions, as they were there.
    ///
    /// # Panics
    /// If a row is larger than [`CHECKPOINT_ROW_BYTES_MAX`]: the shard cuts its tables into rows.
    #[must_use]
    pub fn new(origin: Origin, walk: StateWalk, rows: &[Row]) -> Writer {
        assert_eq!(origin.mark, walk.mark(), "another walk than the origin's");
        let mut stream = Stream::default();
        stream.add(|bytes| write_header(&origin, bytes));
        for row in rows {
            let size = row.bytes.len();
            assert!(size <= CHECKPOINT_ROW_BYTES_MAX, "a row of {size} bytes");
            stream.add(|bytes| write_row(row, bytes));
            stream.end.rows += 1;
        }
        Writer {
            origin,
            walk,
            stream,
            ended: false,
        }
    }

    /// Whose state it is.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether the last block was handed out.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ended
    }

    /// Bytes of the blocks handed out so far.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.stream.blocks_bytes
    }

    /// The next block; `None` when the slice ended before, or when there is none.
    #[must_use]
    pub fn next_block(&mut self, keyspace: &Keyspace, steps: &mut Steps) -> Option<Block> {
        if self.ended {
            return None;
        }
        let stream = &mut self.stream;
        if !stream.has_block() && !self.walk.is_done() {
            self.walk.run(keyspace, steps, &mut |version| {
                stream.add(|bytes| write_version(&version, bytes));
                stream.end.versions += 1;
                if stream.has_block() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            if self.walk.is_done() {
                stream.end.checksum = stream.checksum.finish();
                write_end(&stream.end, &mut stream.bytes);
            }
        }
        let rest = stream.waiting().len();
        let is_last = self.walk.is_done() && rest <= BLOCK_BODY_BYTES;
        if !is_last && !stream.has_block() {
            return None;
        }
        steps.take_many(Steps::of_bytes(rest.min(BLOCK_BODY_BYTES)));
        self.ended = is_last;
        Some(stream.take_block(is_last))
    }

    /// Whether it is this that keeps reclaim from going on: nothing else is pinned below it.
    #[must_use]
    pub fn is_pinned_lowest(&self, keyspace: &mut Keyspace) -> bool {
        self.walk.is_pinned_lowest(keyspace)
    }

    /// Lets reclaim follow where this has come.
    pub fn let_go(&mut self, keyspace: &mut Keyspace) {
        self.walk.let_go(keyspace);
    }
}
