//! Records of the history in the server's records.

use async_trait::async_trait;
use kiln_cas::records::{self, RecordsError, SharedRecords};
use kiln_ci::storage::{Expect, Record, Records, StorageError, Write};

use super::errors::unavailable;

pub struct StoredRecords(pub SharedRecords);

#[async_trait]
impl Records for StoredRecords {
    async fn get(&self, key: &str) -> Result<Option<Record>, StorageError> {
        Ok(self.0.get(key).await.map_err(failed)?.map(record))
    }

    async fn apply(&self, writes: Vec<Write>) -> Result<Vec<u64>, StorageError> {
        let writes = writes.into_iter().map(write).collect();
        self.0.write(writes).await.map_err(failed)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, StorageError> {
        let found = self.0.list(prefix, after, reverse, limit).await.map_err(failed)?;
        Ok(found.into_iter().map(record).collect())
    }
}

fn record(it: records::Record) -> Record {
    Record { key: it.key, version: it.version, value: it.value }
}

pub fn write(it: Write) -> records::Write {
    let expect = match it.expect {
        Expect::Absent => records::Expect::Absent,
        Expect::Version(version) => records::Expect::Version(version),
        Expect::Anything => records::Expect::Anything,
    };
    records::Write { key: it.key, expect, value: it.value }
}

pub fn failed(error: RecordsError) -> StorageError {
    match error {
        RecordsError::Conflict { key } => StorageError::Conflict(key),
        error => unavailable(error),
    }
}
