//! What an agent was told, kept in a file.

use serde::{Deserialize, Serialize};

use crate::oci::ContentDigest;
use crate::rollouts::machine::Generation;

/// What is to run from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub version: ContentDigest,
    pub generation: Generation,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentState {
    /// The newest that was accepted.
    pub generation: Generation,
    /// The version that this generation says is to run; `None`: none was told yet.
    pub version: Option<ContentDigest>,
    /// Whether this generation is not carried out yet.
    pub open: bool,
    /// The newest that was carried out, or given up.
    pub settled: Generation,
    /// What ran well last.
    pub current: Option<ContentDigest>,
    /// What ran before it, and is still there.
    pub previous: Option<ContentDigest>,
    /// Why the last order was not carried out.
    pub failed: Option<String>,
}
