//! Files of evicted blobs whose bytes are still on the disk: somebody has a hard link to them, or they could not
//! be removed.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_net::causes::chain;

#[derive(Default)]
pub struct EvictedFiles(Mutex<Vec<EvictedFile>>);

struct EvictedFile {
    path: PathBuf,
    size: u64,
}

impl EvictedFile {
    /// Whether nobody else has a link to the file, or it is gone.
    fn is_last(&self) -> bool {
        self.path.symlink_metadata().map_or(true, |metadata| metadata.nlink() <= 1)
    }

    /// Removes the file unless somebody else has a link to it. `false`: its bytes are still on the disk.
    fn remove(&self) -> bool {
        if !self.is_last() {
            return false;
        }
        match std::fs::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, error = %chain(&error), "could not remove a file");
                false
            }
        }
    }
}

impl EvictedFiles {
    fn files(&self) -> MutexGuard<'_, Vec<EvictedFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the file of an evicted blob of `size` bytes, now or in a later [`EvictedFiles::retry`]. Returns the
    /// bytes that are free at once.
    pub fn remove(&self, path: PathBuf, size: u64) -> u64 {
        let file = EvictedFile { path, size };
        if file.remove() {
            return size;
        }
        self.files().push(file);
        0
    }

    /// Removes the files whose last other link has gone, and tries again with those that could not be
    /// removed. Returns the bytes that are free now.
    pub fn retry(&self) -> u64 {
        let files = std::mem::take(&mut *self.files());
        let (removed, left): (Vec<_>, Vec<_>) = files.into_iter().partition(EvictedFile::remove);
        self.files().extend(left);
        removed.iter().map(|file| file.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_stays_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let evicted = EvictedFiles::default();
        let file = dir.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let path = file.join("evicted");
        let link = dir.path().join("link");
        let shared = dir.path().join("shared");
        std::fs::write(&shared, "bytes").unwrap();
        std::fs::hard_link(&shared, &link).unwrap();
        assert_eq!((evicted.remove(path.clone(), 7), evicted.remove(shared.clone(), 5)), (0, 0));
        assert_eq!(evicted.retry(), 0);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(evicted.retry(), 7);
        std::fs::remove_file(&link).unwrap();
        assert_eq!((evicted.retry(), shared.exists()), (5, false));
    }
}
