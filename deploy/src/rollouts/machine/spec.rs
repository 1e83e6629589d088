//! What a rollout is to do, fixed when it starts.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Milliseconds, of a clock that all controllers share.
pub type Millis = u64;

/// A target of the rollout, by its place in the inventory.
pub type TargetId = u32;

/// A release by its digest.
pub type Version = Arc<str>;

/// How new what a target was told is. The first part is the token of the deploy lock, so that what
/// an earlier owner of the lock still says is stale; the second counts the rollout's own changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Generation {
    pub fence: u64,
    pub change: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.fence, self.change)
    }
}

/// What a target is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub version: Version,
    pub generation: Generation,
}

/// What was last heard of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Running {
    /// The target does not answer.
    Silent,
    /// The version that the target was seen to run, and the newest generation it was told.
    Version(Version, Generation),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSpec {
    /// The targets that get the new version in this step.
    pub targets: Vec<TargetId>,
    pub bake: Millis,
    /// A person has to let the rollout in.
    pub gate: bool,
    /// Hundredths of a percent of the requests that the new version gets; `None`: whatever its targets get.
    #[serde(default)]
    pub traffic: Option<u32>,
    /// Targets that are started anew with the old version at the same time, so that what is compared is of one age.
    #[serde(default)]
    pub fresh: Vec<TargetId>,
}

/// How long and how often something is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Milliseconds within which a target has to run what it was told, or is told again.
    pub settle: Millis,
    /// How often a target is told before it is given up.
    pub tries: u32,
    /// How many targets may have gone silent before all is reverted.
    pub lost: usize,
    /// How often a step is baked once more because the judge cannot decide; then it is paused.
    pub extensions: u32,
    /// Milliseconds after which a person is called because reverting does not come to an end.
    pub rollback: Millis,
    /// Milliseconds between two attempts to get the deploy lock.
    pub lock_retry: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The last release that finished its soak; `None`: there is nothing to return to.
    pub old: Option<Version>,
    pub new: Version,
    /// The steps of the rollout, of which there is at least one.
    pub steps: Vec<StepSpec>,
    pub soak: Millis,
    pub deadline: Millis,
    pub limits: Limits,
    /// How many targets may be down or switching at once; `None`: all of a step.
    #[serde(default)]
    pub unavailable: Option<usize>,
    /// The targets of the steps stand beside those that serve: requests are switched to them and back, and they return to
    /// the old version when none goes to them any more.
    #[serde(default)]
    pub beside: bool,
}

impl Spec {
    /// Whether requests are split by more than by which targets there are.
    pub fn shifts(&self) -> bool {
        self.steps.iter().any(|step| step.traffic.is_some())
    }

    /// Whether the new version is compared with targets that were started anew.
    pub fn is_fresh(&self) -> bool {
        self.steps.iter().any(|step| !step.fresh.is_empty())
    }

    /// Targets that a step's canary is compared with, where they were started anew: the same for whoever asks.
    pub fn cohort(&self, step: usize) -> Vec<TargetId> {
        let steps = self.steps.get(..=step).unwrap_or_default();
        let new: HashSet<TargetId> = steps.iter().flat_map(|it| it.targets.clone()).collect();
        let fresh = steps.iter().flat_map(|it| it.fresh.clone());
        let mut cohort: Vec<TargetId> = fresh.filter(|id| !new.contains(id)).collect();
        cohort.sort_unstable();
        cohort.dedup();
        cohort
    }
}
