//! Records of the fleet, read and written.

use std::sync::Arc;

use kiln_cas::records::{Expect, MAX_VALUE, Record, RecordsError, SharedRecords, Version, Write};
use kiln_net::Unread;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::FleetError;
use crate::json;

/// How often something is tried again because others changed it.
pub const MAX_ATTEMPTS: usize = 32;
/// Records that are read at once.
pub const MAX_PAGE: usize = 1_000;

#[derive(Clone)]
pub struct Store {
    pub records: SharedRecords,
    unread: Arc<Unread>,
}

/// A value, and which version of it was read.
pub type Found<T> = Option<(T, Version)>;

pub fn decode<T: DeserializeOwned>(stored: &Record) -> Result<T, FleetError> {
    let damaged = |source| FleetError::Damaged { key: stored.key.clone(), source };
    json::read(&stored.value, MAX_VALUE).map_err(damaged)
}

pub fn put<T: Serialize>(key: String, expect: Expect, value: &T) -> Result<Write, FleetError> {
    let value = json::write(value).map_err(FleetError::Unwritable)?;
    Ok(Write { key, expect, value: Some(value.into()) })
}

/// The expectation that nobody has changed a record since it was found.
pub fn as_found<T>(found: &Found<T>) -> Expect {
    found.as_ref().map_or(Expect::Absent, |(_, version)| Expect::Version(*version))
}

impl Store {
    pub fn new(records: SharedRecords) -> Self {
        Self { records, unread: Arc::default() }
    }

    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Found<T>, FleetError> {
        let stored = self.records.get(key).await?;
        stored.map(|it| Ok((decode(&it)?, it.version))).transpose()
    }

    /// What was read of one record among many. `None`: it is damaged, which holds up none of the others.
    pub fn readable<T>(&self, read: Result<T, FleetError>) -> Result<Option<T>, FleetError> {
        match read {
            Err(FleetError::Damaged { key, source }) => {
                self.unread.pass_by(&key, &source);
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Everything below a prefix that can be read, each with the rest of its key.
    pub async fn below<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, T)>, FleetError> {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = self.records.list(prefix, after.as_deref(), false, MAX_PAGE).await?;
            for record in &page {
                let name = record.key.strip_prefix(prefix).unwrap_or_default();
                let value = self.readable(decode::<T>(record))?;
                all.extend(value.map(|value| (name.to_owned(), value)));
            }
            after = page.last().map(|it| it.key.clone());
            if page.len() < MAX_PAGE || after.is_none() {
                return Ok(all);
            }
        }
    }

    /// `false`: somebody else was faster.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<bool, FleetError> {
        match self.records.write(writes).await {
            Ok(_) => Ok(true),
            Err(RecordsError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
