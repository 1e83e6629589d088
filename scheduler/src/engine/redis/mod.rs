//! The queue in Redis, shared by any number of frontends.
//!
//! The state machine is a script (`lua/`) that runs in Redis, one event at a time. What concerns
//! another frontend than the one that told the event (its worker gets a lease, its client's action
//! has ended) reaches that one over its channel. A message that gets lost does no harm: leases that
//! a worker does not know are given up after two heartbeats, and a frontend whose channel was cut
//! asks for all that it waits for.

mod background;
mod calls;
mod lease_blobs;
pub mod payload;
pub mod script;
pub mod wire;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_cas::logs::LogStreams;
use kiln_cas::redis::Redis;
use kiln_net::Backoff;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::Unavailable;
use crate::completion::SharedCompletion;
use crate::config::SchedulerConfig;
use crate::frontend::engine::{Call, Engine};
use crate::frontend::told::Told;
use crate::frontend::{Frontend, Inner};
use crate::names::{Names, draw_secret};
use crate::queue::OperationId;

use calls::{CallError, Calls, Heard};
use script::Arguments;

/// How long a frontend tries to tell Redis what a worker has done: then the lease is lost, as
/// if the worker were.
const PATIENCE: Duration = Duration::from_secs(120);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// See the module.
pub struct RedisEngine {
    calls: Calls,
    names: Arc<Names>,
    completion: SharedCompletion,
    beat_every: Duration,
    /// When the script wants to be called at the latest.
    next_tick: Mutex<Option<Instant>>,
    wake: Arc<Notify>,
    closed: AtomicBool,
    /// What is waited for and published here must be compared with what the queue knows.
    lapsed: AtomicBool,
    /// Waiters that have left and of whom Redis does not know it yet.
    left: Mutex<Left>,
}

#[derive(Default)]
struct Left {
    gone: Vec<OperationId>,
    /// The same of those who do not want the answer any more.
    gave_up: Vec<OperationId>,
}

/// Joins the queue in `redis`. Must be called within a Tokio runtime. Errors: Redis does not
/// answer, or holds a queue of another version.
pub async fn join(
    config: &SchedulerConfig,
    redis: Redis,
    logs: LogStreams,
    completion: SharedCompletion,
) -> Result<Frontend<RedisEngine>, Unavailable> {
    // The standard library seeds its hasher from the system's randomness.
    let random = RandomState::new().hash_one(std::process::id());
    let frontend = format!("{random:016x}");
    let calls = Calls::new(redis, &frontend, &config.limits);
    let channel = calls.channel(&frontend);
    let subscription = calls.redis().subscribe(vec![channel]).await.map_err(CallError::from)?;
    let names = Arc::new(Names::shared(calls.key(), &draw_secret()));
    let engine = RedisEngine {
        calls,
        names: names.clone(),
        completion: completion.clone(),
        beat_every: background::beat_every(&config.limits),
        next_tick: Mutex::default(),
        wake: Arc::default(),
        closed: AtomicBool::new(false),
        lapsed: AtomicBool::new(false),
        left: Mutex::default(),
    };
    let inner = Inner::new(config, engine, names, logs, completion);
    // From now on it is noticed when this frontend is gone.
    background::beat(&inner).await?;
    // It waits for nothing yet.
    inner.engine.lapsed.store(false, Ordering::Release);
    tokio::spawn(background::listen(Arc::downgrade(&inner), subscription));
    tokio::spawn(background::run(Arc::downgrade(&inner), inner.engine.wake.clone()));
    Ok(Frontend { inner })
}

impl RedisEngine {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
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

    /// Notes what is between the engine and the script alone. Returns what is for the frontend.
    fn noted(&self, heard: Heard) -> Vec<Told> {
        self.arm(heard.next);
        if heard.said.lapsed {
            self.lapsed.store(true, Ordering::Release);
        }
        if let Some(secret) = heard.said.secret {
            self.names.use_secret(&secret);
        }
        heard.said.told
    }

    /// Tells Redis what must not get lost, for as long as it takes within [`PATIENCE`].
    async fn insist(&self, arguments: Arguments) -> Result<Heard, CallError> {
        let deadline = Instant::now() + PATIENCE;
        let mut failures = 0;
        loop {
            let error = match self.calls.again(arguments.clone()).await {
                Ok(heard) => return Ok(heard),
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

    async fn say(&self, call: Call) -> Result<Heard, CallError> {
        let calls = &self.calls;
        match call {
            Call::Submit(submit, job) => {
                let blobs = lease_blobs::gather(self.completion.blobs(), &job).await;
                calls.once(script::submit(&submit, &job, blobs)).await
            }
            Call::Attach(id) => calls.once(script::about("attach", id)).await,
            Call::Forget(id) => calls.again(script::about("forget", id)).await,
            Call::Look(task) => calls.again(script::tasks("look", &[task])).await,
            Call::Page { from, count } => calls.again(script::page(from, count)).await,
            Call::Figures { listed } => calls.again(script::figures(listed)).await,
            Call::Join(joined, info) => {
                self.insist(script::joined(&joined, payload::encode_worker(info))).await
            }
            Call::Completed { worker, lease, task } => {
                self.insist(script::completed(worker, lease, task)).await
            }
            Call::Published { task, lease, answer } => {
                let told = self.insist(script::published(task, lease, &answer)).await;
                if told.is_err() {
                    self.lapsed.store(true, Ordering::Release);
                }
                told
            }
            Call::Event(event) => match script::event(&event) {
                Some(arguments) => self.insist(arguments).await,
                None => Ok(Heard::default()),
            },
            Call::DrainWorker(name) => calls.again(script::named("drain_worker", &name)).await,
            Call::Drain(workers) => self.insist(script::draining(&workers)).await,
        }
    }
}

impl Engine for RedisEngine {
    const HEARTBEATS_TOGETHER: bool = true;

    async fn call<T: Send>(
        &self,
        call: Call,
        react: impl FnOnce(Vec<Told>) -> T + Send,
    ) -> Result<T, Unavailable> {
        let heard = self.say(call).await?;
        Ok(react(self.noted(heard)))
    }

    fn left(frontend: &Arc<Inner<Self>>, id: OperationId, gave_up: bool) {
        let engine = &frontend.engine;
        let mut left = engine.left.lock().unwrap_or_else(PoisonError::into_inner);
        if gave_up {
            left.gave_up.push(id)
        } else {
            left.gone.push(id)
        }
        drop(left);
        engine.wake.notify_one();
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}
