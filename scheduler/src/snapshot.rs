//! The scheduler as status pages and metrics see it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::queue::Counters;

/// Operations listed in a snapshot, at most, queued and running each.
pub const MAX_LISTED: usize = 200;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    pub workers: Vec<WorkerView>,
    /// The number of all tasks that wait, of which `queued` lists the oldest.
    pub queue_depth: usize,
    pub running_count: usize,
    pub slots: u64,
    pub oldest_queued_ms: Option<u64>,
    pub queued: Vec<OperationView>,
    pub running: Vec<OperationView>,
    pub property_sets: Vec<PropertySetView>,
    pub draining: bool,
    pub counters: Counters,
    pub cache_hits: u64,
    /// Finished executions by `google.rpc.Code` name; `OK` includes non-zero exit codes.
    pub completed: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WorkerView {
    pub id: String,
    pub host_name: String,
    pub version: String,
    pub slots: u32,
    pub occupied: u32,
    pub draining: bool,
    /// Why the worker takes no leases for now; `None`: it takes some.
    #[serde(default)]
    pub paused: Option<String>,
    pub last_seen_ms: u64,
    pub properties: Vec<(String, String)>,
    pub not_enforced: Vec<String>,
}

impl WorkerView {
    /// The number of slots in which the worker would take up something now.
    pub fn free(&self) -> u32 {
        let takes = !self.draining && self.paused.is_none();
        if takes { self.slots.saturating_sub(self.occupied) } else { 0 }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct OperationView {
    pub name: String,
    pub instance: String,
    /// `{hash}/{size}`, with `blake3/` in front where it applies.
    pub action: String,
    pub target: String,
    pub mnemonic: String,
    pub invocation: String,
    /// Milliseconds since the task was queued or, when it runs, leased.
    pub for_ms: u64,
    /// Milliseconds that the task waited until it was leased; 0 while it waits.
    #[serde(default)]
    pub waited_ms: u64,
    /// Milliseconds that the action is expected to run, learned from other targets of its mnemonic
    /// where it has not run itself; `None`: not known.
    pub expected_ms: Option<u64>,
    pub worker: String,
    pub attempt: u32,
    pub waiters: usize,
    /// The platform properties that the action requires of its worker.
    pub properties: Vec<(String, String)>,
    /// Names under which `ByteStream.Read` answers with stdout and stderr while they grow.
    pub streams: [String; 2],
}

#[derive(Debug, Clone, Serialize)]
pub struct PropertySetView {
    pub properties: Vec<(String, String)>,
    pub queued: usize,
    pub running: usize,
    /// Slots that an autoscaler should provide for this set: all that wait or run.
    pub slots_wanted: usize,
    /// Some worker offers these properties.
    pub served: bool,
}

impl PropertySetView {
    /// Whether actions wait that no worker can take.
    pub fn waits_in_vain(&self) -> bool {
        !self.served && self.queued > 0
    }
}
