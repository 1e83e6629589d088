use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::validate;
use crate::records::{Expect, Record, Records, RecordsError, Version, Write};

/// Records in memory: for tests.
#[derive(Default)]
pub struct MemoryRecords {
    inner: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    rows: BTreeMap<String, (Version, Bytes)>,
    last_version: Version,
}

impl MemoryRecords {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn meets(&self, write: &Write) -> bool {
        let version = self.rows.get(&write.key).map(|(version, _)| *version);
        match write.expect {
            Expect::Absent => version.is_none(),
            Expect::Version(expected) => version == Some(expected),
            Expect::Anything => true,
        }
    }

    fn apply(&mut self, write: Write) -> Version {
        let Some(value) = write.value else {
            self.rows.remove(&write.key);
            return 0;
        };
        self.last_version += 1;
        self.rows.insert(write.key, (self.last_version, value));
        self.last_version
    }
}

#[async_trait]
impl Records for MemoryRecords {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        let table = self.lock();
        Ok(table.rows.get(key).map(|(version, value)| Record {
            key: key.to_owned(),
            version: *version,
            value: value.clone(),
        }))
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        validate(&writes)?;
        let mut table = self.lock();
        if let Some(write) = writes.iter().find(|write| !table.meets(write)) {
            return Err(RecordsError::Conflict { key: write.key.clone() });
        }
        Ok(writes.into_iter().map(|write| table.apply(write)).collect())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        let table = self.lock();
        let matching = table
            .rows
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        let record = |(key, (version, value)): (&String, &(Version, Bytes))| Record {
            key: key.clone(),
            version: *version,
            value: value.clone(),
        };
        if !reverse {
            let beyond = |key: &str| after.is_none_or(|after| key > after);
            return Ok(matching.filter(|(k, _)| beyond(k)).take(limit).map(record).collect());
        }
        let before = |key: &str| after.is_none_or(|after| key < after);
        let mut found: Vec<_> = matching.filter(|(k, _)| before(k)).map(record).collect();
        found.reverse();
        found.truncate(limit);
        Ok(found)
    }
}
