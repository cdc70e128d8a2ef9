//! The file `begun` in a log's directory: the log has a segment, or had one.
//!
//! Without it, a log whose files are all gone would be taken for one that never began, and a member that has voted and
//! acknowledged would do both again. The mark is made when the first segment has its name, durably, and before anything
//! is written there that a promise could rest on: so a first start that is killed anywhere leaves no mark without a
//! segment. Runs on a thread beside the cores, and at start.

use std::path::Path;

use super::directory::{DirectoryError, explain, replace_file};

const FILE: &str = "begun";

/// Says durably that the log in `log_directory` has a segment.
///
/// # Errors
/// [`DirectoryError`].
pub fn mark(log_directory: &Path) -> Result<(), DirectoryError> {
    if is_marked(log_directory)? {
        return Ok(());
    }
    replace_file(&log_directory.join(FILE), b"")
}

/// Whether that was ever said.
///
/// # Errors
/// [`DirectoryError`].
pub fn is_marked(log_directory: &Path) -> Result<bool, DirectoryError> {
    let path = log_directory.join(FILE);
    path.try_exists()
        .map_err(|source| explain(&path, "look for the file", source))
}
