//! Puts together the routes of the server's one port: gRPC, pages with their API, metrics, probes
//! and the HTTP cache.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use kiln_cas::stores::audit::AuditLog;
use kiln_ci::forges::Intake;
use kiln_ci::plans::Plans;
use kiln_deploy::swarm::pieces::Cutting;

use super::history::StoredRecords;
use super::parts::Parts;
use crate::front::health::{self, Readiness};
use crate::front::unknown;
use crate::registry::RegistryState;
use kiln_web::{self as web, WebState};

pub fn router(parts: &Parts, readiness: Readiness) -> Router {
    let (cas, builds) = (&parts.cas, &parts.builds);
    let mut grpc = tonic::service::Routes::builder();
    cas.services.add_to(&mut grpc);
    builds.services.add_to(&mut grpc);
    builds.ci.tests.add_to(&mut grpc);
    // The HTTP cache matches paths of any depth, so it comes after all fixed ones.
    let grpc = grpc.routes().prepare().into_axum_router();
    let router = grpc
        .merge(web::router(pages(parts)))
        .merge(parts.telemetry.routes())
        .merge(health::routes(move || readiness.check()))
        .fallback_service(cas.services.http_cache().fallback(unknown::of_server));
    with(router, cas.registry.clone(), builds.ci.forges.intake.clone())
}

/// Adds the routes that are answered only where the operator wants them.
fn with(router: Router, registry: Option<RegistryState>, forges: Option<Arc<Intake>>) -> Router {
    let router = match registry {
        Some(registry) => router.merge(crate::registry::router(registry)),
        None => router,
    };
    match forges {
        Some(intake) => router.merge(web::forges(intake)),
        None => router,
    }
}

fn pages(parts: &Parts) -> WebState {
    let Parts { base, builds, pipelines, .. } = parts;
    let (storage, common) = (&base.storage, &base.common);
    let (services, ci, deploy) = (&builds.services, &builds.ci, &parts.deploy.services);
    let stats = storage.stats.clone();
    WebState {
        blobs: storage.blobs.clone(),
        actions: storage.actions.clone(),
        logs: common.logs.clone(),
        journal: services.journal.clone(),
        hermeticity: services.hermeticity.clone(),
        tests: ci.tests.clone(),
        verdicts: ci.verdicts.clone(),
        releases: deploy.catalog.clone(),
        collector: deploy.collector.clone(),
        checkpoints: deploy.checkpoints.clone(),
        promotion: deploy.keeper.clone(),
        rollouts: deploy.control.clone(),
        pipelines: pipelines.control.clone(),
        previews: pipelines.previews.clone(),
        executions: builds.executions.clone(),
        fleet: parts.fleet.fleet.clone(),
        merge_queues: ci.merging.queues.clone(),
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
