//! What the journal holds in memory: executions that are not written yet, builds that still
//! grow, and counters.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use kiln_protos::events::execution::Origin;
use kiln_protos::events::{Begun, Execution, Timeline};

use super::config::JournalConfig;
use super::durations::Durations;
use super::limits::{bounded, bounded_begun};
use super::summary::{ActiveBuild, Counts};

/// Executions that wait to be written; when records fail for long, the oldest are dropped.
pub const MAX_PENDING: usize = 8192;
/// Builds kept in memory; the ones that were not touched for longest go first.
pub const MAX_ACTIVE_BUILDS: usize = 256;

/// Runs of which the times are kept in memory, for charts.
pub const MAX_RECENT_RUNS: usize = 5000;

/// An execution and its place in the journal.
#[derive(Debug, Clone)]
pub struct JournalEntry {
    pub seq: u64,
    pub execution: Arc<Execution>,
}

pub(super) struct Memory {
    pub pending: BTreeMap<u64, Arc<Execution>>,
    pub builds: HashMap<String, ActiveBuild>,
    pub durations: Durations,
    /// Times of the last runs by workers, newest at the back.
    pub runs: VecDeque<Timeline>,
    pub last_seq: u64,
    /// Counts of all requests since the process started.
    pub counts: Counts,
    pub lost_events: u64,
    pub dropped: u64,
    pub failed_writes: u64,
    /// Executions that a fleet does not know of yet.
    pub unsent: usize,
    max_stored_hits: u64,
}

impl Memory {
    pub fn new(config: &JournalConfig) -> Self {
        Self {
            pending: BTreeMap::new(),
            builds: HashMap::new(),
            durations: Durations::new(config.max_durations),
            runs: VecDeque::new(),
            last_seq: 0,
            counts: Counts::default(),
            lost_events: 0,
            dropped: 0,
            failed_writes: 0,
            unsent: 0,
            max_stored_hits: config.max_stored_hits_per_build,
        }
    }

    /// Takes an execution in. A build that exists in records must have been put into
    /// [`Self::builds`] before. `now`: nanoseconds since the Unix epoch.
    pub fn add(&mut self, execution: &Arc<Execution>, now: u64) {
        let execution = match bounded(execution) {
            Cow::Borrowed(_) => execution.clone(),
            Cow::Owned(bounded) => Arc::new(bounded),
        };
        let seq = self.next_seq(now);
        self.counts.add(&execution);
        self.durations.observe(&execution, seq);
        self.remember_run(&execution);
        if self.is_kept(&execution, seq) {
            self.pending.insert(seq, execution);
            self.bound_pending();
        }
    }

    /// Takes in that requests have begun, under the same condition.
    pub fn begin(&mut self, begun: &Begun, now: u64) {
        let seq = self.next_seq(now);
        self.counts.begin(begun);
        self.count_begun(&bounded_begun(begun), seq);
    }

    fn next_seq(&mut self, now: u64) -> u64 {
        self.last_seq = now.max(self.last_seq.saturating_add(1));
        self.last_seq
    }

    /// Counts requests that have begun in their build.
    pub fn count_begun(&mut self, begun: &Begun, seq: u64) {
        if begun.invocation_id.is_empty() {
            return;
        }
        let build = self
            .builds
            .entry(begun.invocation_id.clone())
            .or_insert_with(|| ActiveBuild::begun(begun, seq));
        build.begin(begun, seq);
    }

    pub fn remember_run(&mut self, execution: &Execution) {
        // A whole that was put together did not run by itself.
        let is_run = execution.shard.as_ref().is_none_or(|shard| shard.number > 0);
        let is_run = is_run && execution.origin() == Origin::Executed;
        let timeline = execution.timeline.filter(|_| is_run);
        let Some(timeline) = timeline else { return };
        if self.runs.len() >= MAX_RECENT_RUNS {
            self.runs.pop_front();
        }
        self.runs.push_back(timeline);
    }

    /// Counts the execution in its build; `false`: the build keeps no more of its cache hits.
    pub fn is_kept(&mut self, execution: &Execution, seq: u64) -> bool {
        let is_hit = execution.origin() == Origin::CacheHit;
        if execution.invocation_id.is_empty() {
            return !is_hit;
        }
        let build = self
            .builds
            .entry(execution.invocation_id.clone())
            .or_insert_with(|| ActiveBuild::new(execution, seq));
        build.add(execution, seq);
        if !is_hit {
            return true;
        }
        let kept = build.summary.stored_hits < self.max_stored_hits;
        build.summary.stored_hits += u64::from(kept);
        kept
    }

    fn bound_pending(&mut self) {
        while self.pending.len() > MAX_PENDING {
            self.pending.pop_first();
            self.dropped += 1;
        }
    }

    /// Whether something waits to be written.
    pub fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
            || self.durations.has_changes()
            || self.builds.values().any(|build| build.dirty)
    }

    /// Forgets written builds, those not touched for longest first, down to the limit.
    pub fn bound_builds(&mut self) {
        let excess = self.builds.len().saturating_sub(MAX_ACTIVE_BUILDS);
        if excess == 0 {
            return;
        }
        let mut idle: Vec<_> = self
            .builds
            .iter()
            .filter(|(_, build)| !build.dirty)
            .map(|(invocation, build)| (build.last_seq, invocation.clone()))
            .collect();
        idle.sort_unstable();
        for (_, invocation) in idle.into_iter().take(excess) {
            self.builds.remove(&invocation);
        }
    }

    /// Pending executions that `matches`, newest first, older than `before`.
    pub fn newest(
        &self,
        before: Option<u64>,
        matches: impl Fn(&Execution) -> bool,
    ) -> Vec<JournalEntry> {
        let end = before.unwrap_or(u64::MAX);
        self.pending
            .range(..end)
            .rev()
            .filter(|(_, execution)| matches(execution))
            .map(|(seq, execution)| JournalEntry { seq: *seq, execution: execution.clone() })
            .collect()
    }
}
