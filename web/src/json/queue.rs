//! What the scheduler says of itself, as the description of the API has it. The scheduler's own types
//! (`kiln_scheduler::snapshot`) are written; a test holds them against these.

use schemars::JsonSchema;

#[derive(JsonSchema)]
#[allow(dead_code, reason = "it describes what other types write")]
pub struct Operation {
    pub name: String,
    pub instance: String,
    /// `{hash}/{size}`, with `blake3/` in front where it applies.
    pub action: String,
    pub target: String,
    pub mnemonic: String,
    pub invocation: String,
    /// Milliseconds since the operation was queued or, where it runs, since it was leased.
    pub for_ms: u64,
    /// Milliseconds that the operation waited until it was leased; 0 while it waits.
    pub waited_ms: u64,
    /// Milliseconds that the operation is expected to run; null: that is not known.
    pub expected_ms: Option<u64>,
    pub worker: String,
    pub attempt: u32,
    pub waiters: usize,
    /// What the action requires of its worker: pairs of name and value.
    pub properties: Vec<Vec<String>>,
    /// Names under which `ByteStream.Read` answers with stdout and stderr while they grow.
    pub streams: Vec<String>,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "it describes what other types write")]
pub struct Worker {
    pub id: String,
    pub host_name: String,
    pub version: String,
    pub slots: u32,
    pub occupied: u32,
    pub draining: bool,
    /// Why the worker takes nothing for now; null: it takes actions.
    pub paused: Option<String>,
    pub last_seen_ms: u64,
    /// The worker's platform properties: pairs of name and value.
    pub properties: Vec<Vec<String>>,
    pub not_enforced: Vec<String>,
}

#[derive(JsonSchema)]
#[allow(dead_code, reason = "it describes what other types write")]
pub struct PropertySet {
    /// The platform properties of this set: pairs of name and value.
    pub properties: Vec<Vec<String>>,
    pub queued: usize,
    pub running: usize,
    /// Slots that an autoscaler should provide for this set: all that wait or run.
    pub slots_wanted: usize,
    /// Whether some worker offers these properties.
    pub served: bool,
}
