//! What is fetched next and from whom, whom to ask what it has, and when to look again.

use super::event::{Effect, MAX_NAMED, Source};
use super::machine::{ANNOUNCE_GAP, Downloader, ENOUGH, Flight, POLLS};
use super::peers::Peer;
use crate::rollouts::machine::Millis;
use crate::swarm::bits::ones_of;

impl Downloader {
    pub(super) fn fill(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.help_itself(now);
        while self.flights.len() < self.limits.downloads {
            let next =
                self.next_granted(now).or_else(|| self.rarest(now)).or_else(|| self.late(now));
            let Some((from, piece)) = next else { break };
            if let Source::Peer(id) = from
                && let Some(peer) = self.peers.get_mut(id)
            {
                peer.load += 1;
            }
            self.flying.set(piece as usize);
            self.flights.push(Flight { from, piece, since: now });
            effects.push(Effect::Fetch(from, piece));
        }
    }

    /// Nothing comes, and nobody grants anything: the origin is asked for what is missing.
    fn help_itself(&mut self, now: Millis) {
        if !self.flights.is_empty() || now < self.progress.saturating_add(self.stuck()) {
            return;
        }
        self.goes_on(now);
        let most = self.help;
        self.help = most.saturating_mul(2);
        let pieces = self.missing(most);
        self.granted.extend(pieces);
        self.granted.sort_unstable();
        self.granted.dedup();
    }

    /// Some of the missing pieces that nobody fetches, from a random one on.
    fn missing(&mut self, max: usize) -> Vec<u32> {
        let len = self.have.len();
        let start = self.rng.usize(..len.max(1));
        let all = (start..len).chain(0..start);
        let missing = all.filter(|it| !self.have.get(*it) && !self.flying.get(*it));
        missing.take(max).filter_map(|it| u32::try_from(it).ok()).collect()
    }

    fn next_granted(&mut self, now: Millis) -> Option<(Source, u32)> {
        let flights = self.flights.iter().filter(|it| it.from == Source::Origin).count();
        if now < self.origin_after || flights >= self.limits.of_origin {
            return None;
        }
        let free = |it: &&u32| !self.have.get(**it as usize) && !self.flying.get(**it as usize);
        self.granted.iter().find(free).map(|piece| (Source::Origin, *piece))
    }

    /// The piece that the fewest peers have, of those that can be asked now.
    fn rarest(&mut self, now: Millis) -> Option<(Source, u32)> {
        let of_peer = self.limits.of_peer;
        let usable = |it: &&Peer| it.is_free(of_peer, now);
        let (mut best, mut rarity, mut ties) = (None, u16::MAX, 0_u32);
        for at in 0..self.have.words() {
            let there = self.peers.list.iter().filter(usable);
            let there = there.filter_map(|it| it.has.as_ref()).fold(0, |sum, it| sum | it.word(at));
            for piece in ones_of(at, there & !self.have.word(at) & !self.flying.word(at)) {
                let spread = self.peers.spread(piece);
                if spread < rarity {
                    (best, rarity, ties) = (Some(piece), spread, 1);
                } else if spread == rarity {
                    ties += 1;
                    // Each of several is as likely as the others.
                    if self.rng.u32(..ties) == 0 {
                        best = Some(piece);
                    }
                }
            }
        }
        let piece = best?;
        self.holder(piece, None, now).map(|from| (from, u32::try_from(piece).unwrap_or(u32::MAX)))
    }

    /// A peer that has it, other than `besides`: a near one before others, then whoever sends least to us, then any.
    fn holder(&mut self, piece: usize, besides: Option<Source>, now: Millis) -> Option<Source> {
        let of_peer = self.limits.of_peer;
        let is_other = |it: &Peer| besides != Some(Source::Peer(it.id));
        let gives = |it: &&Peer| is_other(it) && it.is_free(of_peer, now) && it.gives(piece);
        let holders = self.peers.list.iter().filter(gives);
        let best = holders.min_by_key(|it| (!it.is_near, it.load, self.rng.u32(..)));
        best.map(|it| Source::Peer(it.id))
    }

    /// Nothing else is to do: what takes long is asked of somebody else as well.
    fn late(&mut self, now: Millis) -> Option<(Source, u32)> {
        let is_late = |it: &&Flight| now >= it.since.saturating_add(self.lateness(it.piece));
        let is_alone = |piece: u32| self.flights.iter().filter(|it| it.piece == piece).count() == 1;
        let late = self.flights.iter().filter(is_late).filter(|it| is_alone(it.piece));
        let late: Vec<_> = late.copied().collect();
        late.into_iter().find_map(|it| {
            self.holder(it.piece as usize, Some(it.from), now).map(|from| (from, it.piece))
        })
    }

    /// Asks new peers what they have, and those that may have more when there is nothing to fetch.
    pub(super) fn ask(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        for peer in self.peers.list.iter_mut().filter(|it| it.has.is_none() && !it.is_asked) {
            peer.is_asked = true;
            effects.push(Effect::AskHas(peer.id));
        }
        if !self.is_idle() {
            return;
        }
        let every = self.poll_every();
        for _ in 0..POLLS {
            let due = self.peers.list.iter_mut().filter(|it| it.may_be_asked_again(now, every));
            let Some(peer) = due.min_by_key(|it| it.told) else { break };
            peer.is_asked = true;
            effects.push(Effect::AskHas(peer.id));
        }
    }

    /// Something is to be said to the tracker before it is time to.
    fn is_urgent(&self) -> bool {
        !self.seeded.is_empty()
    }

    pub(super) fn announce(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let is_time = now >= self.announce_at
            || self.is_urgent() && now >= self.announced.saturating_add(ANNOUNCE_GAP);
        if self.is_announcing || !is_time {
            return;
        }
        (self.is_announcing, self.announced) = (true, now);
        let seeded = self.seeded.split_off(self.seeded.len().saturating_sub(MAX_NAMED));
        let starving = self.starving(now);
        effects.push(Effect::Announce { seeded, starving });
    }

    /// The first of the pieces that nobody has whom this one knows. The tracker grants them in order: those are what has had
    /// the longest time to spread. Who has enough to fetch does not ask others what they have, and names none.
    fn starving(&self, now: Millis) -> Vec<u32> {
        if !self.is_idle() {
            return Vec::new();
        }
        let heard = self.peers.list.iter().filter(|it| it.has.is_some()).count();
        if heard < ENOUGH && now <= self.progress.saturating_add(self.again) {
            return Vec::new();
        }
        let is_nowhere = |it: &usize| {
            !self.have.get(*it) && !self.flying.get(*it) && self.peers.spread(*it) == 0
        };
        let nowhere = (0..self.have.len()).filter(is_nowhere).take(MAX_NAMED);
        nowhere.filter_map(|it| u32::try_from(it).ok()).collect()
    }

    /// When [`Event::Tick`](super::Event::Tick) is due at the latest.
    pub fn wake_at(&self, now: Millis) -> Millis {
        let mut wake = now.saturating_add(self.stuck());
        let mut at = |time: Millis| wake = wake.min(time.max(now.saturating_add(1)));
        if !self.is_announcing {
            at(self.announce_at);
            if self.is_urgent() {
                at(self.announced.saturating_add(ANNOUNCE_GAP));
            }
        }
        at(self.progress.saturating_add(self.stuck()));
        for flight in &self.flights {
            at(flight.since.saturating_add(self.patience(flight.piece)));
        }
        if self.flights.len() >= self.limits.downloads {
            return wake;
        }
        if !self.granted.is_empty() && self.origin_after > now {
            at(self.origin_after);
        }
        for flight in &self.flights {
            let late = flight.since.saturating_add(self.lateness(flight.piece));
            if late > now {
                at(late);
            }
        }
        for peer in &self.peers.list {
            if peer.busy_until > now {
                at(peer.busy_until);
            }
            if self.is_idle() && !peer.is_asked && peer.has.as_ref().is_some_and(|it| !it.is_full())
            {
                at(peer.told.saturating_add(self.poll_every()));
            }
        }
        wake
    }
}
