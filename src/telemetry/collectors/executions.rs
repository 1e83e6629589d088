//! Metrics of the records of executions.

use std::fmt::Error;

use kiln_deploy::executions::ExecutionFigures;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, figures: ExecutionFigures) -> Result<(), Error> {
    families.counter(
        "kiln_execution_records_written",
        "Executions that this server has recorded, and results whose record it marked as used.",
        figures.recorded,
    )?;
    families.counter(
        "kiln_execution_records_known",
        "Results that somebody was given and whose record was there already.",
        figures.known,
    )?;
    families.counters(
        "kiln_execution_records_lost",
        "Results that are not recorded, by why: they came too fast, or could not be written for too long.",
        [([("reason", "event")], figures.lost_events), ([("reason", "dropped")], figures.dropped)],
    )?;
    families.counter(
        "kiln_execution_records_failed_writes",
        "Batches of records of executions that could not be written, and are tried again.",
        figures.failed_writes,
    )?;
    families.counter(
        "kiln_execution_records_aged",
        "Records of executions that were removed because nobody used them for too long.",
        figures.aged,
    )
}
