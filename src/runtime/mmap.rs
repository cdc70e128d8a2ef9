//! A log segment mapped into memory, and what happens when its disk dies under it.
//!
//! Owns the unsafe side of the mapped log. A mapping has one owner, the core of its shard; nothing
//! else in this process maps or truncates the file, and the data directory's lock keeps other
//! processes of ours away. The pages are locked in memory, because a fault on the write path would stop
//! the core for milliseconds. Reading a page back that the disk has lost raises SIGBUS: a handler says so and ends
//! the process.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

/// A segment could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file is not as long as a segment must be.
    #[error("{}: the file has {found} bytes, a log segment has {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// The kernel refused.
    #[error("{}: cannot map the log segment: {source}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The pages could not be locked in memory: the member works, but a page that the kernel evicted costs a
/// fault on the write path.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: cannot lock {size_bytes} bytes of the log in memory: {source}; the mapped log wants \
     LimitMEMLOCK=infinity (systemd) or --ulimit memlock=-1 (containers)",
    path.display()
)]
pub struct LockRefused {
    path: PathBuf,
    size_bytes: usize,
    source: io::Error,
}

/// One segment, mapped shared and writable.
#[derive(Debug)]
pub struct MappedSegment {
    map: MmapRaw,
    path: PathBuf,
}

impl MappedSegment {
    /// Maps all of `file`, which must be exactly `size_bytes` long and already written in full: a store
    /// into a hole would need space that the disk may not have.
    ///
    /// # Errors
    /// [`MapError`] with the file and the cause.
    pub fn map(path: &Path, file: &File, size_bytes: u64) -> Result<MappedSegment, MapError> {
        let refused = |source| MapError::Refused {
            path: path.to_owned(),
            source,
        };
        let found = file.metadata().map_err(refused)?.len();
        let length =
            usize::try_from(size_bytes).map_err(|_| refused(io::ErrorKind::InvalidInput.into()))?;
        if found != size_bytes {
            return Err(MapError::Size {
                path: path.to_owned(),
                found,
                expected: size_bytes,
            });
        }
        let map = MmapOptions::new()
            .len(length)
            .map_raw(file)
            .map_err(refused)?;
        // Read-ahead of a fault would freeze the core for a whole window.
        map.advise(Advice::Random).map_err(refused)?;
        Ok(MappedSegment {
            map,
            path: path.to_owned(),
        })
    }

    /// Locks the pages in memory, which also makes them present.
    ///
    /// # Errors
    /// [`LockRefused`]: a warning with its remedy, the segment works without.
    pub fn lock(&self) -> Result<(), LockRefused> {
        self.map.lock().map_err(|source| LockRefused {
            path: self.path.clone(),
            size_bytes: self.map.len(),
            source,
        })
    }

    /// Copies `bytes` to `offset`. The caller keeps the rule of the write path: no sync of this
    /// segment is in flight, and no page is written twice.
    pub fn copy_in(&mut self, offset: u64, bytes: &[u8]) {
        let range = self.checked(offset, bytes.len());
        // SAFETY: `checked` puts the range inside the mapping, which lives as long as `self`. `bytes` is
        // ordinary memory and cannot overlap it: slices of the mapping are handed out by `read` only,
        // borrow `self`, and this takes `&mut self`.
        unsafe {
            let destination = self.map.as_mut_ptr().add(range.start);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), destination, bytes.len());
        }
    }

    /// The bytes at `offset`, as the page cache has them: for followers that lag a little, never for
    /// recovery, which must see the disk.
    #[must_use]
    pub fn read(&self, offset: u64, length: usize) -> &[u8] {
        let range = self.checked(offset, length);
        // SAFETY: `checked` puts the range inside the mapping, which lives as long as the returned borrow.
        // Nothing stores to it meanwhile: `copy_in` takes `&mut self`, and no other mapping or
        // writer of the file exists (data directory lock, one owner core).
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(range.start), range.len()) }
    }

    /// The file's size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.map.len()
    }

    /// The segment's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn checked(&self, offset: u64, length: usize) -> Range<usize> {
        let size = self.map.len();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        assert!(
            start <= size && length <= size - start,
            "{length} bytes at {offset} are outside a segment of {size}"
        );
        start..start + length
    }
}

/// The text the handler writes, made beforehand: a signal handler must not allocate.
static SIGBUS_TEXT: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static SIGBUS_TEXT_LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Makes a failing page of a mapped file under `log_directory` end the process with one clear line
/// instead of a bare "Bus error". Once, at start.
///
/// # Errors
/// The kernel's answer.
pub fn install_sigbus_handler(log_directory: &Path) -> io::Result<()> {
    let text = format!(
        "kontiki: fatal: SIGBUS: a mapped log file under {} could not be read or written: the disk failed, \
         is full, or the file was truncated; nothing was acknowledged that was not durable\n",
        log_directory.display()
    );
    // Never freed: the handler may run until the process is gone.
    let text: &'static mut [u8] = Box::leak(text.into_bytes().into_boxed_slice());
    SIGBUS_TEXT_LENGTH.store(text.len(), Ordering::Relaxed);
    SIGBUS_TEXT.store(text.as_mut_ptr(), Ordering::Release);
    // SAFETY: a zeroed `sigaction` is valid (no flags, empty mask after `sigemptyset`); the handler is an
    // `extern "C"` function of the right signature that calls only async-signal-safe functions.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int) = on_sigbus;
        action.sa_sigaction = handler as libc::sighandler_t;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn on_sigbus(_signal: libc::c_int) {
    let text = SIGBUS_TEXT.load(Ordering::Acquire);
    let length = SIGBUS_TEXT_LENGTH.load(Ordering::Relaxed);
    // SAFETY: `write` and `_exit` are async-signal-safe. The text was leaked before the handler was
    // installed and its length stored before its pointer, so pointer and length name valid memory.
    unsafe {
        libc::write(libc::STDERR_FILENO, text.cast(), length);
        libc::_exit(super::fatal::EXIT_CODE_FATAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 10;

    fn segment() -> (tempfile::NamedTempFile, MappedSegment) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), vec![0; SIZE as usize]).expect("written");
        let handle = File::options()
            .read(true)
            .write(true)
            .open(file.path())
            .expect("opened");
        let map = MappedSegment::map(file.path(), &handle, SIZE).expect("mapped");
        (file, map)
    }

    /// Goal: what is copied in is read back, through the mapping and through the file.
    #[test]
    fn copies_are_shared() {
        let (file, mut map) = segment();
        map.lock().expect("a few pages may be locked");
        map.copy_in(4_096, b"commit");
        map.copy_in(SIZE - 1, b"x");
        assert_eq!(map.read(4_095, 8), b"\0commit\0");
        let on_file = std::fs::read(file.path()).expect("read");
        assert_eq!(&on_file[4_096..4_102], b"commit");
        assert_eq!(on_file[SIZE as usize - 1], b'x');
        assert!(map.read(SIZE, 0).is_empty());
    }

    /// Goal: a store past the end is caught before it happens, also when the sum would overflow.
    #[test]
    fn bounds() {
        for (offset, length) in [
            (SIZE, 1),
            (SIZE - 1, 2),
            (u64::MAX, 1),
            (0, SIZE as usize + 1),
        ] {
            let outcome = std::panic::catch_unwind(|| {
                let (_file, mut map) = segment();
                map.copy_in(offset, &vec![0; length]);
            });
            assert!(outcome.is_err(), "{length} bytes at {offset}");
        }
    }

    /// Goal: a file of another length is refused with both numbers.
    #[test]
    fn wrong_size() {
        let (file, _map) = segment();
        let handle = File::open(file.path()).expect("opened");
        let error = MappedSegment::map(file.path(), &handle, SIZE * 2).expect_err("too short");
        assert!(
            error
                .to_string()
                .contains("16384 bytes, a log segment has 32768"),
            "{error}"
        );
    }
}
