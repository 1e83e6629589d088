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
    /// Whether both builds told of themselves by build events. If not, the lists of what they told are empty.
    pub is_told: bool,
    /// `command`, `patterns`, `commit`, `branch`, `repository`, `tool`, `user`, `machine`, `directory`
    pub facts: Vec<ChangedText>,
    /// Options that differ: of all that counted where both builds told these, else of those that were given by hand.
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
    /// What differs in the actions that were compared.
    pub causes: Vec<ChangeCause>,
    /// Actions of the later build that ran, at most 200: first those that the earlier build had as well, the longest
    /// first.
    pub actions: Vec<MissedAction>,
    /// Whether one of the builds has more executions than were looked through.
    pub is_cut: bool,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct BuildSide {
    pub invocation_id: String,
    pub told: Option<Invocation>,
    /// Milliseconds that the build took by the client's clock; null where the build did not tell.
    pub took_ms: Option<u64>,
    /// Sums of what the build asked for; null where it asked for nothing here.
    pub counts: Option<BuildCounts>,
}

/// A text that differs between the builds; `before` or `after` is null where it is not there.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangedText {
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// An option whose values differ: all its values in their order, where an option without a value has an empty one.
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
    /// The kind of what differs, as in a difference of one action: `input`, `argument` and so on.
    pub kind: Cow<'static, str>,
    pub change: Cow<'static, str>,
    pub name: String,
    /// In how many of the compared actions this differs.
    pub actions: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct MissedAction {
    pub execution: String,
    pub target_id: String,
    pub mnemonic: String,
    /// The digest function of the action: `sha256` or `blake3`.
    pub digest_function: String,
    pub action: Digest,
    pub run_ns: u64,
    /// The execution that this one was compared with: of the same action, or of the one that made the same, in the
    /// earlier build; else the last run before it.
    pub before_execution: Option<String>,
    pub before_invocation: Option<String>,
    pub before: Option<Digest>,
    /// Why the action ran, in words; empty where it was not compared, or where its differences say it.
    pub reasons: Vec<String>,
    /// Executions of the later build whose outputs are inputs of it that differ.
    pub because: Vec<String>,
    pub is_compared: bool,
    pub differences: Vec<Difference>,
}
