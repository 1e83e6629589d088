//! How requests are split between the version that is new and the one that was there.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{PartError, Place};
use crate::rollouts::machine::Generation;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The side with the old version.
    Baseline,
    /// The side with the new version.
    Canary,
}

/// A target that serves requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub name: String,
    /// The address at which it serves: `host:port`.
    pub address: String,
}

/// Targets that share a part of the requests equally.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    pub side: Side,
    /// Percent of all requests, from 0 to 100. With 0 a pool gets none, and keeps its connections until they end.
    pub share: f64,
    pub members: Vec<Member>,
}

/// All that a place's balancer is to do. The shares of its pools add up to 100. As JSON it stands in a comment of what is
/// rendered, and programs are told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// What is older than what was set last is refused; the same again changes nothing.
    pub generation: Generation,
    pub pools: Vec<Pool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// New requests are split so.
    Now,
    /// This newer generation was set already.
    Stale(Generation),
}

/// A balancer, or whatever stands for one.
#[async_trait]
pub trait Traffic: Send + Sync + 'static {
    /// Returns when new requests are split so. `Err`: the former split holds as far as is known, and it is said again.
    async fn set(&self, place: &Place, split: &Split) -> Result<Applied, PartError>;

    /// What is set, read back from what really splits; `None`: nothing was set yet.
    async fn observe(&self, place: &Place) -> Result<Option<Split>, PartError>;
}
