//! What `/metrics` shows. Figures that are kept elsewhere anyway are read when they are asked
//! for, and not counted a second time.

mod actions;
mod families;
mod process;
mod requests;
mod scheduler;
mod storage;
mod telemetry;

use std::fmt::{Debug, Error, Formatter};
use std::sync::Arc;

use kiln_cas::stores::StorageStats;
use kiln_scheduler::Scheduler;
use kiln_scheduler::journal::Journal;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::process::ProcessStats;
use super::requests::Requests;
use super::stages::Stages;
use super::traces::SpanCounters;
use families::Families;

/// Everything that has figures.
pub struct Sources {
    pub storage: Arc<StorageStats>,
    pub scheduler: Scheduler,
    pub journal: Journal,
    pub requests: Requests,
    pub stages: Arc<Stages>,
    pub spans: Arc<SpanCounters>,
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
        actions::encode(&mut families, &journal, &self.stages)?;
        scheduler::encode(&mut families, &self.scheduler.snapshot())?;
        storage::encode(&mut families, &self.storage.snapshot())?;
        actions::encode_journal(&mut families, &journal)?;
        telemetry::encode(&mut families, &self.stages, &self.spans)?;
        process::encode(&mut families, &ProcessStats::read())
    }
}
