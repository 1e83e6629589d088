//! The in-process queue: the state machine behind one lock, and timers.
//!
//! Nothing runs while nothing is due: waiters sleep on watch channels, workers on their
//! message channels, and one task on the machine's next timer.

mod effects;
mod snapshot;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use kiln_cas::logs::LogStreams;
use kiln_protos::worker::{Drain, Hello, SchedulerMessage, Welcome, scheduler_message::Kind};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::boundary::{
    Hold, Matches, NotTaken, OperationState, Queue, Report, Seat, Stage, StreamNames, Ticket,
    Unavailable, Update,
};
use crate::completion::SharedCompletion;
use crate::config::SchedulerConfig;
use crate::job::{Finished, Job, Outcome, Request, Run, UnixNanos, unix_nanos};
use crate::names::{ForeignLeases, Names};
use crate::queue::platform::Offer;
use crate::queue::{
    Effect, Event, Joined, LeaseId, Machine, Millis, OperationId, Refusal, Submit, TaskId, WorkerId,
};
use crate::session::pause_reason;
use crate::snapshot::Snapshot;

use effects::After;

/// See the module. Clones share one queue.
#[derive(Clone)]
pub struct MemoryQueue {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    completion: SharedCompletion,
    logs: LogStreams,
    names: Names,
    started: Instant,
    timer: Arc<Notify>,
    drained: watch::Sender<bool>,
    default_timeout: Duration,
    worker_heartbeat_ms: u32,
}

struct State {
    machine: Machine,
    effects: Vec<Effect>,
    entries: BTreeMap<TaskId, Entry>,
    sessions: HashMap<WorkerId, Session>,
    /// Sessions whose channel is full or closed.
    broken: Vec<WorkerId>,
    next_worker: u64,
    /// What the timer task sleeps for.
    armed: Millis,
    /// Input and answer of the submission that is being handled.
    submitted: Option<Job>,
    answer: Option<Result<OperationId, Refusal>>,
    /// Input of the completion that is being handled.
    outcome: Option<Outcome>,
    completed: BTreeMap<i32, u64>,
}

/// What the machine does not need to know about a task.
struct Entry {
    job: Arc<Job>,
    operation: Arc<str>,
    streams: StreamNames,
    requests: Vec<Arc<Request>>,
    updates: watch::Sender<Update>,
    queued_at: UnixNanos,
    leased_at: UnixNanos,
    worker: Arc<str>,
    attempts: u32,
    answer: Option<Arc<Finished>>,
    forgotten: Vec<u32>,
}

impl Entry {
    fn owner(&self, id: OperationId) -> Option<Arc<str>> {
        self.requests.get(id.request as usize)?.owner.clone()
    }
}

struct Session {
    name: Arc<str>,
    host_name: String,
    version: String,
    not_enforced: Vec<String>,
    foreign: ForeignLeases,
    outbound: mpsc::Sender<SchedulerMessage>,
    /// Dropped with the session, which tells its task.
    _seat: oneshot::Sender<()>,
}

impl Entry {
    fn run(&self) -> Run {
        Run {
            operation: self.operation.clone(),
            job: self.job.clone(),
            queued_at: self.queued_at,
            leased_at: self.leased_at,
            worker: self.worker.clone(),
            attempts: self.attempts,
        }
    }
}

impl MemoryQueue {
    /// Must be called within a Tokio runtime.
    pub fn start(config: &SchedulerConfig, logs: LogStreams, completion: SharedCompletion) -> Self {
        let state = State {
            machine: Machine::new(config.limits.clone()),
            effects: Vec::new(),
            entries: BTreeMap::new(),
            sessions: HashMap::new(),
            broken: Vec::new(),
            next_worker: 0,
            armed: Millis::MAX,
            submitted: None,
            answer: None,
            outcome: None,
            completed: BTreeMap::new(),
        };
        let inner = Arc::new(Inner {
            state: Mutex::new(state),
            completion,
            logs,
            names: Names::new(),
            started: Instant::now(),
            timer: Arc::default(),
            drained: watch::channel(false).0,
            default_timeout: config.default_timeout,
            worker_heartbeat_ms: u32::try_from(config.worker_heartbeat.as_millis())
                .unwrap_or(u32::MAX),
        });
        tokio::spawn(run_timers(Arc::downgrade(&inner), inner.timer.clone()));
        Self { inner }
    }
}

/// Feeds the machine when something is due, until the queue is gone.
async fn run_timers(inner: Weak<Inner>, wake: Arc<Notify>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let next = strong.arm();
        let at = next.map(|next| strong.started + Duration::from_millis(next));
        drop(strong);
        match at {
            Some(at) => {
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = wake.notified() => {}
                }
            }
            None => wake.notified().await,
        }
        let Some(strong) = inner.upgrade() else { return };
        strong.feed(Event::Tick);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.timer.notify_one();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    fn arm(&self) -> Option<Millis> {
        let mut state = self.lock();
        let next = state.machine.next_timer();
        state.armed = next.unwrap_or(Millis::MAX);
        next
    }

    fn feed(self: &Arc<Self>, event: Event) {
        self.with(|inner, state, after| inner.handle(state, event, after));
    }

    /// Works on the state, then does outside of the lock what that led to.
    fn with<T>(self: &Arc<Self>, work: impl FnOnce(&Self, &mut State, &mut Vec<After>) -> T) -> T {
        let mut after = Vec::new();
        let mut state = self.lock();
        let value = work(self, &mut state, &mut after);
        let next = state.machine.next_timer().unwrap_or(Millis::MAX);
        let earlier = next < state.armed;
        if earlier {
            state.armed = next;
        }
        drop(state);
        if earlier {
            self.timer.notify_one();
        }
        for after in after {
            self.follow_up(after);
        }
        value
    }

    /// The ids of leases that a worker has listed.
    fn listed(&self, worker: WorkerId, listed: Vec<String>) -> Vec<LeaseId> {
        let mut state = self.lock();
        let session = state.sessions.get_mut(&worker);
        session.map(|session| session.foreign.list(&self.names, listed)).unwrap_or_default()
    }

    fn ticket(self: &Arc<Self>, state: &State, id: OperationId) -> Option<Ticket> {
        let entry = state.entries.get(&id.task)?;
        Some(Ticket {
            id,
            name: self.names.operation(&entry.job.key.instance, id),
            job: entry.job.clone(),
            owner: entry.owner(id),
            streams: entry.streams.clone(),
            updates: entry.updates.subscribe(),
            hold: Box::new(Waiter { inner: self.clone(), id, gave_up: false }),
        })
    }

    /// The entry of an operation that exists under this very name.
    fn resolve<'a>(&self, state: &'a State, name: &str) -> Option<(OperationId, &'a Entry)> {
        let (instance, id) = self.names.parse_operation(name)?;
        let entry = state.entries.get(&id.task)?;
        let known = *entry.job.key.instance == *instance
            && (id.request as usize) < entry.requests.len()
            && !entry.forgotten.contains(&id.request);
        known.then_some((id, entry))
    }

    fn state_of(&self, id: OperationId, entry: &Entry) -> OperationState {
        OperationState {
            id,
            name: self.names.operation(&entry.job.key.instance, id),
            job: entry.job.clone(),
            owner: entry.owner(id),
            streams: entry.streams.clone(),
            stage: entry.updates.borrow().stage_of(id.request),
        }
    }
}

/// A waiter; dropping it is noticed at once.
struct Waiter {
    inner: Arc<Inner>,
    id: OperationId,
    gave_up: bool,
}

impl Hold for Waiter {
    fn give_up(mut self: Box<Self>) {
        self.gave_up = true;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let left = if self.gave_up { Event::GaveUp } else { Event::Detach };
        self.inner.feed(left(self.id));
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn submit(&self, job: Job) -> Result<Ticket, NotTaken> {
        let default_timeout = self.inner.default_timeout.as_millis() as u64;
        let submit = Submit {
            key: job.key.clone(),
            requirement: job.facts.platform.clone(),
            priority: job.priority,
            invocation: job.request.metadata.tool_invocation_id.as_str().into(),
            expected_ms: job.expected_ms,
            timeout_ms: job.facts.timeout_ms.unwrap_or(default_timeout),
            do_not_cache: job.facts.do_not_cache,
            skip_cache_lookup: job.request.skip_cache_lookup,
            caller: job.request.owner.clone(),
            avoid: job.request.audit.as_ref().map(|rerun| rerun.avoid.clone()),
        };
        let queue = &self.inner;
        queue.with(|inner, state, after| {
            state.submitted = Some(job);
            inner.handle(state, Event::Submit(Box::new(submit)), after);
            let id = state.answer.take().unwrap_or(Err(Refusal::Draining))?;
            queue.ticket(state, id).ok_or(Refusal::Draining.into())
        })
    }

    async fn attach(&self, name: &str) -> Result<Option<Ticket>, Unavailable> {
        let queue = &self.inner;
        Ok(queue.with(|inner, state, after| {
            let (id, _) = inner.resolve(state, name)?;
            inner.handle(state, Event::Attach(id), after);
            queue.ticket(state, id)
        }))
    }

    async fn find(&self, name: &str) -> Result<Option<OperationState>, Unavailable> {
        let state = self.inner.lock();
        let found = self.inner.resolve(&state, name);
        Ok(found.map(|(id, entry)| self.inner.state_of(id, entry)))
    }

    async fn list(
        &self,
        after: Option<OperationId>,
        limit: usize,
        matches: &Matches,
    ) -> Result<Vec<OperationState>, Unavailable> {
        let state = self.inner.lock();
        let first = after.map_or(TaskId(0), |after| after.task);
        let mut found = Vec::new();
        for (task, entry) in state.entries.range(first..) {
            for request in 0..entry.requests.len() as u32 {
                let id = OperationId { task: *task, request };
                if after.is_some_and(|after| id <= after) || entry.forgotten.contains(&request) {
                    continue;
                }
                if found.len() == limit {
                    return Ok(found);
                }
                let operation = self.inner.state_of(id, entry);
                if matches(&operation) {
                    found.push(operation);
                }
            }
        }
        Ok(found)
    }

    async fn cancel(&self, name: &str) -> Result<bool, Unavailable> {
        Ok(self.inner.with(|inner, state, after| {
            let Some((id, _)) = inner.resolve(state, name) else { return false };
            inner.handle(state, Event::Cancel(id), after);
            true
        }))
    }

    async fn forget(&self, name: &str) -> Result<bool, Unavailable> {
        let mut state = self.inner.lock();
        let Some((id, _)) = self.inner.resolve(&state, name) else { return Ok(false) };
        if let Some(entry) = state.entries.get_mut(&id.task) {
            entry.forgotten.push(id.request);
        }
        Ok(true)
    }

    async fn join(&self, hello: Hello, outbound: mpsc::Sender<SchedulerMessage>) -> Seat {
        self.inner.with(|inner, state, after| {
            state.next_worker += 1;
            let worker = WorkerId(state.next_worker);
            let (seat, taken_away) = oneshot::channel();
            let name: Arc<str> = hello.worker_id.into();
            let welcome = Welcome { heartbeat_interval_ms: inner.worker_heartbeat_ms };
            // A full or closed channel shows when the first lease is sent.
            let _ = outbound.try_send(SchedulerMessage { kind: Some(Kind::Welcome(welcome)) });
            let mut foreign = ForeignLeases::default();
            let leases = foreign.list(&inner.names, hello.lease_ids);
            let session = Session {
                name: name.clone(),
                foreign,
                host_name: hello.host_name,
                version: hello.version,
                not_enforced: hello.not_enforced,
                outbound,
                _seat: seat,
            };
            state.sessions.insert(worker, session);
            let offer = Offer::new(hello.properties.into_iter().map(|p| (p.name, p.value)));
            let paused = pause_reason(&hello.paused);
            let joined = Joined { worker, name, slots: hello.slots, offer, leases, paused };
            inner.handle(state, Event::WorkerJoined(joined), after);
            Seat { worker, taken_away }
        })
    }

    async fn report(&self, worker: WorkerId, report: Report) {
        let event = match report {
            Report::Heartbeat(listed) => {
                let leases = self.inner.listed(worker, listed);
                Event::Heartbeat { worker, leases }
            }
            Report::Refused { lease, message, holds } => {
                let holds = self.inner.listed(worker, holds);
                Event::Refused { worker, lease, message, holds }
            }
            Report::Paused(reason) => Event::WorkerPaused { worker, reason },
            Report::Draining => Event::WorkerDraining { worker },
            Report::Progress { lease, phase } => Event::Progress { worker, lease, phase },
            Report::Failed { lease, message } => Event::Failed { worker, lease, message },
            Report::Returned { lease, message } => Event::Returned { worker, lease, message },
            Report::Output { lease, stderr, offset, data } => {
                return self.inner.append_output(worker, lease, stderr, offset, &data);
            }
            Report::Completed { lease, outcome } => {
                return self.inner.with(|inner, state, after| {
                    state.outcome = Some(outcome);
                    inner.handle(state, Event::Completed { worker, lease }, after);
                    state.outcome = None;
                });
            }
        };
        self.inner.feed(event);
    }

    async fn leave(&self, worker: WorkerId) {
        self.inner.with(|inner, state, after| {
            state.sessions.remove(&worker);
            inner.handle(state, Event::WorkerLeft { worker }, after);
        });
    }

    fn lease_id(&self, name: &str) -> LeaseId {
        self.inner.names.lease_id(name)
    }

    async fn drain(&self) {
        let mut drained = self.inner.drained.subscribe();
        self.inner.feed(Event::Drain);
        // The sender lives in the queue, which `self` holds.
        let _ = drained.wait_for(|drained| *drained).await;
    }

    async fn drain_worker(&self, name: &str) -> Result<bool, Unavailable> {
        Ok(self.inner.with(|inner, state, after| {
            let Some(worker) = state.machine.worker_named(&name.into()) else { return false };
            inner.handle(state, Event::WorkerDraining { worker }, after);
            inner.send(state, worker, Kind::Drain(Drain {}));
            true
        }))
    }

    fn close(&self) {
        self.inner.with(|inner, state, after| {
            inner.handle(state, Event::Drain, after);
            state.sessions.clear();
            // Waiters see that nothing will come any more.
            state.entries.clear();
        });
    }

    async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        Ok(self.inner.snapshot())
    }
}
