//! What is kept of a run beside its history.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Time;
use crate::pipelines::file::Busy;
use crate::pipelines::machine::{End, Phase, RunState, Standing};
use crate::pipelines::runner::Source;

/// What a run is; it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub id: String,
    pub pipeline: String,
    pub description: String,
    /// The instance whose store has sources and outputs, and whose roles count.
    pub instance: String,
    pub trigger: String,
    pub branch: String,
    pub commit: String,
    pub by: String,
    pub inputs: BTreeMap<String, String>,
    pub source: Source,
    pub group: Option<String>,
    /// Whether the run takes the place of others where its group is busy.
    pub supersedes: bool,
    pub timeout_ms: u64,
    /// Stages that run at the same time.
    pub most: usize,
    pub stages: usize,
    /// Whether the run does what takes the right to release.
    pub releases: bool,
    pub at: Time,
}

impl Run {
    pub fn busy(&self) -> Busy {
        if self.supersedes { Busy::Supersede } else { Busy::Queue }
    }
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stands {
    Queued,
    Running,
    /// Nothing runs; people are asked.
    Asking,
    /// Somebody or something wants it to end, and what runs has to end first.
    Stopping,
    Passed,
    Failed,
    Cancelled,
    Superseded,
}

/// How far a run is, for lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How many events the run's history has.
    pub length: u64,
    pub stands: Stands,
    pub began: Option<Time>,
    pub ended: Option<Time>,
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    pub running: usize,
    pub resumed: u32,
    /// Who has given the run up, and why; `None`: nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<String>,
}

impl Stands {
    pub fn of(state: &RunState) -> Self {
        match state.phase {
            Phase::Ended(End::Passed) => Self::Passed,
            Phase::Ended(End::Failed) => Self::Failed,
            Phase::Ended(End::Cancelled) => Self::Cancelled,
            Phase::Ended(End::Superseded) => Self::Superseded,
            _ if state.stop.is_some() => Self::Stopping,
            Phase::Queued => Self::Queued,
            Phase::Running => {
                let any = |what: fn(&Standing) -> bool| {
                    state.stages.iter().any(|stage| what(&stage.standing))
                };
                let asks = any(|it| matches!(it, Standing::Asking { .. }));
                let works = any(|it| matches!(it, Standing::Running(_) | Standing::Pausing { .. }));
                if asks && !works { Self::Asking } else { Self::Running }
            }
        }
    }

    pub fn is_end(self) -> bool {
        matches!(self, Self::Passed | Self::Failed | Self::Cancelled | Self::Superseded)
    }

    /// The standing as pages and programs call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Asking => "asking",
            Self::Stopping => "stopping",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }
}

impl Head {
    pub fn of(state: &RunState) -> Self {
        let mut head = Self {
            length: state.length,
            stands: Stands::of(state),
            began: state.began,
            ended: state.ended,
            passed: 0,
            failed: 0,
            skipped: 0,
            running: 0,
            resumed: state.resumed,
            abandoned: None,
        };
        for stage in &state.stages {
            match &stage.standing {
                Standing::Passed => head.passed += 1,
                Standing::Failed { .. } => head.failed += 1,
                Standing::Skipped(_) => head.skipped += 1,
                Standing::Running(_) => head.running += 1,
                _ => {}
            }
        }
        head
    }
}
