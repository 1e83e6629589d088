//! The data directory belongs to one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::StoreError;

const LOCK_FILE: &str = "lock";

/// Holds the lock until dropped. The kernel releases it when the process dies.
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Creates `dir` if it is absent.
    pub fn acquire(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir)
            .map_err(|error| StoreError::io(format!("create {}", dir.display()), error))?;
        let path = dir.join(LOCK_FILE);
        let failed = |error| StoreError::io(format!("lock {}", path.display()), error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(dir, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn in_use(dir: &Path, file: &mut File) -> StoreError {
    let mut holder = String::new();
    // The holder is a courtesy: without it the message is still right.
    let _ = file.read_to_string(&mut holder);
    let holder = match holder.trim() {
        "" => "another process".to_owned(),
        id => format!("process {id}"),
    };
    StoreError::invalid(format!(
        "data directory {} is in use by {holder}; stop it, or choose another --data-dir",
        dir.display()
    ))
}
