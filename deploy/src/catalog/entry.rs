//! What is kept of a release, and of one that is not signed yet.

use serde::{Deserialize, Serialize};

use crate::oci::{ContentDigest, Descriptor};
use crate::provenance::Level;
use crate::releases::Release;
use crate::timestamp::Timestamp;

/// A release with what is known of it beside. Nothing but `rejected` ever changes, and once `content` and `tags` of
/// one that was made before the registry showed it. While a fleet is brought to another version,
/// a server reads what a newer one has written: what it does not know is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogEntry {
    pub release: Release,
    pub instance: String,
    /// `git+URL@COMMIT`, as whoever made it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The branch, as whoever made the release said, or whoever built it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    pub level: Level,
    pub closure: Counts,
    /// The key that signed, as PEM.
    pub public_key: String,
    pub made_by: String,
    /// The name of the pins of the release.
    pub pin: String,
    /// Digests of everything that the release is made of, with sizes in bytes.
    pub content: Vec<(ContentDigest, u64)>,
    /// Tags beside the version, under which clients look for what was signed that know no referrers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, Descriptor)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
}

/// What was signed of a release after it was made. It goes with the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// The name of the pins of what is attached.
    pub pin: String,
    pub manifest: ContentDigest,
    pub content: Vec<(ContentDigest, u64)>,
}

/// Counts of what the closure of a release holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub actions: usize,
    pub written: usize,
    pub sources: usize,
    pub missing: usize,
}

/// Says that somebody found that a release is not to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    pub by: String,
    pub reason: String,
    pub at: Timestamp,
}

/// A release with everything but the signatures. It is kept for an hour at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Draft {
    pub id: String,
    /// The release, without attestations that are signed.
    pub release: Release,
    pub instance: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    pub level: Level,
    pub closure: Counts,
    pub statements: Vec<Unsigned>,
    pub content: Vec<(ContentDigest, u64)>,
    /// Hashes of what was packed: which release holds a file.
    pub holds: Vec<String>,
    /// Until when earlier versions keep it, which read no draft without that; nothing here asks for it.
    pub until: Timestamp,
}

/// A statement that is to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unsigned {
    pub predicate_type: String,
    pub payload: Descriptor,
}
