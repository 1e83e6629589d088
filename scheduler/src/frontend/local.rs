//! What one frontend knows: the tasks that its clients wait for, its workers and their leases.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kiln_cas::logs::OpenLogs;
use kiln_protos::worker::{SchedulerMessage, scheduler_message::Kind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::api::{Stage, StreamNames, Update};
use crate::job::{Finished, Job, Run};
use crate::names::{ForeignLeases, Names};
use crate::queue::{Ending, LeaseId, OperationId, TaskId, WorkerId};

use super::early::Early;
use super::told::{Attempt, TaskRecord, Told};

/// Leases that are remembered as cancelled before they came.
const MAX_CANCELLED: usize = 1024;

#[derive(Default)]
pub struct Local {
    pub tasks: HashMap<TaskId, Watched>,
    pub sessions: HashMap<WorkerId, Session>,
    pub runs: HashMap<LeaseId, Running>,
    /// Leases whose answer this frontend makes durable, or is about to.
    pub publishing: HashMap<LeaseId, TaskId>,
    pub early: Early,
    /// Leases of workers here that were cancelled, and have not come yet.
    cancelled: VecDeque<LeaseId>,
    /// Finished executions by status code.
    pub completed: BTreeMap<i32, u64>,
}

/// A task that clients of this frontend wait for.
pub struct Watched {
    /// The job of the request that came first.
    pub job: Arc<Job>,
    pub operation: Arc<str>,
    pub streams: StreamNames,
    pub updates: watch::Sender<Update>,
    pub attempt: Attempt,
    pub tickets: usize,
}

pub struct Session {
    pub name: Arc<str>,
    pub outbound: mpsc::Sender<SchedulerMessage>,
    /// Leases that it listed, and when; `None`: nothing that the engine has not heard yet.
    pub heard: Option<(Vec<LeaseId>, Instant)>,
    pub foreign: ForeignLeases,
    /// Leases of the worker that this frontend did not give it, and that the engine has heard of.
    pub strays: HashSet<LeaseId>,
    /// Answers of the worker that the engine is still to hear of.
    pub reports: Arc<watch::Sender<usize>>,
    /// Dropped with the session, which tells the session's task that the seat is taken away.
    pub _seat: oneshot::Sender<()>,
}

/// A lease of a worker of this frontend.
pub struct Running {
    pub worker: WorkerId,
    pub task: TaskId,
    pub job: Arc<Job>,
    pub operation: Arc<str>,
    /// `None`: what it prints is of no interest any more.
    pub output: Option<Arc<OpenLogs>>,
    pub attempt: Attempt,
    pub since: Instant,
    /// When the engine last heard that the lease goes on.
    pub extended: Instant,
}

impl Running {
    pub fn run(&self) -> Run {
        self.attempt.run(self.operation.clone(), self.job.clone())
    }
}

impl Watched {
    pub fn run(&self) -> Run {
        self.attempt.run(self.operation.clone(), self.job.clone())
    }

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

    /// Takes in a later attempt at the same task.
    pub fn learn(&mut self, attempt: &Attempt) {
        let queued_at = self.attempt.queued_at;
        self.attempt = Attempt { queued_at, ..attempt.clone() };
    }

    pub fn is_done(&self) -> bool {
        matches!(self.updates.borrow().stage, Stage::Done(_))
    }

    /// The ends that those who wait for the task were told of already, as news for one who begins
    /// to wait now.
    fn heard(&self, task: TaskId) -> Vec<Told> {
        let update = self.updates.borrow();
        let cancelled = update.cancelled.iter().map(|(request, _)| Told::RequestCancelled {
            id: OperationId { task, request: *request },
            record: TaskRecord {
                job: self.job.clone(),
                attempt: self.attempt.clone(),
                cancelled: Vec::new(),
                requests: Vec::new(),
            },
        });
        let mut heard: Vec<Told> = cancelled.collect();
        if let Stage::Done(finished) = &update.stage {
            let (attempt, answer) = (self.attempt.clone(), Some(finished.clone()));
            heard.push(Told::Ended { task, ending: Ending::Published, attempt, answer });
        }
        heard
    }
}

impl Local {
    /// Counts one waiter less for the task. Returns whether the engine must know that.
    pub fn let_go(&mut self, task: TaskId) -> bool {
        let Some(watched) = self.tasks.get_mut(&task) else { return false };
        watched.tickets -= 1;
        let (done, last) = (watched.is_done(), watched.tickets == 0);
        if last {
            // Whoever begins to wait at this moment may have been answered before, and hears it nowhere else.
            let heard = watched.heard(task);
            self.tasks.remove(&task);
            heard.into_iter().for_each(|told| self.early.keep(told));
        }
        !done
    }

    /// The lease is not given to its worker yet, and is not wanted any more.
    pub fn cancel_early(&mut self, lease: LeaseId) {
        if self.cancelled.len() == MAX_CANCELLED {
            self.cancelled.pop_front();
        }
        self.cancelled.push_back(lease);
    }

    /// Whether the lease that comes now was cancelled before.
    pub fn take_cancelled(&mut self, lease: LeaseId) -> bool {
        let place = self.cancelled.iter().position(|cancelled| *cancelled == lease);
        place.and_then(|place| self.cancelled.remove(place)).is_some()
    }

    /// `false`: there is no such session, or it does not take its messages.
    pub fn send(&self, worker: WorkerId, kind: Kind) -> bool {
        let Some(session) = self.sessions.get(&worker) else { return false };
        session.outbound.try_send(SchedulerMessage { kind: Some(kind) }).is_ok()
    }

    pub fn close_session(&mut self, worker: WorkerId) -> Option<Session> {
        let session = self.sessions.remove(&worker)?;
        self.runs.retain(|_, run| run.worker != worker);
        Some(session)
    }

    /// The number of leases and publications of this frontend.
    pub fn busy(&self) -> usize {
        self.runs.len() + self.publishing.len()
    }

    /// The leases that a worker has listed, and whether the engine must hear at once that some of
    /// them are not what it believes. Of a run that the worker does not list for longer than
    /// `patience`, it does not know.
    pub fn listed(
        &mut self,
        names: &Names,
        worker: WorkerId,
        listed: Vec<String>,
        patience: Duration,
    ) -> (Vec<LeaseId>, bool) {
        let Some(session) = self.sessions.get_mut(&worker) else { return (Vec::new(), false) };
        let leases = session.foreign.list(names, listed);
        let listed: HashSet<LeaseId> = leases.iter().copied().collect();
        let publishing = &self.publishing;
        self.runs.retain(|lease, run| {
            run.worker != worker
                || listed.contains(lease)
                || publishing.contains_key(lease)
                || run.since.elapsed() < patience
        });
        let runs = &self.runs;
        let is_given = |lease: &LeaseId| runs.get(lease).is_some_and(|run| run.worker == worker);
        let strays: HashSet<LeaseId> =
            listed.iter().copied().filter(|lease| !is_given(lease)).collect();
        let news = !strays.is_subset(&session.strays);
        session.strays = strays;
        (leases, news)
    }

    /// For each worker that spoke since the last call: its name in the queue and the leases that
    /// the engine should hear of.
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

    /// The engine did not hear this after all: it is said again with the next beat, unless the
    /// worker has spoken since.
    pub fn put_back(&mut self, beats: Vec<(WorkerId, Vec<LeaseId>)>) {
        let now = Instant::now();
        for (worker, leases) in beats {
            if let Some(session) = self.sessions.get_mut(&worker) {
                session.heard.get_or_insert((leases, now));
            }
        }
    }

    /// The tasks that clients wait for here, each with the number of its waiters.
    pub fn waits(&self) -> Vec<(TaskId, usize)> {
        let open = self.tasks.iter().filter(|(_, watched)| !watched.is_done());
        open.map(|(task, watched)| (*task, watched.tickets)).collect()
    }
}
