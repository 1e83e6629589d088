//! The mark of a clean close: a file that exists from a clean close of the log until its next start.

use std::path::Path;

use crate::error::StoreError;

const CLEAN_MARK: &str = "clean";

/// Says that the log was closed cleanly.
pub fn set_mark(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(CLEAN_MARK);
    std::fs::write(&path, b"")
        .map_err(|error| StoreError::io(format!("write {}", path.display()), error))
}

/// Whether the log was closed cleanly. Removes the mark: a log in use that ends in a crash must not look clean.
pub fn take_mark(dir: &Path) -> bool {
    std::fs::remove_file(dir.join(CLEAN_MARK)).is_ok()
}
