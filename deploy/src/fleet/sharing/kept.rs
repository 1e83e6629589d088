//! What is kept of an agent that gives pieces: frontends hear of each other's by it.

use serde::{Deserialize, Serialize};

use crate::oci::ContentDigest;
use crate::rollouts::machine::Millis;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptPeer {
    pub version: ContentDigest,
    pub list: ContentDigest,
    pub pieces: u32,
    pub has: u32,
    pub near: String,
    pub address: String,
    pub fingerprint: String,
    /// When the agent was heard last, by the servers' clock.
    pub heard: Millis,
}

/// How a peer is reached, and known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub address: String,
    pub fingerprint: String,
}
