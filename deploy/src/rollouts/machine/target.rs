//! What is known of a target that was touched.

use super::spec::{Desired, Millis, Running};

/// A target that was touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub desired: Desired,
    pub running: Option<Running>,
    /// When the target was told last, and (`tries`) how often since what it is to run changed.
    pub asked: Millis,
    pub tries: u32,
    pub given_up: bool,
    /// Whether the target was told to run the new version, and may have returned since. One that was not is a baseline
    /// that was started anew.
    pub was_new: bool,
}

impl Target {
    /// Whether the target was seen to run what it was told, after it was told.
    pub fn is_settled(&self) -> bool {
        let Desired { version, generation } = &self.desired;
        matches!(&self.running, Some(Running::Version(running, told)) if running == version && told == generation)
    }

    /// Whether the target was told often enough and does not answer any more.
    pub fn is_lost(&self) -> bool {
        self.given_up && matches!(self.running, None | Some(Running::Silent))
    }

    /// Whether the target answers, and does not run what it was told however often it was told.
    pub fn is_stuck(&self) -> bool {
        self.given_up && !self.is_settled() && matches!(self.running, Some(Running::Version(..)))
    }
}
