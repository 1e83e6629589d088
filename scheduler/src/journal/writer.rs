//! The one task that takes events in and writes them down.

use std::sync::Arc;
use std::time::Duration;

use kiln_cas::events::EVENT_BUFFER;
use kiln_cas::records::RecordsError;
use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::clock::{unix_nanos, until};
use kiln_net::panics::caught;
use kiln_protos::events::{Begun, Execution};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::keys;
use super::memory::Memory;
use super::shared::Inner;
use super::store::{Store, Unit, build_unit, decode, duration_unit, execution_unit};
use super::summary::{ActiveBuild, BuildSummary};

/// Retention steps after one flush: the rest waits for the next, so that events are not kept
/// waiting.
pub(super) const PRUNE_STEPS: usize = 4;
/// Learned durations written with one flush.
const DURATIONS_PER_FLUSH: usize = 4096;
/// The time between two looks at what was published: being woken for each event costs those who
/// publish more than all the rest of it.
pub(super) const GATHER: Duration = Duration::from_millis(5);
/// Wait after a failed write before the next try, at most.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(30);

pub(super) enum Command {
    /// Everything published before is to be durable (or lost, with an error in the log).
    Flush(oneshot::Sender<()>),
    /// As `Flush`, and then the task ends.
    Shutdown(oneshot::Sender<()>),
}

pub(super) struct Writer {
    pub inner: Arc<Inner>,
    pub store: Store,
    pub events: Receiver<Arc<Execution>>,
    pub begun: Receiver<Arc<Begun>>,
    pub commands: mpsc::Receiver<Command>,
    /// When to write what is pending; `None`: nothing is.
    pub due: Option<Instant>,
    pub failures: u32,
}

impl Writer {
    pub async fn run(mut self) {
        while let Err(panicked) = caught(self.turns()).await {
            panicked.goes_on("the journal").await;
        }
    }

    async fn turns(&mut self) {
        let mut gathering = None;
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Flush(done)) => {
                        self.drain().await;
                        // Nobody may wait any more.
                        let _ = done.send(());
                    }
                    Some(Command::Shutdown(done)) => {
                        self.drain().await;
                        let _ = done.send(());
                        return;
                    }
                    // Every handle is gone.
                    None => return self.drain().await,
                },
                () = until(due) => self.flush().await,
                () = until(gathering), if gathering.is_some() => gathering = None,
                event = self.events.recv(), if gathering.is_none() => {
                    match event {
                        Ok(execution) => self.take(&execution).await,
                        Err(RecvError::Lagged(lost)) => self.memory().lost_events += lost,
                        Err(RecvError::Closed) => return self.answer_commands().await,
                    }
                    self.take_published().await;
                    gathering = Some(Instant::now() + GATHER);
                },
                begun = self.begun.recv(), if gathering.is_none() => {
                    match begun {
                        Ok(begun) => self.begin(&begun).await,
                        Err(RecvError::Lagged(lost)) => self.memory().lost_events += lost,
                        Err(RecvError::Closed) => return self.answer_commands().await,
                    }
                    self.take_published().await;
                    gathering = Some(Instant::now() + GATHER);
                },
            }
        }
    }

    /// Answers commands after the last event: nothing more will be published.
    async fn answer_commands(&mut self) {
        self.drain().await;
        while let Some(command) = self.commands.recv().await {
            self.drain().await;
            match command {
                Command::Flush(done) => {
                    let _ = done.send(());
                }
                Command::Shutdown(done) => {
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    /// Takes in all that was published, and writes it.
    async fn drain(&mut self) {
        self.take_published().await;
        self.flush().await;
    }

    /// Takes what was published, at most as many events as the buffer holds, so that the rest of
    /// the work gets its turn.
    async fn take_published(&mut self) {
        for _ in 0..EVENT_BUFFER {
            match self.begun.try_recv() {
                Ok(begun) => self.begin(&begun).await,
                Err(TryRecvError::Lagged(lost)) => self.memory().lost_events += lost,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        for _ in 0..EVENT_BUFFER {
            match self.events.try_recv() {
                Ok(execution) => self.take(&execution).await,
                Err(TryRecvError::Lagged(lost)) => self.memory().lost_events += lost,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    async fn take(&mut self, execution: &Arc<Execution>) {
        self.resume_build(&execution.invocation_id).await;
        let config = &self.inner.config;
        let (max_batch, delay) = (config.batch_count, config.batch_delay);
        let (full, dirty) = {
            let mut memory = self.memory();
            memory.add(execution, now_nanos());
            let full = memory.pending.len() >= max_batch;
            (full, full || self.due.is_none() && memory.is_dirty())
        };
        if full && self.failures == 0 {
            self.flush().await;
        } else if dirty && self.due.is_none() {
            self.due = Some(Instant::now() + delay);
        }
    }

    async fn begin(&mut self, begun: &Begun) {
        self.resume_build(&begun.invocation_id).await;
        let is_dirty = {
            let mut memory = self.memory();
            memory.begin(begun, now_nanos());
            memory.is_dirty()
        };
        if is_dirty && self.due.is_none() {
            self.due = Some(Instant::now() + self.inner.config.batch_delay);
        }
    }

    /// Puts a build that is known from earlier back into memory.
    async fn resume_build(&self, invocation: &str) {
        if invocation.is_empty() || self.memory().builds.contains_key(invocation) {
            return;
        }
        let found = self.store.records.get(&keys::build(invocation)).await;
        if let Ok(Some(record)) = found
            && let Ok(summary) = decode(&record)
        {
            let is_of_before = self.inner.is_of_before(&summary);
            let mut build = ActiveBuild::resumed(summary);
            if is_of_before {
                build.write_off();
            }
            self.memory().builds.insert(invocation.to_owned(), build);
        }
    }

    async fn flush(&mut self) {
        self.due = None;
        match self.write_pending().await {
            Ok(()) => {
                self.failures = 0;
                self.prune().await;
            }
            Err(error) => self.back_off(&error),
        }
        self.memory().bound_builds();
    }

    fn back_off(&mut self, error: &RecordsError) {
        self.failures += 1;
        let backoff = Backoff::new(self.inner.config.batch_delay, MAX_BACKOFF);
        let delay = backoff.pause(self.failures);
        self.memory().failed_writes += 1;
        self.due = Some(Instant::now() + delay);
        let error = chain(error);
        tracing::warn!(error, ?delay, "the journal could not be written; it will be tried again");
    }

    /// Writes what is pending, in as few steps as it fits into, since each waits for the disk. Only what is durable then
    /// leaves the memory.
    async fn write_pending(&mut self) -> Result<(), RecordsError> {
        let pending: Vec<_> =
            self.memory().pending.iter().map(|(seq, it)| (*seq, it.clone())).collect();
        let builds = self.dirty_builds();
        let changes = self.memory().durations.take_changed(DURATIONS_PER_FLUSH);
        let units = pending.iter().map(|(seq, execution)| execution_unit(*seq, execution));
        let units =
            units.chain(builds.iter().map(|(summary, is_new)| build_unit(summary, *is_new)));
        let units: Vec<Unit> = units
            .chain(changes.iter().map(|((target, mnemonic), learned)| {
                duration_unit(target, mnemonic, learned.as_ref())
            }))
            .collect();
        let (written, result) = self.store.write(units).await;
        // Units are written in their order.
        let written_builds = written.saturating_sub(pending.len());
        let written_changes = written_builds.saturating_sub(builds.len());
        let mut memory = self.memory();
        for (seq, _) in pending.iter().take(written) {
            memory.pending.remove(seq);
        }
        for (summary, _) in builds.iter().take(written_builds) {
            // This task alone changes builds: nothing was added in between.
            if let Some(build) = memory.builds.get_mut(&summary.invocation_id) {
                build.dirty = false;
                build.stored = true;
            }
        }
        if result.is_err() {
            let left = changes.into_iter().skip(written_changes).collect();
            memory.durations.put_back(left);
        }
        result
    }

    /// Builds that have changed since they were written, and whether they are new.
    fn dirty_builds(&self) -> Vec<(BuildSummary, bool)> {
        let memory = self.memory();
        let dirty = memory.builds.values().filter(|build| build.dirty);
        dirty.map(|build| (build.summary.clone(), !build.stored)).collect()
    }

    async fn prune(&mut self) {
        let (executions, builds) = (self.inner.config.max_executions, self.inner.config.max_builds);
        for _ in 0..PRUNE_STEPS {
            let more = match self.store.prune_executions(executions).await {
                Ok(more) => more,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "old executions could not be removed");
                    return;
                }
            };
            if !more {
                break;
            }
        }
        match self.store.prune_builds(builds).await {
            Ok(pruned) => {
                let gone = |first_seq| pruned.contains(&first_seq);
                self.memory().builds.retain(|_, build| !gone(build.summary.first_seq));
            }
            Err(error) => tracing::warn!(error = chain(&error), "old builds could not be removed"),
        }
        self.inner.publish_meta(self.store.meta);
        let over = self.store.meta.executions > executions || self.store.meta.builds > builds;
        if over && self.due.is_none() {
            self.due = Some(Instant::now() + self.inner.config.batch_delay);
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.inner.memory()
    }
}

fn now_nanos() -> u64 {
    u64::try_from(unix_nanos()).unwrap_or(0)
}
