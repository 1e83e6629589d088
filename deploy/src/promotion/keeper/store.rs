//! The world out of its record and back, in one step with the audit log.

use bytes::Bytes;
use kiln_cas::records::{
    Expect, MAX_VALUE, Record as Stored, RecordsError, SharedRecords, Version, Write,
};
use kiln_cas::stores::audit::AuditLog;
use kiln_net::Unread;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::PromotionError;
use super::keys;
use crate::json;
use crate::promotion::change::Change;
use crate::promotion::world::World;

pub struct Store {
    pub records: SharedRecords,
    audit: AuditLog,
    unread: Unread,
    tells: bool,
}

/// A world, and which version of it was read.
pub struct Loaded {
    pub world: World,
    version: Option<Version>,
}

pub fn decode<T: DeserializeOwned>(stored: &Stored) -> Result<T, PromotionError> {
    let damaged = |source| PromotionError::Damaged { key: stored.key.clone(), source };
    json::read(&stored.value, MAX_VALUE).map_err(damaged)
}

pub fn encode<T: Serialize>(value: &T) -> Result<Bytes, PromotionError> {
    Ok(json::write(value).map_err(PromotionError::Unwritable)?.into())
}

pub fn put<T: Serialize>(key: String, expect: Expect, value: &T) -> Result<Write, PromotionError> {
    Ok(Write { key, expect, value: Some(encode(value)?) })
}

/// Changes nothing, but fails if there is such a record.
pub fn must_be_absent(key: String) -> Write {
    Write { key, expect: Expect::Absent, value: None }
}

pub fn delete(key: String) -> Write {
    Write { key, expect: Expect::Anything, value: None }
}

impl Store {
    pub fn new(records: SharedRecords, tells: bool) -> Self {
        Self { audit: AuditLog::new(records.clone()), records, unread: Unread::default(), tells }
    }

    /// What was read of one record among many. `None`: it is damaged, which holds up none of the others.
    pub fn readable<T>(
        &self,
        read: Result<T, PromotionError>,
    ) -> Result<Option<T>, PromotionError> {
        match read {
            Err(PromotionError::Damaged { key, source }) => {
                self.unread.pass_by(&key, &source);
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    pub async fn load(&self) -> Result<Loaded, PromotionError> {
        let stored = self.records.get(keys::WORLD).await?;
        let world = stored.as_ref().map(decode).transpose()?.unwrap_or_default();
        Ok(Loaded { world, version: stored.map(|it| it.version) })
    }

    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, PromotionError> {
        self.records.get(key).await?.as_ref().map(decode).transpose()
    }

    /// Replaces the world that was read, notes the changes, and applies the other writes: all of it, or nothing.
    /// `false`: somebody else was faster with something of it.
    pub async fn commit(
        &self,
        before: &Loaded,
        after: &World,
        changes: &[Change],
        mut writes: Vec<Write>,
    ) -> Result<bool, PromotionError> {
        let expect = before.version.map_or(Expect::Absent, Expect::Version);
        writes.insert(0, put(keys::WORLD.to_owned(), expect, after)?);
        if self.tells {
            for change in changes {
                writes.push(put(keys::notice(change.number), Expect::Absent, change)?);
            }
        }
        let events = changes.iter().map(Change::event).collect();
        match self.audit.append_with(events, writes).await {
            Ok(_) => Ok(true),
            Err(RecordsError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
