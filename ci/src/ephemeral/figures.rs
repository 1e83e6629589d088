//! How many environments there are.

use std::sync::{Mutex, PoisonError};

use super::machine::{Phase, Preview};

/// Environments of all servers of the same records, as one of these looked at them last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PreviewCounts {
    pub coming: u64,
    pub up: u64,
    pub going: u64,
    /// How many of those that go could not be taken down when it was tried last.
    pub stuck: u64,
}

/// What was counted last.
#[derive(Debug, Default)]
pub struct PreviewFigures(Mutex<PreviewCounts>);

impl PreviewCounts {
    pub fn of(all: &[Preview]) -> Self {
        let in_phase = |phase| all.iter().filter(|it| it.phase == phase).count() as u64;
        let stuck = all.iter().filter(|it| it.phase == Phase::Going && it.failures > 0).count();
        Self {
            coming: in_phase(Phase::Coming),
            up: in_phase(Phase::Up),
            going: in_phase(Phase::Going),
            stuck: stuck as u64,
        }
    }
}

impl PreviewFigures {
    pub fn read(&self) -> PreviewCounts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, counts: PreviewCounts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}
