//! What a server is started with, and why it does not start.

use std::io;
use std::time::Duration;

use kiln_cas::StoreError;
use kiln_cas::redis::RedisError;
use kiln_cas::services::{FetchConfig, OpaqueInstances, QuotaLimits};
use kiln_cas::stores::StorageConfig;
use kiln_ci::CiOptions;
use kiln_executor::{WorkerConfig, WorkerError};
use kiln_scheduler::{SchedulerOptions, StartError};

use super::forges::{ForgeOptions, ForgesError};
use super::merge_queue::MergeQueueOptions;
use super::pipelines::PipelineOptions;
use super::promotion::PromotionOptions;
use super::releases::ReleaseOptions;
use super::rollouts::RolloutOptions;
use super::stages::StagesOptions;
use super::verdicts::VerdictsOptions;
use super::webhook::WebhookError;
use crate::auth::{AuthError, AuthOptions};
use crate::data_dir::DataDirError;
use crate::front::{FrontLimits, Resolved, TlsError, TlsOptions};
use crate::registry::RegistryOptions;
use crate::telemetry::{EndpointError, OtlpOptions};

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
    /// What this machine is called.
    pub host_name: String,
    pub front_threads: usize,
    /// Bytes that requests under way may hold in memory.
    pub request_memory: u64,
    pub storage: StorageConfig,
    pub scheduler: SchedulerOptions,
    /// The history of tests, and build events.
    pub tests: CiOptions,
    /// What follows from failures.
    pub verdicts: VerdictsOptions,
    /// Records of executions, and what is made of them.
    pub releases: ReleaseOptions,
    /// Environments.
    pub promotion: PromotionOptions,
    /// What rollouts may name.
    pub rollouts: RolloutOptions,
    /// Who is told of merge queues.
    pub merge_queue: MergeQueueOptions,
    /// Who asks merge queues by webhooks, and is told of them.
    pub forges: ForgeOptions,
    /// What stages of pipelines may do.
    pub stages: StagesOptions,
    /// Pipelines that the operator declares, and what is kept of runs.
    pub pipelines: PipelineOptions,
    /// `None`: workers join from elsewhere.
    pub worker: Option<WorkerConfig>,
    /// Whether everybody may write action results where nobody is asked who calls.
    pub allow_cache_updates: bool,
    /// Instances whose HTTP cache keeps whatever tools put there.
    pub opaque: OpaqueInstances,
    /// What the Remote Asset service may download.
    pub fetch: FetchConfig,
    /// Bytes; 0: no limit.
    pub max_blob_size: u64,
    pub registry: RegistryOptions,
    /// What one caller, and one instance, may have the store promise; the lease is the storage's.
    pub quotas: QuotaLimits,
    /// Where traces go; `None`: nowhere.
    pub otlp: Option<OtlpOptions>,
    /// What running actions and open requests get at shutdown.
    pub drain: Duration,
}

impl ServeOptions {
    /// Whether only callers know how they reach the server.
    pub fn follows_callers(&self) -> bool {
        self.base_url.is_none() && self.listen.is_wildcard()
    }

    /// What links begin with where no caller's name for the server is known. `address`: where it listens.
    pub fn links_from(&self, scheme: &str, address: &str) -> String {
        let port = address.rsplit_once(':').map_or("", |(_, port)| port);
        match &self.base_url {
            Some(url) => url.clone(),
            None if self.listen.is_wildcard() => format!("{scheme}://{}:{port}", self.host_name),
            None => format!("{scheme}://{address}"),
        }
    }
}

/// Why a server, or the status server of a worker, does not start. The cause is the error's source.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}")]
    Listen { address: String, source: io::Error },
    #[error("cannot start serving")]
    Front(#[source] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Of the cause only the reason is said: of which kind a store's error is says nothing at a start.
    #[error("cannot open the storage: {}", .0.reason())]
    Storage(StoreError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Scheduler(#[from] StartError),
    #[error("cannot join the fleet")]
    Redis(#[from] RedisError),
    #[error("cannot start the worker")]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Telemetry(#[from] EndpointError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error(transparent)]
    Forges(#[from] ForgesError),
    #[error("no random bytes from the kernel")]
    Random(#[source] io::Error),
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error)
    }
}
