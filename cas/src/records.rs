//! Small versioned documents with compare-and-swap: history, queues, releases and the audit
//! log are built on these alone.

pub mod lease;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::error::{Reason, StoreError};

/// Grows with every write of a key; never reused for the same key while it exists.
pub type Version = u64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: String,
    pub version: Version,
    pub value: Bytes,
}

/// What must be true of a key for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Version(Version),
    Anything,
}

/// One write of a batch; `value: None` deletes.
#[derive(Debug, Clone)]
pub struct Write {
    pub key: String,
    pub expect: Expect,
    pub value: Option<Bytes>,
}

/// Keys are UTF-8 of 1 to [`MAX_KEY`] bytes, with `/` between their parts by convention.
pub const MAX_KEY: usize = 1024;
/// Largest value in bytes; larger things are blobs.
pub const MAX_VALUE: usize = 1 << 20;
/// Most writes in one batch.
pub const MAX_BATCH: usize = 1024;
/// Most reads under way at the same time, for one call that reads many.
const AT_ONCE: usize = 32;

#[async_trait]
pub trait Records: Send + Sync + 'static {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError>;

    /// The records of many keys, in the order of the keys; `None`: there is no such record. They are not read
    /// in one step, so that writes may come between.
    async fn get_each(&self, keys: &[String]) -> Result<Vec<Option<Record>>, RecordsError> {
        let asked: Vec<_> = keys.iter().map(|it| self.get(it)).collect();
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }

    /// For each of many prefixes its first records, at most `limit` of each. They are not
    /// read in one step, so that writes may come between.
    async fn list_each(
        &self,
        prefixes: &[String],
        limit: usize,
    ) -> Result<Vec<Vec<Record>>, RecordsError> {
        let asked: Vec<_> = prefixes.iter().map(|it| self.list(it, None, false, limit)).collect();
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }

    /// Applies all writes or none, durably. Returns the new versions in order (0 for deletions).
    /// Errors: `Conflict` with the first key whose expectation failed.
    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError>;

    /// Gives back the space of deleted records where there is much of it.
    async fn compact(&self) -> Result<(), RecordsError> {
        Ok(())
    }

    /// Records whose key starts with `prefix` and comes after `after` (exclusive), in key order
    /// (or reversed: then before `after`), at most `limit`.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError>;
}

pub type SharedRecords = Arc<dyn Records>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordsError {
    #[error("record {key} was changed by someone else")]
    Conflict { key: String },
    #[error("invalid record: {0}")]
    Invalid(String),
    #[error("records are unavailable: {0}")]
    Unavailable(#[source] Reason),
    #[error("stored records are damaged: {0}")]
    Corrupt(#[source] Reason),
}

impl From<RecordsError> for StoreError {
    fn from(error: RecordsError) -> Self {
        match error {
            RecordsError::Corrupt(reason) => Self::corrupt(reason),
            error => Self::unavailable(Reason::of(error)),
        }
    }
}
