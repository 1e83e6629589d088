//! What a tracker answers to an agent that fetches or has one list of pieces.

use fastrand::Rng;

use super::sample::{Crowd, Known};
use super::seeding::Seeding;
use crate::rollouts::machine::Millis;

/// The times between two questions of an agent that fetches, and of one that has all.
const ASK_EVERY: Millis = 2_000;
const SEED_EVERY: Millis = 20_000;
/// Questions in a millisecond: where more agents fetch, each asks less often.
const ASKED: u64 = 5;
/// The most agents that are each granted several pieces at once.
const FEW: usize = 4;
/// The number of agents from which on who has brought a piece from the origin leaves the next one to another: it has
/// that piece to pass on.
const MANY: usize = 64;

/// What an agent says.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a, P> {
    pub name: &'a str,
    /// The text that says what is near the agent: others with the same text are.
    pub near: &'a str,
    /// How many pieces the agent has.
    pub has: u32,
    /// Pieces that it was granted, and has.
    pub seeded: &'a [u32],
    /// Pieces that the agent finds nowhere.
    pub starving: &'a [u32],
    /// The address and the rest by which the agent is reached; `None`: it gives nothing.
    pub peer: Option<&'a P>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerAnswer<P> {
    /// Name, how it is reached, and whether it is near.
    pub peers: Vec<(String, P, bool)>,
    /// Pieces that may be fetched from the origin.
    pub grants: Vec<u32>,
    /// When to ask again.
    pub again: Millis,
}

#[derive(Debug)]
pub struct Swarm<P> {
    pub crowd: Crowd<P>,
    seeding: Seeding,
}

impl<P: Clone> Swarm<P> {
    pub fn new(pieces: u32) -> Self {
        Self { crowd: Crowd::default(), seeding: Seeding::new(pieces) }
    }

    pub fn answer(&mut self, ask: &Ask<'_, P>, now: Millis, rng: &mut Rng) -> TrackerAnswer<P> {
        if let Some(peer) = ask.peer.cloned() {
            let near = ask.near.to_owned();
            self.crowd.hear(ask.name, Known { near, has: ask.has, heard: now, peer }, now);
        }
        self.seeding.seeded(ask.name, ask.seeded, now);
        if ask.has >= self.seeding.pieces() {
            self.seeding.close(ask.name);
            return TrackerAnswer { peers: Vec::new(), grants: Vec::new(), again: SEED_EVERY };
        }
        let most = match self.crowd.len() {
            few if few <= FEW => FEW,
            many if many >= MANY && !ask.seeded.is_empty() => 0,
            _ => 1,
        };
        let grants = self.seeding.grant(ask.name, ask.starving, most, now);
        let sample = self.crowd.sample(ask.name, ask.near, now, rng);
        let peers = sample.into_iter().map(|(name, it, near)| (name.to_owned(), it.clone(), near));
        let again = ASK_EVERY.max(self.crowd.len() as u64 / ASKED);
        TrackerAnswer { peers: peers.collect(), grants, again }
    }
}
