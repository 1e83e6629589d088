//! What happened to a rollout, and what has to be done about it.

use serde::{Deserialize, Serialize};

use super::spec::{Desired, Generation, Millis, Running, TargetId, Version};
use crate::judge::Verdict;

/// Why a rollout is reverted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A signal broke a limit, or the judge said so.
    Breach(String),
    Deadline,
    /// Targets that answer do not get to run what they were told.
    Stuck(TargetId),
    /// More targets have gone silent than may: so many.
    Lost(usize),
    /// The deploy lock ran out and is somebody else's.
    LockLost,
    Aborted(String),
    Superseded(String),
}

impl Why {
    /// Whether the release is to blame, and must not be rolled out again.
    pub fn blames_release(&self) -> bool {
        matches!(self, Self::Breach(_) | Self::Stuck(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All targets have the new version, and it finished its soak.
    Succeeded,
    /// All targets that were touched have the old one again.
    RolledBack,
    /// Not all targets returned, or there was nothing to return to: a person was called.
    RollbackFailed,
    /// The new version is not verified, and came to no target.
    Rejected,
    /// Targets obey a newer rollout.
    Overtaken,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Started,
    Verified,
    Refused(String),
    LockAsked,
    Locked(u64),
    /// The lock came when nothing was to be rolled out any more.
    Unwanted(u64),
    /// The rollout waits for a person before this step.
    GateBegan(usize),
    StepBegan(usize),
    /// These targets are told together: of a step, or of those that return.
    WaveBegan(Vec<TargetId>),
    /// So many targets are down already that no other may be.
    Crowded(usize),
    /// A target was told again.
    Asked(TargetId),
    /// What a target runs is another thing than was known.
    Heard(TargetId, Running),
    /// A target was told often enough, and is told no more.
    GivenUp(TargetId),
    BakeBegan,
    JudgeAsked,
    Looked(Verdict),
    Extended,
    SoakBegan,
    Paused(String),
    /// A time began in which nothing may go forward.
    Frozen(String),
    Resumed,
    /// Requests are to be split anew.
    ShiftAsked,
    /// Requests were split anew.
    Shifted,
    RollbackBegan(Why),
    Ended(End),
    /// An effect was carried out.
    Done(EffectId),
}

/// An event with its time. Its place in the log is its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    pub at: Millis,
    pub event: Event,
}

/// The number of the event that an effect follows from, and its place among those that do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectId(pub u64, pub u32);

/// How requests are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// The split that a step says.
    Step(usize),
    /// All to targets that run the old version, as far as there are any.
    Back,
    /// Equally to all targets, which run the old version again.
    Restored,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Check signature, provenance and policy.
    Verify(Version),
    /// Get the deploy lock.
    Lock,
    Unlock(u64),
    /// Tell a target what it is to run.
    Apply(TargetId, Desired),
    /// Split the requests between the versions, under this generation.
    Shift(Shift, Generation),
    /// Ask the judge about what has been changed so far.
    Judge,
    /// Never roll this release out again.
    Quarantine(Version),
    /// Call a person, with these words.
    Page(String),
}
