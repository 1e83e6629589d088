//! Several frontends on one queue, and what happens to them and to Redis.

use std::time::Duration;

use futures_util::StreamExt;
use kiln_protos::reapi::execution_stage::Value as Stage;
use kiln_protos::worker::OutputStream;
use kiln_scheduler::SchedulerConfig;
use kiln_scheduler::queue::Limits;
use kiln_test_servers::slow::{SlowProxy, Way};
use tokio::time::Instant;
use tonic::Code;

use crate::harness::{ActionSpec, Kiln, exited, request};

/// How long a worker or frontend may be silent before it is taken for lost.
pub const SILENCE: Duration = Duration::from_millis(1_400);

pub fn quick() -> SchedulerConfig {
    let limits = Limits {
        heartbeat_timeout: SILENCE.as_millis() as u64,
        abandon_grace: 500,
        ..Limits::default()
    };
    SchedulerConfig { limits, ..SchedulerConfig::default() }
}

pub async fn two() -> (Kiln, Kiln) {
    let one = Kiln::with(quick()).await;
    let other = one.beside(quick()).await;
    (one, other)
}

/// Frontends that wait for something, as the queue knows.
pub fn waited_for(kiln: &Kiln) -> u64 {
    let count = ["EVAL", "return #redis.call('KEYS', '*:fw:*')", "0"];
    kiln.redis.as_ref().unwrap().command(&count).parse().unwrap()
}

#[tokio::test]
async fn client_and_worker_may_be_at_different_frontends() {
    let (one, other) = two().await;
    let action = one.simple().await;
    let mut client = one.execute(&action).await;
    assert_eq!(client.update().await.stage, Stage::Queued);
    // The worker joins after the action and gets it at once. A second action reaches the worker over the
    // channel in Redis.
    let mut worker = other.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    client.until(Stage::Executing).await;
    worker.succeed(&lease).await;
    let result = client.response().await.result.unwrap();
    assert_eq!(result.execution_metadata.unwrap().worker, "w");
    assert!(one.cached(&action).await);

    let mut client = one.execute(&one.simple().await).await;
    let lease = worker.lease().await;
    worker.answer(&lease, exited(3)).await;
    assert_eq!(client.response().await.result.unwrap().exit_code, 3);
    for kiln in [&one, &other] {
        let counters = kiln.snapshot().await.counters;
        assert_eq!((counters.submitted, counters.dispatched, counters.published), (2, 2, 2));
    }
}

#[tokio::test]
async fn output_is_read_at_any_frontend_and_follows_the_worker_to_another() {
    let one = Kiln::start().await;
    let other = one.beside(SchedulerConfig::default()).await;
    let third = one.beside(SchedulerConfig::default()).await;
    let mut client = one.execute(&one.simple().await).await;
    let mut worker = other.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    let name = client.until(Stage::Executing).await.metadata.stdout_stream_name;
    worker.print(&lease, OutputStream::Stdout, 0, "one ").await;
    let mut readers = Vec::new();
    for kiln in [&one, &other, &third] {
        let mut reader = kiln.logs.read(&name, 0).await.unwrap().unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), "one ");
        readers.push(reader);
    }
    other.scheduler.shutdown();
    assert!(worker.next().await.is_none());
    let worker = third.worker_again("w", 1, &[&lease]).await;
    worker.print(&lease, OutputStream::Stdout, 0, "one two").await;
    for reader in &mut readers {
        assert_eq!(reader.next().await.unwrap().unwrap(), "two");
    }
    worker.succeed(&lease).await;
    client.until(Stage::Completed).await;
    for reader in &mut readers {
        assert!(reader.next().await.is_none());
    }
}

#[tokio::test]
async fn output_of_a_cancelled_action_ends_wherever_it_is_read() {
    let (one, other) = two().await;
    let mut client = one.execute(&one.simple().await).await;
    let mut worker = other.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    let update = client.until(Stage::Executing).await;
    worker.print(&lease, OutputStream::Stdout, 0, "so far").await;
    let name = update.metadata.stdout_stream_name;
    let mut here = one.logs.read(&name, 0).await.unwrap().unwrap();
    let mut there = other.logs.read(&name, 0).await.unwrap().unwrap();
    let cancel = kiln_protos::longrunning::CancelOperationRequest { name: update.name };
    one.operations().cancel_operation(cancel).await.unwrap();
    for reader in [&mut here, &mut there] {
        assert_eq!(reader.next().await.unwrap().unwrap(), "so far");
        assert!(reader.next().await.is_none());
    }
}

#[tokio::test]
async fn requests_at_different_frontends_share_a_run_and_each_is_recorded_once() {
    let (mut one, other) = two().await;
    let action = one.simple().await;
    let mut first = one.execute(&action).await;
    let mut second = other.execute(&action).await;
    let name = first.update().await.name;
    assert_ne!(name, second.update().await.name);
    // Every frontend knows the operation by its name.
    let mut third = other.wait(&name).await.unwrap();
    let mut worker = other.worker("w", 1, &[]).await;
    worker.succeed_next().await;
    for client in [&mut first, &mut second, &mut third] {
        assert_eq!(client.status().await.code, 0);
    }
    let counters = one.snapshot().await.counters;
    assert_eq!((counters.dispatched, counters.merged), (1, 1));
    let ids = [one.events.recv().await.unwrap(), one.events.recv().await.unwrap()];
    assert_ne!(ids[0].id, ids[1].id);
    assert!(one.events.try_recv().is_err(), "an end was recorded twice");
}

#[tokio::test]
async fn operations_are_listed_got_and_cancelled_at_any_frontend() {
    let (one, other) = two().await;
    let mut client = one.execute(&one.simple().await).await;
    let name = client.update().await.name;
    let list = kiln_protos::longrunning::ListOperationsRequest::default();
    let listed = other.operations().list_operations(list).await.unwrap().into_inner();
    assert_eq!(listed.operations.len(), 1);
    assert_eq!(listed.operations[0].name, name);
    let cancel = kiln_protos::longrunning::CancelOperationRequest { name };
    other.operations().cancel_operation(cancel).await.unwrap();
    assert_eq!(client.status().await.code, Code::Cancelled as i32);
}

#[tokio::test]
async fn a_client_of_a_lost_frontend_finds_its_operation_at_another() {
    let (one, other) = two().await;
    let mut client = one.execute(&one.simple().await).await;
    let mut worker = other.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    let name = client.until(Stage::Executing).await.name;
    // The frontend says nothing more to anybody, as after kill -9.
    one.scheduler.shutdown();
    let mut again = other.wait(&name).await.unwrap();
    assert_eq!(again.update().await.stage, Stage::Executing);
    worker.succeed(&lease).await;
    assert_eq!(again.status().await.code, 0);
    // Another frontend also answers once the operation has ended.
    assert_eq!(other.wait(&name).await.unwrap().status().await.code, 0);
}

#[tokio::test]
async fn a_worker_of_a_lost_frontend_takes_its_lease_to_another() {
    let (one, other) = two().await;
    let mut client = other.execute(&other.simple().await).await;
    let mut worker = one.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    client.until(Stage::Executing).await;
    one.scheduler.shutdown();
    let worker = other.worker_again("w", 1, &[&lease]).await;
    worker.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
    let counters = other.snapshot().await.counters;
    assert_eq!((counters.dispatched, counters.retries, counters.workers_lost), (1, 0, 0));
}

#[tokio::test]
async fn what_was_lost_with_frontend_and_worker_runs_again() {
    let (one, other) = two().await;
    let mut client = other.execute(&other.simple().await).await;
    let mut worker = one.worker("first", 1, &[]).await;
    worker.lease().await;
    client.until(Stage::Executing).await;
    one.scheduler.shutdown();
    let mut second = other.worker("second", 1, &[]).await;
    let lease = second.lease().await;
    assert_eq!(lease.attempt, 2);
    second.succeed(&lease).await;
    let result = client.response().await.result.unwrap();
    assert_eq!(result.execution_metadata.unwrap().worker, "second");
}

#[tokio::test]
async fn a_worker_that_was_cut_off_cannot_publish_over_its_successor() {
    let (one, other) = two().await;
    let mut client = other.execute(&other.simple().await).await;
    let mut first = one.worker("first", 1, &[]).await;
    let old = first.lease().await;
    let mut second = other.worker("second", 1, &[]).await;
    // The other frontend notices that the first worker is silent. The second worker sends its heartbeats
    // meanwhile.
    let begun = Instant::now();
    let new = loop {
        tokio::select! {
            lease = second.lease() => break lease,
            () = tokio::time::sleep(SILENCE / 4) => second.heartbeat(&[]).await,
        }
        assert!(begun.elapsed() < 20 * SILENCE, "the silent worker is not given up");
    };
    // The first worker comes back under its name, but too late.
    let late = one.worker_again("first", 1, &[&old]).await;
    late.answer(&old, exited(7)).await;
    second.succeed(&new).await;
    assert_eq!(client.response().await.result.unwrap().exit_code, 0);
    let counters = other.snapshot().await.counters;
    assert_eq!((counters.published, counters.stale_results), (1, 1));
}

#[tokio::test]
async fn nobody_waits_any_more_when_a_frontend_is_lost_with_its_clients() {
    let (one, other) = two().await;
    let mut client = one.execute(&one.simple().await).await;
    client.update().await;
    one.scheduler.shutdown();
    // Another frontend has to be in use, so that it notices the loss.
    let worker = other.worker("w", 1, &[("os", "none")]).await;
    let begun = Instant::now();
    while other.snapshot().await.counters.abandoned == 0 {
        worker.heartbeat(&[]).await;
        tokio::time::sleep(SILENCE / 4).await;
        assert!(begun.elapsed() < 20 * SILENCE, "the action waits for ever");
    }
}

#[tokio::test]
async fn a_frontend_that_was_taken_for_lost_goes_on_with_its_clients_and_workers() {
    let limits = Limits { abandon_grace: 2_000, ..quick().limits };
    let config = SchedulerConfig { limits, ..quick() };
    let other = Kiln::with(config.clone()).await;
    let proxy = SlowProxy::start(other.redis.as_ref().unwrap().port(), Duration::ZERO).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let one = other.beside_at(&url, config).await;
    // The first frontend has a client whose action runs at the other frontend, and a worker that is idle.
    let mut busy = other.worker("busy", 1, &[("pool", "a")]).await;
    let spec = |pool| ActionSpec { platform: vec![("pool", pool)], ..ActionSpec::default() };
    let mut client = one.execute(&one.action(spec("a")).await).await;
    let lease = busy.lease().await;
    client.until(Stage::Executing).await;
    let mut idle = one.worker("idle", 1, &[("pool", "b")]).await;
    proxy.cut(Way::Refused);
    let begun = Instant::now();
    while other.snapshot().await.workers.len() > 1 || waited_for(&other) > 0 {
        busy.heartbeat(&[&lease]).await;
        idle.heartbeat(&[]).await;
        tokio::time::sleep(SILENCE / 4).await;
        assert!(begun.elapsed() < 20 * SILENCE, "the lost frontend is not noticed");
    }
    proxy.cut(Way::Through);
    // The first frontend's worker is told that its session is over, and joins again.
    let over = async { while idle.next().await.is_some() {} };
    let others_live = async {
        for _ in 0..40 {
            busy.heartbeat(&[&lease]).await;
            tokio::time::sleep(SILENCE / 4).await;
        }
    };
    tokio::select! {
        () = over => {}
        () = others_live => panic!("a session that nobody knows does not end"),
    }
    let mut idle = one.worker("idle", 1, &[("pool", "b")]).await;
    // Longer than it takes until an action for which nobody waits is stopped.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        busy.heartbeat(&[&lease]).await;
        idle.heartbeat(&[]).await;
        tokio::time::sleep(SILENCE / 4).await;
    }
    assert_eq!(other.snapshot().await.counters.abandoned, 0);
    busy.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
    let mut next = other.execute(&other.action(spec("b")).await).await;
    idle.succeed_next().await;
    assert_eq!(next.status().await.code, 0);
}

#[tokio::test]
async fn workers_of_all_frontends_get_what_fits_them() {
    let (one, other) = two().await;
    let linux = ActionSpec { platform: vec![("os", "linux")], ..ActionSpec::default() };
    let mac = ActionSpec { platform: vec![("os", "mac")], ..ActionSpec::default() };
    let mut linux_worker = one.worker("linux", 1, &[("os", "linux")]).await;
    let mut mac_worker = other.worker("mac", 1, &[("os", "mac")]).await;
    let (a, b) = (one.action(linux).await, one.action(mac).await);
    let mut at_mac = one.execute(&b).await;
    let mut at_linux = other.try_execute(request(&a)).await.unwrap();
    linux_worker.succeed_next().await;
    mac_worker.succeed_next().await;
    let worker = |response: kiln_protos::reapi::ExecuteResponse| {
        response.result.unwrap().execution_metadata.unwrap().worker
    };
    assert_eq!(worker(at_mac.response().await), "mac");
    assert_eq!(worker(at_linux.response().await), "linux");
}
