//! Options of pipelines.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// The directory of the operator's pipelines; `None`: there are none.
    pub directory: Option<PathBuf>,
    /// The instance that runs of these pipelines belong to.
    pub instance: String,
    /// How long runs stay after their end.
    pub keep: Duration,
    /// Stages of one run that run at the same time.
    pub most: usize,
}
