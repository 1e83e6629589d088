//! Any sequence of events, sensible or not, leaves the machine consistent.

use std::sync::Arc;

use kiln_cas::{ActionKey, DigestFunction};
use kiln_scheduler::queue::platform::{Offer, Requirement};
use kiln_scheduler::queue::{
    Effect, Event, Joined, LeaseId, Limits, Machine, Millis, OperationId, Quota, Submit, TaskId,
    WorkerId,
};
use proptest::prelude::*;

use crate::model::Model;

#[derive(Debug, Clone)]
enum Step {
    Submit {
        key: u8,
        invocation: u8,
        priority: i32,
        skip: bool,
    },
    Join {
        slots: u32,
        offer: u8,
    },
    Leave(usize),
    Drain(usize),
    Complete(usize),
    Fail(usize),
    Return(usize),
    /// A worker refuses a lease; the second value says whether it holds something else instead.
    Refuse(usize, bool),
    Pause(usize, bool),
    Publish(usize),
    Heartbeat(usize, bool),
    Attach(usize),
    Detach(usize),
    GiveUp(usize, u32),
    Cancel(usize, u32),
    Wait(Millis),
    /// An event about something that does not exist.
    Nonsense(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let one = 0_usize..64;
    prop_oneof![
        6 => (0..8_u8, 0..3_u8, -1..2, any::<bool>()).prop_map(
            |(key, invocation, priority, skip)| Step::Submit { key, invocation, priority, skip }
        ),
        2 => (1..4_u32, 0..4_u8).prop_map(|(slots, offer)| Step::Join { slots, offer }),
        1 => one.clone().prop_map(Step::Leave),
        1 => one.clone().prop_map(Step::Drain),
        5 => one.clone().prop_map(Step::Complete),
        2 => one.clone().prop_map(Step::Fail),
        2 => one.clone().prop_map(Step::Return),
        2 => (one.clone(), any::<bool>()).prop_map(|(i, other)| Step::Refuse(i, other)),
        2 => (one.clone(), any::<bool>()).prop_map(|(i, paused)| Step::Pause(i, paused)),
        5 => one.clone().prop_map(Step::Publish),
        2 => (one.clone(), any::<bool>()).prop_map(|(i, all)| Step::Heartbeat(i, all)),
        1 => one.clone().prop_map(Step::Attach),
        2 => one.clone().prop_map(Step::Detach),
        2 => (one.clone(), 0..3_u32).prop_map(|(i, request)| Step::GiveUp(i, request)),
        1 => (one.clone(), 0..3_u32).prop_map(|(i, request)| Step::Cancel(i, request)),
        3 => prop_oneof![Just(1), Just(500), Just(40_000), Just(700_000)].prop_map(Step::Wait),
        1 => (0..11_u8).prop_map(Step::Nonsense),
    ]
}

struct Checked {
    machine: Machine,
    model: Model,
    now: Millis,
    workers: Vec<WorkerId>,
    leases: Vec<(WorkerId, LeaseId)>,
    publishing: Vec<TaskId>,
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

impl Checked {
    fn new() -> Self {
        let limits = Limits {
            max_queued: 12,
            max_requests_per_task: 3,
            max_completed: 4,
            max_idle_lanes: 1,
            instance: Quota { queued: 10, running: 3 },
            caller: Quota { queued: 4, running: 2 },
            max_returns: 2,
            ..Limits::default()
        };
        Self {
            machine: Machine::new(limits.clone()),
            model: Model::new(limits),
            now: 0,
            workers: Vec::new(),
            leases: Vec::new(),
            publishing: Vec::new(),
        }
    }

    fn feed(&mut self, event: Event) {
        let mut submit = match &event {
            Event::Submit(submit) => Some((**submit).clone()),
            _ => None,
        };
        let mut effects = Vec::new();
        let left = match &event {
            Event::WorkerLeft { worker } => Some(*worker),
            _ => None,
        };
        self.machine.handle(self.now, event, &mut effects);
        if let Some(worker) = left {
            self.model.gone(worker);
        }
        for effect in &effects {
            match effect {
                Effect::Accepted { id, merged } => {
                    let submit = submit.take().expect("only submissions are accepted");
                    self.model.accepted(self.now, submit, id.task, id.request, *merged);
                }
                Effect::CloseWorker { worker, .. } => self.model.gone(*worker),
                Effect::Requeued { task, at_once: true } => self.model.requeued_at_once(*task),
                Effect::Assign { worker, lease, .. } => self.leases.push((*worker, *lease)),
                Effect::Publish { task, .. } => self.publishing.push(*task),
                _ => {}
            }
            self.model.effect(self.now, effect, false);
        }
        self.machine.check();
    }

    fn task(&self, index: usize) -> Option<TaskId> {
        let mut tasks: Vec<_> = self.model.tasks.keys().copied().collect();
        tasks.sort_unstable();
        pick(&tasks, index)
    }

    fn take(&mut self, step: Step) {
        self.feed(Event::Tick);
        match step {
            Step::Submit { key, invocation, priority, skip } => {
                let action = DigestFunction::Sha256.digest(&[key]);
                let requirement = match key % 3 {
                    0 => Requirement::default(),
                    n => Requirement::new([pair("kind", &n.to_string())]),
                };
                self.feed(Event::Submit(Box::new(Submit {
                    key: ActionKey { instance: "".into(), action },
                    requirement,
                    priority,
                    invocation: Arc::from(invocation.to_string()),
                    expected_ms: None,
                    timeout_ms: 60_000,
                    do_not_cache: key == 7,
                    skip_cache_lookup: skip,
                    caller: (invocation > 0).then(|| Arc::from("somebody")),
                    avoid: skip.then(|| Arc::from("1")),
                })));
            }
            Step::Join { slots, offer } => {
                let worker = WorkerId(self.workers.len() as u64 + 1);
                self.workers.push(worker);
                let offer = match offer {
                    0 => Offer::new([]),
                    3 => Offer::new([pair("*", "*")]),
                    n => Offer::new([pair("kind", &n.to_string())]),
                };
                self.model.joined(worker, slots, offer.clone(), &[]);
                let name = worker.0.to_string().into();
                self.feed(Event::WorkerJoined(Joined {
                    worker,
                    name,
                    slots,
                    offer,
                    leases: Vec::new(),
                    paused: None,
                }));
            }
            Step::Leave(i) => self.with_worker(i, |worker| Event::WorkerLeft { worker }),
            Step::Drain(i) => {
                if let Some(worker) = pick(&self.workers, i) {
                    self.model.draining(worker);
                    self.feed(Event::WorkerDraining { worker });
                }
            }
            Step::Complete(i) => {
                self.give_back(i, |worker, lease| Event::Completed { worker, lease })
            }
            Step::Fail(i) => self.give_back(i, |worker, lease| Event::Failed {
                worker,
                lease,
                message: "broken".to_owned(),
            }),
            Step::Return(i) => {
                if let Some((worker, lease)) = pick(&self.leases, i) {
                    self.model.returned(worker, lease);
                    let message = "it drains".to_owned();
                    self.feed(Event::Returned { worker, lease, message });
                }
            }
            Step::Refuse(i, other) => {
                if let Some((worker, lease)) = pick(&self.leases, i) {
                    self.model.refused(worker, lease);
                    let mut holds = self.model.leases_of(worker);
                    holds.extend(other.then_some(LeaseId(8_000 + self.leases.len() as u64)));
                    self.model.listed(worker, &holds);
                    let message = "it has no room".to_owned();
                    self.feed(Event::Refused { worker, lease, message, holds });
                }
            }
            Step::Pause(i, paused) => {
                if let Some(worker) = pick(&self.workers, i) {
                    self.model.paused(worker, paused);
                    let reason = paused.then(|| "it is sick".into());
                    self.feed(Event::WorkerPaused { worker, reason });
                }
            }
            Step::Publish(i) => {
                if let Some(task) = pick(&self.publishing, i) {
                    self.feed(Event::Published { task, bytes: 1 });
                }
            }
            Step::Heartbeat(i, all) => {
                if let Some(worker) = pick(&self.workers, i) {
                    // What is omitted twice is given up; the model learns it by its effects.
                    let held = self.model.leases_of(worker);
                    let mut leases = if all || !held.is_empty() { held } else { Vec::new() };
                    leases.extend((i % 5 == 0).then_some(LeaseId(7_000 + i as u64)));
                    self.model.heard(worker, &leases);
                    self.feed(Event::Heartbeat { worker, leases });
                }
            }
            Step::Attach(i) => {
                if let Some(task) = self.task(i) {
                    self.model.tasks.get_mut(&task).expect("it is there").waiters += 1;
                    self.feed(Event::Attach(OperationId { task, request: 0 }));
                }
            }
            Step::Detach(i) => {
                if let Some(task) = self.task(i)
                    && let Some(known) = self.model.tasks.get_mut(&task)
                    && known.waiters > 0
                {
                    known.waiters -= 1;
                    self.feed(Event::Detach(OperationId { task, request: 0 }));
                }
            }
            Step::GiveUp(i, request) => {
                if let Some(task) = self.task(i)
                    && let Some(known) = self.model.tasks.get_mut(&task)
                    && known.waiters > 0
                {
                    known.waiters -= 1;
                    self.feed(Event::GaveUp(OperationId { task, request }));
                }
            }
            Step::Cancel(i, request) => {
                if let Some(task) = self.task(i) {
                    self.feed(Event::Cancel(OperationId { task, request }));
                }
            }
            Step::Wait(millis) => {
                let until = self.now + millis;
                while let Some(timer) = self.machine.next_timer().filter(|timer| *timer <= until) {
                    self.now = self.now.max(timer);
                    self.feed(Event::Tick);
                }
                self.now = until;
            }
            Step::Nonsense(kind) => self.feed(nonsense(kind)),
        }
    }

    fn with_worker(&mut self, index: usize, event: impl Fn(WorkerId) -> Event) {
        if let Some(worker) = pick(&self.workers, index) {
            self.feed(event(worker));
        }
    }

    fn give_back(&mut self, index: usize, event: impl Fn(WorkerId, LeaseId) -> Event) {
        if let Some((worker, lease)) = pick(&self.leases, index) {
            self.model.gave_back(worker, lease);
            self.feed(event(worker, lease));
        }
    }
}

fn pick<T: Copy>(list: &[T], index: usize) -> Option<T> {
    if list.is_empty() { None } else { Some(list[index % list.len()]) }
}

fn nonsense(kind: u8) -> Event {
    let (worker, lease) = (WorkerId(9_999), LeaseId(9_999));
    let (task, id) = (TaskId(9_999), OperationId { task: TaskId(9_999), request: 9 });
    match kind {
        0 => Event::Completed { worker, lease },
        1 => Event::Failed { worker, lease, message: String::new() },
        2 => Event::Published { task, bytes: 0 },
        3 => Event::Cancel(id),
        4 => Event::Detach(id),
        5 => Event::Attach(id),
        6 => Event::WorkerLeft { worker },
        8 => Event::Refused { worker, lease, message: String::new(), holds: vec![lease] },
        9 => Event::WorkerPaused { worker, reason: None },
        10 => Event::GaveUp(id),
        7 => Event::Returned { worker, lease, message: String::new() },
        _ => Event::Heartbeat { worker, leases: vec![lease] },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_events_is_survived(steps in prop::collection::vec(step(), 1..120)) {
        let mut checked = Checked::new();
        for step in steps {
            checked.take(step);
        }
        // Whatever was going on: with a good worker and time, everything ends.
        for task in std::mem::take(&mut checked.publishing) {
            checked.feed(Event::Published { task, bytes: 1 });
        }
        checked.take(Step::Wait(30 * 60_000));
        checked.take(Step::Wait(30 * 60_000));
        prop_assert_eq!(checked.model.tasks.len(), 0, "tasks do not end");
        prop_assert_eq!(checked.machine.unfinished().count(), 0);
    }
}
