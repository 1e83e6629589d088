//! The task that records.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::clock::until;
use kiln_net::panics::caught;
use kiln_protos::events::Execution;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;

use super::executed;
use super::figures::{Counters, Recorded};
use super::parts::RecorderParts;
use super::report::Reader;
use crate::attempts::Attempt;
use crate::events::FileRef;
use crate::history::History;
use crate::services::Clock;

/// Executions and reports that are read at the same time.
const MAX_READING: usize = 8;
/// Attempts and cases that wait to be written; beyond them nothing more is taken in.
const MAX_PENDING: usize = 200_000;
/// A batch is written as soon as so many attempts and cases are pending ...
const BATCH: usize = 20_000;
/// ... or when the first of them has been pending for so long: half a second after it ended, with [`GATHER`].
const DELAY: Duration = Duration::from_millis(450);
/// The time between two looks at what was executed: most of it are no tests, and being woken for each hit in a cache
/// costs those who publish more than all that is done about it.
const GATHER: Duration = Duration::from_millis(50);
/// Executions that are looked at in a row, so that the rest of the work gets its turn.
const IN_A_ROW: usize = 4096;
/// After a write that failed. All frontends fail at the same moment.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));
/// Tries while somebody waits, and what is between them.
const LAST_TRIES: u32 = 3;
const LAST_AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(2));

/// An attempt that build events told of, and where its cases are.
pub struct Reported {
    pub attempt: Attempt,
    pub report: FileRef,
}

pub enum Command {
    Flush(oneshot::Sender<()>),
    Shutdown(oneshot::Sender<()>),
}

pub struct Writer {
    history: Arc<History>,
    clock: Arc<dyn Clock>,
    reader: Reader,
    /// `None`: no more come.
    executions: Option<broadcast::Receiver<Arc<Execution>>>,
    offers: mpsc::Receiver<Reported>,
    commands: mpsc::Receiver<Command>,
    reading: FuturesUnordered<BoxFuture<'static, Option<Attempt>>>,
    pending: Vec<Attempt>,
    /// Attempts and cases that are pending.
    weight: usize,
    /// When the next batch is written.
    due: Option<Instant>,
    /// Writes that failed since one went well.
    failures: u32,
}

impl Writer {
    pub fn new(
        parts: RecorderParts,
        offers: mpsc::Receiver<Reported>,
        commands: mpsc::Receiver<Command>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            history: parts.history,
            clock: parts.clock,
            reader: Reader { blobs: parts.blobs, counters },
            executions: parts.executions,
            offers,
            commands,
            reading: FuturesUnordered::new(),
            pending: Vec::new(),
            weight: 0,
            due: None,
            failures: 0,
        }
    }

    pub async fn run(mut self) {
        let mut gathering = None;
        loop {
            let (has_room, due) = (self.has_room(), self.due);
            tokio::select! {
                Some(offer) = self.offers.recv(), if has_room => self.begin_report(offer),
                event = published(&mut self.executions), if has_room && gathering.is_none() => {
                    self.take(event);
                    let is_all = self.take_published();
                    gathering = is_all.then(|| Instant::now() + GATHER);
                }
                () = until(gathering), if gathering.is_some() => gathering = None,
                Some(attempt) = self.reading.next(), if !self.reading.is_empty() => {
                    self.add(attempt);
                    self.add_read();
                }
                () = until(due) => self.commit().await,
                command = self.commands.recv() => match command {
                    Some(Command::Flush(done)) => {
                        self.drain().await;
                        done.send(()).ok();
                    }
                    Some(Command::Shutdown(done)) => {
                        self.drain().await;
                        done.send(()).ok();
                        return;
                    }
                    None => return,
                },
            }
        }
    }

    fn has_room(&self) -> bool {
        self.reading.len() < MAX_READING && self.weight < MAX_PENDING
    }

    /// Takes in what was published before, as far as there is room. Answers whether that was all of it.
    fn take_published(&mut self) -> bool {
        for _ in 0..IN_A_ROW {
            if !self.has_room() {
                return false;
            }
            match self.at_hand() {
                Some(event) => self.take(event),
                None => return true,
            }
        }
        false
    }

    /// Takes in an execution, or how many were lost.
    fn take(&mut self, event: Result<Arc<Execution>, u64>) {
        match event {
            Ok(event) if executed::may_be_a_test(&event) => {
                let reader = self.reader.clone();
                let read = async move { executed::attempt(&reader, &event).await };
                self.reading.push(Box::pin(whole(read)));
            }
            Ok(_) => {}
            Err(lost) => self.count(Recorded::ExecutionLost, lost),
        }
    }

    /// Begins to read the report of an attempt.
    fn begin_report(&mut self, Reported { attempt, report }: Reported) {
        let Some(blob) = report.blob else { return };
        let reader = self.reader.clone();
        let read = async move {
            let read = reader.with_cases(attempt, 0, &blob).await;
            // Without them it is in the history already.
            (!read.cases.is_empty()).then_some(read)
        };
        self.reading.push(Box::pin(whole(read)));
    }

    fn add(&mut self, attempt: Option<Attempt>) {
        let Some(attempt) = attempt else { return };
        self.weight += 1 + attempt.cases.len();
        self.pending.push(attempt);
        let now = Instant::now();
        if self.failures == 0 && self.weight >= BATCH {
            self.due = Some(now);
        }
        self.due.get_or_insert(now + DELAY);
    }

    /// Adds what has been read besides: a turn of [`Self::run`] looks at all else that may happen, and sets its timers.
    fn add_read(&mut self) {
        while let Some(Some(attempt)) = self.reading.next().now_or_never() {
            self.add(attempt);
        }
    }

    async fn commit(&mut self) {
        self.due = None;
        while !self.pending.is_empty() {
            let count = self.batch();
            let batch = self.pending.get(..count).unwrap_or_default();
            if let Err(error) = self.history.commit(self.clock.now(), batch).await {
                self.count(Recorded::FailedWrite, 1);
                self.failures = self.failures.saturating_add(1);
                let again_in = AGAIN.pause(self.failures);
                let error = chain(&error);
                tracing::warn!(error, ?again_in, "attempts at tests cannot be written");
                self.due = Some(Instant::now() + again_in);
                return;
            }
            self.count(Recorded::Attempt, count as u64);
            let written = self.pending.drain(..count);
            self.weight -= written.map(|it| 1 + it.cases.len()).sum::<usize>();
            self.failures = 0;
        }
    }

    /// How many of those that are pending are written in one step, which has bounds.
    fn batch(&self) -> usize {
        let mut weight = 0;
        let fits = |it: &&Attempt| {
            weight += 1 + it.cases.len();
            weight <= BATCH
        };
        self.pending.iter().take_while(fits).count().max(1)
    }

    /// Takes in, reads and writes all that happened so far.
    async fn drain(&mut self) {
        loop {
            while self.reading.len() < MAX_READING && self.take_one() {}
            match self.reading.next().await {
                Some(attempt) => self.add(attempt),
                None => break,
            }
            if self.weight >= MAX_PENDING {
                self.write_or_drop().await;
            }
        }
        self.write_or_drop().await;
    }

    async fn write_or_drop(&mut self) {
        for tried in 1..=LAST_TRIES {
            self.commit().await;
            if self.pending.is_empty() {
                return;
            }
            tokio::time::sleep(LAST_AGAIN.pause(tried)).await;
        }
        self.count(Recorded::Dropped, self.pending.len() as u64);
        self.pending.clear();
        (self.weight, self.failures, self.due) = (0, 0, None);
    }

    /// Takes in what came already, be it a report or an execution. `false`: nothing did.
    fn take_one(&mut self) -> bool {
        if let Ok(offer) = self.offers.try_recv() {
            self.begin_report(offer);
            return true;
        }
        let Some(event) = self.at_hand() else { return false };
        self.take(event);
        true
    }

    /// The next execution that was published already, or how many were lost.
    fn at_hand(&mut self) -> Option<Result<Arc<Execution>, u64>> {
        match self.executions.as_mut()?.try_recv() {
            Ok(event) => Some(Ok(event)),
            Err(TryRecvError::Lagged(lost)) => Some(Err(lost)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    fn count(&self, kind: Recorded, by: u64) {
        self.reader.counters.count(kind, by);
    }
}

/// The next execution, or how many were lost.
async fn published(
    executions: &mut Option<broadcast::Receiver<Arc<Execution>>>,
) -> Result<Arc<Execution>, u64> {
    if let Some(receiver) = executions {
        let event = receiver.recv().await;
        match event {
            Ok(event) => return Ok(event),
            Err(RecvError::Lagged(lost)) => return Err(lost),
            Err(RecvError::Closed) => *executions = None,
        }
    }
    std::future::pending().await
}

/// One run that cannot be read does not end the recording of all.
async fn whole(read: impl Future<Output = Option<Attempt>>) -> Option<Attempt> {
    caught(read).await.unwrap_or_else(|panicked| {
        tracing::warn!(%panicked, "a run of a test is not recorded");
        None
    })
}
