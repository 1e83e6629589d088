//! A rollout as its file declares it.

use std::time::Duration;

use super::drilling::Drilling;
use super::driving::Driving;
use super::judging::Judging;
use super::pace::Pace;
use super::sets::Sets;

/// What a step's share is a share of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    #[default]
    Targets,
    /// The new version runs beside the old one, and gets a share of the requests.
    Traffic,
    /// Targets change and requests are split, both at once.
    Both,
}

/// What becomes of a share that is no whole number of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// The next whole number: a step that is there has at least one target.
    #[default]
    Up,
    /// The whole number below: a step without a target is left out.
    Down,
}

/// A share of all, and how long it is watched before the next step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Percent, above 0, at most 100.
    pub share: f64,
    pub bake: Duration,
    /// A person has to let the rollout into this step.
    pub gate: bool,
}

/// Targets that get the new version together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    pub name: String,
    pub targets: Vec<String>,
    pub bake: Duration,
    pub gate: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Strategy {
    Canary {
        by: By,
        rounding: Rounding,
        steps: Vec<Step>,
    },
    /// All targets of the idle colour, then all traffic at once.
    BlueGreen {
        bake: Duration,
        gate: bool,
    },
    Rings(Vec<Ring>),
}

/// Targets by their names, or only how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    Named(Vec<String>),
    Count(usize),
}

impl Targets {
    pub fn count(&self) -> usize {
        match self {
            Self::Named(names) => names.len(),
            Self::Count(count) => *count,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    pub name: String,
    pub strategy: Strategy,
    pub targets: Targets,
    /// How long everything is watched after the last step.
    pub soak: Duration,
    /// The time after which the whole rollout is given up and reverted.
    pub deadline: Duration,
    pub driving: Driving,
    pub judging: Judging,
    pub drilling: Drilling,
    pub pace: Pace,
    /// What tells two sets of targets apart; `None`: all serve.
    pub sets: Option<Sets>,
}

impl Strategy {
    /// Whether the new version is installed beside what serves, and requests are moved then.
    pub fn is_beside(&self) -> bool {
        matches!(self, Self::BlueGreen { .. } | Self::Canary { by: By::Traffic, .. })
    }
}
