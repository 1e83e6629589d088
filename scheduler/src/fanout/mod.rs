//! One test over several workers: an unsharded test action that asks for it (platform property `kiln-shards`) is run
//! in parts, of which one result is made under its own digest.
//!
//! Without I/O: [`wish`] reads what is asked for, [`subject`] says whether it can be, [`number`] into how many parts,
//! [`derive`] and [`filters`] make these, [`course`] decides what comes next when one comes back, [`hedge`] which is run
//! a second time because it does not, and [`merge`] puts results together. `suites` remembers, `plan` asks what is known, `run` waits for what is `running`. To clients a fan-out is one operation
//! (`waited`); to the queue its parts are jobs like others, of the same build. They end when it ends: whoever waits for
//! them is this process, and when it is gone the queue takes them for abandoned.

mod course;
mod derive;
mod filters;
mod hedge;
mod merge;
mod number;
mod plan;
mod queue;
mod run;
mod running;
mod subject;
mod suites;
mod tools;
mod waited;
mod wish;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use kiln_cas::ActionKey;
use kiln_net::panics::caught;
use tokio::sync::{Semaphore, watch};

pub use subject::MARK;
pub use wish::{FILTER, MAX_SHARDS, SHARDS, Wish, take};

pub(crate) use queue::WithFanOuts;

use crate::api::{NotTaken, Queue, Ticket, end_of};
use crate::completion::{SharedCompletion, event_digest};
use crate::config::{Hedge, Parts, SchedulerConfig};
use crate::job::{ActionFacts, Job, LeaseMessages, Request, Shard, unix_nanos};
use crate::queue::TaskId;
use derive::Derived;
use plan::Plan;
use run::FanOut;
use suites::Suites;
use tools::{Known, MAX_READERS, Tools};
use waited::Waited;

/// Ids of fan-outs: no queue gives out such, and in a list they come last.
const FIRST: u64 = 1 << 62;
/// How long results may take to be put together while the server drains.
const SETTLE: Duration = Duration::from_secs(5);
/// Fan-outs that are known after their end, for clients that come back.
const MAX_FINISHED: usize = 256;

/// The fan-outs of this server.
pub(crate) struct FanOuts {
    tools: Tools,
    /// Bytes that messages of parts may take until they are leased.
    room: Arc<Semaphore>,
    grace: Duration,
    hedge: Hedge,
    epoch: u64,
    all: Mutex<All>,
    /// How many have not ended.
    open: watch::Sender<usize>,
}

#[derive(Default)]
struct All {
    next: u64,
    by_id: BTreeMap<TaskId, Arc<Waited>>,
    by_name: HashMap<Arc<str>, TaskId>,
    by_key: HashMap<ActionKey, TaskId>,
    finished: VecDeque<TaskId>,
}

impl FanOuts {
    pub fn new(
        queue: Arc<dyn Queue>,
        completion: SharedCompletion,
        parts: &Parts,
        config: &SchedulerConfig,
        room: Arc<Semaphore>,
    ) -> Arc<Self> {
        let suites = Suites::new(parts.records.clone());
        Arc::new(Self {
            tools: Tools {
                queue,
                completion,
                reports: parts.reports.clone(),
                suites,
                readers: Arc::new(Semaphore::new(MAX_READERS)),
            },
            room,
            grace: Duration::from_millis(config.limits.abandon_grace),
            hedge: config.hedge,
            epoch: RandomState::new().hash_one(std::process::id()),
            all: Mutex::default(),
            open: watch::Sender::new(0),
        })
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job to the queue, in parts where that is asked for and can be. `messages`: its Action and Command.
    pub async fn submit(
        self: &Arc<Self>,
        job: Job,
        wish: Option<Wish>,
        messages: &[Bytes],
    ) -> Result<Ticket, NotTaken> {
        let queue = &self.tools.queue;
        let Some(wish) = wish else { return queue.submit(job).await };
        if let Some(ticket) = self.join(&job) {
            return Ok(ticket);
        }
        let Some(plan) = Plan::of(&self.tools, &job, wish, messages).await else {
            return queue.submit(job).await;
        };
        let Some(parts) = plan.parts(&self.tools, &job).await else {
            return self.submit_whole(job, plan.known).await;
        };
        match self.submit_parts(&job, &plan, &parts).await {
            Some(tickets) => Ok(self.begin(job, plan.known, parts, tickets)),
            None => self.submit_whole(job, plan.known).await,
        }
    }

    fn join(&self, job: &Job) -> Option<Ticket> {
        let waited = {
            let all = self.all();
            all.by_id.get(all.by_key.get(&job.key)?)?.clone()
        };
        waited.join(job)
    }

    /// Submits a test that runs whole, and learns its cases when it has ended.
    async fn submit_whole(&self, job: Job, mut known: Known) -> Result<Ticket, NotTaken> {
        let ticket = self.tools.queue.submit(job).await?;
        let (tools, request) = (self.tools.clone(), ticket.id.request);
        let end = end_of(ticket.updates.clone(), request, || {});
        tokio::spawn(async move {
            if let Some(finished) = end.await {
                tools.learn_from_whole(&finished, &mut known).await;
            }
        });
        Ok(ticket)
    }

    /// `None`: not all of them are taken, and none is left.
    async fn submit_parts(
        &self,
        job: &Job,
        plan: &Plan,
        parts: &plan::Parts,
    ) -> Option<Vec<Ticket>> {
        let function = job.key.action.function;
        let derive = |part| plan.whole.derive(&plan.known.subject, part, function);
        let derived: Vec<Derived> = parts.parts.iter().map(derive).collect();
        let blobs = self.tools.completion.blobs();
        let messages = derived.iter().flat_map(|it| [&it.action, &it.command]);
        let writes = messages.map(|(digest, data)| blobs.write(digest, data.clone()));
        if let Err(error) = try_join_all(writes).await {
            tracing::warn!(%error, "the messages of shards could not be stored");
            return None;
        }
        let count = u32::try_from(derived.len()).ok()?;
        let jobs = (1..).zip(derived.iter().zip(&parts.expected_ms)).map(
            |(number, (derived, expected))| self.part(job, derived, (number, count), *expected),
        );
        let tickets = join_all(jobs.map(|job| self.tools.queue.submit(job))).await;
        let (taken, refused): (Vec<_>, Vec<_>) = tickets.into_iter().partition(Result::is_ok);
        let taken: Vec<Ticket> = taken.into_iter().flatten().collect();
        if refused.is_empty() {
            return Some(taken);
        }
        // Waited for: what they take of a quota the whole needs.
        let queue = &self.tools.queue;
        join_all(taken.iter().map(|ticket| queue.cancel(&ticket.name))).await;
        None
    }

    /// The job of one part: of the same build, client and priority. `expected`: milliseconds; 0: not known.
    fn part(
        &self,
        whole: &Job,
        derived: &Derived,
        (number, count): (u32, u32),
        expected: u64,
    ) -> Job {
        let shard = Shard { number, count, whole: event_digest(&whole.key.action) };
        let messages = [derived.action.1.clone(), derived.command.1.clone()];
        Job {
            key: ActionKey { instance: whole.key.instance.clone(), action: derived.action.0 },
            facts: ActionFacts { command: derived.command.0, ..whole.facts.clone() },
            priority: whole.priority,
            // The longest goes first.
            expected_ms: match expected {
                0 => whole.expected_ms.map(|expected| expected / u64::from(count)),
                known => Some(known),
            },
            request: Arc::new(Request { shard: Some(shard), ..Request::clone(&whole.request) }),
            messages: LeaseMessages::keep(&self.room, &messages),
        }
    }

    fn begin(
        self: &Arc<Self>,
        job: Job,
        known: Known,
        parts: plan::Parts,
        tickets: Vec<Ticket>,
    ) -> Ticket {
        let hedge = match hedge::is_safe(&job.facts) {
            true => self.hedge,
            false => Hedge { factor: 0.0, ..self.hedge },
        };
        let streams = tickets.first().map(|ticket| ticket.streams.clone()).unwrap_or_default();
        let waited = self.add(Arc::new(job), streams);
        let ticket = waited.first_ticket();
        let fan_out = FanOut {
            tools: self.tools.clone(),
            waited,
            known,
            is_told: parts.is_told,
            grace: self.grace,
            hedge,
            expected_ms: parts.expected_ms,
        };
        let fan_outs = self.clone();
        tokio::spawn(async move {
            let waited = fan_out.waited.clone();
            if let Err(error) = caught(fan_out.run(tickets)).await {
                // Whoever waits is told so by the end of it.
                let operation = &waited.name;
                tracing::error!(%error, %operation, "a test in parts ends without an answer");
            }
            fan_outs.ended(&waited);
        });
        ticket
    }

    fn add(&self, job: Arc<Job>, streams: crate::api::StreamNames) -> Arc<Waited> {
        let mut all = self.all();
        let id = TaskId(FIRST + all.next);
        let instance = &job.key.instance;
        let slash = if instance.is_empty() { "" } else { "/" };
        let name: Arc<str> =
            format!("{instance}{slash}operations/shards-{:016x}-{:x}", self.epoch, all.next).into();
        all.next += 1;
        if !job.facts.do_not_cache {
            all.by_key.insert(job.key.clone(), id);
        }
        let waited = Waited::new((id, name.clone()), job, unix_nanos(), streams);
        all.by_id.insert(id, waited.clone());
        all.by_name.insert(name, id);
        self.open.send_modify(|open| *open += 1);
        waited
    }

    fn ended(&self, waited: &Arc<Waited>) {
        let mut all = self.all();
        if all.by_key.get(&waited.job.key) == Some(&waited.id) {
            all.by_key.remove(&waited.job.key);
        }
        if waited.is_over() {
            all.finished.push_back(waited.id);
        } else {
            all.forget(waited.id);
        }
        while all.finished.len() > MAX_FINISHED
            && let Some(oldest) = all.finished.pop_front()
        {
            all.forget(oldest);
        }
        self.open.send_modify(|open| *open = open.saturating_sub(1));
    }

    /// The fan-out of an operation, and which of its requests.
    fn find(&self, name: &str) -> Option<(Arc<Waited>, u32)> {
        let all = self.all();
        let whole = |name: &str| all.by_name.get(name).and_then(|id| all.by_id.get(id)).cloned();
        if let Some(waited) = whole(name) {
            return Some((waited, 0));
        }
        let (front, request) = name.rsplit_once('-')?;
        let request = u32::from_str_radix(request, 16).ok().filter(|request| *request > 0)?;
        let waited = whole(front)?;
        (request < waited.requests()).then_some((waited, request))
    }
}

impl All {
    fn forget(&mut self, id: TaskId) {
        if let Some(waited) = self.by_id.remove(&id) {
            self.by_name.remove(&waited.name);
        }
    }
}
