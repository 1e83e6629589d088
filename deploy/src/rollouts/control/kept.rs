//! What is kept of a rollout beside its log.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::judge::Verdict;
use crate::releases::ReleaseName;
use crate::rollouts::machine::{Millis, Phase, RolloutState, Spec};
use crate::rollouts::parts::Place;

/// What a rollout is, from its start on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Later ones come later in the order of texts.
    pub id: String,
    pub place: Place,
    pub release: ReleaseName,
    /// The release that the rollout returns to; `None`: nothing is known that was good there.
    pub previous: Option<Good>,
    pub spec: Arc<Spec>,
    /// Names of the steps.
    pub steps: Vec<String>,
    /// The declaration as it was given, in TOML.
    pub declared: String,
    pub targets: usize,
    pub by: String,
    pub reason: String,
    pub at: Millis,
    /// When the release was made, if that is known.
    #[serde(default)]
    pub made: Option<Millis>,
    /// Milliseconds within which a drill has to be reverted; `None`: the rollout is none.
    #[serde(default)]
    pub drill: Option<Millis>,
    /// The two sets of targets, where one serves and the other gets the release.
    #[serde(default)]
    pub sets: Option<Sets>,
}

/// Two sets of targets as they were when a rollout began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sets {
    /// The label whose value tells them apart.
    pub label: String,
    /// The one that serves.
    pub live: String,
    pub live_targets: usize,
    /// The one that gets the release, and then the requests.
    pub idle: String,
    pub idle_targets: usize,
    /// How many targets of the idle set answer, and (`needed`) how many have to.
    pub heard: usize,
    pub needed: usize,
}

/// A release that finished its soak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Good {
    pub release: ReleaseName,
    pub version: Arc<str>,
}

/// How long the log is, and what lists show of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub length: u64,
    pub phase: String,
    pub paused: bool,
    pub ended: bool,
    pub changed: usize,
    pub updated: Millis,
    /// Since when the rollout is in its phase, or paused; 0: nobody knows, because it was written before this was kept.
    #[serde(default)]
    pub since: Millis,
    /// Who has given the rollout up, and why; `None`: nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<String>,
}

impl Head {
    pub(super) fn of(state: &RolloutState, now: Millis) -> Self {
        Self {
            length: state.length,
            phase: phase(state.phase),
            paused: state.paused.is_some(),
            ended: matches!(state.phase, Phase::Ended(_)),
            changed: state.changed(),
            updated: now,
            since: state.paused.unwrap_or(state.since),
            abandoned: None,
        }
    }
}

/// A phase in one word, as programs read it.
pub fn phase(phase: Phase) -> String {
    use crate::rollouts::machine::End;
    match phase {
        Phase::Verifying => "verifying",
        Phase::Waiting => "waiting",
        Phase::Gate(_) => "gate",
        Phase::Applying(_) => "applying",
        Phase::Baking(_) => "baking",
        Phase::Soaking => "soaking",
        Phase::RollingBack => "rolling_back",
        Phase::Ended(End::Succeeded) => "succeeded",
        Phase::Ended(End::RolledBack) => "rolled_back",
        Phase::Ended(End::RollbackFailed) => "rollback_failed",
        Phase::Ended(End::Rejected) => "rejected",
        Phase::Ended(End::Overtaken) => "overtaken",
    }
    .to_owned()
}

/// What stands at a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The id of the newest rollout there; `None`: there was none.
    pub newest: Option<String>,
    pub good: Option<Good>,
}

/// What was measured and what the judge says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Looked {
    pub at: Millis,
    pub from: Millis,
    pub step: Option<usize>,
    pub canary: usize,
    pub baseline: usize,
    pub verdict: Verdict,
    pub breach: bool,
    /// Why the judge says so, in words, the weightiest reason first.
    pub reasons: Vec<String>,
    /// The judge's answer, as `kiln judge --json` prints it; null: no signal is declared.
    pub judgement: Value,
    /// What was drawn of each metric that has points.
    pub series: Vec<Series>,
}

/// A metric's points, thinned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub metric: String,
    pub canary: Vec<Option<f64>>,
    pub baseline: Vec<Option<f64>>,
}
