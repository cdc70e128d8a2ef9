//! Reading files past the page cache, and making what was recovered durable.
//!
//! Owns reads of sealed segments, in recovery and later. They go to the disk itself: after a failed sync
//! the page cache shows bytes that are not there, and a page that is read through a mapping stops the core.

use std::io;
use std::path::{Path, PathBuf};

use glommio::io::{BufferedFile, DmaFile};

use crate::base::limits::MIB;

/// Bytes of one read: large enough for the disk's full speed, small beside a core's memory.
const READ_BYTES: u64 = MIB;

/// A file could not be read or synced.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {action}: {source}", path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What was tried.
    pub action: &'static str,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Reads the whole file into `buffer`, which is cleared first, with direct I/O; on a file system without it,
/// after the cache of the file was dropped.
///
/// # Errors
/// [`ReadError`].
pub async fn read_file(path: &Path, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
    buffer.clear();
    match DmaFile::open(path).await {
        Ok(file) => read_direct(path, file, buffer).await,
        Err(error) if io_error(&error) == io::ErrorKind::InvalidInput => {
            read_uncached(path, buffer).await
        }
        Err(error) => Err(explain(path, "open the file", error)),
    }
}

async fn read_direct(path: &Path, file: DmaFile, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
    let size = file
        .file_size()
        .await
        .map_err(|error| explain(path, "measure the file", error))?;
    while (buffer.len() as u64) < size {
        let offset = buffer.len() as u64;
        let length = usize::try_from(READ_BYTES.min(size - offset)).expect("at most a mebibyte");
        let piece = file
            .read_at(offset, length)
            .await
            .map_err(|error| explain(path, "read the file", error))?;
        take_piece(path, &piece, buffer)?;
    }
    let _ = file.close().await;
    Ok(())
}

async fn read_uncached(path: &Path, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
    let plain = |action| {
        move |source| ReadError {
            path: path.to_owned(),
            action,
            source,
        }
    };
    let handle = std::fs::File::open(path).map_err(plain("open the file"))?;
    let size = handle.metadata().map_err(plain("measure the file"))?.len();
    rustix::fs::fadvise(&handle, 0, None, rustix::fs::Advice::DontNeed)
        .map_err(|errno| plain("drop the cache of the file")(errno.into()))?;
    let file = BufferedFile::open(path)
        .await
        .map_err(|error| explain(path, "open the file", error))?;
    while (buffer.len() as u64) < size {
        let offset = buffer.len() as u64;
        let length = usize::try_from(READ_BYTES.min(size - offset)).expect("at most a mebibyte");
        let piece = file
            .read_at(offset, length)
            .await
            .map_err(|error| explain(path, "read the file", error))?;
        take_piece(path, &piece, buffer)?;
    }
    let _ = file.close().await;
    Ok(())
}

/// Reads `size` bytes at `offset`, fewer where the file ends, through the page cache: what a mapping of the
/// file holds is seen, and nothing waits for the disk that was written lately.
///
/// # Errors
/// [`ReadError`].
pub async fn read_part(path: &Path, offset: u64, size: usize) -> Result<Vec<u8>, ReadError> {
    let file = BufferedFile::open(path)
        .await
        .map_err(|error| explain(path, "open the file", error))?;
    let mut bytes = Vec::new();
    while bytes.len() < size {
        let length = (size - bytes.len()).min(READ_BYTES as usize);
        let piece = file
            .read_at(offset + bytes.len() as u64, length)
            .await
            .map_err(|error| explain(path, "read the file", error))?;
        if piece.is_empty() {
            break;
        }
        bytes.extend_from_slice(&piece);
    }
    let _ = file.close().await;
    Ok(bytes)
}

/// A file that ends early was truncated while it was read.
fn take_piece(path: &Path, piece: &[u8], buffer: &mut Vec<u8>) -> Result<(), ReadError> {
    if piece.is_empty() {
        return Err(ReadError {
            path: path.to_owned(),
            action: "read the file",
            source: io::ErrorKind::UnexpectedEof.into(),
        });
    }
    buffer.extend_from_slice(piece);
    Ok(())
}

/// Makes everything written to the files durable, one after the other: the end of recovery, before which
/// no index counts as durable.
///
/// # Errors
/// [`ReadError`]: the caller ends the process, a failed sync is never tried again.
pub async fn sync_files(paths: &[PathBuf]) -> Result<(), ReadError> {
    for path in paths {
        let file = BufferedFile::open(path)
            .await
            .map_err(|error| explain(path, "open the file", error))?;
        file.fdatasync()
            .await
            .map_err(|error| explain(path, "sync the file", error))?;
        let _ = file.close().await;
    }
    Ok(())
}

fn explain(path: &Path, action: &'static str, error: glommio::GlommioError<()>) -> ReadError {
    ReadError {
        path: path.to_owned(),
        action,
        source: error.into(),
    }
}

fn io_error(error: &glommio::GlommioError<()>) -> io::ErrorKind {
    error.raw_os_error().map_or(io::ErrorKind::Other, |code| {
        io::Error::from_raw_os_error(code).kind()
    })
}
