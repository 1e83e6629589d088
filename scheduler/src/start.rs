//! The scheduler with its journal and its hermeticity check, as a server is wired with them.

use std::sync::Arc;

use kiln_cas::access::SharedAuthorizer;
use kiln_cas::events::Events;
use kiln_cas::logs::LogStreams;
use kiln_cas::promises::Invocations;
use kiln_cas::records::{RecordsError, SharedRecords};
use kiln_cas::redis::Redis;
use kiln_cas::services::{Attributed, Quotas};
use kiln_cas::{SharedActionCache, SharedBlobStore};
use kiln_protos::hermeticity::hermeticity_server::HermeticityServer;
use tokio::task::JoinHandle;
use tonic::service::RoutesBuilder;

use crate::api::Unavailable;
use crate::config::{Parts, SchedulerConfig};
use crate::hermeticity::{Checker, HermeticityConfig};
use crate::job::ShardEstimator;
use crate::journal::{Journal, JournalConfig};
use crate::reports::TestReports;
use crate::scheduler::Scheduler;
use crate::services::hermeticity::HermeticityService;

/// Settings of everything that this crate runs.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    pub scheduler: SchedulerConfig,
    pub journal: JournalConfig,
    /// Hermeticity checks in the background.
    pub hermeticity: HermeticityConfig,
}

/// The stores and services that the services of this crate are built on.
pub struct SchedulerParts {
    pub blobs: SharedBlobStore,
    /// Answers only complete results.
    pub actions: SharedActionCache,
    pub records: SharedRecords,
    /// Where a fleet has its queue and its journal; `None`: both are this process's own.
    pub redis: Option<Redis>,
    pub logs: LogStreams,
    pub events: Events,
    pub access: SharedAuthorizer,
    pub invocations: Invocations,
    pub quotas: Arc<Quotas>,
    /// Estimates how long shards of tests run, from earlier runs.
    pub shards: Arc<dyn ShardEstimator>,
    /// Reads and combines the reports of test runners.
    pub reports: Arc<dyn TestReports>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot join the queue")]
    Queue(#[from] Unavailable),
    #[error("cannot open the records")]
    Records(#[from] RecordsError),
}

/// The services of this crate, ready to be served on one port with others.
pub struct SchedulerServices {
    pub scheduler: Scheduler,
    pub journal: Journal,
    pub hermeticity: Checker,
    records: SharedRecords,
    invocations: Invocations,
    /// The hermeticity checks in the background.
    sampling: Option<JoinHandle<()>>,
}

impl SchedulerServices {
    /// Must be called within a Tokio runtime.
    pub async fn start(
        options: SchedulerOptions,
        parts: SchedulerParts,
    ) -> Result<Self, StartError> {
        let SchedulerParts { records, redis, events, invocations, .. } = &parts;
        let (records, invocations, events) = (records.clone(), invocations.clone(), events.clone());
        let redis = redis.clone();
        let journal = match &redis {
            None => Journal::start(records.clone(), &events, options.journal).await?,
            Some(redis) => {
                Journal::join(records.clone(), redis.clone(), &events, options.journal).await?
            }
        };
        let parts = parts.of_scheduler(&journal);
        let scheduler = match redis {
            None => Scheduler::start(options.scheduler, parts),
            Some(redis) => Scheduler::join(options.scheduler, parts, redis).await?,
        };
        let hermeticity = Checker::new(&scheduler, journal.clone(), records.clone());
        let sampling = hermeticity.sample(&events, options.hermeticity);
        Ok(Self { scheduler, journal, hermeticity, records, invocations, sampling })
    }

    /// Adds Execution, Operations, Workers, Admin and Hermeticity.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        // Its answers last as long as actions do: who waits for one runs.
        let execution = self.scheduler.execution_service();
        let checks = HermeticityService { checker: self.hermeticity.clone() };
        routes
            .add_service(Attributed::streams(execution, self.invocations.clone()))
            .add_service(self.scheduler.operations_service())
            .add_service(self.scheduler.workers_service())
            .add_service(self.scheduler.admin_service(self.records.clone()))
            .add_service(HermeticityServer::new(checks));
    }

    /// Checks nothing more in the background. What that has run is cancelled: nobody waits for it.
    pub fn stop_sampling(&self) {
        if let Some(sampling) = &self.sampling {
            sampling.abort();
        }
    }
}

impl SchedulerParts {
    fn of_scheduler(self, journal: &Journal) -> Parts {
        Parts {
            blobs: self.blobs,
            actions: self.actions,
            logs: self.logs,
            events: self.events,
            estimator: Arc::new(journal.clone()),
            shards: self.shards,
            access: self.access,
            invocations: self.invocations,
            quotas: self.quotas,
            records: self.records,
            reports: self.reports,
        }
    }
}
