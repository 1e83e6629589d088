use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// one that was restarted, one that took the place of another; and replicas of a cluster that
    /// were known and took the place of their master. Writes that were acknowledged shortly before
    /// may be lost.
    pub changes: u64,
}

/// Tells one process of a server from the next at the same address, and what it knows from what it
/// knew before it followed another server (`run_id` and `master_replid` of `INFO`).
#[derive(Debug, Default)]
pub(super) struct Incarnation(Mutex<Option<String>>);

impl Incarnation {
    fn known(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was one before.
    pub(super) fn is_known(&self) -> bool {
        self.known().is_some()
    }

    /// Whether it is another one than before.
    pub(super) fn changed(&self, name: &str) -> bool {
        let mut known = self.known();
        let changed = known.as_deref() != Some(name);
        if changed {
            *known = Some(name.to_owned());
        }
        changed
    }
}
