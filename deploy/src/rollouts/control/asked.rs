//! What is asked for when a rollout is to begin.

use super::error::ControlError;
use super::notice;
use crate::releases::ReleaseName;
use crate::rollouts::plan;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The declaration, in TOML.
    pub declared: String,
    pub release: ReleaseName,
    pub environment: String,
    pub by: String,
    pub reason: String,
    /// A rollout that runs there is reverted first.
    pub supersede: bool,
    /// Whether the release may be rolled out although it was reverted there.
    pub again: bool,
    /// Whether this is a drill, which only proves that its canary would be reverted.
    pub drill: bool,
    /// Whether the release may be rolled out although a drill is overdue there.
    pub without_drill: bool,
    /// The release that the rollout returns to, where no rollout has ended well there yet.
    pub previous: Option<ReleaseName>,
}

/// What is wrong with a place's name would be wrong in a key.
pub fn check_environment(name: &str) -> Result<(), ControlError> {
    let wrong = || ControlError::Unfit(format!("{:?} is no environment", notice::cut(name)));
    plan::is_name(name).then_some(()).ok_or_else(wrong)
}
