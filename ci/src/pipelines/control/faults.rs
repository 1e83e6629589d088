//! A run whose driver panics is driven anew from its history. One whose driver does so each time ends, and holds up no other.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::panics::{Panicked, caught};
use tokio::time::Instant;

use super::Control;
use super::append::Appended;
use super::driver::Driver;
use super::error::ControlError;
use super::notes::cut;
use super::open::Open;
use super::task::task;
use crate::pipelines::machine::{Input, Running, StopWhy};
use crate::pipelines::runner::Outcome;

/// Panics in a row after which a run has failed.
const MAX_PANICS: u32 = 5;
/// A driver that went on for so long before it panicked does so for the first time.
const CALM: Duration = Duration::from_secs(600);
/// Pauses before a run is driven anew.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
/// How long the runners of a run that has failed by that may take to hear it.
const HEARD: Duration = Duration::from_secs(30);
/// How often the end is written while others write.
const ATTEMPTS: usize = 20;

/// Drives until the run has ended, which it has at last where its driver panics again and again.
pub async fn keep(control: Arc<Control>, id: String) {
    let mut panics = 0;
    loop {
        let began = Instant::now();
        // In a box, since it is handed on from here to there.
        let driving = Box::pin(Driver::keep(control.clone(), id.clone()));
        let Err(panicked) = caught(driving).await else { return };
        panics = if began.elapsed() < CALM { panics + 1 } else { 1 };
        tracing::error!(run = id, panics, error = %panicked, "the driver of a run panicked");
        if panics >= MAX_PANICS {
            let given_up = caught(Box::pin(control.give_up(&id, panics, &panicked))).await;
            match given_up.unwrap_or_else(|panicked| Err(panicked.into())) {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(run = id, error = %chain(&error), "a run cannot be ended yet");
                }
            }
        }
        tokio::time::sleep(PAUSES.pause(panics)).await;
    }
}

impl Control {
    /// Ends a run that cannot be driven as failed, with all that runs of it. It may be resumed.
    async fn give_up(&self, id: &str, panics: u32, why: &Panicked) -> Result<(), ControlError> {
        let reason = cut(&format!("{panics} times in a row {why}"));
        for _ in 0..ATTEMPTS {
            let mut open = self.open(id).await?;
            if open.state.is_over() {
                return Ok(());
            }
            self.cancel_all(&open).await;
            let ended = open.state.running().map(|(at, running)| Input::Ended {
                stage: u32::try_from(at).unwrap_or(u32::MAX),
                attempt: running.attempt,
                outcome: Outcome::Infrastructure { reason: reason.clone() },
                links: Vec::new(),
            });
            let stop = Input::Stop(StopWhy::Fault { reason: reason.clone() });
            // First of all: what were to follow otherwise may be what panics.
            let inputs: Vec<_> = std::iter::once(stop).chain(ended).collect();
            if self.append(&mut open, &inputs, self.now()).await? != Appended::Conflict {
                tracing::error!(run = id, reason, "a run has failed by a fault of its driver");
                return Ok(());
            }
        }
        Err(ControlError::Restless)
    }

    /// Nobody drives these any more. What does not hear it goes on to its own time limit.
    async fn cancel_all(&self, open: &Open) {
        let cancelling: Vec<_> =
            open.state.running().map(|running| self.cancel_one(open, running)).collect();
        if tokio::time::timeout(HEARD, join_all(cancelling)).await.is_err() {
            tracing::warn!(run = open.run.id, "stages of a run that has failed may still run");
        }
    }

    async fn cancel_one(&self, open: &Open, running: (usize, Running)) {
        let cancelling = async {
            // What cannot become a task never ran.
            let Ok(task) = task(&open.run, &open.state, running, self.now()) else { return Ok(()) };
            self.runner.cancel(&task).await.map_err(|error| chain(&error))
        };
        let cancelled = caught(cancelling).await;
        if let Err(why) = cancelled.unwrap_or_else(|panicked| Err(panicked.to_string())) {
            tracing::warn!(run = open.run.id, stage = running.0, why, "a stage may still run");
        }
    }
}
