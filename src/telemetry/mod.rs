//! Logs, metrics and traces.

mod collectors;
mod durations;
mod exposition;
mod lines;
mod logs;
mod observed;
mod observer;
mod process;
pub mod redis;
pub mod requests;
pub mod stages;
mod test_actions;
mod test_figures;
#[cfg(test)]
mod tests;
mod traces;

use std::sync::Arc;

use axum::Router;
use prometheus_client::registry::Registry;

use collectors::{Latest, Sources};
use observer::Observer;
use stages::Stages;
use test_figures::TestFigures;
use traces::{Exporter, SpanCounters, Traces};

pub use logs::{LogOptions, start};
pub use observed::{
    AgentCounts, CertificateEnd, ForgesOf, InQuarantine, Looking, MergeQueuesOf, Observed,
    ObservedWorker, QuarantineOf, RecordingsOf, Security,
};
pub use traces::{EndpointError, OtlpOptions};

/// The metrics and traces of one server.
pub struct Telemetry {
    observer: Observer,
    queue: Latest,
    tests: TestFigures,
    registry: Arc<Registry>,
}

/// The router that answers `GET /metrics` at a worker's status server.
pub fn worker_routes(observed: ObservedWorker) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(observed));
    exposition::router(Arc::new(registry), None)
}

impl Telemetry {
    /// Traces go to `otlp`, if there is one; `instance` names this server among others.
    /// Call within a tokio runtime.
    pub fn start(
        observed: Observed<'_>,
        otlp: Option<&OtlpOptions>,
        instance: &str,
    ) -> Result<Self, EndpointError> {
        let Observed {
            events,
            storage,
            scheduler,
            journal,
            hermeticity,
            recordings,
            executions,
            rollouts,
            promotions,
            previews,
            agents,
            merge_queues,
            forges,
            requests,
            security,
            names_properties,
            redis,
            images,
            tools,
            inputs,
            history,
            quarantine,
        } = observed;
        let (stages, spans) = (Arc::new(Stages::default()), Arc::new(SpanCounters::default()));
        let traces = otlp
            .map(|otlp| Exporter::start(otlp, instance, spans.clone()))
            .transpose()?
            .map(Traces::new);
        let observer = Observer::start(events, stages.clone(), traces);
        let mut registry = Registry::default();
        let queue = Latest::new(scheduler);
        let tests = TestFigures::new(history, quarantine);
        registry.register_collector(Box::new(Sources {
            storage,
            queue: queue.clone(),
            journal,
            hermeticity,
            recordings,
            executions,
            rollouts,
            promotions,
            previews,
            agents,
            merge_queues,
            forges,
            requests,
            security,
            names_properties,
            images,
            tools,
            inputs,
            stages,
            spans,
            redis,
            tests: tests.clone(),
        }));
        Ok(Self { observer, queue, tests, registry: Arc::new(registry) })
    }

    /// The router that answers `GET /metrics` of the server.
    pub fn routes(&self) -> Router {
        exposition::router(self.registry.clone(), Some((self.queue.clone(), self.tests.clone())))
    }

    /// Takes in what was published before, and sends the traces that are left.
    pub async fn shutdown(self) {
        self.observer.shutdown().await;
    }
}
