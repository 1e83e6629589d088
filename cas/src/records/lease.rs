//! A lease that lies in records: whose turn it is among processes that share these.

use std::time::Duration;

use kiln_net::lease::{Slot, Turn};

use super::{Expect, RecordsError, SharedRecords, Write};

/// The record of a lease.
pub struct LeaseRecord {
    records: SharedRecords,
    key: String,
}

/// Whose turn it is, by a record.
pub type RecordTurn = Turn<LeaseRecord>;

impl LeaseRecord {
    pub fn new(records: SharedRecords, key: impl Into<String>) -> Self {
        Self { records, key: key.into() }
    }

    /// `holder` is this process's alone, and not empty. After `term` without a word of the holder another one's turn comes.
    pub fn turn(self, holder: impl Into<String>, term: Duration) -> RecordTurn {
        Turn::new(self, holder.into(), term)
    }
}

impl Slot for LeaseRecord {
    type Error = RecordsError;

    async fn read(&self) -> Result<Option<(u64, Vec<u8>)>, RecordsError> {
        let found = self.records.get(&self.key).await?;
        Ok(found.map(|it| (it.version, it.value.to_vec())))
    }

    async fn swap(
        &self,
        expected: Option<u64>,
        value: Vec<u8>,
    ) -> Result<Option<u64>, RecordsError> {
        let expect = expected.map_or(Expect::Absent, Expect::Version);
        let write = Write { key: self.key.clone(), expect, value: Some(value.into()) };
        match self.records.write(vec![write]).await {
            Ok(versions) => Ok(versions.first().copied()),
            Err(RecordsError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
