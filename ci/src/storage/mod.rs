//! What history and event streams are kept in: bulk as immutable blobs, what is small and changes as records. Both are
//! traits, so that this crate knows neither disks nor Redis nor S3.

mod file;
mod frame;
mod lease;
pub mod memory;

use std::collections::HashSet;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

pub use file::FileRecords;
pub use frame::{Damage, open, open_one_of, seal, seal_quickly};
pub use lease::{LeaseRecord, RecordTurn};

use crate::model::Time;

/// Immutable blobs that are pinned: they stay until they are removed here.
#[async_trait]
pub trait Segments: Send + Sync + 'static {
    /// Puts a blob, which is durable when this returns. Gives the name by which it is read; a name is never given twice
    /// to different contents.
    async fn put(&self, bytes: Bytes) -> Result<String, StorageError>;

    /// Part of a blob, which is cut off where the blob ends. `NotFound` when it is not there (any more).
    async fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, StorageError>;

    /// Removes a blob. It is no error when it is gone already.
    async fn remove(&self, name: &str) -> Result<(), StorageError>;

    /// Names that are pinned, in order, after one of them, with the time at which they were put.
    async fn list(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Time)>, StorageError>;
}

/// A small document with a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: String,
    pub version: u64,
    pub value: Bytes,
}

/// What must be true of a key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Version(u64),
    Anything,
}

impl Expect {
    /// Whether this holds for a key whose record has this version, or that has none.
    fn holds(self, version: Option<u64>) -> bool {
        match self {
            Self::Anything => true,
            Self::Absent => version.is_none(),
            Self::Version(expected) => version == Some(expected),
        }
    }
}

/// One write of a batch; without a value the record is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub expect: Expect,
    pub value: Option<Bytes>,
}

/// Refuses a batch that names a key twice, which no records take.
fn check_keys(writes: &[Write]) -> Result<(), StorageError> {
    let mut keys = HashSet::with_capacity(writes.len());
    match writes.iter().find(|it| !keys.insert(it.key.as_str())) {
        None => Ok(()),
        Some(twice) => {
            let key = &twice.key;
            Err(StorageError::Unavailable(format!("key {key} appears twice in one batch")))
        }
    }
}

/// Most writes in one batch, and most bytes of a value, that are asked for here.
pub const MAX_BATCH: usize = 1000;
pub const MAX_VALUE: usize = 1 << 20;

/// Versioned documents with compare-and-swap.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    async fn get(&self, key: &str) -> Result<Option<Record>, StorageError>;

    /// Applies all writes or none, durably, and gives the new versions in their order (0 for deletions). `Conflict` when an
    /// expectation failed, `Unavailable` where a key is there twice.
    async fn apply(&self, writes: Vec<Write>) -> Result<Vec<u64>, StorageError>;

    /// Applies writes as [`Self::apply`] does, for those who need no versions.
    async fn write(&self, writes: Vec<Write>) -> Result<(), StorageError> {
        self.apply(writes).await.map(drop)
    }

    /// Records whose key starts with `prefix`, in the order of keys, after one of them (or reversed: before
    /// it), at most so many.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, StorageError>;
}

/// Contents that clients and workers stored: commands, reports, logs.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// A blob by its digest, whose hash is in hexadecimal; nothing when it is not there (any more), or has
    /// more than `most` bytes. `function`: as REAPI numbers digest functions; 0 where nobody said.
    async fn fetch(
        &self,
        function: i32,
        hash: &str,
        size: u64,
        most: u64,
    ) -> Result<Option<Bytes>, StorageError>;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    #[error("{0} is not there")]
    NotFound(String),
    #[error("record {0} was changed by someone else")]
    Conflict(String),
    #[error("storage is unavailable: {0}")]
    Unavailable(String),
}

#[cfg(test)]
mod tests {
    use super::memory::Memory;
    use super::*;

    #[tokio::test]
    async fn no_records_take_a_key_twice_in_one_batch() {
        let directory = tempfile::tempdir().unwrap();
        let (memory, file) =
            (Memory::default(), FileRecords::new(directory.path().join("records")));
        let all: [&dyn Records; 2] = [&memory, &file];
        for records in all {
            let write = |value: &'static str| {
                let value = Some(Bytes::from_static(value.as_bytes()));
                Write { key: "a".to_owned(), expect: Expect::Anything, value }
            };
            let twice = records.apply(vec![write("1"), write("2")]).await;
            assert!(matches!(twice, Err(StorageError::Unavailable(_))), "{twice:?}");
            assert_eq!(records.get("a").await.unwrap(), None);
        }
    }
}
