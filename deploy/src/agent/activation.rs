//! How a version that lies there becomes the one that runs.

use std::path::Path;

use super::hook::{Hook, HookError};
use super::source::GoesOn;

/// What surrounds the switch of the link.
pub trait Activation: Send + Sync {
    /// What is done before a version is switched to: where it fails, nothing is switched.
    fn before(&self, version: &Path) -> Result<(), HookError>;

    /// What is done after a version was switched to: what runs becomes this version, and shows whether it is well.
    /// Where it fails, the version before is switched back, and this is called for it.
    fn after(&self, version: &Path, goes_on: GoesOn<'_>) -> Result<(), HookError>;
}

/// Programs around the switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    pub before: Option<Hook>,
    /// A program that runs after a version was switched to, such as a restart and a check.
    pub after: Option<Hook>,
}

impl Activation for Hooks {
    fn before(&self, version: &Path) -> Result<(), HookError> {
        self.before.as_ref().map_or(Ok(()), |hook| hook.run(version))
    }

    fn after(&self, version: &Path, _: GoesOn<'_>) -> Result<(), HookError> {
        self.after.as_ref().map_or(Ok(()), |hook| hook.run(version))
    }
}
