//! What a worker runs. It goes on while no scheduler listens, for a while.

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
use crate::outcomes::Outcomes;
use crate::report::{self, Reporter};
use crate::runner::{Runner, Runners};
use crate::status::Condition;

/// A place for one action. Its runner is lost when a task panics, and made anew when needed.
pub struct SlotPlace {
    pub number: u32,
    pub runner: Option<Box<dyn Runner>>,
}

struct Running {
    slot: u32,
    cancel: CancellationToken,
    reporter: Reporter,
    /// Nobody is told what becomes of it.
    abandoned: bool,
    /// Stopped because the worker has no more time for it.
    given_back: bool,
}

type TaskResult = (SlotPlace, Result<ExecuteResponse, Failure>);
/// A lease and the message that says what became of it.
pub type Outcome = (String, WorkerMessage);

pub struct Work {
    executor: Arc<Executor>,
    runners: Arc<dyn Runners>,
    free: Vec<SlotPlace>,
    tasks: JoinSet<TaskResult>,
    running: HashMap<Id, Running>,
    outcomes: Outcomes,
    /// The session that is open.
    outlet: watch::Sender<Option<mpsc::Sender<WorkerMessage>>>,
    draining: bool,
    /// When what still runs is cancelled because the worker drains.
    drain_until: Option<Instant>,
    /// When what still runs is given up because no scheduler is heard.
    away_until: Option<Instant>,
    condition: Arc<Condition>,
}

impl Work {
    pub fn new(executor: Arc<Executor>, runners: Arc<dyn Runners>, free: Vec<SlotPlace>) -> Self {
        Self {
            executor,
            runners,
            free,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            outcomes: Outcomes::default(),
            outlet: watch::Sender::new(None),
            draining: false,
            drain_until: None,
            away_until: None,
            condition: Arc::default(),
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

    /// What is running, and what has ended so lately that the scheduler may not know.
    pub fn lease_ids(&self) -> Vec<String> {
        self.running_ids().chain(self.outcomes.lease_ids()).map(str::to_owned).collect()
    }

    pub fn running_ids(&self) -> impl Iterator<Item = &str> {
        let current = self.running.values().filter(|running| !running.abandoned);
        current.map(|running| running.reporter.lease_id.as_str())
    }

    /// Something runs, or has ended and nobody knows.
    pub fn is_pending(&self) -> bool {
        !self.running.is_empty() || self.outcomes.is_unsaid()
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// The error says why not. A lease that came before is ignored.
    pub fn start(&mut self, lease: Lease) -> Result<(), Failure> {
        let id = &lease.lease_id;
        if self.outcomes.contains(id) || self.running_ids().any(|running| running == id) {
            return Ok(());
        }
        if self.draining {
            return Err(Failure::Draining("it takes nothing more"));
        }
        let full = || Failure::Infrastructure("the worker has no free slot".to_owned());
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
                (error.id(), None, Err(Failure::Infrastructure(text)))
            }
        };
        let running = self.running.remove(&id)?;
        self.condition.set_running(self.running.len());
        let lost = SlotPlace { number: running.slot, runner: None };
        self.free.push(slot.unwrap_or(lost));
        let lease_id = running.reporter.lease_id;
        let result = match result {
            Err(Failure::Cancelled) if running.given_back => {
                Err(Failure::Draining("its drain time was over before the action had ended"))
            }
            result => result,
        };
        if let Some(observer) = &self.executor.config.observer {
            observer.ended(&result);
        }
        let message = report::completed(lease_id.clone(), result);
        (!running.abandoned).then_some((lease_id, message))
    }

    /// From now on, what runs reports to this session; `Hello` has been sent. Returns what the
    /// session has to say first.
    pub fn connect(&mut self, session: mpsc::Sender<WorkerMessage>) -> Vec<WorkerMessage> {
        self.outlet.send_replace(Some(session));
        let stages = self.running.values().filter_map(|running| running.reporter.stage());
        let stages: Vec<_> = stages.collect();
        stages.into_iter().chain(self.outcomes.say_again(Instant::now())).collect()
    }

    /// The scheduler is there.
    pub fn heard(&mut self) {
        self.condition.heard();
        self.away_until = None;
    }

    /// Nobody listens any more.
    pub fn disconnect(&mut self) {
        let now = Instant::now();
        self.outlet.send_replace(None);
        self.condition.disconnected();
        self.outcomes.session_lost(now);
        self.away_until.get_or_insert(now + self.executor.config.absence);
    }

    /// Keeps what the session is about to say.
    pub fn saying(&mut self, (lease_id, message): Outcome) {
        let now = Instant::now();
        self.outcomes.keep(lease_id, message, Some(now), now);
    }

    pub fn cancel(&mut self, lease_id: &str) {
        self.outcomes.forget(lease_id);
        let mut running = self.running.values();
        if let Some(running) = running.find(|running| running.reporter.lease_id == lease_id) {
            running.cancel.cancel();
        }
    }

    /// Takes nothing more. `false`: it did so before.
    pub fn drain(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.draining, true);
        if first {
            self.condition.drains();
            self.drain_until = Some(Instant::now() + self.executor.config.drain_timeout);
        }
        first
    }

    /// When [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.drain_until.into_iter().chain(self.away_until).min()
    }

    pub fn expire(&mut self) {
        let now = Instant::now();
        if self.away_until.take_if(|until| *until <= now).is_some() && self.is_pending() {
            tracing::warn!(actions = self.running.len(), "stopped: no scheduler was heard");
            self.abandon();
        }
        if self.drain_until.take_if(|until| *until <= now).is_some() {
            self.give_back();
        }
    }

    /// Between two sessions: waits for `wait`, or until a worker that drains has nothing left.
    pub async fn away(&mut self, wait: Duration, shutdown: &CancellationToken) {
        let over = Instant::now() + wait;
        loop {
            let deadline = self.deadline();
            tokio::select! {
                () = tokio::time::sleep_until(over) => return,
                Some(ended) = self.ended() => {
                    if let Some((lease_id, message)) = ended {
                        self.outcomes.keep(lease_id, message, None, Instant::now());
                    }
                }
                () = shutdown.cancelled(), if !self.draining => { self.drain(); }
                () = until(deadline) => self.expire(),
            }
            if self.draining && self.drain_until.is_none() {
                self.abandon();
            }
            if self.draining && !self.is_pending() {
                return;
            }
        }
    }

    /// Another worker is to run what still runs here.
    fn give_back(&mut self) {
        if !self.running.is_empty() {
            tracing::warn!(actions = self.running.len(), "given back: the drain time is over");
        }
        self.running.values_mut().for_each(|running| running.given_back = true);
        self.cancel_all();
    }

    fn cancel_all(&mut self) {
        self.running.values().for_each(|running| running.cancel.cancel());
    }

    /// Nobody will hear of what still runs.
    fn abandon(&mut self) {
        self.outcomes.clear();
        self.running.values_mut().for_each(|running| running.abandoned = true);
        self.cancel_all();
    }

    /// Ends everything, the slots' processes as well.
    pub async fn stop(mut self) {
        self.abandon();
        while self.ended().await.is_some() {}
        for slot in self.free {
            if let Some(runner) = slot.runner {
                runner.stop().await;
            }
        }
        self.executor.tools.stop().await;
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

pub async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
