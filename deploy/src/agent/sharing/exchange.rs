//! What agents ask each other.

use super::assembly::Assembly;
use crate::agent::source::GoesOn;
use crate::oci::ContentDigest;
use crate::swarm::{PeerCard, Share};

/// How others know and reach this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of its certificate, in hexadecimal digits.
    pub fingerprint: String,
    /// `host:port`; `None`: it gives nothing.
    pub address: Option<String>,
}

impl Identity {
    /// What the tracker hears of what is here.
    pub fn share(&self, assembly: &Assembly, near: &str) -> Share {
        let count = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
        Share {
            version: assembly.version.clone(),
            list: assembly.digest.clone(),
            pieces: count(assembly.list.len()),
            has: count(assembly.have().count()),
            seeded: Vec::new(),
            starving: Vec::new(),
            near: near.to_owned(),
            fingerprint: self.fingerprint.clone(),
            address: self.address.clone(),
        }
    }
}

/// What a question is about, and why it may be asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub list: &'a ContentDigest,
    pub pass: &'a str,
}

/// Why another agent gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error("it serves as many as it may")]
    Busy,
    #[error("it does not have it")]
    Lacks,
    #[error("it cannot be asked: {0}")]
    Gone(String),
    #[error("the agent does something else")]
    Stopped,
}

/// The way to other agents. Each call blocks, for no longer than a limit of its own. What it brings nobody has verified, but that
/// it came from whoever shows the fingerprint of the card.
pub trait Exchange: Send + Sync {
    fn identity(&self) -> Identity;

    /// Asks a peer which pieces it has. The answer has `most` bytes at most.
    fn has(
        &self,
        peer: &PeerCard,
        asked: &Asked<'_>,
        most: usize,
        goes_on: GoesOn<'_>,
    ) -> Result<Vec<u8>, PeerError>;

    /// Fetches one piece of `size` bytes from a peer; one byte more comes at most.
    fn piece(
        &self,
        peer: &PeerCard,
        asked: &Asked<'_>,
        piece: u32,
        size: u32,
        goes_on: GoesOn<'_>,
    ) -> Result<Vec<u8>, PeerError>;
}
