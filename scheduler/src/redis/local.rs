//! What one frontend knows: the tasks that its clients wait for, its workers and their leases.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::logs::OpenLogs;
use kiln_protos::worker::{self, SchedulerMessage, scheduler_message::Kind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::boundary::{Stage, StreamNames, Update};
use crate::job::{Finished, Job, Run, UnixNanos};
use crate::names::{ForeignLeases, Names};
use crate::queue::{LeaseId, OperationId, TaskId, WorkerId};

use super::wire::{Times, Told};

/// Messages kept that came before what they are about was known here.
const MAX_EARLY: usize = 1024;
const NANOS_PER_MILLI: i64 = 1_000_000;

#[derive(Default)]
pub struct Local {
    pub tasks: HashMap<TaskId, Watched>,
    pub sessions: HashMap<WorkerId, Session>,
    pub runs: HashMap<LeaseId, Running>,
    /// Tasks whose answer this frontend makes durable, or is about to.
    pub publishing: HashSet<TaskId>,
    early: VecDeque<Told>,
    /// Waiters that have left and of whom Redis does not know it yet.
    pub left: Vec<OperationId>,
    /// The same of those who do not want the answer any more.
    pub gave_up: Vec<OperationId>,
    /// Finished executions by status code.
    pub completed: BTreeMap<i32, u64>,
}

/// A task that clients of this frontend wait for.
pub struct Watched {
    pub job: Arc<Job>,
    pub operation: Arc<str>,
    pub streams: StreamNames,
    pub updates: watch::Sender<Update>,
    pub times: Times,
    pub tickets: usize,
}

pub struct Session {
    pub name: Arc<str>,
    pub outbound: mpsc::Sender<SchedulerMessage>,
    /// Leases that it listed, and when; `None`: nothing that Redis has not heard yet.
    pub heard: Option<(Vec<LeaseId>, Instant)>,
    pub foreign: ForeignLeases,
    /// Leases of the worker that this frontend did not give it, and that Redis has heard of.
    pub strays: HashSet<LeaseId>,
    /// Answers of the worker that Redis is still to hear of.
    pub reports: Arc<watch::Sender<usize>>,
    /// Dropped with the session, which tells its task.
    pub _seat: oneshot::Sender<()>,
}

/// A lease of a worker of this frontend.
#[derive(Clone)]
pub struct Running {
    pub worker: WorkerId,
    pub task: TaskId,
    pub job: Arc<Job>,
    pub operation: Arc<str>,
    pub output: Arc<OpenLogs>,
    pub times: Times,
    pub since: Instant,
    /// When Redis last heard that it goes on.
    pub extended: Instant,
}

pub fn nanos(millis: i64) -> UnixNanos {
    millis.saturating_mul(NANOS_PER_MILLI)
}

/// A run as the completion wants it.
pub fn run(operation: Arc<str>, job: Arc<Job>, times: &Times) -> Run {
    Run {
        operation,
        job,
        queued_at: nanos(times.queued),
        leased_at: nanos(times.leased),
        worker: times.worker.clone(),
        attempts: times.attempts,
    }
}

impl Running {
    pub fn run(&self) -> Run {
        run(self.operation.clone(), self.job.clone(), &self.times)
    }
}

impl Watched {
    pub fn set_stage(&self, stage: Stage) {
        self.updates.send_if_modified(|update| {
            // The end is the end, in whatever order messages come.
            let open = !matches!(update.stage, Stage::Done(_));
            if open {
                update.stage = stage;
            }
            open
        });
    }

    pub fn cancel(&self, request: u32, finished: Arc<Finished>) {
        self.updates.send_if_modified(|update| {
            let new = !update.cancelled.iter().any(|(known, _)| *known == request);
            if new {
                update.cancelled.push((request, finished));
            }
            new
        });
    }

    /// Later times of the same task.
    pub fn learn(&mut self, times: &Times) {
        let queued = self.times.queued;
        self.times = Times { queued, ..times.clone() };
    }

    pub fn is_done(&self) -> bool {
        matches!(self.updates.borrow().stage, Stage::Done(_))
    }
}

impl Local {
    /// A message for a task or a worker that may become known in a moment.
    pub fn keep_early(&mut self, told: Told) {
        if self.early.len() == MAX_EARLY {
            self.early.pop_front();
        }
        self.early.push_back(told);
    }

    /// Takes what came too early for `task` or `worker`.
    pub fn take_early(&mut self, task: Option<TaskId>, worker: Option<WorkerId>) -> Vec<Told> {
        let mut taken = Vec::new();
        let mut rest = VecDeque::new();
        for told in self.early.drain(..) {
            let (its_task, its_worker) = subject(&told);
            let wanted =
                task.is_some() && its_task == task || worker.is_some() && its_worker == worker;
            if wanted { taken.push(told) } else { rest.push_back(told) }
        }
        self.early = rest;
        taken
    }

    /// `false`: there is no such session, or it does not take its messages and is closed.
    pub fn send(&mut self, worker: WorkerId, kind: Kind) -> bool {
        let Some(session) = self.sessions.get(&worker) else { return false };
        let sent = session.outbound.try_send(SchedulerMessage { kind: Some(kind) }).is_ok();
        if !sent {
            self.close_session(worker);
        }
        sent
    }

    pub fn close_session(&mut self, worker: WorkerId) -> Option<Session> {
        self.runs.retain(|_, run| run.worker != worker);
        self.sessions.remove(&worker)
    }

    /// The leases that a worker has listed, and whether Redis must hear at once that some of them
    /// are not what it believes.
    pub fn listed(
        &mut self,
        names: &Names,
        worker: WorkerId,
        listed: Vec<String>,
    ) -> (Vec<LeaseId>, bool) {
        let Some(session) = self.sessions.get_mut(&worker) else { return (Vec::new(), false) };
        let leases = session.foreign.list(names, listed);
        let runs = &self.runs;
        let is_given = |lease: &LeaseId| runs.get(lease).is_some_and(|run| run.worker == worker);
        let strays = leases.iter().copied().filter(|lease| !is_given(lease));
        let strays: HashSet<LeaseId> = strays.collect();
        let news = !strays.is_subset(&session.strays);
        session.strays = strays;
        (leases, news)
    }

    /// What Redis should hear of each worker that spoke since it last did.
    pub fn take_heartbeats(&mut self) -> Vec<(WorkerId, Vec<LeaseId>)> {
        let runs = &self.runs;
        let beat = |(worker, session): (&WorkerId, &mut Session)| {
            let (mut leases, heard) = session.heard.take()?;
            let listed: HashSet<_> = leases.iter().copied().collect();
            // A lease that was on its way when the worker spoke is not lost.
            let newer = runs.iter().filter(|(lease, run)| {
                run.worker == *worker && run.since >= heard && !listed.contains(lease)
            });
            leases.extend(newer.map(|(lease, _)| *lease));
            Some((*worker, leases))
        };
        self.sessions.iter_mut().filter_map(beat).collect()
    }
}

fn subject(told: &Told) -> (Option<TaskId>, Option<WorkerId>) {
    match told {
        Told::Leased { task, .. }
        | Told::Requeued { task, .. }
        | Told::Finished { task, .. }
        | Told::Ended { task, .. } => (Some(*task), None),
        Told::RequestCancelled { id, .. } => (Some(id.task), None),
        Told::Assign { worker, .. }
        | Told::CancelLease { worker, .. }
        | Told::Drain { worker }
        | Told::CloseWorker { worker, .. } => (None, Some(*worker)),
        _ => (None, None),
    }
}

/// The message that gives a lease to a worker.
pub fn lease_message(
    lease_id: String,
    running: &Running,
    default_timeout_ms: u64,
    blobs: Vec<Bytes>,
) -> worker::Lease {
    let job = &running.job;
    let action = &job.key.action;
    worker::Lease {
        lease_id,
        operation_name: running.operation.to_string(),
        instance_name: job.key.instance.to_string(),
        action: Some(worker::Digest { hash: action.hex(), size_bytes: action.size as i64 }),
        digest_function: action.function.to_wire() as i32,
        attempt: running.times.attempts,
        default_timeout_ms,
        request_metadata: Bytes::clone(&job.request.metadata_bytes),
        queued_at: nanos(running.times.queued),
        stream_output: true,
        blobs,
        tools: job.request.tools.as_deref().map(str::to_owned),
        audit: job.request.audit.as_ref().map(|rerun| rerun.conditions.clone()),
    }
}
