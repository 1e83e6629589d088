//! Evicted blobs that somebody holds a hard link to: their bytes are still on the disk.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub struct Graves(Mutex<Vec<Grave>>);

struct Grave {
    path: PathBuf,
    size: u64,
}

impl Grave {
    /// Whether nobody else has a link to the file, or it is gone.
    fn is_last(&self) -> bool {
        self.path.symlink_metadata().map_or(true, |metadata| metadata.nlink() <= 1)
    }
}

impl Grave {
    /// Returns the bytes that this frees.
    fn free(self) -> u64 {
        // A file that stays is found by the next start, which empties the directory.
        let _ = std::fs::remove_file(&self.path);
        self.size
    }
}

impl Graves {
    fn graves(&self) -> MutexGuard<'_, Vec<Grave>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the file of an evicted blob. Returns the bytes that are free at once.
    pub fn dig(&self, path: PathBuf, size: u64) -> u64 {
        let grave = Grave { path, size };
        if grave.is_last() {
            return grave.free();
        }
        self.graves().push(grave);
        0
    }

    /// Removes the files whose last other link has gone. Returns the bytes that are free now.
    pub fn bury(&self) -> u64 {
        let last: Vec<_> = self.graves().extract_if(.., |grave| grave.is_last()).collect();
        last.into_iter().map(Grave::free).sum()
    }
}
