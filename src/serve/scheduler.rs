//! Starts the server's part of `kiln_scheduler`.

use std::sync::Arc;

use kiln_ci::CiServices;
use kiln_ci::expected::ExpectedShards;
use kiln_scheduler::{SchedulerParts, SchedulerServices, StartError};

use super::base::Base;
use super::options::ServeOptions;
use super::{reports, shards};

/// Starts the scheduler; `tests` tell how long shards take. Must be called within a Tokio runtime.
pub async fn start(
    options: &ServeOptions,
    base: &Base,
    tests: &CiServices,
) -> Result<SchedulerServices, StartError> {
    let (storage, common) = (&base.storage, &base.common);
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
    SchedulerServices::start(settings, parts).await
}
