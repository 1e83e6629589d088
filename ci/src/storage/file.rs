//! Records in one file that several processes share: small, and written as a whole by a rename. For what runs on one
//! machine without a server.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::frame::{open, seal};
use super::{Record, Records, StorageError, Write, check_keys};

const KIND: [u8; 4] = *b"KREC";
const VERSION: u32 = 1;
/// Most bytes of all records together.
const MAX_BYTES: usize = 256 << 20;

/// All records, as the file has them.
#[derive(Default, Serialize, Deserialize)]
struct All {
    /// The last version that was given.
    version: u64,
    records: BTreeMap<String, (u64, Vec<u8>)>,
}

/// Clones, and whoever opens the same file, share the records.
#[derive(Clone, Debug)]
pub struct FileRecords {
    path: PathBuf,
}

impl FileRecords {
    /// The file is made with the first write; its directory has to be there.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Path) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || act(&path)).await;
        done.unwrap_or_else(|error| Err(StorageError::Unavailable(error.to_string())))
    }
}

fn unavailable(path: &Path, error: &impl std::fmt::Display) -> StorageError {
    StorageError::Unavailable(format!("{}: {error}", path.display()))
}

/// Held while the file is read and written again. It is a file of its own: the other one is replaced.
fn lock(path: &Path) -> io::Result<File> {
    let lock = path.with_extension("lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock)?;
    file.lock()?;
    Ok(file)
}

fn read(path: &Path) -> Result<All, StorageError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(All::default()),
        Err(error) => return Err(unavailable(path, &error)),
    };
    let json = open(KIND, VERSION, &bytes, MAX_BYTES).map_err(|error| unavailable(path, &error))?;
    serde_json::from_slice(&json).map_err(|error| unavailable(path, &error))
}

/// Replaces the file as a whole: it is the old one or the new one, whenever the machine stops.
fn replace(path: &Path, all: &All) -> Result<(), StorageError> {
    let json = serde_json::to_vec(all).map_err(|error| unavailable(path, &error))?;
    let bytes = seal(KIND, VERSION, &json).map_err(|error| unavailable(path, &error))?;
    let new = path.with_extension("new");
    let written = || {
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |it| File::open(it)?.sync_all())
    };
    written().map_err(|error: io::Error| unavailable(path, &error))
}

impl All {
    fn apply(&mut self, writes: Vec<Write>) -> Result<Vec<u64>, StorageError> {
        check_keys(&writes)?;
        for write in &writes {
            let version = self.records.get(&write.key).map(|(version, _)| *version);
            if !write.expect.holds(version) {
                return Err(StorageError::Conflict(write.key.clone()));
            }
        }
        Ok(writes.into_iter().map(|it| self.put(it)).collect())
    }

    fn put(&mut self, write: Write) -> u64 {
        self.version += 1;
        let Some(value) = write.value else {
            self.records.remove(&write.key);
            return 0;
        };
        self.records.insert(write.key, (self.version, value.to_vec()));
        self.version
    }

    fn record(&self, key: &str) -> Option<Record> {
        let (version, value) = self.records.get(key)?;
        Some(Record { key: key.to_owned(), version: *version, value: value.clone().into() })
    }
}

#[async_trait]
impl Records for FileRecords {
    async fn get(&self, key: &str) -> Result<Option<Record>, StorageError> {
        let key = key.to_owned();
        self.with(move |path| Ok(read(path)?.record(&key))).await
    }

    async fn apply(&self, writes: Vec<Write>) -> Result<Vec<u64>, StorageError> {
        self.with(move |path| {
            let _lock = lock(path).map_err(|error| unavailable(path, &error))?;
            let mut all = read(path)?;
            let versions = all.apply(writes)?;
            replace(path, &all)?;
            Ok(versions)
        })
        .await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, StorageError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.with(move |path| {
            let all = read(path)?;
            let mut keys: Vec<_> =
                all.records.keys().filter(|it| it.starts_with(&prefix)).collect();
            if reverse {
                keys.reverse();
            }
            let beyond = |key: &&String| match (&after, reverse) {
                (None, _) => true,
                (Some(after), false) => *key > after,
                (Some(after), true) => *key < after,
            };
            Ok(keys
                .into_iter()
                .filter(beyond)
                .take(limit)
                .filter_map(|it| all.record(it))
                .collect())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Expect;

    fn put(key: String, expect: Expect, value: &'static str) -> Write {
        Write { key, expect, value: Some(value.into()) }
    }

    #[tokio::test]
    async fn processes_share_a_file_and_a_conflict_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        let (one, other) = (FileRecords::new(path.clone()), FileRecords::new(path.clone()));
        assert_eq!(one.get("a/1").await.unwrap(), None);
        let writes =
            |expect| vec![put("a/1".into(), expect, "x"), put("a/2".into(), Expect::Anything, "y")];
        one.write(writes(Expect::Absent)).await.unwrap();
        let found = other.get("a/1").await.unwrap().unwrap();
        assert_eq!(found.value.as_ref(), b"x");
        assert!(matches!(
            other.write(writes(Expect::Absent)).await,
            Err(StorageError::Conflict(_))
        ));
        other.write(writes(Expect::Version(found.version))).await.unwrap();
        let names = |it: Vec<Record>| it.into_iter().map(|it| it.key).collect::<Vec<_>>();
        assert_eq!(names(one.list("a/", None, true, 9).await.unwrap()), ["a/2", "a/1"]);
        assert_eq!(names(one.list("a/", Some("a/1"), false, 9).await.unwrap()), ["a/2"]);
        let gone = Write { key: "a/1".into(), expect: Expect::Anything, value: None };
        one.write(vec![gone]).await.unwrap();
        assert_eq!(names(other.list("a", None, false, 9).await.unwrap()), ["a/2"]);
        std::fs::write(&path, "torn").unwrap();
        assert!(matches!(one.get("a/2").await, Err(StorageError::Unavailable(_))));
    }
}
