//! A fan-out as its clients see it: one operation, whatever runs for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kiln_protos::events::execution::Origin;
use tokio::sync::watch;

use crate::api::{Hold, OperationState, Stage, StreamNames, Ticket, Update};
use crate::completion::{Completion, Record, Together};
use crate::job::{Finished, Job, Request, Run, UnixNanos};
use crate::queue::{Ending, OperationId, TaskId};

/// Requests that share one fan-out.
const MAX_REQUESTS: usize = 10_000;

/// One fan-out as its clients see it: an operation with its requests and updates.
pub(super) struct Waited {
    pub id: TaskId,
    pub name: Arc<str>,
    /// The job of the request that came first.
    pub job: Arc<Job>,
    pub queued_at: UnixNanos,
    /// The streams of the first part.
    streams: StreamNames,
    updates: watch::Sender<Update>,
    wanted: watch::Sender<Wanted>,
    asked: Mutex<Vec<Asked>>,
}

/// Whether anybody still wants the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wanted {
    waiters: usize,
    /// The last client that waited does not want the answer, and will not come back.
    gave_up: bool,
    /// All requests were cancelled.
    cancelled: bool,
}

struct Asked {
    request: Arc<Request>,
    skips_cache: bool,
    cancelled: bool,
}

impl Waited {
    pub fn new(
        (id, name): (TaskId, Arc<str>),
        job: Arc<Job>,
        queued_at: UnixNanos,
        streams: StreamNames,
    ) -> Arc<Self> {
        let first = Asked {
            request: job.request.clone(),
            skips_cache: job.request.skip_cache_lookup,
            cancelled: false,
        };
        let update = Update { stage: Stage::Queued, cancelled: Vec::new() };
        Arc::new(Self {
            id,
            name,
            job,
            queued_at,
            streams,
            updates: watch::Sender::new(update),
            wanted: watch::Sender::new(Wanted::default()),
            asked: Mutex::new(vec![first]),
        })
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in another request for the same action. `None`: one answer may not be for both, or
    /// there are too many requests.
    pub fn join(self: &Arc<Self>, job: &Job) -> Option<Ticket> {
        let mut asked = self.asked();
        let skips = job.request.skip_cache_lookup;
        let is_apart = job.facts.do_not_cache || self.job.facts.do_not_cache;
        let both_skip = skips && asked.iter().any(|it| it.skips_cache);
        if is_apart || both_skip || self.has_ended() || asked.len() >= MAX_REQUESTS {
            return None;
        }
        let request = u32::try_from(asked.len()).ok()?;
        asked.push(Asked { request: job.request.clone(), skips_cache: skips, cancelled: false });
        drop(asked);
        self.ticket(request)
    }

    /// The ticket of the request that came first.
    pub fn first_ticket(self: &Arc<Self>) -> Ticket {
        self.hold(0, self.job.request.owner.clone())
    }

    /// `None`: there is no such request.
    pub fn ticket(self: &Arc<Self>, request: u32) -> Option<Ticket> {
        let owner = self.asked().get(request as usize)?.request.owner.clone();
        Some(self.hold(request, owner))
    }

    fn hold(self: &Arc<Self>, request: u32, owner: Option<Arc<str>>) -> Ticket {
        self.wanted.send_modify(|wanted| {
            wanted.waiters += 1;
            wanted.gave_up = false;
        });
        Ticket {
            id: OperationId { task: self.id, request },
            name: self.operation(request),
            job: self.job.clone(),
            owner,
            streams: self.streams.clone(),
            updates: self.updates.subscribe(),
            hold: Box::new(Waiter { waited: Arc::downgrade(self), gave_up: false }),
        }
    }

    fn operation(&self, request: u32) -> String {
        if request == 0 { self.name.to_string() } else { format!("{}-{request:x}", self.name) }
    }

    /// `None`: there is no such request.
    pub fn state(&self, request: u32) -> Option<OperationState> {
        let owner = self.asked().get(request as usize)?.request.owner.clone();
        Some(OperationState {
            id: OperationId { task: self.id, request },
            name: self.operation(request),
            job: self.job.clone(),
            owner,
            streams: self.streams.clone(),
            stage: self.updates.borrow().stage_of(request),
        })
    }

    pub fn requests(&self) -> u32 {
        u32::try_from(self.asked().len()).unwrap_or(u32::MAX)
    }

    pub fn is_over(&self) -> bool {
        matches!(self.updates.borrow().stage, Stage::Done(_))
    }

    /// Says to all who wait that a part has begun to run.
    pub fn executes(&self) {
        self.updates.send_if_modified(|update| {
            let waits = matches!(update.stage, Stage::Queued);
            if waits {
                update.stage = Stage::Executing;
            }
            waits
        });
    }

    pub fn run(&self) -> Run {
        Run {
            operation: self.name.clone(),
            job: self.job.clone(),
            queued_at: self.queued_at,
            leased_at: 0,
            worker: "".into(),
            attempts: 0,
        }
    }

    /// Cancels one request; when the last one is cancelled, all parts end.
    pub fn cancel(&self, request: u32, completion: &Completion) {
        let asked = {
            let mut asked = self.asked();
            let Some(one) = asked.get_mut(request as usize) else { return };
            if one.cancelled || self.is_over() {
                return;
            }
            one.cancelled = true;
            let asked_by = one.request.clone();
            // Under the lock: nobody may join what ends.
            if asked.iter().all(|it| it.cancelled) {
                self.wanted.send_modify(|wanted| wanted.cancelled = true);
            }
            asked_by
        };
        let finished = Arc::new(completion.failed(&self.run(), &Ending::Cancelled));
        self.record(completion, request, &asked, &finished, None);
        self.updates.send_modify(|update| update.cancelled.push((request, finished)));
    }

    /// Whether there is an answer, or will be none.
    fn has_ended(&self) -> bool {
        self.is_over() || self.wanted.borrow().cancelled
    }

    /// Resolves when nobody wants the answer any more. `grace`: who lost the connection has so long to come back.
    pub async fn unwanted(&self, grace: Duration) -> Ending {
        let mut wanted = self.wanted.subscribe();
        loop {
            let now = *wanted.borrow_and_update();
            if now.cancelled {
                return Ending::Cancelled;
            }
            if now.waiters == 0 {
                let is_back = |wanted: &Wanted| *wanted != now;
                if now.gave_up
                    || tokio::time::timeout(grace, wanted.wait_for(is_back)).await.is_err()
                {
                    return Ending::NobodyWaits;
                }
                continue;
            }
            // The sender lives as long as `self`.
            let _ = wanted.changed().await;
        }
    }

    /// The end, for all who wait. `together`: what it was put together of. `is_recorded`: the first request's end
    /// was told already.
    pub fn finish(
        &self,
        completion: &Completion,
        finished: &Arc<Finished>,
        together: Option<Together>,
        is_recorded: bool,
    ) {
        for (request, asked) in (0..).zip(self.asked().iter()) {
            let is_told = asked.cancelled || is_recorded && request == 0;
            if !is_told {
                self.record(completion, request, &asked.request, finished, together);
            }
        }
        self.updates.send_modify(|update| update.stage = Stage::Done(finished.clone()));
    }

    fn record(
        &self,
        completion: &Completion,
        request: u32,
        asked: &Request,
        finished: &Finished,
        together: Option<Together>,
    ) {
        completion.record(Record {
            id: self.operation(request),
            key: &self.job.key,
            facts: &self.job.facts,
            request: asked,
            origin: if request == 0 { Origin::Executed } else { Origin::Merged },
            expected_ms: self.job.expected_ms.unwrap_or(0),
            finished,
            together,
        });
    }
}

/// A client's hold. When a fan-out ends without an answer its clients are told so by the end of its updates, for
/// which none of them must keep it.
struct Waiter {
    waited: Weak<Waited>,
    gave_up: bool,
}

impl Hold for Waiter {
    fn give_up(mut self: Box<Self>) {
        self.gave_up = true;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let gave_up = self.gave_up;
        let Some(waited) = self.waited.upgrade() else { return };
        waited.wanted.send_modify(|wanted| {
            wanted.waiters = wanted.waiters.saturating_sub(1);
            wanted.gave_up = gave_up;
        });
    }
}
