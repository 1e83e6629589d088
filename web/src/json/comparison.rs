//! Two builds side by side.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::action::Difference;
use super::build::BuildCounts;
use super::digest::Digest;
use super::told::Invocation;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    pub before: BuildSide,
    pub after: BuildSide,
    /// Both told of themselves by build events; without, the lists of what they told are empty.
    pub is_told: bool,
    /// `command`, `patterns`, `commit`, `branch`, `repository`, `tool`, `user`, `machine`, `directory`
    pub facts: Vec<ChangedText>,
    /// Of all options that counted where both told them, else of those that were given by hand.
    pub options: Vec<ChangedOption>,
    /// Targets and tests whose outcome is another one, those that got worse first.
    pub outcomes: Vec<ChangedText>,
    /// Tests that ran in both and took another time, at most 50.
    pub durations: Vec<ChangedTime>,
    /// Options and outcomes that are not listed.
    pub left_out: u64,
    /// Actions that the later build ran, and those of them that the earlier one had as well.
    pub executed: u64,
    pub known_before: u64,
    /// Actions that were compared input by input.
    pub compared: u64,
    /// What differs in them.
    pub causes: Vec<ChangeCause>,
    /// What ran, at most 200: first what the earlier build had as well, the longest first.
    pub actions: Vec<MissedAction>,
    /// One of the builds has more executions than were looked through.
    pub is_cut: bool,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct BuildSide {
    pub invocation_id: String,
    pub told: Option<Invocation>,
    /// By the client's clock.
    pub took_ms: Option<u64>,
    /// Null where it asked for nothing here.
    pub counts: Option<BuildCounts>,
}

/// Null where it is not there.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangedText {
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// All values in their order; an option without a value has an empty one.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangedOption {
    pub name: String,
    pub before: Vec<String>,
    pub after: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangedTime {
    pub name: String,
    pub before_ms: u64,
    pub after_ms: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangeCause {
    /// As of a difference of one action.
    pub kind: Cow<'static, str>,
    pub change: Cow<'static, str>,
    pub name: String,
    /// In how many of the actions that were compared.
    pub actions: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct MissedAction {
    pub execution: String,
    pub target_id: String,
    pub mnemonic: String,
    /// `sha256`, `blake3`.
    pub digest_function: String,
    pub action: Digest,
    pub run_ns: u64,
    /// The same action, or the one that made the same, in the earlier build; else its last run before.
    pub before_execution: Option<String>,
    pub before_invocation: Option<String>,
    pub before: Option<Digest>,
    /// In words; empty where it was not compared, or differences say it.
    pub reasons: Vec<String>,
    /// Executions of the later build whose outputs are inputs of it that differ.
    pub because: Vec<String>,
    pub is_compared: bool,
    pub differences: Vec<Difference>,
}
