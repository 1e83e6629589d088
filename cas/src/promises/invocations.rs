//! Which invocations run: those with a request under way, and those that asked for something a
//! short while ago.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::DEFAULT_MIN_LEASE;
use super::ruling::{Cut, SEATS};
use crate::clock::Clock;

/// Invocations that are told apart; those beyond count as one.
const MOST: usize = 4096;
/// Bytes of an invocation's id that count.
const ID: usize = 128;
/// An invocation with a request under way is said to run for at least so many seconds: it is reported
/// again before they are over.
const REPORTED: u32 = 180;
/// Seconds that are added to the age of an invocation, so that promises of its first moments count as well
/// although clocks round to whole seconds and differ.
const SKEW: u32 = 2;

/// The invocations that clients name in their requests. Clones share it.
#[derive(Clone)]
pub struct Invocations {
    shared: Arc<InvocationRegistry>,
}

impl fmt::Debug for Invocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocations").field("running", &self.running()).finish()
    }
}

/// The table of known invocations, shared by all clones of [`Invocations`] and each [`Presence`].
struct InvocationRegistry {
    clock: Clock,
    /// Seconds after its last request until an invocation counts as over.
    quiet: u32,
    began: u32,
    known: RwLock<Known>,
    /// An invocation began that [`Invocations::report`] has not reported yet.
    unreported: AtomicBool,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<Box<[u8]>, Arc<Invocation>>,
    next_seat: usize,
}

struct Invocation {
    seat: usize,
    /// When it began, as far as this process knows; 0: perhaps before this process.
    since: u32,
    seen: AtomicU32,
    /// Requests under way.
    open: AtomicU32,
}

impl Invocation {
    fn runs(&self, now: u32, quiet: u32) -> bool {
        self.open.load(Ordering::Acquire) > 0
            || self.seen.load(Ordering::Relaxed).saturating_add(quiet) > now
    }
}

/// An invocation that runs, as far as one process of a fleet knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Drawn from its name: the same at every process.
    pub id: [u8; 16],
    /// Seconds since it began.
    pub age: u32,
    /// Seconds after which it counts as over when nobody reports it again.
    pub left: u32,
}

/// A request of an invocation that is under way: while it is, the invocation runs.
pub struct Presence {
    invocation: Arc<Invocation>,
    shared: Arc<InvocationRegistry>,
}

impl Presence {
    /// The bit of the invocation's seat.
    pub fn holders(&self) -> u32 {
        1 << self.invocation.seat
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.invocation.seen.store(self.shared.clock.now(), Ordering::Relaxed);
        self.invocation.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Invocations {
    /// `min_lease`: how long an invocation counts as running after its last request; promises
    /// that nobody is known to hold are kept for so long as well.
    pub fn new(clock: Clock, min_lease: Duration) -> Self {
        let quiet = u32::try_from(min_lease.as_secs()).unwrap_or(u32::MAX);
        let began = clock.now();
        let (known, unreported) = (RwLock::default(), AtomicBool::new(false));
        Self { shared: Arc::new(InvocationRegistry { clock, quiet, began, known, unreported }) }
    }

    /// Begins a request of this invocation. `None`: it has no name.
    pub fn begin(&self, id: &[u8]) -> Option<Presence> {
        if id.is_empty() {
            return None;
        }
        let id = &id[..id.len().min(ID)];
        let present = |invocation: &Arc<Invocation>| {
            // While the table is locked: nobody is forgotten in between.
            invocation.open.fetch_add(1, Ordering::AcqRel);
            Some(Presence { invocation: invocation.clone(), shared: self.shared.clone() })
        };
        {
            let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(invocation) = known.by_id.get(id) {
                return present(invocation);
            }
        }
        let mut known = self.shared.known.write().unwrap_or_else(PoisonError::into_inner);
        present(known.enter(id, &self.shared))
    }

    /// How promises of `lease` seconds may be cut short now.
    pub fn cut(&self, lease: u32) -> Cut {
        let mut running = [u32::MAX; SEATS];
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        for invocation in known.running(&self.shared) {
            let since = &mut running[invocation.seat];
            *since = invocation.since.min(*since);
        }
        Cut { lease, min_lease: self.shared.quiet.min(lease), running }
    }

    /// How long promises are kept at least, in seconds.
    pub fn min_lease(&self) -> u32 {
        self.shared.quiet
    }

    /// The invocations that run, to be told to other processes.
    pub fn report(&self) -> Vec<Run> {
        let now = self.shared.clock.now();
        // Before the look: who comes after it is reported the next time.
        self.shared.unreported.store(false, Ordering::Release);
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        let runs = known.by_id.iter().filter(|(_, run)| run.runs(now, self.shared.quiet));
        let report = runs.map(|(id, run)| {
            let mut name = [0; 16];
            name.copy_from_slice(&blake3::hash(id).as_bytes()[..16]);
            let age = now.saturating_sub(run.since).saturating_add(SKEW);
            let quiet_for = now.saturating_sub(run.seen.load(Ordering::Relaxed));
            let left = match run.open.load(Ordering::Acquire) {
                0 => self.shared.quiet.saturating_sub(quiet_for),
                _ => self.shared.quiet.max(REPORTED),
            };
            Run { id: name, age, left }
        });
        report.collect()
    }

    /// Whether an invocation began that [`Invocations::report`] has not reported yet.
    pub fn unreported(&self) -> bool {
        self.shared.unreported.load(Ordering::Acquire)
    }

    /// Call it when the last report of [`Invocations::report`] did not arrive: [`Invocations::unreported`] is
    /// true again.
    pub fn report_again(&self) {
        self.shared.unreported.store(true, Ordering::Release);
    }

    /// How many invocations run.
    pub fn running(&self) -> usize {
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        known.running(&self.shared).count()
    }
}

impl Default for Invocations {
    fn default() -> Self {
        Self::new(Clock::system(), DEFAULT_MIN_LEASE)
    }
}

impl Known {
    fn running(&self, shared: &InvocationRegistry) -> impl Iterator<Item = &Arc<Invocation>> {
        let (now, quiet) = (shared.clock.now(), shared.quiet);
        self.by_id.values().filter(move |invocation| invocation.runs(now, quiet))
    }

    /// The invocation of this id, new if it is not known.
    fn enter(&mut self, id: &[u8], shared: &InvocationRegistry) -> &Arc<Invocation> {
        let now = shared.clock.now();
        if !self.by_id.contains_key(id) {
            self.by_id.retain(|_, invocation| invocation.runs(now, shared.quiet));
        }
        // Those beyond the bound share the one without a name.
        let id = if self.by_id.len() < MOST { id } else { &[] };
        if !self.by_id.contains_key(id) {
            let seat = self.free_seat();
            // What ran before a restart goes on under its name a short while after it.
            let early = now < shared.began.saturating_add(shared.quiet);
            let since = if early { 0 } else { now };
            let invocation = Invocation { seat, since, seen: now.into(), open: 0.into() };
            self.by_id.insert(id.into(), Arc::new(invocation));
            shared.unreported.store(true, Ordering::Release);
        }
        &self.by_id[id]
    }

    /// The seat with the fewest invocations; of several the one that was taken longest ago.
    fn free_seat(&mut self) -> usize {
        let mut taken = [0usize; SEATS];
        self.by_id.values().for_each(|invocation| taken[invocation.seat] += 1);
        let order = (0..SEATS).map(|step| (self.next_seat + step) % SEATS);
        let seat = order.min_by_key(|seat| taken[*seat]).unwrap_or(0);
        self.next_seat = (seat + 1) % SEATS;
        seat
    }
}
