//! A rollout whose driver panics is driven anew from its log, more and more rarely where that comes each time. After some of
//! these it is paused: once the cause is gone a person says whether it goes on.

use std::sync::Arc;
use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::panics::{Panicked, caught};
use tokio::time::Instant;

use super::Control;
use super::append::{Appended, More};
use super::driver::Driver;
use super::error::ControlError;
use crate::rollouts::machine::Input;

/// Panics in a row after which a rollout is paused.
const MAX_PANICS: u32 = 5;
/// A driver that went on for so long before it panicked does so for the first time.
const CALM: Duration = Duration::from_secs(600);
/// Pauses before a rollout is driven anew.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
/// How often the pause is written while others write.
const TRIES: usize = 20;

/// Drives until there is nothing left to do.
pub(super) async fn keep(control: Arc<Control>, id: String) {
    let mut panics = 0;
    loop {
        let began = Instant::now();
        // In a box, since it is handed on from here to there.
        let driving = Box::pin(Driver::keep(control.clone(), id.clone()));
        let Err(panicked) = caught(driving).await else { return };
        panics = if began.elapsed() < CALM { panics + 1 } else { 1 };
        tracing::error!(rollout = id, panics, error = %panicked, "the driver of a rollout panicked");
        if panics >= MAX_PANICS {
            let held = caught(Box::pin(control.hold(&id, panics, &panicked))).await;
            if let Err(error) = held.unwrap_or_else(|panicked| Err(panicked.into())) {
                tracing::error!(rollout = id, error = %chain(&error), "a rollout cannot be paused");
            }
        }
        tokio::time::sleep(PAUSES.pause(panics)).await;
    }
}

impl Control {
    /// Pauses a rollout that goes forward. One that is reverted is to go on with that.
    async fn hold(&self, id: &str, panics: u32, why: &Panicked) -> Result<(), ControlError> {
        for _ in 0..TRIES {
            let mut open = self.open(id).await?;
            let is_paused = open.state.paused.is_some() && !open.state.frozen;
            if is_paused || !open.state.is_forward() {
                return Ok(());
            }
            let pause = Input::Pause(format!("{panics} times in a row {why}"));
            let by = ("kiln", self.now());
            if self.append(&mut open, &[pause], by, More::default()).await? != Appended::Conflict {
                return Ok(());
            }
        }
        Err(ControlError::Restless)
    }
}
