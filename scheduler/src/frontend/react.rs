//! What a frontend does with what the engine says, be it in an answer to its own call or because
//! another frontend's call concerns it.

use std::sync::Arc;

use kiln_protos::events::execution::Origin;
use kiln_protos::worker::{self, Drain, scheduler_message::Kind};
use tokio::time::Instant;

use crate::api::{Stage, StreamNames};
use crate::job::{Finished, Job, Outcome, Request};
use crate::queue::{CancelReason, Ending, LeaseId, OperationId, TaskId, WorkerId};

use super::inner::Inner;
use super::local::{Local, Running};
use super::told::{Assigned, Attempt, Step, TaskRecord, TaskStatus, Told};

/// What the caller knows itself while it reacts to the engine's answer to its own call.
#[derive(Default)]
pub struct Own {
    /// What the worker has answered under a lease, and that lease.
    pub outcome: Option<Outcome>,
    pub running: Option<Running>,
    pub answer: Option<Arc<Finished>>,
}

/// Work that follows from news and is done after the locks are let go.
pub enum FollowUp {
    Publish {
        task: TaskId,
        lease: LeaseId,
        running: Running,
        outcome: Outcome,
    },
    Record {
        id: String,
        job: Arc<Job>,
        request: Arc<Request>,
        origin: Origin,
        finished: Arc<Finished>,
    },
    /// The worker does not take its messages: it is lost.
    Lost(WorkerId),
    /// A client that the engine counts as waiting waits no more.
    Detach(OperationId),
}

impl<E> Inner<E> {
    /// Reacts to what a call of this frontend led to.
    pub fn react(&self, told: Vec<Told>, mut own: Own) -> Vec<FollowUp> {
        let mut after = Vec::new();
        let mut local = self.lock();
        for told in told {
            self.react_to(&mut local, told, Some(&mut own), &mut after);
        }
        self.count_busy(&local);
        after
    }

    pub(super) fn react_to(
        &self,
        local: &mut Local,
        told: Told,
        own: Option<&mut Own>,
        after: &mut Vec<FollowUp>,
    ) {
        match told {
            Told::Assign { worker, lease, task, attempt, assigned } => {
                self.waiting(local, Told::Leased { task, attempt: attempt.clone() });
                let Some(assigned) = assigned else { return };
                if local.sessions.contains_key(&worker) {
                    self.give(local, (worker, lease, task), attempt, assigned, after);
                } else {
                    let assigned = Some(assigned);
                    local.early.keep(Told::Assign { worker, lease, task, attempt, assigned });
                }
            }
            Told::Adopted { worker, lease, task: Some((task, job)), attempt } => {
                let running = self.running(local, (worker, task), job, attempt);
                local.runs.insert(lease, running);
            }
            Told::CancelLease { worker, lease, reason } => {
                self.cancel_lease(local, worker, lease, reason, after);
            }
            Told::CloseWorker { worker, reason } => {
                if let Some(session) = local.close_session(worker) {
                    tracing::warn!(worker = %session.name, ?reason, "a worker's session is closed");
                }
            }
            Told::Drain { worker } => self.send(local, worker, Kind::Drain(Drain {}), after),
            Told::Publish { task, lease, .. } => {
                let own = own.and_then(|own| Some((own.running.take()?, own.outcome.take()?)));
                if let Some((running, outcome)) = own {
                    local.publishing.insert(lease, task);
                    after.push(FollowUp::Publish { task, lease, running, outcome });
                }
            }
            Told::Stale { lease } => {
                // Else it came once more: what is published under it, or runs in another session, goes on.
                if own.is_some_and(|own| own.running.take().is_some()) {
                    local.publishing.remove(&lease);
                }
                tracing::info!(?lease, "a result came under a lease that is not current");
            }
            Told::Finished { task, ending, record } => {
                let answer = own.and_then(|own| own.answer.clone());
                let finished = answer.unwrap_or_else(|| self.failed(task, &record, &ending));
                after.extend(self.finished(local, (task, ending), &record, &finished));
            }
            Told::RequestCancelled { id, record } => {
                self.request_cancelled(local, id, record, own.is_some(), after);
            }
            Told::Task(state) => self.learn(local, &state),
            Told::Unknown { task } => {
                // The engine lost it: whoever waits is told to execute again.
                local.tasks.remove(&task);
            }
            about_a_task => self.waiting(local, about_a_task),
        }
    }

    /// Gives news of a task to the clients that wait for it here.
    fn waiting(&self, local: &mut Local, told: Told) {
        let task = match &told {
            Told::Leased { task, .. } | Told::Requeued { task, .. } | Told::Ended { task, .. } => {
                *task
            }
            _ => return,
        };
        let Some(watched) = local.tasks.get_mut(&task) else { return local.early.keep(told) };
        match told {
            Told::Leased { attempt, .. } => {
                watched.learn(&attempt);
                watched.set_stage(Stage::Executing);
            }
            Told::Requeued { .. } => watched.set_stage(Stage::Queued),
            Told::Ended { ending, attempt, answer, .. } => {
                watched.learn(&attempt);
                let failed = || Arc::new(self.completion.failed(&watched.run(), &ending));
                watched.set_stage(Stage::Done(answer.unwrap_or_else(failed)));
            }
            _ => {}
        }
    }

    fn running(
        &self,
        local: &Local,
        (worker, task): (WorkerId, TaskId),
        job: Arc<Job>,
        attempt: Attempt,
    ) -> Running {
        let (operation, streams) = self.named(local, task, &job);
        let now = Instant::now();
        Running {
            worker,
            task,
            operation,
            output: Some(Arc::new(self.logs.open(streams))),
            job,
            attempt,
            since: now,
            extended: now,
        }
    }

    fn give(
        &self,
        local: &mut Local,
        (worker, lease, task): (WorkerId, LeaseId, TaskId),
        attempt: Attempt,
        Assigned { job, blobs }: Assigned,
        after: &mut Vec<FollowUp>,
    ) {
        let running = self.running(local, (worker, task), job, attempt);
        let message = worker::Lease {
            blobs,
            ..lease_message(self.names.lease(lease), &running, self.default_timeout_ms)
        };
        local.runs.insert(lease, running);
        self.send(local, worker, Kind::Lease(message), after);
        if local.take_cancelled(lease) {
            self.cancel_lease(local, worker, lease, CancelReason::Cancelled, after);
        }
    }

    fn send(&self, local: &mut Local, worker: WorkerId, kind: Kind, after: &mut Vec<FollowUp>) {
        if !local.send(worker, kind) && local.close_session(worker).is_some() {
            after.push(FollowUp::Lost(worker));
        }
    }

    fn cancel_lease(
        &self,
        local: &mut Local,
        worker: WorkerId,
        lease: LeaseId,
        reason: CancelReason,
        after: &mut Vec<FollowUp>,
    ) {
        let Some(session) = local.sessions.get(&worker) else { return };
        let lease_id = session.foreign.name(&self.names, lease);
        match local.runs.get_mut(&lease) {
            Some(run) => {
                if let Some(output) = run.output.take()
                    && reason != CancelReason::LeaseExpired
                {
                    // The task has ended: nobody else prints to it.
                    output.finish();
                }
            }
            None if reason != CancelReason::Unknown => local.cancel_early(lease),
            None => {}
        }
        let cancel = worker::CancelLease { lease_id, reason: format!("{reason:?}") };
        self.send(local, worker, Kind::Cancel(cancel), after);
    }

    /// The call of this frontend ended the task: it alone records that.
    fn finished(
        &self,
        local: &mut Local,
        (task, ending): (TaskId, Ending),
        record: &TaskRecord,
        finished: &Arc<Finished>,
    ) -> Vec<FollowUp> {
        *local.completed.entry(finished.code).or_default() += 1;
        let (_, streams) = self.named(local, task, &record.job);
        streams.iter().for_each(|stream| self.logs.finish(stream));
        let (attempt, answer) = (record.attempt.clone(), Some(finished.clone()));
        self.waiting(local, Told::Ended { task, ending, attempt, answer });
        let requests = (0..).zip(&record.cancelled).filter(|(_, cancelled)| !**cancelled);
        let record_of = |(request, _): (u32, &bool)| {
            self.record(record, OperationId { task, request }, finished.clone())
        };
        requests.map(record_of).collect()
    }

    fn failed(&self, task: TaskId, record: &TaskRecord, ending: &Ending) -> Arc<Finished> {
        let operation = self.operation(&record.job, task, 0).into();
        let run = record.attempt.run(operation, record.job.clone());
        Arc::new(self.completion.failed(&run, ending))
    }

    fn record(&self, record: &TaskRecord, id: OperationId, finished: Arc<Finished>) -> FollowUp {
        let job = record.job.clone();
        let other = id.request.checked_sub(1).and_then(|other| record.requests.get(other as usize));
        FollowUp::Record {
            id: self.names.operation(&job.key.instance, id),
            request: other.unwrap_or(&job.request).clone(),
            origin: if id.request == 0 { Origin::Executed } else { Origin::Merged },
            job,
            finished,
        }
    }

    fn request_cancelled(
        &self,
        local: &mut Local,
        id: OperationId,
        record: TaskRecord,
        own: bool,
        after: &mut Vec<FollowUp>,
    ) {
        let finished = self.failed(id.task, &record, &Ending::Cancelled);
        if own {
            after.push(self.record(&record, id, finished.clone()));
        }
        match local.tasks.get_mut(&id.task) {
            Some(watched) => watched.cancel(id.request, finished),
            None => local.early.keep(Told::RequestCancelled { id, record }),
        }
    }

    /// The state of a task, for those who wait for it.
    pub(super) fn learn(&self, local: &mut Local, state: &TaskStatus) {
        let Some(watched) = local.tasks.get_mut(&state.task) else {
            // Whoever is about to wait for the task hears of its end.
            if let (Step::Finished, Some(ending)) = (state.step, &state.ending) {
                local.early.keep(Told::Ended {
                    task: state.task,
                    ending: ending.clone(),
                    attempt: state.attempt.clone(),
                    answer: state.answer.clone(),
                });
            }
            return;
        };
        watched.learn(&state.attempt);
        for request in (0..).zip(&state.requests).filter(|(_, request)| request.cancelled) {
            let finished = Arc::new(self.completion.failed(&watched.run(), &Ending::Cancelled));
            watched.cancel(request.0, finished);
        }
        watched.set_stage(self.stage(state));
    }

    pub(super) fn stage(&self, state: &TaskStatus) -> Stage {
        match (state.step, &state.ending) {
            (Step::Finished, Some(ending)) => {
                let failed = || {
                    let operation = self.operation(&state.job, state.task, 0).into();
                    let run = state.attempt.run(operation, state.job.clone());
                    Arc::new(self.completion.failed(&run, ending))
                };
                Stage::Done(state.answer.clone().unwrap_or_else(failed))
            }
            (step, _) => step.stage(),
        }
    }

    /// The names of a task's first operation and of its output. They are made once where somebody
    /// waits for it here.
    fn named(&self, local: &Local, task: TaskId, job: &Job) -> (Arc<str>, StreamNames) {
        match local.tasks.get(&task) {
            Some(watched) => (watched.operation.clone(), watched.streams.clone()),
            None => {
                let streams = self.names.streams(&job.key.instance, task);
                (self.operation(job, task, 0).into(), Arc::new(streams))
            }
        }
    }

    pub(super) fn operation(&self, job: &Job, task: TaskId, request: u32) -> String {
        self.names.operation(&job.key.instance, OperationId { task, request })
    }
}

/// The message that gives a lease to a worker.
fn lease_message(lease_id: String, running: &Running, default_timeout_ms: u64) -> worker::Lease {
    let job = &running.job;
    let action = &job.key.action;
    worker::Lease {
        lease_id,
        operation_name: running.operation.to_string(),
        instance_name: job.key.instance.to_string(),
        action: Some(worker::Digest { hash: action.hex(), size_bytes: action.size as i64 }),
        digest_function: action.function.to_wire() as i32,
        attempt: running.attempt.number,
        default_timeout_ms,
        request_metadata: job.request.metadata_bytes.clone(),
        queued_at: running.attempt.queued_at,
        stream_output: true,
        blobs: Vec::new(),
        tools: job.request.tools.as_deref().map(str::to_owned),
        conditions: job.request.rerun.as_ref().map(|rerun| rerun.conditions.clone()),
    }
}
