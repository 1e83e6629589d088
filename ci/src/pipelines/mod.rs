//! Pipelines: stages that need each other, declared in a file, run on a server from records, and gone on with after any
//! crash. What stages do is behind one trait ([`StageRunner`]).

pub mod control;
mod cron;
mod explain;
pub mod file;
mod fill;
mod laid;
pub mod machine;
mod order;
mod runner;
mod stage;

pub use self::cron::{Cron, CronError};
pub use self::explain::{Explained, ExplainedStage, critical_path, explain, needs};
pub use self::laid::{Begun, Laid, LayError, MAX_LAID, MAX_NEEDS, lay_out};
pub use self::order::order;
pub use self::runner::{
    Ended, Outcome, Progress, RunnerError, RunnerFault, Source, StageRunner, Task, TaskKey,
};
pub use self::stage::{
    Approval, Command, Condition, Listed, On, Preview, PreviewAct, Program, Promotion, Release,
    Retry, RetryOn, Rollout, Stage, Waited, Work,
};

/// Stages of one pipeline, each cell of a matrix counted.
pub const MAX_STAGES: usize = 10_000;
