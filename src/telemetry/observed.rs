//! The sources that metrics and traces are read from.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use kiln_cas::events::Events;
use kiln_cas::stores::{StorageStats, Transfers};
use kiln_ci::Recordings;
use kiln_ci::ephemeral::PreviewFigures;
use kiln_ci::forges::ForgeFigures;
use kiln_ci::history::History;
use kiln_ci::queue::hosted::{QueueGauge, Totals};
use kiln_deploy::deployments::Fours;
use kiln_deploy::executions::ExecutionFigures;
use kiln_deploy::fleet::Condition;
use kiln_deploy::rollouts::control::RolloutFigures;
use kiln_executor::WorkerStatus;
use kiln_executor::images::ImageStats;
use kiln_executor::input_root::InputStats;
use kiln_executor::persistent::ToolStats;
use kiln_scheduler::Scheduler;
use kiln_scheduler::hermeticity::Checker;
use kiln_scheduler::journal::Journal;

use super::redis::RedisTimes;
use super::requests::Requests;
use super::stages::Stages;
use crate::auth::failures::Failures;
use kiln_net::reload::Reloads;

/// Returns the counts of what became of executed tests on their way into the history.
pub type RecordingsOf = Arc<dyn Fn() -> Recordings + Send + Sync>;

/// Counts of the agents of a fleet.
#[derive(Debug, Clone, Default)]
pub struct AgentCounts {
    /// The number of agents in each condition.
    pub conditions: BTreeMap<Condition, u64>,
    /// Bytes of releases that this process has sent to agents.
    pub given: Arc<AtomicU64>,
}

/// The quarantines of all instances.
#[derive(Debug, Clone, Copy, Default)]
pub struct InQuarantine {
    pub tests: u64,
    /// The number of instances in which more tests are in quarantine than may be: gates mask nothing there.
    pub over_cap: u64,
}

/// Looks at what is in quarantine now; nothing where that cannot be read.
pub type Looking = Pin<Box<dyn Future<Output = Option<InQuarantine>> + Send>>;

/// Begins to look at what is in quarantine.
pub type QuarantineOf = Arc<dyn Fn() -> Looking + Send + Sync>;

/// Returns what became of changes in merge queues, in sum, and a gauge for each queue as it was
/// looked at last.
pub type MergeQueuesOf = Arc<dyn Fn() -> (Totals, Vec<QueueGauge>) + Send + Sync>;

/// Returns for each forge what it has sent, and whether it can be told results.
pub type ForgesOf = Arc<dyn Fn() -> Vec<ForgeFigures> + Send + Sync>;

/// The sources that a server's metrics and traces are read from.
pub struct Observed<'a> {
    pub events: &'a Events,
    pub storage: Arc<StorageStats>,
    pub scheduler: Scheduler,
    pub journal: Journal,
    pub hermeticity: Checker,
    /// Counts of what became of the tests that this server executed, on their way into the history.
    pub recordings: RecordingsOf,
    /// Counts of what became of records of executions.
    pub executions: Arc<dyn Fn() -> ExecutionFigures + Send + Sync>,
    /// Counts of what became of rollouts.
    pub rollouts: Arc<dyn Fn() -> RolloutFigures + Send + Sync>,
    /// Counts of what was promoted to environments.
    pub promotions: Arc<dyn Fn() -> Fours + Send + Sync>,
    /// Counts of the environments that runs of pipelines have brought up.
    pub previews: Arc<PreviewFigures>,
    /// Counts of agents, as they were last made.
    pub agents: Arc<Mutex<AgentCounts>>,
    pub merge_queues: MergeQueuesOf,
    pub forges: ForgesOf,
    pub requests: Requests,
    pub security: Security,
    /// Whether metrics may name platform properties that clients made up: who reads metrics may then
    /// read of builds as well.
    pub names_properties: bool,
    /// Times of calls to Redis, where there is one.
    pub redis: Arc<RedisTimes>,
    /// Figures of the workers in this process: images, tools and input roots.
    pub images: Arc<ImageStats>,
    pub tools: Arc<ToolStats>,
    pub inputs: Arc<InputStats>,
    pub history: Arc<History>,
    pub quarantine: QuarantineOf,
}

/// The sources that the metrics of `kiln worker` are read from.
pub struct ObservedWorker {
    pub worker: WorkerStatus,
    /// Figures of the copies of blobs on the worker's disk.
    pub storage: Arc<StorageStats>,
    pub transfers: Arc<Transfers>,
    pub stages: Arc<Stages>,
    pub requests: Requests,
    pub security: Security,
}

/// Says when the server's certificate ends, in seconds since the Unix epoch.
pub type CertificateEnd = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Authentication and TLS, as metrics show them.
#[derive(Default)]
pub struct Security {
    pub failures: Arc<Failures>,
    /// Says when the server's certificate ends; `None`: the server does not speak TLS.
    pub certificate_end: Option<CertificateEnd>,
    /// Records whether the changed files (certificates, access files, keys) could be read and are
    /// in force.
    pub reloads: Reloads,
}
