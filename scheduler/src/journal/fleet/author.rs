//! What is in the stream goes into the records, once.

use std::collections::HashSet;

use kiln_cas::records::{MAX_BATCH, RecordsError, SharedRecords};
use kiln_net::causes::chain;
use kiln_protos::events::Execution;

use super::stream::{PAGE, Page};
use crate::journal::config::JournalConfig;
use crate::journal::durations::{Key, Learned};
use crate::journal::keys;
use crate::journal::memory::Memory;
use crate::journal::store::{Meta, Store, Unit, build_unit, decode, duration_unit, execution_unit};
use crate::journal::summary::ActiveBuild;

/// Most writes for one execution: itself and what leads to it, its build and what leads there.
const WRITES: usize = 7;
/// Most changed durations that are written with a page of executions; one write is for
/// the counts.
pub const MAX_CHANGES: usize = MAX_BATCH - 1 - PAGE * WRITES;

pub type Change = (Key, Option<Learned>);

/// The writer of the records, until anything fails: then it must be opened anew, because what
/// it knows of builds may be wrong.
pub struct Author {
    store: Store,
    /// Builds that are counted. Apart from what pages show: they show what is written.
    counted: Memory,
}

impl Author {
    pub async fn open(
        records: SharedRecords,
        config: &JournalConfig,
    ) -> Result<Self, RecordsError> {
        let store = Store::open_fenced(records).await?;
        Ok(Self { store, counted: Memory::new(config) })
    }

    /// The counts of what is in the records.
    pub fn meta(&self) -> Meta {
        self.store.meta
    }

    /// Writes a page, all of it or nothing, with at most [`MAX_CHANGES`] durations. Errors:
    /// `Conflict`, when another author has written.
    pub async fn write(&mut self, page: &Page, changes: &[Change]) -> Result<(), RecordsError> {
        let ended = page.executions.iter().map(|(_, execution)| &*execution.invocation_id);
        let begun = page.begun.iter().map(|(_, begun)| &*begun.invocation_id);
        for build in begun.chain(ended).collect::<HashSet<_>>() {
            self.resume_build(build).await?;
        }
        for (seq, begun) in &page.begun {
            self.counted.count_begun(begun, *seq);
        }
        let mut units: Vec<Unit> = Vec::new();
        for (seq, execution) in &page.executions {
            if self.count(execution, *seq) {
                units.push(execution_unit(*seq, execution));
            }
        }
        let builds = self.counted.builds.values().filter(|build| build.dirty);
        units.extend(builds.map(|build| build_unit(&build.summary, !build.stored)));
        units.extend(changes.iter().map(|((target, mnemonic), learned)| {
            duration_unit(target, mnemonic, learned.as_ref())
        }));
        self.store.write_up_to(page.last.unwrap_or_default(), units).await?;
        for build in self.counted.builds.values_mut() {
            build.dirty = false;
            build.stored = true;
        }
        self.counted.bound_builds();
        Ok(())
    }

    /// Removes what is above the limits, some of it at a time. `true`: there is more to do.
    pub async fn prune(&mut self, config: &JournalConfig) -> Result<bool, RecordsError> {
        let more = self.store.prune_executions(config.max_executions).await?;
        let pruned = self.store.prune_builds(config.max_builds).await?;
        self.counted.builds.retain(|_, build| !pruned.contains(&build.summary.first_seq));
        Ok(more || self.store.meta.builds > config.max_builds)
    }

    /// `false`: its build keeps no more of its cache hits.
    fn count(&mut self, execution: &Execution, seq: u64) -> bool {
        self.counted.is_kept(execution, seq)
    }

    /// Puts a build that is in the records back among those that are counted.
    async fn resume_build(&mut self, invocation: &str) -> Result<(), RecordsError> {
        if invocation.is_empty() || self.counted.builds.contains_key(invocation) {
            return Ok(());
        }
        let Some(record) = self.store.records.get(&keys::build(invocation)).await? else {
            return Ok(());
        };
        match decode(&record) {
            Ok(summary) => {
                let build = ActiveBuild::resumed(summary);
                self.counted.builds.insert(invocation.to_owned(), build);
            }
            Err(error) => tracing::warn!(error = chain(&error), "a build is counted from here on"),
        }
        Ok(())
    }
}
