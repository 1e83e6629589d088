//! The script, and events as its arguments.

use crate::job::{Finished, Job};
use crate::queue::{
    Event, Joined, LeaseId, Limits, OperationId, Phase, Submit, TaskId, UNKNOWN_EXPECTED_MS,
    WorkerId,
};

use super::payload::{encode_answer, encode_job, encode_key, encode_request};
use super::wire::fields::{id, pairs};

/// The name of the script's function that takes keys and arguments.
pub const FUNCTION: &str = "run";

/// The script but for the call of [`FUNCTION`], and its files, in the order in which they need each other.
macro_rules! parts {
    ($($file:literal),* $(,)?) => {
        pub const DEFINITIONS: &str = concat!($(include_str!($file),)*);
        /// The script's files, each as its name and its text.
        pub const PARTS: &[(&str, &str)] = &[$(($file, include_str!($file))),*];
    };
}

parts![
    "lua/base.lua",
    "../../queue/quotas.lua",
    "../../queue/ready.lua",
    "../../queue/lanes.lua",
    "../../queue/fleet.lua",
    "../../queue/tasks.lua",
    "../../queue/waiters.lua",
    "../../queue/workers.lua",
    "../../queue/leases.lua",
    "../../queue/dispatch.lua",
    "lua/frontends.lua",
    "lua/view.lua",
    "lua/main.lua",
];

/// The script counts exactly up to 2^53.
const NO_QUOTA: u64 = 1 << 53;

pub type Arguments = Vec<Vec<u8>>;

/// Time (`None`: that of Redis), caller and limits: what every call begins with.
pub fn preamble(now: Option<u64>, frontend: &str, limits: &Limits) -> Arguments {
    let numbers = [
        limits.max_queued as u64,
        quota(limits.instance.queued),
        quota(limits.instance.running),
        quota(limits.caller.queued),
        quota(limits.caller.running),
        limits.max_requests_per_task as u64,
        limits.unsatisfiable_grace,
        limits.abandon_grace,
        limits.heartbeat_timeout,
        limits.lease_slack,
        limits.cancel_timeout,
        u64::from(limits.max_retries),
        u64::from(limits.max_returns),
        limits.retry_delay,
        limits.elsewhere_wait,
        u64::from(limits.poison_kills),
        limits.completed_ttl,
        limits.max_completed as u64,
        limits.max_completed_bytes as u64,
        limits.max_idle_lanes as u64,
    ];
    let now = now.map(|now| now.to_string()).unwrap_or_default();
    let mut arguments = vec![now.into_bytes(), frontend.into()];
    arguments.extend(numbers.map(|number| number.to_string().into_bytes()));
    arguments
}

/// A quota as a number that Lua can count to; larger limits count as no limit.
fn quota(limit: usize) -> u64 {
    (limit as u64).min(NO_QUOTA)
}

/// `blobs` go with the first lease: encoded `kiln.queue.v1.Carried`.
pub fn submit(submit: &Submit, job: &Job, blobs: Vec<u8>) -> Arguments {
    let payload = (encode_job(job), encode_request(&job.request));
    submit_encoded(submit, &encode_key(&job.key), payload, blobs)
}

/// The script does not look at job, request and `blobs`.
pub fn submit_encoded(
    submit: &Submit,
    key: &[u8],
    (job, request): (Vec<u8>, Vec<u8>),
    blobs: Vec<u8>,
) -> Arguments {
    let flag = |flag: bool| vec![if flag { b'1' } else { b'0' }];
    vec![
        b"submit".to_vec(),
        key.to_vec(),
        pairs(submit.requirement.pairs()),
        submit.priority.to_string().into_bytes(),
        submit.invocation.as_bytes().to_vec(),
        submit.expected_ms.unwrap_or(UNKNOWN_EXPECTED_MS).to_string().into_bytes(),
        submit.timeout_ms.to_string().into_bytes(),
        flag(submit.do_not_cache),
        flag(submit.skip_cache_lookup),
        job,
        request,
        submit.avoid.as_deref().unwrap_or_default().as_bytes().to_vec(),
        blobs,
        submit.key.instance.as_bytes().to_vec(),
        submit.caller.as_deref().unwrap_or_default().as_bytes().to_vec(),
    ]
}

/// The arguments of an event. `None`: `Submit`, `Published` and `Drain`, which need more or are
/// nobody's business but the engine's.
pub fn event(event: &Event) -> Option<Arguments> {
    let mut arguments = Vec::new();
    let mut say = |argument: &str| arguments.push(argument.as_bytes().to_vec());
    match event {
        Event::Attach(operation) => return Some(about("attach", *operation)),
        Event::Detach(operation) => return Some(left("detach", &[*operation])),
        Event::GaveUp(operation) => return Some(left("gave_up", &[*operation])),
        Event::Cancel(operation) => return Some(about("cancel", *operation)),
        Event::WorkerJoined(joined) => return Some(self::joined(joined, Vec::new())),
        Event::WorkerLeft { worker } => {
            say("worker_lost");
            say(&id(worker.0));
        }
        Event::Heartbeat { worker, leases } => {
            say("heartbeat");
            say(&id(worker.0));
            say(&leases.len().to_string());
            leases.iter().for_each(|lease| say(&id(lease.0)));
        }
        Event::WorkerDraining { worker } => return Some(draining(&[*worker])),
        Event::Progress { worker, lease, phase } => {
            say("progress");
            say(&id(worker.0));
            say(&id(lease.0));
            say(if *phase == Phase::UploadingOutputs { "1" } else { "0" });
        }
        Event::Completed { worker, lease } => return Some(completed(*worker, *lease, None)),
        Event::Failed { worker, lease, message } => {
            say("failed");
            say(&id(worker.0));
            say(&id(lease.0));
            say(message);
        }
        Event::Returned { worker, lease, message } => {
            say("returned");
            say(&id(worker.0));
            say(&id(lease.0));
            say(message);
        }
        Event::WorkerPaused { worker, reason } => {
            say("worker_paused");
            say(&id(worker.0));
            say(reason.as_deref().unwrap_or_default());
        }
        Event::Refused { worker, lease, message, holds } => {
            say("refused");
            say(&id(worker.0));
            say(&id(lease.0));
            say(message);
            holds.iter().for_each(|lease| say(&id(lease.0)));
        }
        Event::Tick => say("tick"),
        Event::Submit(_) | Event::Published { .. } | Event::Drain => return None,
    }
    Some(arguments)
}

/// `info`: encoded `kiln.queue.v1.Worker`. A worker of id 0 is given one.
pub fn joined(joined: &Joined, info: Vec<u8>) -> Arguments {
    let worker = if joined.worker.0 == 0 { String::new() } else { id(joined.worker.0) };
    let mut arguments = vec![
        b"worker_joined".to_vec(),
        worker.into_bytes(),
        joined.name.as_bytes().to_vec(),
        joined.slots.to_string().into_bytes(),
        pairs(joined.offer.pairs()),
        info,
        joined.paused.as_deref().unwrap_or_default().as_bytes().to_vec(),
    ];
    arguments.extend(joined.leases.iter().map(|lease| id(lease.0).into_bytes()));
    arguments
}

/// The event that a worker has completed a lease. With the task, where it is known, it may be told
/// twice.
pub fn completed(worker: WorkerId, lease: LeaseId, task: Option<TaskId>) -> Arguments {
    let task = task.map(|task| id(task.0)).unwrap_or_default();
    let words = ["completed".to_owned(), id(worker.0), id(lease.0), task];
    words.map(String::into_bytes).into()
}

pub fn published(task: TaskId, lease: LeaseId, answer: &Finished) -> Arguments {
    insisting(published_encoded(task, lease, answer.size(), encode_answer(answer)))
}

/// Marks a `published` call as one that is repeated until an answer is heard: each answer says what
/// the first one did.
pub fn insisting(mut published: Arguments) -> Arguments {
    published.push(b"1".to_vec());
    published
}

/// The `number`-th cancel of this frontend, which may be told twice: each answer says what the first one did.
pub fn cancel(operation: OperationId, number: u64) -> Arguments {
    let mut arguments = about("cancel", operation);
    arguments.push(number.to_string().into_bytes());
    arguments
}

/// `bytes`: what it counts as among the answers that are kept.
pub fn published_encoded(task: TaskId, lease: LeaseId, bytes: usize, answer: Vec<u8>) -> Arguments {
    let words = ["published".to_owned(), id(task.0), id(lease.0), bytes.to_string()];
    let mut arguments: Arguments = words.map(String::into_bytes).into();
    arguments.push(answer);
    arguments
}

/// An event about one operation; `event` is `attach`, `cancel` or `forget`.
pub fn about(event: &str, operation: OperationId) -> Arguments {
    let words = [event.to_owned(), id(operation.task.0), operation.request.to_string()];
    words.map(String::into_bytes).into()
}

pub fn page(from: TaskId, count: usize) -> Arguments {
    ["page".to_owned(), id(from.0), count.to_string()].map(String::into_bytes).into()
}

pub fn figures(listed: usize) -> Arguments {
    named("figures", &listed.to_string())
}

pub fn named(event: &str, argument: &str) -> Arguments {
    vec![event.as_bytes().to_vec(), argument.as_bytes().to_vec()]
}

pub fn draining(workers: &[WorkerId]) -> Arguments {
    let mut arguments = vec![b"worker_draining".to_vec()];
    arguments.extend(workers.iter().map(|worker| id(worker.0).into_bytes()));
    arguments
}

/// Whether workers are alive and what they run, and that this frontend is. `secret`: what it
/// makes names of leases with.
pub fn beat(secret: &[u8; 32], workers: &[(WorkerId, Vec<LeaseId>)]) -> Arguments {
    let mut arguments = vec![b"beat".to_vec(), secret.to_vec()];
    for (worker, leases) in workers {
        arguments.push(id(worker.0).into_bytes());
        arguments.push(leases.len().to_string().into_bytes());
        arguments.extend(leases.iter().map(|lease| id(lease.0).into_bytes()));
    }
    arguments
}

/// An event about waiters, who are named once each; `event` is `detach` or `gave_up`.
pub fn left(event: &str, operations: &[OperationId]) -> Arguments {
    let mut arguments = vec![event.as_bytes().to_vec()];
    for operation in operations {
        arguments.push(id(operation.task.0).into_bytes());
        arguments.push(operation.request.to_string().into_bytes());
    }
    arguments
}

/// The event that these waiters gave up, as this frontend's call of this `number`. It may be told
/// twice: each answer says what the first one did.
pub fn gave_up(operations: &[OperationId], number: u64) -> Arguments {
    let mut arguments = left("gave_up", operations);
    arguments.push(number.to_string().into_bytes());
    arguments
}

/// An event about several tasks; `event` is `look` or `publishes`.
pub fn tasks(event: &str, tasks: &[TaskId]) -> Arguments {
    let mut arguments = vec![event.as_bytes().to_vec()];
    arguments.extend(tasks.iter().map(|task| id(task.0).into_bytes()));
    arguments
}

/// The tasks that this frontend waits for, each with the number of its waiters. `only`: it waits
/// for no others.
pub fn waits(tasks: &[(TaskId, usize)], only: bool) -> Arguments {
    let mut arguments = vec![if only { b"waits_only".to_vec() } else { b"waits".to_vec() }];
    for (task, count) in tasks {
        arguments.push(id(task.0).into_bytes());
        arguments.push(count.to_string().into_bytes());
    }
    arguments
}
