//! Builds and executions as records, and what is learned from them.
//!
//! One task subscribes to the events of executions and writes them in batches; the ones that
//! publish never wait for it. Reads see what is not written yet as well. Of the cache hits of
//! one build only the first are kept one by one; its counts stay exact. A build is known from
//! its first request on; of requests that have not ended it only counts how many there are.
//!
//! One journal at a time writes to a set of records: that of the only process, or that of a
//! whole fleet (`fleet/`).

mod config;
mod durations;
mod fleet;
mod keys;
mod limits;
mod memory;
mod query;
mod shared;
mod stages;
mod store;
mod summary;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use kiln_cas::events::Events;
use kiln_cas::records::{RecordsError, SharedRecords};
use kiln_protos::events::Timeline;
use tokio::sync::{mpsc, oneshot};

pub use config::JournalConfig;
pub use memory::{JournalEntry, MAX_PENDING, MAX_RECENT_RUNS};
pub use query::{Earlier, MAX_PAGE, Page, Query, outputs_of};
pub use stages::{STAGES, Stage, take_worker_times};
pub use store::{action_of, digest_of};
pub use summary::{
    BuildSummary, Class, Counts, MnemonicCounts, between, has_failed, is_part, queue_ns, run_ns,
};

use crate::job::{DurationEstimator, unix_nanos};
use shared::Inner;
use store::Store;
use writer::{Command, Writer};

/// Requests to flush or to shut down that wait.
const MAX_COMMANDS: usize = 16;
/// Handle on the journal.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
    /// The commands of each of the journal's tasks, in the order in which events go through these.
    commands: Vec<mpsc::Sender<Command>>,
}

/// Counters of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalStats {
    /// Executions that are in records.
    pub executions: u64,
    pub builds: u64,
    /// Executions that are not in records yet; in a fleet, those that are not sent to it yet.
    pub pending: usize,
    pub durations: usize,
    /// Counts of all requests since the process started.
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

    /// Flushes and ends the journal's tasks; what is published later is not taken in any more.
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
