//! Metrics of what became of executed tests on their way into the history.

use std::fmt::Error;

use kiln_ci::Recordings;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, figures: Recordings) -> Result<(), Error> {
    families.counter(
        "kiln_test_attempts_recorded",
        "Attempts at tests that this server has written to the history.",
        figures.attempts,
    )?;
    families.counters(
        "kiln_test_attempts_lost",
        "Attempts at tests that are not in the history, by why.",
        [
            ([("reason", "execution")], figures.lost_executions),
            ([("reason", "report")], figures.lost_reports),
            ([("reason", "dropped")], figures.dropped),
        ],
    )?;
    families.counters(
        "kiln_test_reports_unread",
        "Reports of tests that were not read, by why.",
        [
            ([("reason", "unreadable")], figures.unreadable),
            ([("reason", "refused")], figures.refused_reports),
        ],
    )?;
    families.counter(
        "kiln_test_failed_writes",
        "Batches of attempts that could not be written, and are tried again.",
        figures.failed_writes,
    )
}
