//! The server as a whole.

use serde::{Deserialize, Serialize};

use super::BuildCounts;

#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub base_url: String,
    pub uptime_seconds: u64,
    pub draining: bool,
    pub workers: usize,
    pub slots: u64,
    pub running: usize,
    pub queued: usize,
    pub oldest_queued_ms: Option<u64>,
    pub storage: Storage,
    pub journal: JournalStatus,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Storage {
    pub blobs: u64,
    pub used_bytes: u64,
    pub reserved_bytes: u64,
    pub max_bytes: u64,
    pub promised_bytes: u64,
    pub evicted_blobs_total: u64,
    pub refused_writes_total: u64,
    pub actions: u64,
    pub action_cache_used_bytes: u64,
    pub action_cache_max_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Kept in records.
    pub executions: u64,
    pub builds: u64,
    /// Of all requests since the server started.
    pub since_start: BuildCounts,
    pub pending: usize,
    pub lost_events: u64,
    pub dropped: u64,
    pub learned_durations: usize,
}
