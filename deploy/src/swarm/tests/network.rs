//! Hosts with the production downloader and the production tracker over a model of a network: each host, and the origin,
//! sends and receives one piece after the other, each at its rate; who sends three already refuses; messages take a while.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use fastrand::Rng;
use lru::LruCache;

use super::super::Bits;
use super::super::downloader::{Downloader, Effect, Event, Failure, Limits, Source, Why};
use super::super::tracker::{Ask, Swarm};
use crate::rollouts::machine::Millis;

/// How long a message and its answer take together, in milliseconds.
const ROUND_TRIP: Millis = 2;
/// The time until it is seen that nobody answers.
const UNANSWERED: Millis = 1_000;
/// The time between a host that vanishes and the one in its place.
const AWAY: Millis = 5_000;
/// Pieces that a host sends, or is to send next.
const UPLOADS: usize = 3;
/// Other hosts to which a host keeps connections.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// What is simulated. Rates are given by how long one piece takes at the full rate of a host.
#[derive(Debug, Clone)]
pub struct Model {
    pub hosts: usize,
    pub pieces: usize,
    pub piece: Millis,
    /// How much faster the origin is than a host.
    pub origin: u64,
    /// Zones that hosts are in.
    pub zones: usize,
    /// Hosts that vanish in the middle; another one, which has nothing, begins in the place of each. In a thousand.
    pub churn: usize,
    /// How many hosts in a thousand send wrong bytes for every second piece.
    pub liars: usize,
    /// How many hosts in a thousand send at a twentieth of the usual rate.
    pub slow: usize,
    pub seed: u64,
}

impl Model {
    pub fn new(hosts: usize, pieces: usize, seed: u64) -> Self {
        let (piece, origin, zones) = (336, 1, 1);
        Self { hosts, pieces, piece, origin, zones, churn: 0, liars: 0, slow: 0, seed }
    }
}

#[derive(Debug)]
enum What {
    Start,
    Vanish,
    Tick,
    Event(Event),
    /// The tracker is reached.
    Asked {
        seeded: Vec<u32>,
        starving: Vec<u32>,
    },
    /// The last byte of a piece arrives from a sender, of which it was that life.
    Arrives {
        from: Source,
        life: u32,
        piece: u32,
    },
    /// A request for a piece arrives at its holder.
    Wanted {
        from: Source,
        piece: u32,
    },
}

struct Host {
    name: String,
    zone: String,
    downloader: Option<Downloader>,
    /// Grows when another one comes in its place: what was sent to the one before is lost.
    life: u32,
    begun: Millis,
    done: Option<Millis>,
    have: Bits,
    uploads: usize,
    connections: LruCache<u32, ()>,
    /// The times until which the host is busy with sending and with receiving.
    sends: Millis,
    receives: Millis,
    tick: Millis,
    is_liar: bool,
    is_slow: bool,
}

/// What came of a download by all hosts.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How long the download of each host took, sorted, as a multiple of the time for all pieces at the full
    /// rate of a host.
    pub times: Vec<f64>,
    /// How much the origin sent, as a multiple of the whole.
    pub egress: f64,
    /// Pieces that came from another zone.
    pub far: usize,
    pub near: usize,
    pub lied: usize,
    pub dropped_as_slow: usize,
    /// Connections of all hosts to others that were made.
    pub connections: usize,
}

impl Outcome {
    /// The time that so many in a hundred do not exceed.
    pub fn at(&self, percent: usize) -> f64 {
        let at = (self.times.len() * percent).div_ceil(100).max(1) - 1;
        self.times[at]
    }
}

/// When an event is due, the number of the event, the host that it is for, and which life of that host.
type Due = Reverse<(Millis, u64, usize, u32)>;

pub struct Network {
    model: Model,
    rng: Rng,
    hosts: Vec<Host>,
    swarm: Swarm<u32>,
    sizes: Arc<[u32]>,
    /// Until when the origin sends.
    origin: Millis,
    now: Millis,
    due: BinaryHeap<Due>,
    /// The events under way, by their numbers.
    events: Vec<Option<What>>,
    free: Vec<usize>,
    order: u64,
    seen: Outcome,
    sent: usize,
    /// Hosts that are not done.
    open: usize,
}

impl Network {
    pub fn run(model: Model) -> Outcome {
        let mut network = Self::new(model);
        while let Some(Reverse((at, order, host, life))) = network.due.pop() {
            network.now = at;
            assert!(at < 3_600_000, "it comes to an end");
            let slot = (order & 0xffff_ffff) as usize;
            let what = network.events[slot].take().unwrap();
            network.free.push(slot);
            network.happen(host, life, what);
            if network.open == 0 {
                break;
            }
        }
        network.outcome()
    }

    fn new(model: Model) -> Self {
        let mut rng = Rng::with_seed(model.seed);
        let hosts = (0..model.hosts).map(|at| Host {
            name: format!("web-{at}"),
            zone: format!("zone-{}", at % model.zones),
            downloader: None,
            life: 0,
            begun: 0,
            done: None,
            have: Bits::none(model.pieces),
            uploads: 0,
            connections: LruCache::new(CONNECTIONS),
            sends: 0,
            receives: 0,
            tick: 0,
            is_liar: rng.usize(..1000) < model.liars,
            is_slow: rng.usize(..1000) < model.slow,
        });
        let hosts = hosts.collect();
        let swarm = Swarm::new(u32::try_from(model.pieces).unwrap());
        let mut network = Self {
            rng,
            hosts,
            swarm,
            sizes: vec![4 << 20; model.pieces].into(),
            origin: 0,
            now: 0,
            due: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            order: 0,
            seen: Outcome::default(),
            sent: 0,
            open: model.hosts,
            model,
        };
        let whole = network.model.piece * network.model.pieces as u64;
        for host in 0..network.model.hosts {
            network.after(0, host, What::Start);
            if network.rng.usize(..1000) < network.model.churn {
                let at = network.rng.u64(1..whole);
                network.after(at, host, What::Vanish);
            }
        }
        network
    }

    fn after(&mut self, time: Millis, host: usize, what: What) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(what);
        // Events of one moment come in the order in which they were made.
        self.order += 1;
        let order = self.order << 32 | slot as u64;
        self.due.push(Reverse((self.now + time, order, host, self.hosts[host].life)));
    }

    fn happen(&mut self, host: usize, life: u32, what: What) {
        let is_same = self.hosts[host].life == life;
        match what {
            What::Start => self.start(host),
            What::Vanish => {
                let it = &mut self.hosts[host];
                self.open += usize::from(it.done.is_some());
                (it.life, it.downloader, it.done) = (it.life + 1, None, None);
                (it.have, it.uploads) = (Bits::none(self.model.pieces), 0);
                (it.sends, it.receives) = (0, 0);
                it.connections.clear();
                self.after(AWAY, host, What::Start);
            }
            What::Arrives { from, life, piece } => self.arrives(host, is_same, from, life, piece),
            _ if !is_same => {}
            What::Tick if self.hosts[host].tick == self.now => self.tell(host, Event::Tick),
            What::Tick => {}
            What::Event(event) => self.tell(host, event),
            What::Asked { seeded, starving } => self.asked(host, &seeded, &starving),
            What::Wanted { from, piece } => self.wanted(host, from, piece),
        }
    }

    fn start(&mut self, host: usize) {
        let (seed, pieces, sizes) = (self.rng.u64(..), self.model.pieces, self.sizes.clone());
        let it = &mut self.hosts[host];
        it.begun = self.now;
        it.downloader =
            Some(Downloader::new(Limits::default(), Bits::none(pieces), sizes, seed, self.now));
        self.tell(host, Event::Tick);
    }

    fn tell(&mut self, host: usize, event: Event) {
        let now = self.now;
        let Some(downloader) = &mut self.hosts[host].downloader else { return };
        let effects = downloader.handle(now, event);
        let wake = downloader.wake_at(now);
        for effect in effects {
            self.carry_out(host, effect);
        }
        let it = &mut self.hosts[host];
        if it.done.is_none() && (it.tick <= now || wake < it.tick) {
            it.tick = wake;
            self.after(wake - now, host, What::Tick);
        }
    }

    fn carry_out(&mut self, host: usize, effect: Effect) {
        match effect {
            Effect::Announce { seeded, starving } => {
                self.after(ROUND_TRIP / 2, host, What::Asked { seeded, starving });
            }
            Effect::AskHas(peer) => {
                let is_new = self.hosts[host].connections.put(peer, ()).is_none();
                self.seen.connections += usize::from(is_new);
                let it = &self.hosts[peer as usize];
                let (event, time) = match it.downloader.is_some() {
                    true => (Event::Has(peer, it.have.clone()), ROUND_TRIP),
                    false => (Event::HasNot(peer), UNANSWERED),
                };
                self.after(time, host, What::Event(event));
            }
            Effect::Fetch(from, piece) => {
                self.after(ROUND_TRIP / 2, host, What::Wanted { from, piece });
            }
            Effect::Cancel(..) => {}
            Effect::Drop(_, Why::Lied) => self.seen.lied += 1,
            Effect::Drop(_, Why::Slow) => self.seen.dropped_as_slow += 1,
            Effect::Drop(_, Why::Gone) => {}
            Effect::Broken(piece) => panic!("the origin does not lie: {piece}"),
            Effect::Done => {
                self.hosts[host].done = Some(self.now);
                self.open -= 1;
                let (seeded, starving) = (Vec::new(), Vec::new());
                self.after(ROUND_TRIP / 2, host, What::Asked { seeded, starving });
            }
        }
    }

    fn asked(&mut self, host: usize, seeded: &[u32], starving: &[u32]) {
        let it = &self.hosts[host];
        let peer = host as u32;
        let has = it.have.count() as u32;
        let ask = Ask { name: &it.name, near: &it.zone, has, seeded, starving, peer: Some(&peer) };
        let answer = self.swarm.answer(&ask, self.now, &mut self.rng);
        if it.done.is_some() {
            // A host that is done goes on telling the tracker that it has all pieces.
            let (seeded, starving) = (Vec::new(), Vec::new());
            return self.after(answer.again, host, What::Asked { seeded, starving });
        }
        let peers = answer.peers.into_iter().map(|(_, it, near)| (it, near)).collect();
        let told = Event::Told { peers, grants: answer.grants, again: answer.again };
        self.after(ROUND_TRIP / 2, host, What::Event(told));
    }

    fn wanted(&mut self, host: usize, from: Source, piece: u32) {
        let refused = |why| What::Event(Event::Failed(from, piece, why));
        match from {
            Source::Origin => {
                self.sent += 1;
                self.origin = self.origin.max(self.now) + self.model.piece / self.model.origin;
                let sent = self.origin;
                self.send(host, sent, What::Arrives { from, life: 0, piece });
            }
            Source::Peer(id) => {
                let it = &mut self.hosts[id as usize];
                if it.downloader.is_none() {
                    return self.after(UNANSWERED, host, refused(Failure::Gone));
                }
                if !it.have.get(piece as usize) {
                    return self.after(ROUND_TRIP / 2, host, refused(Failure::Lacks));
                }
                if it.uploads >= UPLOADS {
                    return self.after(ROUND_TRIP / 2, host, refused(Failure::Busy));
                }
                it.uploads += 1;
                let slow = if it.is_slow { 20 } else { 1 };
                it.sends = it.sends.max(self.now) + self.model.piece * slow;
                let (life, sent) = (it.life, it.sends);
                self.send(host, sent, What::Arrives { from, life, piece });
            }
        }
    }

    /// The last byte leaves at `sent`, and arrives when what was sent before it has.
    fn send(&mut self, host: usize, sent: Millis, what: What) {
        let it = &mut self.hosts[host];
        let free = it.receives.max(self.now) + self.model.piece;
        // What comes slowly leaves room for others.
        it.receives = free;
        self.after(sent.max(free) - self.now, host, what);
    }

    fn arrives(&mut self, host: usize, is_same: bool, from: Source, life: u32, piece: u32) {
        let mut event = Event::Came(from, piece);
        match from {
            Source::Origin => {}
            Source::Peer(id) => {
                let lies = self.rng.bool();
                let it = &mut self.hosts[id as usize];
                if it.life == life {
                    it.uploads -= 1;
                    if it.is_liar && lies {
                        event = Event::Failed(from, piece, Failure::Corrupt);
                    }
                } else {
                    event = Event::Failed(from, piece, Failure::Gone);
                }
                match self.hosts[id as usize].zone == self.hosts[host].zone {
                    true => self.seen.near += 1,
                    false => self.seen.far += 1,
                }
            }
        }
        if !is_same {
            return;
        }
        if matches!(event, Event::Came(..)) {
            self.hosts[host].have.set(piece as usize);
        }
        self.tell(host, event);
    }

    fn outcome(mut self) -> Outcome {
        let whole = (self.model.piece * self.model.pieces as u64) as f64;
        let took = |it: &Host| (it.done.unwrap() - it.begun) as f64 / whole;
        self.seen.times = self.hosts.iter().map(took).collect();
        self.seen.times.sort_by(f64::total_cmp);
        self.seen.egress = self.sent as f64 / self.model.pieces as f64;
        self.seen
    }
}
