//! Files that are not durable yet.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::names::failed;
use crate::error::StoreError;

/// More unsynced files than this are made durable by one `syncfs`.
const MAX_SINGLE_SYNCS: usize = 32;

#[derive(Default)]
pub struct Unsynced(Mutex<Vec<PathBuf>>);

impl Unsynced {
    fn paths(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&self, path: PathBuf) {
        // One too many stands for all that follow: `syncfs` covers them.
        let mut paths = self.paths();
        if paths.len() <= MAX_SINGLE_SYNCS {
            paths.push(path);
        }
    }

    /// Whether no file is noted. While a sync goes on, those that it has taken are none.
    pub fn is_empty(&self) -> bool {
        self.paths().is_empty()
    }

    /// Makes all files that were noted durable, and their names below `dir`. Blocks.
    pub fn sync(&self, dir: &Path) -> Result<(), StoreError> {
        let paths = std::mem::take(&mut *self.paths());
        let result = sync(dir, &paths);
        if result.is_err() {
            self.paths().extend(paths);
        }
        result
    }
}

fn sync(dir: &Path, paths: &[PathBuf]) -> Result<(), StoreError> {
    if paths.is_empty() {
        return Ok(());
    }
    if paths.len() > MAX_SINGLE_SYNCS {
        let all = File::open(dir).map_err(|error| failed("open", dir, error))?;
        return nix::unistd::syncfs(&all).map_err(|error| failed("sync", dir, error.into()));
    }
    let mut directories: Vec<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    directories.sort_unstable();
    directories.dedup();
    // The directories may be new themselves.
    directories.push(dir);
    let files = paths.iter().map(PathBuf::as_path);
    for path in files.chain(directories) {
        match File::open(path).and_then(|file| file.sync_all()) {
            // Evicted since: nothing to keep.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(|error| failed("sync", path, error))?,
        }
    }
    Ok(())
}
