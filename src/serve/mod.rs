//! `kiln serve`: the one place where the parts become a system. Each crate starts its own services
//! (`SchedulerServices`, `CasServices`, `CiServices`, `Worker`; those of `kiln_deploy` in `deploy`); here
//! they are given to each other.

mod admission;
mod common;
mod deploy;
mod fleet;
mod forges;
mod history;
mod merge_queue;
mod options;
mod pipelines;
mod promotion;
mod registry;
mod releases;
mod reports;
mod rollouts;
mod routes;
mod services;
mod shards;
mod stages;
mod tables;
mod verdicts;
mod webhook;
mod worker;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kiln_cas::budget::Budget;
use kiln_cas::stores::{SharedConfig, Storage};
use kiln_ci::CiServices;
use kiln_ci::ephemeral::PreviewFigures;
use kiln_ci::history::Tap;
use kiln_ci::verdicts::{Inbox, Verdicts};
use kiln_deploy::executions::Executions;
use kiln_deploy::fleet::Fleet;
use kiln_deploy::promotion::Keeper;
use kiln_deploy::rollouts::control::Control;
use kiln_net::panics::spawn_resumed;
use kiln_scheduler::SchedulerServices;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::front::health::{Readiness, WHOLE_SERVER};
use crate::front::{Front, FrontParts, Site};
use crate::telemetry::redis::RedisTimes;
use crate::telemetry::requests::Requests;
use crate::telemetry::{Observed, Telemetry};
use kiln_web::Kept;

pub use admission::{Admission, join_all};
use common::Common;
pub use forges::{ForgeOptions, read_forges};
pub use merge_queue::MergeQueueOptions;
pub use options::{ServeError, ServeOptions};
pub use pipelines::{PipelineOptions, read_pipelines};
pub use promotion::{PromotionOptions, read_keys, read_pipeline};
pub use releases::ReleaseOptions;
pub use rollouts::{RolloutOptions, read_parts};
use routes::Parts;
use services::{cas, evictions, figures, recordings, scheduler};
pub use stages::{StagesOptions, read_stage_parts};
pub use verdicts::VerdictsOptions;
pub use webhook::{Form, WebhookOptions};
use worker::OwnWorker;

/// What a server that has started tells about itself.
pub struct Ready {
    /// `HOST:PORT`
    pub address: String,
    pub base_url: String,
    /// Links are for each client what it calls the server, and begin with `base_url` elsewhere.
    pub follows_callers: bool,
    pub data_dir: PathBuf,
    /// Where a fleet's blobs and queue are; `None`: all is in `data_dir`.
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
    /// `None`: executions are not recorded.
    executions: Option<Executions>,
    telemetry: Telemetry,
    health: HealthReporter,
    readiness: Readiness,
    front: Front,
    /// Reads files and fetches keys again.
    background: Vec<JoinHandle<()>>,
    /// Removes records of evicted blobs.
    sweeping: JoinHandle<()>,
    /// Makes the promises of pinned blobs anew.
    pinning: JoinHandle<()>,
    /// Lets go of what no tag of the registry needs.
    tidying: Option<JoinHandle<()>>,
    /// What releases, environments and rollouts, agents, merge queues, forges and pipelines do by themselves.
    by_themselves: Vec<JoinHandle<()>>,
    /// Agents whose questions are open.
    fleet: Fleet,
    worker: Option<OwnWorker>,
    stop_front: CancellationToken,
    drain: Duration,
}

impl Server {
    pub async fn start(mut options: ServeOptions) -> Result<Self, ServeError> {
        // First of all: a port that is taken should not cost a recovery of the storage. Nobody
        // can connect yet: who looks whether the server is ready sees that it is not.
        let listen = options.listen.listen().to_string();
        let refused = |source| ServeError::Listen { address: listen.clone(), source };
        let reserved = options.listen.reserve().map_err(refused)?;
        let address = reserved.authority();
        let redis_times = Arc::<RedisTimes>::default();
        if let Some(shared) = &mut options.storage.shared {
            shared.redis.observer = Some(redis_times.clone());
        }
        let admission =
            Admission::load(&options.listen, options.tls.clone(), options.auth.clone())?;
        let base_url = options.links_from(admission.scheme(), &address);
        let follows_callers = options.follows_callers();
        crate::data_dir::close(&options.storage.data_dir)?;
        let storage = Storage::open(options.storage.clone()).await?;
        let worker = worker::prepare(options.worker.clone(), &storage).await?;
        let common = Common::new(&options, &admission, &storage, base_url).await?;
        // It subscribes before anything can be executed.
        let inbox = Inbox::default();
        let tap = options.verdicts.on.then(|| Arc::new(inbox.clone()) as Arc<dyn Tap>);
        let tests = history::start(&options, &storage, &common, tap);
        let executions = releases::start_records(&options.releases, &storage, &common);
        let services = scheduler(&options, &storage, &common, &tests).await?;
        let judged = (&tests, inbox);
        let on = &options.verdicts;
        let verdicts = verdicts::start(on, &storage, &services.scheduler, judged, &common)?;
        let fleet = fleet::start(&storage);
        let merging = &options.merge_queue;
        let merging = merge_queue::start(merging, &storage, &tests, &common.base_url)?;
        let forges = forges::start(&options.forges, &storage, (&tests, &merging.queues), &common)?;
        let requests = Requests::new(options.front_threads, Budget::new(options.request_memory));
        let status = worker.as_ref().map(|worker| worker.status());
        // Metrics begin before what they are about.
        let rolled = Arc::<OnceLock<Arc<Control>>>::default();
        let placed = Arc::<OnceLock<Arc<Keeper>>>::default();
        let brought_up = Arc::<PreviewFigures>::default();
        let telemetry = Telemetry::start(
            Observed {
                inputs: status.as_ref().map(|it| it.inputs.clone()).unwrap_or_default(),
                tools: status.as_ref().map(|it| it.tools.clone()).unwrap_or_default(),
                images: status.map(|status| status.images).unwrap_or_default(),
                events: &common.events,
                storage: storage.stats.clone(),
                scheduler: services.scheduler.clone(),
                journal: services.journal.clone(),
                hermeticity: services.hermeticity.clone(),
                recordings: recordings(&tests),
                executions: figures(executions.clone()),
                rollouts: rollouts::figures(rolled.clone()),
                promotions: promotion::figures(placed.clone()),
                previews: brought_up.clone(),
                agents: fleet.figures.clone(),
                merge_queues: merging.figures(),
                forges: forges.figures(),
                requests: requests.clone(),
                security: admission.security(),
                names_properties: admission.metrics_may_name_properties(),
                redis: redis_times,
                history: tests.history.clone(),
            },
            options.otlp.as_ref(),
            &common.base_url,
        )?;
        let cas = cas(&options, &storage, &common)?;
        storage.on_full(cas.give_up_uploads());
        let sweeping = tokio::spawn(cas.keep_swept(&registry::REMEMBERED, evictions(&storage)));
        let registry = registry::state(&options, &storage, &common, admission.auth.is_some());
        let tidying = registry.clone().map(|it| {
            spawn_resumed("tidying the registry", move || it.registry.clone().keep_tidy())
        });
        let pins = storage.pins.clone();
        let pinning = spawn_resumed("renewing pins", move || pins.clone().keep_renewed());
        let kept = Kept::charged(requests.budget().share(None));
        let deploy = deploy::start(&deploy::Below {
            options: &options,
            storage: &storage,
            common: &common,
            tests: &tests,
            verdicts: &verdicts,
            kept: &kept,
            agents: fleet.targets(),
        })?;
        if let Some(keeper) = &deploy.keeper {
            placed.get_or_init(|| keeper.clone());
        }
        rolled.get_or_init(|| deploy.control.clone());
        let actions = &options.scheduler.scheduler;
        let stages = stages::start(
            &options.stages,
            &stages::Below {
                storage: &storage,
                services: &services,
                logs: &common.logs,
                tests: &tests,
                verdicts: &verdicts,
                executions: executions.as_ref(),
                releases: &deploy.catalog,
                promotion: deploy.keeper.as_ref(),
                rollouts: &deploy.control,
                kept: &kept,
                functions: actions.default_functions.clone(),
                longest: actions.max_timeout,
                name: &common.name,
                base_url: &common.base_url,
                figures: brought_up,
            },
        )?;
        let (previews, tidied) = (stages.previews.clone(), stages.clone());
        let forgetting = spawn_resumed("forgetting old stages", move || tidied.clone().keep_tidy());
        let swept = previews.clone();
        let sweeping_previews =
            spawn_resumed("taking down environments", move || swept.clone().keep_swept());
        let url = &common.base_url;
        let pipelines = pipelines::start(&options.pipelines, &storage, &tests, stages, url);
        let readiness = Readiness::default();
        let router = routes::router(
            &cas,
            &storage,
            Parts {
                services: &services,
                tests: &tests,
                verdicts: &verdicts,
                releases: &deploy.catalog,
                collector: &deploy.collector,
                checkpoints: &deploy.checkpoints,
                promotion: deploy.keeper.as_ref(),
                rollouts: &deploy.control,
                pipelines: &pipelines.control,
                previews: &previews,
                executions: executions.as_ref(),
                fleet: &fleet.fleet,
                merge_queues: &merging.queues,
                kept,
            },
            &common,
            &telemetry,
            readiness.clone(),
        );
        let router = routes::with(router, registry, forges.intake);
        let besides = [forgetting, sweeping_previews, fleet.counting, merging.working];
        let by_themselves = deploy.run().into_iter().chain(besides);
        let by_themselves = by_themselves.chain(forges.tasks).chain(pipelines.tasks).collect();
        let stop_front = CancellationToken::new();
        let background = admission.keep_current(&stop_front).await?;
        let parts = FrontParts {
            router,
            site: Site::new(&common.base_url, options.hosts, admission.tls.is_some())
                .following_callers(follows_callers),
            tls: admission.tls,
            auth: admission.auth,
            failures: admission.failures,
            limits: options.limits,
            requests: &requests,
            drain: options.drain,
        };
        let listeners = reserved.listen().map_err(refused)?;
        let front = Front::start(listeners, parts, &stop_front).map_err(ServeError::Front)?;
        let ready = Ready {
            address,
            base_url: common.base_url,
            follows_callers,
            shared: options.storage.shared.as_ref().map(SharedConfig::to_string),
            data_dir: options.storage.data_dir,
            slots: worker.as_ref().map_or(0, |worker| worker.slots()),
            not_enforced: worker.as_ref().map_or_else(Vec::new, |worker| worker.not_enforced()),
        };
        let told = (readiness.clone(), cas.health());
        let worker =
            worker.map(|worker| OwnWorker::start(worker, services.scheduler.clone(), told));
        readiness.set(true);
        Ok(Self {
            ready,
            storage,
            services,
            tests,
            verdicts,
            executions,
            telemetry,
            health: cas.health(),
            readiness,
            front,
            background,
            sweeping,
            pinning,
            tidying,
            by_themselves,
            fleet: fleet.fleet,
            worker,
            stop_front,
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
        self.stop_front.cancel();
        self.front.join().await;
        join_all(self.background).await;
        self.sweeping.abort();
        self.pinning.abort();
        self.tidying.iter().for_each(JoinHandle::abort);
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
