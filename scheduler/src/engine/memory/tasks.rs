//! The machine with what it does not need to know: jobs, requests, runs and answers of its tasks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::frontend::engine::Call;
use crate::frontend::told::{
    Assigned, Attempt, RequestStatus, Step, TaskRecord, TaskStatus, Told, WorkerInfo, WorkerStatus,
};
use crate::job::{Finished, Job, Request, unix_nanos};
use crate::queue::{
    Effect, Ending, Event, Joined, Limits, Machine, Millis, OperationId, TaskId, WorkerId,
};

pub struct Queued {
    machine: Machine,
    effects: Vec<Effect>,
    tasks: BTreeMap<TaskId, Task>,
    sessions: HashMap<WorkerId, (Arc<str>, WorkerInfo)>,
    next_worker: u64,
}

struct Task {
    step: Step,
    job: Arc<Job>,
    attempt: Attempt,
    asked: Vec<Asked>,
    ending: Option<Ending>,
    answer: Option<Arc<Finished>>,
}

/// A request for a task.
struct Asked {
    request: Arc<Request>,
    cancelled: bool,
    forgotten: bool,
}

impl Asked {
    fn new(request: Arc<Request>) -> Self {
        Self { request, cancelled: false, forgotten: false }
    }
}

/// The job or the answer that comes with a call, for the effects that follow from it.
#[derive(Default)]
struct Input {
    job: Option<Arc<Job>>,
    answer: Option<Arc<Finished>>,
}

impl Task {
    fn new(job: Arc<Job>) -> Self {
        Self {
            step: Step::Queued,
            attempt: Attempt { queued_at: unix_nanos(), ..Attempt::default() },
            asked: vec![Asked::new(job.request.clone())],
            ending: None,
            answer: None,
            job,
        }
    }

    fn state(&self, task: TaskId) -> TaskStatus {
        let request = |asked: &Asked| RequestStatus {
            owner: asked.request.owner.clone(),
            cancelled: asked.cancelled,
            forgotten: asked.forgotten,
        };
        TaskStatus {
            task,
            step: self.step,
            job: self.job.clone(),
            attempt: self.attempt.clone(),
            requests: self.asked.iter().map(request).collect(),
            ending: self.ending.clone(),
            answer: self.answer.clone(),
        }
    }

    fn record(&self) -> TaskRecord {
        TaskRecord {
            job: self.job.clone(),
            attempt: self.attempt.clone(),
            cancelled: self.asked.iter().map(|asked| asked.cancelled).collect(),
            requests: self.asked.iter().skip(1).map(|asked| asked.request.clone()).collect(),
        }
    }
}

impl Queued {
    pub fn new(limits: Limits) -> Self {
        Self {
            machine: Machine::new(limits),
            effects: Vec::new(),
            tasks: BTreeMap::new(),
            sessions: HashMap::new(),
            next_worker: 0,
        }
    }

    pub fn next_timer(&self) -> Option<Millis> {
        self.machine.next_timer()
    }

    pub fn take(&mut self, now: Millis, call: Call) -> Vec<Told> {
        let mut told = Vec::new();
        match call {
            Call::Submit(submit, job) => {
                let input = Input { job: Some(job), ..Input::default() };
                self.handle(now, Event::Submit(submit), input, &mut told);
            }
            Call::Attach(id) => {
                self.handle(now, Event::Attach(id), Input::default(), &mut told);
                self.look(id.task, &mut told);
            }
            Call::Forget(id) => self.forget(id),
            Call::Look(task) => self.look(task, &mut told),
            Call::Page { from, count } => {
                let tasks = self.tasks.range(from..).take(count);
                told.extend(tasks.map(|(id, task)| Told::Task(Box::new(task.state(*id)))));
            }
            Call::Figures { listed } => self.figures(now, listed, &mut told),
            Call::Join(joined, info) => self.join(now, joined, info, &mut told),
            Call::Completed { worker, lease, .. } => {
                let event = Event::Completed { worker, lease };
                self.handle(now, event, Input::default(), &mut told);
            }
            Call::Published { task, answer, .. } => {
                let bytes = answer.size();
                let input = Input { answer: Some(answer), ..Input::default() };
                self.handle(now, Event::Published { task, bytes }, input, &mut told);
            }
            Call::Event(event) => {
                let left = match &event {
                    Event::WorkerLeft { worker } => Some(*worker),
                    _ => None,
                };
                self.handle(now, event, Input::default(), &mut told);
                left.map(|worker| self.sessions.remove(&worker));
            }
            Call::DrainWorker(name) => {
                if let Some(worker) = self.machine.worker_named(&name.into()) {
                    let event = Event::WorkerDraining { worker };
                    self.handle(now, event, Input::default(), &mut told);
                    told.push(Told::Drain { worker });
                }
            }
            Call::Drain(_) => self.handle(now, Event::Drain, Input::default(), &mut told),
        }
        told
    }

    fn handle(&mut self, now: Millis, event: Event, mut input: Input, told: &mut Vec<Told>) {
        let mut effects = std::mem::take(&mut self.effects);
        self.machine.handle(now, event, &mut effects);
        told.extend(effects.drain(..).filter_map(|effect| self.tell(effect, &mut input)));
        self.effects = effects;
    }

    fn join(&mut self, now: Millis, joined: Joined, info: WorkerInfo, told: &mut Vec<Told>) {
        self.next_worker += 1;
        let worker = WorkerId(self.next_worker);
        self.sessions.insert(worker, (joined.name.clone(), info));
        // Before what it is given.
        told.push(Told::Joined { worker });
        let event = Event::WorkerJoined(Joined { worker, ..joined });
        self.handle(now, event, Input::default(), told);
    }

    /// The news that follows from an effect of the machine; `None`: nobody needs to know of it.
    fn tell(&mut self, effect: Effect, input: &mut Input) -> Option<Told> {
        Some(match effect {
            Effect::Accepted { id, merged } => return self.accepted(id, merged, input.job.take()?),
            Effect::Refused(refusal) => Told::Refused(refusal),
            Effect::Assign { worker, lease, task: id, attempt } => {
                let name = self.sessions.get(&worker).map(|(name, _)| name.clone());
                let task = self.tasks.get_mut(&id)?;
                task.step = Step::Leased;
                task.attempt.leased_at = unix_nanos();
                task.attempt.worker = name.unwrap_or_default();
                task.attempt.number = attempt;
                let blobs = task.job.messages.blobs().to_vec();
                let assigned = Assigned { job: task.job.clone(), blobs };
                let (attempt, assigned) = (task.attempt.clone(), Some(assigned));
                Told::Assign { worker, lease, task: id, attempt, assigned }
            }
            Effect::Adopted { worker, lease, task, attempt: number } => {
                let held = task.and_then(|id| Some((id, self.tasks.get(&id)?)));
                let attempt = held.map(|(_, task)| task.attempt.clone());
                let attempt = Attempt { number, ..attempt.unwrap_or_default() };
                let task = held.map(|(id, task)| (id, task.job.clone()));
                Told::Adopted { worker, lease, task, attempt }
            }
            Effect::CancelLease { worker, lease, reason } => {
                Told::CancelLease { worker, lease, reason }
            }
            Effect::CloseWorker { worker, reason } => {
                self.sessions.remove(&worker);
                Told::CloseWorker { worker, reason }
            }
            Effect::Requeued { task, at_once } => {
                self.tasks.get_mut(&task)?.step = Step::Queued;
                Told::Requeued { task, at_once }
            }
            Effect::Publish { task, lease, worker, attempt } => {
                self.tasks.get_mut(&task)?.step = Step::Publishing;
                Told::Publish { task, lease, worker, attempt }
            }
            Effect::Stale { lease } => Told::Stale { lease },
            Effect::RequestCancelled { id } => {
                let task = self.tasks.get_mut(&id.task)?;
                task.asked.get_mut(id.request as usize)?.cancelled = true;
                Told::RequestCancelled { id, record: task.record() }
            }
            Effect::Finished { task: id, ending } => {
                let task = self.tasks.get_mut(&id)?;
                task.step = Step::Finished;
                task.ending = Some(ending.clone());
                task.answer = input.answer.take();
                Told::Finished { task: id, ending, record: task.record() }
            }
            Effect::Forgotten { task } => {
                self.tasks.remove(&task);
                Told::Forgotten { task }
            }
        })
    }

    fn accepted(&mut self, id: OperationId, merged: bool, job: Arc<Job>) -> Option<Told> {
        let joined = if merged {
            let task = self.tasks.get_mut(&id.task)?;
            task.asked.push(Asked::new(job.request.clone()));
            Some(task.job.clone())
        } else {
            self.tasks.insert(id.task, Task::new(job));
            None
        };
        let task = self.tasks.get(&id.task)?;
        Some(Told::Accepted { id, joined, step: task.step, attempt: task.attempt.clone() })
    }

    fn forget(&mut self, id: OperationId) {
        let task = self.tasks.get_mut(&id.task);
        if let Some(asked) = task.and_then(|task| task.asked.get_mut(id.request as usize)) {
            asked.forgotten = true;
        }
    }

    fn look(&self, id: TaskId, told: &mut Vec<Told>) {
        told.push(match self.tasks.get(&id) {
            Some(task) => Told::Task(Box::new(task.state(id))),
            None => Told::Unknown { task: id },
        });
    }

    fn figures(&self, now: Millis, listed: usize, told: &mut Vec<Told>) {
        let machine = &self.machine;
        told.push(Told::Counters(machine.counters()));
        told.extend(machine.workers().map(|worker| {
            let info = self.sessions.get(&worker.id).map(|(_, info)| info.clone());
            Told::Worker(Box::new(WorkerStatus {
                name: worker.name.to_string(),
                slots: worker.slots,
                occupied: worker.occupied,
                draining: worker.draining,
                last_seen_ms: now.saturating_sub(worker.last_seen),
                properties: worker.offer.map(|offer| offer.pairs().to_vec()).unwrap_or_default(),
                info: info.unwrap_or_default(),
                paused: worker.paused.map(|reason| reason.to_string()),
            }))
        }));
        told.extend(machine.lanes().map(|lane| Told::Lane {
            properties: lane.requirement.pairs().to_vec(),
            queued: lane.queued,
            running: lane.running,
            served: lane.served,
        }));
        told.push(Told::Totals {
            now: unix_nanos(),
            queued: machine.queued(),
            running: machine.running(),
            oldest_queued_ms: machine.waiting().next().map(|(_, since)| now.saturating_sub(since)),
        });
        let waiting = machine.waiting().map(|(task, _)| task).take(listed);
        let running = machine.leases().filter_map(|lease| lease.task).take(listed);
        let tasks = waiting.chain(running).filter_map(|id| Some((id, self.tasks.get(&id)?)));
        told.extend(tasks.map(|(id, task)| Told::Task(Box::new(task.state(id)))));
    }
}
