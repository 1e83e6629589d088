//! What pages and the API show, and where they have it from.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use http::request::Parts;
use kiln_cas::access::SharedAuthorizer;
use kiln_cas::logs::LogStreams;
use kiln_cas::stores::StorageSnapshot;
use kiln_cas::stores::audit::AuditLog;
use kiln_cas::stores::indexed::Indexed;
use kiln_cas::{SharedActionCache, SharedBlobStore, StoreError};
use kiln_ci::CiServices;
use kiln_ci::plans::Plans;
use kiln_ci::queue::hosted::Queues;
use kiln_ci::verdicts::Verdicts;
use kiln_deploy::audit::Checkpoints;
use kiln_deploy::catalog::Catalog;
use kiln_deploy::executions::Executions;
use kiln_deploy::fleet::Fleet;
use kiln_deploy::promotion::Keeper;
use kiln_deploy::retention::Collector;
use kiln_deploy::rollouts::control::Control;
use kiln_deploy::swarm::pieces::Cutting;
use kiln_scheduler::api::Unavailable;
use kiln_scheduler::hermeticity::Checker;
use kiln_scheduler::journal::Journal;
use kiln_scheduler::{BaseUrl, Scheduler, Snapshot};

use super::json;
use super::kept::Kept;
use kiln_net::reload::Reloads;

/// The scheduler as pages see it.
#[async_trait]
pub trait QueueView: Send + Sync + 'static {
    async fn snapshot(&self) -> Result<Snapshot, Unavailable>;
}

#[async_trait]
impl QueueView for Scheduler {
    async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        Self::snapshot(self).await
    }
}

/// What a fleet shares, as pages see it.
#[async_trait]
pub trait SharedView: Send + Sync + 'static {
    async fn usage(&self) -> Result<json::Shared, StoreError>;
}

#[async_trait]
impl SharedView for Indexed {
    async fn usage(&self) -> Result<json::Shared, StoreError> {
        let usage = Indexed::usage(self).await?;
        Ok(json::Shared {
            blobs: usage.blobs,
            bytes: usage.bytes,
            pending: usage.pending,
            index_incomplete: self.stats().index_incomplete,
        })
    }
}

/// What the pages show.
#[derive(Clone)]
pub struct WebState {
    pub blobs: SharedBlobStore,
    pub actions: SharedActionCache,
    /// What running actions print.
    pub logs: LogStreams,
    pub journal: Journal,
    pub hermeticity: Checker,
    /// The history of tests, and streams of build events.
    pub tests: CiServices,
    /// What pages keep between requests.
    pub kept: Kept,
    /// The quarantine, and answers of gates.
    pub verdicts: Verdicts,
    pub releases: Catalog,
    /// Removes releases that nothing keeps.
    pub collector: Collector,
    /// Signed checkpoints of the audit log.
    pub checkpoints: Checkpoints,
    /// `None`: there are no environments.
    pub promotion: Option<Arc<Keeper>>,
    pub rollouts: Arc<Control>,
    pub pipelines: Arc<kiln_ci::pipelines::control::Control>,
    /// Environments that are brought up for runs.
    pub previews: Arc<kiln_ci::ephemeral::Previews>,
    /// The hosts that run services.
    pub fleet: Fleet,
    /// Cuts releases into pieces, which agents give each other.
    pub pieces: Cutting,
    /// `None`: executions are not recorded.
    pub executions: Option<Executions>,
    /// Queues in which changes wait until they land.
    pub merge_queues: Queues,
    /// Plans that runners work off.
    pub plans: Plans,
    /// Who may do what in which instance.
    pub access: SharedAuthorizer,
    pub audit: Arc<AuditLog>,
    pub queue: Arc<dyn QueueView>,
    pub storage: Arc<dyn Fn() -> StorageSnapshot + Send + Sync>,
    /// `None`: nothing is shared with other servers.
    pub shared: Option<Arc<dyn SharedView>>,
    /// How clients reach this server, without a slash at the end: `http://host:8980`. For those that say how
    /// they do, [`LinksFrom`].
    pub base_url: Arc<str>,
    /// Whether files of certificates and access are in force.
    pub reloads: Reloads,
    pub version: &'static str,
    pub started: SystemTime,
}

/// What links for whoever asks begin with.
pub struct LinksFrom(pub Arc<str>);

impl FromRequestParts<WebState> for LinksFrom {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &WebState) -> Result<Self, Infallible> {
        let called = parts.extensions.get::<BaseUrl>().map(|url| url.0.clone());
        Ok(Self(called.unwrap_or_else(|| state.base_url.clone())))
    }
}
