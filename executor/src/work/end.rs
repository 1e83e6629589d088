//! How a worker comes to its end: it drains, gives back what takes too long, and stops what no scheduler asks after.

use std::time::Duration;

use kiln_net::clock::until;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Outcome, Work};

impl Work {
    /// Takes no more leases, because this process is to end. Answers `false` where the worker
    /// drained before.
    pub fn drain(&mut self) -> bool {
        self.drain_within(self.executor.config.drain_timeout)
    }

    /// Takes no more leases, because the scheduler asks for it. Answers `false` where the worker
    /// drained before.
    pub fn drain_as_asked(&mut self) -> bool {
        let config = &self.executor.config;
        self.drain_within(config.asked_drain_timeout.unwrap_or(config.drain_timeout))
    }

    /// Takes no more leases, and gives back those that still run after `within`. A second call can
    /// only make that sooner, and answers `false`.
    fn drain_within(&mut self, within: Duration) -> bool {
        let until = Instant::now() + within;
        if std::mem::replace(&mut self.draining, true) {
            self.drain_until = self.drain_until.map(|before| before.min(until));
            return false;
        }
        self.condition.drains();
        self.drain_until = Some(until);
        true
    }

    /// When [`Self::expire`] has something to do next; `None`: never, as things are.
    pub fn deadline(&self) -> Option<Instant> {
        self.drain_until.into_iter().chain(self.away_until).min()
    }

    pub fn expire(&mut self) {
        let now = Instant::now();
        if self.away_until.take_if(|until| *until <= now).is_some() && self.is_pending() {
            tracing::warn!(actions = self.running.len(), "stopped: no scheduler was heard");
            self.abandon();
        }
        if self.drain_until.take_if(|until| *until <= now).is_some() {
            self.give_back();
        }
    }

    /// Waits between two sessions: for `wait`, or until a worker that drains has nothing left.
    pub async fn away(&mut self, wait: Duration, shutdown: &CancellationToken) {
        let over = Instant::now() + wait;
        let mut told = false;
        loop {
            let deadline = self.deadline();
            tokio::select! {
                () = tokio::time::sleep_until(over) => return,
                Some(ended) = self.ended() => {
                    if let Some(Outcome { lease_id, message, passing: false }) = ended {
                        self.unacknowledged.keep(lease_id, message, None, Instant::now());
                    }
                }
                () = shutdown.cancelled(), if !told => {
                    told = true;
                    self.drain();
                }
                () = until(deadline) => self.expire(),
            }
            if self.draining && self.drain_until.is_none() {
                self.abandon();
            }
            if self.draining && !self.is_pending() {
                return;
            }
        }
    }

    /// Stops the actions that still run, so that another worker runs them.
    fn give_back(&mut self) {
        if !self.running.is_empty() {
            tracing::warn!(actions = self.running.len(), "given back: the drain time is over");
        }
        self.running.values_mut().for_each(|running| running.given_back = true);
        self.cancel_all();
    }

    fn cancel_all(&mut self) {
        self.running.values().for_each(|running| running.cancel.cancel());
    }

    /// Stops the actions that still run; no scheduler will hear of them.
    fn abandon(&mut self) {
        self.unacknowledged.clear();
        self.running.values_mut().for_each(|running| running.abandoned = true);
        self.cancel_all();
    }

    /// Ends everything, the slots' processes as well.
    pub async fn stop(mut self) {
        self.abandon();
        while self.ended().await.is_some() {}
        for slot in self.free {
            if let Some(runner) = slot.runner {
                runner.stop().await;
            }
        }
        self.executor.tools.stop().await;
    }
}
