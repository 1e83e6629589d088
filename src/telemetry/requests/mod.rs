//! What the network front counts. Each of its threads adds to counters of its own, so that no
//! cache line moves between cores; a scrape adds them up.

mod http;
mod methods;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kiln_cas::budget::Budget;
use tonic::Code;

pub use http::{ROUTES, Route, STATUSES};
#[cfg(test)]
pub use methods::METHODS;
pub use methods::{PLACES, UNKNOWN_PLACE, method, place};

use super::durations::{Durations, Observed};

/// All gRPC codes by number, as labels spell them.
pub const CODES: [&str; 17] = [
    "OK",
    "Cancelled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The counters of all threads.
#[derive(Debug, Clone)]
pub struct Requests {
    lanes: Vec<Arc<Lane>>,
    budget: Budget,
}

/// The counters of one thread.
#[derive(Debug)]
pub struct Lane {
    methods: [Calls; PLACES],
    routes: [[AtomicU64; STATUSES.len() + 1]; ROUTES.len()],
    begun: AtomicU64,
    connections: AtomicU64,
}

#[derive(Debug, Default)]
struct Calls {
    codes: [AtomicU64; CODES.len()],
    durations: Durations,
}

impl Requests {
    /// Makes one set of counters for each of `threads` (at least one); `budget` is the memory that
    /// requests may hold.
    pub fn new(threads: usize, budget: Budget) -> Self {
        Self { lanes: (0..threads.max(1)).map(|_| Arc::new(Lane::new())).collect(), budget }
    }

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    pub fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes
    }

    /// The number of calls that have begun and not ended.
    pub fn in_flight(&self) -> u64 {
        let places = 0..PLACES;
        let ended: u64 = places
            .flat_map(|place| (0..CODES.len()).map(move |code| self.calls(place, code)))
            .sum();
        // Read last: a call that began before it ended is in both.
        self.sum(|lane| &lane.begun).saturating_sub(ended)
    }

    pub fn connections(&self) -> u64 {
        self.sum(|lane| &lane.connections)
    }

    /// Ended calls of the method at `place` with this code.
    pub fn calls(&self, place: usize, code: usize) -> u64 {
        self.sum(|lane| &lane.methods[place].codes[code])
    }

    pub fn durations(&self, place: usize) -> Observed {
        let mut observed = Observed::default();
        for lane in &self.lanes {
            lane.methods[place].durations.add_to(&mut observed);
        }
        observed
    }

    /// Answers of `route` with the status at this place of [`STATUSES`].
    pub fn answers(&self, route: Route, status: usize) -> u64 {
        self.sum(|lane| &lane.routes[route as usize][status])
    }

    fn sum(&self, counter: impl Fn(&Lane) -> &AtomicU64) -> u64 {
        self.lanes.iter().map(|lane| counter(lane).load(Ordering::Relaxed)).sum()
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            methods: std::array::from_fn(|_| Calls::default()),
            routes: Default::default(),
            begun: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    /// The number of open connections that this thread serves.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A call of the method at `place` begins.
    pub fn call(self: Arc<Self>, place: usize) -> Call {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Call { lane: self, place, started: Instant::now(), code: Code::Cancelled }
    }

    /// A plain HTTP request of `route` was answered with `status`.
    pub fn answered(&self, route: Route, status: u16) {
        self.routes[route as usize][http::status_place(status)].fetch_add(1, Ordering::Relaxed);
    }
}

/// A gRPC call from its headers to the end of its answer. One that is dropped without
/// [`Call::end`] was abandoned by its client, and counts as cancelled.
#[derive(Debug)]
pub struct Call {
    lane: Arc<Lane>,
    place: usize,
    started: Instant,
    code: Code,
}

impl Call {
    pub fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let calls = &self.lane.methods[self.place];
        calls.codes[self.code as usize].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        calls.durations.observe(nanos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_once_with_its_code_or_as_cancelled() {
        let requests = Requests::new(2, Budget::new(0));
        let place = place("/google.bytestream.ByteStream/Read").unwrap();
        let ended = requests.lanes()[0].clone().call(place);
        let dropped = requests.lanes()[1].clone().call(place);
        assert_eq!(requests.in_flight(), 2);
        ended.end(Code::NotFound);
        drop(dropped);
        assert_eq!(requests.in_flight(), 0);
        assert_eq!(requests.calls(place, Code::NotFound as usize), 1);
        assert_eq!(requests.calls(place, Code::Cancelled as usize), 1);
        assert_eq!(requests.durations(place).count(), 2);
    }

    #[test]
    fn codes_stand_at_their_numbers() {
        for (number, name) in CODES.iter().enumerate().skip(1) {
            assert_eq!(format!("{:?}", Code::from_i32(number as i32)), *name);
        }
    }
}
