//! Rollouts in records. A log grows by compare-and-swap on its length, and all that belongs to an event is written in
//! one step with it: the audit log, the deploy lock, what is to be told.

use bytes::Bytes;
use kiln_cas::records::{Expect, MAX_VALUE, Record, RecordsError, SharedRecords, Version, Write};
use kiln_cas::stores::audit::{AuditEvent, AuditLog};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ControlError;
use super::kept::{Head, Looked, Rollout, Standing};
use super::keys;
use crate::json;
use crate::rollouts::machine::{Locks, Logged};
use crate::rollouts::parts::{Place, Target};
use crate::rollouts::plan::is_name;

/// Targets of one record: with all labels that agents may have it has room for them.
const PART: usize = 50;
/// Records that are read at once.
const PAGE: usize = 500;
/// Events of one log. Whatever makes it longer is reverted.
pub const MAX_EVENTS: u64 = 200_000;
/// Judgements of one rollout that are shown.
pub const MAX_JUDGEMENTS: usize = 200;
/// Rollouts that are driven at once.
pub const MAX_ACTIVE: usize = 200;
/// Rollouts that are driven or have ended within a day, when targets that come back are still told what to run.
pub const MAX_WATCHED: usize = 1_000;

pub struct Store {
    pub records: SharedRecords,
    audit: AuditLog,
}

/// A record with the version that was read; `None`: there was none.
pub struct Read<T> {
    pub value: T,
    pub version: Option<Version>,
}

impl<T> Read<T> {
    pub fn expect(&self) -> Expect {
        self.version.map_or(Expect::Absent, Expect::Version)
    }
}

/// A rollout's log with what it needs to be replayed.
pub struct Loaded {
    pub rollout: Rollout,
    pub head: Read<Head>,
    pub log: Vec<Logged>,
}

pub fn decode<T: DeserializeOwned>(stored: &Record) -> Result<T, ControlError> {
    let damaged = |source| ControlError::Damaged { key: stored.key.clone(), source };
    json::read(&stored.value, MAX_VALUE).map_err(damaged)
}

pub fn encode<T: Serialize>(value: &T) -> Result<Bytes, ControlError> {
    Ok(json::write(value).map_err(ControlError::Unwritable)?.into())
}

pub fn put<T: Serialize>(key: String, expect: Expect, value: &T) -> Result<Write, ControlError> {
    Ok(Write { key, expect, value: Some(encode(value)?) })
}

pub fn delete(key: String) -> Write {
    Write { key, expect: Expect::Anything, value: None }
}

impl Store {
    pub fn new(records: SharedRecords) -> Self {
        Self { audit: AuditLog::new(records.clone()), records }
    }

    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ControlError> {
        self.records.get(key).await?.as_ref().map(decode).transpose()
    }

    pub async fn read<T: DeserializeOwned + Default>(
        &self,
        key: &str,
    ) -> Result<Read<T>, ControlError> {
        let stored = self.records.get(key).await?;
        let value = stored.as_ref().map(decode).transpose()?.unwrap_or_default();
        Ok(Read { value, version: stored.map(|it| it.version) })
    }

    pub async fn standing(&self, place: &Place) -> Result<Read<Standing>, ControlError> {
        self.read(&keys::place(place)).await
    }

    pub async fn locks(&self, place: &Place) -> Result<Read<Locks>, ControlError> {
        self.read(&keys::lock(place)).await
    }

    /// Applies all writes and notes all events, or does neither. `false`: somebody else was faster.
    pub async fn commit(
        &self,
        events: Vec<AuditEvent>,
        writes: Vec<Write>,
    ) -> Result<bool, ControlError> {
        let written = match events.is_empty() {
            true => self.records.write(writes).await.map(drop),
            false => self.audit.append_with(events, writes).await.map(drop),
        };
        match written {
            Ok(()) => Ok(true),
            Err(RecordsError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn rollout(&self, id: &str) -> Result<Rollout, ControlError> {
        let none = || ControlError::NoRollout(id.chars().take(80).collect());
        // What is no name is no part of a key either.
        let known = is_name(id).then(|| keys::run(id)).ok_or_else(none)?;
        self.get(&known).await?.ok_or_else(none)
    }

    pub async fn head(&self, id: &str) -> Result<Option<Head>, ControlError> {
        self.get(&keys::head(id)).await
    }

    /// Everything below a prefix, in order.
    async fn all(&self, prefix: &str) -> Result<Vec<Record>, ControlError> {
        let mut found: Vec<Record> = Vec::new();
        loop {
            let after = found.last().map(|it| it.key.clone());
            let more = self.records.list(prefix, after.as_deref(), false, PAGE).await?;
            let full = more.len() == PAGE;
            found.extend(more);
            if !full {
                return Ok(found);
            }
        }
    }

    /// The head first: what is appended while the log is read makes it no longer than is known.
    pub async fn load(&self, id: &str) -> Result<Loaded, ControlError> {
        let rollout = self.rollout(id).await?;
        let key = keys::head(id);
        let stored = self.records.get(&key).await?;
        let stored = stored.ok_or_else(|| ControlError::NoRollout(id.to_owned()))?;
        let head = Read { value: decode::<Head>(&stored)?, version: Some(stored.version) };
        let mut log: Vec<Logged> = Vec::new();
        for batch in self.all(&keys::log(id)).await? {
            log.extend(decode::<Vec<Logged>>(&batch)?);
        }
        log.truncate(usize::try_from(head.value.length).unwrap_or(usize::MAX));
        Ok(Loaded { rollout, head, log })
    }

    pub async fn targets(&self, id: &str) -> Result<Vec<Target>, ControlError> {
        let mut targets = Vec::new();
        for part in self.all(&keys::targets(id)).await? {
            targets.extend(decode::<Vec<Target>>(&part)?);
        }
        Ok(targets)
    }

    /// The writes that keep the targets of a rollout.
    pub fn keep_targets(id: &str, targets: &[Target]) -> Result<Vec<Write>, ControlError> {
        let part = |(at, part): (usize, &[Target])| put(keys::part(id, at), Expect::Absent, &part);
        targets.chunks(PART).enumerate().map(part).collect()
    }

    /// Newest first.
    pub async fn rollouts(
        &self,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Rollout>, ControlError> {
        let before = before.map(keys::run);
        let found = self.records.list(keys::RUNS, before.as_deref(), true, limit).await?;
        found.iter().map(decode).collect()
    }

    pub async fn active(&self) -> Result<Vec<String>, ControlError> {
        // Those that ended within a day are among them, and those that began at the same moment may be more.
        let found = self.records.list(keys::ACTIVE, None, false, MAX_WATCHED).await?;
        Ok(found.iter().filter_map(|it| Some(it.key.rsplit_once('/')?.1.to_owned())).collect())
    }

    /// Newest first.
    pub async fn judgements(&self, id: &str, limit: usize) -> Result<Vec<Looked>, ControlError> {
        let limit = limit.min(MAX_JUDGEMENTS);
        let found = self.records.list(&keys::judgements(id), None, true, limit).await?;
        found.iter().map(decode).collect()
    }

    pub async fn latest(&self, id: &str) -> Result<Option<Looked>, ControlError> {
        self.get(&keys::latest(id)).await
    }
}
