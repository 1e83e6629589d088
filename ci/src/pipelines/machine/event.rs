//! What happens in a run, and what it is told.

use serde::{Deserialize, Serialize};

use crate::model::Time;
use crate::pipelines::runner::Outcome;

/// Why a stage never began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// The condition of the stage does not hold.
    LeftOut,
    /// The stage is there for failures, and nothing failed.
    NotNeeded,
    /// A stage that it needs did not pass.
    Blocked,
    /// The run was ended before.
    Cancelled,
}

/// Why a run is ended before its stages have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum StopWhy {
    Cancelled {
        by: String,
        reason: String,
    },
    /// Another run of the group took its place.
    Superseded {
        run: String,
    },
    /// The run took longer than it may.
    Late,
    /// The run cannot be driven: whoever drives it panics each time.
    Fault {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Passed,
    Failed,
    Cancelled,
    Superseded,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The turn of the run has come.
    Began,
    /// From now on an attempt may run: a runner is given it until it has ended.
    Started {
        stage: u32,
        attempt: u32,
    },
    Ended {
        stage: u32,
        attempt: u32,
        outcome: Outcome,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        links: Vec<(String, String)>,
    },
    Skipped {
        stage: u32,
        why: Skip,
    },
    /// The attempt that runs has no time left, and is cancelled. A stage that waits for people has failed.
    TimedOut {
        stage: u32,
    },
    Approved {
        stage: u32,
        by: String,
        reason: String,
    },
    Refused {
        stage: u32,
        by: String,
        reason: String,
    },
    Stopped(StopWhy),
    /// What did not pass is done again.
    Resumed {
        by: String,
        reason: String,
    },
    Finished {
        end: End,
    },
}

/// An event with the time at which it was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    pub at: Time,
    #[serde(flatten)]
    pub event: Event,
}

/// What a run is told. What means nothing to it now has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Tick,
    /// The run is at the head of its group, or has none.
    Turn,
    Ended {
        stage: u32,
        attempt: u32,
        outcome: Outcome,
        links: Vec<(String, String)>,
    },
    Approve {
        stage: u32,
        by: String,
        reason: String,
    },
    Refuse {
        stage: u32,
        by: String,
        reason: String,
    },
    Stop(StopWhy),
    Resume {
        by: String,
        reason: String,
    },
}
