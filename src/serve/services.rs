//! Services of the crates, as a server gives them what they stand on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_cas::services::{CasServices, ServicesConfig};
use kiln_cas::stores::Storage;
use kiln_ci::CiServices;
use kiln_ci::expected::ExpectedShards;
use kiln_deploy::executions::{ExecutionFigures, Executions};
use kiln_scheduler::{SchedulerParts, SchedulerServices};

use super::common::Common;
use super::options::{ServeError, ServeOptions};
use super::{admission, reports, shards};
use crate::telemetry::RecordingsOf;

pub async fn scheduler(
    options: &ServeOptions,
    storage: &Storage,
    common: &Common,
    tests: &CiServices,
) -> Result<SchedulerServices, ServeError> {
    let mut settings = options.scheduler.clone();
    settings.scheduler.base_url.clone_from(&common.base_url);
    let parts = SchedulerParts {
        blobs: storage.blobs.clone(),
        actions: storage.actions.clone(),
        records: storage.records.clone(),
        redis: storage.redis.clone(),
        logs: common.logs.clone(),
        events: common.events.clone(),
        access: common.access.clone(),
        invocations: storage.invocations.clone(),
        quotas: common.quotas.clone(),
        shards: Arc::new(shards::Shards(ExpectedShards::start(tests.history.clone()))),
        reports: Arc::new(reports::Reports),
    };
    Ok(SchedulerServices::start(settings, parts).await?)
}

pub fn cas(
    options: &ServeOptions,
    storage: &Storage,
    common: &Common,
) -> Result<CasServices, ServeError> {
    Ok(CasServices::new(ServicesConfig {
        blobs: storage.blobs.clone(),
        actions: storage.actions.clone(),
        records: storage.records.clone(),
        logs: common.logs.clone(),
        events: common.events.clone(),
        exec_enabled: true,
        access: common.access.clone(),
        invocations: storage.invocations.clone(),
        fetch: options.fetch.clone(),
        opaque: options.opaque.clone(),
        max_blob_size: options.max_blob_size,
        quotas: common.quotas.clone(),
        secret: admission::secret().map_err(ServeError::Random)?,
    }))
}

pub fn figures(executions: Option<Executions>) -> Arc<dyn Fn() -> ExecutionFigures + Send + Sync> {
    Arc::new(move || executions.as_ref().map(Executions::figures).unwrap_or_default())
}

pub fn recordings(tests: &CiServices) -> RecordingsOf {
    let recorder = tests.recorder.clone();
    Arc::new(move || recorder.figures())
}

/// A fleet's blobs are collected by any of its frontends: each looks after their records so often.
const SWEEP_SHARED: Duration = Duration::from_secs(3600);

/// Changes whenever blobs may have gone.
pub fn evictions(storage: &Storage) -> impl Fn() -> u64 + Send + 'static {
    let (stats, started) = (storage.stats.clone(), Instant::now());
    move || match stats.shared_blobs() {
        None => stats.evicted_blobs(),
        Some(_) => started.elapsed().as_secs() / SWEEP_SHARED.as_secs(),
    }
}
