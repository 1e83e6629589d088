//! Evicted blobs whose bytes are still on the disk: somebody holds a hard link to them, or they could not be
//! removed.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_net::causes::chain;

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

    /// Removes the file unless somebody else has a link to it. `false`: its bytes are still on the disk.
    fn fill(&self) -> bool {
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

impl Graves {
    fn graves(&self) -> MutexGuard<'_, Vec<Grave>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the file of an evicted blob. Returns the bytes that are free at once.
    pub fn dig(&self, path: PathBuf, size: u64) -> u64 {
        let grave = Grave { path, size };
        if grave.fill() {
            return size;
        }
        self.graves().push(grave);
        0
    }

    /// Removes the files whose last other link has gone, and tries again with those that could not be
    /// removed. Returns the bytes that are free now.
    pub fn bury(&self) -> u64 {
        let graves = std::mem::take(&mut *self.graves());
        let (filled, open): (Vec<_>, Vec<_>) = graves.into_iter().partition(Grave::fill);
        self.graves().extend(open);
        filled.iter().map(|grave| grave.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_stays_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let graves = Graves::default();
        let file = dir.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let path = file.join("grave");
        let link = dir.path().join("link");
        let shared = dir.path().join("shared");
        std::fs::write(&shared, "bytes").unwrap();
        std::fs::hard_link(&shared, &link).unwrap();
        assert_eq!((graves.dig(path.clone(), 7), graves.dig(shared.clone(), 5)), (0, 0));
        assert_eq!(graves.bury(), 0);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(graves.bury(), 7);
        std::fs::remove_file(&link).unwrap();
        assert_eq!((graves.bury(), shared.exists()), (5, false));
    }
}
