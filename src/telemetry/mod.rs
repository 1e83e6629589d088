//! Logs, metrics and traces.

mod collectors;
mod durations;
mod exposition;
mod lines;
mod observer;
mod process;
pub mod redis;
pub mod requests;
pub mod stages;
#[cfg(test)]
mod tests;
mod traces;

use std::sync::Arc;

use axum::Router;
use kiln_cas::events::Events;
use kiln_cas::stores::StorageStats;
use kiln_cas::stores::Transfers;
use kiln_executor::WorkerStatus;
use kiln_executor::images::ImageStats;
use kiln_executor::input_root::InputStats;
use kiln_executor::persistent::ToolStats;
use kiln_scheduler::Scheduler;
use kiln_scheduler::hermeticity::Checker;
use kiln_scheduler::journal::Journal;
use prometheus_client::registry::Registry;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::auth::failures::Failures;
use crate::config::{ConfigError, Settings};
use crate::front::Tls;
use collectors::{Latest, Sources};
use lines::Lines;
use observer::Observer;
use redis::RedisTimes;
use requests::Requests;
use stages::Stages;
use traces::{Exporter, SpanCounters, Traces};

pub use traces::{EndpointError, OtlpOptions};

/// Starts logging to stderr as the settings say. Call once.
pub fn start(settings: &Settings) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(settings.text("log.filter")).map_err(|error| {
        ConfigError::Combination(format!("log.filter is not a filter: {error}"))
    })?;
    let json = settings.text("log.format") == "json";
    let colours = !json && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let output = tracing_subscriber::fmt::layer().with_writer(Lines { colours });
    let output = match json {
        true => output.json().boxed(),
        false => output.with_ansi(colours).boxed(),
    };
    let secrets = filter_fn(shows_no_secret).with_max_level_hint(LevelFilter::TRACE);
    tracing_subscriber::registry().with(secrets).with(filter).with(output).init();
    Ok(())
}

/// The SDK of AWS logs whole requests at trace, with signature and session token. Whatever the filter
/// says, they stay out.
fn shows_no_secret(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::DEBUG || !metadata.target().starts_with("aws_")
}

/// The metrics and traces of one server.
pub struct Telemetry {
    observer: Observer,
    queue: Latest,
    registry: Arc<Registry>,
}

/// What they are about.
pub struct Observed<'a> {
    pub events: &'a Events,
    pub storage: Arc<StorageStats>,
    pub scheduler: Scheduler,
    pub journal: Journal,
    pub hermeticity: Checker,
    pub requests: Requests,
    pub security: Security,
    /// Whether metrics may name platform properties that clients made up: who reads metrics may then
    /// read of builds as well.
    pub names_properties: bool,
    /// Of the connections to Redis, where there are any.
    pub redis: Arc<RedisTimes>,
    /// Of the workers in this process.
    pub images: Arc<ImageStats>,
    pub tools: Arc<ToolStats>,
    pub inputs: Arc<InputStats>,
}

/// What the metrics of `kiln worker` are about.
pub struct ObservedWorker {
    pub worker: WorkerStatus,
    /// Of the copies of blobs on its disk.
    pub storage: Arc<StorageStats>,
    pub transfers: Arc<Transfers>,
    pub stages: Arc<Stages>,
    pub requests: Requests,
    pub security: Security,
}

/// `GET /metrics` of a worker.
pub fn worker_routes(observed: ObservedWorker) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(observed));
    exposition::router(Arc::new(registry), None)
}

/// Authentication and TLS.
pub struct Security {
    pub failures: Arc<Failures>,
    /// `None`: without TLS.
    pub tls: Option<Arc<Tls>>,
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
            requests,
            security,
            names_properties,
            redis,
            images,
            tools,
            inputs,
        } = observed;
        let (stages, spans) = (Arc::new(Stages::default()), Arc::new(SpanCounters::default()));
        let traces = otlp
            .map(|otlp| Exporter::start(otlp, instance, spans.clone()))
            .transpose()?
            .map(Traces::new);
        let observer = Observer::start(events, stages.clone(), traces);
        let mut registry = Registry::default();
        let queue = Latest::new(scheduler);
        registry.register_collector(Box::new(Sources {
            storage,
            queue: queue.clone(),
            journal,
            hermeticity,
            requests,
            security,
            names_properties,
            images,
            tools,
            inputs,
            stages,
            spans,
            redis,
        }));
        Ok(Self { observer, queue, registry: Arc::new(registry) })
    }

    /// `GET /metrics`.
    pub fn routes(&self) -> Router {
        exposition::router(self.registry.clone(), Some(self.queue.clone()))
    }

    /// Takes in what was published before, and sends the traces that are left.
    pub async fn shutdown(self) {
        self.observer.shutdown().await;
    }
}
