//! What the server answers: gRPC, pages with their API, metrics, probes and the HTTP cache, on one port.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use kiln_cas::services::CasServices;
use kiln_cas::stores::Storage;
use kiln_cas::stores::audit::AuditLog;
use kiln_ci::CiServices;
use kiln_ci::forges::Intake;
use kiln_ci::plans::Plans;
use kiln_ci::queue::hosted::Queues;
use kiln_ci::verdicts::Verdicts;
use kiln_deploy::audit::Checkpoints;
use kiln_deploy::catalog::Catalog;
use kiln_deploy::executions::Executions;
use kiln_deploy::fleet::Fleet;
use kiln_deploy::promotion::Keeper;
use kiln_deploy::retention::Collector;
use kiln_deploy::rollouts::control::Control;
use kiln_deploy::swarm::pieces::Cutting;
use kiln_scheduler::SchedulerServices;

use super::common::Common;
use super::history::StoredRecords;
use crate::front::health::{self, Readiness};
use crate::front::unknown;
use crate::registry::RegistryState;
use crate::telemetry::Telemetry;
use kiln_web::{self as web, Kept, WebState};

/// Services that pages show, too.
pub struct Parts<'a> {
    pub services: &'a SchedulerServices,
    pub tests: &'a CiServices,
    pub verdicts: &'a Verdicts,
    pub releases: &'a Catalog,
    pub collector: &'a Collector,
    pub checkpoints: &'a Checkpoints,
    pub promotion: Option<&'a Arc<Keeper>>,
    pub rollouts: &'a Arc<Control>,
    pub pipelines: &'a Arc<kiln_ci::pipelines::control::Control>,
    pub previews: &'a Arc<kiln_ci::ephemeral::Previews>,
    pub executions: Option<&'a Executions>,
    pub fleet: &'a Fleet,
    pub merge_queues: &'a Queues,
    /// What pages keep is charged to it.
    pub kept: Kept,
}

pub fn router(
    cas: &CasServices,
    storage: &Storage,
    parts: Parts<'_>,
    common: &Common,
    telemetry: &Telemetry,
    readiness: Readiness,
) -> Router {
    let mut grpc = tonic::service::Routes::builder();
    cas.add_to(&mut grpc);
    parts.services.add_to(&mut grpc);
    parts.tests.add_to(&mut grpc);
    // The HTTP cache matches paths of any depth, so it comes after all fixed ones.
    let grpc = grpc.routes().prepare().into_axum_router();
    grpc.merge(web::router(pages(storage, &parts, common)))
        .merge(telemetry.routes())
        .merge(health::routes(move || readiness.check()))
        .fallback_service(cas.http_cache().fallback(unknown::of_server))
}

/// Besides, what is answered only where the operator wants it.
pub fn with(
    router: Router,
    registry: Option<RegistryState>,
    forges: Option<Arc<Intake>>,
) -> Router {
    let router = match registry {
        Some(registry) => router.merge(crate::registry::router(registry)),
        None => router,
    };
    match forges {
        Some(intake) => router.merge(web::forges(intake)),
        None => router,
    }
}

fn pages(storage: &Storage, parts: &Parts<'_>, common: &Common) -> WebState {
    let services = parts.services;
    let stats = storage.stats.clone();
    WebState {
        blobs: storage.blobs.clone(),
        actions: storage.actions.clone(),
        logs: common.logs.clone(),
        journal: services.journal.clone(),
        hermeticity: services.hermeticity.clone(),
        tests: parts.tests.clone(),
        verdicts: parts.verdicts.clone(),
        releases: parts.releases.clone(),
        collector: parts.collector.clone(),
        checkpoints: parts.checkpoints.clone(),
        promotion: parts.promotion.cloned(),
        rollouts: parts.rollouts.clone(),
        pipelines: parts.pipelines.clone(),
        previews: parts.previews.clone(),
        executions: parts.executions.cloned(),
        fleet: parts.fleet.clone(),
        merge_queues: parts.merge_queues.clone(),
        pieces: Cutting::new(storage.blobs.clone()),
        plans: Plans::new(Arc::new(StoredRecords(storage.records.clone()))),
        access: common.access.clone(),
        audit: Arc::new(AuditLog::new(storage.records.clone())),
        kept: parts.kept.clone(),
        queue: Arc::new(services.scheduler.clone()),
        storage: Arc::new(move || stats.snapshot()),
        shared: storage.stats.shared_blobs().map(|blobs| Arc::new(blobs) as _),
        base_url: common.base_url.as_str().into(),
        reloads: common.reloads.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started: SystemTime::now(),
    }
}
