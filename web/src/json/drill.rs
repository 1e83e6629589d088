//! Drills, as programs see them.

use kiln_deploy::rollouts::control::{Drill, DrillStanding};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::moment::at;

/// How a drill went.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DrillShown {
    /// The id of the rollout that it was.
    pub rollout: String,
    pub at: String,
    pub release: String,
    /// The judge reverted it, and all of that was within the budget.
    pub passed: bool,
    /// Seconds from when the canary was watched until it was decided to revert; null: that was not decided.
    pub fired_s: Option<f64>,
    /// Seconds from that decision until all targets ran the old version again; null: that has not come.
    pub restored_s: Option<f64>,
    pub budget_s: f64,
}

impl From<&Drill> for DrillShown {
    fn from(it: &Drill) -> Self {
        let seconds = |millis: u64| millis as f64 / 1_000.0;
        Self {
            rollout: it.rollout.clone(),
            at: at(it.at),
            release: it.release.clone(),
            passed: it.passed,
            fired_s: it.fired.map(seconds),
            restored_s: it.restored.map(seconds),
            budget_s: seconds(it.budget),
        }
    }
}

/// The state of drills in one place.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DrillState {
    pub service: String,
    pub environment: String,
    pub last: Option<DrillShown>,
    /// When the next drill has to have passed; null: none is demanded, or none has passed yet.
    pub due: Option<String>,
    /// Whether no drill has passed for as long as is demanded. Nothing is rolled out there then, unless the declaration
    /// only has that said.
    pub overdue: bool,
    /// When the next drill begins by itself; null: none does.
    #[serde(default)]
    pub next: Option<String>,
    /// Why the one that should begin now does not; null: none should.
    #[serde(default)]
    pub hindered: Option<String>,
    #[serde(default)]
    pub missed: Option<DrillMissed>,
}

/// Drills that should have begun by themselves and did not.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DrillMissed {
    /// When the last of these drills should have begun.
    pub at: String,
    pub count: usize,
    pub why: String,
}

impl From<&DrillStanding> for DrillState {
    fn from(it: &DrillStanding) -> Self {
        Self {
            service: it.place.service.clone(),
            environment: it.place.environment.clone(),
            last: it.last.as_ref().map(DrillShown::from),
            due: it.due.filter(|at| *at > 0).map(at),
            overdue: it.is_overdue,
            next: it.next.map(at),
            hindered: it.hindered.clone(),
            missed: it.missed.as_ref().map(|it| DrillMissed {
                at: at(it.at),
                count: it.count,
                why: it.why.clone(),
            }),
        }
    }
}
