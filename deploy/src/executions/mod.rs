//! Records of executions: what every action that ran here was made of and left, and which results each invocation was
//! given. They are written in batches, out of the events that say how requests ended; nobody who builds waits for them.
//! What comes faster than it can be written is lost, counted, and named when provenance is asked for.
//!
//! A record is named by the result that it left in the action cache, so that a hit, by whatever build at whatever
//! frontend, leads to the execution that made it. A hit without a record is recorded as a result that nobody here is known
//! to have run. What nobody was given for a while is removed.

mod aging;
mod archive;
mod batch;
mod clock;
mod figures;
mod kept;
mod keys;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod trees;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use kiln_cas::SharedBlobStore;
use kiln_cas::records::SharedRecords;
use kiln_net::panics::{spawn_heard, spawn_resumed};
use kiln_protos::events::Execution;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

pub use archive::{Invocation, RecordArchive};
pub use clock::Clock;
pub use figures::ExecutionFigures;
pub use kept::{function, record, result};
pub use keys::RecordId;
pub use store::{ExecutionStore, Loss};

use clock::day;
use figures::{Counters, count};
use writer::{Command, Writer};

/// Requests to flush or to end that wait.
const MAX_COMMANDS: usize = 16;
/// How often old records are looked for, and how soon again where there are many.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
const SWEEP_ON: Duration = Duration::from_millis(200);

/// What records of executions stand on.
pub struct ExecutionParts {
    pub records: SharedRecords,
    pub blobs: SharedBlobStore,
    /// What is executed from now on.
    pub executions: broadcast::Receiver<Arc<Execution>>,
    pub clock: Clock,
    /// Records that nobody used for so long are removed.
    pub keep: Duration,
}

/// Handle on the tasks that record and that remove. Clones share them.
#[derive(Clone)]
pub struct Executions {
    pub store: ExecutionStore,
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
    sweeping: Arc<Sweeping>,
}

struct Sweeping(JoinHandle<()>);

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Executions {
    /// Must be called within a Tokio runtime: the tasks live there until [`Executions::shutdown`].
    pub fn start(parts: ExecutionParts) -> Self {
        let ExecutionParts { records, blobs, executions, clock, keep } = parts;
        let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
        let counters = Arc::<Counters>::default();
        let stores = (records.clone(), blobs);
        let writer = Writer::new(stores, executions, inbox, counters.clone(), clock.clone());
        spawn_heard("recording executions", writer.run());
        let (swept, into) = (records.clone(), counters.clone());
        let sweeping = spawn_resumed("removing old records of executions", move || {
            keep_swept(swept.clone(), into.clone(), clock.clone(), keep)
        });
        let sweeping = Arc::new(Sweeping(sweeping));
        Self { store: ExecutionStore::new(records), commands, counters, sweeping }
    }

    /// Returns when all that happened before is recorded, or could not be.
    pub async fn flush(&self) {
        self.command(Command::Flush).await;
    }

    /// Writes what was taken in, as [`Self::flush`] does, and takes in nothing more.
    pub async fn shutdown(&self) {
        self.sweeping.0.abort();
        self.command(Command::Shutdown).await;
    }

    async fn command(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, finished) = oneshot::channel();
        // An error means that the task has ended: then nothing is pending.
        if self.commands.send(command(done)).await.is_ok() {
            finished.await.ok();
        }
    }

    /// Counters since the start.
    pub fn figures(&self) -> ExecutionFigures {
        self.counters.now()
    }
}

async fn keep_swept(records: SharedRecords, counters: Arc<Counters>, clock: Clock, keep: Duration) {
    loop {
        let now = clock();
        let before = now.saturating_sub(i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX));
        let more = match aging::remove_old(&records, day(before), before).await {
            Ok((removed, more)) => {
                count(&counters.aged, removed);
                more
            }
            Err(error) => {
                let error = kiln_net::causes::chain(&error);
                tracing::warn!(error, "old records of executions could not be removed");
                false
            }
        };
        tokio::time::sleep(if more { SWEEP_ON } else { SWEEP_EVERY }).await;
    }
}
