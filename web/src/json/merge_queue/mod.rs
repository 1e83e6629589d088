//! Merge queues, as programs see them.

mod of;
mod runner;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use runner::{MergeAsked, MergeCall, MergeHeard, MergeLane, MergeStep, MergeTake, MergeTaken};

/// The runner of a merge queue, as the server heard of it last.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeRunner {
    /// Whether the runner is heard from at present.
    pub connected: bool,
    /// The runner's name: its machine and its process.
    pub name: String,
    pub repository: String,
    pub check: String,
    /// Since when the runner has the queue.
    pub since: String,
    /// When the server heard from the runner last.
    pub seen: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeTotals {
    pub landed: u64,
    pub rejected: u64,
    /// Removed, deleted, or merged by somebody else.
    pub left: u64,
    pub runs: u64,
    /// Seconds that all changes which landed have waited, in sum.
    pub waited_s: f64,
}

/// A merge queue in short.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeQueueSummary {
    pub name: String,
    /// The branch that changes land on.
    pub target: String,
    /// The commit that the target is at; null: the queue's runner has not looked yet.
    pub base: Option<String>,
    /// How the queue weighs its runs: `throughput` or `latency`; null: its runner has not said.
    pub mode: Option<String>,
    /// Why nothing is begun and nothing lands; null: it goes on.
    pub paused: Option<String>,
    pub waiting: usize,
    /// Changes that are not tried until somebody or something changes that.
    pub held: usize,
    /// Checks that run now.
    pub running: usize,
    pub runner: MergeRunner,
    pub totals: MergeTotals,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeQueues {
    pub queues: Vec<MergeQueueSummary>,
}

/// A change that waits in the queue.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeChange {
    pub branch: String,
    pub head: String,
    /// 0 to 9; more goes first.
    pub priority: u8,
    pub added: String,
    /// `waiting`, `screened`, `held`, `checking`, `passed` or `landing`.
    pub standing: String,
    /// What the change waits for, in words.
    pub why: String,
    /// How many changes are before this one; null: it is held.
    pub before: Option<usize>,
    /// Numbers of the runs that the change is in.
    pub runs: Vec<u64>,
    pub batch: Option<u64>,
    /// The probability that it is bad, as far as is known.
    pub bad: f64,
    /// Seconds until the change has landed, if all goes well; null: that is not known.
    pub expected_s: Option<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeBatch {
    pub id: u64,
    pub branches: Vec<String>,
    /// Whether the batch lands once it passes. Others that pass wait for one that does.
    pub lands: bool,
}

/// A run of the queue's check that goes on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeRun {
    pub run: u64,
    /// How far the run is: `checking`, `passed` or `landing`.
    pub phase: String,
    pub base: String,
    /// The commit that is tested; null until it is put together.
    pub commit: Option<String>,
    /// Branches that are put on top of the base, in this order; none: the base is tested by itself.
    pub branches: Vec<String>,
    pub began: String,
    /// Seconds that are left of the run, by what the last ones took; null: that is not known.
    pub expected_s: Option<f64>,
}

/// A run of the queue's check that has ended.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeRan {
    pub run: u64,
    /// How the run ended: `passed`, `failed` or `unable`.
    pub verdict: String,
    /// Targets that failed, as far as the check named them.
    pub targets: Vec<String>,
    /// Why the run could not be carried out; null: it was.
    pub why: Option<String>,
    pub base: String,
    pub commit: Option<String>,
    pub branches: Vec<String>,
    pub began: String,
    pub ended: String,
    pub took_s: f64,
    /// The end of what the check printed; null in lists.
    pub log: Option<String>,
}

/// A change that has left the queue.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeEnded {
    pub branch: String,
    pub head: Option<String>,
    pub added: String,
    pub ended: String,
    pub landed: bool,
    pub rejected: bool,
    /// The commit of the target that has it.
    pub commit: Option<String>,
    /// How the change left the queue, in words.
    pub why: String,
    /// The number of the last run that failed with the change, where it was rejected; null: there is none, or it is not
    /// kept.
    pub run: Option<u64>,
}

/// A request to a merge queue, and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeRequest {
    pub id: u64,
    pub queue: String,
    /// `add`, `remove`, `pause`, `resume` or `mode`.
    pub what: String,
    pub branch: Option<String>,
    pub by: String,
    pub at: String,
    /// `waiting`: no runner has taken it in; `done` or `refused`.
    pub state: String,
    /// Why the request was refused; null: it was not.
    pub why: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeQueueShown {
    #[serde(flatten)]
    pub queue: MergeQueueSummary,
    /// Whether the target passes by itself: `passes`, `fails` or `unknown`.
    pub base_state: String,
    /// Changes in the order in which they are tested; those that are held come last.
    pub changes: Vec<MergeChange>,
    pub batches: Vec<MergeBatch>,
    pub runs: Vec<MergeRun>,
    /// Runs that have ended, newest first.
    pub ran: Vec<MergeRan>,
    /// Changes that have left, newest first.
    pub ended: Vec<MergeEnded>,
    /// Requests that no runner has taken in yet.
    pub requests: Vec<MergeRequest>,
    /// Seconds that a check usually takes; null: none has ended yet.
    pub check_s: Option<f64>,
    /// The probabilities, as learned, that a change is bad (`bad`) and that a check fails by chance (`flaky`).
    pub bad: f64,
    pub flaky: f64,
}

/// What is known of a branch in a merge queue.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeChangeShown {
    pub queue: String,
    pub branch: String,
    /// The change in the queue; null: it is not there.
    pub change: Option<MergeChange>,
    /// The request that asked for it and that no runner has taken in.
    pub asked: Option<MergeRequest>,
    /// How the change left the queue the last time.
    pub ended: Option<MergeEnded>,
    pub paused: Option<String>,
    pub connected: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeRemoval {
    pub queue: String,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MergeSaid {
    Add,
    Remove,
    Pause,
    Resume,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeSay {
    pub queue: String,
    pub what: MergeSaid,
    /// The branch without `refs/heads/`; for `add` and `remove`.
    #[serde(default)]
    pub branch: Option<String>,
    /// The priority from 0 to 9, 5 where it is absent; for `add`.
    #[serde(default)]
    pub priority: Option<u8>,
    /// Why the queue pauses; for `pause`.
    #[serde(default)]
    pub reason: Option<String>,
}
