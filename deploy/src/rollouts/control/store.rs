//! Rollouts in records. A log grows by compare-and-swap on its head, and all that belongs to an event is written in
//! one step with it: the audit log, the deploy lock, what is to be told. Runs of pipelines are kept in the same way;
//! docs/ARCHITECTURE.md says why that is written twice.

use std::error::Error;

use bytes::Bytes;
use kiln_cas::records::{Expect, MAX_VALUE, Record, RecordsError, SharedRecords, Version, Write};
use kiln_cas::stores::audit::{AuditEvent, AuditLog};
use kiln_net::Unread;
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
/// The same from the end of a log, of which only the last events are wanted.
const PAGE_BACK: usize = 50;
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
    unread: Unread,
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
        Self { audit: AuditLog::new(records.clone()), records, unread: Unread::default() }
    }

    /// What was read of one record among many. `None`: it is damaged, which holds up none of the others.
    pub fn readable<T>(&self, read: Result<T, ControlError>) -> Result<Option<T>, ControlError> {
        match read {
            Err(ControlError::Damaged { key, source }) => {
                self.pass_by(&key, &source);
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Says in the log, once, that a record is passed by.
    pub fn pass_by(&self, key: &str, error: &(dyn Error + 'static)) {
        self.unread.pass_by(key, error);
    }

    /// Those of many records that can be read.
    pub fn each<T: DeserializeOwned>(&self, found: &[Record]) -> Result<Vec<T>, ControlError> {
        let mut read = Vec::with_capacity(found.len());
        for stored in found {
            read.extend(self.readable(decode::<T>(stored))?);
        }
        Ok(read)
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

    /// What stands where a rollout goes on or ended last. Where the record cannot be read, that this one is the newest is all that
    /// is known.
    pub async fn standing_of(&self, rollout: &Rollout) -> Result<Read<Standing>, ControlError> {
        let stored = self.records.get(&keys::place(&rollout.place)).await?;
        let version = stored.as_ref().map(|it| it.version);
        let read = stored.as_ref().map(decode::<Standing>).transpose();
        let value = match self.readable(read)? {
            Some(standing) => standing.unwrap_or_default(),
            None => Standing { newest: Some(rollout.id.clone()), good: None },
        };
        Ok(Read { value, version })
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

    /// How long a log is, and the version of the record that says so.
    pub async fn head(&self, id: &str) -> Result<Option<(Head, Version)>, ControlError> {
        let Some(stored) = self.records.get(&keys::head(id)).await? else { return Ok(None) };
        Ok(Some((decode(&stored)?, stored.version)))
    }

    /// The heads of several rollouts, in their order. One that cannot be read is as one that is not there.
    pub async fn heads(&self, ids: &[String]) -> Result<Vec<Option<Head>>, ControlError> {
        let keys: Vec<String> = ids.iter().map(|id| keys::head(id)).collect();
        let found = self.records.get_each(&keys).await?;
        let mut heads = Vec::with_capacity(found.len());
        for stored in &found {
            let head = stored.as_ref().map(decode::<Head>).transpose();
            heads.push(self.readable(head)?.flatten());
        }
        Ok(heads)
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

    /// The next events of a log, one at least, from the number `from` on, which a record begins with, and below `end`, which is
    /// or was its length: no record goes across. Errors: `Missing` where event `from` is not there.
    pub async fn events(&self, id: &str, from: u64, end: u64) -> Result<Vec<Logged>, ControlError> {
        let after = from.checked_sub(1).map(|before| keys::events(id, before));
        let found = self.records.list(&keys::log(id), after.as_deref(), false, PAGE).await?;
        let mut events: Vec<Logged> = Vec::new();
        for batch in &found {
            let number = from + events.len() as u64;
            if number >= end || batch.key != keys::events(id, number) {
                break;
            }
            events.extend(decode::<Vec<Logged>>(batch)?);
        }
        match events.is_empty() {
            true => Err(ControlError::Missing { id: id.to_owned(), number: from }),
            false => Ok(events),
        }
    }

    /// The last events of a log, `most` at most, and the number of the first of them. `length` is or was that of the log.
    /// Errors: `Missing` where one of them is not there.
    pub async fn tail(
        &self,
        id: &str,
        length: u64,
        most: usize,
    ) -> Result<(u64, Vec<Logged>), ControlError> {
        let (mut batches, mut count, mut first) = (Vec::new(), 0, length);
        while count < most && first > 0 {
            let before = keys::events(id, first);
            let found = self.records.list(&keys::log(id), Some(&before), true, PAGE_BACK).await?;
            for batch in &found {
                let events: Vec<Logged> = decode(batch)?;
                let begins = first.checked_sub(events.len() as u64);
                let Some(begins) = begins.filter(|it| batch.key == keys::events(id, *it)) else {
                    break;
                };
                first = begins;
                count += events.len();
                batches.push(events);
            }
            // No record ends there.
            if keys::events(id, first) == before {
                return Err(ControlError::Missing { id: id.to_owned(), number: first - 1 });
            }
        }
        let mut log: Vec<Logged> = batches.into_iter().rev().flatten().collect();
        let dropped = log.len().saturating_sub(most);
        log.drain(..dropped);
        Ok((first + dropped as u64, log))
    }

    /// The targets of a rollout, of which so many were written. Errors: `Lacking` where not all of them are there: a target
    /// is told by its number, which would be that of another one behind a part that is lost.
    pub async fn targets(&self, id: &str, count: usize) -> Result<Vec<Target>, ControlError> {
        let mut targets = Vec::new();
        for part in self.all(&keys::targets(id)).await? {
            targets.extend(decode::<Vec<Target>>(&part)?);
        }
        let found = targets.len();
        let whole = (found == count).then_some(targets);
        whole.ok_or_else(|| ControlError::Lacking { id: id.to_owned(), found, count })
    }

    /// The writes that keep the targets of a rollout.
    pub fn keep_targets(id: &str, targets: &[Target]) -> Result<Vec<Write>, ControlError> {
        let part = |(at, part): (usize, &[Target])| put(keys::part(id, at), Expect::Absent, &part);
        targets.chunks(PART).enumerate().map(part).collect()
    }

    /// Those of the next `limit` rollouts that can be read, newest first, and the key to go on before, if there may be
    /// more. `before`: a key.
    pub async fn rollouts(
        &self,
        before: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Rollout>, Option<String>), ControlError> {
        let found = self.records.list(keys::RUNS, before, true, limit).await?;
        let next = found.last().filter(|_| found.len() == limit).map(|it| it.key.clone());
        Ok((self.each(&found)?, next))
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
        self.each(&found)
    }

    /// One that cannot be read is as one that is not there: it hides no rollout.
    pub async fn latest(&self, id: &str) -> Result<Option<Looked>, ControlError> {
        let read = self.get::<Looked>(&keys::latest(id)).await;
        Ok(self.readable(read)?.flatten())
    }
}
