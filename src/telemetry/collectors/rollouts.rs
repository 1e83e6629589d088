//! Rollouts: how many, how many went wrong, and how long delivering and restoring took.

use std::fmt::Error;

use kiln_deploy::rollouts::control::RolloutFigures;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, figures: RolloutFigures) -> Result<(), Error> {
    let seconds = |millis: u64| millis as f64 / 1_000.0;
    families.counter("kiln_rollouts_started", "Rollouts that began here.", figures.started)?;
    families.counters(
        "kiln_rollouts_ended",
        "Rollouts that this server drove to their end, by how they ended.",
        [
            ([("end", "succeeded")], figures.succeeded),
            ([("end", "rolled_back")], figures.rolled_back),
            ([("end", "rollback_failed")], figures.rollback_failed),
            ([("end", "rejected")], figures.rejected),
            ([("end", "overtaken")], figures.overtaken),
        ],
    )?;
    families.counter(
        "kiln_rollout_delivery_seconds",
        "Time that rollouts that succeeded took together.",
        seconds(figures.delivery),
    )?;
    families.counter(
        "kiln_rollout_restore_seconds",
        "Time from the decision to revert until the old version ran again, of all that were rolled back.",
        seconds(figures.restore),
    )
}
