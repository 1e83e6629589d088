//! A frontend whose engine answers late, as one across a network does: what follows from later calls is heard first.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kiln_cas::logs::LogStreams;
use kiln_cas::{ActionKey, DigestFunction};
use kiln_protos::reapi;
use kiln_protos::worker::{
    Heartbeat, Hello, SchedulerMessage, WorkerMessage, scheduler_message::Kind, worker_message,
};
use tokio::sync::{Semaphore, mpsc};

use super::Frontend;
use super::engine::{Call, Engine};
use super::inner::Inner;
use super::told::Told;
use crate::api::{Queue, Report, Seat, Stage, Ticket, Unavailable};
use crate::completion::Completion;
use crate::config::{Parts, SchedulerConfig};
use crate::engine::memory::MemoryEngine;
use crate::job::{ActionFacts, Job, Outcome, Request};
use crate::names::Names;
use crate::queue::{Event, Limits, OperationId};
use crate::session::serve;

/// Keeps the answers to some calls until they are let through.
struct Late {
    memory: MemoryEngine,
    is_late: fn(&Call) -> bool,
    /// Calls whose answer is held back.
    held: Semaphore,
    let_through: Semaphore,
}

impl Engine for Late {
    const HEARTBEATS_TOGETHER: bool = false;

    async fn call<T: Send>(
        &self,
        call: Call,
        react: impl FnOnce(Vec<Told>) -> T + Send,
    ) -> Result<T, Unavailable> {
        let late = (self.is_late)(&call);
        let told = self.memory.call(call, |told| told).await?;
        if late {
            self.held.add_permits(1);
            self.let_through.acquire().await.expect("it is open").forget();
        }
        Ok(react(told))
    }

    fn left(_: &Arc<Inner<Self>>, _: OperationId, _: bool) {}

    fn doubt(&self) {
        panic!("nothing was dropped");
    }

    fn close(&self) {}
}

/// Makes a frontend that gets the queue's answers to `Attach` only when the test lets them through.
fn frontend() -> Frontend<Late> {
    frontend_where(|call| matches!(call, Call::Attach(_)))
}

fn frontend_where(is_late: fn(&Call) -> bool) -> Frontend<Late> {
    let completion = Arc::new(Completion::new(Parts::in_memory(), String::new()));
    let engine = Late {
        memory: MemoryEngine::new(Limits::default()),
        is_late,
        held: Semaphore::new(0),
        let_through: Semaphore::new(0),
    };
    let (names, logs) = (Arc::new(Names::new()), LogStreams::default());
    Frontend { inner: Inner::new(&SchedulerConfig::default(), engine, names, logs, completion) }
}

fn job() -> Job {
    let digest = DigestFunction::Sha256.digest(b"anything");
    let facts = ActionFacts {
        command: digest,
        input_root: digest,
        platform: Default::default(),
        timeout_ms: None,
        do_not_cache: false,
    };
    let request = Request {
        metadata: reapi::RequestMetadata::default(),
        metadata_bytes: Default::default(),
        received_at: 0,
        skip_cache_lookup: false,
        owner: None,
        tools: None,
        account: "".into(),
        base_url: None,
        rerun: None,
        shard: None,
    };
    let key = ActionKey { instance: "".into(), action: digest };
    let (request, messages) = (Arc::new(request), Default::default());
    Job { key, facts, priority: 0, expected_ms: None, request, messages }
}

fn hello() -> Hello {
    Hello { worker_id: "w".into(), slots: 1, ..Default::default() }
}

/// A worker that has been given the task of a client, who waits.
async fn given(frontend: &Frontend<Late>) -> (Ticket, Seat, String) {
    let (outbound, mut inbound) = mpsc::channel::<SchedulerMessage>(16);
    let seat = frontend.join(hello(), outbound).await;
    let ticket = frontend.submit(job()).await.expect("it is taken");
    loop {
        match inbound.recv().await.expect("it is still there").kind {
            Some(Kind::Lease(lease)) => return (ticket, seat, lease.lease_id),
            _ => continue,
        }
    }
}

/// The worker of this seat answers under the lease of this name.
async fn complete(frontend: &Frontend<Late>, seat: &Seat, lease: &str) {
    let (lease, outcome) = (frontend.lease_id(lease), Outcome::Response(Box::default()));
    frontend.report(seat.worker, Report::Completed { lease, outcome }).await;
}

/// Attaches to the operation of this name. When this returns, the engine has heard that, and its answer is on its way.
async fn begin_to_attach(
    frontend: &Frontend<Late>,
    name: &str,
) -> tokio::task::JoinHandle<Option<Ticket>> {
    let (late, name) = (Frontend { inner: frontend.inner.clone() }, name.to_owned());
    let attaching = tokio::spawn(async move { late.attach(&name).await.expect("it answers") });
    frontend.inner.engine.held.acquire().await.expect("it is open").forget();
    attaching
}

async fn expect_done(mut ticket: Ticket) {
    let request = ticket.id.request;
    let done = ticket.updates.wait_for(|update| matches!(update.stage_of(request), Stage::Done(_)));
    tokio::time::timeout(Duration::from_secs(20), done).await.expect("it is told").expect("all");
}

#[tokio::test]
async fn who_begins_to_wait_while_the_task_ends_is_told() {
    let frontend = frontend();
    let (first, seat, lease) = given(&frontend).await;
    let name = first.name.clone();
    // The client's connection has broken, so nobody is known to wait here until the answer comes.
    drop(first);
    let attaching = begin_to_attach(&frontend, &name).await;
    complete(&frontend, &seat, &lease).await;
    let ended = || async {
        let state = frontend.find(&name).await.expect("it answers").expect("it is known");
        matches!(state.stage, Stage::Done(_))
    };
    while !ended().await {
        tokio::task::yield_now().await;
    }
    frontend.inner.engine.let_through.add_permits(1);
    expect_done(attaching.await.expect("it ends").expect("it is known")).await;
}

#[tokio::test]
async fn who_begins_to_wait_while_others_leave_with_the_answer_is_told() {
    let frontend = frontend();
    let (first, seat, lease) = given(&frontend).await;
    let attaching = begin_to_attach(&frontend, &first.name).await;
    complete(&frontend, &seat, &lease).await;
    expect_done(first).await;
    frontend.inner.engine.let_through.add_permits(1);
    expect_done(attaching.await.expect("it ends").expect("it is known")).await;
}

#[tokio::test]
async fn who_begins_to_wait_while_the_task_is_cancelled_is_told() {
    let frontend = frontend();
    let (first, _seat, _) = given(&frontend).await;
    // A request that is cancelled while the task goes on for another one.
    let second = frontend.submit(job()).await.expect("it is taken");
    let name = second.name.clone();
    drop((first, second));
    let attaching = begin_to_attach(&frontend, &name).await;
    assert!(frontend.cancel(&name).await.expect("it answers"));
    frontend.inner.engine.let_through.add_permits(1);
    expect_done(attaching.await.expect("it ends").expect("it is known")).await;
}

#[tokio::test]
async fn an_answer_is_published_though_its_worker_comes_back_meanwhile() {
    let frontend = frontend_where(|call| matches!(call, Call::Completed { .. }));
    let (ticket, seat, name) = given(&frontend).await;
    complete(&frontend, &seat, &name).await;
    frontend.inner.engine.held.acquire().await.expect("it is open").forget();
    // The worker's connection breaks. The worker does not know whether its answer was heard, so it sends it
    // again.
    let (outbound, _inbound) = mpsc::channel::<SchedulerMessage>(16);
    let again = Hello { lease_ids: vec![name.clone()], ..hello() };
    let again = frontend.join(again, outbound).await;
    complete(&frontend, &again, &name).await;
    frontend.inner.engine.let_through.add_permits(1);
    expect_done(ticket).await;
}

#[tokio::test]
async fn who_begins_to_wait_while_the_server_ends_is_told() {
    let frontend = frontend();
    let (first, _seat, _) = given(&frontend).await;
    let attaching = begin_to_attach(&frontend, &first.name).await;
    frontend.close();
    frontend.inner.engine.let_through.add_permits(1);
    let mut ticket = attaching.await.expect("it ends").expect("it is known");
    let done = ticket.updates.wait_for(|update| matches!(update.stage, Stage::Done(_)));
    let told = tokio::time::timeout(Duration::from_secs(20), done).await.expect("it is told");
    assert!(told.is_err());
}

#[tokio::test]
async fn a_lease_that_is_cancelled_before_it_comes_is_cancelled_at_its_worker() {
    let frontend = frontend_where(|call| matches!(call, Call::Submit(..)));
    let (outbound, mut inbound) = mpsc::channel::<SchedulerMessage>(16);
    let _seat = frontend.join(hello(), outbound).await;
    let late = Frontend { inner: frontend.inner.clone() };
    let submitting = tokio::spawn(async move { late.submit(job()).await.expect("it is taken") });
    frontend.inner.engine.held.acquire().await.expect("it is open").forget();
    let listed = frontend.list(None, 1, &|_| true).await.expect("it answers");
    assert!(frontend.cancel(&listed[0].name).await.expect("it answers"));
    frontend.inner.engine.let_through.add_permits(1);
    expect_done(submitting.await.expect("it ends")).await;
    let mut said = Vec::new();
    while let Ok(message) = inbound.try_recv() {
        said.push(message.kind);
    }
    assert!(said.iter().any(|kind| matches!(kind, Some(Kind::Lease(_)))), "{said:?}");
    assert!(matches!(said.last(), Some(Some(Kind::Cancel(_)))), "{said:?}");
}

#[tokio::test]
async fn an_answer_that_the_queue_never_hears_of_is_asked_for_again() {
    let frontend = frontend_where(|call| {
        assert!(!matches!(call, Call::Completed { .. }), "a fault that a test wants");
        false
    });
    let (mut ticket, seat, name) = given(&frontend).await;
    complete(&frontend, &seat, &name).await;
    let queued = ticket.updates.wait_for(|update| matches!(update.stage, Stage::Queued));
    tokio::time::timeout(Duration::from_secs(20), queued).await.expect("it is told").expect("all");
    assert!(frontend.inner.lock().publishing.is_empty());
}

#[tokio::test]
async fn an_answer_that_is_lost_on_its_way_from_the_queue_ends_its_task() {
    let frontend = frontend_where(|call| matches!(call, Call::Completed { .. }));
    let (ticket, seat, name) = given(&frontend).await;
    complete(&frontend, &seat, &name).await;
    frontend.inner.engine.held.acquire().await.expect("it is open").forget();
    // The code that would hear that the answer is to be published panics.
    frontend.inner.engine.let_through.close();
    expect_done(ticket).await;
    // All that the worker said is heard, so that it can leave.
    let left = frontend.leave(seat.worker);
    tokio::time::timeout(Duration::from_secs(20), left).await.expect("it leaves");
    assert!(frontend.inner.lock().publishing.is_empty());
}

#[tokio::test]
async fn a_session_with_a_fault_ends_so_that_its_worker_can_come_back() {
    let frontend = frontend_where(|call| {
        let is_heartbeat = matches!(call, Call::Event(Event::Heartbeat { .. }));
        assert!(!is_heartbeat, "a fault that a test wants");
        false
    });
    let (outbound, _inbound) = mpsc::channel::<SchedulerMessage>(16);
    let kind = Some(worker_message::Kind::Heartbeat(Heartbeat::default()));
    // The worker's connection stays open.
    let messages = stream::iter([WorkerMessage { kind }]).chain(stream::pending());
    let queue: Arc<dyn Queue> = Arc::new(Frontend { inner: frontend.inner.clone() });
    let served = serve(queue, hello(), messages, outbound);
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("it ends");
    assert!(frontend.inner.lock().sessions.is_empty());
}
