//! A pipeline as its file declares it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::pipelines::cron::Cron;
use crate::pipelines::stage::{Condition, On, Retry, Work};

#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    pub name: String,
    pub description: String,
    /// Parameters that whoever begins a run may give.
    pub inputs: BTreeMap<String, Input>,
    pub triggers: Vec<Trigger>,
    pub concurrency: Option<Concurrency>,
    /// The time after which a whole run is cancelled.
    pub timeout: Duration,
    pub stages: Vec<DeclaredStage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Input {
    /// `None`: it has to be given.
    pub default: Option<String>,
    /// Values that the input may have; empty: any.
    pub values: Vec<String>,
}

/// What begins a run, besides people, who always may.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// Somebody who may execute says that a branch was pushed to which fits one of these, or a forge says so of the
    /// repository that is named.
    Push {
        branches: Vec<String>,
        origin: Option<Origin>,
    },
    Schedule(Schedule),
    /// A release was made whose name fits one of these.
    Release {
        names: Vec<String>,
    },
    /// Somebody who may execute calls the server for it.
    Webhook,
}

/// A repository at a forge, whose webhook tells of pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The name of the forge among those of the server.
    pub forge: String,
    /// The path of the repository there.
    pub repository: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    pub cron: Cron,
    pub missed: Missed,
    pub inputs: BTreeMap<String, String>,
}

/// What becomes of times at which no server ran, or over which its clock jumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missed {
    /// However many they were, one run begins.
    #[default]
    Once,
    /// No run begins for the times that were missed.
    Skip,
}

/// Runs of the same group take turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// The name of the group, which may have values in it: `deploy-${run.branch}`.
    pub group: String,
    pub busy: Busy,
}

/// What a run does that finds its group busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Busy {
    /// The run waits for its turn.
    #[default]
    Queue,
    /// The run has what runs and what waits cancelled, and begins when that has ended.
    Supersede,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredStage {
    pub name: String,
    /// Names of the stages that have to end before this one.
    pub needs: Vec<String>,
    pub on: On,
    pub when: Condition,
    pub matrix: Matrix,
    pub retry: Retry,
    pub timeout: Duration,
    pub may_fail: bool,
    /// What the stage does. Its texts may have values in them.
    pub work: Work,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matrix {
    /// Names with their values, in the order of names.
    pub axes: Vec<(String, Vec<String>)>,
    /// Cells that fit all values of one of these are left out.
    pub exclude: Vec<BTreeMap<String, String>>,
}

impl Declared {
    /// Whether any stage does more than run commands and wait: that takes the right to release.
    pub fn releases(&self) -> bool {
        let more = |work: &Work| match work {
            Work::Command(_) | Work::Build(_) | Work::Test(_) => false,
            Work::Approve(_) | Work::Wait(_) => false,
            Work::Release(_) | Work::Promote(_) | Work::Rollout(_) => true,
            Work::Program(_) | Work::Preview(_) => true,
        };
        self.stages.iter().any(|stage| more(&stage.work))
    }
}
