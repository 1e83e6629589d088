//! Counts the rollouts that run: how many are in which phase, since when, and where a drill is overdue.

use std::sync::PoisonError;
use std::time::Duration;

use kiln_cas::records::Record;
use kiln_net::causes::chain;

use super::error::ControlError;
use super::figures::{Census, PAUSED};
use super::kept::Rollout;
use super::store::decode;
use super::{Control, Standing, keys};

/// How often rollouts are counted.
const EVERY: Duration = Duration::from_secs(60);
/// How many counts there are for each look at which drills are overdue: that reads much, and is a matter of days.
const DRILLS_EVERY: u32 = 5;
/// Places whose drills are looked after.
const MAX_PLACES: usize = 200;

impl Control {
    /// Counts for ever what [`Control::figures`] says of those that run. Drop it to end it.
    pub async fn keep_counted(&self) {
        // What was found of drills, and for how many counts more that is good.
        let (mut overdue, mut left) = (0, 0);
        loop {
            let counted = async {
                if left == 0 {
                    (overdue, left) = (self.drills_overdue().await?, DRILLS_EVERY);
                }
                left -= 1;
                self.counted(overdue).await
            };
            match counted.await {
                Ok(census) => {
                    *self.census.lock().unwrap_or_else(PoisonError::into_inner) = census;
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "rollouts cannot be counted for now");
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    pub(super) async fn counted(&self, drills_overdue: u64) -> Result<Census, ControlError> {
        let (mut census, now) = (Census { drills_overdue, ..Census::default() }, self.now());
        let heads = self.store.heads(&self.store.active().await?).await?;
        for head in heads.into_iter().flatten().filter(|head| !head.ended) {
            let phase = if head.paused { PAUSED.to_owned() } else { head.phase };
            let phased = census.running.entry(phase).or_default();
            phased.rollouts += 1;
            // One of a former version says nothing of that until its next event.
            let since = if head.since > 0 { head.since } else { now };
            phased.oldest = phased.oldest.max(now.saturating_sub(since));
        }
        Ok(census)
    }

    /// Places where a drill is overdue, also if that holds up nothing.
    pub(super) async fn drills_overdue(&self) -> Result<u64, ControlError> {
        let places = self.store.records.list(keys::PLACES, None, false, MAX_PLACES).await?;
        let mut overdue = 0;
        for place in &places {
            // A place of which something cannot be read holds up none of the others.
            let read = self.store.readable(self.drill_overdue(place).await)?;
            overdue += u64::from(read.unwrap_or_default());
        }
        Ok(overdue)
    }

    async fn drill_overdue(&self, place: &Record) -> Result<bool, ControlError> {
        let Some(newest) = decode::<Standing>(place)?.newest else { return Ok(false) };
        let rollout = self.store.get::<Rollout>(&keys::run(&newest)).await?;
        let Some(rollout) = rollout else { return Ok(false) };
        let standing = self.drill_listed(&rollout).await?;
        Ok(standing.is_some_and(|it| it.is_overdue))
    }
}
