//! What metrics and traces are about.

use std::collections::BTreeMap;
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

/// Says what became of tests so far.
pub type RecordingsOf = Arc<dyn Fn() -> Recordings + Send + Sync>;

/// Figures of agents.
#[derive(Debug, Clone, Default)]
pub struct AgentCounts {
    /// How many are in each condition.
    pub conditions: BTreeMap<Condition, u64>,
    /// Bytes of releases that they were given here.
    pub given: Arc<AtomicU64>,
}

/// What became of changes in merge queues, and the queues as they were looked at last.
pub type MergeQueuesOf = Arc<dyn Fn() -> (Totals, Vec<QueueGauge>) + Send + Sync>;

/// What forges sent, and whether they are told.
pub type ForgesOf = Arc<dyn Fn() -> Vec<ForgeFigures> + Send + Sync>;

/// What the metrics and traces of a server are about.
pub struct Observed<'a> {
    pub events: &'a Events,
    pub storage: Arc<StorageStats>,
    pub scheduler: Scheduler,
    pub journal: Journal,
    pub hermeticity: Checker,
    /// What became of the tests that were executed here.
    pub recordings: RecordingsOf,
    /// What became of records of executions.
    pub executions: Arc<dyn Fn() -> ExecutionFigures + Send + Sync>,
    /// What became of rollouts.
    pub rollouts: Arc<dyn Fn() -> RolloutFigures + Send + Sync>,
    /// What was promoted to environments.
    pub promotions: Arc<dyn Fn() -> Fours + Send + Sync>,
    /// Environments of runs of pipelines.
    pub previews: Arc<PreviewFigures>,
    /// Agents, as they were counted last.
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
}

/// What the metrics of `kiln worker` are about.
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
    /// `None`: without TLS.
    pub certificate_end: Option<CertificateEnd>,
    /// Whether what the files say is in force.
    pub reloads: Reloads,
}
