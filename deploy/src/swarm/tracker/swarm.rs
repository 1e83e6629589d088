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
/// Pieces that an agent may fetch from the origin at once when no other one shares; of several agents each has its part of
/// these, and one at least.
const ALONE: usize = 4;
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
        // Who brings a piece asks before all others. Without its part it would fetch for all of them, over its one link.
        let most = match self.crowd.len() {
            many if many >= MANY && !ask.seeded.is_empty() => 0,
            agents => (ALONE / agents.max(1)).max(1),
        };
        let grants = self.seeding.grant(ask.name, ask.starving, most, now);
        let sample = self.crowd.sample(ask.name, ask.near, now, rng);
        let peers = sample.into_iter().map(|(name, it, near)| (name.to_owned(), it.clone(), near));
        let again = ASK_EVERY.max(self.crowd.len() as u64 / ASKED);
        TrackerAnswer { peers: peers.collect(), grants, again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_first_does_not_fetch_for_all_others() {
        let (mut swarm, mut rng) = (Swarm::new(100), Rng::with_seed(1));
        let mut granted = |name: &str, seeded: &[u32]| {
            let ask = Ask { name, near: "", has: 1, seeded, starving: &[], peer: Some(&()) };
            swarm.answer(&ask, 0, &mut rng).grants
        };
        assert_eq!(granted("web-0", &[]), [0, 1, 2, 3], "it is alone");
        for other in ["web-1", "web-2", "web-3", "web-4"] {
            assert!(granted(other, &[]).is_empty(), "so many are on their way");
        }
        assert!(granted("web-0", &[0]).is_empty(), "it still has more than its part");
        assert_eq!(granted("web-1", &[]), [4]);
        assert!(granted("web-0", &[1, 2]).is_empty(), "it still has its part");
        assert_eq!(granted("web-2", &[]), [5]);
        assert!(granted("web-2", &[]).is_empty(), "it has its part");
        assert_eq!(granted("web-0", &[3]), [6], "it has brought all");
    }
}
