//! What is executed becomes history: runs of tests are recognized, their reports read, and attempts
//! committed in batches. Nobody waits for it: what comes faster than it can be taken in is lost, and
//! counted; what cannot be written waits, and is tried again.

mod executed;
mod figures;
mod parts;
mod report;
mod writer;

use std::sync::Arc;

use kiln_protos::events::Execution;
use tokio::sync::{mpsc, oneshot};

use crate::attempts::Attempt;
use crate::events::FileRef;
use crate::services::Reports;
use crate::storage::Blobs;

pub use figures::Recordings;
pub use parts::RecorderParts;

use figures::{Counters, Recorded};
use report::Reader;
use writer::{Command, Reported, Writer};

/// Reports of attempts that wait to be read. What is beyond is lost, and counted.
const MAX_OFFERS: usize = 4096;
/// Requests to flush or to end that wait.
const MAX_COMMANDS: usize = 16;

/// Reads what an execution was, for whoever had it run.
#[derive(Clone)]
pub struct AttemptReader(Reader);

impl AttemptReader {
    /// The attempt that it was, with its cases; nothing when it was no run of a test.
    pub async fn attempt(&self, execution: &Execution) -> Option<Attempt> {
        executed::attempt(&self.0, execution).await
    }
}

/// Handle on the task that records. Clones share it.
#[derive(Clone)]
pub struct Recorder {
    offers: mpsc::Sender<Reported>,
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
}

impl Recorder {
    /// Must be called within a Tokio runtime: the task lives there until [`Recorder::shutdown`].
    pub fn start(parts: RecorderParts) -> Self {
        let (offers, offered) = mpsc::channel(MAX_OFFERS);
        let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
        let counters = Arc::<Counters>::default();
        let writer = Writer::new(parts, offered, inbox, counters.clone());
        tokio::spawn(writer.run());
        Self { offers, commands, counters }
    }

    /// Returns when all that happened before is in the history, or could not be written.
    pub async fn flush(&self) {
        self.command(Command::Flush).await;
    }

    /// Writes what was taken in, as [`Self::flush`] does, and takes in nothing more.
    pub async fn shutdown(&self) {
        self.command(Command::Shutdown).await;
    }

    async fn command(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, finished) = oneshot::channel();
        // An error means that the task has ended: then nothing is pending.
        if self.commands.send(command(done)).await.is_ok() {
            finished.await.ok();
        }
    }

    /// Reads attempts as this recorder does, from the same store.
    pub fn reader(&self, blobs: Arc<dyn Blobs>) -> AttemptReader {
        AttemptReader(Reader { blobs, counters: self.counters.clone() })
    }

    /// Counters since the start.
    pub fn figures(&self) -> Recordings {
        self.counters.now()
    }
}

impl Reports for Recorder {
    fn offer(&self, attempt: Attempt, report: FileRef) {
        let offer = Reported { attempt, report };
        if self.offers.try_send(offer).is_err() {
            self.counters.count(Recorded::ReportLost, 1);
        }
    }
}
