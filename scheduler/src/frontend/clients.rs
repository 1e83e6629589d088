//! What clients want of the queue: jobs and operations.

use std::sync::Arc;

use tokio::sync::watch;

use crate::api::{Hold, Matches, OperationState, Stage, Ticket, Unavailable, Update};
use crate::job::Job;
use crate::queue::{Ending, Event, OperationId, Refusal, Submit, TaskId};

use super::engine::{Call, Engine};
use super::inner::Inner;
use super::local::{Local, Watched};
use super::react::{FollowUp, Own};
use super::told::{Attempt, TaskStatus, Told};

/// Tasks that are read at once for a list.
const PAGE: usize = 200;
/// Milliseconds that a job is queued with, as if it took so long, which is to go before all others of its build.
const FIRST_MS: u64 = 7 * 24 * 3_600_000;

/// A client's hold on a task; dropping it is noticed at once.
struct Waiter<E: Engine> {
    inner: Arc<Inner<E>>,
    id: OperationId,
    gave_up: bool,
}

impl<E: Engine> Hold for Waiter<E> {
    fn give_up(mut self: Box<Self>) {
        self.gave_up = true;
    }
}

impl<E: Engine> Drop for Waiter<E> {
    fn drop(&mut self) {
        if self.inner.lock().let_go(self.id.task) {
            E::left(&self.inner, self.id, self.gave_up);
        }
    }
}

impl<E: Engine> Inner<E> {
    fn ticket(
        self: &Arc<Self>,
        local: &mut Local,
        id: OperationId,
        owner: Option<Arc<str>>,
    ) -> Option<Ticket> {
        let watched = local.tasks.get_mut(&id.task)?;
        watched.tickets += 1;
        Some(Ticket {
            id,
            name: match id.request {
                0 => watched.operation.to_string(),
                request => self.operation(&watched.job, id.task, request),
            },
            owner,
            job: watched.job.clone(),
            streams: watched.streams.clone(),
            updates: watched.updates.subscribe(),
            hold: Box::new(Waiter { inner: self.clone(), id, gave_up: false }),
        })
    }

    fn watch(
        &self,
        local: &mut Local,
        task: TaskId,
        job: Arc<Job>,
        stage: Stage,
        attempt: Attempt,
    ) {
        local.tasks.entry(task).or_insert_with(|| Watched {
            operation: self.operation(&job, task, 0).into(),
            streams: Arc::new(self.names.streams(&job.key.instance, task)),
            job,
            updates: watch::Sender::new(Update { stage, cancelled: Vec::new() }),
            attempt,
            tickets: 0,
        });
    }

    /// Reacts to the news of a task that came before anybody here waited for it.
    fn take_early(&self, local: &mut Local, task: TaskId, after: &mut Vec<FollowUp>) {
        for early in local.early.take(Some(task), None) {
            self.react_to(local, early, None, after);
        }
    }

    pub(super) async fn submit(
        self: Arc<Self>,
        job: Job,
    ) -> Result<Result<Ticket, Refusal>, Unavailable> {
        if self.is_draining() {
            return Ok(Err(Refusal::Draining));
        }
        let submit = self.submission(&job);
        let job = Arc::new(job);
        let call = Call::Submit(Box::new(submit), job.clone());
        let _news_is_kept = self.under_way();
        let (ticket, after) = self.engine.call(call, |told| self.submitted(job, told)).await?;
        self.follow_up(after);
        ticket.ok_or_else(|| Unavailable("the queue did not say what became of it".to_owned()))
    }

    fn submission(&self, job: &Job) -> Submit {
        Submit {
            key: job.key.clone(),
            requirement: job.facts.platform.clone(),
            priority: job.priority,
            invocation: job.request.metadata.tool_invocation_id.as_str().into(),
            // A test that has run would wait for those that have not.
            expected_ms: if job.writes_report() { Some(FIRST_MS) } else { job.expected_ms },
            timeout_ms: job.facts.timeout_ms.unwrap_or(self.default_timeout_ms),
            do_not_cache: job.facts.do_not_cache,
            skip_cache_lookup: job.request.skip_cache_lookup,
            caller: job.request.owner.clone(),
            avoid: job.request.rerun.as_ref().map(|rerun| rerun.avoid.clone()),
        }
    }

    fn submitted(
        self: &Arc<Self>,
        job: Arc<Job>,
        told: Vec<Told>,
    ) -> (Option<Result<Ticket, Refusal>>, Vec<FollowUp>) {
        let (mut ticket, mut after) = (None, Vec::new());
        let mut local = self.lock();
        for told in told {
            match told {
                Told::Refused(refusal) => ticket = Some(Err(refusal)),
                Told::Accepted { id, joined, step, attempt } => {
                    let (owner, first) = (job.request.owner.clone(), joined.unwrap_or(job.clone()));
                    self.watch(&mut local, id.task, first, step.stage(), attempt);
                    ticket = self.ticket(&mut local, id, owner).map(Ok);
                    self.take_early(&mut local, id.task, &mut after);
                }
                other => self.react_to(&mut local, other, Some(&mut Own::default()), &mut after),
            }
        }
        self.end_if_closed(&mut local);
        (ticket, after)
    }

    pub(super) async fn attach(
        self: Arc<Self>,
        name: String,
    ) -> Result<Option<Ticket>, Unavailable> {
        if self.is_closed() {
            return Err(Unavailable("this server is shutting down".to_owned()));
        }
        let Some((instance, id)) = self.names.parse_operation(&name) else { return Ok(None) };
        let _news_is_kept = self.under_way();
        let react = |told| self.attached(instance, id, told);
        let (ticket, after) = self.engine.call(Call::Attach(id), react).await?;
        self.follow_up(after);
        Ok(ticket)
    }

    fn attached(
        self: &Arc<Self>,
        instance: &str,
        id: OperationId,
        told: Vec<Told>,
    ) -> (Option<Ticket>, Vec<FollowUp>) {
        let (mut ticket, mut after) = (None, Vec::new());
        let mut local = self.lock();
        for told in told {
            let Told::Task(state) = told else {
                self.react_to(&mut local, told, Some(&mut Own::default()), &mut after);
                continue;
            };
            if !exists(&state, instance, id) {
                after.push(FollowUp::Detach(id));
                continue;
            }
            let owner = state.requests.get(id.request as usize).and_then(|it| it.owner.clone());
            let stage = self.stage(&state);
            self.watch(&mut local, id.task, state.job.clone(), stage, state.attempt.clone());
            ticket = self.ticket(&mut local, id, owner);
            self.learn(&mut local, &state);
            self.take_early(&mut local, id.task, &mut after);
        }
        self.end_if_closed(&mut local);
        (ticket, after)
    }

    pub(super) async fn find(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Option<OperationState>, Unavailable> {
        let Some((instance, id)) = self.names.parse_operation(name) else { return Ok(None) };
        let states = self.ask(Call::Look(id.task)).await?.into_iter().filter_map(state);
        let mut known = states.filter(|state| exists(state, instance, id));
        Ok(known.next().map(|state| self.operation_state(&state, id.request)))
    }

    pub(super) async fn list(
        self: &Arc<Self>,
        after: Option<OperationId>,
        limit: usize,
        matches: &Matches,
    ) -> Result<Vec<OperationState>, Unavailable> {
        let mut found = Vec::new();
        let mut from = after.map_or(TaskId(0), |after| after.task);
        loop {
            let told = self.ask(Call::Page { from, count: PAGE }).await?;
            let states: Vec<Box<TaskStatus>> = told.into_iter().filter_map(state).collect();
            for operation in states.iter().flat_map(|state| self.operations(state)) {
                if after.is_some_and(|after| operation.id <= after) || !matches(&operation) {
                    continue;
                }
                if found.len() == limit {
                    return Ok(found);
                }
                found.push(operation);
            }
            match states.last() {
                Some(last) if states.len() == PAGE => from = TaskId(last.task.0 + 1),
                _ => return Ok(found),
            }
        }
    }

    pub(super) async fn cancel(self: &Arc<Self>, name: &str) -> Result<bool, Unavailable> {
        let Some(state) = self.find(name).await? else { return Ok(false) };
        self.tell(Call::Event(Event::Cancel(state.id)), Own::default()).await?;
        Ok(true)
    }

    pub(super) async fn forget(self: &Arc<Self>, name: &str) -> Result<bool, Unavailable> {
        let Some(state) = self.find(name).await? else { return Ok(false) };
        self.tell(Call::Forget(state.id), Own::default()).await?;
        Ok(true)
    }

    /// All requests of a task, in order.
    fn operations(&self, state: &TaskStatus) -> Vec<OperationState> {
        let requests = (0..).zip(&state.requests).filter(|(_, request)| !request.forgotten);
        requests.map(|(request, _)| self.operation_state(state, request)).collect()
    }

    fn operation_state(&self, state: &TaskStatus, request: u32) -> OperationState {
        let job = state.job.clone();
        let asked = state.requests.get(request as usize).cloned().unwrap_or_default();
        let stage = if asked.cancelled {
            let operation = self.operation(&job, state.task, 0).into();
            let run = state.attempt.run(operation, job.clone());
            Stage::Done(Arc::new(self.completion.failed(&run, &Ending::Cancelled)))
        } else {
            self.stage(state)
        };
        OperationState {
            id: OperationId { task: state.task, request },
            name: self.operation(&job, state.task, request),
            owner: asked.owner,
            streams: Arc::new(self.names.streams(&job.key.instance, state.task)),
            job,
            stage,
        }
    }
}

/// Whether there is an operation of this very name.
fn exists(state: &TaskStatus, instance: &str, id: OperationId) -> bool {
    let request = state.requests.get(id.request as usize);
    *state.job.key.instance == *instance && request.is_some_and(|request| !request.forgotten)
}

fn state(told: Told) -> Option<Box<TaskStatus>> {
    match told {
        Told::Task(state) => Some(state),
        _ => None,
    }
}
