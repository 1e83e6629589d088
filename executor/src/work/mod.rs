//! The actions that a worker runs. They go on for a while when no scheduler is heard.

mod end;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_protos::reapi::ExecuteResponse;
use kiln_protos::worker::{Lease, WorkerMessage};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::execute::Executor;
use crate::failure::Failure;
use crate::health::Health;
use crate::report::{self, Reporter};
use crate::runner::{Runner, Runners};
use crate::status::Condition;
use crate::unacknowledged::Unacknowledged;

/// A place for one action. Its runner is lost when a task panics, and made anew when needed.
pub struct SlotPlace {
    pub number: u32,
    pub runner: Option<Box<dyn Runner>>,
}

struct Running {
    slot: u32,
    cancel: CancellationToken,
    reporter: Reporter,
    /// The action was stopped because no scheduler was heard, and none is told what becomes of it.
    abandoned: bool,
    /// The action was stopped because the worker drains and has no more time for it.
    given_back: bool,
}

/// How long a trial of the worker may take: not so long that it is taken for lost.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

type TaskResult = (SlotPlace, Result<ExecuteResponse, Failure>);

/// The message that says what became of a lease.
#[derive(Clone)]
pub struct Outcome {
    pub lease_id: String,
    pub message: WorkerMessage,
    /// The message is of use to the open session only, and is not kept for the next one.
    passing: bool,
}

pub struct Work {
    executor: Arc<Executor>,
    runners: Arc<dyn Runners>,
    free: Vec<SlotPlace>,
    tasks: JoinSet<TaskResult>,
    running: HashMap<Id, Running>,
    unacknowledged: Unacknowledged,
    /// Where messages of the open session go; `None`: no session is open.
    outlet: watch::Sender<Option<mpsc::Sender<WorkerMessage>>>,
    draining: bool,
    /// When the actions that still run are given back because the worker drains; `None`: never.
    drain_until: Option<Instant>,
    /// When the actions that still run are given up because no scheduler is heard; `None`: never.
    away_until: Option<Instant>,
    condition: Arc<Condition>,
    health: Health,
}

impl Work {
    pub fn new(executor: Arc<Executor>, runners: Arc<dyn Runners>, free: Vec<SlotPlace>) -> Self {
        let health = Health::new(executor.config.work_dir.clone());
        Self {
            executor,
            runners,
            free,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            unacknowledged: Unacknowledged::default(),
            outlet: watch::Sender::new(None),
            draining: false,
            drain_until: None,
            away_until: None,
            condition: Arc::default(),
            health,
        }
    }

    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    pub fn condition(&self) -> Arc<Condition> {
        self.condition.clone()
    }

    pub fn not_enforced(&self) -> Vec<String> {
        self.runners.not_enforced()
    }

    /// Why the worker takes no leases for now; `None`: it takes them.
    pub fn paused(&self) -> Option<&str> {
        self.health.paused()
    }

    /// Pauses the worker where its disk has no room for an action.
    pub fn look_for_room(&mut self) {
        self.health.look_for_room(Instant::now());
        self.show_health();
    }

    fn show_health(&self) {
        self.condition.set_paused(self.health.paused());
    }

    /// The ids of leases that run, and of those that ended so lately that the scheduler may not
    /// know it.
    pub fn lease_ids(&self) -> Vec<String> {
        self.running_ids().chain(self.unacknowledged.lease_ids()).map(str::to_owned).collect()
    }

    /// The ids of the leases that take up a slot.
    pub fn running_ids(&self) -> impl Iterator<Item = &str> {
        self.running.values().map(|running| running.reporter.lease_id.as_str())
    }

    /// Whether an action runs, or has ended without a scheduler that was told.
    pub fn is_pending(&self) -> bool {
        !self.running.is_empty() || self.unacknowledged.is_unsaid()
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Takes a lease. The error says why not. A lease that came before is ignored.
    pub fn start(&mut self, lease: Lease) -> Result<(), Failure> {
        let id = &lease.lease_id;
        if self.unacknowledged.contains(id) || self.running_ids().any(|running| running == id) {
            return Ok(());
        }
        if self.draining {
            return Err(Failure::Draining("it takes nothing more"));
        }
        self.look_for_room();
        if let Some(reason) = self.paused() {
            return Err(Failure::Refused(reason.to_owned()));
        }
        let full = || Failure::Refused("it has no free slot".to_owned());
        let slot = self.free.pop().ok_or_else(full)?;
        let cancel = CancellationToken::new();
        let reporter = Reporter::new(id.clone(), lease.stream_output, self.outlet.subscribe());
        let running = Running {
            slot: slot.number,
            cancel: cancel.clone(),
            reporter: reporter.clone(),
            abandoned: false,
            given_back: false,
        };
        let (executor, runners) = (self.executor.clone(), self.runners.clone());
        let task = self.tasks.spawn(work(executor, runners, slot, lease, reporter, cancel));
        self.running.insert(task.id(), running);
        self.condition.set_running(self.running.len());
        Ok(())
    }

    /// Waits for an action to end; `Some(None)`: one that was abandoned. `None` at once when
    /// nothing runs. May be given up at any point.
    pub async fn ended(&mut self) -> Option<Option<Outcome>> {
        let ended = self.tasks.join_next_with_id().await?;
        Some(self.take_back(ended))
    }

    /// Frees the slot of a task that has ended.
    fn take_back(&mut self, ended: Result<(Id, TaskResult), JoinError>) -> Option<Outcome> {
        let (id, slot, result) = match ended {
            Ok((id, (slot, result))) => (id, Some(slot), result),
            Err(error) => {
                tracing::error!(%error, "an action made the worker panic");
                let text = format!("the worker failed while it ran the action: {error}");
                (error.id(), None, Err(Failure::Infrastructure(text.into())))
            }
        };
        let running = self.running.remove(&id)?;
        self.condition.set_running(self.running.len());
        let lost = SlotPlace { number: running.slot, runner: None };
        self.free.push(slot.unwrap_or(lost));
        let lease_id = running.reporter.lease_id;
        if let Err(failure @ Failure::Infrastructure(_)) = &result {
            let failure = failure.in_full();
            tracing::warn!(lease = lease_id, failure, "an action did not run to an end");
        }
        self.health.ended(&result, Instant::now());
        self.show_health();
        let result = match result {
            Err(Failure::Cancelled) if running.given_back => {
                Err(Failure::Draining("its drain time was over before the action had ended"))
            }
            result => result,
        };
        if let Some(observer) = &self.executor.config.observer {
            observer.ended(&result);
        }
        if !running.abandoned {
            let message = report::completed(lease_id.clone(), result);
            return Some(Outcome { lease_id, message, passing: false });
        }
        // Whoever listens now was told that it takes up a slot.
        let why = Failure::Refused("it was stopped: no scheduler was heard".to_owned());
        let message = report::refused(lease_id.clone(), &why, self.lease_ids());
        let listened_to = self.outlet.borrow().is_some();
        listened_to.then_some(Outcome { lease_id, message, passing: true })
    }

    /// Takes a session, in which `Hello` has been sent: what runs reports to it from now on.
    /// Returns the messages that it has to send first.
    pub fn connect(&mut self, session: mpsc::Sender<WorkerMessage>) -> Vec<WorkerMessage> {
        self.outlet.send_replace(Some(session));
        let stages = self.running.values().filter_map(|running| running.reporter.stage());
        let stages: Vec<_> = stages.collect();
        stages.into_iter().chain(self.unacknowledged.say_again(Instant::now())).collect()
    }

    /// Takes note that the scheduler has said something.
    pub fn heard(&mut self) {
        self.condition.heard();
        self.away_until = None;
    }

    /// Takes note that the session is over. What runs goes on until the scheduler has been away for
    /// too long.
    pub fn disconnect(&mut self) {
        let now = Instant::now();
        self.outlet.send_replace(None);
        self.condition.disconnected();
        self.unacknowledged.session_lost(now);
        self.away_until.get_or_insert(now + self.executor.config.absence);
    }

    /// Keeps the result that the session is about to send.
    pub fn saying(&mut self, outcome: Outcome) {
        let now = Instant::now();
        if !outcome.passing {
            self.unacknowledged.keep(outcome.lease_id, outcome.message, Some(now), now);
        }
    }

    pub fn cancel(&mut self, lease_id: &str) {
        self.unacknowledged.forget(lease_id);
        let mut running = self.running.values();
        if let Some(running) = running.find(|running| running.reporter.lease_id == lease_id) {
            running.cancel.cancel();
        }
    }

    /// When the worker is to try whether it works again; `None`: it is not paused.
    pub fn trial_at(&self) -> Option<Instant> {
        self.health.trial_at()
    }

    /// Finds out whether actions would run here. A slot that is free is made anew for it.
    pub async fn try_itself(&mut self) {
        let disk = self.health.disk_trial();
        let runners = self.runners.clone();
        let slot = self.free.last_mut();
        let trial = async {
            disk.await?;
            let Some(slot) = slot else { return Ok(()) };
            if let Some(runner) = slot.runner.take() {
                runner.stop().await;
            }
            let runner = runners.start(slot.number).await;
            slot.runner = Some(runner.map_err(|failure| failure.in_full())?);
            Ok::<(), String>(())
        };
        let trial = tokio::time::timeout(TRIAL_TIMEOUT, trial).await;
        let late = || Err(format!("a trial was not over after {TRIAL_TIMEOUT:?}"));
        self.health.tried(trial.unwrap_or_else(|_| late()), Instant::now());
        self.show_health();
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
