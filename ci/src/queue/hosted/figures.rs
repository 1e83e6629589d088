//! What metrics say of queues.

use std::sync::PoisonError;

use super::error::HostedError;
use super::head::Totals;
use super::queues::Queues;
use crate::queue::Phase;
use crate::queue::serving::{QueueError, Step};

/// A queue at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueGauge {
    pub name: String,
    pub waiting: u64,
    pub held: u64,
    /// Checks that run now.
    pub running: u64,
    pub paused: bool,
    /// Whether its runner is heard.
    pub connected: bool,
}

impl Queues {
    /// Counts a step that was written.
    pub(super) fn count(&self, step: &Step) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).step(step);
    }

    /// What this process has taken in since it began.
    pub fn figures(&self) -> Totals {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All queues as they are.
    pub async fn gauges(&self) -> Result<Vec<QueueGauge>, HostedError> {
        let now = self.clock.now();
        let mut all = Vec::new();
        for (name, head) in self.heads().await? {
            let lane = match self.kept(&name).lane().await {
                Ok((lane, _)) => lane,
                Err(error @ QueueError::Damaged { .. }) => {
                    self.pass_by(&name.key("lane"), &error);
                    None
                }
                Err(error) => return Err(error.into()),
            };
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
