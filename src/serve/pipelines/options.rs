//! What pipelines are started with.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Where the operator's pipelines are; `None`: there are none.
    pub directory: Option<PathBuf>,
    /// Of their runs.
    pub instance: String,
    /// How long runs stay after their end.
    pub keep: Duration,
    /// Stages of one run that run at the same time.
    pub most: usize,
}
