//! Executions as OpenTelemetry traces, sent over OTLP.

mod builds;
mod exporter;
mod ids;
mod spans;

use std::time::Instant;

use kiln_protos::events::Execution;

pub use builds::SILENCE;
pub use exporter::{EndpointError, Exporter, OtlpOptions, SpanCounters};

use builds::Builds;

/// Turns executions into spans and queues them.
pub struct Traces {
    builds: Builds,
    exporter: Exporter,
}

impl Traces {
    pub fn new(exporter: Exporter) -> Self {
        Self { builds: Builds::default(), exporter }
    }

    pub fn note(&mut self, execution: &Execution, now: Instant) {
        let (parent, ended) = self.builds.note(execution, now);
        self.exporter.offer(ended);
        if spans::is_traced(execution) {
            self.exporter.offer(spans::action_spans(execution, parent));
        }
    }

    /// Ends the builds that have been silent for [`SILENCE`].
    pub fn end_silent(&mut self, now: Instant) {
        self.exporter.offer(self.builds.end_silent(now));
    }

    /// Whether [`Self::end_silent`] could find anything.
    pub fn has_builds(&self) -> bool {
        !self.builds.is_empty()
    }

    /// Ends all builds and sends what is queued.
    pub async fn shutdown(mut self) {
        self.exporter.offer(self.builds.end_all());
        self.exporter.shutdown().await;
    }
}
