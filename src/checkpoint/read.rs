//! From blocks back to the state.
//!
//! Nothing is believed before it was checked: a block's checksum first, then the form of each item, then
//! whether it can follow what came before, and in the end the counts and the checksum over everything.
//! Whatever the bytes are, memory stays below what the blocks themselves hold, plus one item.

use crate::base::checksum::Crc32c;
use crate::base::limits::{
    CHECKPOINT_ROW_BYTES_MAX, CHECKPOINT_ROWS_BYTES_MAX, ENTRY_SIZE_BYTES_MAX, KIB,
};
use crate::base::{ClusterId, ShardId};
use crate::checkpoint::format::{
    End, FORMAT_VERSION, HeaderError, Item, ItemError, Origin, Row, STREAM_HEADER_BYTES,
    open_block, parse_header, parse_item,
};
use crate::keyspace::Keyspace;
use crate::keyspace::state::{StateBuilder, StateError};

/// The largest item: a key and a value that came in one entry, and the item's head.
const ITEM_BYTES_MAX: usize = (ENTRY_SIZE_BYTES_MAX + KIB) as usize;
const _: () = assert!(CHECKPOINT_ROW_BYTES_MAX < ITEM_BYTES_MAX);

/// Why bytes are not a checkpoint, or not the one that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A block that is cut, damaged or in the wrong place.
    #[error("block {ordinal} is damaged or not block {ordinal}")]
    Block {
        /// The block that should be there, counted from zero.
        ordinal: u32,
    },
    /// The blocks do not begin like a checkpoint.
    #[error("this is not a checkpoint")]
    NotOne,
    /// A checkpoint of another format.
    #[error("checkpoint format version {version}; this program reads version {FORMAT_VERSION}")]
    Version {
        /// The version found.
        version: u32,
    },
    /// The checkpoint of another cluster or shard.
    #[error(
        "the checkpoint belongs to cluster {cluster}, shard {shard}, not to cluster \
         {expected_cluster}, shard {expected_shard}"
    )]
    Foreign {
        /// Its cluster.
        cluster: ClusterId,
        /// Its shard.
        shard: ShardId,
        /// This cluster.
        expected_cluster: ClusterId,
        /// This shard.
        expected_shard: ShardId,
    },
    /// An item of a kind without a meaning.
    #[error("an item of kind {kind}")]
    Kind {
        /// The kind found.
        kind: u8,
    },
    /// An item, or all rows together, larger than what is ever written.
    #[error("{size_bytes} bytes in one item or table")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// An item where it cannot be: a row after a version, or anything after the end.
    #[error("the items are out of order")]
    ItemOrder,
    /// The versions are not those of a keyspace.
    #[error(transparent)]
    State(#[from] StateError),
    /// The counts or the checksum at the end do not hold.
    #[error("the checkpoint does not hold what its end says")]
    End,
    /// There is no end.
    #[error("the checkpoint is cut off after block {ordinal}")]
    Cut {
        /// Blocks that are there.
        ordinal: u32,
    },
}

/// A checkpoint that was read whole, and holds.
#[derive(Debug)]
pub struct Restored {
    /// Whose state it is, and when it was.
    pub origin: Origin,
    /// The tables without versions.
    pub rows: Vec<Row>,
    /// The keyspace, committed at its index.
    pub keyspace: Keyspace,
    /// Bytes of the blocks.
    pub size_bytes: u64,
}

/// A checkpoint being read: [`Self::push`] for every block in order, then [`Self::finish`].
pub struct Reader {
    cluster: ClusterId,
    shard: ShardId,
    next_ordinal: u32,
    size_bytes: u64,
    /// The stream as far as no item was made of it.
    stream: Vec<u8>,
    checksum: Crc32c,
    counted: End,
    rows: Vec<Row>,
    rows_bytes: usize,
    state: Option<(Origin, StateBuilder)>,
    ended: bool,
    last_seen: bool,
}

impl Reader {
    /// Reads a checkpoint of this cluster and shard.
    #[must_use]
    pub fn new(cluster: ClusterId, shard: ShardId) -> Reader {
        Reader {
            cluster,
            shard,
            next_ordinal: 0,
            size_bytes: 0,
            stream: Vec::new(),
            checksum: Crc32c::new(),
            counted: End::default(),
            rows: Vec::new(),
            rows_bytes: 0,
            state: None,
            ended: false,
            last_seen: false,
        }
    }

    /// Whose state it is, once the first block was read.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.state.as_ref().map(|(origin, _)| origin)
    }

    /// How many blocks were read: the ordinal of the next one.
    #[must_use]
    pub fn next_ordinal(&self) -> u32 {
        self.next_ordinal
    }

    /// Whether the last block was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.last_seen
    }

    /// Reads the next block.
    ///
    /// # Errors
    /// [`CheckpointError`]; the reader is of no use then. A block that does not hold changes nothing: the
    /// right one may be given instead.
    pub fn push(&mut self, block: &[u8]) -> Result<(), CheckpointError> {
        let ordinal = self.next_ordinal;
        let (header, body) = open_block(block)
            .filter(|(header, _)| header.ordinal == ordinal && !self.last_seen)
            .ok_or(CheckpointError::Block { ordinal })?;
        self.next_ordinal = ordinal.checked_add(1).ok_or(CheckpointError::End)?;
        self.size_bytes += block.len() as u64;
        self.last_seen = header.last;
        self.stream.extend_from_slice(body);
        let mut stream = std::mem::take(&mut self.stream);
        let taken = self.take_items(&stream)?;
        stream.drain(..taken);
        self.stream = stream;
        Ok(())
    }

    /// The state.
    ///
    /// # Errors
    /// [`CheckpointError`] when blocks are missing, or what they hold is not what the end says.
    pub fn finish(self) -> Result<Restored, CheckpointError> {
        let cut = CheckpointError::Cut {
            ordinal: self.next_ordinal,
        };
        let (origin, state) = self.state.ok_or(cut)?;
        if !self.ended || !self.last_seen {
            return Err(cut);
        }
        Ok(Restored {
            origin,
            rows: self.rows,
            keyspace: state.finish()?,
            size_bytes: self.size_bytes,
        })
    }

    /// The part of the state that was read, for whoever frees it; it is of no other use.
    #[must_use]
    pub fn abandon(self) -> Option<Keyspace> {
        self.state.map(|(_, state)| state.abandon())
    }

    /// Takes what is whole from the front of the stream; how many bytes that is.
    fn take_items(&mut self, stream: &[u8]) -> Result<usize, CheckpointError> {
        let mut taken = 0;
        if self.state.is_none() {
            if stream.len() < STREAM_HEADER_BYTES {
                return Ok(0);
            }
            let origin = self.check_header(stream)?;
            self.checksum.update(&stream[..STREAM_HEADER_BYTES]);
            self.state = Some((origin, StateBuilder::new(origin.mark)?));
            taken = STREAM_HEADER_BYTES;
        }
        loop {
            let rest = &stream[taken..];
            let parsed = parse_item(rest, ITEM_BYTES_MAX).map_err(|error| match error {
                ItemError::Kind(kind) => CheckpointError::Kind { kind },
                ItemError::TooLarge(size_bytes) => CheckpointError::TooLarge { size_bytes },
            })?;
            let Some((item, size)) = parsed else {
                return Ok(taken);
            };
            self.take_item(&item)?;
            self.checksum.update(&rest[..size]);
            taken += size;
        }
    }

    fn check_header(&self, stream: &[u8]) -> Result<Origin, CheckpointError> {
        let origin = parse_origin(stream)?;
        if (origin.cluster, origin.shard) != (self.cluster, self.shard) {
            return Err(CheckpointError::Foreign {
                cluster: origin.cluster,
                shard: origin.shard,
                expected_cluster: self.cluster,
                expected_shard: self.shard,
            });
        }
        Ok(origin)
    }

    fn take_item(&mut self, item: &Item<'_>) -> Result<(), CheckpointError> {
        let (_, state) = self.state.as_mut().expect("the header was read before");
        if self.ended {
            return Err(CheckpointError::ItemOrder);
        }
        match item {
            Item::Row { table, bytes } => {
                if self.counted.versions > 0 {
                    return Err(CheckpointError::ItemOrder);
                }
                self.rows_bytes += bytes.len() + size_of::<Row>();
                if bytes.len() > CHECKPOINT_ROW_BYTES_MAX
                    || self.rows_bytes > CHECKPOINT_ROWS_BYTES_MAX
                {
                    let size_bytes = self.rows_bytes;
                    return Err(CheckpointError::TooLarge { size_bytes });
                }
                self.counted.rows += 1;
                self.rows.push(Row {
                    table: *table,
                    bytes: bytes.to_vec(),
                });
            }
            Item::Version(version) => {
                self.counted.versions += 1;
                state.push(version)?;
            }
            Item::End(end) => {
                self.counted.checksum = self.checksum.finish();
                if *end != self.counted {
                    return Err(CheckpointError::End);
                }
                self.ended = true;
            }
        }
        Ok(())
    }
}

/// What the first block of a checkpoint says of it, without the rest.
///
/// # Errors
/// [`CheckpointError`] when it is not the first block of one.
pub fn read_header(first_block: &[u8]) -> Result<Origin, CheckpointError> {
    let (_, body) = open_block(first_block)
        .filter(|(header, body)| header.ordinal == 0 && body.len() >= STREAM_HEADER_BYTES)
        .ok_or(CheckpointError::Block { ordinal: 0 })?;
    parse_origin(body)
}

fn parse_origin(stream: &[u8]) -> Result<Origin, CheckpointError> {
    parse_header(stream).map_err(|error| match error {
        HeaderError::NotOne => CheckpointError::NotOne,
        HeaderError::Version(version) => CheckpointError::Version { version },
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::base::prng::Prng;
    use crate::base::{Index, Term};
    use crate::checkpoint::format::{BLOCK_BODY_BYTES, BLOCK_HEADER_BYTES, seal_block};
    use crate::checkpoint::write::{Block, Writer};
    use crate::keyspace::effects::Effect;
    use crate::keyspace::fold::FoldJob;
    use crate::keyspace::state::StateWalk;
    use crate::keyspace::steps::Steps;

    const CLUSTER: ClusterId = ClusterId(0xc1);
    const SHARD: ShardId = ShardId(2);

    fn put(key: &'static [u8], value: &'static [u8], lease: i64) -> Effect {
        Effect::Put {
            key: Bytes::from_static(key),
            value: Bytes::from_static(value),
            lease,
        }
    }

    /// A base version, a tombstone at the floor, a transaction, a lease, a deletion and a new life.
    fn written() -> Vec<Block> {
        let delete = |key: &'static [u8]| Effect::DeleteRange {
            key: Bytes::from_static(key),
            range_end: Bytes::new(),
        };
        let entries = [
            vec![put(b"base", b"1", 0), put(b"gone", b"", 0)],
            vec![delete(b"gone")],
            vec![put(b"a", b"one", 7), put(b"b", b"two", 0)],
            vec![Effect::Compact { revision: 3 }],
            vec![delete(b"a")],
            vec![put(b"a", b"again", 0)],
        ];
        let mut keyspace = Keyspace::new();
        for (effects, index) in entries.iter().zip(1..) {
            let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(effects).expect("memory suffices");
            let archived = rkyv::access::<rkyv::Archived<Vec<Effect>>, rkyv::rancor::Error>(&bytes);
            let folded = FoldJob::replay(&mut keyspace, Index(index)).run(
                &mut keyspace,
                archived.expect("just archived"),
                &mut Steps::new(1_000),
            );
            assert!(folded.is_some());
            keyspace.commit(Index(index));
        }
        let walk = StateWalk::new(&mut keyspace);
        let origin = Origin {
            cluster: CLUSTER,
            shard: SHARD,
            term: Term(5),
            mark: walk.mark(),
        };
        let row = Row {
            table: 1,
            bytes: b"row".to_vec(),
        };
        let mut writer = Writer::new(origin, walk, &[row]);
        let mut blocks = Vec::new();
        while !writer.is_done() {
            blocks.extend(writer.next_block(&keyspace, &mut Steps::new(3)));
        }
        blocks
    }

    /// Goal: the layout is frozen, byte for byte.
    #[test]
    fn golden_bytes() {
        let blocks = written();
        assert_eq!(blocks.len(), 1);
        let lines = blocks[0].bytes.chunks(16).map(|line| {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            hex.join(" ") + "\n"
        });
        assert_eq!(
            lines.collect::<String>(),
            include_str!("checkpoint-v1.golden")
        );
    }

    /// Goal: the first block alone says what the checkpoint is.
    #[test]
    fn header() {
        let blocks = written();
        let origin = read_header(&blocks[0].bytes).expect("a header");
        assert_eq!(
            (origin.cluster, origin.shard, origin.term),
            (CLUSTER, SHARD, Term(5))
        );
        assert_eq!(origin.mark.index, Index(6));
        assert_eq!((origin.mark.revision, origin.mark.floor), (6, 3));
        assert_eq!(read_header(&[]), Err(CheckpointError::Block { ordinal: 0 }));
    }

    fn read(stream: &[u8]) -> Result<Restored, CheckpointError> {
        let mut reader = Reader::new(CLUSTER, SHARD);
        let count = stream.len().div_ceil(BLOCK_BODY_BYTES);
        for (body, ordinal) in stream.chunks(BLOCK_BODY_BYTES).zip(0..) {
            let mut block = vec![0; BLOCK_HEADER_BYTES];
            block.extend_from_slice(body);
            seal_block(&mut block, ordinal, ordinal as usize + 1 == count);
            reader.push(&block)?;
        }
        reader.finish()
    }

    /// Goal: a stream whose blocks hold but whose items do not, flipped, cut, repeated or random, is
    /// refused or is a state; never a panic, and no claimed length is believed.
    #[test]
    fn hostile_streams() {
        let good = written()[0].bytes[BLOCK_HEADER_BYTES..].to_vec();
        assert!(read(&good).is_ok());
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
        }
        let mut prng = Prng::from_seed(1);
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..=prng.below(3) {
                let at = prng.below(bad.len() as u64) as usize;
                match prng.below(4) {
                    0 => bad[at] = prng.next_u64() as u8,
                    1 => bad[at..].fill(0xff),
                    2 => {
                        let to = at + prng.below((bad.len() - at) as u64) as usize;
                        let piece = bad[at..to].to_vec();
                        bad.splice(at..at, piece);
                    }
                    _ => {
                        let end = bad.len().min(at + 1 + prng.below(80) as usize);
                        bad.drain(at..end);
                        bad.push(0);
                    }
                }
            }
            if bad != good {
                let _judged = read(&bad);
            }
        }
    }
}
