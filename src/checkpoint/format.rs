//! The layout of blocks and of the stream in them, written once: here.
//!
//! All numbers are little-endian; bytes without a name are zero. Nothing in here decides whether what is
//! read makes sense: that is the reader.

use crate::base::checksum::crc32c;
use crate::base::limits::CHECKPOINT_BLOCK_BYTES;
use crate::base::{ClusterId, Index, ShardId, Term};
use crate::frame::fields::{put, u16_at, u32_at, u64_at};
use crate::keyspace::digest::Digest;
use crate::keyspace::revision::Revision;
use crate::keyspace::state::{StateMark, StateVersion};

/// The layout that this program writes and reads.
pub(super) const FORMAT_VERSION: u32 = 1;

// A block.

/// u32: CRC-32C of every byte after it, to the end of the block.
const BLOCK_CHECKSUM_OFFSET: usize = 0;
/// u32: bytes of the stream in this block.
const BLOCK_LENGTH_OFFSET: usize = 4;
/// u32: the block's place in the file, counted from zero.
const BLOCK_ORDINAL_OFFSET: usize = 8;
/// u32: one in the last block, else zero.
const BLOCK_LAST_OFFSET: usize = 12;
/// Bytes of a block's header.
pub(super) const BLOCK_HEADER_BYTES: usize = 16;
/// Bytes of the stream in a block, but for the last one, which may have fewer.
pub(super) const BLOCK_BODY_BYTES: usize = CHECKPOINT_BLOCK_BYTES - BLOCK_HEADER_BYTES;

// The stream begins with its header.

const MAGIC: [u8; 8] = *b"KTKCHKPT";
/// 8 bytes: [`MAGIC`].
const MAGIC_OFFSET: usize = 0;
/// u32: [`FORMAT_VERSION`] of the writer. Block headers, magic and version stay where they are for ever.
const VERSION_OFFSET: usize = 8;
/// u32: the shard.
const SHARD_OFFSET: usize = 12;
/// u64: the cluster.
const CLUSTER_OFFSET: usize = 16;
/// u64: the index.
const INDEX_OFFSET: usize = 24;
/// u64: the term of the entry at the index.
const TERM_OFFSET: usize = 32;
/// i64: main revision.
const REVISION_OFFSET: usize = 40;
/// i64: the compaction floor.
const FLOOR_OFFSET: usize = 48;
/// u64: the digest.
const DIGEST_OFFSET: usize = 56;
/// Bytes of the stream's header.
pub(super) const STREAM_HEADER_BYTES: usize = 64;

// Then items, each with a head. A head begins with the item's kind.

/// u8: what follows.
const KIND_OFFSET: usize = 0;
const KIND_ROW: u8 = 1;
const KIND_VERSION: u8 = 2;
const KIND_END: u8 = 3;

/// u16: the row's table.
const ROW_TABLE_OFFSET: usize = 2;
/// u32: bytes of the row, which follow the head.
const ROW_LENGTH_OFFSET: usize = 4;
const ROW_HEAD_BYTES: usize = 8;

/// u32: bytes of the key, which follows the head.
const KEY_LENGTH_OFFSET: usize = 4;
/// u32: bytes of the value, which follows the key.
const VALUE_LENGTH_OFFSET: usize = 8;
/// u32: sub revision.
const SUB_OFFSET: usize = 12;
/// i64: main revision.
const MAIN_OFFSET: usize = 16;
/// i64: main revision of the creation, zero in a tombstone.
const CREATE_OFFSET: usize = 24;
/// i64: puts since the creation, zero in a tombstone.
const COUNT_OFFSET: usize = 32;
/// i64: the lease.
const LEASE_OFFSET: usize = 40;
const VERSION_HEAD_BYTES: usize = 48;

/// u32: CRC-32C of the stream before this item.
const END_CHECKSUM_OFFSET: usize = 4;
/// u64: rows.
const END_ROWS_OFFSET: usize = 8;
/// u64: versions.
const END_VERSIONS_OFFSET: usize = 16;
const END_BYTES: usize = 24;

const _: () = assert!(DIGEST_OFFSET + 8 == STREAM_HEADER_BYTES);
const _: () = assert!(LEASE_OFFSET + 8 == VERSION_HEAD_BYTES);
const _: () = assert!(END_VERSIONS_OFFSET + 8 == END_BYTES);
const _: () = assert!(STREAM_HEADER_BYTES + END_BYTES < BLOCK_BODY_BYTES);

/// Which checkpoint: the state after the entry at an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckpointId {
    /// The index.
    pub index: Index,
    /// The term of the entry there.
    pub term: Term,
}

/// What the log of the member that has a checkpoint says about it. It is in the file's name: the bytes are the same
/// on every member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The member's own log led there durably before the file had its name. That it does not any more is damage.
    #[default]
    Log,
    /// Another member sent it, and the log here may end before it, or hold other entries.
    Member,
}

impl Source {
    fn prefix(self) -> &'static str {
        match self {
            Source::Log => "checkpoint-",
            Source::Member => "received-",
        }
    }
}

impl CheckpointId {
    /// The name of the file of the checkpoint at `index`: `checkpoint-` or `received-`, and sixteen hexadecimal
    /// digits.
    #[must_use]
    pub fn file_name(index: Index, source: Source) -> String {
        format!("{}{:016x}", source.prefix(), index.0)
    }

    /// The index a file name stands for, and where the file comes from; `None` when it is not exactly what
    /// [`Self::file_name`] gives.
    #[must_use]
    pub fn from_file_name(name: &str) -> Option<(Index, Source)> {
        let parse = |source: Source| {
            let digits = name.strip_prefix(source.prefix())?;
            let index = Index(u64::from_str_radix(digits, 16).ok()?);
            (CheckpointId::file_name(index, source) == name).then_some((index, source))
        };
        parse(Source::Log).or_else(|| parse(Source::Member))
    }
}

/// Whose state it is, and when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The cluster.
    pub cluster: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// The term of the entry at the index.
    pub term: Term,
    /// Where the keyspace stood.
    pub mark: StateMark,
}

impl Origin {
    /// Which checkpoint this is.
    #[must_use]
    pub fn id(&self) -> CheckpointId {
        CheckpointId {
            index: self.mark.index,
            term: self.term,
        }
    }
}

/// One row of a table that has no versions. What it says is the shard's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which table.
    pub table: u16,
    /// The row.
    pub bytes: Vec<u8>,
}

/// Writes a block's header in front of its body; `block` is both.
pub(super) fn seal_block(block: &mut [u8], ordinal: u32, last: bool) {
    let length = u32::try_from(block.len() - BLOCK_HEADER_BYTES).expect("a block is small");
    put(block, BLOCK_LENGTH_OFFSET, &length.to_le_bytes());
    put(block, BLOCK_ORDINAL_OFFSET, &ordinal.to_le_bytes());
    put(block, BLOCK_LAST_OFFSET, &u32::from(last).to_le_bytes());
    let checksum = crc32c(&block[BLOCK_LENGTH_OFFSET..]);
    put(block, BLOCK_CHECKSUM_OFFSET, &checksum.to_le_bytes());
}

/// What a block says of itself. Its checksum holds.
pub(super) struct BlockHeader {
    pub(super) ordinal: u32,
    pub(super) last: bool,
}

/// The header and the body of a block; `None` when it is not one, whole and undamaged.
pub(super) fn open_block(block: &[u8]) -> Option<(BlockHeader, &[u8])> {
    let body = block.get(BLOCK_HEADER_BYTES..)?;
    let checksum = crc32c(&block[BLOCK_LENGTH_OFFSET..]);
    let last = u32_at(block, BLOCK_LAST_OFFSET);
    let length = u32_at(block, BLOCK_LENGTH_OFFSET) as usize;
    let holds = checksum == u32_at(block, BLOCK_CHECKSUM_OFFSET)
        && length == body.len()
        && last <= 1
        && length <= BLOCK_BODY_BYTES
        && (last == 1 || length == BLOCK_BODY_BYTES);
    let header = BlockHeader {
        ordinal: u32_at(block, BLOCK_ORDINAL_OFFSET),
        last: last == 1,
    };
    holds.then_some((header, body))
}

pub(super) fn write_header(origin: &Origin, stream: &mut Vec<u8>) {
    let mut header = [0; STREAM_HEADER_BYTES];
    put(&mut header, MAGIC_OFFSET, &MAGIC);
    put(&mut header, VERSION_OFFSET, &FORMAT_VERSION.to_le_bytes());
    put(&mut header, SHARD_OFFSET, &origin.shard.0.to_le_bytes());
    put(&mut header, CLUSTER_OFFSET, &origin.cluster.0.to_le_bytes());
    put(
        &mut header,
        INDEX_OFFSET,
        &origin.mark.index.0.to_le_bytes(),
    );
    put(&mut header, TERM_OFFSET, &origin.term.0.to_le_bytes());
    put(
        &mut header,
        REVISION_OFFSET,
        &origin.mark.revision.to_le_bytes(),
    );
    put(&mut header, FLOOR_OFFSET, &origin.mark.floor.to_le_bytes());
    put(
        &mut header,
        DIGEST_OFFSET,
        &origin.mark.digest.0.to_le_bytes(),
    );
    stream.extend_from_slice(&header);
}

/// Why the beginning of a stream is not a header.
pub(super) enum HeaderError {
    NotOne,
    Version(u32),
}

/// Reads the header; `stream` has at least [`STREAM_HEADER_BYTES`].
pub(super) fn parse_header(stream: &[u8]) -> Result<Origin, HeaderError> {
    if stream[MAGIC_OFFSET..MAGIC_OFFSET + MAGIC.len()] != MAGIC {
        return Err(HeaderError::NotOne);
    }
    let version = u32_at(stream, VERSION_OFFSET);
    if version != FORMAT_VERSION {
        return Err(HeaderError::Version(version));
    }
    Ok(Origin {
        cluster: ClusterId(u64_at(stream, CLUSTER_OFFSET)),
        shard: ShardId(u32_at(stream, SHARD_OFFSET)),
        term: Term(u64_at(stream, TERM_OFFSET)),
        mark: StateMark {
            index: Index(u64_at(stream, INDEX_OFFSET)),
            revision: u64_at(stream, REVISION_OFFSET).cast_signed(),
            floor: u64_at(stream, FLOOR_OFFSET).cast_signed(),
            digest: Digest(u64_at(stream, DIGEST_OFFSET)),
        },
    })
}

pub(super) fn write_row(row: &Row, stream: &mut Vec<u8>) {
    let mut head = [0; ROW_HEAD_BYTES];
    head[KIND_OFFSET] = KIND_ROW;
    put(&mut head, ROW_TABLE_OFFSET, &row.table.to_le_bytes());
    put(&mut head, ROW_LENGTH_OFFSET, &length_of(&row.bytes));
    stream.extend_from_slice(&head);
    stream.extend_from_slice(&row.bytes);
}

pub(super) fn write_version(version: &StateVersion<'_>, stream: &mut Vec<u8>) {
    let mut head = [0; VERSION_HEAD_BYTES];
    head[KIND_OFFSET] = KIND_VERSION;
    put(&mut head, KEY_LENGTH_OFFSET, &length_of(version.key));
    put(&mut head, VALUE_LENGTH_OFFSET, &length_of(version.value));
    put(&mut head, SUB_OFFSET, &version.revision.sub.to_le_bytes());
    put(&mut head, MAIN_OFFSET, &version.revision.main.to_le_bytes());
    put(&mut head, CREATE_OFFSET, &version.create.to_le_bytes());
    put(&mut head, COUNT_OFFSET, &version.version.to_le_bytes());
    put(&mut head, LEASE_OFFSET, &version.lease.0.to_le_bytes());
    stream.extend_from_slice(&head);
    stream.extend_from_slice(version.key);
    stream.extend_from_slice(version.value);
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Of the stream before.
    pub(super) checksum: u32,
    pub(super) rows: u64,
    pub(super) versions: u64,
}

pub(super) fn write_end(end: &End, stream: &mut Vec<u8>) {
    let mut item = [0; END_BYTES];
    item[KIND_OFFSET] = KIND_END;
    put(&mut item, END_CHECKSUM_OFFSET, &end.checksum.to_le_bytes());
    put(&mut item, END_ROWS_OFFSET, &end.rows.to_le_bytes());
    put(&mut item, END_VERSIONS_OFFSET, &end.versions.to_le_bytes());
    stream.extend_from_slice(&item);
}

fn length_of(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len())
        .expect("keys, values and rows are far smaller than 4 GiB")
        .to_le_bytes()
}

/// An item of the stream.
pub(super) enum Item<'a> {
    Row { table: u16, bytes: &'a [u8] },
    Version(StateVersion<'a>),
    End(End),
}

/// The item at the start of `stream` and the bytes it takes. `Ok(None)` when more of the stream is needed;
/// the error is the kind that is not known. A claimed length is not believed beyond `size_bytes_max`.
pub(super) fn parse_item(
    stream: &[u8],
    size_bytes_max: usize,
) -> Result<Option<(Item<'_>, usize)>, ItemError> {
    let Some(&kind) = stream.first() else {
        return Ok(None);
    };
    let head_bytes = match kind {
        KIND_ROW => ROW_HEAD_BYTES,
        KIND_VERSION => VERSION_HEAD_BYTES,
        KIND_END => END_BYTES,
        unknown => return Err(ItemError::Kind(unknown)),
    };
    if stream.len() < head_bytes {
        return Ok(None);
    }
    let named = if kind == KIND_ROW {
        ROW_TABLE_OFFSET
    } else {
        KEY_LENGTH_OFFSET
    };
    if stream[KIND_OFFSET + 1..named].iter().any(|&byte| byte != 0) {
        return Err(ItemError::Kind(kind));
    }
    let length_at = |offset| u32_at(stream, offset) as usize;
    let (first, second) = match kind {
        KIND_ROW => (length_at(ROW_LENGTH_OFFSET), 0),
        KIND_VERSION => (length_at(KEY_LENGTH_OFFSET), length_at(VALUE_LENGTH_OFFSET)),
        _ => (0, 0),
    };
    let size = head_bytes.saturating_add(first).saturating_add(second);
    if size > size_bytes_max {
        return Err(ItemError::TooLarge(size));
    }
    if stream.len() < size {
        return Ok(None);
    }
    let (bytes, value) = stream[head_bytes..size].split_at(first);
    let number = |offset| u64_at(stream, offset).cast_signed();
    let item = match kind {
        KIND_ROW => Item::Row {
            table: u16_at(stream, ROW_TABLE_OFFSET),
            bytes,
        },
        KIND_VERSION => Item::Version(StateVersion {
            key: bytes,
            revision: Revision {
                main: number(MAIN_OFFSET),
                sub: u32_at(stream, SUB_OFFSET),
            },
            create: number(CREATE_OFFSET),
            version: number(COUNT_OFFSET),
            lease: crate::base::LeaseId(number(LEASE_OFFSET)),
            value,
        }),
        _ => Item::End(End {
            checksum: u32_at(stream, END_CHECKSUM_OFFSET),
            rows: u64_at(stream, END_ROWS_OFFSET),
            versions: u64_at(stream, END_VERSIONS_OFFSET),
        }),
    };
    Ok(Some((item, size)))
}

/// Why bytes are not an item.
pub(super) enum ItemError {
    Kind(u8),
    TooLarge(usize),
}
