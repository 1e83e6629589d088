//! Starts the services that run builds, and those that record them.

use kiln_deploy::executions::Executions;
use kiln_scheduler::SchedulerServices;

use super::base::Base;
use super::ci::{self, Ci};
use super::options::{ServeError, ServeOptions};
use super::{releases, scheduler};

pub struct Builds {
    pub services: SchedulerServices,
    pub ci: Ci,
    /// Records of executions; `None`: they are not recorded.
    pub executions: Option<Executions>,
}

impl Builds {
    /// Starts the scheduler with those that record what it executes. Must be called within a Tokio
    /// runtime.
    pub async fn start(options: &ServeOptions, base: &Base) -> Result<Self, ServeError> {
        // Both subscribe before anything can be executed.
        let recording = ci::record(options, base);
        let executions = releases::start_records(&options.releases, &base.storage, &base.common);
        let services = scheduler::start(options, base, &recording.tests).await?;
        let ci = ci::start(options, base, recording, &services.scheduler)?;
        Ok(Self { services, ci, executions })
    }
}
