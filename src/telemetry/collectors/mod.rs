//! What `/metrics` shows. Figures that are kept elsewhere anyway are read when they are asked
//! for, and not counted a second time.

mod actions;
mod deployments;
mod executions;
mod families;
mod fleet;
mod forges;
mod hermeticity;
mod images;
mod inputs;
mod merge_queues;
mod previews;
mod process;
mod recordings;
mod requests;
mod rollouts;
mod scheduler;
mod security;
mod shared;
mod storage;
mod telemetry;
mod tests;
mod tools;
mod worker;

use std::fmt::{Debug, Error, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_cas::stores::StorageStats;
use kiln_ci::ephemeral::PreviewFigures;
use kiln_deploy::deployments::Fours;
use kiln_deploy::executions::ExecutionFigures;
use kiln_deploy::rollouts::control::RolloutFigures;
use kiln_executor::images::ImageStats;
use kiln_executor::input_root::InputStats;
use kiln_executor::persistent::ToolStats;
use kiln_scheduler::hermeticity::Checker;
use kiln_scheduler::journal::Journal;
use kiln_scheduler::{Scheduler, Snapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::observed::{AgentCounts, ForgesOf, MergeQueuesOf, RecordingsOf, Security};
use super::process::ProcessStats;
use super::redis::RedisTimes;
use super::requests::Requests;
use super::stages::Stages;
use super::test_figures::TestFigures;
use super::traces::SpanCounters;
use families::Families;

/// Everything that has figures.
pub struct Sources {
    pub storage: Arc<StorageStats>,
    pub queue: Latest,
    pub journal: Journal,
    pub hermeticity: Checker,
    pub recordings: RecordingsOf,
    pub executions: Arc<dyn Fn() -> ExecutionFigures + Send + Sync>,
    pub rollouts: Arc<dyn Fn() -> RolloutFigures + Send + Sync>,
    pub promotions: Arc<dyn Fn() -> Fours + Send + Sync>,
    pub previews: Arc<PreviewFigures>,
    pub agents: Arc<Mutex<AgentCounts>>,
    pub merge_queues: MergeQueuesOf,
    pub forges: ForgesOf,
    pub requests: Requests,
    pub security: Security,
    pub names_properties: bool,
    pub images: Arc<ImageStats>,
    pub tools: Arc<ToolStats>,
    pub inputs: Arc<InputStats>,
    pub stages: Arc<Stages>,
    pub spans: Arc<SpanCounters>,
    pub redis: Arc<RedisTimes>,
    pub tests: TestFigures,
}

/// The queue's figures as they were when the metrics were last asked for: the queue may be in
/// another process, and encoding cannot wait.
#[derive(Clone)]
pub struct Latest {
    scheduler: Scheduler,
    snapshot: Arc<Mutex<Option<Snapshot>>>,
}

impl Latest {
    pub fn new(scheduler: Scheduler) -> Self {
        Self { scheduler, snapshot: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Snapshot>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the queue for its figures. A queue that cannot be asked has none: old ones would
    /// mislead an autoscaler.
    pub async fn refresh(&self) {
        let snapshot = self.scheduler.snapshot().await;
        let snapshot =
            snapshot.inspect_err(|error| tracing::warn!(%error, "no figures of the queue"));
        *self.lock() = snapshot.ok();
    }

    fn get(&self) -> Option<Snapshot> {
        self.lock().clone()
    }
}

impl Debug for Sources {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sources")
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families = Families(encoder);
        let journal = self.journal.stats();
        requests::encode(&mut families, &self.requests)?;
        requests::encode_calls(&mut families, &self.requests)?;
        security::encode(&mut families, &self.security)?;
        actions::encode(&mut families, &journal, &self.stages)?;
        hermeticity::encode(&mut families, self.hermeticity.stats())?;
        recordings::encode(&mut families, (self.recordings)())?;
        executions::encode(&mut families, (self.executions)())?;
        let rolled = (self.rollouts)();
        deployments::encode(&mut families, &(self.promotions)(), &rolled.deployments)?;
        rollouts::encode(&mut families, &rolled)?;
        let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner).clone();
        fleet::encode(&mut families, &agents)?;
        merge_queues::encode(&mut families, &(self.merge_queues)())?;
        forges::encode(&mut families, &(self.forges)())?;
        previews::encode(&mut families, self.previews.read())?;
        if let Some(queue) = self.queue.get() {
            scheduler::encode(&mut families, &queue, self.names_properties)?;
        }
        let storage = self.storage.snapshot();
        storage::encode(&mut families, &storage)?;
        storage::encode_results(&mut families, &storage)?;
        if let Some(snapshot) = self.storage.shared() {
            shared::encode(&mut families, &snapshot, &self.redis)?;
        }
        inputs::encode(&mut families, &self.inputs)?;
        images::encode(&mut families, &self.images)?;
        tools::encode(&mut families, &self.tools)?;
        actions::encode_journal(&mut families, &journal)?;
        tests::encode(&mut families, &self.tests.get(), self.tests.quarantine())?;
        tests::encode_actions(&mut families, self.stages.tests())?;
        telemetry::encode(&mut families, &self.stages, &self.spans)?;
        process::encode(&mut families, &ProcessStats::read())
    }
}

/// The metrics that a member of a fleet shows besides those of a single server, before anything has
/// happened.
#[cfg(test)]
#[derive(Debug)]
pub struct OfAFleet;

#[cfg(test)]
impl Collector for OfAFleet {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let snapshot = kiln_cas::stores::SharedSnapshot::default();
        shared::encode(&mut Families(encoder), &snapshot, &RedisTimes::default())
    }
}
