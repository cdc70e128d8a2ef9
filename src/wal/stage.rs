//! Records that wait for the disk, in page-aligned memory that is used again and again.
//!
//! Owns the staging buffers and their bound, and decides which records share a commit. Must never
//! decide where a commit goes: that is the appender. Records are encoded straight into the buffer that
//! is later copied to the disk; nothing is stored into a mapped page before its commit.

use std::collections::VecDeque;
use std::ops::Range;

use crate::base::limits::{
    PAGE_SIZE_BYTES, SHARD_STAGED_BYTES_MAX, SHARD_STAGED_RESERVE_BYTES,
    STAGING_BUFFER_KEPT_BYTES_MAX, STAGING_BUFFERS_KEPT_MAX,
};
use crate::base::{Index, Term};
use crate::frame::{
    Body, EncodeError, Encoder, PageBuffer, RECORD_HEADER_BYTES, Record, RecordKind,
};
use crate::wal::record::COMMIT_HEADER_BYTES;
use crate::wal::retain::Extent;
use crate::wal::segment::Geometry;

/// Everything staged, oldest first, and the memory for it.
pub(crate) struct Staging {
    geometry: Geometry,
    encoder: Encoder,
    batches: VecDeque<Batch>,
    /// Bytes of all batches and of the commit in flight.
    size_bytes: u64,
    spare_buffers: Vec<PageBuffer>,
}

/// Records that will be one commit.
pub(crate) struct Batch {
    /// Room for the commit header, then the records.
    pub(crate) buffer: PageBuffer,
    pub(crate) record_count: u32,
    pub(crate) extent: Extent,
    /// Last index of the log after these records.
    pub(crate) placed_index: Index,
    /// The same, lowered by records that were staged later: what becomes durable with this batch and
    /// still counts.
    pub(crate) durable_index: Index,
    pub(crate) is_seal: bool,
}

impl Staging {
    pub(crate) fn new(geometry: Geometry) -> Staging {
        Staging {
            geometry,
            encoder: Encoder::new(geometry.entry_size_bytes_max()),
            batches: VecDeque::new(),
            size_bytes: 0,
            spare_buffers: Vec::new(),
        }
    }

    /// Encodes an entry into the last batch, or into a new one. Returns where in the batch.
    pub(crate) fn entry<T: Body>(
        &mut self,
        term: Term,
        index: Index,
        body: &T,
    ) -> Result<Range<usize>, StageError> {
        self.check_room()?;
        self.open(Index(index.0 - 1));
        let batch = self.batches.back_mut().expect("one is open");
        match self.encoder.entry(term, index, body, &mut batch.buffer) {
            Ok(range) => {
                self.size_bytes += range.len() as u64;
                batch.add_entry(index);
                Ok(range)
            }
            Err(error) => {
                self.drop_empty();
                Err(error.into())
            }
        }
    }

    /// Copies an entry that another member encoded.
    pub(crate) fn record(&mut self, record: &Record<'_>) -> Result<Range<usize>, StageError> {
        let limit = self.geometry.entry_size_bytes_max();
        if u64::from(record.header.length) > limit {
            let limit_bytes = usize::try_from(limit).expect("a limit fits in an address");
            return Err(StageError::Encode(EncodeError::TooLarge { limit_bytes }));
        }
        self.check_room()?;
        let index = record.header.index;
        let batch = self.open(Index(index.0 - 1));
        let start = batch.buffer.len();
        batch.buffer.extend_from_slice(record.bytes);
        let range = start..batch.buffer.len();
        batch.add_entry(index);
        self.size_bytes += range.len() as u64;
        Ok(range)
    }

    /// Whether [`Self::record`] would take records of these sizes one after the other, and leave the reserve.
    /// Each counts as if it began a batch.
    pub(crate) fn has_room_for(&self, record_sizes: impl IntoIterator<Item = usize>) -> bool {
        // Records are padded, and so is the largest one.
        let largest = RECORD_HEADER_BYTES as u64 + self.geometry.entry_size_bytes_max();
        let mut room = SHARD_STAGED_BYTES_MAX
            .saturating_sub(SHARD_STAGED_RESERVE_BYTES)
            .saturating_sub(self.size_bytes);
        record_sizes.into_iter().all(|size| {
            let size = size as u64;
            let fits = size <= largest && size + COMMIT_HEADER_BYTES as u64 <= room;
            if fits {
                room -= size + COMMIT_HEADER_BYTES as u64;
            }
            fits
        })
    }

    /// Voids every entry above `after`, staged ones included.
    pub(crate) fn truncate(&mut self, term: Term, after: Index) -> Result<(), StageError> {
        self.check_room()?;
        for batch in &mut self.batches {
            batch.durable_index = after.min(batch.durable_index);
        }
        let batch = self.open(after);
        let lowest = batch
            .extent
            .cut_after
            .map_or(after, |lowest| lowest.min(after));
        batch.extent.cut_after = Some(lowest);
        self.size_bytes += batch.mark(RecordKind::Truncate, term, after, after);
        Ok(())
    }

    /// Notes a checkpoint at `index`, in a log that ends at `last_index`.
    pub(crate) fn checkpoint(
        &mut self,
        term: Term,
        index: Index,
        last_index: Index,
    ) -> Result<(), StageError> {
        self.check_room()?;
        let batch = self.open(last_index);
        self.size_bytes += batch.mark(RecordKind::Checkpoint, term, index, last_index);
        Ok(())
    }

    /// Begins anew after a checkpoint at `index`: a mark beyond the end of the log. With `cut_after`, entries
    /// that are void are cut off before.
    pub(crate) fn base(
        &mut self,
        leader: Term,
        cut_after: Option<Index>,
        term: Term,
        index: Index,
    ) -> Result<(), StageError> {
        self.check_room()?;
        if let Some(after) = cut_after {
            self.truncate(leader, after)?;
        }
        let batch = self.open(index);
        // So that nothing behind the mark is looked for before it.
        batch.extent.cut_after.get_or_insert(index);
        self.size_bytes += batch.mark(RecordKind::Checkpoint, term, index, index);
        Ok(())
    }

    /// A seal, in a batch of its own.
    pub(crate) fn seal(&mut self, term: Term, last_index: Index) {
        let mut batch = self.new_batch(last_index);
        batch.is_seal = true;
        self.size_bytes += batch.mark(RecordKind::Seal, term, last_index, last_index);
        self.batches.push_back(batch);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(crate) fn batch_count(&self) -> usize {
        self.batches.len()
    }

    /// Bytes staged or in flight.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Bytes of the records of the oldest batch.
    pub(crate) fn first_body_length(&self) -> Option<usize> {
        self.batches
            .front()
            .map(|batch| batch.buffer.len() - COMMIT_HEADER_BYTES)
    }

    /// Bytes `range` of a batch, counted from the oldest.
    pub(crate) fn bytes(&self, batch: usize, range: &Range<usize>) -> Option<&[u8]> {
        self.batches.get(batch)?.buffer.get(range.clone())
    }

    /// The oldest batch; one without records, in a log that ends at `last_index`, when none is staged.
    pub(crate) fn take(&mut self, last_index: Index) -> Batch {
        match self.batches.pop_front() {
            Some(batch) => batch,
            None => self.new_batch(last_index),
        }
    }

    /// A batch of `size_bytes` is durable, and its buffer free.
    pub(crate) fn give_back(&mut self, buffer: PageBuffer, size_bytes: u64) {
        self.size_bytes -= size_bytes;
        self.keep_buffer(buffer);
    }

    fn check_room(&self) -> Result<(), StageError> {
        if self.size_bytes >= SHARD_STAGED_BYTES_MAX {
            return Err(StageError::Full {
                staged_bytes: self.size_bytes,
            });
        }
        Ok(())
    }

    /// The last batch, a new one unless the last takes another record. It stays where it is: a batch is
    /// larger than some records.
    fn open(&mut self, last_index: Index) -> &mut Batch {
        let soft = self.geometry.commit_size_soft_bytes();
        let open = |batch: &Batch| (batch.buffer.len() as u64) < soft && !batch.is_seal;
        if !self.batches.back().is_some_and(open) {
            let batch = self.new_batch(last_index);
            self.batches.push_back(batch);
        }
        self.batches.back_mut().expect("there is one now")
    }

    /// Takes back a batch that was opened for a record that could not be encoded.
    fn drop_empty(&mut self) {
        if let Some(batch) = self.batches.pop_back_if(|batch| batch.record_count == 0) {
            self.give_back(batch.buffer, COMMIT_HEADER_BYTES as u64);
        }
    }

    fn new_batch(&mut self, last_index: Index) -> Batch {
        let capacity = self.geometry.commit_size_soft_bytes() + 2 * PAGE_SIZE_BYTES;
        let capacity = usize::try_from(capacity).expect("a batch fits in memory");
        let spare = self.spare_buffers.pop();
        let mut buffer = spare.unwrap_or_else(|| PageBuffer::with_capacity(capacity));
        buffer.clear();
        buffer.resize(COMMIT_HEADER_BYTES, 0);
        self.size_bytes += COMMIT_HEADER_BYTES as u64;
        Batch {
            buffer,
            record_count: 0,
            extent: Extent::default(),
            placed_index: last_index,
            durable_index: last_index,
            is_seal: false,
        }
    }

    fn keep_buffer(&mut self, buffer: PageBuffer) {
        let keep = self.spare_buffers.len() < STAGING_BUFFERS_KEPT_MAX
            && buffer.capacity() <= STAGING_BUFFER_KEPT_BYTES_MAX;
        if keep {
            self.spare_buffers.push(buffer);
        }
    }
}

impl Batch {
    fn add_entry(&mut self, index: Index) {
        self.record_count += 1;
        let lowest = self
            .extent
            .first_index
            .map_or(index, |lowest| lowest.min(index));
        self.extent.first_index = Some(lowest);
        self.placed_index = index;
        self.durable_index = index;
    }

    /// Adds a record without a body, in a log that ends at `last_index`; returns its size in bytes.
    fn mark(&mut self, kind: RecordKind, term: Term, index: Index, last_index: Index) -> u64 {
        let range = Encoder::mark(kind, term, index, &mut self.buffer);
        self.record_count += 1;
        self.placed_index = last_index;
        self.durable_index = last_index;
        range.len() as u64
    }
}

/// Why a record was not staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// Too much waits for the disk: try again after the next completion.
    #[error("{staged_bytes} bytes wait for the disk, the limit is {SHARD_STAGED_BYTES_MAX}")]
    Full {
        /// Bytes staged and in flight.
        staged_bytes: u64,
    },
    /// The body cannot be an entry.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}
