//! The parts of a test that run, and the copies of those that are slow.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::hedge::Hedging;
use super::waited::Waited;
use crate::api::{Stage, Ticket, end_of};
use crate::config::Hedge;
use crate::job::{ActionFacts, Finished, Job, Request, Rerun};
use crate::snapshot::Snapshot;

/// The priority of a copy of a part: everything else goes first.
const LAST: i32 = i32::MAX;
/// The pause between two looks is one of so many parts of the time that the test has run.
const PARTS_OF_RUN: u32 = 8;
/// The longest pause between two looks.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A job that runs this part a second time beside itself, at another worker than `avoid` where one
/// can have it.
pub fn copy_of(job: &Job, avoid: &str) -> Job {
    let rerun = Rerun { conditions: Bytes::new(), avoid: avoid.into() };
    Job {
        // That is what keeps it alone and its result to itself.
        facts: ActionFacts { do_not_cache: true, ..job.facts.clone() },
        priority: LAST,
        request: Arc::new(Request { rerun: Some(rerun), ..Request::clone(&job.request) }),
        ..job.clone()
    }
}

/// How a copy of a part ended.
pub struct End {
    copy: u64,
    pub part: usize,
    /// The part ran a second time beside itself, which nobody has been told of.
    pub is_copy: bool,
    /// How the copy ended; `None`: the queue ended before it did.
    pub finished: Option<Arc<Finished>>,
}

/// A part that runs; of one that runs twice there are two.
struct PartCopy {
    number: u64,
    part: usize,
    ticket: Ticket,
    /// When it was first heard that a worker has this copy; empty: not yet.
    began: Arc<OnceLock<Instant>>,
}

impl PartCopy {
    /// Milliseconds that a worker has had this copy; `None`: none has it.
    fn runs_for(&self) -> Option<u64> {
        let stage = self.ticket.updates.borrow().stage_of(self.ticket.id.request);
        let began = self.began.get().filter(|_| matches!(stage, Stage::Executing))?;
        u64::try_from(began.elapsed().as_millis()).ok()
    }
}

/// The parts that run, which end when this is dropped.
pub struct Running {
    waited: Arc<Waited>,
    copies: Vec<PartCopy>,
    /// The number of the next copy.
    next: u64,
    pub ends: FuturesUnordered<BoxFuture<'static, End>>,
}

impl Running {
    pub fn new(tickets: Vec<Ticket>, waited: &Arc<Waited>) -> Self {
        let ends = FuturesUnordered::new();
        let mut running = Self { waited: waited.clone(), copies: Vec::new(), next: 0, ends };
        for (part, ticket) in tickets.into_iter().enumerate() {
            running.add(part, ticket);
        }
        running
    }

    pub fn add(&mut self, part: usize, ticket: Ticket) {
        let (updates, request) = (ticket.updates.clone(), ticket.id.request);
        let (number, waited) = (self.next, self.waited.clone());
        let is_copy = ticket.job.request.rerun.is_some();
        let began = Arc::<OnceLock<Instant>>::default();
        let heard = began.clone();
        self.next += 1;
        self.ends.push(Box::pin(async move {
            let executes = || {
                heard.get_or_init(Instant::now);
                waited.executes();
            };
            let finished = end_of(updates, request, executes).await;
            End { copy: number, part, is_copy, finished }
        }));
        self.copies.push(PartCopy { number, part, ticket, began });
    }

    /// Lets go of a copy that has ended. Answers whether its part runs on in another one.
    pub fn ended(&mut self, end: &End) -> bool {
        self.give_up_those(|it| it.number == end.copy);
        self.copies.iter().any(|it| it.part == end.part)
    }

    /// Nobody waits for a part any more: an answer is there.
    pub fn give_up(&mut self, part: usize) {
        self.give_up_those(|it| it.part == part);
    }

    fn give_up_those(&mut self, which: impl Fn(&PartCopy) -> bool) {
        while let Some(at) = self.copies.iter().position(&which) {
            self.copies.swap_remove(at).ticket.give_up();
        }
    }

    /// The copy of a part that has run longest.
    fn first(&self, part: usize) -> Option<&PartCopy> {
        self.copies.iter().filter(|it| it.part == part).min_by_key(|it| it.number)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.give_up_those(|_| true);
    }
}

/// Says when to look next whether a part is slow.
pub struct Slow {
    pub hedging: Hedging,
    look: Duration,
    began: Instant,
    looked: Option<Instant>,
}

impl Slow {
    pub fn new(hedge: Hedge, expected_ms: Vec<u64>) -> Self {
        let hedging = Hedging::new(hedge, expected_ms);
        Self { hedging, look: hedge.look, began: Instant::now(), looked: None }
    }

    pub fn looked(&mut self) {
        self.looked = Some(Instant::now());
    }

    /// The slowest part with its job, and the worker that has it, as far as that is told: a snapshot lists not all that runs.
    /// `None`: none is slow.
    pub fn slowest(
        &self,
        running: &Running,
        snapshot: &Snapshot,
    ) -> Option<(usize, Arc<Job>, String)> {
        let view = |part: usize| {
            let copy = running.first(part)?;
            let listed = snapshot.running.iter().find(|it| it.name == copy.ticket.name);
            Some((copy, listed))
        };
        let runs_for = |part: usize| {
            let (copy, listed) = view(part)?;
            listed.map(|it| it.for_ms).or_else(|| copy.runs_for())
        };
        let part = self.hedging.slowest(runs_for)?;
        let (copy, listed) = view(part)?;
        let worker = listed.map(|it| it.worker.clone()).unwrap_or_default();
        Some((part, copy.ticket.job.clone(), worker))
    }

    /// Waits until a part may be slow, for ever where none can be.
    pub async fn due(&self) {
        let Some(after) = self.hedging.earliest() else { return std::future::pending().await };
        let first = self.began + Duration::from_millis(after);
        let next = self.looked.map_or(first, |looked| first.max(looked + self.pause(looked)));
        tokio::time::sleep_until(next).await;
    }

    /// The pause until the next look. Each look asks for the whole queue, so it grows with the time
    /// that the test has run.
    fn pause(&self, looked: Instant) -> Duration {
        let part = looked.duration_since(self.began) / PARTS_OF_RUN;
        self.look.max(part.min(MAX_PAUSE))
    }
}
