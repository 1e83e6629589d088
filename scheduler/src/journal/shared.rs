//! What a journal has in memory, and how it goes on from what its records hold.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_cas::records::{RecordsError, SharedRecords};

use super::config::JournalConfig;
use super::keys;
use super::memory::Memory;
use super::store::{self, Meta};
use super::summary::BuildSummary;

/// Executions read at the start for the times of recent runs.
const RESTORED_RUNS: usize = 1000;

/// The state that the handles on a journal share with its tasks.
pub struct Inner {
    pub config: JournalConfig,
    pub records: SharedRecords,
    memory: Mutex<Memory>,
    /// The counts in the records, as of the last batch.
    meta: Mutex<Meta>,
    /// When this process began, in nanoseconds since the Unix epoch: requests that an earlier
    /// one knew have no end. `None`: the queue outlives its processes.
    pub since: Option<i64>,
}

impl Inner {
    /// Goes on from what `records` hold, of which `meta` was read.
    pub async fn restore(
        config: JournalConfig,
        records: SharedRecords,
        meta: Meta,
    ) -> Result<Self, RecordsError> {
        let mut memory = Memory::new(&config);
        memory.last_seq = meta.last_seq;
        for learned in store::read_durations(&records, config.max_durations).await? {
            memory.durations.restore(learned);
        }
        let recent = records.list(keys::EXECUTIONS, None, true, RESTORED_RUNS).await?;
        for entry in recent.iter().rev().filter_map(store::entry) {
            // What another process wrote since then comes again.
            if entry.seq <= meta.last_seq {
                memory.remember_run(&entry.execution);
            }
        }
        let (memory, meta) = (Mutex::new(memory), Mutex::new(meta));
        Ok(Self { config, records, memory, meta, since: None })
    }

    /// Whether the build was last active before this process began, which alone knows the queue: it
    /// cannot go on.
    pub fn is_of_before(&self, build: &BuildSummary) -> bool {
        self.since.is_some_and(|since| build.active_at < since)
    }

    pub fn meta(&self) -> Meta {
        *self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn publish_meta(&self, meta: Meta) {
        *self.meta.lock().unwrap_or_else(PoisonError::into_inner) = meta;
    }
}
