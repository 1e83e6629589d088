//! `kiln serve`: the one place where the parts become a system. Each crate starts its own services
//! (`SchedulerServices`, `CasServices`, `CiServices`, `DeployServices`, `Worker`); here they are given to each other. A
//! file says for a crate what a server runs of it (`cas`, `scheduler`, `worker`, `ci`, `deploy`), and `parts` in which
//! order.

mod admission;
mod base;
mod builds;
mod cas;
mod ci;
mod common;
mod deploy;
mod entrance;
mod fleet;
mod forges;
mod history;
mod merge_queue;
mod metrics;
mod options;
mod parts;
mod pipelines;
mod promotion;
mod registry;
mod releases;
mod reports;
mod rollouts;
mod routes;
mod scheduler;
mod shards;
mod stages;
mod tables;
mod telling;
mod verdicts;
mod webhook;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use kiln_cas::stores::{SharedConfig, Storage};
use kiln_ci::CiServices;
use kiln_ci::verdicts::Verdicts;
use kiln_deploy::executions::Executions;
use kiln_deploy::fleet::Fleet;
use kiln_scheduler::SchedulerServices;
use tokio::task::JoinHandle;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::front::health::{Readiness, WHOLE_SERVER};
use crate::telemetry::Telemetry;

pub use admission::{Admission, join_all};
use base::Base;
use builds::Builds;
use entrance::{Entrance, Opened};
pub use forges::{ForgeOptions, read_forges};
pub use merge_queue::MergeQueueOptions;
pub use options::{ServeError, ServeOptions};
use parts::Parts;
pub use pipelines::{PipelineOptions, read_pipelines};
pub use promotion::{PromotionOptions, read_keys, read_pipeline};
pub use releases::ReleaseOptions;
pub use rollouts::{RolloutOptions, read_parts};
pub use stages::{StagesOptions, read_stage_parts};
pub use verdicts::VerdictsOptions;
pub use webhook::{Form, WebhookOptions};
use worker::{OwnWorker, Prepared};

/// The facts that a server tells about itself once it has started.
pub struct Ready {
    /// The address that it listens on, as `HOST:PORT`.
    pub address: String,
    pub base_url: String,
    /// Whether links begin, for each client, with what it calls the server; those for nobody in
    /// particular begin with `base_url`.
    pub follows_callers: bool,
    pub data_dir: PathBuf,
    /// Names the Redis and S3 where a fleet's blobs and queue are; `None`: all is in `data_dir`.
    pub shared: Option<String>,
    pub slots: u32,
    pub not_enforced: Vec<String>,
}

/// A running server.
pub struct Server {
    pub ready: Ready,
    storage: Storage,
    services: SchedulerServices,
    tests: CiServices,
    verdicts: Verdicts,
    /// Records of executions; `None`: they are not recorded.
    executions: Option<Executions>,
    telemetry: Telemetry,
    health: HealthReporter,
    readiness: Readiness,
    opened: Opened,
    /// Upkeep tasks of stores, releases, environments and rollouts, agents, merge queues, forges
    /// and pipelines. None of these tasks ends before it is aborted.
    by_themselves: Vec<JoinHandle<()>>,
    /// The service of agents, whose open questions end at shutdown.
    fleet: Fleet,
    worker: Option<OwnWorker>,
    drain: Duration,
}

impl Ready {
    fn new(
        options: &ServeOptions,
        address: String,
        base_url: String,
        worker: Option<&Prepared>,
    ) -> Self {
        Self {
            address,
            base_url,
            follows_callers: options.follows_callers(),
            shared: options.storage.shared.as_ref().map(SharedConfig::to_string),
            data_dir: options.storage.data_dir.clone(),
            slots: worker.map_or(0, Prepared::slots),
            not_enforced: worker.map_or_else(Vec::new, Prepared::not_enforced),
        }
    }
}

impl Server {
    pub async fn start(options: ServeOptions) -> Result<Self, ServeError> {
        // First of all: a port that is taken should not cost a recovery of the storage. Nobody
        // can connect yet: who looks whether the server is ready sees that it is not.
        let entrance = Entrance::reserve(&options)?;
        let address = entrance.address();
        let parts = Parts::start(&options, &entrance).await?;
        let readiness = Readiness::default();
        let router = routes::router(&parts, readiness.clone());
        let Parts { base, builds, fleet, requests, telemetry, cas, deploy, pipelines, .. } = parts;
        let Base { storage, worker, common, .. } = base;
        let Builds { services, ci, executions } = builds;
        let besides = [fleet.counting, ci.merging.working];
        let by_themselves = cas.upkeep.into_iter().chain(deploy.run()).chain(besides);
        let by_themselves = by_themselves.chain(ci.forges.tasks).chain(pipelines.tasks).collect();
        let opened = entrance.open(&options, &common.base_url, router, &requests).await?;
        let ready = Ready::new(&options, address, common.base_url, worker.as_ref());
        let told = (readiness.clone(), cas.services.health());
        let worker = worker.map(|it| OwnWorker::start(it, services.scheduler.clone(), told));
        readiness.set(true);
        Ok(Self {
            ready,
            storage,
            services,
            tests: ci.tests,
            verdicts: ci.verdicts,
            executions,
            telemetry,
            health: cas.services.health(),
            readiness,
            opened,
            by_themselves,
            fleet: fleet.fleet,
            worker,
            drain: options.drain,
        })
    }

    /// Ends in order: balancers are told to look elsewhere, no new work, running actions finish,
    /// connections close, then what is pending becomes durable.
    pub async fn shutdown(mut self) -> Result<(), ServeError> {
        self.readiness.set(false);
        self.fleet.close();
        self.health.set_service_status(WHOLE_SERVER, ServingStatus::NotServing).await;
        self.services.stop_sampling();
        self.verdicts.shutdown().await;
        let scheduler = &self.services.scheduler;
        if tokio::time::timeout(self.drain, scheduler.drain()).await.is_err() {
            tracing::warn!(drain = ?self.drain, "actions still run after the drain time");
        }
        // While the queue still listens: what its worker gives back runs elsewhere in the fleet.
        if let Some(worker) = self.worker {
            worker.stop().await;
        }
        scheduler.shutdown();
        // Who watches the state would keep a connection open for the whole drain time.
        self.health.clear_service_status(WHOLE_SERVER).await;
        // Builds that ran here have ended: what their clients still say is taken elsewhere.
        self.tests.end_streams();
        self.opened.close().await;
        self.by_themselves.iter().for_each(JoinHandle::abort);
        self.services.journal.shutdown().await;
        self.tests.shutdown().await;
        if let Some(executions) = &self.executions {
            executions.shutdown().await;
        }
        self.telemetry.shutdown().await;
        self.storage.close().await?;
        Ok(())
    }
}
