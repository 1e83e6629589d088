//! All stores in memory, with faults on request: for tests, and for trying things out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Blobs, Record, Records, Segments, StorageError, Write, check_keys};
use crate::model::Time;

/// What survives a crash. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<MemoryState>>);

#[derive(Debug, Default)]
struct MemoryState {
    blobs: BTreeMap<String, (Bytes, Time)>,
    records: BTreeMap<String, (u64, Bytes)>,
    contents: BTreeMap<String, Bytes>,
    version: u64,
    blob: u64,
    now: Time,
    calls: u64,
    /// The call from which on everything fails, as if the process or the store were gone; `None`: none fails.
    fails_at: Option<u64>,
    /// Whether the call at which that begins is carried out, though its caller does not hear of it.
    last_is_done: bool,
    /// Whether records answer nobody any more.
    is_silent: bool,
}

impl MemoryState {
    /// Answers with the new version; 0 for a deletion.
    fn put(&mut self, write: Write) -> u64 {
        self.version += 1;
        let Some(value) = write.value else {
            self.records.remove(&write.key);
            return 0;
        };
        self.records.insert(write.key, (self.version, value));
        self.version
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock of the store.
    pub fn set_time(&self, now: Time) {
        self.state().now = now;
    }

    /// Lets everything fail after so many calls from now on. The last one may have been carried out
    /// nevertheless.
    pub fn fail_after(&self, calls: u64, last_is_done: bool) {
        let mut state = self.state();
        state.fails_at = Some(state.calls + calls);
        state.last_is_done = last_is_done;
    }

    /// Has all calls work again.
    pub fn recover(&self) {
        self.state().fails_at = None;
    }

    /// Lets all who ask for records from now on wait for ever.
    pub fn fall_silent(&self) {
        self.state().is_silent = true;
    }

    /// Returns where somebody is answered.
    async fn answers(&self) {
        let is_silent = self.state().is_silent;
        if is_silent {
            std::future::pending::<()>().await;
        }
    }

    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Bytes of all blobs.
    pub fn bytes(&self) -> u64 {
        self.state().blobs.values().map(|(blob, _)| blob.len() as u64).sum()
    }

    pub fn blobs(&self) -> usize {
        self.state().blobs.len()
    }

    pub fn records(&self) -> usize {
        self.state().records.len()
    }

    /// Stores contents for [`Blobs::fetch`], under any hash.
    pub fn store(&self, hash: &str, bytes: Bytes) {
        self.state().contents.insert(hash.to_owned(), bytes);
    }

    /// Makes one call, which does `act` unless it is to fail before.
    fn call<T>(
        &self,
        act: impl FnOnce(&mut MemoryState) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut state = self.state();
        state.calls += 1;
        let gone = || StorageError::Unavailable("it was told to fail".to_owned());
        match state.fails_at {
            Some(at) if state.calls > at + 1 => Err(gone()),
            Some(at) if state.calls == at + 1 => {
                if state.last_is_done {
                    act(&mut state)?;
                }
                Err(gone())
            }
            _ => act(&mut state),
        }
    }
}

#[async_trait]
impl Segments for Memory {
    async fn put(&self, bytes: Bytes) -> Result<String, StorageError> {
        self.call(|state| {
            state.blob += 1;
            let name = format!("blob-{:08}", state.blob);
            state.blobs.insert(name.clone(), (bytes, state.now));
            Ok(name)
        })
    }

    async fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.call(|state| {
            let found = state.blobs.get(name);
            let (blob, _) = found.ok_or_else(|| StorageError::NotFound(name.to_owned()))?;
            let at = |it: u64| usize::try_from(it).unwrap_or(usize::MAX).min(blob.len());
            let (start, end) = (at(range.start), at(range.end));
            Ok(blob.slice(start.min(end)..end))
        })
    }

    async fn remove(&self, name: &str) -> Result<(), StorageError> {
        self.call(|state| {
            state.blobs.remove(name);
            Ok(())
        })
    }

    async fn list(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Time)>, StorageError> {
        self.call(|state| {
            let names = state.blobs.iter().map(|(name, (_, at))| (name.clone(), *at));
            Ok(names
                .filter(|(name, _)| after.is_none_or(|it| name.as_str() > it))
                .take(limit)
                .collect())
        })
    }
}

#[async_trait]
impl Records for Memory {
    async fn get(&self, key: &str) -> Result<Option<Record>, StorageError> {
        self.answers().await;
        self.call(|state| {
            let found = state.records.get(key);
            Ok(found.map(|(version, value)| Record {
                key: key.to_owned(),
                version: *version,
                value: value.clone(),
            }))
        })
    }

    async fn apply(&self, writes: Vec<Write>) -> Result<Vec<u64>, StorageError> {
        self.answers().await;
        self.call(|state| {
            check_keys(&writes)?;
            for write in &writes {
                let version = state.records.get(&write.key).map(|(version, _)| *version);
                if !write.expect.holds(version) {
                    return Err(StorageError::Conflict(write.key.clone()));
                }
            }
            Ok(writes.into_iter().map(|it| state.put(it)).collect())
        })
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, StorageError> {
        self.answers().await;
        self.call(|state| {
            let all = state.records.iter().filter(|(key, _)| key.starts_with(prefix));
            let record = |(key, (version, value)): (&String, &(u64, Bytes))| Record {
                key: key.clone(),
                version: *version,
                value: value.clone(),
            };
            Ok(if reverse {
                let before = |key: &str| after.is_none_or(|it| key < it);
                all.rev().filter(|(key, _)| before(key)).take(limit).map(record).collect()
            } else {
                let behind = |key: &str| after.is_none_or(|it| key > it);
                all.filter(|(key, _)| behind(key)).take(limit).map(record).collect()
            })
        })
    }
}

#[async_trait]
impl Blobs for Memory {
    async fn fetch(
        &self,
        _function: i32,
        hash: &str,
        _size: u64,
        most: u64,
    ) -> Result<Option<Bytes>, StorageError> {
        self.call(|state| {
            Ok(state.contents.get(hash).filter(|it| it.len() as u64 <= most).cloned())
        })
    }
}
