//! What a worker runs while its scheduler is away, and what it says when one is there again.

use std::path::Path;
use std::time::Duration;

use kiln_executor::session::SessionEnd;
use kiln_executor::{Worker, WorkerConfig};
use kiln_protos::worker::worker_failure::Kind as FailureKind;
use kiln_protos::worker::{Lease, Stage, scheduler_message, worker_message};
use tokio_util::sync::CancellationToken;

use crate::common::{FUNCTION, memory_store, put_action, shell};
use crate::scheduler::{Scheduler, config, lease};

const SOON: Duration = Duration::from_secs(30);

/// A script that says that it begins, and ends when the flag is there.
fn waiting(dir: &Path) -> String {
    let (runs, flag) = (dir.join("runs"), dir.join("flag"));
    let (runs, flag) = (runs.display(), flag.display());
    format!("echo begun >> {runs}; echo said; while [ ! -e {flag} ]; do sleep 0.02; done; exit 9")
}

fn runs(dir: &Path) -> usize {
    std::fs::read_to_string(dir.join("runs")).unwrap_or_default().lines().count()
}

fn raise_flag(dir: &Path) {
    std::fs::write(dir.join("flag"), "").unwrap();
}

/// A worker in whose first session lease `l` began to run.
async fn running(dir: &Path, config: WorkerConfig) -> Scheduler {
    let store = memory_store();
    let action = put_action(&store, &shell(&waiting(dir), &[]), FUNCTION.digest(b"")).await;
    let mut scheduler = Scheduler::start(config, store).await;
    assert!(scheduler.hello.lease_ids.is_empty());
    let streamed = Lease { stream_output: true, ..lease("l", action) };
    scheduler.send(scheduler_message::Kind::Lease(streamed)).await;
    until_said(&mut scheduler).await;
    scheduler
}

/// Waits for the output of the script, from its first byte.
async fn until_said(scheduler: &mut Scheduler) {
    loop {
        if let worker_message::Kind::Output(output) = scheduler.next().await {
            assert_eq!((output.offset, &output.data[..]), (0, b"said\n".as_slice()));
            return;
        }
    }
}

async fn lose(scheduler: Scheduler) -> Worker {
    drop((scheduler.to_worker, scheduler.from_worker));
    let ended = tokio::time::timeout(SOON, scheduler.session).await;
    let (worker, end) = ended.expect("the session ends at once").unwrap();
    assert_eq!(end, SessionEnd::Lost);
    worker
}

#[tokio::test]
async fn what_runs_goes_on_and_is_reported_in_the_next_session() {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = running(dir.path(), config(dir.path(), 1)).await;
    let worker = lose(scheduler).await;
    assert!(worker.is_pending());
    let mut next = Scheduler::resume(worker).await;
    assert_eq!(next.hello.lease_ids, ["l"]);
    match next.next().await {
        worker_message::Kind::Progress(progress) => {
            assert_eq!((progress.lease_id.as_str(), progress.stage()), ("l", Stage::Running));
        }
        other => panic!("{other:?} instead of how far it is"),
    }
    // The next scheduler has seen nothing of the output.
    until_said(&mut next).await;
    raise_flag(dir.path());
    let (id, outcome) = next.completed().await;
    assert_eq!((id.as_str(), outcome.unwrap().result.unwrap().exit_code), ("l", 9));
    assert_eq!(runs(dir.path()), 1);
}

#[tokio::test]
async fn what_ended_meanwhile_is_said_again_until_it_must_have_been_heard() {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = running(dir.path(), config(dir.path(), 1)).await;
    let mut worker = lose(scheduler).await;
    raise_flag(dir.path());
    for _ in 0..3 {
        let mut next = Scheduler::resume(worker).await;
        assert_eq!(next.hello.lease_ids, ["l"]);
        let (id, outcome) = next.completed().await;
        assert_eq!((id.as_str(), outcome.unwrap().result.unwrap().exit_code), ("l", 9));
        // The session breaks off at once, so the worker cannot know whether its answer arrived.
        worker = lose(next).await;
    }
    assert_eq!(runs(dir.path()), 1);
    // The scheduler does not want it: it is not said any more.
    let next = Scheduler::resume(worker).await;
    next.cancel("l").await;
    let worker = lose(next).await;
    let next = Scheduler::resume(worker).await;
    assert!(next.hello.lease_ids.is_empty());
}

#[tokio::test]
async fn a_lease_that_the_next_scheduler_does_not_know_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = running(dir.path(), config(dir.path(), 1)).await;
    let mut next = Scheduler::resume(lose(scheduler).await).await;
    next.cancel("l").await;
    let (id, outcome) = next.completed().await;
    assert_eq!((id.as_str(), outcome.unwrap_err().kind()), ("l", FailureKind::Cancelled));
}

#[tokio::test]
async fn what_runs_is_stopped_when_no_scheduler_is_heard_for_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let absence = Duration::from_millis(200);
    let config = WorkerConfig { absence, ..config(dir.path(), 1) };
    let scheduler = running(dir.path(), config).await;
    let mut worker = lose(scheduler).await;
    let never = CancellationToken::new();
    let stopped = async {
        while worker.is_pending() {
            worker.away(Duration::from_millis(50), &never).await;
        }
    };
    tokio::time::timeout(SOON, stopped).await.expect("it is stopped");
    assert!(!dir.path().join("flag").exists());
    let next = Scheduler::resume(worker).await;
    assert!(next.hello.lease_ids.is_empty());
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_while_nobody_listens_ends_when_it_has_nothing_left() {
    let dir = tempfile::tempdir().unwrap();
    let drain_timeout = Duration::from_millis(200);
    let config = WorkerConfig { drain_timeout, ..config(dir.path(), 1) };
    let scheduler = running(dir.path(), config).await;
    let mut worker = lose(scheduler).await;
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let ended = worker.away(Duration::from_secs(3600), &shutdown);
    tokio::time::timeout(SOON, ended).await.expect("it does not wait for a scheduler");
    assert!(!worker.is_pending());
    worker.stop().await;
}
