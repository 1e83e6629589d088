//! What became of rollouts, as far as this process wrote it down.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::rollouts::machine::{End, Event, Logged, Millis};

/// Since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RolloutFigures {
    pub started: u64,
    pub succeeded: u64,
    pub rolled_back: u64,
    pub rollback_failed: u64,
    pub rejected: u64,
    pub overtaken: u64,
    /// From the start until all targets had it and its soak was over, of all that succeeded.
    pub delivery: Millis,
    /// From the decision to revert until all targets ran the old version again, of all that were rolled back.
    pub restore: Millis,
}

#[derive(Debug, Default)]
pub struct Counters {
    started: AtomicU64,
    ends: [AtomicU64; 5],
    delivery: AtomicU64,
    restore: AtomicU64,
}

fn place(end: End) -> usize {
    match end {
        End::Succeeded => 0,
        End::RolledBack => 1,
        End::RollbackFailed => 2,
        End::Rejected => 3,
        End::Overtaken => 4,
    }
}

impl Counters {
    pub fn start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes in what was appended. `began`: when the rollout did, and when its phase did before these events.
    pub fn count(&self, events: &[Logged], (began, phase): (Millis, Millis)) {
        for logged in events {
            let end = match logged.event {
                Event::Ended(end) => end,
                Event::Refused(_) => End::Rejected,
                _ => continue,
            };
            if let Some(count) = self.ends.get(place(end)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            let (sum, from) = match end {
                End::Succeeded => (&self.delivery, began),
                End::RolledBack => (&self.restore, phase),
                _ => continue,
            };
            sum.fetch_add(logged.at.saturating_sub(from), Ordering::Relaxed);
        }
    }

    pub fn read(&self) -> RolloutFigures {
        let of = |end: End| self.ends.get(place(end)).map_or(0, |it| it.load(Ordering::Relaxed));
        RolloutFigures {
            started: self.started.load(Ordering::Relaxed),
            succeeded: of(End::Succeeded),
            rolled_back: of(End::RolledBack),
            rollback_failed: of(End::RollbackFailed),
            rejected: of(End::Rejected),
            overtaken: of(End::Overtaken),
            delivery: self.delivery.load(Ordering::Relaxed),
            restore: self.restore.load(Ordering::Relaxed),
        }
    }
}
