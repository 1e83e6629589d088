//! Any sequence of events: the queue's state machine stays consistent, leases only to workers
//! that are there, and ends each task that it accepted, once.
#![no_main]

use std::collections::HashSet;
use std::sync::Arc;

use arbitrary::Arbitrary;
use kiln_cas::{ActionKey, DigestFunction};
use kiln_scheduler::queue::platform::{Offer, Requirement};
use kiln_scheduler::queue::{
    Effect, Event, Joined, LeaseId, Limits, Machine, Millis, OperationId, Phase, Submit, TaskId,
    WorkerId,
};
use libfuzzer_sys::fuzz_target;

const MAX_STEPS: usize = 200;
/// Far more than so many steps can have set.
const MAX_TIMERS: usize = 100 * MAX_STEPS;

/// Ids are small, so that they often name something.
#[derive(Arbitrary, Debug)]
enum Step {
    Submit {
        key: u8,
        property: u8,
        priority: i32,
        invocation: u8,
        cache: u8,
        expected: Option<u64>,
    },
    Attach(u8, u8),
    Detach(u8, u8),
    Cancel(u8, u8),
    Join {
        name: u8,
        slots: u8,
        property: u8,
    },
    Left(u8),
    Heartbeat(u8, Vec<u8>),
    WorkerDraining(u8),
    Progress(u8, u8),
    Completed(u8, u8),
    Failed(u8, u8),
    Published(u8, u32),
    Drain,
    Wait(u32),
    NextTimer,
}

#[derive(Default)]
struct Seen {
    workers: HashSet<WorkerId>,
    leases: HashSet<LeaseId>,
    /// Accepted and not finished.
    open: HashSet<TaskId>,
    publishing: HashSet<TaskId>,
    finished: HashSet<TaskId>,
}

fn property(number: u8) -> Option<(String, String)> {
    (number % 4 != 0).then(|| ("kind".to_owned(), (number % 4).to_string()))
}

fn id(task: u8, request: u8) -> OperationId {
    OperationId { task: TaskId(task.into()), request: u32::from(request % 4) }
}

fn submit(step: Step) -> Option<Submit> {
    let Step::Submit { key, property: number, priority, invocation, cache, expected } = step else {
        return None;
    };
    let action = DigestFunction::Sha256.digest(&[key % 8]);
    Some(Submit {
        key: ActionKey { instance: "".into(), action },
        requirement: Requirement::new(property(number)),
        priority,
        invocation: Arc::from((invocation % 4).to_string()),
        expected_ms: expected,
        timeout_ms: 60_000,
        do_not_cache: cache & 1 != 0,
        skip_cache_lookup: cache & 2 != 0,
        caller: None,
        avoid: None,
    })
}

impl Seen {
    fn note(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Accepted { id, .. } => {
                    assert!(!self.finished.contains(&id.task), "a request joined what had ended");
                    self.open.insert(id.task);
                }
                Effect::Publish { task, .. } => {
                    self.publishing.insert(*task);
                }
                Effect::Assign { worker, lease, task, .. } => {
                    assert!(self.workers.contains(worker), "a lease for a worker that is gone");
                    assert!(self.leases.insert(*lease), "a lease id was used twice");
                    assert!(!self.finished.contains(task), "a task ran after its end");
                }
                Effect::Finished { task, .. } => {
                    assert!(self.finished.insert(*task), "a task ended twice");
                    assert!(self.open.remove(task), "a task ended that never began");
                }
                Effect::CloseWorker { worker, .. } => {
                    self.workers.remove(worker);
                }
                _ => {}
            }
        }
    }
}

/// Left alone, the machine loses its workers, ends its tasks and comes to rest.
fn settle(mut machine: Machine, mut now: Millis, mut seen: Seen) {
    for _ in 0..MAX_TIMERS {
        let published = seen.publishing.iter().next().copied();
        let event = match (published, machine.next_timer()) {
            (Some(task), _) => {
                seen.publishing.remove(&task);
                Event::Published { task, bytes: 1 }
            }
            (None, Some(at)) => {
                now = now.max(at);
                Event::Tick
            }
            (None, None) => {
                assert!(seen.open.is_empty(), "nothing will ever end {:?}", seen.open);
                return;
            }
        };
        let mut effects = Vec::new();
        machine.handle(now, event, &mut effects);
        seen.note(&effects);
        machine.check();
    }
    panic!("there is always a timer");
}

fuzz_target!(|steps: Vec<Step>| {
    let limits = Limits {
        max_queued: 12,
        max_requests_per_task: 3,
        max_completed: 4,
        max_idle_lanes: 1,
        ..Limits::default()
    };
    let mut machine = Machine::new(limits);
    let (mut now, mut next_worker, mut seen): (Millis, u64, _) = (0, 0, Seen::default());
    for step in steps.into_iter().take(MAX_STEPS) {
        let worker = |number: u8| WorkerId(number.into());
        let lease = |number: u8| LeaseId(number.into());
        let event = match step {
            Step::Submit { .. } => match submit(step) {
                Some(submit) => Event::Submit(Box::new(submit)),
                None => continue,
            },
            Step::Attach(task, request) => Event::Attach(id(task, request)),
            Step::Detach(task, request) => Event::Detach(id(task, request)),
            Step::Cancel(task, request) => Event::Cancel(id(task, request)),
            Step::Join { name, slots, property: number } => {
                next_worker += 1;
                let worker = WorkerId(next_worker);
                seen.workers.insert(worker);
                let name = Arc::from((name % 4).to_string());
                let slots = u32::from(slots % 4) + 1;
                Event::WorkerJoined(Joined {
                    worker,
                    name,
                    slots,
                    offer: Offer::new(property(number)),
                    leases: Vec::new(),
                    paused: None,
                })
            }
            Step::Left(number) => Event::WorkerLeft { worker: worker(number) },
            Step::Heartbeat(number, leases) => Event::Heartbeat {
                worker: worker(number),
                leases: leases.into_iter().map(lease).collect(),
            },
            Step::WorkerDraining(number) => Event::WorkerDraining { worker: worker(number) },
            Step::Progress(number, of) => {
                Event::Progress { worker: worker(number), lease: lease(of), phase: Phase::Running }
            }
            Step::Completed(number, of) => {
                Event::Completed { worker: worker(number), lease: lease(of) }
            }
            Step::Failed(number, of) => {
                let message = "broken".to_owned();
                Event::Failed { worker: worker(number), lease: lease(of), message }
            }
            Step::Published(task, bytes) => {
                Event::Published { task: TaskId(task.into()), bytes: bytes as usize }
            }
            Step::Drain => Event::Drain,
            Step::Wait(millis) => {
                now += Millis::from(millis);
                Event::Tick
            }
            Step::NextTimer => {
                now = now.max(machine.next_timer().unwrap_or(now));
                Event::Tick
            }
        };
        let left = match &event {
            Event::WorkerLeft { worker } => Some(*worker),
            _ => None,
        };
        let mut effects = Vec::new();
        machine.handle(now, event, &mut effects);
        seen.note(&effects);
        if let Some(worker) = left {
            seen.workers.remove(&worker);
        }
        machine.check();
    }
    settle(machine, now, seen);
});
