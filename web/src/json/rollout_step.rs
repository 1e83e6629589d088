//! The steps of a rollout, as programs see them.

use kiln_deploy::rollouts::control::Shown;
use kiln_deploy::rollouts::machine::{End, Phase, StepSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names of one step that are listed.
const MAX_NAMES: usize = 100;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RolloutStep {
    pub name: String,
    pub targets: usize,
    pub gate: bool,
    pub bake_s: u64,
    /// Percent of the requests; null: whatever its targets get.
    pub traffic: Option<f64>,
    /// Targets that are started anew with the old version together with it, to be compared with: the first hundred.
    #[serde(default)]
    pub fresh: Vec<String>,
    /// Whether the step is `done`, goes on `now`, or is `ahead`.
    pub standing: String,
}

pub fn steps(it: &Shown) -> Vec<RolloutStep> {
    let state = &it.state;
    let now = match state.phase {
        Phase::Gate(at) | Phase::Applying(at) | Phase::Baking(at) => Some(at),
        Phase::Soaking | Phase::Ended(End::Succeeded) => Some(usize::MAX),
        _ => None,
    };
    let touched = |step: &StepSpec| {
        step.targets.iter().any(|id| state.targets.get(id).is_some_and(|it| it.was_new))
    };
    let name = |id: &u32| Some(it.targets.get(usize::try_from(*id).ok()?)?.name.clone());
    let mut count = 0;
    let step = |(at, step): (usize, &StepSpec)| {
        count += step.targets.len();
        let standing = match now {
            Some(now) if at < now => "done",
            Some(now) if at == now => "now",
            Some(_) => "ahead",
            None if touched(step) => "done",
            None => "ahead",
        };
        RolloutStep {
            name: it.rollout.steps.get(at).cloned().unwrap_or_default(),
            targets: count,
            gate: step.gate,
            bake_s: step.bake / 1_000,
            traffic: step.traffic.map(|share| f64::from(share) / 100.0),
            fresh: step.fresh.iter().filter_map(name).take(MAX_NAMES).collect(),
            standing: standing.to_owned(),
        }
    };
    it.rollout.spec.steps.iter().enumerate().map(step).collect()
}
