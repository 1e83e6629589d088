//! Decides which agent fetches which piece from the origin: each piece goes out about once, and a few at a time,
//! however many agents there are. What an agent was granted and did not bring goes to another one.

use std::collections::HashMap;

use crate::rollouts::machine::Millis;

/// Pieces that are on their way from the origin at once.
const OPEN: usize = 4;
/// What was granted and did not come is granted again: after so many times what it takes to come, within these bounds.
const LOST_TIMES: Millis = 4;
const LOST_AFTER: (Millis, Millis) = (3_000, 300_000);
/// Before any has come: after so long without a word of the agent. One that is heard of is at it, however slow its link is, but
/// for no longer than the bound: agents that say so and bring nothing would keep all others from the origin.
const LOST_FIRST: Millis = 15_000;
/// What was brought and nobody finds is granted again, when it has had the time to spread.
const SPREAD_TIMES: Millis = 12;
const SPREAD_AFTER: Millis = 5_000;

#[derive(Debug, Clone)]
struct Open {
    piece: u32,
    agent: String,
    since: Millis,
    /// When the agent was heard of last.
    heard: Millis,
}

impl Open {
    /// `pace`: the time that it takes until a granted piece is there; 0: none has come.
    fn is_lost(&self, pace: Millis, now: Millis) -> bool {
        let (least, most) = LOST_AFTER;
        let until = match pace {
            0 => self.heard.saturating_add(LOST_FIRST).min(self.since.saturating_add(most)),
            pace => self.since.saturating_add(pace.saturating_mul(LOST_TIMES).clamp(least, most)),
        };
        now >= until
    }
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
    /// When each piece was granted last.
    granted: HashMap<u32, Millis>,
    /// The time that it takes until a granted piece is there, smoothed; 0: none has come.
    pace: Millis,
}

impl Seeding {
    pub fn new(pieces: u32) -> Self {
        let (open, lost, granted) = (Vec::new(), Vec::new(), HashMap::new());
        Self { pieces, next: 0, open, lost, granted, pace: 0 }
    }

    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// An agent has brought pieces that it was granted.
    pub fn seeded(&mut self, agent: &str, pieces: &[u32], now: Millis) {
        let is_brought = |it: &Open| it.agent == agent && pieces.contains(&it.piece);
        for open in self.open.iter().filter(|it| is_brought(it)) {
            let took = now.saturating_sub(open.since).max(1);
            self.pace = if self.pace == 0 { took } else { (self.pace * 3 + took) / 4 };
        }
        self.open.retain(|it| !is_brought(it));
    }

    /// An agent has all pieces.
    pub fn close(&mut self, agent: &str) {
        self.open.retain(|it| it.agent != agent);
    }

    /// What an agent may fetch from the origin now. `starving`: pieces that it finds nowhere. `most`: so many at most, with
    /// those that it was granted before and has not brought yet.
    pub fn grant(&mut self, agent: &str, starving: &[u32], most: usize, now: Millis) -> Vec<u32> {
        for open in self.open.iter_mut().filter(|it| it.agent == agent) {
            open.heard = now;
        }
        let pace = self.pace;
        let (lost, open) =
            std::mem::take(&mut self.open).into_iter().partition(|it| it.is_lost(pace, now));
        self.open = open;
        self.lost.extend(Vec::into_iter(lost).map(|it| it.piece));
        let most = most.saturating_sub(self.open.iter().filter(|it| it.agent == agent).count());
        let mut granted = Vec::new();
        while self.open.len() < OPEN && granted.len() < most {
            let Some(piece) = self.next_piece(starving, now) else { break };
            self.open.push(Open { piece, agent: agent.to_owned(), since: now, heard: now });
            self.granted.insert(piece, now);
            granted.push(piece);
        }
        granted
    }

    fn next_piece(&mut self, starving: &[u32], now: Millis) -> Option<u32> {
        if let Some(piece) = self.lost.pop() {
            return Some(piece);
        }
        let spread = self.pace.saturating_mul(SPREAD_TIMES).max(SPREAD_AFTER);
        let is_open = |piece: u32| self.open.iter().any(|it| it.piece == piece);
        // What was never granted has its turn yet.
        let is_due = |piece: &&u32| {
            let last = self.granted.get(*piece);
            !is_open(**piece) && last.is_some_and(|it| now >= it.saturating_add(spread))
        };
        if let Some(piece) = starving.iter().find(is_due) {
            return Some(*piece);
        }
        let next = (self.next < self.pieces).then_some(self.next);
        self.next += u32::from(next.is_some());
        next
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
        seeding.seeded("c", &[0], 0);
        assert!(seeding.grant("c", &[], 1, 0).is_empty(), "nobody closes what others were granted");
        seeding.seeded("a", &[0, 1], 0);
        assert_eq!(seeding.grant("c", &[], 9, 0), [4, 5]);
        seeding.seeded("b", &[2, 3], 0);
        assert!(seeding.grant("a", &[], 9, 0).is_empty(), "all are granted");
    }

    #[test]
    fn what_does_not_come_is_granted_again_and_so_is_what_nobody_finds() {
        let mut seeding = Seeding::new(2);
        assert_eq!(seeding.grant("a", &[], 9, 0), [0, 1]);
        seeding.seeded("a", &[1], 2_000);
        assert!(seeding.grant("b", &[0, 1], 9, 7_999).is_empty(), "it may still come");
        assert_eq!(seeding.grant("b", &[0, 1], 9, 8_000), [0]);
        seeding.seeded("b", &[0], 10_000);
        assert!(seeding.grant("c", &[0, 1, 7], 9, 23_999).is_empty(), "it may still spread");
        assert_eq!(seeding.grant("c", &[0, 1, 7], 9, 24_000), [1]);
    }

    #[test]
    fn before_any_has_come_who_is_heard_of_is_given_time_and_who_is_silent_is_not() {
        let mut seeding = Seeding::new(2);
        assert_eq!(seeding.grant("slow", &[], 1, 0), [0]);
        assert_eq!(seeding.grant("silent", &[], 1, 0), [1]);
        for now in (1..=7).map(|it| it * 2_000) {
            assert!(seeding.grant("slow", &[], 1, now).is_empty());
        }
        assert!(seeding.grant("other", &[], 9, 14_999).is_empty());
        assert_eq!(seeding.grant("other", &[], 9, 15_000), [1]);
        for now in (2..30).map(|it| it * 10_000) {
            assert!(seeding.grant("slow", &[], 1, now).is_empty(), "it is still at it");
            assert!(seeding.grant("other", &[], 9, now).is_empty());
        }
        assert!(seeding.grant("late", &[], 9, 299_999).is_empty());
        assert_eq!(seeding.grant("late", &[], 9, 300_000), [0], "it brings nothing");
    }
}
