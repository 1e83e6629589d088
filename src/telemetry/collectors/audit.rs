//! The hermeticity audit.

use std::fmt::Error;

use kiln_scheduler::audit::AuditStats;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, audit: AuditStats) -> Result<(), Error> {
    families.counters(
        "kiln_audited_actions",
        "Actions that the hermeticity audit ran again, by what it found.",
        [
            ([("verdict", "same")], audit.same),
            ([("verdict", "not_hermetic")], audit.not_hermetic),
            ([("verdict", "not_deterministic")], audit.not_deterministic),
            ([("verdict", "not_audited")], audit.not_audited),
        ],
    )?;
    families.counter("kiln_audit_runs", "Executions that audits took.", audit.runs)?;
    families.counter(
        "kiln_audit_dropped",
        "Actions sampled for the audit while too many waited for it.",
        audit.dropped,
    )
}
