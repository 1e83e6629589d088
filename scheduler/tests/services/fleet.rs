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

/// Who is silent for so long is lost.
const SILENCE: Duration = Duration::from_millis(1_400);

fn quick() -> SchedulerConfig {
    let limits = Limits {
        heartbeat_timeout: SILENCE.as_millis() as u64,
        abandon_grace: 500,
        ..Limits::default()
    };
    SchedulerConfig { limits, ..SchedulerConfig::default() }
}

async fn two() -> (Kiln, Kiln) {
    let one = Kiln::with(quick()).await;
    let other = one.beside(quick()).await;
    (one, other)
}

#[tokio::test]
async fn client_and_worker_may_be_at_different_frontends() {
    let (one, other) = two().await;
    let action = one.simple().await;
    let mut client = one.execute(&action).await;
    assert_eq!(client.update().await.stage, Stage::Queued);
    // It joins after the action and gets it at once; a second action reaches it over the channel.
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
    // Known everywhere under its name.
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
    // It says nothing any more to anybody, as after kill -9.
    one.scheduler.shutdown();
    let mut again = other.wait(&name).await.unwrap();
    assert_eq!(again.update().await.stage, Stage::Executing);
    worker.succeed(&lease).await;
    assert_eq!(again.status().await.code, 0);
    // And also when it has ended already.
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
    // Its silence is noticed; the other one beats as it should.
    let begun = Instant::now();
    let new = loop {
        tokio::select! {
            lease = second.lease() => break lease,
            () = tokio::time::sleep(SILENCE / 4) => second.heartbeat(&[]).await,
        }
        assert!(begun.elapsed() < 20 * SILENCE, "the silent worker is not given up");
    };
    // It comes back under its name, and late.
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
    // Somebody must be there to notice it.
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
    // One waits for an action that runs at the other frontend; its own worker is idle.
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
    // Its worker is told that the session is over, and comes again.
    let over = async { while idle.next().await.is_some() {} };
    tokio::time::timeout(10 * SILENCE, over).await.expect("a session that nobody knows ends");
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
async fn a_redis_that_is_away_for_longer_than_a_heartbeat_costs_no_run() {
    let one = Kiln::with(quick()).await;
    let other = one.beside(quick()).await;
    let mut client = other.execute(&other.simple().await).await;
    let mut worker = one.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    client.until(Stage::Executing).await;
    let redis = one.redis.as_ref().unwrap();
    redis.pause();
    let begun = Instant::now();
    while begun.elapsed() < 3 * SILENCE {
        worker.heartbeat(&[&lease]).await;
        tokio::time::sleep(SILENCE / 4).await;
    }
    redis.resume();
    // Nobody is taken for lost, now or later.
    let begun = Instant::now();
    while begun.elapsed() < 2 * SILENCE {
        worker.heartbeat(&[&lease]).await;
        tokio::time::sleep(SILENCE / 4).await;
    }
    worker.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
    let counters = one.snapshot().await.counters;
    assert_eq!((counters.workers_lost, counters.retries, counters.abandoned), (0, 0, 0));
    assert_eq!((counters.dispatched, counters.published), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_publication_redis_lost_is_made_again() {
    let mut kiln = Kiln::with(quick()).await;
    let action = kiln.simple().await;
    let mut client = kiln.execute(&action).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    client.until(Stage::Executing).await;
    kiln.blobs.delay(Duration::from_millis(500));
    worker.succeed(&lease).await;
    let redis = kiln.redis.as_mut().unwrap();
    let publishing = "return #redis.call('KEYS', '*:fp:*')";
    redis.wait_until(&["EVAL", publishing, "0"], |count| count == "1");
    redis.command(&["EVAL", BACK_UP, "0"]);
    kiln.blobs.delay(Duration::ZERO);
    assert_eq!(client.status().await.code, 0);
    // A failure takes the last writes back: the answer was given, but never published.
    let redis = kiln.redis.as_mut().unwrap();
    redis.command(&["EVAL", TAKE_BACK, "0"]);
    redis.restart();
    let mut same = kiln.execute(&action).await;
    let lease = worker.lease().await;
    assert_eq!(lease.attempt, 2);
    worker.succeed(&lease).await;
    assert_eq!(same.status().await.code, 0);
}

/// Frontends that wait for something, as the queue knows.
fn waited_for(kiln: &Kiln) -> u64 {
    let count = ["EVAL", "return #redis.call('KEYS', '*:fw:*')", "0"];
    kiln.redis.as_ref().unwrap().command(&count).parse().unwrap()
}

/// Scripts that keep the state of all keys, and bring it back as if nothing had been written
/// since.
const BACK_UP: &str = "for _, key in ipairs(redis.call('KEYS', '*')) do \
     redis.call('HSET', 'backup', key, redis.call('DUMP', key)) end";
const TAKE_BACK: &str = "for _, key in ipairs(redis.call('KEYS', '*')) do \
     if key ~= 'backup' then redis.call('DEL', key) end end \
     local backup = redis.call('HGETALL', 'backup') \
     for i = 1, #backup, 2 do redis.call('RESTORE', backup[i], 0, backup[i + 1]) end \
     redis.call('DEL', 'backup')";

#[tokio::test]
async fn an_action_survives_a_restart_of_redis() {
    let mut kiln = Kiln::with(quick()).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    client.until(Stage::Executing).await;
    let redis = kiln.redis.as_mut().unwrap();
    // The append-only file is synced every second; what is younger may be lost with a machine.
    redis.command(&["SAVE"]);
    redis.restart();
    worker.succeed(&lease).await;
    assert_eq!(client.status().await.code, 0);
    let mut next = kiln.execute(&kiln.simple().await).await;
    worker.succeed_next().await;
    assert_eq!(next.status().await.code, 0);
}

#[tokio::test]
async fn an_action_that_redis_forgot_is_unavailable_and_the_next_one_runs() {
    let mut kiln = Kiln::with(quick()).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    client.update().await;
    let redis = kiln.redis.as_mut().unwrap();
    redis.command(&["FLUSHALL"]);
    redis.restart();
    let error = loop {
        match client.next().await.expect("it does not end without a word") {
            Ok(update) => assert!(update.response.is_none()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    let mut client = kiln.execute(&kiln.simple().await).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    worker.succeed_next().await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn without_redis_requests_are_unavailable_and_nothing_hangs() {
    let mut kiln = Kiln::with(quick()).await;
    let action = kiln.simple().await;
    kiln.redis.as_mut().unwrap().kill();
    let begun = Instant::now();
    let error = kiln.execute(&action).await.status().await;
    assert_eq!(error.code, Code::Unavailable as i32, "{}", error.message);
    assert!(error.message.contains("Redis"), "{}", error.message);
    let error = kiln.wait("main/operations/1-1").await.err();
    assert!(error.is_some());
    assert!(begun.elapsed() < Duration::from_secs(15));
    kiln.redis.as_mut().unwrap().restart();
    let mut client = kiln.execute(&action).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    worker.succeed_next().await;
    assert_eq!(client.status().await.code, 0);
}

#[tokio::test]
async fn a_redis_that_stands_still_for_a_while_costs_only_that_while() {
    let kiln = Kiln::with(SchedulerConfig::default()).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    let lease = worker.lease().await;
    client.until(Stage::Executing).await;
    let redis = kiln.redis.as_ref().unwrap();
    redis.pause();
    worker.succeed(&lease).await;
    // Longer than one call may take.
    tokio::time::sleep(Duration::from_secs(7)).await;
    redis.resume();
    assert_eq!(client.status().await.code, 0);
    let counters = kiln.snapshot().await.counters;
    assert_eq!((counters.published, counters.retries), (1, 0));
}

#[tokio::test]
async fn an_action_costs_three_calls_and_waiting_none() {
    let kiln = Kiln::with(SchedulerConfig::default()).await;
    let mut worker = kiln.worker("w", 1, &[]).await;
    // The script is known and the connection is up.
    let mut first = kiln.execute(&kiln.simple().await).await;
    worker.succeed_next().await;
    first.status().await;
    let before = calls(&kiln);
    const ACTIONS: u64 = 50;
    for _ in 0..ACTIONS {
        let mut client = kiln.execute(&kiln.simple().await).await;
        worker.succeed_next().await;
        assert_eq!(client.status().await.code, 0);
    }
    let used = calls(&kiln) - before;
    assert!(used <= 3 * ACTIONS + 3, "{used} calls for {ACTIONS} actions");
}

#[tokio::test]
async fn an_idle_frontend_with_a_worker_calls_redis_once_in_five_seconds() {
    let kiln = Kiln::with(SchedulerConfig::default()).await;
    let worker = kiln.worker("w", 1, &[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = calls(&kiln);
    for _ in 0..3 {
        worker.heartbeat(&[]).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let used = calls(&kiln) - before;
    assert!(used <= 6, "{used} calls in 30 s");
}

/// Commands that Redis has processed for clients, but for this question.
fn calls(kiln: &Kiln) -> u64 {
    let stats = kiln.redis.as_ref().unwrap().command(&["INFO", "commandstats"]);
    let calls = |name: &str| {
        let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:")));
        let calls = line.and_then(|line| line.split(['=', ',']).nth(1));
        calls.and_then(|calls| calls.parse::<u64>().ok()).unwrap_or(0)
    };
    calls("evalsha") + calls("ping") + calls("get") + calls("set")
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
