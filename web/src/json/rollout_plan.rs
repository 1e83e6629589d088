//! What a rollout would do with the targets that are there, as programs see it.

use kiln_deploy::rollouts::control::{Preview, Sets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutPlanRequest {
    /// The declaration of the rollout, in TOML.
    pub declared: String,
    pub environment: String,
}

/// Two sets of targets: one serves, the other gets the release and then the requests.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RolloutSets {
    /// The label whose value tells them apart.
    pub label: String,
    /// The one that serves when the rollout begins.
    pub live: String,
    pub live_targets: usize,
    pub idle: String,
    pub idle_targets: usize,
    /// How many of the idle ones answer, and how many have to.
    pub heard: usize,
    pub needed: usize,
    /// Why there is no room for both versions; null: there is.
    pub lacks: Option<String>,
}

impl From<&Sets> for RolloutSets {
    fn from(it: &Sets) -> Self {
        Self {
            label: it.label.clone(),
            live: it.live.clone(),
            live_targets: it.live_targets,
            idle: it.idle.clone(),
            idle_targets: it.idle_targets,
            heard: it.heard,
            needed: it.needed,
            lacks: it.lacks(),
        }
    }
}

/// A target that is no help to those that serve.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TargetDown {
    pub name: String,
    pub why: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RolloutPlanned {
    /// The plan as `kiln rollout plan --json` prints it without a server, with the names of targets.
    pub plan: Value,
    /// Names in the order in which they get the release; of two sets those that serve come last.
    pub targets: Vec<String>,
    /// For each step the targets that are started anew with the old version, to be compared with.
    pub fresh: Vec<Vec<String>>,
    pub down: Vec<TargetDown>,
    /// The two sets of targets; null: there is one set.
    pub sets: Option<RolloutSets>,
}

impl From<Preview> for RolloutPlanned {
    fn from(it: Preview) -> Self {
        let down = |(name, why): (String, String)| TargetDown { name, why };
        Self {
            plan: serde_json::to_value(&it.plan).unwrap_or_default(),
            targets: it.targets.into_iter().map(|it| it.name).collect(),
            fresh: it.fresh,
            down: it.down.into_iter().map(down).collect(),
            sets: it.sets.as_ref().map(RolloutSets::from),
        }
    }
}
