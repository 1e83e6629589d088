//! Rollouts: how many, how many went wrong, and how long delivering and restoring took.

use std::fmt::Error;

use kiln_deploy::rollouts::control::{Census, PHASES, RolloutFigures};

use super::families::Families;

pub fn encode(families: &mut Families<'_>, figures: &RolloutFigures) -> Result<(), Error> {
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
        "kiln_drills_missed",
        "Drills that should have begun by themselves and did not.",
        figures.drills_missed,
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
    )?;
    running(families, &figures.census)
}

fn running(families: &mut Families<'_>, census: &Census) -> Result<(), Error> {
    let of = |phase: &'static str| census.running.get(phase).copied().unwrap_or_default();
    families.gauges(
        "kiln_rollouts_running",
        "Rollouts that have not ended, by phase, as they were counted within the last minute.",
        PHASES.map(|phase| ([("phase", phase)], of(phase).rollouts)),
    )?;
    families.gauges(
        "kiln_rollout_phase_oldest_seconds",
        "How long that rollout is in its phase that has been in it longest.",
        PHASES.map(|phase| ([("phase", phase)], of(phase).oldest as f64 / 1_000.0)),
    )?;
    families.gauge(
        "kiln_drills_overdue",
        "Services in environments where no drill has passed for as long as is demanded.",
        census.drills_overdue,
    )
}
