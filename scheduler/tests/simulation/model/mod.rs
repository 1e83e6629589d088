//! What must hold, told by events and effects alone and independent of how the machine
//! works inside.

mod sessions;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kiln_scheduler::queue::platform::{Offer, Requirement};
use kiln_scheduler::queue::{
    CancelReason, Effect, Ending, LeaseId, Limits, Millis, Submit, TaskId, WorkerId,
};

pub struct Task {
    pub submit: Submit,
    pub waiters: u32,
    skips: bool,
    submitted: Millis,
    lease: Option<LeaseId>,
    queued: bool,
    publishing: bool,
    kills: usize,
    runs: u32,
    returns: u32,
    cancelled: Vec<bool>,
}

impl Task {
    pub fn is_publishing(&self) -> bool {
        self.publishing
    }
}

struct Session {
    slots: u32,
    offer: Offer,
    draining: bool,
    paused: bool,
    leases: BTreeSet<LeaseId>,
    /// Leases that the worker holds though it should not.
    strays: BTreeSet<LeaseId>,
}

impl Session {
    fn takes(&self) -> bool {
        !self.draining && !self.paused
    }
}

#[derive(Clone, Copy)]
struct Lease {
    task: TaskId,
    worker: WorkerId,
    revoked: bool,
    /// Heartbeats in a row that left this lease out.
    omitted: u8,
}

type Group = (Requirement, i32, Arc<str>);

#[derive(Default)]
pub struct Model {
    pub limits: Limits,
    pub tasks: HashMap<TaskId, Task>,
    pub finished: u64,
    pub published: u64,
    pub endings: BTreeMap<&'static str, u64>,
    /// Dispatches whose order was checked, and those at which others waited too.
    pub fair_checks: u64,
    pub contested: u64,
    sessions: HashMap<WorkerId, Session>,
    leases: HashMap<LeaseId, Lease>,
    ended: HashSet<TaskId>,
    queued: BTreeMap<Group, u64>,
    running: HashMap<Arc<str>, u64>,
    /// Callers of invocations, and how many slots run their actions.
    callers: HashMap<Arc<str>, Arc<str>>,
    caller_running: HashMap<Arc<str>, usize>,
    /// Dispatches that left a caller without room for more.
    pub at_quota: u64,
    /// For each task its invocation and the number of its leases, revoked ones included.
    invocation_of: HashMap<TaskId, (Arc<str>, u32)>,
    forgotten: HashSet<TaskId>,
    /// What the latest worker that listed its leases named: these may be cancelled whatever they
    /// are.
    listed: HashSet<LeaseId>,
    /// Leases that workers had no room for.
    pub refused: u64,
    pub adopted: u64,
    /// Runs that draining workers gave back, and those of them that counted all the same.
    pub returned: u64,
    pub returned_too_often: u64,
    /// Answers that were to be published by a frontend that was lost.
    pub unpublished: u64,
    /// Frontends may be lost while they publish.
    pub frontends: bool,
}

impl Model {
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    fn group(&self, task: &Task) -> Group {
        let submit = &task.submit;
        (submit.requirement.clone(), submit.priority, submit.invocation.clone())
    }

    pub(super) fn set_queued(&mut self, id: TaskId, queued: bool) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if std::mem::replace(&mut task.queued, queued) == queued {
            return;
        }
        let group = self.group(&self.tasks[&id]);
        let count = self.queued.entry(group.clone()).or_default();
        *count = if queued { *count + 1 } else { *count - 1 };
        if *count == 0 {
            self.queued.remove(&group);
        }
    }

    pub fn accepted(
        &mut self,
        now: Millis,
        submit: Submit,
        id: TaskId,
        request: u32,
        merged: bool,
    ) {
        if !merged {
            assert_eq!(request, 0);
            let task = Task {
                waiters: 1,
                skips: submit.skip_cache_lookup,
                submitted: now,
                lease: None,
                queued: false,
                publishing: false,
                kills: 0,
                runs: 0,
                returns: 0,
                cancelled: vec![false],
                submit,
            };
            let invocation = task.submit.invocation.clone();
            if let Some(caller) = &task.submit.caller {
                self.callers.insert(invocation.clone(), caller.clone());
            }
            self.invocation_of.insert(id, (invocation, 0));
            assert!(self.tasks.insert(id, task).is_none(), "a task id came twice");
            self.set_queued(id, true);
            return;
        }
        let was_queued = self.tasks[&id].queued;
        self.set_queued(id, false);
        let task = self.tasks.get_mut(&id).expect("requests join unfinished tasks only");
        assert_eq!(task.submit.key, submit.key, "requests for different actions were merged");
        assert!(!task.submit.do_not_cache && !submit.do_not_cache, "do_not_cache was merged");
        assert!(!(task.skips && submit.skip_cache_lookup), "two skip_cache_lookup were merged");
        task.skips |= submit.skip_cache_lookup;
        task.waiters += 1;
        task.submit.priority = task.submit.priority.min(submit.priority);
        assert_eq!(request as usize, task.cancelled.len());
        task.cancelled.push(false);
        self.set_queued(id, was_queued);
    }

    /// `fairly`: order and number of running slots are known exactly at this point.
    pub fn effect(&mut self, now: Millis, effect: &Effect, fairly: bool) {
        match effect {
            Effect::Assign { worker, lease, task, attempt } => {
                self.assigned(*worker, *lease, *task, *attempt, fairly);
            }
            Effect::CancelLease { worker, lease, reason: CancelReason::Unknown } => {
                assert!(self.listed.contains(lease), "only what a worker listed is unknown");
                let session = self.sessions.get_mut(worker).expect("its session is open");
                assert!(!session.leases.contains(lease), "a lease is both known and unknown");
                assert!(session.strays.insert(*lease), "a stray was cancelled twice");
            }
            Effect::CancelLease { worker, lease, .. } => {
                let listed = self.listed.contains(lease);
                let Some(held) = self.leases.get_mut(lease) else {
                    return assert!(listed, "only held leases are cancelled");
                };
                if held.worker != *worker {
                    return assert!(listed, "another session's lease was cancelled");
                }
                assert!(!held.revoked || listed, "a lease was cancelled twice");
                held.revoked = true;
                let task = held.task;
                if let Some(task) = self.tasks.get_mut(&task) {
                    task.lease = None;
                }
            }
            Effect::Publish { task, worker, lease, .. } => {
                let _ = (worker, lease);
                let task = self.tasks.get_mut(task).expect("only unfinished tasks publish");
                assert!(!task.publishing, "a task publishes twice");
                task.publishing = true;
                self.published += 1;
            }
            Effect::Finished { task, ending } => self.ended(now, *task, ending),
            Effect::Forgotten { task } => {
                assert!(self.ended.contains(task), "an unfinished task was forgotten");
                assert!(self.forgotten.insert(*task), "a task was forgotten twice");
            }
            Effect::RequestCancelled { id } => {
                let task = self.tasks.get_mut(&id.task).expect("the task goes on");
                let request = &mut task.cancelled[id.request as usize];
                assert!(!std::mem::replace(request, true));
                assert!(task.cancelled.iter().any(|cancelled| !cancelled));
            }
            Effect::CloseWorker { .. }
            | Effect::Adopted { .. }
            | Effect::Requeued { .. }
            | Effect::Stale { .. }
            | Effect::Accepted { .. }
            | Effect::Refused(_) => {}
        }
    }

    /// A task of a lost worker waits again at once; after a failure it waits first.
    pub fn requeued_at_once(&mut self, task: TaskId) {
        self.not_published(task);
        self.set_queued(task, true);
    }

    /// The frontend that was to publish the answer did not.
    fn not_published(&mut self, task: TaskId) {
        let task = self.tasks.get_mut(&task).expect("only unfinished tasks run again");
        if std::mem::take(&mut task.publishing) {
            assert!(self.frontends, "an answer that counted was given up");
            self.published -= 1;
            self.unpublished += 1;
        }
    }

    fn assigned(
        &mut self,
        worker: WorkerId,
        lease: LeaseId,
        id: TaskId,
        attempt: u32,
        fairly: bool,
    ) {
        if fairly {
            self.check_order(worker, id);
        }
        self.set_queued(id, false);
        let session = self.sessions.get_mut(&worker).expect("leases go to open sessions");
        assert!(session.takes(), "a worker got a lease that takes nothing");
        assert!(session.leases.insert(lease));
        let taken = session.leases.len() + session.strays.len();
        assert!(taken <= session.slots as usize, "{worker:?} is over its slots");
        let task = self.tasks.get_mut(&id).expect("only unfinished tasks are leased");
        assert!(session.offer.satisfies(&task.submit.requirement));
        assert_eq!(task.lease, None, "a task has two current leases");
        assert!(!task.publishing);
        task.runs += 1;
        assert_eq!(task.runs, attempt);
        assert!(task.runs <= self.limits.max_retries + 1, "too many runs");
        task.lease = Some(lease);
        let held = Lease { task: id, worker, revoked: false, omitted: 0 };
        assert!(self.leases.insert(lease, held).is_none(), "a lease id came twice");
        *self.running.entry(task.submit.invocation.clone()).or_default() += 1;
        if let Some(caller) = self.callers.get(&task.submit.invocation) {
            let running = self.caller_running.entry(caller.clone()).or_default();
            *running += 1;
            assert!(*running <= self.limits.caller.running, "{caller} is over its quota");
            self.at_quota += u64::from(*running == self.limits.caller.running);
        }
        self.invocation_of.get_mut(&id).expect("it was accepted").1 += 1;
    }

    /// Checks that nothing that this worker could run is more urgent, and that no invocation with
    /// work of the same urgency runs on fewer slots.
    fn check_order(&mut self, worker: WorkerId, id: TaskId) {
        self.fair_checks += 1;
        self.contested += u64::from(self.queued.len() > 1);
        let offer = &self.sessions[&worker].offer;
        let running = |name: &Arc<str>| self.running.get(name).copied().unwrap_or(0);
        let submit = &self.tasks[&id].submit;
        let chosen = (submit.priority, running(&submit.invocation));
        for (requirement, priority, invocation) in self.queued.keys() {
            let other = (*priority, running(invocation));
            if self.is_held_back(invocation) {
                continue;
            }
            assert!(
                chosen <= other || !offer.satisfies(requirement),
                "{id:?} ({chosen:?}) was chosen before {invocation} ({other:?})"
            );
        }
    }

    fn is_held_back(&self, invocation: &Arc<str>) -> bool {
        let running = self.callers.get(invocation).and_then(|it| self.caller_running.get(it));
        running.is_some_and(|running| *running >= self.limits.caller.running)
    }

    fn ended(&mut self, now: Millis, id: TaskId, ending: &Ending) {
        self.set_queued(id, false);
        assert!(self.ended.insert(id), "{id:?} ended twice");
        if matches!(ending, Ending::RetriesExhausted { .. } | Ending::Poison { .. }) {
            self.not_published(id);
        }
        let task = self.tasks.remove(&id).expect("only accepted tasks end");
        if self.invocation_of.get(&id).is_some_and(|(_, leases)| *leases == 0) {
            self.invocation_of.remove(&id);
        }
        self.finished += 1;
        assert_eq!(task.publishing, *ending == Ending::Published, "answers are published, or not");
        let limits = &self.limits;
        let name = match ending {
            Ending::Published => "published",
            Ending::Cancelled => "cancelled",
            Ending::NobodyWaits => {
                assert_eq!(task.waiters, 0, "somebody waited");
                "nobody waits"
            }
            Ending::Unsatisfiable(reason) | Ending::WorkersPaused(reason) => {
                assert!(!reason.is_empty());
                assert!(now >= task.submitted + limits.unsatisfiable_grace);
                let fits = |session: &Session| {
                    session.takes() && session.offer.satisfies(&task.submit.requirement)
                };
                assert!(!self.sessions.values().any(fits), "a worker could have run {id:?}");
                "unsatisfiable"
            }
            Ending::RetriesExhausted { attempts, .. } => {
                assert_eq!(*attempts, task.runs);
                assert_eq!(task.runs, limits.max_retries + 1, "given up too early");
                "retries exhausted"
            }
            Ending::Poison { workers } => {
                assert_eq!(workers.len(), task.kills);
                assert_eq!(task.kills, limits.poison_kills as usize);
                "poison"
            }
        };
        *self.endings.entry(name).or_default() += 1;
    }
}
