//! docs/metrics.md and `/metrics` say the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt;
use kiln_cas::budget::Budget;
use kiln_cas::events::Events;
use kiln_cas::stores::{Storage, StorageConfig};
use kiln_ci::history::History;
use kiln_ci::queue::hosted::Totals;
use kiln_ci::storage::memory::Memory;
use kiln_executor::WorkerStatus;
use kiln_scheduler::hermeticity::Checker;
use kiln_scheduler::journal::{Journal, JournalConfig};
use kiln_scheduler::{Parts, Scheduler, SchedulerConfig};
use prometheus_client::registry::Registry;
use tower::ServiceExt;

use super::collectors::OfAFleet;
use super::requests::Requests;
use super::{Looking, Observed, ObservedWorker, Security, Telemetry, worker_routes};

const MANUAL: &str = include_str!("../../docs/metrics.md");

/// Names with their types, from the descriptors.
fn exported(text: &str) -> BTreeSet<(String, String)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

/// Names and types of metrics from the first two columns of the manual's tables.
fn documented(text: &str) -> BTreeSet<(String, String)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(name, rest)| Some((name.to_owned(), rest.split_once(" |")?.0.to_owned())))
        .filter(|(name, _)| name.starts_with("kiln_") || name.starts_with("process_"))
        .collect()
}

fn of_a_fleet() -> BTreeSet<(String, String)> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(OfAFleet));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    // OpenMetrics names a family of counters without the end of its members' name.
    let prometheus = |(name, kind): (String, String)| match kind.as_str() {
        "counter" => (format!("{name}_total"), kind),
        _ => (name, kind),
    };
    exported(&text).into_iter().map(prometheus).collect()
}

async fn scraped(routes: axum::Router) -> BTreeSet<(String, String)> {
    let request = axum::extract::Request::get("/metrics").body(Body::empty()).unwrap();
    let answer = routes.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    exported(std::str::from_utf8(&body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manual_names_every_metric_and_no_other() {
    let data = tempfile::tempdir().unwrap();
    let config = StorageConfig { data_dir: data.path().join("data"), ..StorageConfig::default() };
    let storage = Storage::open(config).await.unwrap();
    let events = Events::new();
    let journal =
        Journal::start(storage.records.clone(), &events, JournalConfig::default()).await.unwrap();
    let parts = Parts {
        blobs: storage.blobs.clone(),
        actions: storage.actions.clone(),
        events: events.clone(),
        invocations: storage.invocations.clone(),
        records: storage.records.clone(),
        ..Parts::in_memory()
    };
    let scheduler = Scheduler::start(SchedulerConfig::default(), parts);
    let memory = Arc::new(Memory::default());
    let observed = Observed {
        events: &events,
        storage: storage.stats.clone(),
        scheduler: scheduler.clone(),
        journal: journal.clone(),
        hermeticity: Checker::new(&scheduler, journal.clone(), storage.records.clone()),
        recordings: Arc::new(kiln_ci::Recordings::default),
        executions: Arc::new(kiln_deploy::executions::ExecutionFigures::default),
        rollouts: Arc::new(kiln_deploy::rollouts::control::RolloutFigures::default),
        promotions: Arc::new(|| {
            kiln_deploy::deployments::Fours::from([("prod".to_owned(), Default::default())])
        }),
        previews: Arc::default(),
        agents: Arc::default(),
        merge_queues: Arc::new(|| (Totals::default(), Vec::new())),
        forges: Arc::new(Vec::new),
        requests: Requests::new(1, Budget::new(0)),
        security: Security::default(),
        names_properties: true,
        redis: Arc::default(),
        images: Arc::default(),
        tools: Arc::default(),
        inputs: Arc::default(),
        history: Arc::new(History::new(memory.clone(), memory, Default::default())),
        quarantine: Arc::new(|| -> Looking { Box::pin(std::future::ready(None)) }),
    };
    let telemetry = Telemetry::start(observed, None, "test").unwrap();

    let worker = ObservedWorker {
        worker: WorkerStatus::default(),
        storage: storage.stats.clone(),
        transfers: Arc::default(),
        stages: Arc::default(),
        requests: Requests::new(1, Budget::new(0)),
        security: Security::default(),
    };
    let mut exported = scraped(telemetry.routes()).await;
    exported.extend(of_a_fleet());
    exported.extend(scraped(worker_routes(worker)).await);
    let documented = documented(MANUAL);
    assert!(exported.len() > 40, "{exported:?}");
    let missing: Vec<_> = exported.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
    let unknown: Vec<_> = documented.difference(&exported).collect();
    assert!(unknown.is_empty(), "docs/metrics.md names what there is not: {unknown:?}");

    telemetry.shutdown().await;
    scheduler.shutdown();
    journal.shutdown().await;
    storage.close().await.unwrap();
}
