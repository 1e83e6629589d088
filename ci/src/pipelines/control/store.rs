//! Runs in records. A history grows by compare-and-swap on its head, and all that belongs to an event is written in one step with
//! it: the audit log, the group, whether it is active. Rollouts are kept in the same way; docs/ARCHITECTURE.md says why that is
//! written twice.

use std::sync::Arc;

use bytes::Bytes;
use kiln_net::Unread;
use kiln_net::causes::chain;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ControlError;
use super::kept::{Head, Run};
use super::keys;
use crate::pipelines::machine::{Group, Logged};
use crate::pipelines::stage::Stage;
use crate::storage::{Expect, Record, Records, StorageError, Write};
use crate::verdicts::{Ledger, Note};

/// Bytes of one record of stages or events; what is larger has one of its own.
const PART: usize = 256 << 10;
/// Records that are read at once.
const PAGE: usize = 500;
/// Records that are removed at once: those of logs are large.
const REMOVED: usize = 50;
/// What is said where it cannot be read up to where a trigger was looked at.
const LOST: &str = "a trigger goes on from now: what it has not begun so far begins nothing";
/// Runs that have not ended.
pub const MAX_ACTIVE: usize = 1_000;

pub struct Store {
    pub records: Arc<dyn Records>,
    pub ledger: Arc<dyn Ledger>,
    pub unread: Unread,
}

pub fn decode<T: DeserializeOwned>(stored: &Record) -> Result<T, ControlError> {
    let damaged = |source| ControlError::Damaged { key: stored.key.clone(), source };
    serde_json::from_slice(&stored.value).map_err(damaged)
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, ControlError> {
    serde_json::to_vec(value).map_err(ControlError::Unwritable)
}

pub fn put<T: Serialize>(key: String, expect: Expect, value: &T) -> Result<Write, ControlError> {
    Ok(Write { key, expect, value: Some(encode(value)?.into()) })
}

pub fn delete(key: String) -> Write {
    Write { key, expect: Expect::Anything, value: None }
}

/// Values as arrays of at most [`PART`] bytes, with the index of the first value of each.
pub fn parts<T: Serialize>(values: &[T]) -> Result<Vec<(usize, Bytes)>, ControlError> {
    let (mut parts, mut part, mut first) = (Vec::new(), Vec::new(), 0);
    for (at, value) in values.iter().enumerate() {
        let one = encode(value)?;
        if !part.is_empty() && part.len() + one.len() > PART {
            parts.push((first, closed(std::mem::take(&mut part))));
            first = at;
        }
        part.push(if part.is_empty() { b'[' } else { b',' });
        part.extend(one);
    }
    if !part.is_empty() {
        parts.push((first, closed(part)));
    }
    Ok(parts)
}

fn closed(mut part: Vec<u8>) -> Bytes {
    part.push(b']');
    part.into()
}

impl Store {
    pub async fn get<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<(T, u64)>, ControlError> {
        let Some(stored) = self.records.get(key).await? else { return Ok(None) };
        Ok(Some((decode(&stored)?, stored.version)))
    }

    /// Up to where a trigger was looked at, and what the write of the next place expects. One that cannot be read is none, and is
    /// replaced by that write: nobody could mend it otherwise.
    pub async fn place<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<(Option<T>, Expect), ControlError> {
        let Some(stored) = self.records.get(key).await? else { return Ok((None, Expect::Absent)) };
        let place = decode::<T>(&stored);
        if let Err(error) = &place {
            tracing::error!(error = chain(error), "{LOST}");
        }
        Ok((place.ok(), Expect::Version(stored.version)))
    }

    /// What was read of one record among many. `None`: it is damaged, which holds up none of the others.
    pub fn readable<T>(&self, read: Result<T, ControlError>) -> Result<Option<T>, ControlError> {
        match read {
            Err(ControlError::Damaged { key, source }) => {
                self.unread.pass_by(&key, &source);
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Applies all writes and notes, or does neither. `false`: somebody else was faster.
    pub async fn commit(&self, notes: Vec<Note>, writes: Vec<Write>) -> Result<bool, ControlError> {
        let written = match notes.is_empty() {
            true => self.records.write(writes).await,
            false => self.ledger.write(notes, writes).await,
        };
        match written {
            Ok(()) => Ok(true),
            Err(StorageError::Conflict(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn run(&self, id: &str) -> Result<Run, ControlError> {
        let none = || ControlError::NoRun(id.chars().take(40).collect());
        let key = keys::is_id(id).then(|| keys::run(id)).ok_or_else(none)?;
        Ok(self.get(&key).await?.ok_or_else(none)?.0)
    }

    /// How long a history is, and the version of the record that says so.
    pub async fn head(&self, id: &str) -> Result<Option<(Head, u64)>, ControlError> {
        self.get(&keys::head(id)).await
    }

    pub async fn group(&self, name: &str) -> Result<(Group, Expect), ControlError> {
        let found = self.get::<Group>(&keys::group(name)).await?;
        let absent = || (Group { name: name.to_owned(), ..Group::default() }, Expect::Absent);
        Ok(found.map_or_else(absent, |(group, version)| (group, Expect::Version(version))))
    }

    /// The group, of all that can be read, in which a run has or waits for its turn.
    pub async fn group_with(&self, run: &str) -> Result<Option<(Group, Expect)>, ControlError> {
        for stored in self.all(keys::GROUPS).await? {
            let group = self.readable(decode::<Group>(&stored))?;
            if let Some(group) = group.filter(|it| it.has(run)) {
                return Ok(Some((group, Expect::Version(stored.version))));
            }
        }
        Ok(None)
    }

    /// The write that keeps a group; one without any run is forgotten.
    pub fn keep_group(group: &Group, expect: Expect) -> Result<Write, ControlError> {
        let key = keys::group(&group.name);
        match group.is_empty() {
            true => Ok(Write { key, expect, value: None }),
            false => put(key, expect, group),
        }
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

    /// Errors: `Lacking` where not all stages of the run are there: an event names a stage by its number, which would be that
    /// of another one behind a part that is lost.
    pub async fn stages(&self, run: &Run) -> Result<Vec<Stage>, ControlError> {
        let mut stages: Vec<Stage> = Vec::new();
        for part in self.all(&keys::stages(&run.id)).await? {
            stages.extend(decode::<Vec<Stage>>(&part)?);
        }
        let (found, count) = (stages.len(), run.stages);
        let whole = (found == count).then_some(stages);
        whole.ok_or_else(|| ControlError::Lacking { id: run.id.clone(), found, count })
    }

    /// The next events of a history, one at least, from the number `from` on, which a record begins with, and below `end`, which is
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

    /// Runs that have not ended, the oldest first.
    pub async fn active(&self) -> Result<Vec<String>, ControlError> {
        let found = self.records.list(keys::ACTIVE, None, false, MAX_ACTIVE).await?;
        let id = |it: Record| it.key.strip_prefix(keys::ACTIVE).map(str::to_owned);
        Ok(found.into_iter().filter_map(id).collect())
    }

    /// Of the next `limit` runs those that can be read, newest first, and the key to go on before, if there may be
    /// more. `before`: a key.
    pub async fn runs(
        &self,
        before: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Run>, Option<String>), ControlError> {
        let found = self.records.list(keys::RUNS, before, true, limit).await?;
        let mut runs = Vec::with_capacity(found.len());
        for stored in &found {
            runs.extend(self.readable(decode::<Run>(stored))?);
        }
        let next = found.last().filter(|_| found.len() == limit).map(|it| it.key.clone());
        Ok((runs, next))
    }

    /// Removes all below a prefix, in steps.
    pub async fn remove_all(&self, prefix: &str) -> Result<(), ControlError> {
        loop {
            let found = self.records.list(prefix, None, false, REMOVED).await?;
            if found.is_empty() {
                return Ok(());
            }
            let writes = found.into_iter().map(|it| delete(it.key)).collect();
            self.records.write(writes).await?;
        }
    }
}
