//! Metrics of telemetry itself.

use std::fmt::Error;
use std::sync::atomic::Ordering;

use super::families::Families;
use crate::telemetry::stages::Stages;
use crate::telemetry::traces::SpanCounters;

pub fn encode(
    families: &mut Families<'_>,
    stages: &Stages,
    spans: &SpanCounters,
) -> Result<(), Error> {
    families.counter(
        "kiln_telemetry_lost_events",
        "Executions missing from stage durations and traces: they came too fast.",
        stages.lost(),
    )?;
    families.counter(
        "kiln_trace_spans_exported",
        "Spans that the OTLP collector took.",
        spans.exported.load(Ordering::Relaxed),
    )?;
    families.counters(
        "kiln_trace_spans_dropped",
        "Spans that were given up, by reason.",
        [
            ([("reason", "queue_full")], spans.overflowed.load(Ordering::Relaxed)),
            ([("reason", "export_failed")], spans.failed.load(Ordering::Relaxed)),
        ],
    )
}
