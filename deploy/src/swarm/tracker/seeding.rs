//! Which agent fetches which piece from the origin: each piece goes out about once, and a few at a time, however many
//! agents there are. What an agent was granted and did not bring goes to another one.

use std::collections::HashMap;

use crate::rollouts::machine::Millis;

/// Pieces that are on their way from the origin at once.
const OPEN: usize = 4;
/// What was granted and did not come within this time is granted again.
const LOST_AFTER: Millis = 15_000;
/// What nobody finds any more is granted again, but not sooner than so long after the last time.
const AGAIN_AFTER: Millis = 5_000;

#[derive(Debug, Clone)]
struct Open {
    piece: u32,
    agent: String,
    since: Millis,
}

/// The pieces of one list.
#[derive(Debug)]
pub struct Seeding {
    pieces: u32,
    /// The first that was never granted.
    next: u32,
    open: Vec<Open>,
    /// Did not come, and are granted before others.
    lost: Vec<u32>,
    /// When a piece was granted last.
    granted: HashMap<u32, Millis>,
}

impl Seeding {
    pub fn new(pieces: u32) -> Self {
        Self { pieces, next: 0, open: Vec::new(), lost: Vec::new(), granted: HashMap::new() }
    }

    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// An agent has brought pieces that it was granted.
    pub fn seeded(&mut self, agent: &str, pieces: &[u32]) {
        self.open.retain(|it| it.agent != agent || !pieces.contains(&it.piece));
    }

    /// What an agent may fetch from the origin now. `starving`: pieces that it finds nowhere. `most`: so many at most.
    pub fn grant(&mut self, agent: &str, starving: &[u32], most: usize, now: Millis) -> Vec<u32> {
        let is_lost = |it: &Open| now >= it.since.saturating_add(LOST_AFTER);
        self.lost.extend(self.open.iter().filter(|it| is_lost(it)).map(|it| it.piece));
        self.open.retain(|it| !is_lost(it));
        let mut granted = Vec::new();
        while self.open.len() < OPEN && granted.len() < most {
            let Some(piece) = self.next_piece(starving, now) else { break };
            self.open.push(Open { piece, agent: agent.to_owned(), since: now });
            self.granted.insert(piece, now);
            granted.push(piece);
        }
        granted
    }

    fn next_piece(&mut self, starving: &[u32], now: Millis) -> Option<u32> {
        if let Some(piece) = self.lost.pop() {
            return Some(piece);
        }
        if self.next < self.pieces {
            self.next += 1;
            return Some(self.next - 1);
        }
        let is_open = |piece: u32| self.open.iter().any(|it| it.piece == piece);
        let is_due = |piece: &&u32| {
            let last = self.granted.get(*piece).copied().unwrap_or(0);
            **piece < self.pieces && !is_open(**piece) && now >= last.saturating_add(AGAIN_AFTER)
        };
        starving.iter().find(is_due).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_granted_once_and_few_at_a_time() {
        let mut seeding = Seeding::new(6);
        assert_eq!(seeding.grant("a", &[], 2, 0), [0, 1]);
        assert_eq!(seeding.grant("b", &[], 9, 0), [2, 3]);
        assert!(seeding.grant("c", &[], 1, 0).is_empty(), "so many are open");
        seeding.seeded("c", &[0]);
        assert!(seeding.grant("c", &[], 1, 0).is_empty(), "nobody closes what others were granted");
        seeding.seeded("a", &[0, 1]);
        assert_eq!(seeding.grant("c", &[], 9, 0), [4, 5]);
        seeding.seeded("b", &[2, 3]);
        assert!(seeding.grant("a", &[], 9, 0).is_empty(), "all are granted");
    }

    #[test]
    fn what_does_not_come_is_granted_again_and_so_is_what_nobody_finds() {
        let mut seeding = Seeding::new(2);
        assert_eq!(seeding.grant("a", &[], 9, 0), [0, 1]);
        seeding.seeded("a", &[1]);
        assert!(seeding.grant("b", &[0, 1], 9, AGAIN_AFTER - 1).is_empty());
        assert_eq!(seeding.grant("b", &[0, 1, 7], 9, AGAIN_AFTER), [1], "0 is still open");
        seeding.seeded("b", &[1]);
        assert_eq!(seeding.grant("b", &[], 9, LOST_AFTER), [0]);
    }
}
