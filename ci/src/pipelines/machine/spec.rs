//! What a run is to do; it never changes.

use std::time::Duration;

use crate::pipelines::explain::needs;
use crate::pipelines::order::behind;
use crate::pipelines::stage::Stage;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub stages: Vec<Stage>,
    /// Who began the run.
    pub by: String,
    /// The longest time of the run, from when its turn came.
    pub timeout: Duration,
    /// Stages that run at the same time; those that wait for people do not count.
    pub most: usize,
    /// For each stage the indexes of those that need it.
    pub behind: Vec<Vec<usize>>,
}

impl Spec {
    /// `stages` need each other in no circle.
    pub fn new(stages: Vec<Stage>, by: &str, timeout: Duration, most: usize) -> Self {
        let behind = behind(&needs(&stages));
        Self { stages, by: by.to_owned(), timeout, most: most.max(1), behind }
    }
}

pub(super) fn index(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
