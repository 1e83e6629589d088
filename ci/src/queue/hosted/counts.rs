//! What this process has taken in since it began.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::queue::End;
use crate::queue::serving::Step;

#[derive(Debug, Default)]
pub struct Counts {
    landed: AtomicU64,
    rejected: AtomicU64,
    left: AtomicU64,
    runs: AtomicU64,
    waited_ms: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFigures {
    pub landed: u64,
    pub rejected: u64,
    /// Neither: removed, deleted, merged by somebody else.
    pub left: u64,
    /// Runs that ended.
    pub runs: u64,
    /// What landed has waited together.
    pub waited_ms: u64,
}

impl Counts {
    pub fn step(&self, step: &Step) {
        let add = |counter: &AtomicU64, more: u64| {
            counter.fetch_add(more, Ordering::Relaxed);
        };
        add(&self.runs, step.ran.len() as u64);
        for it in &step.ended {
            match it.end {
                End::Landed(_) => {
                    add(&self.landed, 1);
                    let waited = it.at.since(it.added).as_millis();
                    add(&self.waited_ms, u64::try_from(waited).unwrap_or(0));
                }
                End::Failed { .. } | End::Conflict(_) => add(&self.rejected, 1),
                End::Merged | End::Deleted | End::Removed => add(&self.left, 1),
            }
        }
    }

    pub fn figures(&self) -> QueueFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueFigures {
            landed: read(&self.landed),
            rejected: read(&self.rejected),
            left: read(&self.left),
            runs: read(&self.runs),
            waited_ms: read(&self.waited_ms),
        }
    }
}
