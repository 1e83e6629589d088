//! The state of the server as a whole, for programs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::build::BuildCounts;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
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
    /// Sets of queued operations that no worker can take.
    #[serde(default)]
    pub unserved: Vec<Unserved>,
    /// Files that changed and cannot be used: what was read before is still in force.
    #[serde(default)]
    pub failed_reloads: Vec<FailedReload>,
    /// The storage of this process; in a fleet, the copies that it keeps.
    pub storage: Storage,
    /// What a fleet shares; absent: nothing is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
    pub journal: JournalStatus,
    #[serde(default)]
    pub tests: TestsStatus,
}

/// What became history of the tests that ran here since the start.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct TestsStatus {
    /// Whether history of tests is recorded at all (`tests.record`).
    pub recording: bool,
    /// Attempts that this process has written.
    pub attempts: u64,
    /// Executions and reports that came faster than they could be taken in.
    pub lost: u64,
    /// Batches that could not be written, each of which is tried again.
    pub failed_writes: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct FailedReload {
    /// Which files failed to be read again, in words: `access files and keys`, for example.
    pub what: String,
    pub error: String,
}

/// Actions whose properties no worker offers.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Unserved {
    pub properties: Vec<(String, String)>,
    pub queued: usize,
    /// Which of the properties no worker offers, and what workers offer instead, in words.
    pub reason: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Storage {
    pub blobs: u64,
    pub used_bytes: u64,
    pub reserved_bytes: u64,
    pub max_bytes: u64,
    pub promised_bytes: u64,
    /// Blobs that stay until somebody lets go of them, of the whole fleet, and their bytes.
    #[serde(default)]
    pub pinned_blobs: u64,
    #[serde(default)]
    pub pinned_bytes: u64,
    pub evicted_blobs_total: u64,
    pub refused_writes_total: u64,
    /// Blobs promised to builds that are over which made room before their lease ended.
    #[serde(default)]
    pub cut_blobs_total: u64,
    /// The limit with which every promise since the start would have been kept.
    #[serde(default)]
    pub wanted_bytes: u64,
    pub actions: u64,
    pub action_cache_used_bytes: u64,
    pub action_cache_max_bytes: u64,
}

/// The blobs that a whole fleet shares.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Shared {
    pub blobs: u64,
    pub bytes: u64,
    /// Small blobs that are still to be written to S3.
    pub pending: u64,
    /// S3 holds blobs that the index does not know: `kiln index rebuild`.
    pub index_incomplete: bool,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct JournalStatus {
    /// Executions that the journal keeps in records.
    pub executions: u64,
    pub builds: u64,
    /// Counts of all requests since the server started.
    pub since_start: BuildCounts,
    pub pending: usize,
    pub lost_events: u64,
    pub dropped: u64,
    pub learned_durations: usize,
}
