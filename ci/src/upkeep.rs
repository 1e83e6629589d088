//! What is done to the history and the streams from time to time.

use std::sync::Arc;
use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::panics::resumed;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events::{EventLog, StreamLimits};
use crate::history::History;
use crate::services::Clock;

/// How often it is looked whether segments are to be joined, or are too old, where nothing says so before.
const MAINTAIN_EVERY: Duration = Duration::from_secs(60);
/// Steps at once; the rest waits for the next time.
const MAX_STEPS: u32 = 64;
/// How often old streams, and what crashes left, are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// Who starts again and again sweeps all the same.
const FIRST_SWEEP: Duration = Duration::from_secs(300);

pub struct Upkeep {
    pub history: Arc<History>,
    pub streams: Arc<EventLog>,
    pub clock: Arc<dyn Clock>,
    /// How long streams stay after their last event.
    pub keep_streams: Duration,
    /// What they may take.
    pub limits: StreamLimits,
}

impl Upkeep {
    /// Works until `stop`. A step that is cut off is as one that a crash ended: it can be.
    pub async fn run(self, stop: CancellationToken) {
        let work = async {
            tokio::join!(
                resumed("joining what is fresh of the history", || self.maintain()),
                resumed("sweeping the history", || self.sweep()),
                resumed("making room for build events", || self.make_room()),
            )
        };
        tokio::select! {
            _ = work => {}
            () = stop.cancelled() => {}
        }
    }

    async fn maintain(&self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(MAINTAIN_EVERY) => {}
                () = self.history.crowded() => {}
            }
            for _ in 0..MAX_STEPS {
                match self.history.maintain(self.clock.now()).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        let error = chain(&error);
                        tracing::warn!(error, "the history of tests is not looked after for now");
                        break;
                    }
                }
            }
        }
    }

    /// Makes room for streams of build events once an hour, and within the minute where they take more than they may.
    async fn make_room(&self) {
        let mut looked: Option<Instant> = None;
        loop {
            tokio::time::sleep(MAINTAIN_EVERY).await;
            let is_due = looked.is_none_or(|it| it.elapsed() >= SWEEP_EVERY);
            if !is_due && !self.streams.is_crowded(self.limits) {
                continue;
            }
            looked = Some(Instant::now());
            match self.streams.make_room(self.clock.now(), self.limits).await {
                Ok(0) => {}
                Ok(gone) => {
                    tracing::warn!(gone, "streams of build events made room for newer ones")
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "it is not known how much build events take");
                }
            }
        }
    }

    async fn sweep(&self) {
        let began = Instant::now();
        tokio::time::sleep(FIRST_SWEEP).await;
        loop {
            if let Err(error) = self.history.sweep(began.elapsed()).await {
                let error = chain(&error);
                tracing::warn!(error, "what crashes left of the history of tests stays for now");
            }
            if let Err(error) = self.streams.age(self.clock.now(), self.keep_streams).await {
                let error = chain(&error);
                tracing::warn!(error, "old streams of build events stay for now");
            }
            if let Err(error) = self.streams.sweep(began.elapsed()).await {
                let error = chain(&error);
                tracing::warn!(error, "what crashes left of build events stays for now");
            }
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    }
}
