//! What happens to a download, and what it wants done.

use crate::rollouts::machine::Millis;
use crate::swarm::bits::Bits;

/// The number that whoever drives a download gives a peer.
pub type PeerId = u32;

/// Pieces that are named to the tracker as found nowhere, and granted pieces that are accepted.
pub const MAX_NAMED: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pieces on their way at once.
    pub downloads: usize,
    /// How many of these may come from one peer.
    pub of_peer: usize,
    /// How many of these may come from the origin.
    pub of_origin: usize,
    /// Peers that are known at once.
    pub peers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { downloads: 3, of_peer: 2, of_origin: 2, peers: 16 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Origin,
    Peer(PeerId),
}

/// Why a piece did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The peer serves as many as it may.
    Busy,
    /// The peer does not have the piece any more.
    Lacks,
    /// The peer could not be reached, or broke off.
    Gone,
    /// Other bytes came than the list of pieces says.
    Corrupt,
}

/// Why a peer is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The peer sent other bytes than it should have, or said what cannot be.
    Lied,
    Slow,
    Gone,
}

impl Why {
    pub fn words(self) -> &'static str {
        match self {
            Self::Lied => "it sent other bytes than were asked for",
            Self::Slow => "it is too slow",
            Self::Gone => "it cannot be reached",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed, and nothing else happened.
    Tick,
    /// The tracker's answer: peers, and whether each is near; pieces that may be fetched from the origin; when to ask again.
    Told {
        peers: Vec<(PeerId, bool)>,
        grants: Vec<u32>,
        again: Millis,
    },
    /// The tracker does not answer.
    NotTold,
    /// A peer says what it has.
    Has(PeerId, Bits),
    /// A peer does not say what it has.
    HasNot(PeerId),
    /// A piece came, and its bytes were verified.
    Came(Source, u32),
    Failed(Source, u32, Failure),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The tracker is to be told which of the granted pieces are here, and which are found nowhere; its answer is
    /// [`Event::Told`] or [`Event::NotTold`].
    Announce {
        seeded: Vec<u32>,
        starving: Vec<u32>,
    },
    /// A peer is to be asked what it has.
    AskHas(PeerId),
    Fetch(Source, u32),
    /// A piece is not waited for any more.
    Cancel(Source, u32),
    Drop(PeerId, Why),
    /// The origin itself sent other bytes than the list of pieces says: the list or the origin is wrong.
    Broken(u32),
    /// All pieces are here.
    Done,
}
