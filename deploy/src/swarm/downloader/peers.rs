//! The peers that a download knows for now: what each has, and how each behaves.

use std::collections::HashMap;

use super::event::{PeerId, Why};
use crate::rollouts::machine::Millis;
use crate::swarm::bits::{Bits, ones_of};

/// A peer that was too slow or not there may be better later.
const SLOW_FOR: Millis = 60_000;
const GONE_FOR: Millis = 20_000;
/// Peers that are remembered as bad.
const MAX_SHUNNED: usize = 4_096;

pub struct Peer {
    pub id: PeerId,
    pub is_near: bool,
    /// `None`: it has not said yet.
    pub has: Option<Bits>,
    /// The question what it has is open.
    pub is_asked: bool,
    /// When the peer said what it has.
    pub told: Millis,
    /// Until when the peer is left alone, since it serves as many as it may.
    pub busy_until: Millis,
    /// How many pieces are on their way from the peer.
    pub load: usize,
    /// When the peer was taken in, or sent something last.
    pub useful: Millis,
}

impl Peer {
    pub fn gives(&self, piece: usize) -> bool {
        self.has.as_ref().is_some_and(|it| it.get(piece))
    }

    /// Whether the peer can be asked for one more piece.
    pub fn is_free(&self, most: usize, now: Millis) -> bool {
        self.load < most && self.busy_until <= now
    }

    pub fn may_be_asked_again(&self, now: Millis, every: Millis) -> bool {
        let may_have_more = self.has.as_ref().is_some_and(|it| !it.is_full());
        !self.is_asked && may_have_more && now >= self.told.saturating_add(every)
    }
}

#[derive(Default)]
pub struct Peers {
    pub list: Vec<Peer>,
    /// How many peers have each piece.
    spread: Vec<u16>,
    /// The time until which each of these peers is not taken again.
    shunned: HashMap<PeerId, Millis>,
}

impl Peers {
    pub fn new(pieces: usize) -> Self {
        Self { spread: vec![0; pieces], ..Self::default() }
    }

    pub fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.list.iter_mut().find(|it| it.id == id)
    }

    /// How many peers have this piece.
    pub fn spread(&self, piece: usize) -> u16 {
        self.spread.get(piece).copied().unwrap_or(0)
    }

    /// Takes in new peers, `max` in all. Peers that help stay, and so do those that had no time to: each new one takes a
    /// connection. The others, of whom nothing came for as long as `stay`, make room.
    pub fn renew(&mut self, new: &[(PeerId, bool)], max: usize, stay: Millis, now: Millis) {
        let stays = |it: &Peer| it.load > 0 || it.is_asked || now < it.useful.saturating_add(stay);
        let (kept, gone): (Vec<_>, Vec<_>) = self.list.drain(..).partition(stays);
        self.list = kept;
        for peer in gone {
            self.forget(peer.has);
        }
        self.shunned.retain(|_, until| *until > now);
        for (id, is_near) in new {
            let is_known = self.list.iter().any(|it| it.id == *id);
            if self.list.len() < max && !is_known && !self.shunned.contains_key(id) {
                self.list.push(Peer {
                    id: *id,
                    is_near: *is_near,
                    has: None,
                    is_asked: false,
                    told: 0,
                    busy_until: 0,
                    load: 0,
                    useful: now,
                });
            }
        }
    }

    fn forget(&mut self, has: Option<Bits>) {
        for piece in has.iter().flat_map(Bits::ones) {
            if let Some(count) = self.spread.get_mut(piece) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Notes what a peer says that it has. `false`: that is not of this list.
    pub fn has(&mut self, id: PeerId, bits: Bits, now: Millis) -> bool {
        if bits.len() != self.spread.len() {
            return false;
        }
        let Some(peer) = self.list.iter_mut().find(|it| it.id == id) else { return true };
        (peer.is_asked, peer.told) = (false, now);
        for at in 0..bits.words() {
            let before = peer.has.as_ref().map_or(0, |it| it.word(at));
            let (came, went) = (bits.word(at) & !before, before & !bits.word(at));
            for piece in ones_of(at, came) {
                if let Some(count) = self.spread.get_mut(piece) {
                    *count = count.saturating_add(1);
                }
            }
            for piece in ones_of(at, went) {
                if let Some(count) = self.spread.get_mut(piece) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        peer.has = Some(bits);
        true
    }

    /// A peer does not have this piece, whatever it has said.
    pub fn lacks(&mut self, id: PeerId, piece: usize) {
        let peer = self.list.iter_mut().find(|it| it.id == id);
        if peer.and_then(|it| it.has.as_mut()).is_some_and(|it| it.clear(piece))
            && let Some(count) = self.spread.get_mut(piece)
        {
            *count = count.saturating_sub(1);
        }
    }

    /// A peer is not asked any more: for good, if it lied.
    pub fn shun(&mut self, id: PeerId, why: Why, now: Millis) {
        if let Some(at) = self.list.iter().position(|it| it.id == id) {
            let peer = self.list.swap_remove(at);
            self.forget(peer.has);
        }
        if self.shunned.len() >= MAX_SHUNNED {
            // Liars are remembered longest.
            let soonest = self.shunned.iter().min_by_key(|(id, until)| (**until, **id));
            if let Some(id) = soonest.map(|(id, _)| *id) {
                self.shunned.remove(&id);
            }
        }
        let until = match why {
            Why::Lied => Millis::MAX,
            Why::Slow => now.saturating_add(SLOW_FOR),
            Why::Gone => now.saturating_add(GONE_FOR),
        };
        self.shunned.insert(id, until);
    }
}
