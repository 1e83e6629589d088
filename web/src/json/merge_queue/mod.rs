//! Merge queues, as programs see them.

mod of;
mod runner;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use runner::{MergeAsked, MergeCall, MergeHeard, MergeLane, MergeStep, MergeTake, MergeTaken};

/// Who runs a queue.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeRunner {
    /// Whether it is heard.
    pub connected: bool,
    /// The machine and the process.
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
    /// What landed has waited together.
    pub waited_s: f64,
}

/// One queue in short.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeQueueSummary {
    pub name: String,
    /// The branch that changes land on.
    pub target: String,
    /// Where it is; null: its runner has not looked yet.
    pub base: Option<String>,
    /// `throughput` or `latency`.
    pub mode: Option<String>,
    /// Why nothing is begun and nothing lands; null: it goes on.
    pub paused: Option<String>,
    pub waiting: usize,
    /// Changes that are not tried until somebody or something changes that.
    pub held: usize,
    /// Checks that run.
    pub running: usize,
    pub runner: MergeRunner,
    pub totals: MergeTotals,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeQueues {
    pub queues: Vec<MergeQueueSummary>,
}

/// A change that waits.
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
    /// Changes before it; null: it is held.
    pub before: Option<usize>,
    /// Runs that it is in.
    pub runs: Vec<u64>,
    pub batch: Option<u64>,
    /// The probability that it is bad, as far as is known.
    pub bad: f64,
    /// Until it has landed, if all goes well; null: that is not known.
    pub expected_s: Option<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeBatch {
    pub id: u64,
    pub branches: Vec<String>,
    /// What passes of it lands; what passes of others waits for one that does.
    pub lands: bool,
}

/// A run that goes on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeRun {
    pub run: u64,
    /// `checking`, `passed` or `landing`.
    pub phase: String,
    pub base: String,
    /// What is tested, once it is put together.
    pub commit: Option<String>,
    /// In this order on top of the base; none: the base by itself.
    pub branches: Vec<String>,
    pub began: String,
    /// What is left of it, by what the last ones took; null: that is not known.
    pub expected_s: Option<f64>,
}

/// A run that has ended.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeRan {
    pub run: u64,
    /// `passed`, `failed` or `unable`.
    pub verdict: String,
    /// What failed, as far as the check named it.
    pub targets: Vec<String>,
    /// Why it could not be run.
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

/// A change that has left.
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
    /// Of what was rejected: the last run with it that failed, if it is kept.
    pub run: Option<u64>,
}

/// What somebody asked for.
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
    /// Why it was refused.
    pub why: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeQueueShown {
    #[serde(flatten)]
    pub queue: MergeQueueSummary,
    /// Whether the target passes by itself: `passes`, `fails` or `unknown`.
    pub base_state: String,
    /// In the order in which they are tested; those that are held come last.
    pub changes: Vec<MergeChange>,
    pub batches: Vec<MergeBatch>,
    pub runs: Vec<MergeRun>,
    /// Runs that have ended, newest first.
    pub ran: Vec<MergeRan>,
    /// Changes that have left, newest first.
    pub ended: Vec<MergeEnded>,
    /// What no runner has taken in yet.
    pub requests: Vec<MergeRequest>,
    /// What a check usually takes.
    pub check_s: Option<f64>,
    /// How often changes are bad and checks fail by chance, as learned.
    pub bad: f64,
    pub flaky: f64,
}

/// What is known of a branch.
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
    /// Of `add` and `remove`: the branch, without `refs/heads/`.
    #[serde(default)]
    pub branch: Option<String>,
    /// Of `add`: 0 to 9; 5 where nobody says it.
    #[serde(default)]
    pub priority: Option<u8>,
    /// Why the queue pauses; of `pause` alone.
    #[serde(default)]
    pub reason: Option<String>,
}
