//! Snapshots of commits in files.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_ci::impact::Snapshot;

/// Snapshots that are kept, those that were used last.
const MOST: usize = 50;

pub struct Kept {
    directory: PathBuf,
}

/// Held while a work tree is used: two of these commands would change it under each other.
pub struct Turn {
    file: File,
}

impl Turn {
    /// A second handle on the turn for a program that writes the tree: the turn lasts until that
    /// has ended, too.
    pub fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Kept {
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    pub fn work_tree(&self) -> PathBuf {
        self.directory.join("tree")
    }

    /// Waits until nobody else uses the work tree. Blocks.
    pub fn turn(&self) -> io::Result<Turn> {
        let path = self.directory.join("lock");
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.lock()?;
        Ok(Turn { file })
    }

    fn path(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.json"))
    }

    /// Loads a snapshot; `None`: it is not there, or of another version, or damaged.
    pub fn load(&self, key: &str) -> Option<Snapshot> {
        let path = self.path(key);
        let snapshot = Snapshot::from_json(&fs::read(&path).ok()?)?;
        // What is used stays; where the directory is read-only nothing goes either.
        let _ = File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        Some(snapshot)
    }

    /// Stores a snapshot, as a whole or not at all.
    pub fn store(&self, key: &str, snapshot: &Snapshot) -> io::Result<()> {
        let json = serde_json::to_vec(snapshot)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(&json)?;
        file.persist(self.path(key)).map_err(|error| error.error)?;
        self.forget_old()
    }

    fn forget_old(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new("json")) {
                found.push((fs::metadata(&path)?.modified()?, path));
            }
        }
        found.sort_unstable();
        let old = found.len().saturating_sub(MOST);
        found.iter().take(old).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use kiln_ci::impact::Graph;

    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_damage_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(&dir.path().join("a b/c")).unwrap();
        let snapshot = Snapshot::new(&Graph::default(), BTreeMap::new(), &HashMap::new());
        for number in 0..MOST + 5 {
            kept.store(&number.to_string(), &snapshot).unwrap();
        }
        let left = |number: usize| kept.load(&number.to_string()).is_some();
        assert_eq!((0..MOST + 5).filter(|number| left(*number)).count(), MOST);
        assert!(left(MOST + 4));
        fs::write(kept.path("54"), "{\"format\":").unwrap();
        assert!(!left(54));
    }
}
