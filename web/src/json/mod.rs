//! What the JSON API says, for the server that writes it and the commands that read it. Times are
//! RFC 3339 in UTC, `null` where a step did not happen (here nanoseconds since the Unix epoch,
//! and 0); durations say their unit in their names.

mod action;
mod audit;
mod build;
mod comparison;
mod cursor;
mod digest;
mod drill;
mod error;
mod execution;
mod flakes;
mod fleet;
mod hermeticity;
mod import;
mod lock;
mod merge_queue;
mod moment;
mod pipeline;
mod plans;
mod preview;
mod promotion;
pub mod queue;
mod release;
mod rollout;
mod rollout_plan;
mod rollout_step;
mod sharing;
mod status;
mod suite;
mod time;
mod told;
mod verdicts;

pub use action::{
    Action, Command, Difference as InputDifference, Explanation, Found, Log, NO_NETWORK,
};
pub use audit::{AuditCheck, AuditEntries, AuditEntry, AuditExport};
pub use build::{Build, BuildCounts, Builds, Running};
pub use comparison::{
    BuildSide, ChangeCause, ChangedOption, ChangedText, ChangedTime, Comparison, MissedAction,
};
pub use cursor::{cursor, parse_cursor};
pub use digest::{Digest, Property};
pub use drill::{DrillMissed, DrillShown, DrillState};
pub use error::{ErrorBody, ErrorDetail};
pub use execution::{ActionResult, Execution, Executions, Shard};
pub use flakes::{Flake, Flakes, Judged, MaskedFailure, QuarantineHistory, ShadowRun};
pub use fleet::{
    AgentAnswer, AgentFetch, AgentHeard, AgentOrder, AgentQuestion, AgentReport, FleetAgent,
    FleetAgents, FleetRemoval, FleetTelling,
};
pub use hermeticity::{Checked, Checks, Difference};
pub use import::Receipt;
pub use lock::{DeployLock, DeployLocks, LockRequest, UnlockRequest};
pub use merge_queue::{
    MergeAsked, MergeBatch, MergeCall, MergeChange, MergeChangeShown, MergeEnded, MergeHeard,
    MergeLane, MergeQueueShown, MergeQueueSummary, MergeQueues, MergeRan, MergeRemoval,
    MergeRequest, MergeRun, MergeRunner, MergeSaid, MergeSay, MergeStep, MergeTake, MergeTaken,
    MergeTotals,
};
pub use pipeline::{
    PipelineAbandon, PipelineDeclared, PipelineLink, PipelineLog, PipelineRequest, PipelineRun,
    PipelineSaid, PipelineSay, PipelineShown, PipelineStage, Pipelines, pipeline_time,
};
pub use plans::{NewPlan, PlanNext, PlanPiece, PlanStanding, PlanTurn};
pub use preview::{PreviewDifference, PreviewParity, PreviewRemoval, PreviewShown, Previews};
pub use promotion::{
    EnvironmentShown, EnvironmentState, Environments, Frozen, GateReason, PastPromotion,
    PlacedRelease, PromotionAnswer, PromotionChange, PromotionRequest, PromotionSummary,
    RollbackRequest, Said, SayRequest, reasons as gate_reasons,
};
pub use release::{
    Explained, Maker, Release, ReleaseBlob, ReleaseChanges, ReleaseDifference, ReleaseDraft,
    ReleaseFate, ReleaseFates, ReleaseForm, ReleaseGc, ReleaseImport, ReleaseProvenance,
    ReleaseRejection, ReleaseRequest, ReleaseSignatures, ReleaseStatement, Releases,
};
pub use rollout::{
    RolloutAbandon, RolloutEvent, RolloutLook, RolloutRequest, RolloutSaid, RolloutSay,
    RolloutSeries, RolloutShown, RolloutSummary, RolloutTarget, Rollouts,
};
pub use rollout_plan::{RolloutPlanRequest, RolloutPlanned, RolloutSets, TargetDown};
pub use rollout_step::RolloutStep;
pub use sharing::{AgentPeer, AgentShare, AgentShared};
pub use status::{FailedReload, JournalStatus, Shared, Status, Storage, TestsStatus, Unserved};
pub use suite::{
    Grid, GridCell, GridColumn, GridRow, Test, TestAttempt, TestCase, TestCounts, TestDay,
    TestFailure, TestFigures, TestName, TestOwner, TestShown, Tests, millis, nanos,
};
pub use time::rfc3339;
pub use told::{Invocation, Invocations, Told};
pub use verdicts::{
    CaseName, Exported, Gate, GateFailure, GateQuestion, Quarantine, QuarantineChange,
    QuarantineEntry, QuarantineRequest, Quarantined, SubjectName,
};
