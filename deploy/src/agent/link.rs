//! What an agent says to its server, and hears from it. The agent always begins: nothing connects to it.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state::Order;
use crate::oci::ContentDigest;
use crate::releases::Release;
use crate::rollouts::machine::Generation;
use crate::rollouts::parts::Place;
use crate::swarm::{Share, Shared};

/// Bytes of a text that an agent says, such as why something failed.
pub const MAX_SAID: usize = 1_000;

/// The agent that speaks to its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    pub place: Place,
    /// Names the host within its place.
    pub name: String,
    /// A random text that was made with the agent's directory: two hosts of one name differ in it.
    pub identity: String,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Health {
    Well,
    /// The service is not well: why, in words.
    Unwell(String),
    /// Nobody has looked yet, or nobody was told how to.
    #[default]
    Unknown,
}

/// How an agent stands, read back from what is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Status {
    /// What really runs; `None`: nothing.
    pub running: Option<ContentDigest>,
    /// What can be returned to without a download.
    pub previous: Option<ContentDigest>,
    /// The newest generation that was accepted.
    pub accepted: Generation,
    /// The newest that was carried out, or given up.
    pub settled: Generation,
    /// Why the newest was given up, or does not come to an end.
    pub failed: Option<String>,
    pub health: Health,
    /// How often what runs has ended by itself since it was switched to.
    pub crashes: u64,
    /// Bytes that are free where versions are kept.
    pub free: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub from: Speaker,
    /// `host:port` under which the service is reached.
    pub address: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// The version of the agent itself.
    pub software: String,
    pub status: Status,
}

/// A release with all that it is made of. Nobody has verified any of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub release: Release,
    /// Every blob with its size in bytes, manifests among them.
    pub blobs: Vec<(ContentDigest, u64)>,
}

/// Which bytes of a blob are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    pub blob: &'a ContentDigest,
    /// How many of the blob's first bytes are left out.
    pub start: u64,
    /// `None`: all that follow.
    pub length: Option<u64>,
}

/// Why the server did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The server could not be reached, and may answer later.
    #[error("the server cannot be asked: {0}")]
    Unreachable(String),
    /// The server answered, and the answer is no.
    #[error("the server refuses: {0}")]
    Refused(String),
}

/// An agent's way to its server. Each call blocks, for no longer than a limit of its own.
pub trait Link: Send + Sync {
    fn report(&self, report: &Report) -> Result<(), LinkError>;

    /// The order for this agent, as soon as its generation is another than `known`, or none after `wait`.
    fn order(
        &self,
        speaker: &Speaker,
        known: Generation,
        wait: Duration,
    ) -> Result<Option<Order>, LinkError>;

    /// What a version is made of that this agent was told.
    fn content(&self, speaker: &Speaker, version: &ContentDigest) -> Result<Content, LinkError>;

    /// A part of a blob of that version. What comes may be more than was asked for.
    fn blob(
        &self,
        speaker: &Speaker,
        version: &ContentDigest,
        part: &Wanted<'_>,
    ) -> Result<Box<dyn Read>, LinkError>;

    /// The list of the pieces of that version, as it is written. Nobody has looked at it.
    fn pieces(&self, speaker: &Speaker, version: &ContentDigest) -> Result<Vec<u8>, LinkError>;

    /// Says what this agent has of a version, and hears who else has some of it.
    fn share(&self, speaker: &Speaker, share: &Share) -> Result<Shared, LinkError>;
}

/// A text of at most [`MAX_SAID`] bytes, on one line.
pub fn short(text: &str) -> String {
    let mut said: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    said.truncate(said.floor_char_boundary(MAX_SAID));
    said
}
