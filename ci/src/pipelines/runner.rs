//! Who does what a stage says. The control of pipelines calls it, on one frontend at a time, and again on another after a crash:
//! the key of a task says whether it is the same.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::stage::Work;

/// The key of one attempt at one stage of one run. The same key is the same work: whoever is given it a second time
/// goes on with what was begun, and never begins a second one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    /// The id of the run: letters and digits.
    pub run: String,
    /// The index of the stage in the run.
    pub stage: u32,
    /// The number of the attempt, counted from 1.
    pub attempt: u32,
}

/// What a run is about: sources, as a tree in the store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// The root directory's digest in the store of the run's instance, `HASH/SIZE` in the server's default function; `None`: an empty
    /// tree.
    pub root: Option<String>,
    pub repository: Option<String>,
    pub commit: Option<String>,
    pub branch: Option<String>,
}

/// What a runner is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub key: TaskKey,
    pub pipeline: String,
    /// The name of the stage.
    pub stage: String,
    /// The instance of this server whose store has sources and outputs.
    pub instance: String,
    /// The account that began the run.
    pub by: String,
    pub source: Source,
    /// What the stage does, with all values put in.
    pub work: Work,
    /// `KILN_RUN`, `KILN_MATRIX_OS`, `KILN_INPUT_NAME`, ...: what a command finds in its environment.
    pub variables: BTreeMap<String, String>,
    /// What stages told that have passed before it, by their names ([`Outcome::Passed`]).
    pub told: BTreeMap<String, BTreeMap<String, String>>,
    /// Time that is left for this attempt. The control ends it by [`StageRunner::cancel`] when it is over; an action that has a
    /// limit of its own gets this one.
    pub timeout: Duration,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum Outcome {
    /// With what stages behind it may ask for: of commands `invocation`, `action`, `target` and `tree`, of a release `release` and
    /// `digest`, of a rollout `rollout`. At most 50, of 1,000 bytes each.
    Passed { told: BTreeMap<String, String> },
    /// What was run says no.
    Failed { reason: String },
    /// What was to run could not be run, or its answer is lost: nothing is known of it.
    Infrastructure { reason: String },
    /// The attempt was ended because somebody wanted that.
    Cancelled,
}

/// An end with what was noted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub outcome: Outcome,
    /// Pages and answers that say more: a name and an address below this server, `/actions/...`.
    pub links: Vec<(String, String)>,
}

/// Nothing is known: the same task is given again in a moment.
#[derive(Debug, thiserror::Error)]
#[error("{what} is unavailable")]
pub struct RunnerError {
    pub what: String,
    #[source]
    pub source: Option<RunnerFault>,
}

pub type RunnerFault = Box<dyn std::error::Error + Send + Sync>;

/// What a runner tells while it works. It never waits.
pub trait Progress: Send + Sync {
    /// Bytes of the attempt's log that are kept: who goes on with it may leave these out.
    fn logged(&self) -> u64;

    /// A part of the attempt's log, which begins at byte `offset` of it, without any secret in it. What was told already is left out,
    /// so that a log may be told again from its beginning. Beyond a bound it is dropped, and the log says so.
    fn log(&self, offset: u64, chunk: Bytes);

    /// Tells what the attempt does now, for people: `waits for a worker`.
    fn standing(&self, line: &str);
}

/// Does what stages say.
#[async_trait]
pub trait StageRunner: Send + Sync + 'static {
    /// Begins a task, or goes on with it where it was begun before, and answers when it has ended. Dropping the future ends nothing:
    /// the same task is then given again, here or to another frontend.
    async fn run(&self, task: &Task, progress: &dyn Progress) -> Result<Ended, RunnerError>;

    /// Ends what was begun of a task, wherever that runs: actions as well. Then [`StageRunner::run`], here or elsewhere, answers
    /// [`Outcome::Cancelled`], or how it has ended before. It is no error where nothing was begun, or it has ended.
    async fn cancel(&self, task: &Task) -> Result<(), RunnerError>;
}

impl fmt::Display for TaskKey {
    /// `RUN/STAGE/ATTEMPT`: fit for a request's metadata and for keys of records.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.run, self.stage, self.attempt)
    }
}

impl Ended {
    pub fn passed(told: BTreeMap<String, String>) -> Self {
        Self { outcome: Outcome::Passed { told }, links: Vec::new() }
    }

    pub fn failed(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed { reason: reason.into() }, links: Vec::new() }
    }

    pub fn infrastructure(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Infrastructure { reason: reason.into() }, links: Vec::new() }
    }

    pub fn cancelled() -> Self {
        Self { outcome: Outcome::Cancelled, links: Vec::new() }
    }
}
