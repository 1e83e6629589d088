//! What agents and the tracker say to each other about pieces of releases.

use std::time::Duration;

use kiln_deploy::oci::DigestError;
use kiln_deploy::swarm::{PeerCard, Share, Shared};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fleet::AgentSpeaker;

/// `POST /api/v1/fleet/agent/share`: what an agent has of a version that it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentShare {
    pub from: AgentSpeaker,
    pub version: String,
    /// Digest of the list of pieces, as `/fleet/agent/pieces` gave it.
    pub list: String,
    /// Pieces of the list, and how many of them are here.
    pub pieces: u32,
    pub has: u32,
    /// Pieces that were granted, and are here.
    #[serde(default)]
    pub seeded: Vec<u32>,
    /// Numbers of pieces that the agent found nowhere.
    #[serde(default)]
    pub starving: Vec<u32>,
    /// Agents of one value are near each other.
    #[serde(default)]
    pub near: String,
    /// SHA-256 of the certificate that this agent shows to others.
    pub fingerprint: String,
    /// `host:port` under which others reach it; an agent without one gives nothing.
    #[serde(default)]
    pub address: Option<String>,
}

/// An agent that others may fetch from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentPeer {
    pub name: String,
    pub address: String,
    pub fingerprint: String,
    pub near: bool,
}

/// Other agents, and what may be fetched from the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentShared {
    pub peers: Vec<AgentPeer>,
    /// Pieces that may be fetched from the server.
    pub grants: Vec<u32>,
    /// Milliseconds after which the agent should ask again.
    pub again_ms: u64,
    /// Shows others that this agent may have the version.
    pub pass: String,
    /// Public keys by which passes of other agents are verified.
    pub keys: Vec<String>,
}

impl AgentShare {
    pub fn new(from: AgentSpeaker, share: &Share) -> Self {
        Self {
            from,
            version: share.version.to_string(),
            list: share.list.to_string(),
            pieces: share.pieces,
            has: share.has,
            seeded: share.seeded.clone(),
            starving: share.starving.clone(),
            near: share.near.clone(),
            fingerprint: share.fingerprint.clone(),
            address: share.address.clone(),
        }
    }

    /// The agent that speaks, and what it has. Errors: a digest cannot be read.
    pub fn parts(self) -> Result<(AgentSpeaker, Share), DigestError> {
        let share = Share {
            version: self.version.parse()?,
            list: self.list.parse()?,
            pieces: self.pieces,
            has: self.has,
            seeded: self.seeded,
            starving: self.starving,
            near: self.near,
            fingerprint: self.fingerprint,
            address: self.address,
        };
        Ok((self.from, share))
    }
}

impl From<Shared> for AgentShared {
    fn from(it: Shared) -> Self {
        let peers = it.peers.into_iter().map(|it| AgentPeer {
            name: it.name,
            address: it.address,
            fingerprint: it.fingerprint,
            near: it.is_near,
        });
        Self {
            peers: peers.collect(),
            grants: it.grants,
            again_ms: u64::try_from(it.again.as_millis()).unwrap_or(u64::MAX),
            pass: it.pass,
            keys: it.keys,
        }
    }
}

impl From<AgentShared> for Shared {
    fn from(it: AgentShared) -> Self {
        let peers = it.peers.into_iter().map(|it| PeerCard {
            name: it.name,
            address: it.address,
            fingerprint: it.fingerprint,
            is_near: it.near,
        });
        Self {
            peers: peers.collect(),
            grants: it.grants,
            again: Duration::from_millis(it.again_ms),
            pass: it.pass,
            keys: it.keys,
        }
    }
}
