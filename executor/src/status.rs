//! The state of a worker, for the status page and metrics of its process.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_protos::reapi::ExecuteResponse;

use crate::failure::Failure;
use crate::images::ImageStats;
use crate::input_root::InputStats;
use crate::persistent::ToolStats;

/// Is told of every action that has ended on this worker, also where no scheduler is.
pub trait Observer: Debug + Send + Sync + 'static {
    fn ended(&self, result: &Result<ExecuteResponse, Failure>);
}

/// A view of a worker from outside. Clones show the same one.
#[derive(Debug, Clone, Default)]
pub struct WorkerStatus {
    pub worker_id: String,
    pub slots: u32,
    /// One sentence for each thing that the sandbox cannot enforce on this machine; empty: it
    /// enforces everything.
    pub not_enforced: Arc<[String]>,
    pub inputs: Arc<InputStats>,
    pub images: Arc<ImageStats>,
    pub tools: Arc<ToolStats>,
    pub(crate) condition: Arc<Condition>,
}

impl WorkerStatus {
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Whether the scheduler may give this worker leases. The error says in words why it may not.
    pub fn ready(&self) -> Result<(), String> {
        let condition = self.condition();
        if condition.draining() {
            return Err(match condition.running() {
                0 => "draining".to_owned(),
                1 => "draining: an action still runs".to_owned(),
                more => format!("draining: {more} actions still run"),
            });
        }
        if let Some(reason) = condition.paused() {
            return Err(format!("paused: {reason}"));
        }
        if condition.in_session() {
            return Ok(());
        }
        Err(match condition.reason() {
            reason if reason.is_empty() => "no session with a scheduler yet".to_owned(),
            reason => format!("no session with a scheduler: {reason}"),
        })
    }
}

/// The part of the state that changes while a worker runs.
#[derive(Debug, Default)]
pub struct Condition {
    in_session: AtomicBool,
    draining: AtomicBool,
    running: AtomicU64,
    sessions: AtomicU64,
    failures: AtomicU64,
    /// Why the last session ended, or could not be opened; empty: neither has happened yet.
    reason: Mutex<String>,
    paused: Mutex<Option<String>>,
}

impl Condition {
    /// Whether a session is open in which the scheduler has answered.
    pub fn in_session(&self) -> bool {
        self.in_session.load(Relaxed)
    }

    pub fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// How many actions occupy a slot now.
    pub fn running(&self) -> u64 {
        self.running.load(Relaxed)
    }

    /// How many sessions there were in which a scheduler answered.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }

    /// How many sessions were lost, and how many attempts to open one failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Why the worker takes no actions for now; `None`: it takes them.
    pub fn paused(&self) -> Option<String> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn heard(&self) {
        if !self.in_session.swap(true, Relaxed) {
            self.sessions.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn disconnected(&self) {
        self.in_session.store(false, Relaxed);
    }

    pub(crate) fn failed(&self, reason: String) {
        self.failures.fetch_add(1, Relaxed);
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(crate) fn drains(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(crate) fn set_paused(&self, reason: Option<&str>) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.as_deref() != reason {
            *paused = reason.map(str::to_owned);
        }
    }

    pub(crate) fn set_running(&self, actions: usize) {
        self.running.store(actions as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_in_a_session_until_it_drains() {
        let status = WorkerStatus::default();
        let condition = status.condition();
        assert_eq!(status.ready().unwrap_err(), "no session with a scheduler yet");
        condition.heard();
        condition.heard();
        assert_eq!((status.ready(), condition.sessions()), (Ok(()), 1));
        condition.disconnected();
        condition.failed("nobody listens".to_owned());
        let why = status.ready().unwrap_err();
        assert_eq!(why, "no session with a scheduler: nobody listens");
        condition.heard();
        assert_eq!((condition.sessions(), condition.failures()), (2, 1));
        condition.set_paused(Some("the disk is full"));
        assert_eq!(status.ready().unwrap_err(), "paused: the disk is full");
        condition.set_paused(None);
        condition.set_running(2);
        condition.drains();
        assert_eq!(status.ready().unwrap_err(), "draining: 2 actions still run");
        condition.set_running(0);
        assert_eq!(status.ready().unwrap_err(), "draining");
    }
}
