//! What an agent and the tracker say to each other.

use std::time::Duration;

use crate::oci::ContentDigest;

/// What an agent has of a version, and wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub version: ContentDigest,
    /// Names the list of pieces.
    pub list: ContentDigest,
    /// Pieces of the list, and how many of them are here.
    pub pieces: u32,
    pub has: u32,
    /// Pieces that were granted, and are here.
    pub seeded: Vec<u32>,
    /// Pieces that are found nowhere.
    pub starving: Vec<u32>,
    /// Agents of one value are near each other.
    pub near: String,
    /// SHA-256 of the certificate that this agent shows to others, in hexadecimal digits.
    pub fingerprint: String,
    /// `host:port` under which others reach it; `None`: it gives nothing.
    pub address: Option<String>,
}

/// An agent that others may fetch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCard {
    pub name: String,
    pub address: String,
    /// The fingerprint of the certificate that this peer shows, and nobody else.
    pub fingerprint: String,
    pub is_near: bool,
}

/// The tracker's answer to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    pub peers: Vec<PeerCard>,
    /// Pieces that may be fetched from the server.
    pub grants: Vec<u32>,
    /// The time after which to ask again.
    pub again: Duration,
    /// Shows others that this agent may have the version.
    pub pass: String,
    /// Public keys in hexadecimal digits by which the passes of others are verified.
    pub keys: Vec<String>,
}
