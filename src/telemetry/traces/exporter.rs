//! Sends spans to a collector. Nothing waits for it: what does not fit the queue, or what the
//! collector does not take, is dropped and counted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_net::grpc::connector;
use kiln_net::panics::spawn_heard;
use kiln_net::tls::{TlsFiles, client_config};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};

/// Groups of spans (an action with its stages, mostly) that wait to be sent.
pub const MAX_QUEUED: usize = 4096;
/// Spans sent in one message, but for the last group in it.
const MAX_BATCH: usize = 1024;
/// How long a batch is gathered.
const BATCH_DELAY: Duration = Duration::from_millis(500);
/// How long sending one batch may take, with the retries of the library.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the spans that are left may take at the end.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The OTLP collector that spans are sent to.
#[derive(Debug, Clone)]
pub struct OtlpOptions {
    /// An `http://` or `https://` URL.
    pub endpoint: String,
    /// Authorities (PEM) that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Default)]
pub struct SpanCounters {
    pub exported: AtomicU64,
    /// Spans that were dropped because the queue was full.
    pub overflowed: AtomicU64,
    /// Spans that the collector did not take.
    pub failed: AtomicU64,
}

/// The queue and the task behind it.
pub struct Exporter {
    queue: mpsc::Sender<Vec<SpanData>>,
    task: JoinHandle<()>,
    counters: Arc<SpanCounters>,
}

#[derive(Debug, thiserror::Error)]
#[error("telemetry.otlp_endpoint = {endpoint:?} cannot be used: {message}")]
pub struct EndpointError {
    endpoint: String,
    message: String,
}

impl Exporter {
    /// Starts sending to the collector. Whether somebody is there shows only
    /// later. Call within a tokio runtime. `instance` names this server among others.
    pub fn start(
        otlp: &OtlpOptions,
        instance: &str,
        counters: Arc<SpanCounters>,
    ) -> Result<Self, EndpointError> {
        let failed = |message| EndpointError { endpoint: otlp.endpoint.clone(), message };
        let mut exporter = OtlpExporter::builder()
            .with_tonic()
            .with_channel(channel(otlp).map_err(failed)?)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        exporter.set_resource(&resource(instance));
        let (queue, inbox) = mpsc::channel(MAX_QUEUED);
        let task = spawn_heard("sending traces", send(exporter, inbox, counters.clone()));
        Ok(Self { queue, task, counters })
    }

    /// Queues the spans, or drops and counts them. Never waits.
    pub fn offer(&self, spans: Vec<SpanData>) {
        let count = spans.len() as u64;
        if count > 0 && self.queue.try_send(spans).is_err() {
            self.counters.overflowed.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Sends what is queued, within [`FLUSH_TIMEOUT`].
    pub async fn shutdown(self) {
        drop(self.queue);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(FLUSH_TIMEOUT, self.task).await.is_err() {
            abort.abort();
            tracing::warn!("the last traces were not sent in time");
        }
    }
}

/// Makes a channel to the collector, which connects when it is first used.
fn channel(otlp: &OtlpOptions) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(otlp.endpoint.clone());
    let endpoint = endpoint.map_err(|error| error.to_string())?.connect_timeout(EXPORT_TIMEOUT);
    if !otlp.endpoint.starts_with("https://") {
        return Ok(endpoint.connect_lazy());
    }
    let tls = TlsFiles { ca: otlp.ca.clone(), identity: None };
    let config = client_config(&tls).map_err(|error| error.to_string())?;
    Ok(endpoint.connect_with_connector_lazy(connector(config)))
}

fn resource(instance: &str) -> Resource {
    Resource::builder()
        .with_service_name("kiln")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ])
        .build()
}

async fn send(
    exporter: OtlpExporter,
    mut inbox: mpsc::Receiver<Vec<SpanData>>,
    counters: Arc<SpanCounters>,
) {
    let mut reachable = true;
    while let Some(batch) = gather(&mut inbox).await {
        let count = batch.len() as u64;
        match tokio::time::timeout(EXPORT_TIMEOUT, exporter.export(batch)).await {
            Ok(Ok(())) => {
                counters.exported.fetch_add(count, Ordering::Relaxed);
                reachable = true;
            }
            Ok(Err(error)) => failed(&counters, count, &error, &mut reachable),
            Err(error) => failed(&counters, count, &error, &mut reachable),
        }
    }
}

/// Counts spans that were not sent. The log says so once, and again after it has worked in between.
fn failed(
    counters: &SpanCounters,
    count: u64,
    error: &dyn std::fmt::Display,
    reachable: &mut bool,
) {
    counters.failed.fetch_add(count, Ordering::Relaxed);
    if std::mem::replace(reachable, false) {
        tracing::warn!(%error, "traces cannot be sent; they are dropped until the collector answers"
        );
    }
}

/// The next batch; `None`: the queue has ended.
async fn gather(inbox: &mut mpsc::Receiver<Vec<SpanData>>) -> Option<Vec<SpanData>> {
    let mut batch = inbox.recv().await?;
    let until = Instant::now() + BATCH_DELAY;
    while batch.len() < MAX_BATCH {
        match timeout_at(until, inbox.recv()).await {
            Ok(Some(spans)) => batch.extend(spans),
            Ok(None) | Err(_) => break,
        }
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use kiln_protos::events::{Execution, execution::Origin};
    use opentelemetry::trace::SpanId;

    use super::super::spans::action_spans;
    use super::*;

    /// The sending task has no turn before the test waits for something.
    #[tokio::test]
    async fn what_does_not_fit_the_queue_is_dropped_and_counted() {
        let counters = Arc::new(SpanCounters::default());
        let otlp = OtlpOptions { endpoint: "http://127.0.0.1:9".to_owned(), ca: None };
        let exporter = Exporter::start(&otlp, "test", counters.clone()).unwrap();
        let execution = Execution { origin: Origin::Merged.into(), ..Execution::default() };
        for _ in 0..MAX_QUEUED + 7 {
            exporter.offer(action_spans(&execution, SpanId::INVALID));
        }
        exporter.offer(Vec::new());
        assert_eq!(counters.overflowed.load(Ordering::Relaxed), 7);
        assert_eq!(counters.exported.load(Ordering::Relaxed), 0);
    }
}
