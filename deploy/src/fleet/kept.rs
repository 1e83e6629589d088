//! What is kept of an agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agent::Status;
use crate::oci::ContentDigest;
use crate::rollouts::machine::{Generation, Millis};

/// Turns between well and unwell that are remembered.
pub const MAX_TURNS: usize = 8;
/// Versions that were told before, and may still be fetched.
const MAX_EARLIER: usize = 4;

/// What an agent said last. Times are those of the servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeptAgent {
    /// Whose credentials registered the agent: no others speak for it. Empty: anybody's do.
    pub account: String,
    /// The identity of the directory that the agent works in.
    pub identity: String,
    pub address: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// The version of the agent itself.
    pub software: String,
    pub registered: Millis,
    pub heard: Millis,
    /// Since when the agent runs what it runs.
    pub since: Millis,
    pub status: Status,
    /// The last times when the service turned from well to unwell or back.
    pub turns: Vec<Millis>,
}

/// What an agent is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeptOrder {
    pub version: ContentDigest,
    pub generation: Generation,
    /// The rollout that says so, or the person.
    pub by: String,
    pub at: Millis,
    /// Versions that the agent was told before, the latest first.
    pub earlier: Vec<ContentDigest>,
}

impl KeptOrder {
    /// The order that follows.
    pub fn followed(before: Option<&Self>, version: &ContentDigest) -> Vec<ContentDigest> {
        let before = before.into_iter().flat_map(|it| [&it.version].into_iter().chain(&it.earlier));
        let mut earlier: Vec<ContentDigest> = Vec::new();
        for one in before.filter(|it| *it != version) {
            if !earlier.contains(one) && earlier.len() < MAX_EARLIER {
                earlier.push(one.clone());
            }
        }
        earlier
    }

    pub fn may_be_fetched(&self, version: &ContentDigest) -> bool {
        self.version == *version || self.earlier.contains(version)
    }
}
