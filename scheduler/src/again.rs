//! One more execution of an action that ran before. It is not answered from the cache, joins no other
//! execution, its result is not published, it is no part of the journal, and everything else goes first.
//! Nobody hears of it but whoever asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use kiln_cas::{ActionKey, Digest};
use kiln_protos::events::Execution;
use kiln_protos::events::execution::Origin;
use kiln_protos::reapi;
use prost::Message;
use tonic::Code;

use crate::api::{Ticket, Unavailable, end_of};
use crate::completion::Record;
use crate::job::{Finished, Job, Request, Rerun, unix_nanos};
use crate::request::{add_command, read_action};
use crate::scheduler::Scheduler;
use crate::shared::Core;
use crate::snapshot::{Snapshot, WorkerView};
use crate::status::refused;

/// The priority of an action that runs again: everything else comes first.
const LOWEST_PRIORITY: i32 = i32::MAX;
/// All shadow runs share the workers as one build.
const SHADOW: &str = "shadow-runs";

/// The action that is to run again, and under which conditions.
#[derive(Debug, Clone)]
pub struct Again<'a> {
    pub instance: &'a str,
    pub action: Digest,
    pub target: &'a str,
    pub mnemonic: &'a str,
    /// Encoded `kiln.hermeticity.v1.Conditions`: what is another for the action than usual; empty: nothing.
    pub conditions: Bytes,
    /// The worker that should not get it where another one can; empty: any may.
    pub avoid: &'a str,
}

/// Why an action did not run to an end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRun {
    /// The action or one of its inputs is not in the store any more, or the digest names no action.
    #[error("it cannot run any more: {0}")]
    Gone(String),
    #[error("{0}")]
    Failed(String),
}

impl NotRun {
    pub fn message(self) -> String {
        match self {
            Self::Gone(message) | Self::Failed(message) => message,
        }
    }
}

/// An execution that came to an end, be it one without a result.
pub(crate) struct Ended {
    pub job: Arc<Job>,
    pub operation: String,
    pub finished: Arc<Finished>,
}

/// Runs an action again. All runs with the same `invocation` share the workers as one build. Dropping the
/// future ends the run.
pub(crate) async fn again(
    core: &Core,
    wanted: &Again<'_>,
    invocation: &str,
    queued: &AtomicUsize,
) -> Result<Ended, NotRun> {
    let read = read_action(&core.config, core.parts.blobs.as_ref(), &wanted.action).await;
    let mut read = read.map_err(|status| not_run(status.code, status.message))?;
    add_command(core.parts.blobs.as_ref(), &mut read).await;
    // That is what keeps it alone and its result to itself.
    read.facts.do_not_cache = true;
    let job = Job {
        key: ActionKey { instance: wanted.instance.into(), action: wanted.action },
        messages: core.lease_messages(&read.messages),
        facts: read.facts,
        priority: LOWEST_PRIORITY,
        expected_ms: None,
        request: Arc::new(request(wanted, invocation)),
    };
    wait(core, job, queued).await
}

fn request(wanted: &Again<'_>, invocation: &str) -> Request {
    let metadata = reapi::RequestMetadata {
        tool_invocation_id: invocation.to_owned(),
        target_id: wanted.target.to_owned(),
        action_mnemonic: wanted.mnemonic.to_owned(),
        ..Default::default()
    };
    let rerun = Rerun { conditions: wanted.conditions.clone(), avoid: wanted.avoid.into() };
    Request {
        metadata_bytes: metadata.encode_to_vec().into(),
        metadata,
        received_at: unix_nanos(),
        skip_cache_lookup: true,
        owner: None,
        tools: None,
        account: Arc::default(),
        base_url: None,
        rerun: Some(rerun),
        shard: None,
    }
}

/// Whoever waited does not want the answer any more when this is dropped: the run ends at once.
struct Waiting<'a> {
    ticket: Option<Ticket>,
    /// The counter of runs in the queue, while this run counts there; `None`: it has left the
    /// queue.
    queued: Option<&'a AtomicUsize>,
}

impl Waiting<'_> {
    fn is_queued_no_more(&mut self) {
        if let Some(queued) = self.queued.take() {
            queued.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.is_queued_no_more();
        if let Some(ticket) = self.ticket.take() {
            ticket.give_up();
        }
    }
}

async fn wait(core: &Core, job: Job, queued: &AtomicUsize) -> Result<Ended, NotRun> {
    let submitted = core.queue.submit(job).await;
    let ticket = submitted.map_err(|reason| NotRun::Failed(refused(&reason).message))?;
    let (job, operation) = (ticket.job.clone(), ticket.name.clone());
    let (updates, request) = (ticket.updates.clone(), ticket.id.request);
    queued.fetch_add(1, Ordering::Relaxed);
    let mut waiting = Waiting { ticket: Some(ticket), queued: Some(queued) };
    let ended = end_of(updates, request, || waiting.is_queued_no_more()).await;
    let shuts_down = || NotRun::Failed("the server is shutting down".to_owned());
    let finished = ended.ok_or_else(shuts_down)?;
    waiting.ticket = None;
    Ok(Ended { job, operation, finished })
}

pub(crate) fn not_run(code: i32, message: String) -> NotRun {
    match Code::from_i32(code) {
        Code::NotFound | Code::FailedPrecondition | Code::InvalidArgument => NotRun::Gone(message),
        _ => NotRun::Failed(message),
    }
}

/// Runs actions again as they were, to see whether they end alike. Clones count together.
#[derive(Clone)]
pub struct ShadowRuns {
    core: Arc<Core>,
    queued: Arc<AtomicUsize>,
}

/// How many slots workers have free at this moment, and how many actions wait for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Slots that have nothing to do.
    pub idle: usize,
    /// There are slots, and none has anything to do.
    pub all_idle: bool,
    /// Actions of builds that wait for one.
    pub waiting: usize,
}

impl ShadowRuns {
    pub fn new(scheduler: &Scheduler) -> Self {
        Self { core: scheduler.core().clone(), queued: Arc::default() }
    }

    /// How an action ended this time, as an event that nobody else hears of. Dropping the future ends the run.
    pub async fn run(&self, wanted: &Again<'_>) -> Result<Execution, NotRun> {
        let ended = again(&self.core, wanted, SHADOW, &self.queued).await?;
        let Ended { job, operation, finished } = ended;
        if let Err(error @ NotRun::Gone(_)) = run_to_an_end(&finished) {
            return Err(error);
        }
        let record = Record {
            id: operation,
            key: &job.key,
            facts: &job.facts,
            request: &job.request,
            origin: Origin::Executed,
            expected_ms: 0,
            finished: &finished,
            together: None,
        };
        Ok(record.into_event())
    }

    pub async fn room(&self) -> Result<Room, Unavailable> {
        let snapshot = self.core.queue.snapshot().await?;
        Ok(room(&snapshot, self.queued.load(Ordering::Relaxed)))
    }
}

/// Answers an error where a run ended without a result, unless its time limit was what ended it.
pub(crate) fn run_to_an_end(finished: &Finished) -> Result<(), NotRun> {
    match Code::from_i32(finished.code) {
        Code::Ok | Code::DeadlineExceeded => Ok(()),
        _ => Err(not_run(finished.code, finished.message.clone())),
    }
}

/// `own`: shadow runs that are among what waits.
fn room(snapshot: &Snapshot, own: usize) -> Room {
    let idle: u32 = snapshot.workers.iter().map(WorkerView::free).sum();
    // What no worker can take does not wait for a slot.
    let served = snapshot.property_sets.iter().filter(|it| it.served);
    let waiting: usize = served.map(|it| it.queued).sum();
    let idle = usize::try_from(idle).unwrap_or(usize::MAX);
    // Of the slots that are idle, some are what the queue is about to give away.
    let is_busy = snapshot.workers.iter().any(|it| it.occupied > 0);
    let all_idle = idle > 0 && own == 0 && !is_busy;
    Room { idle: idle.saturating_sub(own), all_idle, waiting: waiting.saturating_sub(own) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::PropertySetView;

    fn set(queued: usize, served: bool) -> PropertySetView {
        let (running, slots_wanted) = (0, queued);
        PropertySetView { properties: Vec::new(), queued, running, slots_wanted, served }
    }

    #[test]
    fn room_is_what_workers_that_take_work_have_left() {
        let worker = |slots, occupied| WorkerView { slots, occupied, ..WorkerView::default() };
        let workers = vec![
            worker(4, 1),
            WorkerView { draining: true, ..worker(8, 0) },
            WorkerView { paused: Some("disk".into()), ..worker(8, 0) },
        ];
        let property_sets = vec![set(2, true), set(9, false)];
        let snapshot = Snapshot { workers, property_sets, ..Snapshot::default() };
        assert_eq!(room(&snapshot, 0), Room { idle: 3, all_idle: false, waiting: 2 });
        assert_eq!(room(&snapshot, 1), Room { idle: 2, all_idle: false, waiting: 1 });
        assert_eq!(room(&Snapshot::default(), 7), Room::default());
        let snapshot = Snapshot { workers: vec![worker(1, 0)], ..Snapshot::default() };
        assert_eq!(room(&snapshot, 0), Room { idle: 1, all_idle: true, waiting: 0 });
        assert_eq!(room(&snapshot, 1), Room::default());
    }

    #[test]
    fn what_cannot_run_any_more_is_told_from_what_failed_this_time() {
        let ended = |code: Code| {
            let finished = Finished { code: code as i32, ..Finished::default() };
            run_to_an_end(&finished)
        };
        assert_eq!(ended(Code::Ok), Ok(()));
        assert_eq!(ended(Code::DeadlineExceeded), Ok(()));
        assert!(matches!(ended(Code::FailedPrecondition), Err(NotRun::Gone(_))));
        assert!(matches!(ended(Code::Unavailable), Err(NotRun::Failed(_))));
    }
}
