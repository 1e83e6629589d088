//! What an agent was told, kept in a file.

use serde::{Deserialize, Serialize};

use crate::oci::ContentDigest;

/// How new an order is; see [`Generation`](crate::rollouts::machine::Generation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    pub fence: u64,
    pub change: u64,
}

/// What is to run from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub version: ContentDigest,
    pub generation: Told,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The newest that was accepted.
    pub generation: Told,
    /// What it said.
    pub version: Option<String>,
    /// It is not carried out yet.
    pub open: bool,
    /// What ran well last.
    pub current: Option<String>,
    /// What ran before it, and is still there.
    pub previous: Option<String>,
    /// Why the last order was not carried out.
    pub failed: Option<String>,
}
