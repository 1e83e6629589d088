//! Carries out what the machine decided.

use bytes::Bytes;
use kiln_protos::events::execution::Origin;
use kiln_protos::worker;

use crate::completion::Record;

use super::*;

/// What is done outside of the lock.
pub(super) enum After {
    Publish {
        task: TaskId,
        run: Run,
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
    pub(super) fn handle(&self, state: &mut State, event: Event, after: &mut Vec<After>) {
        let now = self.now();
        self.handle_at(now, state, event, after);
        while let Some(worker) = state.broken.pop() {
            state.sessions.remove(&worker);
            self.handle_at(now, state, Event::WorkerLeft { worker }, after);
        }
    }

    fn handle_at(&self, now: Millis, state: &mut State, event: Event, after: &mut Vec<After>) {
        let mut effects = std::mem::take(&mut state.effects);
        state.machine.handle(now, event, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(state, effect, after);
        }
        state.effects = effects;
    }

    fn carry_out(&self, state: &mut State, effect: Effect, after: &mut Vec<After>) {
        match effect {
            Effect::Accepted { id, merged } => self.accept(state, id, merged),
            Effect::Refused(refusal) => state.answer = Some(Err(refusal)),
            Effect::Assign { worker, lease, task, attempt } => {
                self.assign(state, worker, lease, task, attempt);
            }
            Effect::CancelLease { worker, lease, reason } => {
                let reason = format!("{reason:?}");
                let Some(session) = state.sessions.get(&worker) else { return };
                let lease_id = session.foreign.name(&self.names, lease);
                let cancel = worker::CancelLease { lease_id, reason };
                self.send(state, worker, Kind::Cancel(cancel));
            }
            Effect::Requeued { task, .. } => set_stage(state, task, Stage::Queued),
            Effect::Publish { task, .. } => {
                if let Some(entry) = state.entries.get(&task)
                    && let Some(outcome) = state.outcome.take()
                {
                    after.push(After::Publish { task, run: entry.run(), outcome });
                }
            }
            // Everything about the task is known here already.
            Effect::Adopted { .. } => {}
            Effect::Stale { lease } => {
                tracing::info!(?lease, "a result came under a lease that is not current");
            }
            Effect::Finished { task, ending } => self.finish(state, task, &ending, after),
            Effect::RequestCancelled { id } => self.cancel_request(state, id, after),
            Effect::Forgotten { task } => {
                state.entries.remove(&task);
            }
            Effect::CloseWorker { worker, reason } => {
                if let Some(session) = state.sessions.remove(&worker) {
                    tracing::warn!(worker = %session.name, ?reason, "a worker's session is closed");
                }
            }
            Effect::Drained => {
                self.drained.send_replace(true);
            }
        }
    }

    fn accept(&self, state: &mut State, id: OperationId, merged: bool) {
        state.answer = Some(Ok(id));
        let Some(job) = state.submitted.take() else { return };
        if merged {
            if let Some(entry) = state.entries.get_mut(&id.task) {
                entry.requests.push(job.request);
            }
            return;
        }
        let update = Update { stage: Stage::Queued, cancelled: Vec::new() };
        let entry = Entry {
            operation: self.names.operation(&job.key.instance, id).into(),
            streams: Arc::new(self.names.streams(&job.key.instance, id.task)),
            requests: vec![job.request.clone()],
            job: Arc::new(job),
            updates: watch::Sender::new(update),
            queued_at: unix_nanos(),
            leased_at: 0,
            worker: Arc::default(),
            attempts: 0,
            answer: None,
            forgotten: Vec::new(),
        };
        state.entries.insert(id.task, entry);
    }

    fn assign(
        &self,
        state: &mut State,
        worker: WorkerId,
        lease: LeaseId,
        task: TaskId,
        attempt: u32,
    ) {
        let Some(entry) = state.entries.get_mut(&task) else { return };
        entry.leased_at = unix_nanos();
        entry.attempts = attempt;
        if let Some(session) = state.sessions.get(&worker) {
            entry.worker = session.name.clone();
        }
        let job = &entry.job;
        for stream in entry.streams.iter() {
            self.logs.create(stream);
        }
        let action = &job.key.action;
        let message = worker::Lease {
            lease_id: self.names.lease(lease),
            operation_name: entry.operation.to_string(),
            instance_name: job.key.instance.to_string(),
            action: Some(worker::Digest { hash: action.hex(), size_bytes: action.size as i64 }),
            digest_function: action.function.to_wire() as i32,
            attempt,
            default_timeout_ms: self.default_timeout.as_millis() as u64,
            request_metadata: job.request.metadata_bytes.clone(),
            queued_at: entry.queued_at,
            stream_output: true,
            // They are in the same process.
            blobs: Vec::new(),
            tools: job.request.tools.as_deref().map(str::to_owned),
            audit: job.request.audit.as_ref().map(|rerun| rerun.conditions.clone()),
        };
        self.send(state, worker, Kind::Lease(message));
        set_stage(state, task, Stage::Executing);
    }

    /// A worker that does not take its messages is lost.
    pub(super) fn send(&self, state: &mut State, worker: WorkerId, kind: Kind) {
        let Some(session) = state.sessions.get(&worker) else { return };
        if session.outbound.try_send(SchedulerMessage { kind: Some(kind) }).is_err() {
            state.broken.push(worker);
        }
    }

    fn finish(
        &self,
        state: &mut State,
        task: TaskId,
        ending: &crate::queue::Ending,
        after: &mut Vec<After>,
    ) {
        let Some(entry) = state.entries.get_mut(&task) else { return };
        let finished = match entry.answer.take() {
            Some(answer) => answer,
            None => Arc::new(self.completion.failed(&entry.run(), ending)),
        };
        *state.completed.entry(finished.code).or_default() += 1;
        if entry.leased_at != 0 {
            for stream in entry.streams.iter() {
                self.logs.finish(stream);
            }
        }
        let cancelled = entry.updates.borrow().cancelled.clone();
        for request in 0..entry.requests.len() as u32 {
            if !cancelled.iter().any(|(cancelled, _)| *cancelled == request) {
                after.push(self.record_of(entry, OperationId { task, request }, finished.clone()));
            }
        }
        entry.updates.send_modify(|update| update.stage = Stage::Done(finished));
    }

    fn cancel_request(&self, state: &mut State, id: OperationId, after: &mut Vec<After>) {
        let Some(entry) = state.entries.get_mut(&id.task) else { return };
        let cancelled = crate::queue::Ending::Cancelled;
        let finished = Arc::new(self.completion.failed(&entry.run(), &cancelled));
        after.push(self.record_of(entry, id, finished.clone()));
        entry.updates.send_modify(|update| update.cancelled.push((id.request, finished)));
    }

    fn record_of(&self, entry: &Entry, id: OperationId, finished: Arc<Finished>) -> After {
        let job = entry.job.clone();
        After::Record {
            id: self.names.operation(&job.key.instance, id),
            request: entry.requests.get(id.request as usize).unwrap_or(&job.request).clone(),
            origin: if id.request == 0 { Origin::Executed } else { Origin::Merged },
            job,
            finished,
        }
    }

    pub(super) fn follow_up(self: &Arc<Self>, after: After) {
        match after {
            After::Publish { task, run, outcome } => {
                let inner = self.clone();
                tokio::spawn(async move {
                    let answer = inner.completion.complete(&run, outcome).await;
                    inner.published(task, answer);
                });
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

    fn published(self: &Arc<Self>, task: TaskId, answer: Finished) {
        self.with(|inner, state, after| {
            let bytes = answer.response.len() + answer.result.len();
            if let Some(entry) = state.entries.get_mut(&task) {
                entry.answer = Some(Arc::new(answer));
            }
            inner.handle(state, Event::Published { task, bytes }, after);
        });
    }

    pub(super) fn append_output(
        self: &Arc<Self>,
        worker: WorkerId,
        lease: LeaseId,
        stderr: bool,
        offset: u64,
        data: &Bytes,
    ) {
        let streams = self.with(|inner, state, after| {
            inner.handle(state, Event::Alive { worker }, after);
            let task = state.machine.task_of(worker, lease)?;
            state.entries.get(&task).map(|entry| entry.streams.clone())
        });
        if let Some(streams) = streams {
            self.logs.append(&streams[usize::from(stderr)], offset, data);
        }
    }
}

fn set_stage(state: &mut State, task: TaskId, stage: Stage) {
    if let Some(entry) = state.entries.get(&task) {
        entry.updates.send_modify(|update| update.stage = stage);
    }
}
