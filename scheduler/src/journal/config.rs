//! How much a journal keeps, and how soon it writes.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// Executions kept; the oldest go first.
    pub max_executions: u64,
    /// Builds kept; the oldest go first.
    pub max_builds: u64,
    /// Cache hits of one build that are kept one by one; all are counted.
    pub max_stored_hits_per_build: u64,
    /// Pairs of target and mnemonic whose run time is remembered.
    pub max_durations: usize,
    /// Pending executions are written as soon as there are this many of them.
    pub batch_count: usize,
    /// Pending executions are written at the latest this long after the first of them came.
    pub batch_delay: Duration,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            max_executions: 100_000,
            max_builds: 2_000,
            max_stored_hits_per_build: 1_000,
            max_durations: 20_000,
            batch_count: 200,
            batch_delay: Duration::from_millis(500),
        }
    }
}
