//! Checkpoints of a keyspace: what is read back is what was committed, and bytes that are not a
//! checkpoint are refused.

use bytes::Bytes;
use kontiki::base::limits::CHECKPOINT_BLOCK_BYTES;
use kontiki::base::{ClusterId, LeaseId, ShardId, Term};
use kontiki::checkpoint::{Block, CheckpointError, Origin, Reader, Restored, Row, Writer};
use kontiki::keyspace::Keyspace;
use kontiki::keyspace::request::{KeyRange, PutRequest, RangeRequest};
use kontiki::keyspace::state::StateWalk;
use kontiki::keyspace::steps::Steps;

use super::rig::{Rig, Write};

const CLUSTER: ClusterId = ClusterId(0x0102_0304_0506_0708);
const SHARD: ShardId = ShardId(3);

/// A checkpoint that is being written.
pub(crate) struct Checkpointed {
    writer: Writer,
    pub(crate) blocks: Vec<Block>,
}

impl Checkpointed {
    pub(crate) fn begin(rig: &mut Rig) -> Checkpointed {
        let walk = StateWalk::new(&mut rig.keyspace);
        let origin = Origin {
            cluster: CLUSTER,
            shard: SHARD,
            term: Term(4),
            mark: walk.mark(),
        };
        let rows = [
            Row {
                table: 1,
                bytes: b"members".to_vec(),
            },
            Row {
                table: 7,
                bytes: Vec::new(),
            },
        ];
        Checkpointed {
            writer: Writer::new(origin, walk, &rows),
            blocks: Vec::new(),
        }
    }

    /// Goes on for one slice; whether it is whole.
    pub(crate) fn run(&mut self, rig: &mut Rig, steps: usize) -> bool {
        let mut steps = Steps::new(steps);
        while !steps.spent() && !self.writer.is_done() {
            self.blocks
                .extend(self.writer.next_block(&rig.keyspace, &mut steps));
        }
        self.writer.let_go(&mut rig.keyspace);
        self.writer.is_done()
    }

    pub(crate) fn read(&self) -> Keyspace {
        let restored = read(self.blocks.iter().map(|block| block.bytes.as_ref()));
        let restored = restored.expect("what was written is read");
        assert_eq!(restored.origin, *self.writer.origin());
        assert_eq!(restored.rows.len(), 2);
        assert_eq!(restored.rows[0].bytes, b"members");
        restored.keyspace
    }
}

fn read<'a>(blocks: impl Iterator<Item = &'a [u8]>) -> Result<Restored, CheckpointError> {
    let mut reader = Reader::new(CLUSTER, SHARD);
    for block in blocks {
        reader.push(block)?;
    }
    reader.finish()
}

fn put(rig: &mut Rig, key: String, value: Bytes) {
    let put = PutRequest {
        key: Bytes::from(key),
        value,
        lease: LeaseId(0),
        ..PutRequest::default()
    };
    rig.write(Write::Put(put)).expect("a put");
    let index = rig.keyspace.folded_index();
    rig.keyspace.commit(index);
}

/// A keyspace with values around the size of a block, compacted in the middle.
fn filled() -> Rig {
    let mut rig = Rig::new(1 << 40);
    let block = CHECKPOINT_BLOCK_BYTES;
    let sizes = [0, 1, block - 120, block, 3 * block + 5, 17, block / 2];
    for number in 0..40 {
        let value = Bytes::from(vec![number as u8; sizes[number % sizes.len()]]);
        put(&mut rig, format!("key {:03}", number % 25), value);
    }
    rig.write(Write::Compact(20)).expect("a revision");
    let index = rig.keyspace.folded_index();
    rig.keyspace.commit(index);
    rig
}

fn contents(rig: &mut Rig, revision: i64) -> Vec<(Bytes, Bytes)> {
    let range = KeyRange {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
    };
    let request = RangeRequest {
        range,
        revision,
        ..RangeRequest::default()
    };
    let answer = rig.range(request).expect("readable").response;
    answer
        .kvs
        .into_iter()
        .map(|kv| (kv.key, kv.value))
        .collect()
}

/// Goal: items that begin in one block and end in another are whole again; all blocks but the last are
/// full; what is written while the checkpoint is taken, and reclaimed after it began, changes nothing.
#[test]
fn many_blocks() {
    let mut rig = filled();
    let expected: Vec<_> = (20..=41).map(|at| contents(&mut rig, at)).collect();
    let mut checkpoint = Checkpointed::begin(&mut rig);
    let mut number = 0;
    while !checkpoint.run(&mut rig, 3) {
        number += 1;
        put(&mut rig, format!("key {:03}", number % 30), Bytes::new());
        if number % 5 == 0 {
            let revision = rig.keyspace.committed_revision();
            rig.write(Write::Compact(revision)).expect("a revision");
            let index = rig.keyspace.folded_index();
            rig.keyspace.commit(index);
        }
        let _more = rig.keyspace.reclaim(&mut Steps::new(1_000));
    }
    assert!(number > 20, "it takes many slices");
    for (at, block) in checkpoint.blocks.iter().enumerate() {
        assert_eq!(block.offset(), (at * CHECKPOINT_BLOCK_BYTES) as u64);
        let is_last = at + 1 == checkpoint.blocks.len();
        assert_eq!(block.is_last, is_last);
        assert!(is_last || block.bytes.len() == CHECKPOINT_BLOCK_BYTES);
    }
    let mut restored = Rig::new(1 << 40);
    restored.keyspace = checkpoint.read();
    assert_eq!(restored.keyspace.committed_revision(), 41);
    for (expected, at) in expected.iter().zip(20..) {
        assert_eq!(contents(&mut restored, at), *expected, "revision {at}");
    }
    drop(checkpoint);
    rig.reclaim_all();
    assert_eq!(
        rig.keyspace.reclaimed_through(),
        rig.keyspace.compacted_revision(),
        "reclaim goes on when the checkpoint is done"
    );
}

/// Goal: while a checkpoint is written, reclaim follows it through the history, and what the checkpoint shows stays
/// the same.
#[test]
fn reclaim_follows() {
    let mut rig = filled();
    let mut checkpoint = Checkpointed::begin(&mut rig);
    let (whole, revision) = (blocks(), rig.keyspace.committed_revision());
    rig.write(Write::Compact(revision)).expect("a revision");
    let index = rig.keyspace.folded_index();
    rig.keyspace.commit(index);
    let mut through = Vec::new();
    while !checkpoint.run(&mut rig, 3) {
        rig.reclaim_all();
        through.push(rig.keyspace.reclaimed_through());
    }
    assert_eq!(through[0], 20, "the base is read at the old floor");
    through.dedup();
    assert!(through.len() > 10, "reclaim came to {through:?}");
    let bytes = |block: &Block| block.bytes.to_vec();
    assert_eq!(
        checkpoint.blocks.iter().map(bytes).collect::<Vec<_>>(),
        whole
    );
    rig.reclaim_all();
    assert_eq!(rig.keyspace.reclaimed_through(), revision);
}

fn blocks() -> Vec<Vec<u8>> {
    let mut rig = filled();
    let mut checkpoint = Checkpointed::begin(&mut rig);
    while !checkpoint.run(&mut rig, 1_000) {}
    let blocks = checkpoint.blocks.iter();
    blocks.map(|block| block.bytes.to_vec()).collect()
}

/// Goal: no damaged, missing, repeated, swapped or foreign block is taken for the right one.
#[test]
fn damage_is_refused() {
    let good = blocks();
    let try_read = |blocks: &[Vec<u8>]| read(blocks.iter().map(Vec::as_slice)).err();
    assert_eq!(try_read(&good), None);
    for at in 0..good.len() {
        let ordinal = at as u32;
        let mut bad = good.clone();
        let middle = bad[at].len() / 2;
        bad[at][middle] ^= 4;
        assert_eq!(try_read(&bad), Some(CheckpointError::Block { ordinal }));
        let mut bad = good.clone();
        bad[at].pop();
        assert_eq!(try_read(&bad), Some(CheckpointError::Block { ordinal }));
        let mut bad = good.clone();
        bad.remove(at);
        let cut = at + 1 == good.len();
        let expected = if cut {
            CheckpointError::Cut { ordinal }
        } else {
            CheckpointError::Block { ordinal }
        };
        assert_eq!(try_read(&bad), Some(expected));
        let mut bad = good.clone();
        bad.insert(at, good[at].clone());
        let ordinal = ordinal + 1;
        assert_eq!(try_read(&bad), Some(CheckpointError::Block { ordinal }));
    }
    let mut elsewhere = Reader::new(ClusterId(9), SHARD);
    assert!(matches!(
        elsewhere.push(&good[0]),
        Err(CheckpointError::Foreign { .. })
    ));
    let mut reader = Reader::new(CLUSTER, SHARD);
    let mut damaged = good[0].clone();
    damaged[100] ^= 1;
    assert!(reader.push(&damaged).is_err());
    for block in &good {
        reader
            .push(block)
            .expect("the right block after a wrong one");
    }
    assert!(reader.finish().is_ok());
    // A block of another checkpoint, in its own right place.
    let mut rig = filled();
    put(&mut rig, "key 000".into(), Bytes::from_static(b"other"));
    let mut other = Checkpointed::begin(&mut rig);
    while !other.run(&mut rig, 1_000) {}
    for at in 1..good.len().min(other.blocks.len()) {
        let mut mixed = good.clone();
        mixed[at] = other.blocks[at].bytes.to_vec();
        assert!(
            mixed == good || try_read(&mixed).is_some(),
            "block {at} of another checkpoint"
        );
    }
}
