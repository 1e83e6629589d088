//! What a frontend does with what the script says, in an answer to its own call or on its
//! channel.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use kiln_protos::events::execution::Origin;
use kiln_protos::worker::{self, Drain, scheduler_message::Kind};
use tokio::time::Instant;

use crate::boundary::Stage;
use crate::completion::Record;
use crate::job::{Finished, Job, Outcome, Request, Run};
use crate::queue::{Ending, LeaseId, OperationId, TaskId, WorkerId};

use super::carried::decode_carried;
use super::local::{Local, Running, lease_message, run};
use super::payload::{decode_answer, decode_job, decode_request};
use super::wire::{RunData, Step, TaskState, Times, Told};
use super::{Inner, publish};

/// What the caller has at hand while it reacts to its own call.
#[derive(Default)]
pub struct Own {
    pub outcome: Option<Outcome>,
    pub answer: Option<Arc<Finished>>,
}

/// What is done outside of the lock.
pub enum After {
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
}

impl Inner {
    /// Reacts to the answer to a call of this frontend.
    pub(super) fn react(self: &Arc<Self>, told: Vec<Told>, mut own: Own) {
        let mut after = Vec::new();
        let mut local = self.lock();
        for told in told {
            self.one(&mut local, told, Some(&mut own), &mut after);
        }
        drop(local);
        self.follow_up(after);
    }

    /// Reacts to what came over the channel.
    pub(super) fn hear(self: &Arc<Self>, told: Vec<Told>) {
        let mut after = Vec::new();
        let mut local = self.lock();
        for told in told {
            self.one(&mut local, told, None, &mut after);
        }
        drop(local);
        self.follow_up(after);
    }

    pub(super) fn follow_up(self: &Arc<Self>, after: Vec<After>) {
        for after in after {
            match after {
                After::Publish { task, lease, running, outcome } => {
                    tokio::spawn(publish(self.clone(), task, lease, running, outcome));
                }
                After::Record { id, job, request, origin, finished } => {
                    self.completion.record(Record {
                        id,
                        key: &job.key,
                        facts: &job.facts,
                        request: &request,
                        origin,
                        expected_ms: job.expected_ms.unwrap_or(0),
                        finished: &finished,
                    });
                }
            }
        }
    }

    pub(super) fn one(
        &self,
        local: &mut Local,
        told: Told,
        own: Option<&mut Own>,
        after: &mut Vec<After>,
    ) {
        match told {
            Told::Assign { worker, lease, task, ref times, ref job, ref carried } => {
                if local.sessions.contains_key(&worker) {
                    if let Some(running) = self.running(worker, task, job, times) {
                        self.give(local, lease, running, decode_carried(carried));
                    }
                } else if own.is_none() {
                    return local.keep_early(told);
                }
                if let Some(watched) = local.tasks.get_mut(&task) {
                    watched.learn(times);
                    watched.set_stage(Stage::Executing);
                }
            }
            Told::Adopted { worker, lease, task: Some(task), times, job } => {
                if let Some(running) = self.running(worker, task, &job, &times) {
                    local.runs.insert(lease, running);
                }
            }
            Told::CancelLease { worker, lease, reason } => {
                let Some(session) = local.sessions.get(&worker) else { return };
                let lease_id = session.foreign.name(&self.names, lease);
                // What it prints from now on is of no interest, wherever the task ends.
                if let Some(running) = local.runs.get(&lease) {
                    running.output.finish();
                }
                let cancel = worker::CancelLease { lease_id, reason: format!("{reason:?}") };
                local.send(worker, Kind::Cancel(cancel));
            }
            Told::CloseWorker { worker, reason } => {
                if let Some(session) = local.close_session(worker) {
                    tracing::warn!(worker = %session.name, ?reason, "a worker's session is closed");
                }
            }
            Told::Drain { worker } => {
                local.send(worker, Kind::Drain(Drain {}));
            }
            Told::Publish { task, lease, .. } => {
                let running = local.runs.remove(&lease);
                if let Some(running) = running
                    && let Some(outcome) = own.and_then(|own| own.outcome.take())
                {
                    local.publishing.insert(task);
                    after.push(After::Publish { task, lease, running, outcome });
                }
            }
            Told::Stale { lease } => {
                local.runs.remove(&lease);
                tracing::info!(?lease, "a result came under a lease that is not current");
            }
            Told::Finished { task, ending, run: data } => {
                let Some((job, run)) = self.run_of(task, &data) else { return };
                let answer = own.and_then(|own| own.answer.clone());
                let finished =
                    answer.unwrap_or_else(|| Arc::new(self.completion.failed(&run, &ending)));
                after.extend(self.finished(local, task, &job, &data, &finished));
            }
            Told::RequestCancelled { id, run } => {
                self.request_cancelled(local, id, &run, own.is_some(), after);
            }
            Told::State(state) => self.learn(local, *state),
            Told::Secret(secret) => self.names.use_secret(&secret),
            Told::Lapsed => self.lapsed.store(true, Ordering::Release),
            Told::Unknown { task } => {
                // Redis lost it: whoever waits is told to execute again.
                local.tasks.remove(&task);
            }
            about_a_task => self.waiting(local, about_a_task),
        }
    }

    /// News for those who wait for a task.
    fn waiting(&self, local: &mut Local, told: Told) {
        let task = match &told {
            Told::Leased { task, .. } | Told::Requeued { task, .. } | Told::Ended { task, .. } => {
                *task
            }
            _ => return,
        };
        let Some(watched) = local.tasks.get_mut(&task) else { return local.keep_early(told) };
        match told {
            Told::Leased { times, .. } => {
                watched.learn(&times);
                watched.set_stage(Stage::Executing);
            }
            Told::Requeued { .. } => watched.set_stage(Stage::Queued),
            Told::Ended { ending, times, answer, .. } => {
                watched.learn(&times);
                let finished = if answer.is_empty() { None } else { decode_answer(&answer).ok() };
                let finished = finished.unwrap_or_else(|| {
                    let run = run(watched.operation.clone(), watched.job.clone(), &watched.times);
                    self.completion.failed(&run, &ending)
                });
                watched.set_stage(Stage::Done(Arc::new(finished)));
            }
            _ => {}
        }
    }

    fn running(
        &self,
        worker: WorkerId,
        task: TaskId,
        job: &bytes::Bytes,
        times: &Times,
    ) -> Option<Running> {
        let job = decode_job(job);
        let job = job.inspect_err(|error| tracing::error!(%error, "a job is not readable"));
        let job = job.ok()?;
        let names = self.names.streams(&job.key.instance, task);
        let now = Instant::now();
        Some(Running {
            worker,
            task,
            operation: self.operation(&job, task, 0).into(),
            output: Arc::new(self.logs.open(Arc::new(names))),
            job: Arc::new(job),
            times: times.clone(),
            since: now,
            extended: now,
        })
    }

    fn give(&self, local: &mut Local, lease: LeaseId, running: Running, blobs: Vec<Bytes>) {
        let id = self.names.lease(lease);
        let message = lease_message(id, &running, self.default_timeout_ms, blobs);
        let worker = running.worker;
        local.runs.insert(lease, running);
        local.send(worker, Kind::Lease(message));
    }

    /// The job of a task, and its run as the completion wants it.
    fn run_of(&self, task: TaskId, data: &RunData) -> Option<(Arc<Job>, Run)> {
        let job = decode_job(&data.job);
        let job = job.inspect_err(|error| tracing::error!(%error, "a job is not readable"));
        let job = Arc::new(job.ok()?);
        let operation: Arc<str> = self.operation(&job, task, 0).into();
        Some((job.clone(), run(operation, job, &data.times)))
    }

    /// The call of this frontend ended the task: it alone records that.
    fn finished(
        &self,
        local: &mut Local,
        task: TaskId,
        job: &Arc<Job>,
        data: &RunData,
        finished: &Arc<Finished>,
    ) -> Vec<After> {
        *local.completed.entry(finished.code).or_default() += 1;
        for stream in self.names.streams(&job.key.instance, task) {
            self.logs.finish(&stream);
        }
        if let Some(watched) = local.tasks.get_mut(&task) {
            watched.set_stage(Stage::Done(finished.clone()));
        }
        let requests = data.cancelled.iter().enumerate().filter(|(_, cancelled)| !**cancelled);
        requests
            .map(|(request, _)| self.record(job, task, request, data, finished.clone()))
            .collect()
    }

    fn record(
        &self,
        job: &Arc<Job>,
        task: TaskId,
        request: usize,
        data: &RunData,
        finished: Arc<Finished>,
    ) -> After {
        let other = request.checked_sub(1).and_then(|other| data.requests.get(other));
        let other = other.and_then(|bytes| decode_request(bytes).ok()).map(Arc::new);
        After::Record {
            id: self.operation(job, task, request as u32),
            request: other.unwrap_or_else(|| job.request.clone()),
            origin: if request == 0 { Origin::Executed } else { Origin::Merged },
            job: job.clone(),
            finished,
        }
    }

    fn request_cancelled(
        &self,
        local: &mut Local,
        id: OperationId,
        data: &RunData,
        own: bool,
        after: &mut Vec<After>,
    ) {
        let Some((job, run)) = self.run_of(id.task, data) else { return };
        let finished = Arc::new(self.completion.failed(&run, &Ending::Cancelled));
        if own {
            after.push(self.record(&job, id.task, id.request as usize, data, finished.clone()));
        }
        if let Some(watched) = local.tasks.get_mut(&id.task) {
            watched.cancel(id.request, finished);
        }
    }

    /// The state of a task, for those who wait for it.
    fn learn(&self, local: &mut Local, state: TaskState) {
        let Some(watched) = local.tasks.get_mut(&state.task) else { return };
        watched.learn(&state.times);
        let stage = self.stage(&state, &watched.job);
        watched.set_stage(stage);
        for request in (0..).zip(&state.cancelled).filter(|(_, cancelled)| **cancelled) {
            let run = run(watched.operation.clone(), watched.job.clone(), &watched.times);
            let finished = Arc::new(self.completion.failed(&run, &Ending::Cancelled));
            watched.cancel(request.0, finished);
        }
    }

    pub(super) fn stage(&self, state: &TaskState, job: &Arc<Job>) -> Stage {
        match (&state.step, &state.ending) {
            (Step::Queued, _) => Stage::Queued,
            (Step::Finished, Some(ending)) => {
                let answer =
                    if state.answer.is_empty() { None } else { decode_answer(&state.answer).ok() };
                let finished = answer.unwrap_or_else(|| {
                    let operation: Arc<str> = self.operation(job, state.task, 0).into();
                    self.completion.failed(&run(operation, job.clone(), &state.times), ending)
                });
                Stage::Done(Arc::new(finished))
            }
            _ => Stage::Executing,
        }
    }

    pub(super) fn operation(&self, job: &Job, task: TaskId, request: u32) -> String {
        self.names.operation(&job.key.instance, OperationId { task, request })
    }
}
