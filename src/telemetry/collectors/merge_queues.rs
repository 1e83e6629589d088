//! Merge queues: what became of changes, and how many wait.

use std::fmt::Error;

use kiln_ci::queue::hosted::{QueueGauge, Totals};

use super::families::Families;

pub fn encode(
    families: &mut Families<'_>,
    (figures, queues): &(Totals, Vec<QueueGauge>),
) -> Result<(), Error> {
    families.counters(
        "kiln_merge_queue_changes",
        "Changes that left a merge queue, as its runner told this server, by how.",
        [
            ([("end", "landed")], figures.landed),
            ([("end", "rejected")], figures.rejected),
            ([("end", "left")], figures.left),
        ],
    )?;
    families.counter(
        "kiln_merge_queue_runs",
        "Runs of merge queues that ended, as their runners told this server.",
        figures.runs,
    )?;
    families.counter(
        "kiln_merge_queue_wait_seconds",
        "Time that changes that landed have waited together.",
        figures.waited_ms as f64 / 1_000.0,
    )?;
    let each = |of: fn(&QueueGauge) -> u64| {
        queues.iter().map(move |it| ([("queue", it.name.as_str())], of(it)))
    };
    families.gauges(
        "kiln_merge_queue_waiting",
        "Changes that wait in a merge queue, without those that are held.",
        each(|it| it.waiting),
    )?;
    families.gauges(
        "kiln_merge_queue_held",
        "Changes of a merge queue that are not tried until somebody or something changes that.",
        each(|it| it.held),
    )?;
    families.gauges(
        "kiln_merge_queue_running",
        "Checks of a merge queue that run.",
        each(|it| it.running),
    )?;
    families.gauges(
        "kiln_merge_queue_paused",
        "Whether a merge queue is paused.",
        each(|it| u64::from(it.paused)),
    )?;
    families.gauges(
        "kiln_merge_queue_connected",
        "Whether the runner of a merge queue is heard.",
        each(|it| u64::from(it.connected)),
    )
}
