use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One pipeline that went to one server and came back, or did not.
#[derive(Debug, Clone, Copy)]
pub struct Flush {
    /// Name of its first script or command.
    pub name: &'static str,
    /// Scripts and commands in it.
    pub calls: usize,
    pub elapsed: Duration,
    /// The server did not answer it.
    pub failed: bool,
}

/// Told of each round trip: for metrics. Must not block.
pub trait Observer: Send + Sync {
    fn flushed(&self, flush: &Flush);
}

/// What the connections of a process have done since it started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) round_trips: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) changes: AtomicU64,
}

impl Counts {
    pub(super) fn snapshot(&self) -> RedisStats {
        RedisStats {
            round_trips: self.round_trips.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            changes: self.changes.load(Ordering::Acquire),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RedisStats {
    /// Pipelines that were sent, each a round trip to one server.
    pub round_trips: u64,
    /// Connections that were made, subscriptions left aside.
    pub connections: u64,
    /// Connections to a server process that was not known at its address before: the first one,
    /// one that was restarted, one that took the place of another. Writes that were acknowledged
    /// shortly before may be lost.
    pub changes: u64,
}

/// Tells one process of a server from the next at the same address (`run_id` of `INFO`).
#[derive(Debug, Default)]
pub(super) struct Incarnation(Mutex<Option<String>>);

impl Incarnation {
    /// Whether it is another one than before.
    pub(super) fn changed(&self, run_id: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let changed = known.as_deref() != Some(run_id);
        if changed {
            *known = Some(run_id.to_owned());
        }
        changed
    }
}
