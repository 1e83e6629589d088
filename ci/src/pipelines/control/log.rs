//! What an attempt prints: it is kept in parts while it runs, so that every frontend can show it, and stays after a crash.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::keys;
use crate::pipelines::runner::{Progress, TaskKey};
use crate::storage::{Expect, Records, StorageError, Write};

/// Bytes of one part of a log.
const CHUNK: usize = 128 << 10;
/// Bytes that are kept of one attempt, and of a run while one process drives it.
pub const MAX_LOG: u64 = 1 << 20;
const MAX_OF_RUN: u64 = 64 << 20;
/// Bytes that wait for being kept.
const MAX_WAITING: usize = 2 << 20;
const CUT: &[u8] = b"\n[kiln: the log is cut off here]\n";
/// Characters of a line that says what is done now.
const MAX_STANDING: usize = 200;

pub struct AttemptLog {
    key: TaskKey,
    inner: Mutex<Inner>,
    /// Bytes of all logs of the run so far.
    total: Arc<AtomicU64>,
}

#[derive(Default)]
struct Inner {
    /// The offset at which ends what was told.
    end: u64,
    /// The offset at which ends what is kept.
    kept: u64,
    waiting: Vec<u8>,
    is_cut: bool,
    standing: String,
}

impl AttemptLog {
    /// Opens the log of an attempt, and goes on behind what is kept of it.
    pub async fn open(
        key: TaskKey,
        records: &dyn Records,
        total: Arc<AtomicU64>,
    ) -> Result<Self, StorageError> {
        let last = records.list(&keys::text(&key), None, true, 1).await?;
        let end = last.first().and_then(|it| Some(keys::offset(&it.key)? + it.value.len() as u64));
        let end = end.unwrap_or(0);
        let inner = Inner { end, kept: end, ..Inner::default() };
        Ok(Self { key, inner: Mutex::new(inner), total })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn line(&self) -> String {
        self.inner().standing.clone()
    }

    /// Keeps what waits; of a character that is not whole nothing, unless this is the end. Errors: it waits on.
    pub async fn flush(&self, records: &dyn Records, is_end: bool) -> Result<(), StorageError> {
        loop {
            let (start, part) = {
                let inner = self.inner();
                let length = inner.waiting.len().min(CHUNK);
                let part = inner.waiting.get(..length).unwrap_or_default();
                let part = if is_end { part } else { whole(part) };
                (inner.end - inner.waiting.len() as u64, Bytes::copy_from_slice(part))
            };
            if part.is_empty() {
                return Ok(());
            }
            let (length, key) = (part.len(), keys::chunk(&self.key, start));
            let write = Write { key, expect: Expect::Absent, value: Some(part) };
            match records.write(vec![write]).await {
                // Somebody else has kept it.
                Ok(()) | Err(StorageError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
            let mut inner = self.inner();
            inner.waiting.drain(..length);
            inner.kept = start + length as u64;
        }
    }
}

/// The part without the beginning of a character at its end.
fn whole(part: &[u8]) -> &[u8] {
    match std::str::from_utf8(part) {
        Err(error) if error.error_len().is_none() => {
            part.get(..error.valid_up_to()).unwrap_or_default()
        }
        _ => part,
    }
}

impl Progress for AttemptLog {
    fn logged(&self) -> u64 {
        self.inner().kept
    }

    fn log(&self, offset: u64, chunk: Bytes) {
        let mut inner = self.inner();
        let known = usize::try_from(inner.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(new) = chunk.get(known..).filter(|new| !new.is_empty()) else { return };
        let total = self.total.load(Ordering::Relaxed) + new.len() as u64;
        let is_full = inner.end + new.len() as u64 > MAX_LOG
            || total > MAX_OF_RUN
            || inner.waiting.len() + new.len() > MAX_WAITING;
        let new = match is_full {
            true if inner.is_cut => return,
            true => CUT,
            false => new,
        };
        inner.is_cut = is_full;
        inner.waiting.extend(new);
        inner.end += new.len() as u64;
        self.total.fetch_add(new.len() as u64, Ordering::Relaxed);
    }

    fn standing(&self, line: &str) {
        self.inner().standing = line.chars().take(MAX_STANDING).collect();
    }
}
