//! The queue in Redis, shared by any number of frontends.
//!
//! The state machine is a script (`lua/`) that runs in Redis, one event at a time; a frontend
//! tells it events and carries out what it says. Effects that concern another frontend (its
//! worker gets a lease, its client's action has ended) reach that one over its channel. A
//! message that gets lost does no harm: leases that a worker does not know are given up after
//! two heartbeats, and a frontend whose channel was cut asks for all that it waits for.
//!
//! Nothing is lost with a frontend: its workers join another one with what they run, its
//! clients wait for their operations there, and what it was about to publish runs again.

mod background;
mod calls;
mod carried;
mod local;
mod payload;
mod queue;
mod react;
pub mod script;
mod view;
pub mod wire;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_cas::logs::LogStreams;
use kiln_cas::redis::Redis;
use kiln_net::Backoff;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::boundary::Unavailable;
use crate::completion::SharedCompletion;
use crate::config::SchedulerConfig;
use crate::job::Outcome;
use crate::names::{Names, draw_secret};
use crate::queue::{LeaseId, TaskId};

use calls::{Answer, CallError, Calls};
use local::{Local, Running};
use react::Own;
use script::Arguments;

/// How long a frontend tries to tell Redis what a worker has done: then the lease is lost, as
/// if the worker were.
const PATIENCE: Duration = Duration::from_secs(120);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// See the module. Clones share one frontend.
#[derive(Clone)]
pub struct RedisQueue {
    inner: Arc<Inner>,
}

struct Inner {
    calls: Calls,
    names: Names,
    completion: SharedCompletion,
    logs: LogStreams,
    local: Mutex<Local>,
    limits: crate::queue::Limits,
    default_timeout_ms: u64,
    worker_heartbeat_ms: u32,
    /// When the script wants to be called at the latest.
    next_tick: Mutex<Option<Instant>>,
    wake: Arc<Notify>,
    draining: AtomicBool,
    closed: watch::Sender<bool>,
    publishing: AtomicUsize,
    /// What is waited for and published here must be compared with what the queue knows.
    lapsed: AtomicBool,
    /// Leases and publications of this frontend.
    busy: watch::Sender<usize>,
}

impl RedisQueue {
    /// Joins the queue in `redis`. Must be called within a Tokio runtime.
    pub async fn start(
        config: &SchedulerConfig,
        redis: Redis,
        logs: LogStreams,
        completion: SharedCompletion,
    ) -> Result<Self, Unavailable> {
        // The standard library seeds its hasher from the system's randomness.
        let random = RandomState::new().hash_one(std::process::id());
        let frontend = format!("{random:016x}");
        let calls = Calls::new(redis, &frontend, &config.limits);
        let channel = calls.channel(&frontend);
        let subscription = calls.redis().subscribe(vec![channel]).await.map_err(CallError::from)?;
        let inner = Arc::new(Inner {
            names: Names::shared(calls.key(), &draw_secret()),
            calls,
            completion,
            logs,
            local: Mutex::default(),
            limits: config.limits.clone(),
            default_timeout_ms: config.default_timeout.as_millis() as u64,
            worker_heartbeat_ms: u32::try_from(config.worker_heartbeat.as_millis())
                .unwrap_or(u32::MAX),
            next_tick: Mutex::default(),
            wake: Arc::default(),
            draining: AtomicBool::new(false),
            closed: watch::Sender::new(false),
            publishing: AtomicUsize::new(0),
            lapsed: AtomicBool::new(false),
            busy: watch::Sender::new(0),
        });
        // From now on it is noticed when this frontend is gone.
        let answer = inner.calls.again(script::beat(&inner.names.secret(), &[])).await?;
        inner.answered(answer, Own::default());
        // It waits for nothing yet.
        inner.lapsed.store(false, Ordering::Release);
        tokio::spawn(background::listen(Arc::downgrade(&inner), subscription));
        tokio::spawn(background::run(Arc::downgrade(&inner), inner.wake.clone()));
        Ok(Self { inner })
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Reacts to an answer, and notes when to call again.
    fn answered(self: &Arc<Self>, answer: Answer, own: Own) {
        self.arm(answer.next);
        self.react(answer.told, own);
        self.count_busy();
    }

    fn arm(&self, next: Option<Instant>) {
        let mut armed = self.next_tick.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = next.is_some_and(|next| armed.is_none_or(|armed| next < armed));
        *armed = next;
        drop(armed);
        if earlier {
            self.wake.notify_one();
        }
    }

    fn count_busy(&self) {
        let busy = self.lock().runs.len() + self.publishing.load(Ordering::Acquire);
        self.busy.send_replace(busy);
    }

    /// Tells Redis what must not get lost, for as long as it takes within [`PATIENCE`].
    async fn insist(&self, arguments: Arguments) -> Result<Answer, CallError> {
        let deadline = Instant::now() + PATIENCE;
        let mut failures = 0;
        loop {
            let error = match self.calls.again(arguments.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let transient = matches!(&error, CallError::Redis(error) if error.is_transient());
            failures += 1;
            let pause = BACKOFF.pause(failures);
            if !transient || Instant::now() + pause > deadline || self.is_closed() {
                return Err(error);
            }
            tracing::warn!(%error, "the queue does not answer; trying again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// Makes an answer durable and says so. Only the lease that led here is believed: when another
/// run has taken the task over meanwhile, nothing happens.
async fn publish(
    inner: Arc<Inner>,
    task: TaskId,
    lease: LeaseId,
    running: Running,
    outcome: Outcome,
) {
    let run = running.run();
    let answer = Arc::new(inner.completion.complete(&run, outcome).await);
    let bytes = answer.response.len() + answer.result.len();
    let arguments = script::published(task, lease, bytes, payload::encode_answer(&answer));
    let told = inner.insist(arguments).await;
    inner.lock().publishing.remove(&task);
    match told {
        Ok(told) => {
            inner.publishing.fetch_sub(1, Ordering::AcqRel);
            inner.answered(told, Own { answer: Some(answer), ..Own::default() });
        }
        Err(error) => {
            inner.publishing.fetch_sub(1, Ordering::AcqRel);
            tracing::error!(%error, operation = %run.operation, "an answer was not published");
            inner.lapsed.store(true, Ordering::Release);
            inner.count_busy();
        }
    }
}
