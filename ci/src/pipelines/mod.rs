//! Pipelines: stages that need each other, declared in a file, run on a server from records, and gone on with after any
//! crash. What stages do is behind one trait ([`StageRunner`]).

mod runner;
mod stage;

pub use self::runner::{
    Ended, Outcome, Progress, RunnerError, RunnerFault, Source, StageRunner, Task, TaskKey,
};
pub use self::stage::{
    Approval, Command, Condition, Listed, On, Preview, PreviewAct, Program, Promotion, Release,
    Retry, RetryOn, Rollout, Stage, Waited, Work,
};

/// Stages of one pipeline, each cell of a matrix counted.
pub const MAX_STAGES: usize = 10_000;
