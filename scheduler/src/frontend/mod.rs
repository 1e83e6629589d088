//! What a server does with a queue: it takes clients' jobs and workers' reports in, tells the
//! queue's [`Engine`] of them, and carries out what follows.
//!
//! The engine decides, and there are two: the state machine in this process, and the same as a
//! script in Redis that any number of frontends share. Nothing is lost with one of these: its
//! workers join another one with what they run, its clients wait for their operations there, and
//! what it was about to publish runs again.

mod clients;
pub mod engine;
mod local;
mod react;
pub mod told;
mod view;
mod workers;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use kiln_cas::logs::LogStreams;
use kiln_protos::worker::{Hello, SchedulerMessage};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::{Matches, NotTaken, OperationState, Queue, Report, Seat, Ticket, Unavailable};
use crate::completion::SharedCompletion;
use crate::config::SchedulerConfig;
use crate::job::{Job, Outcome};
use crate::names::Names;
use crate::queue::{LeaseId, OperationId, TaskId, WorkerId};
use crate::snapshot::Snapshot;

use engine::{Call, Engine};
use local::{Local, Running};
pub use react::Own;

/// See the module. Clones share one frontend.
#[derive(Clone)]
pub struct Frontend<E> {
    pub(crate) inner: Arc<Inner<E>>,
}

/// What a frontend works with.
pub struct Inner<E> {
    pub(crate) engine: E,
    pub(crate) names: Arc<Names>,
    completion: SharedCompletion,
    logs: LogStreams,
    local: Mutex<Local>,
    heartbeat_timeout: Duration,
    /// A lease is prolonged when so much time has passed since it was: most actions are over
    /// before.
    prolong_after: Duration,
    default_timeout_ms: u64,
    worker_heartbeat_ms: u32,
    draining: AtomicBool,
    closed: AtomicBool,
    /// Leases and publications, counted while the frontend drains.
    busy: watch::Sender<usize>,
}

impl<E: Engine> Inner<E> {
    pub(crate) fn new(
        config: &SchedulerConfig,
        engine: E,
        names: Arc<Names>,
        logs: LogStreams,
        completion: SharedCompletion,
    ) -> Arc<Self> {
        let heartbeat = config.worker_heartbeat.as_millis();
        Arc::new(Self {
            engine,
            names,
            completion,
            logs,
            local: Mutex::default(),
            heartbeat_timeout: Duration::from_millis(config.limits.heartbeat_timeout),
            prolong_after: Duration::from_millis(config.limits.lease_slack / 4),
            default_timeout_ms: config.default_timeout.as_millis() as u64,
            worker_heartbeat_ms: u32::try_from(heartbeat).unwrap_or(u32::MAX),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            busy: watch::Sender::new(0),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn count_busy(&self, local: &Local) {
        if self.is_draining() {
            self.busy.send_replace(local.busy());
        }
    }

    async fn drain(self: &Arc<Self>) {
        self.draining.store(true, Ordering::Release);
        let mut busy = self.busy.subscribe();
        let workers = self.lock().sessions.keys().copied().collect();
        if let Err(error) = self.tell(Call::Drain(workers), Own::default()).await {
            tracing::warn!(%error, "the queue was not told that this server drains");
        }
        self.count_busy(&self.lock());
        // The sender lives as long as `self`.
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    fn close(&self) {
        self.draining.store(true, Ordering::Release);
        self.closed.store(true, Ordering::Release);
        self.engine.close();
        let mut local = self.lock();
        local.sessions.clear();
        local.runs.clear();
        // Waiters see that nothing will come any more.
        local.tasks.clear();
        self.count_busy(&local);
    }
}

/// Makes an answer durable and says so. Only the lease that led here is believed: when another
/// run has taken the task over meanwhile, nothing happens.
async fn publish<E: Engine>(
    inner: Arc<Inner<E>>,
    task: TaskId,
    lease: LeaseId,
    running: Running,
    outcome: Outcome,
) {
    let run = running.run();
    let answer = Arc::new(inner.completion.complete(&run, outcome).await);
    let call = Call::Published { task, lease, answer: answer.clone() };
    let told = inner.tell(call, Own { answer: Some(answer), ..Own::default() }).await;
    let mut local = inner.lock();
    local.publishing.remove(&lease);
    inner.count_busy(&local);
    drop(local);
    if let Err(error) = told {
        tracing::error!(%error, operation = %run.operation, "an answer was not published");
    }
}

/// Does `work` as far as that goes without waiting, which is all of it where the queue is in this
/// process; a task of its own does the rest, whoever goes away meanwhile.
fn go_on<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinHandle<T>> {
    let mut work: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(work);
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(tokio::spawn(work)),
    }
}

/// A client that goes away in the middle must not leave a call half noticed.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
) -> Result<T, Unavailable> {
    match go_on(work) {
        Ok(value) => value,
        Err(task) => task.await.map_err(|error| Unavailable(error.to_string()))?,
    }
}

#[async_trait]
impl<E: Engine> Queue for Frontend<E> {
    async fn submit(&self, job: Job) -> Result<Ticket, NotTaken> {
        to_the_end(self.inner.clone().submit(job)).await?.map_err(NotTaken::Refused)
    }

    async fn attach(&self, name: &str) -> Result<Option<Ticket>, Unavailable> {
        to_the_end(self.inner.clone().attach(name.to_owned())).await
    }

    async fn find(&self, name: &str) -> Result<Option<OperationState>, Unavailable> {
        self.inner.find(name).await
    }

    async fn list(
        &self,
        after: Option<OperationId>,
        limit: usize,
        matches: &Matches,
    ) -> Result<Vec<OperationState>, Unavailable> {
        self.inner.list(after, limit, matches).await
    }

    async fn cancel(&self, name: &str) -> Result<bool, Unavailable> {
        self.inner.cancel(name).await
    }

    async fn forget(&self, name: &str) -> Result<bool, Unavailable> {
        self.inner.forget(name).await
    }

    async fn join(&self, hello: Hello, outbound: mpsc::Sender<SchedulerMessage>) -> Seat {
        self.inner.join(hello, outbound).await
    }

    async fn report(&self, worker: WorkerId, report: Report) {
        self.inner.reported(worker, report).await;
    }

    async fn leave(&self, worker: WorkerId) {
        self.inner.leave(worker).await;
    }

    fn lease_id(&self, name: &str) -> LeaseId {
        self.inner.names.lease_id(name)
    }

    async fn drain(&self) {
        self.inner.drain().await;
    }

    async fn drain_worker(&self, name: &str) -> Result<bool, Unavailable> {
        self.inner.drain_worker(name).await
    }

    fn close(&self) {
        self.inner.close();
    }

    async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        self.inner.snapshot().await
    }
}
