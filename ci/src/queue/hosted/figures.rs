//! What metrics say of queues.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Queues;
use super::error::HostedError;
use crate::queue::serving::Step;
use crate::queue::{End, Phase};

/// What this process has taken in since it began.
#[derive(Debug, Default)]
pub(super) struct Counts {
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

/// A queue at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueGauge {
    pub name: String,
    pub waiting: u64,
    pub held: u64,
    /// Checks that run.
    pub running: u64,
    pub paused: bool,
    /// Whether its runner is heard.
    pub connected: bool,
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
}

impl Queues {
    pub fn figures(&self) -> QueueFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueFigures {
            landed: read(&self.counts.landed),
            rejected: read(&self.counts.rejected),
            left: read(&self.counts.left),
            runs: read(&self.counts.runs),
            waited_ms: read(&self.counts.waited_ms),
        }
    }

    /// All queues as they are.
    pub async fn gauges(&self) -> Result<Vec<QueueGauge>, HostedError> {
        let now = self.clock.now();
        let mut all = Vec::new();
        for (name, head) in self.heads().await? {
            let lane = self.kept(&name).lane().await?.0;
            let mut gauge = QueueGauge {
                name: name.as_str().to_owned(),
                waiting: 0,
                held: 0,
                running: 0,
                paused: false,
                connected: head.connected(now),
            };
            if let Some(lane) = &lane {
                let open = lane.order(now).len() as u64;
                gauge.waiting = open;
                gauge.held = (lane.changes.len() as u64).saturating_sub(open);
                let checking = lane.runs.values().filter(|it| it.phase == Phase::Checking);
                gauge.running = checking.count() as u64;
                gauge.paused = lane.paused.is_some();
            }
            all.push(gauge);
        }
        Ok(all)
    }
}
