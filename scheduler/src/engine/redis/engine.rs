//! The script as the engine of a frontend.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::causes::chain;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::Unavailable;
use crate::completion::SharedCompletion;
use crate::frontend::engine::{Call, Engine};
use crate::frontend::inner::Inner;
use crate::frontend::told::Told;
use crate::names::Names;
use crate::queue::{Event, Limits, OperationId};

use super::calls::{CallError, Calls, Heard};
use super::script::Arguments;
use super::{lease_blobs, payload, script};

/// How many times a frontend says that it and its workers are alive, in one call for all, within
/// the time after which they are taken for lost.
const BEATS: f64 = 3.5;
/// How long a frontend tries to tell Redis what a worker has done: then the lease is lost, as
/// if the worker were.
const PATIENCE: Duration = Duration::from_secs(120);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// The script in Redis as the engine of one frontend.
pub struct RedisEngine {
    pub(super) calls: Calls,
    pub(super) names: Arc<Names>,
    pub(super) completion: SharedCompletion,
    pub(super) beat_every: Duration,
    /// When the script wants to be called at the latest.
    pub(super) next_tick: Mutex<Option<Instant>>,
    pub(super) wake: Arc<Notify>,
    pub(super) closed: AtomicBool,
    /// The queue has lost sight of this frontend, or what it said was lost: what is waited for and published here
    /// must be compared with what the queue knows.
    pub(super) lapsed: AtomicBool,
    /// The queue may know less of what is waited for here than it should, or this frontend less of what became
    /// of it.
    pub(super) doubted: AtomicBool,
    /// The number of calls so far that say that somebody does not want something any more.
    cancels: AtomicU64,
    /// Waiters that have left and of whom Redis does not know it yet.
    pub(super) left: Mutex<Left>,
}

#[derive(Default)]
pub(super) struct Left {
    pub(super) gone: Vec<OperationId>,
    /// Waiters that have left and do not want the answer any more.
    pub(super) gave_up: Vec<OperationId>,
}

impl RedisEngine {
    pub(super) fn new(
        calls: Calls,
        names: Arc<Names>,
        completion: SharedCompletion,
        limits: &Limits,
    ) -> Self {
        Self {
            calls,
            names,
            completion,
            beat_every: Duration::from_millis(limits.heartbeat_timeout).div_f64(BEATS),
            next_tick: Mutex::default(),
            wake: Arc::default(),
            closed: AtomicBool::new(false),
            lapsed: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            cancels: AtomicU64::new(0),
            left: Mutex::default(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn arm(&self, next: Option<Instant>) {
        let mut armed = self.next_tick.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = next.is_some_and(|next| armed.is_none_or(|armed| next < armed));
        *armed = next;
        drop(armed);
        if earlier {
            self.wake.notify_one();
        }
    }

    /// When the script must be called.
    pub(super) fn due(&self) -> Option<Instant> {
        *self.next_tick.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waiters that have left since this was asked.
    pub(super) fn take_left(&self) -> Left {
        std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells of those who gave up, once more where the answer is lost: what that ends is written down here alone. Not
    /// while this is under way already.
    pub(super) async fn gave_up(&self, operations: &[OperationId]) -> Result<Heard, CallError> {
        let number = self.cancels.fetch_add(1, Ordering::Relaxed);
        self.calls.again(script::gave_up(operations, number)).await
    }

    /// Notes what is between the engine and the script alone. Returns what is for the frontend.
    pub(super) fn noted(&self, heard: Heard) -> Vec<Told> {
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
            tracing::warn!(error = chain(&error), "the queue does not answer; trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Has a comparison follow where the queue could not be told, or its answer is lost: it may
    /// believe that something is published here that is not.
    fn may_lapse(&self, told: Result<Heard, CallError>) -> Result<Heard, CallError> {
        if told.is_err() {
            self.lapsed.store(true, Ordering::Release);
        }
        told
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
                self.may_lapse(self.insist(script::completed(worker, lease, task)).await)
            }
            Call::Published { task, lease, answer } => {
                self.may_lapse(self.insist(script::published(task, lease, &answer)).await)
            }
            Call::Event(Event::Cancel(operation)) => {
                let number = self.cancels.fetch_add(1, Ordering::Relaxed);
                self.insist(script::cancel(operation, number)).await
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

    fn doubt(&self) {
        self.doubted.store(true, Ordering::Release);
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}
