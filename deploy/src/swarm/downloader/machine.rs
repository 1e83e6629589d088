//! What is known of a download, and how it changes.

use std::sync::Arc;

use fastrand::Rng;

use super::event::{Effect, Event, Failure, Limits, MAX_NAMED, PeerId, Source, Why};
use super::peers::Peers;
use crate::rollouts::machine::Millis;
use crate::swarm::bits::Bits;

/// The shortest time between two questions to the tracker, when something is to be told.
pub const ANNOUNCE_GAP: Millis = 50;
/// The pause after a tracker that did not answer.
const ANNOUNCE_AGAIN: Millis = 2_000;
/// What one piece is thought to take before one has come, and how long it is waited for then.
const FIRST_PACE: Millis = 1_000;
const FIRST_PATIENCE: Millis = 60_000;
/// Pieces of fewer bytes say nothing of how fast others are.
const TELLING: u32 = 64 << 10;
/// A piece that takes longer than this, and than [`SLOW_TIMES`] what pieces take, is given up.
const SLOW: Millis = 5_000;
const SLOW_TIMES: Millis = 6;
/// A piece that takes so many times what pieces take, and so long at least, is asked of another peer as well, when nothing else
/// is to do.
const LATE_TIMES: Millis = 2;
const LATE: Millis = 500;
/// Between two questions what a peer has, when there is nothing to fetch: what a piece takes, within these bounds.
const LEAST_POLL: Millis = 100;
const LONGEST_POLL: Millis = 2_000;
/// Peers that are asked what they have at once.
pub const POLLS: usize = 4;
/// A peer that serves others is left alone for half of what a piece takes, and so long at least.
const BUSY: Millis = 20;
/// A peer that sends nothing for so many times what a piece takes makes room for another one, within these bounds: a connection
/// to a new one costs several round trips, and some of the bytes that a slow link has for pieces.
const STAY_TIMES: Millis = 4;
const STAY: (Millis, Millis) = (4_000, 60_000);
/// Peers that have to say what they have, or nothing has to come for long, before a piece counts as found nowhere.
pub const ENOUGH: usize = 4;
/// Nothing has come for so long: the origin is asked without a grant, for so many pieces, and each time for twice as many as
/// before: whoever says that it has them, and gives none, holds up nobody for hours.
const STUCK: Millis = 30_000;
pub const STUCK_PIECES: usize = 8;
/// Peers that serve others have something, which comes sooner or later: so many times longer nothing may come.
const STUCK_BUSY: Millis = 4;
/// A granted piece that so many peers have is not fetched from the origin: another frontend granted it, or this one before it began
/// anew. One alone may lie.
const SPREAD: u16 = 2;
/// The pause after the origin did not answer.
const ORIGIN_AGAIN: Millis = 1_000;

#[derive(Debug, Clone, Copy)]
pub struct Flight {
    pub from: Source,
    pub piece: u32,
    pub since: Millis,
}

pub struct Downloader {
    pub(super) limits: Limits,
    pub(super) rng: Rng,
    pub(super) have: Bits,
    /// Pieces on their way.
    pub(super) flying: Bits,
    pub(super) flights: Vec<Flight>,
    pub(super) peers: Peers,
    /// The size of each piece in bytes.
    pub(super) sizes: Arc<[u32]>,
    pub(super) average_size: u64,
    /// Pieces that may be fetched from the origin.
    pub(super) granted: Vec<u32>,
    /// Were fetched from there, which the tracker does not know yet.
    pub(super) seeded: Vec<u32>,
    pub(super) origin_after: Millis,
    /// What a MiB from a peer takes, smoothed; 0: none has come.
    pub(super) pace: Millis,
    /// When a piece came, or something was done about that none did.
    pub(super) progress: Millis,
    /// Whether a peer has served others since.
    pub(super) heard_busy: bool,
    /// How many pieces the origin is then asked for without a grant.
    pub(super) help: usize,
    pub(super) is_announcing: bool,
    pub(super) announced: Millis,
    pub(super) announce_at: Millis,
    pub(super) again: Millis,
    pub(super) is_over: bool,
}

impl Downloader {
    /// `have`: pieces that are here already. `sizes`: bytes of each.
    pub fn new(limits: Limits, have: Bits, sizes: Arc<[u32]>, seed: u64, now: Millis) -> Self {
        let pieces = have.len();
        let sum = sizes.iter().map(|it| u64::from(*it)).sum::<u64>();
        Self {
            limits,
            rng: Rng::with_seed(seed),
            flying: Bits::none(pieces),
            flights: Vec::new(),
            peers: Peers::new(pieces),
            sizes,
            average_size: sum / (pieces as u64).max(1),
            granted: Vec::new(),
            seeded: Vec::new(),
            origin_after: 0,
            pace: 0,
            progress: now,
            heard_busy: false,
            help: STUCK_PIECES,
            is_announcing: false,
            announced: 0,
            announce_at: now,
            again: ANNOUNCE_AGAIN,
            is_over: false,
            have,
        }
    }

    pub fn have(&self) -> &Bits {
        &self.have
    }

    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.is_over {
            return effects;
        }
        match event {
            Event::Tick => {}
            Event::Told { peers, grants, again } => self.told(&peers, grants, again, now),
            Event::NotTold => {
                self.is_announcing = false;
                self.announce_at = now.saturating_add(self.again.max(ANNOUNCE_AGAIN));
            }
            Event::Has(peer, bits) => {
                if !self.peers.has(peer, bits, now) {
                    self.shun(peer, Why::Lied, now, &mut effects);
                }
            }
            Event::HasNot(peer) => self.shun(peer, Why::Gone, now, &mut effects),
            Event::Came(from, piece) => self.came(from, piece, now, &mut effects),
            Event::Failed(from, piece, why) => self.failed(from, piece, why, now, &mut effects),
        }
        if self.have.is_full() {
            self.is_over = true;
            effects.push(Effect::Done);
            return effects;
        }
        self.give_up_slow(now, &mut effects);
        self.fill(now, &mut effects);
        self.ask(now, &mut effects);
        self.announce(now, &mut effects);
        effects
    }

    /// What so many bytes take; before any have come, what a piece is thought to.
    fn takes(&self, bytes: u64) -> Millis {
        match self.pace {
            0 => FIRST_PACE,
            pace => (pace.saturating_mul(bytes) >> 20).max(1),
        }
    }

    fn size(&self, piece: u32) -> u32 {
        self.sizes.get(piece as usize).copied().unwrap_or(0)
    }

    /// What a piece takes on average.
    fn average(&self) -> Millis {
        self.takes(self.average_size)
    }

    pub(super) fn patience(&self, piece: u32) -> Millis {
        match self.pace {
            0 => FIRST_PATIENCE,
            _ => self.takes(self.size(piece).into()).saturating_mul(SLOW_TIMES).max(SLOW),
        }
    }

    pub(super) fn lateness(&self, piece: u32) -> Millis {
        self.takes(self.size(piece).into()).saturating_mul(LATE_TIMES).max(LATE)
    }

    /// For how long nothing may come until the origin is asked without a grant.
    pub(super) fn stuck(&self) -> Millis {
        if self.heard_busy { STUCK * STUCK_BUSY } else { STUCK }
    }

    /// Something came, or something was done about that nothing did.
    pub(super) fn goes_on(&mut self, now: Millis) {
        (self.progress, self.heard_busy) = (now, false);
    }

    pub(super) fn poll_every(&self) -> Millis {
        // Until a piece has come others are asked more often: all begin at once.
        let part = if self.pace == 0 { 4 } else { 1 };
        (self.average() / part).clamp(LEAST_POLL, LONGEST_POLL)
    }

    pub(super) fn is_idle(&self) -> bool {
        let missing = self.have.len() - self.have.count();
        self.flights.len() < self.limits.downloads && self.flying.count() < missing
    }

    fn told(&mut self, peers: &[(PeerId, bool)], grants: Vec<u32>, again: Millis, now: Millis) {
        self.is_announcing = false;
        self.again = again.max(ANNOUNCE_GAP);
        // Many that begin at once do not ask at once for ever.
        let spread = self.rng.u64(0..=self.again / 4);
        self.announce_at = now.saturating_add(self.again - self.again / 8 + spread);
        let stay = self.average().saturating_mul(STAY_TIMES).clamp(STAY.0, STAY.1);
        self.peers.renew(peers, self.limits.peers, stay, now);
        for piece in grants.into_iter().take(MAX_NAMED) {
            let is_spread = self.peers.spread(piece as usize) >= SPREAD;
            if is_spread || self.have.get(piece as usize) {
                self.seeded.push(piece);
            } else if (piece as usize) < self.have.len() && !self.granted.contains(&piece) {
                self.granted.push(piece);
            }
        }
    }

    fn land(&mut self, from: Source, piece: u32) -> Option<Flight> {
        let at = self.flights.iter().position(|it| it.from == from && it.piece == piece)?;
        let flight = self.flights.swap_remove(at);
        if let Source::Peer(id) = from
            && let Some(peer) = self.peers.get_mut(id)
        {
            peer.load = peer.load.saturating_sub(1);
        }
        if !self.flights.iter().any(|it| it.piece == piece) {
            self.flying.clear(piece as usize);
        }
        Some(flight)
    }

    fn came(&mut self, from: Source, piece: u32, now: Millis, effects: &mut Vec<Effect>) {
        if let Some(flight) = self.land(from, piece)
            && let Source::Peer(id) = from
        {
            let size = self.size(piece);
            if size >= TELLING {
                let took = now.saturating_sub(flight.since).max(1);
                let pace = ((took << 20) / u64::from(size)).max(1);
                self.pace = if self.pace == 0 { pace } else { (self.pace * 7 + pace) / 8 };
            }
            if let Some(peer) = self.peers.get_mut(id) {
                peer.useful = now;
            }
        }
        if !self.have.set(piece as usize) {
            return;
        }
        self.goes_on(now);
        if let Some(at) = self.granted.iter().position(|it| *it == piece) {
            self.granted.swap_remove(at);
            self.seeded.push(piece);
        }
        let others: Vec<_> = self.flights.iter().filter(|it| it.piece == piece).copied().collect();
        for other in others {
            self.land(other.from, piece);
            effects.push(Effect::Cancel(other.from, piece));
        }
    }

    fn failed(
        &mut self,
        from: Source,
        piece: u32,
        why: Failure,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let is_known = self.land(from, piece).is_some();
        match (from, why) {
            (Source::Origin, Failure::Corrupt) => effects.push(Effect::Broken(piece)),
            // What lies does so however late it comes.
            (Source::Peer(id), Failure::Corrupt) => self.shun(id, Why::Lied, now, effects),
            _ if !is_known => {}
            (Source::Origin, _) => self.origin_after = now.saturating_add(ORIGIN_AGAIN),
            (Source::Peer(id), Failure::Busy) => {
                self.heard_busy = true;
                let pause = (self.average() / 2).max(BUSY);
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.busy_until = now.saturating_add(pause);
                }
            }
            (Source::Peer(id), Failure::Lacks) => self.peers.lacks(id, piece as usize),
            (Source::Peer(id), Failure::Gone) => self.shun(id, Why::Gone, now, effects),
        }
    }

    fn shun(&mut self, id: PeerId, why: Why, now: Millis, effects: &mut Vec<Effect>) {
        let from = Source::Peer(id);
        let flights: Vec<_> = self.flights.iter().filter(|it| it.from == from).copied().collect();
        for flight in flights {
            self.land(from, flight.piece);
            effects.push(Effect::Cancel(from, flight.piece));
        }
        self.peers.shun(id, why, now);
        effects.push(Effect::Drop(id, why));
    }

    fn give_up_slow(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let is_slow = |it: &Flight| now >= it.since.saturating_add(self.patience(it.piece));
        let slow = self.flights.iter().filter(|it| is_slow(it)).map(|it| it.from);
        let slow: Vec<_> = slow.collect();
        for from in slow {
            // It may be gone with the one before.
            let is_there = self.flights.iter().any(|it| it.from == from);
            let Source::Peer(id) = from else { continue };
            if !is_there {
                continue;
            }
            self.shun(id, Why::Slow, now, effects);
        }
    }
}
