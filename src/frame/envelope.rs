//! The body of an entry: any rkyv archive, encoded straight into a caller's buffer and never copied
//! again, and read in place after both checks, checksum and structure.
//!
//! The checksum says "this is what was written", the structure check says "it is safe to read". Both
//! are always made. Bodies are structs and enums of fixed-size integers, `bool`, `Vec` and `Option`;
//! shared pointers and maps do not compile here, on purpose.

use std::num::NonZeroUsize;
use std::ops::Range;

use rkyv::api::access_with_context;
use rkyv::api::low::{LowSerializer, LowValidator, to_bytes_in_with_alloc};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::ser::{Positional, Writer};
use rkyv::util::AlignedVec;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::{Archive, Portable, Serialize};

use crate::base::limits::{ENCODER_SCRATCH_BYTES_MAX, ENTRY_SIZE_BYTES_MAX};
use crate::base::{Index, Term};
use crate::frame::header::{
    RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, RECORD_VERSION, RecordHeader, RecordKind,
};

/// Growing bytes that begin at a page boundary in memory.
pub type PageBuffer = AlignedVec<4096>;

/// How deep archived structures may nest. Bounds the stack that hostile bytes can use.
const ARCHIVE_DEPTH_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// What can be the body of an entry. Implemented by every `#[derive(rkyv::Archive, rkyv::Serialize)]`
/// type within the subset the module describes.
pub trait Body: for<'a> Serialize<LowSerializer<BodyWriter<'a>, ArenaHandle<'a>, Failure>> {}

impl<T> Body for T where
    T: for<'a> Serialize<LowSerializer<BodyWriter<'a>, ArenaHandle<'a>, Failure>>
{
}

/// What an archived body must be for [`access`]. Implemented by the archived form of every type that
/// derives `Archive` with bytecheck.
pub trait ArchivedBody: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>> {}

impl<T> ArchivedBody for T where T: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>> {}

/// Encodes archives. Keeps its scratch memory from one to the next.
pub(crate) struct Archiver {
    arena: Arena,
}

impl Archiver {
    pub(crate) fn new() -> Archiver {
        Archiver {
            arena: Arena::new(),
        }
    }

    /// Appends the archive of `body`, of at most `size_bytes_max`, to `buffer` and returns its length.
    /// On an error `buffer` is as it was.
    pub(crate) fn append<T: Body>(
        &mut self,
        body: &T,
        size_bytes_max: usize,
        buffer: &mut PageBuffer,
    ) -> Result<usize, EncodeError> {
        let start = buffer.len();
        let mut too_large = false;
        let writer = BodyWriter {
            start,
            size_bytes_max,
            too_large: &mut too_large,
            buffer,
        };
        let result =
            to_bytes_in_with_alloc::<_, _, Failure>(body, writer, self.arena.acquire()).map(drop);
        if self.arena.capacity() > ENCODER_SCRATCH_BYTES_MAX {
            self.arena = Arena::new();
        }
        match result {
            Ok(()) if buffer.len() > start => Ok(buffer.len() - start),
            Ok(()) => Err(EncodeError::Empty),
            Err(Failure) => {
                buffer.resize(start, 0);
                Err(if too_large {
                    EncodeError::TooLarge {
                        limit_bytes: size_bytes_max,
                    }
                } else {
                    EncodeError::Body
                })
            }
        }
    }
}

/// Encodes records. Keeps its scratch memory from one record to the next.
pub struct Encoder {
    archiver: Archiver,
    size_bytes_max: usize,
}

impl Encoder {
    /// An encoder that refuses archives above `size_bytes_max`, itself at most [`ENTRY_SIZE_BYTES_MAX`].
    #[must_use]
    pub fn new(size_bytes_max: u64) -> Encoder {
        let size_bytes_max = size_bytes_max.min(ENTRY_SIZE_BYTES_MAX);
        Encoder {
            archiver: Archiver::new(),
            size_bytes_max: usize::try_from(size_bytes_max).expect("a limit fits in an address"),
        }
    }

    /// Appends the entry (`term`, `index`, `body`) to `buffer`: header, archive, padding. Returns where
    /// it lies. On an error `buffer` is as it was.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] when the archive is above the limit.
    pub fn entry<T: Body>(
        &mut self,
        term: Term,
        index: Index,
        body: &T,
        buffer: &mut PageBuffer,
    ) -> Result<Range<usize>, EncodeError> {
        let start = buffer.len();
        buffer.resize(start + RECORD_HEADER_BYTES, 0);
        let length = self
            .archiver
            .append(body, self.size_bytes_max, buffer)
            .inspect_err(|_| buffer.resize(start, 0))?;
        let length = u32::try_from(length).expect("the limit of an entry is below 4 GiB");
        let header = RecordHeader {
            kind: RecordKind::Entry,
            version: RECORD_VERSION,
            length,
            term,
            index,
        };
        header.write(&mut buffer[start..]);
        Ok(pad(start, buffer))
    }

    /// Appends a record without a body. Returns where it lies.
    ///
    /// # Panics
    /// If `kind` is an entry, which has a body.
    pub fn mark(
        kind: RecordKind,
        term: Term,
        index: Index,
        buffer: &mut PageBuffer,
    ) -> Range<usize> {
        assert_ne!(kind, RecordKind::Entry, "an entry has a body");
        let start = buffer.len();
        buffer.resize(start + RECORD_HEADER_BYTES, 0);
        let header = RecordHeader {
            kind,
            version: RECORD_VERSION,
            length: 0,
            term,
            index,
        };
        header.write(&mut buffer[start..]);
        pad(start, buffer)
    }
}

fn pad(start: usize, buffer: &mut PageBuffer) -> Range<usize> {
    let size = (buffer.len() - start).next_multiple_of(RECORD_ALIGN_BYTES);
    buffer.resize(start + size, 0);
    start..start + size
}

/// Where the archive of a body goes: the end of the caller's buffer, up to the limit. Only this module
/// makes one; it is public because it appears in the bounds of [`Body`].
pub struct BodyWriter<'a> {
    buffer: &'a mut PageBuffer,
    start: usize,
    size_bytes_max: usize,
    too_large: &'a mut bool,
}

impl Positional for BodyWriter<'_> {
    fn pos(&self) -> usize {
        self.buffer.len() - self.start
    }
}

impl Writer<Failure> for BodyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.len() > self.size_bytes_max - self.pos() {
            *self.too_large = true;
            return Err(Failure);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads the archive of a `T` in place.
///
/// # Errors
/// When the bytes are not a valid archive of a `T`; never a panic, whatever the bytes are.
pub fn access<T>(body: &[u8]) -> Result<&T::Archived, AccessError>
where
    T: Archive,
    T::Archived: ArchivedBody,
{
    // The structure check would look for the root in front of the slice otherwise.
    if body.len() < size_of::<T::Archived>() {
        return Err(AccessError { length: body.len() });
    }
    let validator = ArchiveValidator::with_max_depth(body, Some(ARCHIVE_DEPTH_MAX));
    let mut context = Validator::new(validator, ());
    access_with_context::<T::Archived, _, Failure>(body, &mut context)
        .map_err(|Failure| AccessError { length: body.len() })
}

/// Why a body was not encoded. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The archive would be larger than the log, or a connection, accepts.
    #[error("the entry is larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The body's type has no bytes at all; an entry must have some.
    #[error("the body of an entry is empty")]
    Empty,
    /// The body's own serialisation failed.
    #[error("the body of an entry cannot be encoded")]
    Body,
}

/// A body that is not a valid archive of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry body of {length} bytes is not a valid archive")]
pub struct AccessError {
    /// Bytes of the body.
    pub length: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::header::Record;

    #[derive(rkyv::Archive, rkyv::Serialize, Debug, PartialEq)]
    struct Sample {
        number: u64,
        values: Vec<Vec<u8>>,
        flag: Option<bool>,
    }

    fn sample(size: usize) -> Sample {
        Sample {
            number: 7,
            values: vec![vec![1; size], vec![2; 3]],
            flag: Some(true),
        }
    }

    /// Goal: what is encoded is read back in place, one record after another in the same buffer.
    #[test]
    fn encode_then_access() {
        let mut buffer = PageBuffer::new();
        let mut encoder = Encoder::new(ENTRY_SIZE_BYTES_MAX);
        for index in 1..=3 {
            let size = usize::try_from(index).expect("small") * 100;
            let range = encoder
                .entry(Term(2), Index(index), &sample(size), &mut buffer)
                .expect("fits");
            assert!(range.start.is_multiple_of(RECORD_ALIGN_BYTES));
        }
        Encoder::mark(RecordKind::Truncate, Term(3), Index(2), &mut buffer);
        let mut rest = buffer.as_slice();
        for index in 1..=3 {
            let (record, after) = Record::parse(rest).expect("valid");
            let archived = access::<Sample>(record.body).expect("valid");
            assert_eq!(
                (record.header.index, archived.number.to_native()),
                (Index(index), 7)
            );
            assert_eq!(archived.values[0].len() as u64, index * 100);
            rest = after;
        }
        let (record, after) = Record::parse(rest).expect("valid");
        assert_eq!(
            (record.header.kind, record.body.len(), after.len()),
            (RecordKind::Truncate, 0, 0)
        );
    }

    /// Goal: the same body gives the same bytes wherever in a buffer it is encoded.
    #[test]
    fn bytes_do_not_depend_on_position() {
        let mut encoder = Encoder::new(ENTRY_SIZE_BYTES_MAX);
        let mut buffer = PageBuffer::new();
        let first = encoder
            .entry(Term(1), Index(1), &sample(33), &mut buffer)
            .expect("fits");
        let second = encoder
            .entry(Term(1), Index(1), &sample(33), &mut buffer)
            .expect("fits");
        assert_eq!(&buffer[first], &buffer[second]);
    }

    /// Goal: the limit is exact, and a refused body leaves the buffer as it was.
    #[test]
    fn too_large_leaves_no_trace() {
        let mut buffer = PageBuffer::new();
        let mut exact = Encoder::new(ENTRY_SIZE_BYTES_MAX);
        let range = exact
            .entry(Term(1), Index(1), &sample(1000), &mut buffer)
            .expect("fits");
        let (record, _) = Record::parse(&buffer[range.clone()]).expect("valid");
        let length = record.body.len();
        let mut fits = Encoder::new(length as u64);
        assert!(
            fits.entry(Term(1), Index(2), &sample(1000), &mut buffer)
                .is_ok()
        );
        let before = buffer.to_vec();
        let mut refuses = Encoder::new(length as u64 - 1);
        let error = refuses
            .entry(Term(1), Index(3), &sample(1000), &mut buffer)
            .expect_err("too large");
        assert_eq!(
            error,
            EncodeError::TooLarge {
                limit_bytes: length - 1
            }
        );
        assert_eq!(buffer.as_slice(), before);
    }

    /// Goal: no flipped, cut or random bytes make the structure check panic or read outside.
    #[test]
    fn hostile_archives_are_errors_or_values() {
        let mut buffer = PageBuffer::new();
        let range = Encoder::new(ENTRY_SIZE_BYTES_MAX)
            .entry(Term(1), Index(1), &sample(40), &mut buffer)
            .expect("fits");
        let (record, _) = Record::parse(&buffer[range]).expect("valid");
        let walk = |bytes: &[u8]| {
            if let Ok(archived) = access::<Sample>(bytes) {
                assert!(
                    archived
                        .values
                        .iter()
                        .map(|value| value.len())
                        .sum::<usize>()
                        <= bytes.len()
                );
            }
        };
        for cut in 0..record.body.len() {
            walk(&record.body[cut..]);
            walk(&record.body[..cut]);
        }
        let mut bytes = record.body.to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            walk(&bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
