//! What a build amounts to: counters that stay exact however many of its executions are kept.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use kiln_protos::events::execution::Origin;
use kiln_protos::events::{Begun, Execution, Timeline};

use super::stages::Stage;

/// Mnemonics counted apart; what comes later counts as "(other)".
pub const MAX_MNEMONICS: usize = 64;
/// Targets counted exactly in one build.
const MAX_TARGETS: usize = 200_000;
const OTHER: &str = "(other)";

/// One invocation of a build tool. Times are nanoseconds since the Unix epoch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildSummary {
    #[prost(string, tag = "1")]
    pub invocation_id: String,
    #[prost(string, tag = "2")]
    pub correlated_invocations_id: String,
    #[prost(string, tag = "3")]
    pub tool_name: String,
    #[prost(string, tag = "4")]
    pub tool_version: String,
    #[prost(string, tag = "5")]
    pub instance_name: String,
    /// Place of its first execution in the journal.
    #[prost(uint64, tag = "6")]
    pub first_seq: u64,
    /// When its first request came.
    #[prost(int64, tag = "7")]
    pub first_at: i64,
    /// When its last answer went out.
    #[prost(int64, tag = "8")]
    pub last_at: i64,
    #[prost(message, required, tag = "9")]
    pub counts: Counts,
    /// The counts of each mnemonic, at most [`MAX_MNEMONICS`] and one for all others.
    #[prost(message, repeated, tag = "10")]
    pub mnemonics: Vec<MnemonicCounts>,
    /// Distinct targets; after a restart of the server amid the build, or when another frontend
    /// took over the writing, a lower bound.
    #[prost(uint64, tag = "11")]
    pub targets: u64,
    /// Cache hits of which the execution itself is kept.
    #[prost(uint64, tag = "12")]
    pub stored_hits: u64,
    /// Requests that the action cache did not answer: each waited, ran or joined a run.
    #[prost(uint64, tag = "13")]
    pub begun: u64,
    /// Begun requests that will never end, because the server that knew them is gone.
    #[prost(uint64, tag = "14")]
    pub lost: u64,
    /// When a request of it last began or ended.
    #[prost(int64, tag = "15")]
    pub active_at: i64,
    /// The request that ended last was cancelled.
    #[prost(bool, tag = "16")]
    pub is_cancelled: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MnemonicCounts {
    #[prost(string, tag = "1")]
    pub mnemonic: String,
    #[prost(message, required, tag = "2")]
    pub counts: Counts,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Counts {
    /// Run by a worker, with whatever end. One that no worker ran is [`Self::refused`].
    #[prost(uint64, tag = "1")]
    pub executed: u64,
    /// Answered from the action cache.
    #[prost(uint64, tag = "2")]
    pub hits: u64,
    /// Requests that joined another request's execution.
    #[prost(uint64, tag = "3")]
    pub merged: u64,
    /// Answered requests of all kinds whose answer is an error or a non-zero exit code.
    #[prost(uint64, tag = "4")]
    pub failed: u64,
    /// Nanoseconds that actions waited for a worker, in sum: to the end, where none took them.
    #[prost(uint64, tag = "5")]
    pub queue_ns: u64,
    /// Nanoseconds that executed actions ran, in sum.
    #[prost(uint64, tag = "6")]
    pub run_ns: u64,
    /// Cancelled, or stopped because nobody waited any more: counted here alone.
    #[prost(uint64, tag = "7")]
    pub cancelled: u64,
    /// Answered with an error without having been at a worker: none could take it, or none came.
    #[prost(uint64, tag = "8")]
    pub refused: u64,
    /// Look-ups in the action cache that found no result.
    #[prost(uint64, tag = "9")]
    pub missed: u64,
    /// Requests to execute: each of them may have been looked up before.
    #[prost(uint64, tag = "10")]
    pub asked: u64,
}

impl Counts {
    /// All requests that have ended.
    pub fn total(&self) -> u64 {
        self.answered() + self.cancelled
    }

    /// All requests that have ended, and the actions that clients ran themselves.
    pub fn actions(&self) -> u64 {
        self.total() + self.ran_at_client()
    }

    fn answered(&self) -> u64 {
        self.executed + self.hits + self.merged + self.refused
    }

    /// Results that were looked up in vain, and that nobody asked to make here: the client ran those actions
    /// itself, or is about to have them run.
    pub fn ran_at_client(&self) -> u64 {
        self.missed.saturating_sub(self.asked)
    }

    /// Share of results that needed no run of their own; `None` before the first.
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.answered() + self.ran_at_client();
        (all > 0).then(|| (self.hits + self.merged) as f64 / all as f64)
    }

    /// Counts what has begun.
    pub fn begin(&mut self, begun: &Begun) {
        self.missed += begun.missed;
        self.asked += begun.requests;
    }

    /// Parts of an action that was fanned out are counted with the whole.
    pub fn add(&mut self, execution: &Execution) {
        if is_part(execution) {
            return;
        }
        let (class, timeline) = (Class::of(execution), execution.timeline.unwrap_or_default());
        // Who joined a run waited with it.
        if execution.origin() != Origin::Merged {
            self.queue_ns = self.queue_ns.saturating_add(queue_ns(&timeline));
        }
        match class {
            Class::Cancelled => self.cancelled += 1,
            Class::Merged => self.merged += 1,
            Class::Refused => self.refused += 1,
            Class::CacheHit => {
                self.hits += 1;
                self.asked += u64::from(was_asked_to_execute(execution));
            }
            Class::Executed => {
                self.executed += 1;
                self.run_ns = self.run_ns.saturating_add(run_ns(&timeline));
            }
        }
        self.failed += u64::from(has_failed(execution));
    }
}

/// Whether it is a part of another action, which is counted by itself.
pub fn is_part(execution: &Execution) -> bool {
    execution.shard.as_ref().is_some_and(|shard| shard.number > 0)
}

/// How a request ended, as builds and the server count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Executed,
    CacheHit,
    Merged,
    Refused,
    Cancelled,
}

impl Class {
    pub fn of(execution: &Execution) -> Self {
        match execution.origin() {
            _ if execution.cancelled => Self::Cancelled,
            Origin::CacheHit => Self::CacheHit,
            Origin::Merged => Self::Merged,
            Origin::Executed | Origin::Unspecified if execution.attempts == 0 => {
                Self::of_no_worker(execution)
            }
            Origin::Executed | Origin::Unspecified => Self::Executed,
        }
    }

    fn of_no_worker(execution: &Execution) -> Self {
        let timeline = execution.timeline.unwrap_or_default();
        let waited_in_vain = timeline.queued > 0 && timeline.leased == 0;
        if waited_in_vain && execution.status_code != 0 { Self::Refused } else { Self::Executed }
    }
}

/// A hit at `Execute`, which knows the action's command; a look-up alone does not.
fn was_asked_to_execute(hit: &Execution) -> bool {
    hit.command.is_some()
}

/// Answered with an error, or ended with a non-zero exit code. What was cancelled has not failed.
pub fn has_failed(execution: &Execution) -> bool {
    !execution.cancelled && (execution.status_code != 0 || execution.exit_code != 0)
}

/// Nanoseconds in the queue, of an execution that has finished; 0 where it never was there.
pub fn queue_ns(timeline: &Timeline) -> u64 {
    Stage::Queue.span_of_finished(timeline).map_or(0, |(start, end)| between(start, end))
}

/// Nanoseconds between start and end of the command; 0 where it did not run.
pub fn run_ns(timeline: &Timeline) -> u64 {
    between(timeline.run_start, timeline.run_end)
}

/// Nanoseconds from one time to a later one, 0 where either is missing or they are swapped.
pub fn between(start: i64, end: i64) -> u64 {
    if start <= 0 || end <= 0 {
        return 0;
    }
    u64::try_from(end.saturating_sub(start)).unwrap_or(0)
}

/// A build that is still counted.
#[derive(Debug, Clone, Default)]
pub(super) struct ActiveBuild {
    pub summary: BuildSummary,
    /// Hashes of the targets seen since the build became active.
    targets: HashSet<u64>,
    pub dirty: bool,
    /// Place of its last execution in the journal.
    pub last_seq: u64,
    /// The build's records exist.
    pub stored: bool,
}

impl ActiveBuild {
    pub fn resumed(summary: BuildSummary) -> Self {
        Self { summary, stored: true, ..Self::default() }
    }

    pub fn begun(begun: &Begun, seq: u64) -> Self {
        let summary = BuildSummary {
            invocation_id: begun.invocation_id.clone(),
            correlated_invocations_id: begun.correlated_invocations_id.clone(),
            tool_name: begun.tool_name.clone(),
            tool_version: begun.tool_version.clone(),
            instance_name: begun.instance_name.clone(),
            first_seq: seq,
            ..BuildSummary::default()
        };
        Self { summary, ..Self::default() }
    }

    /// Counts requests that have begun.
    pub fn begin(&mut self, begun: &Begun, seq: u64) {
        let summary = &mut self.summary;
        summary.came_at(begun.at);
        summary.begun += begun.requests;
        summary.active_at = summary.active_at.max(begun.last_at);
        summary.last_at = summary.last_at.max(if begun.missed > 0 { begun.last_at } else { 0 });
        summary.counts.begin(begun);
        // Buck2 says what an action is with its command alone, which a look-up does not have.
        if !begun.mnemonic.is_empty() {
            summary.counts_of(&begun.mnemonic).begin(begun);
        }
        self.last_seq = seq;
        self.dirty = true;
    }

    /// Nobody knows any more what was open: it will not end.
    pub fn write_off(&mut self) {
        let open = self.summary.open();
        self.summary.lost += open;
        self.dirty |= open > 0;
    }

    pub fn new(execution: &Execution, seq: u64) -> Self {
        let summary = BuildSummary {
            invocation_id: execution.invocation_id.clone(),
            correlated_invocations_id: execution.correlated_invocations_id.clone(),
            tool_name: execution.tool_name.clone(),
            tool_version: execution.tool_version.clone(),
            instance_name: execution.instance_name.clone(),
            first_seq: seq,
            ..BuildSummary::default()
        };
        Self { summary, ..Self::default() }
    }

    pub fn add(&mut self, execution: &Execution, seq: u64) {
        let timeline = execution.timeline.unwrap_or_default();
        let summary = &mut self.summary;
        summary.came_at(timeline.received);
        let ended = timeline.finished.max(timeline.received);
        // The parts of a test that are not needed any more are stopped; that says nothing about the build.
        if ended >= summary.last_at && !is_part(execution) {
            (summary.last_at, summary.is_cancelled) = (ended, execution.cancelled);
        }
        summary.active_at = summary.active_at.max(ended);
        summary.counts.add(execution);
        summary.counts_of(&execution.mnemonic).add(execution);
        if !execution.target_id.is_empty() && self.targets.len() < MAX_TARGETS {
            let mut hasher = DefaultHasher::new();
            execution.target_id.hash(&mut hasher);
            self.targets.insert(hasher.finish());
            self.summary.targets = self.summary.targets.max(self.targets.len() as u64);
        }
        self.last_seq = seq;
        self.dirty = true;
    }
}

impl BuildSummary {
    /// Notes that a request came at this time.
    fn came_at(&mut self, at: i64) {
        if self.first_at == 0 || (at > 0 && at < self.first_at) {
            self.first_at = at;
        }
    }

    /// Requests that have begun, have not ended and are not known to be lost.
    pub fn open(&self) -> u64 {
        let counts = &self.counts;
        let ended = counts.executed + counts.merged + counts.refused + counts.cancelled;
        self.begun.saturating_sub(ended + self.lost)
    }

    fn counts_of(&mut self, mnemonic: &str) -> &mut Counts {
        let known = self.mnemonics.iter().position(|counts| counts.mnemonic == mnemonic);
        let full = self.mnemonics.len() >= MAX_MNEMONICS;
        let index = match known {
            Some(index) => index,
            None if full && self.mnemonics.last().is_some_and(|last| last.mnemonic == OTHER) => {
                self.mnemonics.len() - 1
            }
            None => {
                let name = if full { OTHER } else { mnemonic };
                self.mnemonics
                    .push(MnemonicCounts { mnemonic: name.to_owned(), ..Default::default() });
                self.mnemonics.len() - 1
            }
        };
        &mut self.mnemonics[index].counts
    }

    /// Nanoseconds from its first request to its last answer.
    pub fn elapsed_ns(&self) -> u64 {
        between(self.first_at, self.last_at)
    }
}

#[cfg(test)]
mod tests;
