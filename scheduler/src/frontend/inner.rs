//! The state that all clones of one frontend share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_cas::logs::LogStreams;
use tokio::sync::watch;

use crate::completion::SharedCompletion;
use crate::config::SchedulerConfig;
use crate::names::Names;

use super::local::Local;

/// The state that all clones of one frontend share; `E` is its engine.
pub struct Inner<E> {
    pub(crate) engine: E,
    pub(crate) names: Arc<Names>,
    pub(super) completion: SharedCompletion,
    pub(super) logs: LogStreams,
    pub(super) local: Mutex<Local>,
    pub(super) heartbeat_timeout: Duration,
    /// A lease is prolonged when so much time has passed since it was: most actions are over
    /// before.
    pub(super) prolong_after: Duration,
    pub(super) default_timeout_ms: u64,
    pub(super) worker_heartbeat_ms: u32,
    pub(super) draining: AtomicBool,
    pub(super) closed: AtomicBool,
    /// Leases and publications, counted while the frontend drains.
    pub(super) busy: watch::Sender<usize>,
}

impl<E> Inner<E> {
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

    /// Ends what a call has made known that was under way when the frontend was closed, as all else
    /// ended then.
    pub(super) fn end_if_closed(&self, local: &mut Local) {
        if self.is_closed() {
            local.sessions.clear();
            local.runs.clear();
            // Waiters see that nothing will come any more.
            local.tasks.clear();
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn count_busy(&self, local: &Local) {
        if self.is_draining() {
            self.busy.send_replace(local.busy());
        }
    }
}
