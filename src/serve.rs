//! `kiln serve`: the one place where the parts become a system.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use kiln_cas::StoreError;
use kiln_cas::access::{Everybody, Right, SharedAuthorizer};
use kiln_cas::budget::Budget;
use kiln_cas::events::Events;
use kiln_cas::logs::LogStreams;
use kiln_cas::records::RecordsError;
use kiln_cas::redis::RedisError;
use kiln_cas::services::{
    Attributed, CasServices, FetchConfig, QuotaLimits, Quotas, ServicesConfig,
};
use kiln_cas::stores::{SharedConfig, Storage, StorageConfig};
use kiln_executor::session::SessionEnd;
use kiln_executor::{Worker, WorkerConfig, WorkerError};
use kiln_scheduler::hermeticity::{Checker, HermeticityConfig};
use kiln_scheduler::journal::{Journal, JournalConfig};
use kiln_scheduler::{Parts, Scheduler, SchedulerConfig};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::auth::access::RoleAuthorizer;
use crate::auth::failures::Failures;
use crate::auth::local::LocalAuthorizer;
use crate::auth::needs::{Door, Need};
use crate::auth::{Auth, AuthError, AuthOptions};
use crate::front::health::{self, Readiness};
use crate::front::{
    Front, FrontLimits, FrontParts, Resolved, Site, Tls, TlsError, TlsOptions, unknown,
};
use crate::reload::{self, Reload};
use crate::telemetry::redis::RedisTimes;
use crate::telemetry::requests::Requests;
use crate::telemetry::{EndpointError, Observed, OtlpOptions, Security, Telemetry};
use crate::web::{self, WebState};

/// What a reader of metrics needs.
const METRICS: Need = Need::Closable(Door::Metrics, Right::Read);
/// What grpc.health.v1 calls the server as a whole.
const WHOLE_SERVER: &str = "";

pub struct ServeOptions {
    pub listen: Resolved,
    pub limits: FrontLimits,
    /// What the server is called besides its base URL.
    pub hosts: Vec<String>,
    /// `None`: without TLS.
    pub tls: Option<TlsOptions>,
    /// `None`: nobody is asked who calls.
    pub auth: Option<AuthOptions>,
    /// Whether everybody who reaches the server may also run actions for it.
    pub insecure: bool,
    /// How clients reach the server; `None`: `http://` or `https://` and where it listens.
    pub base_url: Option<String>,
    pub front_threads: usize,
    /// Bytes that requests under way may hold in memory.
    pub request_memory: u64,
    pub storage: StorageConfig,
    pub scheduler: SchedulerConfig,
    pub journal: JournalConfig,
    /// Hermeticity checks in the background.
    pub hermeticity: HermeticityConfig,
    /// `None`: workers join from elsewhere.
    pub worker: Option<WorkerConfig>,
    /// Whether everybody may write action results where nobody is asked who calls.
    pub allow_cache_updates: bool,
    /// What the Remote Asset service may download.
    pub fetch: FetchConfig,
    /// Bytes; 0: no limit.
    pub max_blob_size: u64,
    /// What one caller, and one instance, may have the store promise; the lease is the storage's.
    pub quotas: QuotaLimits,
    /// Where traces go; `None`: nowhere.
    pub otlp: Option<OtlpOptions>,
    /// What running actions and open requests get at shutdown.
    pub drain: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: io::Error },
    #[error("cannot start serving: {0}")]
    Front(io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("cannot open the storage: {}", .0.reason())]
    Storage(#[from] StoreError),
    #[error("cannot join the queue: {0}")]
    Queue(#[from] kiln_scheduler::api::Unavailable),
    #[error("cannot join the fleet: {0}")]
    Redis(#[from] RedisError),
    #[error("cannot open the records: {0}")]
    Records(#[from] RecordsError),
    #[error("cannot start the worker: {0}")]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Telemetry(#[from] EndpointError),
    #[error("no random bytes from the kernel: {0}")]
    Random(io::Error),
}

/// What a server that has started tells about itself.
pub struct Ready {
    /// `HOST:PORT`
    pub address: String,
    pub base_url: String,
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
    journal: Journal,
    scheduler: Scheduler,
    telemetry: Telemetry,
    health: HealthReporter,
    readiness: Readiness,
    front: Front,
    /// Reads files and fetches keys again.
    background: Vec<JoinHandle<()>>,
    /// Hermeticity checks in the background.
    sampling: Option<JoinHandle<()>>,
    /// Removes records of evicted blobs.
    sweeping: JoinHandle<()>,
    worker: Option<JoinHandle<()>>,
    stop_worker: CancellationToken,
    stop_front: CancellationToken,
    drain: Duration,
}

impl Server {
    pub async fn start(mut options: ServeOptions) -> Result<Self, ServeError> {
        // First of all: a port that is taken should not cost a recovery of the storage. Nobody
        // can connect yet: who looks whether the server is ready sees that it is not.
        let listen = options.listen.listen().to_string();
        let refused = |error| ServeError::Listen { address: listen.clone(), error };
        let reserved = options.listen.reserve().map_err(refused)?;
        let address = reserved.authority();
        let redis_times = Arc::<RedisTimes>::default();
        if let Some(shared) = &mut options.storage.shared {
            shared.redis.observer = Some(redis_times.clone());
        }
        let shared = options.storage.shared.as_ref().map(SharedConfig::to_string);
        let failures = Arc::<Failures>::default();
        let (tls, listens) = (options.tls.as_ref(), &options.listen);
        let auth = authentication(options.auth.clone(), tls, listens, &failures)?;
        let access: SharedAuthorizer = match &auth {
            Some(_) => Arc::new(RoleAuthorizer(failures.clone())),
            None => anybody(&options),
        };
        let tls = options.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base_url = options.base_url.clone().unwrap_or_else(|| format!("{scheme}://{address}"));

        crate::data_dir::close(&options.storage.data_dir);
        let storage = Storage::open(options.storage.clone()).await?;
        let worker = match options.worker.clone() {
            Some(mut config) => {
                config.premises = Some(storage.premises());
                Some((config.slots, Worker::start(config, storage.blobs.clone()).await?))
            }
            None => None,
        };
        let events = Events::new();
        let logs = match &storage.redis {
            None => LogStreams::default(),
            Some(redis) => LogStreams::join(redis.clone()).await?,
        };
        let journal = journal(&storage, &events, options.journal.clone()).await?;
        let limits = QuotaLimits { lease: options.storage.lease, ..options.quotas };
        let quotas = Arc::new(Quotas::new(limits));
        let parts = Parts {
            blobs: storage.blobs.clone(),
            actions: storage.actions.clone(),
            logs: logs.clone(),
            events: events.clone(),
            estimator: Arc::new(journal.clone()),
            access: access.clone(),
            invocations: storage.invocations.clone(),
            quotas: quotas.clone(),
        };
        let config = SchedulerConfig { base_url: base_url.clone(), ..options.scheduler.clone() };
        let scheduler = match &storage.redis {
            None => Scheduler::start(config, parts),
            Some(redis) => Scheduler::join(config, parts, redis.clone()).await?,
        };
        let hermeticity = Checker::new(&scheduler, journal.clone(), storage.records.clone());
        let requests = Requests::new(options.front_threads, Budget::new(options.request_memory));
        let status = worker.as_ref().map(|(_, worker)| worker.status());
        let inputs = status.as_ref().map(|status| status.inputs.clone()).unwrap_or_default();
        let tools = status.as_ref().map(|status| status.tools.clone()).unwrap_or_default();
        let images = status.map(|status| status.images).unwrap_or_default();
        let observed = Observed {
            inputs,
            images,
            tools,
            events: &events,
            storage: storage.stats.clone(),
            scheduler: scheduler.clone(),
            journal: journal.clone(),
            hermeticity: hermeticity.clone(),
            requests: requests.clone(),
            security: Security { failures: failures.clone(), tls: tls.clone() },
            names_properties: auth.as_ref().is_none_or(|auth| !auth.opens(METRICS)),
            redis: redis_times,
        };
        let telemetry = Telemetry::start(observed, options.otlp.as_ref(), &base_url)?;
        let sampling = hermeticity.sample(&events, options.hermeticity);
        let cas = cas_services(&options, &storage, access, events, logs.clone(), quotas)?;
        storage.on_full(cas.give_up_uploads());
        let sweeping = tokio::spawn(cas.keep_swept(evictions(&storage)));
        let readiness = Readiness::default();
        let router = router(Routed {
            cas: &cas,
            storage: &storage,
            scheduler: &scheduler,
            journal: &journal,
            hermeticity: &hermeticity,
            telemetry: &telemetry,
            readiness: &readiness,
            logs: &logs,
            base_url: &base_url,
        });
        let stop_front = CancellationToken::new();
        let mut background = vec![reload::watch(reloaded(&tls, &auth), stop_front.clone())];
        if let Some(auth) = &auth {
            background.extend(auth.keep_keys(stop_front.clone()).await?);
        }
        let (requests, drain, limits) = (&requests, options.drain, options.limits);
        let site = Site::new(&base_url, options.hosts, tls.is_some());
        let parts = FrontParts { router, tls, auth, failures, site, limits, requests, drain };
        let listeners = reserved.listen().map_err(refused)?;
        let front = Front::start(listeners, parts, &stop_front).map_err(ServeError::Front)?;

        let stop_worker = CancellationToken::new();
        let slots = worker.as_ref().map_or(0, |(slots, _)| *slots);
        let not_enforced =
            worker.as_ref().map_or_else(Vec::new, |(_, worker)| worker.not_enforced());
        let worker =
            worker.map(|(_, worker)| embed(worker, scheduler.clone(), stop_worker.clone()));
        readiness.set(true);
        Ok(Self {
            ready: Ready {
                address,
                base_url,
                data_dir: options.storage.data_dir,
                shared,
                slots,
                not_enforced,
            },
            storage,
            journal,
            scheduler,
            telemetry,
            health: cas.health(),
            readiness,
            front,
            background,
            sampling,
            sweeping,
            worker,
            stop_worker,
            stop_front,
            drain: options.drain,
        })
    }

    /// Ends in order: balancers are told to look elsewhere, no new work, running actions finish,
    /// connections close, then what is pending becomes durable.
    pub async fn shutdown(mut self) -> Result<(), ServeError> {
        self.readiness.set(false);
        self.health.set_service_status(WHOLE_SERVER, ServingStatus::NotServing).await;
        if let Some(sampling) = &self.sampling {
            // What it has run is cancelled: nobody waits for it.
            sampling.abort();
        }
        if tokio::time::timeout(self.drain, self.scheduler.drain()).await.is_err() {
            tracing::warn!(drain = ?self.drain, "actions still run after the drain time");
        }
        // While the queue still listens: what its worker gives back runs elsewhere in the fleet.
        self.stop_worker.cancel();
        if let Some(worker) = self.worker
            && tokio::time::timeout(GIVE_BACK_WITHIN, worker).await.is_err()
        {
            tracing::warn!("the worker did not end: what it runs is lost");
        }
        self.scheduler.shutdown();
        // Who watches the state would keep a connection open for the whole drain time.
        self.health.clear_service_status(WHOLE_SERVER).await;
        self.stop_front.cancel();
        self.front.join().await;
        for task in self.background {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task that keeps files or keys current failed");
            }
        }
        self.sweeping.abort();
        self.journal.shutdown().await;
        self.telemetry.shutdown().await;
        self.storage.close().await?;
        Ok(())
    }
}

/// A fleet's blobs are collected by any of its frontends: each looks after their records so often.
const SWEEP_SHARED: Duration = Duration::from_secs(3600);

/// Changes whenever blobs may have gone.
fn evictions(storage: &Storage) -> impl Fn() -> u64 + Send + 'static {
    let (stats, started) = (storage.stats.clone(), Instant::now());
    move || match stats.shared_blobs() {
        None => stats.evicted_blobs(),
        Some(_) => started.elapsed().as_secs() / SWEEP_SHARED.as_secs(),
    }
}

pub fn authentication(
    auth: Option<AuthOptions>,
    tls: Option<&TlsOptions>,
    listen: &Resolved,
    failures: &Arc<Failures>,
) -> Result<Option<Arc<Auth>>, ServeError> {
    let Some(auth) = auth else { return Ok(None) };
    if tls.is_none() && !listen.is_loopback() {
        tracing::warn!("without TLS, tokens can be read on their way: set tls.cert and tls.key");
    }
    let secret = secret().map_err(ServeError::Random)?;
    let certificates = tls.is_some_and(|tls| tls.client_ca.is_some());
    Ok(Some(Arc::new(Auth::new(auth, certificates, secret, failures.clone())?)))
}

/// Where nobody is asked who calls.
fn anybody(options: &ServeOptions) -> SharedAuthorizer {
    let everybody = Everybody { write_results: options.allow_cache_updates };
    match options.listen.is_loopback() && !options.insecure {
        true => Arc::new(LocalAuthorizer::new(everybody)),
        false => Arc::new(everybody),
    }
}

pub fn reloaded(tls: &Option<Arc<Tls>>, auth: &Option<Arc<Auth>>) -> Vec<Arc<dyn Reload>> {
    let tls = tls.iter().map(|tls| tls.clone() as Arc<dyn Reload>);
    tls.chain(auth.iter().map(|auth| auth.clone() as Arc<dyn Reload>)).collect()
}

/// The journal of this process, or its part in that of the fleet.
async fn journal(
    storage: &Storage,
    events: &Events,
    config: JournalConfig,
) -> Result<Journal, RecordsError> {
    let records = storage.records.clone();
    match &storage.redis {
        None => Journal::start(records, events, config).await,
        Some(redis) => Journal::join(records, redis.clone(), events, config).await,
    }
}

/// How long the worker may take to stop what still runs after the drain time, and to say so.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);
/// A scheduler that ends a session in its own process may have lost its Redis.
const NEXT_SESSION: Duration = Duration::from_millis(200);

/// Runs the worker of this process; a session that ends is followed by another.
fn embed(mut worker: Worker, scheduler: Scheduler, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        while !stop.is_cancelled() {
            let (outgoing, incoming) = scheduler.open_session();
            if worker.session(incoming, outgoing, &stop).await == SessionEnd::Lost {
                worker.away(NEXT_SESSION, &stop).await;
            }
        }
        worker.stop().await;
    })
}

/// What the routes lead to.
struct Routed<'a> {
    cas: &'a CasServices,
    storage: &'a Storage,
    scheduler: &'a Scheduler,
    journal: &'a Journal,
    hermeticity: &'a Checker,
    telemetry: &'a Telemetry,
    readiness: &'a Readiness,
    logs: &'a LogStreams,
    base_url: &'a str,
}

fn cas_services(
    options: &ServeOptions,
    storage: &Storage,
    access: SharedAuthorizer,
    events: Events,
    logs: LogStreams,
    quotas: Arc<Quotas>,
) -> Result<CasServices, ServeError> {
    Ok(CasServices::new(ServicesConfig {
        blobs: storage.blobs.clone(),
        actions: storage.actions.clone(),
        records: storage.records.clone(),
        logs,
        events,
        exec_enabled: true,
        access,
        invocations: storage.invocations.clone(),
        fetch: options.fetch.clone(),
        max_blob_size: options.max_blob_size,
        quotas,
        secret: secret().map_err(ServeError::Random)?,
    }))
}

fn router(parts: Routed<'_>) -> Router {
    let Routed { cas, storage, scheduler, journal, hermeticity, telemetry, .. } = parts;
    let Routed { readiness, logs, base_url, .. } = parts;
    let mut grpc = tonic::service::Routes::builder();
    cas.add_to(&mut grpc);
    // Its answers last as long as actions do: who waits for one runs.
    let execution = scheduler.execution_service();
    grpc.add_service(Attributed::streams(execution, storage.invocations.clone()))
        .add_service(scheduler.operations_service())
        .add_service(scheduler.workers_service())
        .add_service(hermeticity.service());
    let stats = storage.stats.clone();
    let pages = web::router(WebState {
        blobs: storage.blobs.clone(),
        actions: storage.actions.clone(),
        logs: logs.clone(),
        journal: journal.clone(),
        hermeticity: hermeticity.clone(),
        queue: Arc::new(scheduler.clone()),
        storage: Arc::new(move || stats.snapshot()),
        shared: storage.stats.shared_blobs().map(|blobs| Arc::new(blobs) as _),
        base_url: base_url.into(),
        version: env!("CARGO_PKG_VERSION"),
        started: SystemTime::now(),
    });
    // The HTTP cache matches paths of any depth, so it comes after all fixed ones.
    let grpc = grpc.routes().prepare().into_axum_router();
    grpc.merge(pages)
        .merge(telemetry.routes())
        .merge(health::routes({
            let readiness = readiness.clone();
            move || readiness.check()
        }))
        .fallback_service(cas.http_cache().fallback(unknown::of_server))
}

fn secret() -> io::Result<[u8; 32]> {
    use std::io::Read;
    let mut secret = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(secret)
}
