//! Carries out what the downloader says, on threads of its own: each does one thing that waits, and says what came of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::alone::Origin;
use super::assembly::Assembly;
use super::exchange::{Asked, Exchange, Identity, PeerError};
use super::giving::Giving;
use super::jobs::{ASKING, Job, Jobs};
use crate::agent::link::{Link, LinkError};
use crate::agent::source::{GoesOn, SourceError};
use crate::rollouts::machine::Millis;
use crate::swarm::downloader::{Downloader, Effect, Event, Failure, Limits, PeerId, Source};
use crate::swarm::{Bits, PeerCard, Share, Shared};

/// Threads besides those that fetch: they ask others what they have, and one the tracker.
const ASKERS: usize = ASKING + 1;
/// How long it takes at most until it is seen that the agent has something else to do.
const LOOK: Duration = Duration::from_millis(100);
/// Agents that are known by a number.
const MAX_PEERS: usize = 20_000;

/// What a crew works with.
pub struct Tools<'a, L> {
    pub origin: &'a Origin<'a, L>,
    pub exchange: &'a dyn Exchange,
    pub giving: Option<&'a Arc<Giving>>,
    pub near: &'a str,
    pub limits: Limits,
}

/// How a download by pieces ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// The server has no tracker.
    NoTracker,
}

enum News {
    Event(Event),
    Told(Box<Shared>),
    /// The download cannot go on.
    Broken(SourceError),
    NoTracker,
}

#[derive(Default)]
struct Peers {
    numbers: HashMap<String, PeerId>,
    cards: Vec<PeerCard>,
}

impl Peers {
    /// The number of an agent. What its card says may have changed.
    fn number(&mut self, card: PeerCard) -> Option<PeerId> {
        if let Some(number) = self.numbers.get(&card.name) {
            if let Some(known) = self.cards.get_mut(*number as usize) {
                *known = card;
            }
            return Some(*number);
        }
        let number = PeerId::try_from(self.cards.len()).ok()?;
        if self.cards.len() >= MAX_PEERS {
            return None;
        }
        self.numbers.insert(card.name.clone(), number);
        self.cards.push(card);
        Some(number)
    }

    fn card(&self, number: PeerId) -> Option<PeerCard> {
        self.cards.get(number as usize).cloned()
    }
}

struct Crew<'a, L> {
    tools: &'a Tools<'a, L>,
    assembly: &'a Assembly,
    identity: Identity,
    jobs: Mutex<Jobs>,
    wake: Condvar,
    stopped: AtomicBool,
    peers: Mutex<Peers>,
    pass: Mutex<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings all that is missing, from others and from the server.
pub fn work<L: Link>(
    tools: &Tools<'_, L>,
    assembly: &Assembly,
    goes_on: GoesOn<'_>,
) -> Result<Ended, SourceError> {
    let crew = Crew {
        tools,
        assembly,
        identity: tools.exchange.identity(),
        jobs: Mutex::default(),
        wake: Condvar::new(),
        stopped: AtomicBool::new(false),
        peers: Mutex::default(),
        pass: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let (say, news) = channel();
        for _ in 0..tools.limits.downloads + ASKERS {
            let (crew, say) = (&crew, say.clone());
            scope.spawn(move || crew.serve(&say));
        }
        drop(say);
        let _stops = Stops(&crew.stopped, &crew.wake);
        crew.lead(&news, goes_on)
    })
}

/// Ends the other threads when one that leads ends, however it does.
struct Stops<'a>(&'a AtomicBool, &'a Condvar);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.notify_all();
    }
}

impl<L: Link> Crew<'_, L> {
    fn lead(&self, news: &Receiver<News>, goes_on: GoesOn<'_>) -> Result<Ended, SourceError> {
        let begun = Instant::now();
        let now = || Millis::try_from(begun.elapsed().as_millis()).unwrap_or(Millis::MAX);
        let (seed, have) = (fastrand::u64(..), self.assembly.have());
        let sizes = self.assembly.list.places().iter().map(|it| it.piece.size).collect();
        let mut machine = Downloader::new(self.tools.limits, have, sizes, seed, now());
        let mut flights = HashMap::new();
        let mut event = Event::Tick;
        loop {
            for effect in machine.handle(now(), event) {
                if let Some(ended) = self.carry_out(effect, &mut flights)? {
                    return Ok(ended);
                }
            }
            event = loop {
                if !goes_on() {
                    return Err(SourceError::Stopped);
                }
                let wake = Duration::from_millis(machine.wake_at(now()).saturating_sub(now()));
                match news.recv_timeout(wake.min(LOOK)) {
                    Ok(News::Event(event)) => break event,
                    Ok(News::Told(shared)) => break self.told(*shared),
                    Ok(News::Broken(error)) => return Err(error),
                    Ok(News::NoTracker) => return Ok(Ended::NoTracker),
                    Err(RecvTimeoutError::Timeout) if wake <= LOOK => break Event::Tick,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Err(SourceError::Stopped),
                }
            };
        }
    }

    fn told(&self, shared: Shared) -> Event {
        let Shared { peers, grants, again, pass, keys } = shared;
        *lock(&self.pass) = pass;
        if let Some(giving) = self.tools.giving {
            giving.believe(&keys);
        }
        let mut known = lock(&self.peers);
        let number = |card: PeerCard| {
            let is_near = card.is_near;
            known.number(card).map(|it| (it, is_near))
        };
        let peers = peers.into_iter().filter_map(number).collect();
        Event::Told { peers, grants, again: Millis::try_from(again.as_millis()).unwrap_or(0) }
    }

    fn carry_out(
        &self,
        effect: Effect,
        flights: &mut HashMap<(Source, u32), Arc<AtomicBool>>,
    ) -> Result<Option<Ended>, SourceError> {
        let job = match effect {
            Effect::Announce { seeded, starving } => Job::Announce { seeded, starving },
            Effect::AskHas(peer) => Job::Ask(peer),
            Effect::Fetch(from, piece) => {
                let cancelled = Arc::new(AtomicBool::new(false));
                flights.insert((from, piece), cancelled.clone());
                Job::Fetch { from, piece, cancelled }
            }
            Effect::Cancel(from, piece) => {
                if let Some(flight) = flights.remove(&(from, piece)) {
                    flight.store(true, Ordering::Release);
                }
                return Ok(None);
            }
            Effect::Drop(peer, why) => {
                let name = lock(&self.peers).card(peer).map(|it| it.name).unwrap_or_default();
                tracing::warn!(peer = name, why = why.words(), "an agent is not asked any more");
                return Ok(None);
            }
            Effect::Broken(piece) => {
                let place = self.assembly.list.place(piece as usize);
                let blob = place.and_then(|it| self.assembly.list.blobs().get(it.blob));
                let digest = blob.map_or(&self.assembly.version, |it| &it.digest);
                return Err(SourceError::Tampered(digest.clone()));
            }
            Effect::Done => return Ok(Some(Ended::Done)),
        };
        flights.retain(|_, it| Arc::strong_count(it) > 1);
        lock(&self.jobs).push(job);
        self.wake.notify_one();
        Ok(None)
    }

    /// What each thread of the crew does: one job after the other, until there are no more.
    fn serve(&self, say: &Sender<News>) {
        while let Some(job) = self.next() {
            let news = match job {
                Job::Announce { seeded, starving } => self.announce(seeded, starving),
                Job::Ask(peer) => {
                    let event = self.ask(peer);
                    lock(&self.jobs).answered();
                    News::Event(event)
                }
                Job::Fetch { from, piece, cancelled } => self.fetch(from, piece, &cancelled),
            };
            if say.send(news).is_err() {
                return;
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return None;
            }
            if let Some(job) = jobs.take() {
                return Some(job);
            }
            let waited = self.wake.wait_timeout(jobs, LOOK);
            jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn announce(&self, seeded: Vec<u32>, starving: Vec<u32>) -> News {
        let has = self.identity.share(self.assembly, self.tools.near);
        let share = Share { seeded, starving, ..has };
        let origin = self.tools.origin;
        match origin.link.share(origin.speaker, &share) {
            Ok(shared) => News::Told(Box::new(shared)),
            Err(LinkError::Unreachable(_)) => News::Event(Event::NotTold),
            Err(error @ LinkError::Refused(_)) => {
                tracing::warn!(%error, "the server names no other agents");
                News::NoTracker
            }
        }
    }

    fn ask(&self, peer: PeerId) -> Event {
        let pass = lock(&self.pass).clone();
        let Some(card) = lock(&self.peers).card(peer) else { return Event::HasNot(peer) };
        let asked = Asked { list: &self.assembly.digest, pass: &pass };
        let pieces = self.assembly.list.len();
        let goes_on = || !self.stopped.load(Ordering::Acquire);
        match self.tools.exchange.has(&card, &asked, pieces.div_ceil(8), &goes_on) {
            // What cannot be read is of another list.
            Ok(bytes) => Event::Has(peer, Bits::from_bytes(pieces, &bytes).unwrap_or_default()),
            // It has nothing of this list, yet.
            Err(PeerError::Lacks | PeerError::Busy) => Event::Has(peer, Bits::none(pieces)),
            Err(error) => {
                tracing::debug!(peer = card.name, %error, "an agent does not say what it has");
                Event::HasNot(peer)
            }
        }
    }

    fn fetch(&self, from: Source, piece: u32, cancelled: &AtomicBool) -> News {
        let goes_on =
            || !cancelled.load(Ordering::Acquire) && !self.stopped.load(Ordering::Acquire);
        let place = self.assembly.list.place(piece as usize);
        let Some(place) = place.filter(|_| goes_on()) else {
            return News::Event(Event::Failed(from, piece, Failure::Lacks));
        };
        let brought = match from {
            Source::Origin => {
                let run = [(piece as usize, place)];
                self.tools.origin.some(self.assembly, &run, &goes_on).map(|()| Ok(true))
            }
            Source::Peer(peer) => self.take_piece(peer, piece, place.piece.size, &goes_on),
        };
        let why = match brought {
            Ok(Ok(true)) => return News::Event(Event::Came(from, piece)),
            Ok(Ok(false)) => Failure::Corrupt,
            Ok(Err(why)) => why,
            Err(SourceError::Stopped | SourceError::Link(_)) => Failure::Gone,
            Err(error) => return News::Broken(error),
        };
        News::Event(Event::Failed(from, piece, why))
    }

    fn take_piece(
        &self,
        peer: PeerId,
        piece: u32,
        size: u32,
        goes_on: GoesOn<'_>,
    ) -> Result<Result<bool, Failure>, SourceError> {
        let pass = lock(&self.pass).clone();
        let Some(card) = lock(&self.peers).card(peer) else { return Ok(Err(Failure::Gone)) };
        let asked = Asked { list: &self.assembly.digest, pass: &pass };
        let data = self.tools.exchange.piece(&card, &asked, piece, size, goes_on);
        let data = match data {
            Ok(data) => data,
            Err(PeerError::Busy) => return Ok(Err(Failure::Busy)),
            Err(PeerError::Lacks) => return Ok(Err(Failure::Lacks)),
            Err(PeerError::Stopped) => return Ok(Err(Failure::Gone)),
            Err(error) => {
                tracing::debug!(peer = card.name, %error, "an agent gives nothing");
                return Ok(Err(Failure::Gone));
            }
        };
        self.assembly.put(piece as usize, &data).map(Ok)
    }
}
