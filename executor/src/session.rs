//! The conversation with a scheduler: takes leases, gives them to free slots, reports.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_protos::reapi::ExecuteResponse;
use kiln_protos::worker::{
    Draining, Heartbeat, Hello, Lease, Property, SchedulerMessage, WorkerMessage,
    scheduler_message, worker_message,
};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;
use crate::execute::Executor;
use crate::failure::Failure;
use crate::platform;
use crate::report::{self, Reporter};
use crate::runner::{Runner, Runners};

/// Until the scheduler's Welcome says another.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(5);
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(50);

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// Asked for by either side: everything that ran has been reported.
    Drained,
    /// The scheduler went away: what ran was killed.
    Lost,
}

/// A place for one action. Its runner is lost when a task panics, and made anew when needed.
pub struct SlotPlace {
    pub number: u32,
    pub runner: Option<Box<dyn Runner>>,
}

struct Running {
    lease_id: String,
    slot: u32,
    cancel: CancellationToken,
}

type TaskResult = (SlotPlace, Result<ExecuteResponse, Failure>);

pub struct Session<'a> {
    executor: &'a Arc<Executor>,
    runners: &'a Arc<dyn Runners>,
    free: &'a mut Vec<SlotPlace>,
    outgoing: mpsc::Sender<WorkerMessage>,
    tasks: JoinSet<TaskResult>,
    running: HashMap<Id, Running>,
    draining: bool,
    /// When what still runs is cancelled.
    cancel_at: Option<Instant>,
}

/// The other side does not listen any more.
struct Gone;

impl<'a> Session<'a> {
    pub fn new(
        executor: &'a Arc<Executor>,
        runners: &'a Arc<dyn Runners>,
        free: &'a mut Vec<SlotPlace>,
        outgoing: mpsc::Sender<WorkerMessage>,
    ) -> Self {
        Self {
            executor,
            runners,
            free,
            outgoing,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            draining: false,
            cancel_at: None,
        }
    }

    /// All slots are free again when this returns.
    pub async fn run(
        mut self,
        incoming: mpsc::Receiver<SchedulerMessage>,
        shutdown: &CancellationToken,
    ) -> SessionEnd {
        let end = match self.converse(incoming, shutdown).await {
            Ok(()) => SessionEnd::Drained,
            Err(Gone) => SessionEnd::Lost,
        };
        self.abandon_all().await;
        end
    }

    async fn converse(
        &mut self,
        mut incoming: mpsc::Receiver<SchedulerMessage>,
        shutdown: &CancellationToken,
    ) -> Result<(), Gone> {
        let hello = hello(&self.executor.config, self.runners.not_enforced());
        self.send(worker_message::Kind::Hello(hello)).await?;
        let mut heartbeat = heartbeat_every(FIRST_HEARTBEAT);
        while !self.draining || !self.running.is_empty() {
            let (draining, cancel_at) = (self.draining, self.cancel_at);
            tokio::select! {
                message = incoming.recv() => {
                    let kind = message.ok_or(Gone)?.kind;
                    if let Some(interval) = self.handle(kind).await? {
                        heartbeat = heartbeat_every(interval);
                    }
                }
                Some(ended) = self.tasks.join_next_with_id() => self.finish(ended).await?,
                _ = heartbeat.tick() => self.send_heartbeat().await?,
                () = shutdown.cancelled(), if !draining => self.drain().await?,
                () = until(cancel_at) => self.cancel_all(),
            }
        }
        Ok(())
    }

    /// Returns the heartbeat interval when it changes.
    async fn handle(
        &mut self,
        kind: Option<scheduler_message::Kind>,
    ) -> Result<Option<Duration>, Gone> {
        match kind {
            Some(scheduler_message::Kind::Welcome(welcome)) => {
                let interval = Duration::from_millis(welcome.heartbeat_interval_ms.into());
                return Ok(Some(interval.max(SHORTEST_HEARTBEAT)));
            }
            Some(scheduler_message::Kind::Lease(lease)) => self.take(lease).await?,
            Some(scheduler_message::Kind::Cancel(cancel)) => self.cancel(&cancel.lease_id),
            Some(scheduler_message::Kind::Drain(_)) => self.drain().await?,
            // Of a scheduler newer than this worker.
            None => {}
        }
        Ok(None)
    }

    async fn take(&mut self, lease: Lease) -> Result<(), Gone> {
        if self.running.values().any(|running| running.lease_id == lease.lease_id) {
            return Ok(());
        }
        let slot = match self.draining {
            true => Err("the worker is draining"),
            false => self.free.pop().ok_or("the worker has no free slot"),
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(reason) => {
                let failure = Failure::Infrastructure(reason.to_owned());
                return self.send_message(report::completed(lease.lease_id, Err(failure))).await;
            }
        };
        let cancel = CancellationToken::new();
        let running =
            Running { lease_id: lease.lease_id.clone(), slot: slot.number, cancel: cancel.clone() };
        let reporter = Reporter {
            lease_id: lease.lease_id.clone(),
            live: lease.stream_output,
            outgoing: self.outgoing.clone(),
        };
        let (executor, runners) = (self.executor.clone(), self.runners.clone());
        let task = self.tasks.spawn(work(executor, runners, slot, lease, reporter, cancel));
        self.running.insert(task.id(), running);
        Ok(())
    }

    async fn finish(&mut self, ended: Result<(Id, TaskResult), JoinError>) -> Result<(), Gone> {
        match self.take_back(ended) {
            Some((lease_id, result)) => {
                self.send_message(report::completed(lease_id, result)).await
            }
            None => Ok(()),
        }
    }

    /// Frees the slot of a task that has ended. Returns its lease and what became of it.
    fn take_back(
        &mut self,
        ended: Result<(Id, TaskResult), JoinError>,
    ) -> Option<(String, Result<ExecuteResponse, Failure>)> {
        let (id, slot, result) = match ended {
            Ok((id, (slot, result))) => (id, Some(slot), result),
            Err(error) => {
                tracing::error!(%error, "an action made the worker panic");
                let text = format!("the worker failed while it ran the action: {error}");
                (error.id(), None, Err(Failure::Infrastructure(text)))
            }
        };
        let running = self.running.remove(&id)?;
        let lost = SlotPlace { number: running.slot, runner: None };
        self.free.push(slot.unwrap_or(lost));
        Some((running.lease_id, result))
    }

    fn cancel(&mut self, lease_id: &str) {
        let mut running = self.running.values();
        if let Some(running) = running.find(|running| running.lease_id == lease_id) {
            running.cancel.cancel();
        }
    }

    fn cancel_all(&mut self) {
        self.cancel_at = None;
        self.running.values().for_each(|running| running.cancel.cancel());
    }

    async fn drain(&mut self) -> Result<(), Gone> {
        if self.draining {
            return Ok(());
        }
        self.draining = true;
        self.cancel_at = Some(Instant::now() + self.executor.config.drain_timeout);
        self.send(worker_message::Kind::Draining(Draining {})).await
    }

    /// Nobody will hear of what still runs.
    async fn abandon_all(&mut self) {
        self.cancel_all();
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let _ = self.take_back(ended);
        }
    }

    async fn send_heartbeat(&mut self) -> Result<(), Gone> {
        let lease_ids = self.running.values().map(|running| running.lease_id.clone()).collect();
        self.send(worker_message::Kind::Heartbeat(Heartbeat { lease_ids })).await
    }

    async fn send(&mut self, kind: worker_message::Kind) -> Result<(), Gone> {
        self.send_message(report::message(kind)).await
    }

    async fn send_message(&mut self, message: WorkerMessage) -> Result<(), Gone> {
        self.outgoing.send(message).await.map_err(|_| Gone)
    }
}

async fn work(
    executor: Arc<Executor>,
    runners: Arc<dyn Runners>,
    mut slot: SlotPlace,
    lease: Lease,
    reporter: Reporter,
    cancel: CancellationToken,
) -> TaskResult {
    let runner = match slot.runner.take() {
        Some(runner) => Ok(runner),
        None => runners.start(slot.number).await,
    };
    let result = match runner {
        Ok(runner) => {
            let runner = slot.runner.insert(runner);
            executor.execute(&lease, runner.as_mut(), &reporter, &cancel).await
        }
        Err(failure) => Err(failure),
    };
    (slot, result)
}

fn hello(config: &WorkerConfig, not_enforced: Vec<String>) -> Hello {
    let property = |(name, value): (String, String)| Property { name, value };
    let own = config.properties.iter().cloned();
    Hello {
        worker_id: config.worker_id.clone(),
        host_name: config.host_name.clone(),
        slots: config.slots,
        properties: own
            .chain(platform::offers(config.allow_network, !config.images.allow.is_empty()))
            .map(property)
            .collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        not_enforced,
        lease_ids: Vec::new(),
    }
}

fn heartbeat_every(interval: Duration) -> Interval {
    let mut heartbeat = tokio::time::interval_at(Instant::now() + interval, interval);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
