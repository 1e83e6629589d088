//! The boundary of the scheduler, for the queue in Redis.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use kiln_protos::queue;
use kiln_protos::worker::{Hello, SchedulerMessage, Welcome, scheduler_message::Kind};
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::boundary::{
    Hold, Matches, NotTaken, OperationState, Queue, Report, Seat, Stage, Ticket, Unavailable,
    Update,
};
use crate::job::{Job, Outcome};
use crate::names::ForeignLeases;
use crate::queue::platform::Offer;
use crate::queue::{Event, Joined, LeaseId, OperationId, Refusal, Submit, TaskId, WorkerId};
use crate::session::pause_reason;
use crate::snapshot::Snapshot;

use super::calls::Answer;
use super::carried::gather;
use super::local::{Local, Session, Watched};
use super::payload::{decode_job, encode_job, encode_key, encode_request};
use super::react::Own;
use super::wire::{Step, TaskState, Times, Told};
use super::{Inner, RedisQueue, script};

/// A client's hold on a task; dropping it is noticed at once.
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
        let mut local = self.inner.lock();
        let Some(watched) = local.tasks.get_mut(&self.id.task) else { return };
        watched.tickets -= 1;
        let (done, last) = (watched.is_done(), watched.tickets == 0);
        if last {
            local.tasks.remove(&self.id.task);
        }
        if !done {
            let left = if self.gave_up { &mut local.gave_up } else { &mut local.left };
            left.push(self.id);
            self.inner.wake.notify_one();
        }
    }
}

/// Of a job only its first request is at hand.
fn owner(job: &Job, id: OperationId) -> Option<Arc<str>> {
    job.request.owner.clone().filter(|_| id.request == 0)
}

impl Inner {
    fn ticket(self: &Arc<Self>, local: &mut Local, id: OperationId) -> Option<Ticket> {
        let watched = local.tasks.get_mut(&id.task)?;
        watched.tickets += 1;
        Some(Ticket {
            id,
            name: self.operation(&watched.job, id.task, id.request),
            owner: owner(&watched.job, id),
            job: watched.job.clone(),
            streams: watched.streams.clone(),
            updates: watched.updates.subscribe(),
            hold: Box::new(Waiter { inner: self.clone(), id, gave_up: false }),
        })
    }

    fn watch(&self, local: &mut Local, task: TaskId, job: Arc<Job>, stage: Stage, times: Times) {
        local.tasks.entry(task).or_insert_with(|| Watched {
            operation: self.operation(&job, task, 0).into(),
            streams: Arc::new(self.names.streams(&job.key.instance, task)),
            job,
            updates: watch::Sender::new(Update { stage, cancelled: Vec::new() }),
            times,
            tickets: 0,
        });
    }

    async fn submit(self: Arc<Self>, job: Job) -> Result<Ticket, NotTaken> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Refusal::Draining.into());
        }
        let submit = Submit {
            key: job.key.clone(),
            requirement: job.facts.platform.clone(),
            priority: job.priority,
            invocation: job.request.metadata.tool_invocation_id.as_str().into(),
            expected_ms: job.expected_ms,
            timeout_ms: job.facts.timeout_ms.unwrap_or(self.default_timeout_ms),
            do_not_cache: job.facts.do_not_cache,
            skip_cache_lookup: job.request.skip_cache_lookup,
            caller: job.request.owner.clone(),
            avoid: job.request.audit.as_ref().map(|rerun| rerun.avoid.clone()),
        };
        let (payload, request) = (encode_job(&job), encode_request(&job.request));
        let carried = gather(self.completion.blobs(), &job).await;
        let arguments = script::submit(&submit, &encode_key(&job.key), payload, request, carried);
        let answer = self.calls.once(arguments).await;
        let answer = answer.map_err(|error| NotTaken::Unavailable(error.into()))?;
        self.submitted(Arc::new(job), answer)
    }

    fn submitted(self: &Arc<Self>, job: Arc<Job>, answer: Answer) -> Result<Ticket, NotTaken> {
        self.arm(answer.next);
        let mut after = Vec::new();
        let mut ticket = Err(self.limits.refusal(None).into());
        let mut local = self.lock();
        for told in answer.told {
            if let Told::Refused(of) = told {
                ticket = Err(self.limits.refusal(of).into());
                continue;
            }
            let Told::Accepted { id, step, times, .. } = told else {
                self.one(&mut local, told, Some(&mut Own::default()), &mut after);
                continue;
            };
            let stage = if step == Step::Queued { Stage::Queued } else { Stage::Executing };
            self.watch(&mut local, id.task, job.clone(), stage, times);
            ticket = self.ticket(&mut local, id).ok_or(Refusal::Draining.into());
            for early in local.take_early(Some(id.task), None) {
                self.one(&mut local, early, None, &mut after);
            }
        }
        drop(local);
        self.follow_up(after);
        ticket
    }

    async fn attach(self: Arc<Self>, name: String) -> Result<Option<Ticket>, Unavailable> {
        let Some((instance, id)) = self.names.parse_operation(&name) else { return Ok(None) };
        let answer = self.calls.once(script::about("attach", id)).await?;
        self.arm(answer.next);
        let mut after = Vec::new();
        let mut ticket = None;
        let mut local = self.lock();
        for told in answer.told {
            let Told::State(state) = told else {
                self.one(&mut local, told, Some(&mut Own::default()), &mut after);
                continue;
            };
            let Some((job, stage)) = self.known(instance, id, &state) else { continue };
            self.watch(&mut local, id.task, job, stage, state.times.clone());
            ticket = self.ticket(&mut local, id);
            self.one(&mut local, Told::State(state), None, &mut after);
            for early in local.take_early(Some(id.task), None) {
                self.one(&mut local, early, None, &mut after);
            }
        }
        drop(local);
        self.follow_up(after);
        Ok(ticket)
    }

    /// Job and stage of an operation that exists under this very name.
    fn known(
        &self,
        instance: &str,
        id: OperationId,
        state: &TaskState,
    ) -> Option<(Arc<Job>, Stage)> {
        let job = Arc::new(decode_job(&state.job).ok()?);
        let request = id.request as usize;
        let exists = *job.key.instance == *instance
            && request < state.cancelled.len()
            && !state.forgotten.get(request).is_some_and(|forgotten| *forgotten);
        let stage = self.stage(state, &job);
        exists.then_some((job, stage))
    }

    fn state_of(
        &self,
        id: OperationId,
        state: &TaskState,
        job: Arc<Job>,
        stage: Stage,
    ) -> OperationState {
        let cancelled =
            state.cancelled.get(id.request as usize).is_some_and(|cancelled| *cancelled);
        let stage = match stage {
            Stage::Queued | Stage::Executing if cancelled => {
                let operation: Arc<str> = self.operation(&job, id.task, 0).into();
                let run = super::local::run(operation, job.clone(), &state.times);
                let ending = crate::queue::Ending::Cancelled;
                Stage::Done(Arc::new(self.completion.failed(&run, &ending)))
            }
            stage => stage,
        };
        OperationState {
            id,
            name: self.operation(&job, id.task, id.request),
            streams: Arc::new(self.names.streams(&job.key.instance, id.task)),
            owner: owner(&job, id),
            job,
            stage,
        }
    }

    async fn find(&self, name: &str) -> Result<Option<OperationState>, Unavailable> {
        let Some((instance, id)) = self.names.parse_operation(name) else { return Ok(None) };
        let answer = self.calls.again(script::about("look", id)).await?;
        Ok(answer.told.into_iter().find_map(|told| {
            let Told::State(state) = told else { return None };
            let (job, stage) = self.known(instance, id, &state)?;
            Some(self.state_of(id, &state, job, stage))
        }))
    }

    /// All requests of a task, in order.
    pub(super) fn requests_of(&self, state: &TaskState) -> Vec<OperationState> {
        let Ok(job) = decode_job(&state.job) else { return Vec::new() };
        let job = Arc::new(job);
        let stage = self.stage(state, &job);
        let requests = (0..).zip(&state.forgotten).filter(|(_, forgotten)| !**forgotten);
        let state_of = |(request, _): (u32, &bool)| {
            let id = OperationId { task: state.task, request };
            self.state_of(id, state, job.clone(), stage.clone())
        };
        requests.map(state_of).collect()
    }

    async fn join(self: Arc<Self>, hello: Hello, outbound: mpsc::Sender<SchedulerMessage>) -> Seat {
        let (seat, taken_away) = oneshot::channel();
        let mut foreign = ForeignLeases::default();
        let leases = foreign.list(&self.names, hello.lease_ids);
        let strays = leases.iter().copied().collect();
        let joined = Joined {
            worker: WorkerId(0),
            name: hello.worker_id.as_str().into(),
            slots: hello.slots,
            offer: Offer::new(hello.properties.into_iter().map(|p| (p.name, p.value))),
            leases,
            paused: pause_reason(&hello.paused),
        };
        let info = queue::Worker {
            host_name: hello.host_name,
            version: hello.version,
            not_enforced: hello.not_enforced,
        };
        let arguments = script::joined(&joined, info.encode_to_vec());
        let answer = match self.insist(arguments).await {
            Ok(answer) => answer,
            Err(error) => {
                // The seat is taken away at once: the worker comes back later.
                tracing::warn!(%error, worker = %joined.name, "a worker could not join");
                return Seat { worker: WorkerId(0), taken_away };
            }
        };
        let welcome = Welcome { heartbeat_interval_ms: self.worker_heartbeat_ms };
        // A full or closed channel shows when the first lease is sent.
        let _ = outbound.try_send(SchedulerMessage { kind: Some(Kind::Welcome(welcome)) });
        let reports = Arc::new(watch::Sender::new(0));
        let name = joined.name;
        let session =
            Session { name, outbound, heard: None, foreign, strays, reports, _seat: seat };
        let worker = self.seated(session, answer);
        Seat { worker, taken_away }
    }

    fn seated(self: &Arc<Self>, session: Session, answer: Answer) -> WorkerId {
        self.arm(answer.next);
        let (mut session, mut seated) = (Some(session), WorkerId(0));
        let mut after = Vec::new();
        let mut local = self.lock();
        for told in answer.told {
            if let Told::Joined { worker } = &told
                && let Some(session) = session.take()
            {
                seated = *worker;
                local.sessions.insert(seated, session);
                continue;
            }
            self.one(&mut local, told, Some(&mut Own::default()), &mut after);
        }
        for early in local.take_early(None, Some(seated)) {
            self.one(&mut local, early, None, &mut after);
        }
        drop(local);
        self.follow_up(after);
        self.count_busy();
        seated
    }

    async fn completed(self: &Arc<Self>, worker: WorkerId, lease: LeaseId, outcome: Outcome) {
        let task = self.lock().runs.get(&lease).map(|run| run.task);
        // Until it is published or known not to be: what drains waits for it.
        self.publishing.fetch_add(1, Ordering::AcqRel);
        self.lock().publishing.extend(task);
        let mut own = Own { outcome: Some(outcome), answer: None };
        match self.insist(script::completed(worker, lease, task)).await {
            Ok(answer) => {
                self.arm(answer.next);
                let published = answer.told.iter().any(|told| matches!(told, Told::Publish { .. }))
                    && self.lock().runs.contains_key(&lease);
                if !published {
                    self.publishing.fetch_sub(1, Ordering::AcqRel);
                    own.outcome = None;
                    self.not_publishing(task);
                }
                self.react(answer.told, own);
            }
            Err(error) => {
                self.publishing.fetch_sub(1, Ordering::AcqRel);
                self.not_publishing(task);
                self.lock().runs.remove(&lease);
                tracing::error!(%error, "a worker's answer is lost: the queue cannot be told");
            }
        }
        self.count_busy();
    }

    /// The queue may think that the task is published here: it is told the truth soon.
    fn not_publishing(&self, task: Option<TaskId>) {
        if let Some(task) = task {
            self.lock().publishing.remove(&task);
        }
    }

    async fn failed(self: &Arc<Self>, worker: WorkerId, lease: LeaseId, message: String) {
        self.lock().runs.remove(&lease);
        self.tell(Event::Failed { worker, lease, message }).await;
    }

    async fn returned(self: &Arc<Self>, worker: WorkerId, lease: LeaseId, message: String) {
        self.lock().runs.remove(&lease);
        self.tell(Event::Returned { worker, lease, message }).await;
    }

    /// What a worker runs. Redis hears it with others' later, unless it differs from what Redis
    /// believes: then it is returned.
    fn hear_leases(&self, worker: WorkerId, listed: Vec<String>) -> Option<Vec<LeaseId>> {
        let mut local = self.lock();
        let (leases, news) = local.listed(&self.names, worker, listed);
        if news {
            return Some(leases);
        }
        if let Some(session) = local.sessions.get_mut(&worker) {
            session.heard = Some((leases, Instant::now()));
        }
        None
    }

    /// `leases` differ from what Redis believes.
    async fn heartbeat(self: &Arc<Self>, worker: WorkerId, leases: Vec<LeaseId>) {
        // What the worker has answered before is heard before.
        self.all_reported(worker).await;
        self.tell(Event::Heartbeat { worker, leases }).await;
    }

    async fn all_reported(&self, worker: WorkerId) {
        let reports = self.lock().sessions.get(&worker).map(|session| session.reports.clone());
        if let Some(reports) = reports {
            let _ = reports.subscribe().wait_for(|count| *count == 0).await;
        }
    }

    async fn refused(
        self: &Arc<Self>,
        worker: WorkerId,
        lease: LeaseId,
        message: String,
        holds: Vec<LeaseId>,
    ) {
        self.all_reported(worker).await;
        self.lock().runs.remove(&lease);
        self.tell(Event::Refused { worker, lease, message, holds }).await;
    }

    /// Does not keep the worker waiting, who has more to say: no more of these are under way than
    /// it has slots.
    fn aside(
        self: &Arc<Self>,
        worker: WorkerId,
        report: impl Future<Output = ()> + Send + 'static,
    ) {
        let session = self.lock().sessions.get(&worker).map(|session| session.reports.clone());
        let Some(reports) = session else { return };
        reports.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            report.await;
            reports.send_modify(|count| *count -= 1);
        });
    }

    /// Tells an event whose loss does little harm.
    pub(super) async fn tell(self: &Arc<Self>, event: Event) {
        let Some(arguments) = script::event(&event) else { return };
        match self.insist(arguments).await {
            Ok(answer) => self.answered(answer, Own::default()),
            Err(error) => tracing::warn!(%error, "the queue was not told of an event"),
        }
    }

    /// A lease is prolonged only when a good part of its slack is used: most actions are
    /// over before.
    fn is_long(&self, lease: LeaseId) -> bool {
        let quarter = std::time::Duration::from_millis(self.limits.lease_slack / 4);
        let mut local = self.lock();
        let Some(run) = local.runs.get_mut(&lease) else { return false };
        let now = Instant::now();
        let long = now - run.extended > quarter;
        if long {
            run.extended = now;
        }
        long
    }

    fn append_output(&self, lease: LeaseId, stderr: bool, offset: u64, data: &bytes::Bytes) {
        let output = self.lock().runs.get(&lease).map(|run| run.output.clone());
        if let Some(output) = output {
            output.append(stderr, offset, data);
        }
    }
}

/// A client that goes away in the middle must not leave a call half noticed.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Unavailable> {
    tokio::spawn(work).await.map_err(|error| Unavailable(error.to_string()))
}

#[async_trait]
impl Queue for RedisQueue {
    async fn submit(&self, job: Job) -> Result<Ticket, NotTaken> {
        let ticket = to_the_end(self.inner.clone().submit(job)).await;
        ticket.map_err(NotTaken::Unavailable)?
    }

    async fn attach(&self, name: &str) -> Result<Option<Ticket>, Unavailable> {
        to_the_end(self.inner.clone().attach(name.to_owned())).await?
    }

    async fn find(&self, name: &str) -> Result<Option<OperationState>, Unavailable> {
        self.inner.find(name).await
    }

    async fn list(
        &self,
        after: Option<OperationId>,
        limit: usize,
        matches: &Matches,
    ) -> Result<Vec<OperationState>, Unavailable> {
        self.inner.list(after, limit, matches).await
    }

    async fn cancel(&self, name: &str) -> Result<bool, Unavailable> {
        let Some(state) = self.inner.find(name).await? else { return Ok(false) };
        let answer = self.inner.calls.again(script::about("cancel", state.id)).await?;
        self.inner.answered(answer, Own::default());
        Ok(true)
    }

    async fn forget(&self, name: &str) -> Result<bool, Unavailable> {
        let Some(state) = self.inner.find(name).await? else { return Ok(false) };
        self.inner.calls.again(script::about("forget", state.id)).await?;
        Ok(true)
    }

    async fn join(&self, hello: Hello, outbound: mpsc::Sender<SchedulerMessage>) -> Seat {
        self.inner.clone().join(hello, outbound).await
    }

    async fn report(&self, worker: WorkerId, report: Report) {
        let inner = &self.inner;
        match report {
            Report::Heartbeat(listed) => {
                if let Some(news) = inner.hear_leases(worker, listed) {
                    inner.heartbeat(worker, news).await;
                }
            }
            Report::Paused(reason) => inner.tell(Event::WorkerPaused { worker, reason }).await,
            Report::Refused { lease, message, holds } => {
                let (holds, _) = inner.lock().listed(&inner.names, worker, holds);
                inner.refused(worker, lease, message, holds).await;
            }
            Report::Draining => inner.tell(Event::WorkerDraining { worker }).await,
            Report::Progress { lease, phase } => {
                if inner.is_long(lease) {
                    inner.tell(Event::Progress { worker, lease, phase }).await;
                }
            }
            Report::Output { lease, stderr, offset, data } => {
                inner.append_output(lease, stderr, offset, &data);
            }
            Report::Completed { lease, outcome } => {
                let own = inner.clone();
                let report = async move { own.completed(worker, lease, outcome).await };
                inner.aside(worker, report);
            }
            Report::Failed { lease, message } => {
                let own = inner.clone();
                inner.aside(worker, async move { own.failed(worker, lease, message).await });
            }
            Report::Returned { lease, message } => {
                let own = inner.clone();
                inner.aside(worker, async move { own.returned(worker, lease, message).await });
            }
        }
    }

    async fn leave(&self, worker: WorkerId) {
        let inner = &self.inner;
        // What it has answered is heard before it is gone.
        inner.all_reported(worker).await;
        // When this frontend goes, its workers take what they run to another one.
        if !inner.is_closed() && inner.lock().close_session(worker).is_some() {
            inner.tell(Event::WorkerLeft { worker }).await;
        }
    }

    fn lease_id(&self, name: &str) -> LeaseId {
        self.inner.names.lease_id(name)
    }

    async fn drain(&self) {
        let inner = &self.inner;
        inner.draining.store(true, Ordering::Release);
        let workers: Vec<_> = inner.lock().sessions.keys().copied().collect();
        for worker in workers {
            inner.tell(Event::WorkerDraining { worker }).await;
        }
        inner.count_busy();
        let mut busy = inner.busy.subscribe();
        // The sender lives in the queue, which `self` holds.
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    async fn drain_worker(&self, name: &str) -> Result<bool, Unavailable> {
        let arguments = vec![b"drain_worker".to_vec(), name.as_bytes().to_vec()];
        let answer = self.inner.calls.again(arguments).await?;
        let known = answer.told.iter().any(|told| matches!(told, Told::Drain { .. }));
        self.inner.answered(answer, Own::default());
        Ok(known)
    }

    fn close(&self) {
        self.inner.draining.store(true, Ordering::Release);
        self.inner.closed.send_replace(true);
        self.inner.wake.notify_one();
        let mut local = self.inner.lock();
        local.sessions.clear();
        local.runs.clear();
        // Waiters see that nothing will come any more.
        local.tasks.clear();
    }

    async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        self.inner.snapshot().await
    }
}
