//! What became of executions that were to be recorded, counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecutionFigures {
    /// Records that were written.
    pub recorded: u64,
    /// Results that somebody was given and whose record was there already.
    pub known: u64,
    /// Events that came faster than they could be taken in.
    pub lost_events: u64,
    /// Records that were given up because they could not be written for too long.
    pub dropped: u64,
    pub failed_writes: u64,
    /// Records that were removed because nobody used them for too long.
    pub aged: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub recorded: AtomicU64,
    pub known: AtomicU64,
    pub lost_events: AtomicU64,
    pub dropped: AtomicU64,
    pub failed_writes: AtomicU64,
    pub aged: AtomicU64,
}

impl Counters {
    pub fn now(&self) -> ExecutionFigures {
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        ExecutionFigures {
            recorded: read(&self.recorded),
            known: read(&self.known),
            lost_events: read(&self.lost_events),
            dropped: read(&self.dropped),
            failed_writes: read(&self.failed_writes),
            aged: read(&self.aged),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
