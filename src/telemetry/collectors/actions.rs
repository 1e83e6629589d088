//! Finished action requests: as the journal counts them, and where the time went.

use std::fmt::Error;

use kiln_scheduler::journal::{JournalStats, STAGES};

use super::families::Families;
use crate::telemetry::stages::{OUTCOMES, Stages};

pub fn encode(
    families: &mut Families<'_>,
    journal: &JournalStats,
    stages: &Stages,
) -> Result<(), Error> {
    let counts = &journal.counts;
    families.counters(
        "kiln_actions",
        "Action requests that ended, by where the result came from.",
        [
            ([("origin", "executed")], counts.executed),
            ([("origin", "cache_hit")], counts.hits),
            ([("origin", "merged")], counts.merged),
            ([("origin", "refused")], counts.refused),
        ],
    )?;
    families.counter(
        "kiln_action_lookups_missed",
        "Look-ups of action results that found none.",
        counts.missed,
    )?;
    families.counter(
        "kiln_actions_failed",
        "Action requests that ended with an error or a non-zero exit code.",
        counts.failed,
    )?;
    families.counters(
        "kiln_executions",
        "Actions that workers ran, by outcome.",
        OUTCOMES.map(|(outcome, name)| ([("outcome", name)], stages.outcome(outcome))),
    )?;
    families.histograms(
        "kiln_action_stage_duration_seconds",
        "Time of executed actions in each stage.",
        STAGES.map(|stage| ([("stage", stage.label())], stages.stage(stage))),
    )?;
    families.histogram(
        "kiln_action_duration_seconds",
        "Executed actions, from the request to the answer.",
        stages.whole(),
    )
}

/// Writes the metrics of the journal of executions itself.
pub fn encode_journal(families: &mut Families<'_>, journal: &JournalStats) -> Result<(), Error> {
    families.gauge("kiln_journal_executions", "Executions kept in records.", journal.executions)?;
    families.gauge("kiln_journal_builds", "Builds kept in records.", journal.builds)?;
    families.gauge(
        "kiln_journal_pending",
        "Executions not written yet.",
        journal.pending as u64,
    )?;
    families.gauge(
        "kiln_journal_durations",
        "Pairs of target and mnemonic whose run time is known.",
        journal.durations as u64,
    )?;
    families.counter(
        "kiln_journal_lost_events",
        "Executions that came faster than the journal took them in.",
        journal.lost_events,
    )?;
    families.counter(
        "kiln_journal_dropped",
        "Executions given up because records could not be written for too long.",
        journal.dropped,
    )?;
    families.counter(
        "kiln_journal_failed_writes",
        "Batches that could not be written at first.",
        journal.failed_writes,
    )
}
