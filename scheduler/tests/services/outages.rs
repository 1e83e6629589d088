//! Redis is away, slow or forgetful, and what it is asked.

use std::time::Duration;

use kiln_protos::reapi::execution_stage::Value as Stage;
use kiln_scheduler::SchedulerConfig;
use tokio::time::Instant;
use tonic::Code;

use crate::fleet::{SILENCE, quick};
use crate::harness::Kiln;

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
    // The queue takes neither the worker nor the client for lost, now or later.
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
    let bounds = 2 * ACTIONS..=3 * ACTIONS + 3;
    assert!(bounds.contains(&used), "{used} calls for {ACTIONS} actions");
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
    calls("fcall") + calls("evalsha") + calls("ping") + calls("get") + calls("set")
}
