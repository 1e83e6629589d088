//! What runs a service: hosts with an agent, or whatever a program of the operator drives.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{PartError, Place};
use crate::oci::ContentDigest;
use crate::rollouts::machine::{Generation, Millis};

/// Targets of one service in one environment.
pub const MAX_TARGETS: usize = 100_000;

/// Says which targets are meant: those of the place that have all these labels with these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    pub place: Place,
    pub labels: BTreeMap<String, String>,
}

/// A target as it is known before anything is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Names it within its place, for as long as it is there.
    pub name: String,
    /// `host:port` under which it serves, where it is known: balancers and probes use it.
    pub address: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What a target is to run from now on. The same order may arrive again, and then changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub place: Place,
    /// Digest of the release's manifest.
    pub version: ContentDigest,
    /// A target refuses what is older than the newest it was told, and takes one generation for one version.
    pub generation: Generation,
    /// The rollout that says so.
    pub rollout: String,
}

/// What became of telling a target: not yet of what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The target knows, or will when it asks.
    Accepted,
    /// The target obeys this newer generation.
    Stale(Generation),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Well,
    /// The target is not well: why, in words.
    Unwell(String),
    /// Nobody has looked yet.
    Unknown,
}

/// What was found out about a target. A target that does not answer has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// What really runs, as something other than the order it got says; `None`: nothing.
    pub version: Option<ContentDigest>,
    /// The newest generation that it has carried out or refused to carry out.
    pub generation: Generation,
    pub health: Health,
    /// When the target was last heard of, in Unix milliseconds.
    pub seen: Millis,
    /// How often what runs has ended by itself since this version was started.
    pub crashes: u64,
    /// Why the target did not carry out what it was told, in words; `None`: it did, or goes on.
    pub failed: Option<String>,
}

/// Drives targets. Nothing here waits for a target to have done something.
#[async_trait]
pub trait Targets: Send + Sync + 'static {
    /// Targets by their names in ascending order, at most [`MAX_TARGETS`].
    async fn list(&self, selector: &Selector) -> Result<Vec<Target>, PartError>;

    /// Tells one target. `Err`: it is not known whether it was told; it is told again.
    async fn tell(&self, target: &str, order: &Order) -> Result<Told, PartError>;

    /// What each of these runs, in the same order; `None`: it has not been heard of for as long as the implementation
    /// takes for silence, or nobody knows it. `Err`: nothing is known of any of them.
    async fn observe(
        &self,
        place: &Place,
        targets: &[String],
    ) -> Result<Vec<Option<Observation>>, PartError>;
}
