//! Metrics of the hermeticity check.

use std::fmt::Error;

use kiln_scheduler::hermeticity::HermeticityStats;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, stats: HermeticityStats) -> Result<(), Error> {
    families.counters(
        "kiln_audited_actions",
        "Actions that the hermeticity check ran again, by what it found.",
        [
            ([("verdict", "same")], stats.same),
            ([("verdict", "not_hermetic")], stats.not_hermetic),
            ([("verdict", "not_deterministic")], stats.not_deterministic),
            ([("verdict", "not_audited")], stats.not_checked),
        ],
    )?;
    families.counter("kiln_audit_runs", "Executions that hermeticity checks took.", stats.runs)?;
    families.counter(
        "kiln_audit_dropped",
        "Actions sampled for a check while too many waited.",
        stats.dropped,
    )
}
