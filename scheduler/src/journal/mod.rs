//! Builds and executions as records, and what is learned from them.
//!
//! One task subscribes to the events of executions and writes them in batches; the ones that
//! publish never wait for it. Reads see what is not written yet as well. Of the cache hits of
//! one build only the first are kept one by one; its counts stay exact. A build is known from
//! its first request on; of requests that have not ended it only counts how many there are.
//!
//! One journal at a time writes to a set of records: that of the only process, or that of a
//! whole fleet (`fleet/`).

mod durations;
mod fleet;
mod keys;
mod limits;
mod memory;
mod query;
mod stages;
mod store;
mod summary;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_cas::events::Events;
use kiln_cas::records::{RecordsError, SharedRecords};
use kiln_protos::events::Timeline;
use tokio::sync::{mpsc, oneshot};

pub use memory::{Entry, MAX_PENDING, MAX_RECENT_RUNS};
pub use query::{Earlier, MAX_PAGE, Page, Query, outputs_of};
pub use stages::{STAGES, Stage, take_worker_times};
pub use store::{action_of, digest_of};
pub use summary::{
    BuildSummary, Class, Counts, MnemonicCounts, between, has_failed, queue_ns, run_ns,
};

use crate::job::DurationEstimator;
use memory::Memory;
use store::{Meta, Store};
use writer::{Command, Writer};

/// Requests to flush or to shut down that wait.
const MAX_COMMANDS: usize = 16;
/// Executions read at the start for the times of recent runs.
const RESTORED_RUNS: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// Executions kept; the oldest go first.
    pub max_executions: u64,
    /// Builds kept; the oldest go first.
    pub max_builds: u64,
    /// Cache hits of one build that are kept one by one; all are counted.
    pub max_stored_hits_per_build: u64,
    /// Pairs of target and mnemonic whose run time is remembered.
    pub max_durations: usize,
    /// Written as soon as this many executions are pending ...
    pub batch_count: usize,
    /// ... or this long after the first of them.
    pub batch_delay: Duration,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            max_executions: 100_000,
            max_builds: 2_000,
            max_stored_hits_per_build: 1_000,
            max_durations: 20_000,
            batch_count: 200,
            batch_delay: Duration::from_millis(500),
        }
    }
}

/// Handle on the journal.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
    /// Of each task, in the order in which events go through them.
    commands: Vec<mpsc::Sender<Command>>,
}

struct Inner {
    config: JournalConfig,
    records: SharedRecords,
    memory: Mutex<Memory>,
    /// As of the last batch.
    meta: Mutex<Meta>,
    /// When this process began, in nanoseconds since the Unix epoch: requests that an earlier
    /// one knew have no end. `None`: the queue outlives its processes.
    since: Option<i64>,
}

/// Counters of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalStats {
    /// Kept in records.
    pub executions: u64,
    pub builds: u64,
    /// Not written yet; in a fleet, not sent to it yet.
    pub pending: usize,
    pub durations: usize,
    /// Of all requests since the process started.
    pub counts: Counts,
    /// Events that came faster than they could be taken in.
    pub lost_events: u64,
    /// Executions given up because records could not be written for too long.
    pub dropped: u64,
    pub failed_writes: u64,
}

impl Journal {
    /// Subscribes to `events` and goes on from what `records` hold. Call within a tokio
    /// runtime: the writing task lives there until [`Self::shutdown`].
    pub async fn start(
        records: SharedRecords,
        events: &Events,
        config: JournalConfig,
    ) -> Result<Self, RecordsError> {
        // First of all, so that nothing published from now on is missed.
        let (begun, events) = (events.subscribe_begun(), events.subscribe());
        let store = Store::open(records.clone()).await?;
        let mut inner = Inner::restore(config, records, store.meta).await?;
        inner.since = Some(unix_nanos());
        let inner = Arc::new(inner);
        let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
        let writer = Writer {
            inner: inner.clone(),
            store,
            events,
            begun,
            commands: inbox,
            due: None,
            failures: 0,
        };
        tokio::spawn(writer.run());
        Ok(Self { inner, commands: vec![commands] })
    }

    /// Returns when everything published before is durable, or could not be written. In a fleet
    /// it is durable once it is in Redis; the pages show it a moment later.
    pub async fn flush(&self) {
        self.command(Command::Flush).await;
    }

    /// The same; what is published later is not taken in any more.
    pub async fn shutdown(&self) {
        self.command(Command::Shutdown).await;
    }

    async fn command(&self, command: impl Fn(oneshot::Sender<()>) -> Command) {
        for commands in &self.commands {
            let (done, finished) = oneshot::channel();
            // An error means that the task has ended: then nothing is pending.
            if commands.send(command(done)).await.is_ok() {
                let _ = finished.await;
            }
        }
    }

    /// Times of the last runs by workers, oldest first, at most [`MAX_RECENT_RUNS`].
    pub fn recent_runs(&self) -> Vec<Timeline> {
        self.inner.memory().runs.iter().copied().collect()
    }

    /// A worker has run this target and mnemonic, successfully and not long ago.
    pub fn has_run(&self, target: &str, mnemonic: &str) -> bool {
        self.inner.memory().durations.has_run(target, mnemonic)
    }

    /// Requests of a build that have begun and will never end, because the server that knew
    /// them is gone; and those that have not ended yet.
    pub fn lost_and_open(&self, build: &BuildSummary) -> (u64, u64) {
        let open = build.open();
        if self.inner.is_of_before(build) { (build.lost + open, 0) } else { (build.lost, open) }
    }

    pub fn stats(&self) -> JournalStats {
        let meta = self.inner.meta();
        let memory = self.inner.memory();
        JournalStats {
            executions: meta.executions,
            builds: meta.builds,
            pending: memory.pending.len() + memory.unsent,
            durations: memory.durations.len(),
            counts: memory.counts,
            lost_events: memory.lost_events,
            dropped: memory.dropped,
            failed_writes: memory.failed_writes,
        }
    }

    fn records(&self) -> &SharedRecords {
        &self.inner.records
    }
}

impl DurationEstimator for Journal {
    fn expected_ms(&self, target: &str, mnemonic: &str) -> Option<u64> {
        self.inner.memory().durations.expected_ms(target, mnemonic)
    }
}

impl Inner {
    /// Goes on from what `records` hold, of which `meta` was read.
    async fn restore(
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

    /// Nothing of the build has happened since this process began, which alone knows the queue.
    fn is_of_before(&self, build: &BuildSummary) -> bool {
        self.since.is_some_and(|since| build.active_at < since)
    }

    fn meta(&self) -> Meta {
        *self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_meta(&self, meta: Meta) {
        *self.meta.lock().unwrap_or_else(PoisonError::into_inner) = meta;
    }
}

fn unix_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
