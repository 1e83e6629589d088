//! Verdicts as a part of a server. Any number of servers have one; one of them decides, and all answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::lease::Fence;
use kiln_net::panics::{is_broken_off, resumed};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::answers::Answers;
use super::book::Book;
use super::error::VerdictError;
use super::inbox::Inbox;
use super::keys;
use super::leading::Leading;
use super::ledger::Owners;
use super::parts::{VerdictOptions, VerdictParts};
use super::shadow::Runs;
use super::store::{Store, TERM};
use super::survey::Survey;
use super::telling::Telling;
use crate::storage::{LeaseRecord, RecordTurn, StorageError};

/// How often it is looked what came, while something is open and while nothing is.
const BUSY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(20);
/// After the records could not be read or written, which all servers find at the same moment.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(5));

/// What a server has of all this. Clones share it.
#[derive(Clone)]
pub struct Verdicts {
    pub book: Book,
    pub answers: Answers,
    pub survey: Survey,
    pub owners: Arc<dyn Owners>,
    /// `None`: other servers decide.
    pub judging: Option<Judging>,
}

impl Verdicts {
    /// Ends shadow runs, and lets another server decide.
    pub async fn shutdown(&self) {
        if let Some(judging) = &self.judging {
            judging.shutdown().await;
        }
    }
}

/// The task that decides where no other server does. Clones share it.
#[derive(Clone)]
pub struct Judging {
    stop: CancellationToken,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Judging {
    /// Must be called within a Tokio runtime. `inbox` is the one that the history writes to.
    pub fn start(options: VerdictOptions, parts: VerdictParts, inbox: Inbox, book: Book) -> Self {
        let stop = CancellationToken::new();
        let leader = LeaseRecord::new(parts.records.clone(), keys::LEADER);
        let turn = leader.turn(parts.name.clone(), TERM);
        let judge = Judge { options, parts, inbox, book, turn };
        let task = tokio::spawn(judge.run(stop.clone()));
        Self { stop, task: Arc::new(Mutex::new(Some(task))) }
    }

    /// Ends what runs, and lets another server decide.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // An error means that it panicked, which has been told.
            task.await.ok();
        }
    }
}

struct Judge {
    options: VerdictOptions,
    parts: VerdictParts,
    inbox: Inbox,
    book: Book,
    turn: RecordTurn,
}

impl Judge {
    async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let mut pause = IDLE;
            let served = async { pause = self.serve_once(&stop).await };
            if is_broken_off("deciding on failures", served).await {
                // It may have renewed the lease meanwhile.
                self.turn.forget().await;
                pause = AGAIN.pause(1);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// How long to wait before the next time.
    async fn serve_once(&self, stop: &CancellationToken) -> Duration {
        match self.serve(stop).await {
            Ok(()) => IDLE,
            Err(VerdictError::Storage(StorageError::Conflict(_))) => BUSY,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no verdicts for now");
                AGAIN.pause(1)
            }
        }
    }

    /// Decides where no other server does, until one does or the end comes.
    async fn serve(&self, stop: &CancellationToken) -> Result<(), VerdictError> {
        let Some(fence) = self.turn.fence().await? else { return Ok(()) };
        let decided = self.decide(fence, stop).await;
        // What was decided has renewed it, or somebody else has it.
        self.turn.forget().await;
        decided
    }

    async fn decide(&self, fence: Fence, stop: &CancellationToken) -> Result<(), VerdictError> {
        let store = Store::new(self.parts.records.clone(), fence);
        let (parts, options) = (self.parts.clone(), self.options.clone());
        let begun = Leading::begin(parts, options, self.book.clone(), self.inbox.clone(), store);
        let mut leading = begun.await?;
        let mut runs = Runs::default();
        let mut telling = JoinSet::new();
        let (parts, book) = (self.parts.clone(), self.book.clone());
        telling.spawn(async move {
            let telling = || Telling::new(&parts, book.clone()).run();
            resumed("telling changes of the quarantine", telling).await;
        });
        loop {
            let busy = leading.step().await?;
            leading.shadow(&mut runs).await?;
            let until = tokio::time::sleep(if busy { BUSY } else { IDLE });
            tokio::select! {
                () = stop.cancelled() => return self.resign(leading).await,
                Some(ended) = runs.ended() => leading.ended(ended).await?,
                () = self.inbox.came() => {}
                () = until => {}
            }
        }
    }

    async fn resign(&self, leading: Leading) -> Result<(), VerdictError> {
        Ok(self.parts.records.write(vec![leading.store.resignation()]).await?)
    }
}
