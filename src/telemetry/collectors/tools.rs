//! Tools that stay between actions, of the workers in this process.

use std::fmt::Error;

use kiln_executor::persistent::ToolStats;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, stats: &ToolStats) -> Result<(), Error> {
    let figures = stats.figures();
    families.counter(
        "kiln_persistent_workers_started",
        "Persistent workers that were started.",
        figures.started,
    )?;
    families.counters(
        "kiln_persistent_worker_requests",
        "Actions that persistent workers did, by whether the process had done one before.",
        [
            ("true", figures.reused),
            ("false", figures.requests - figures.reused.min(figures.requests)),
        ]
        .map(|(reused, count)| ([("reused", reused)], count)),
    )?;
    families.counters(
        "kiln_persistent_workers_ended",
        "Persistent workers that are no more, by why.",
        figures.ended.map(|(reason, count)| ([("reason", reason)], count)),
    )?;
    families.counters(
        "kiln_persistent_worker_fallbacks",
        "Actions that asked for a persistent worker and ran by themselves, by why.",
        figures.unfit.map(|(reason, count)| ([("reason", reason)], count)),
    )?;
    families.gauge("kiln_persistent_workers", "Persistent workers that run.", figures.running)
}
