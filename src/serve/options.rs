//! The options that a server is started with, and the errors for which it does not start.

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
    /// Host names under which clients may address the server besides that of its base URL.
    pub hosts: Vec<String>,
    /// Certificate and key of the address; `None`: it speaks plain HTTP.
    pub tls: Option<TlsOptions>,
    /// How callers prove who they are; `None`: nobody is asked.
    pub auth: Option<AuthOptions>,
    /// Whether everybody who reaches the server may also run actions for it.
    pub insecure: bool,
    /// How clients reach the server; `None`: `http://` or `https://` and where it listens.
    pub base_url: Option<String>,
    /// The host name of this machine.
    pub host_name: String,
    pub front_threads: usize,
    /// Bytes that requests under way may hold in memory.
    pub request_memory: u64,
    pub storage: StorageConfig,
    pub scheduler: SchedulerOptions,
    /// Options of the history of tests, and of the build events that it is made from.
    pub tests: CiOptions,
    /// Options of the verdicts on failed tests, and of the quarantine that follows from them.
    pub verdicts: VerdictsOptions,
    /// Records of executions, and what is made of them.
    pub releases: ReleaseOptions,
    /// Options of environments, to which releases are promoted.
    pub promotion: PromotionOptions,
    /// Targets, traffic and signals that rollouts may name.
    pub rollouts: RolloutOptions,
    /// Options of merge queues: the webhook that is told of them.
    pub merge_queue: MergeQueueOptions,
    /// Who asks merge queues by webhooks, and is told of them.
    pub forges: ForgeOptions,
    /// Programs and kinds of environments that stages of pipelines may use.
    pub stages: StagesOptions,
    /// Pipelines that the operator declares, and what is kept of runs.
    pub pipelines: PipelineOptions,
    /// The server's own worker; `None`: workers join from elsewhere.
    pub worker: Option<WorkerConfig>,
    /// Whether everybody may write action results where nobody is asked who calls.
    pub allow_cache_updates: bool,
    /// Instances whose HTTP cache keeps whatever tools put there.
    pub opaque: OpaqueInstances,
    /// The addresses that the Remote Asset service may download from, and its limits.
    pub fetch: FetchConfig,
    /// The largest blob that is taken, in bytes; 0: there is no limit.
    pub max_blob_size: u64,
    pub registry: RegistryOptions,
    /// How many bytes the store promises at most to keep for one caller, and for one instance; how
    /// long is the lease of `storage`.
    pub quotas: QuotaLimits,
    /// The collector that traces are sent to; `None`: there are no traces.
    pub otlp: Option<OtlpOptions>,
    /// How long running actions and open requests may take to finish at shutdown.
    pub drain: Duration,
}

impl ServeOptions {
    /// Whether only callers know how they reach the server.
    pub fn follows_callers(&self) -> bool {
        self.base_url.is_none() && self.listen.is_wildcard()
    }

    /// The base URL of links where no caller's name for the server is known; `address` is where it
    /// listens.
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
    /// The store cannot be opened. The message gives the error's reason without its kind, which
    /// says nothing at a start.
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
