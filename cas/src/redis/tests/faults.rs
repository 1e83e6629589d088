//! Servers and networks that fail.

use std::time::{Duration, Instant};

use kiln_test_servers::redis::RedisServer;
use kiln_test_servers::slow::{SlowProxy, Way};

use super::super::{Call, Event, Redis, RedisConfig, RedisError};
use super::{add, alone, config, connect, set};

const SECOND: Duration = Duration::from_secs(1);

fn proxied(proxy: &SlowProxy, timeout: Duration) -> RedisConfig {
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    RedisConfig { timeout, ..config(&url) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_at_the_start_is_named_and_waited_for_when_told_to() {
    let Some(mut server) = RedisServer::start() else { return };
    server.kill();
    let started = Instant::now();
    let error = Redis::connect(config(&server.url())).await.err().unwrap();
    assert!(matches!(error, RedisError::Unavailable { sent: false, .. }), "{error}");
    let text = error.to_string();
    for part in [&server.port().to_string(), "refused", "start it", "Redis URL"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(started.elapsed() < 10 * SECOND, "it is not waited for");
    let waiting = RedisConfig { wait: 30 * SECOND, ..config(&server.url()) };
    let waiting = tokio::spawn(Redis::connect(waiting));
    let bounded = RedisConfig { wait: SECOND / 2, ..config(&server.url()) };
    assert!(Redis::connect(bounded).await.is_err());
    assert!(!waiting.is_finished());
    server.restart();
    let redis = waiting.await.unwrap().unwrap();
    redis.run(Call::command("SET", "k").arg("v")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_wait_for_a_server_that_restarts() {
    let Some((mut server, redis)) = alone().await else { return };
    let mut subscription = redis.subscribe(vec!["c".to_owned()]).await.unwrap();
    let sum = redis.query::<u32>(add().call(&["sum"]).arg(5)).await.unwrap();
    assert_eq!(sum, 5);
    server.kill();
    let call = tokio::spawn({
        let redis = redis.clone();
        async move { redis.run(set().call(&["k"]).arg("v")).await }
    });
    server.restart();
    call.await.unwrap().unwrap();
    // This call may not run twice. The client may try it again all the same where it was never sent.
    assert_eq!(redis.query::<u32>(add().call(&["sum"]).arg(5)).await.unwrap(), 10);
    assert_eq!(subscription.next().await, Some(Event::Reconnected));
    redis.publish("c", b"m").await.unwrap();
    assert!(matches!(subscription.next().await, Some(Event::Message { .. })));
}

#[tokio::test]
async fn a_server_that_stays_down_fails_calls_in_time() {
    let Some(mut server) = RedisServer::start() else { return };
    let redis = Redis::connect(RedisConfig { timeout: SECOND, ..config(&server.url()) });
    let redis = redis.await.unwrap();
    server.kill();
    for _ in 0..2 {
        let started = Instant::now();
        let error = redis.run(set().call(&["k"]).arg("v")).await.unwrap_err();
        assert!(matches!(error, RedisError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
        assert!(started.elapsed() < 20 * SECOND, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_paused_server_ends_in_timeouts_and_recovers() {
    let Some(server) = RedisServer::start() else { return };
    let redis = Redis::connect(RedisConfig { timeout: SECOND, ..config(&server.url()) });
    let redis = redis.await.unwrap();
    redis.run(add().call(&["sum"]).arg(1)).await.unwrap();
    server.pause();
    let started = Instant::now();
    let mut failures = 0;
    while started.elapsed() < 10 * SECOND {
        let asked = Instant::now();
        let error = redis.run(add().call(&["sum"]).arg(1)).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(asked.elapsed() < 9 * SECOND, "{:?}", asked.elapsed());
        failures += u32::from(error.may_have_run());
    }
    server.resume();
    let patient = Instant::now();
    let sum: u32 = loop {
        match redis.query(add().call(&["sum"]).arg(1)).await {
            Ok(sum) => break sum,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        assert!(patient.elapsed() < 30 * SECOND);
    };
    // The calls that failed with a doubtful error may have run; the others must not have.
    assert!((2..=2 + failures).contains(&sum), "{sum} after {failures} doubtful failures");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_repeats_only_what_may_run_twice() {
    let Some(server) = RedisServer::start() else { return };
    let proxy = SlowProxy::start(server.port(), Duration::ZERO).await;
    let redis = Redis::connect(proxied(&proxy, 2 * SECOND)).await.unwrap();
    redis.run(add().call(&["sum"]).arg(1)).await.unwrap();
    redis.run(set().call(&["k"]).arg("v")).await.unwrap();
    for idempotent in [false, true] {
        redis.run(Call::command("GET", "sum")).await.unwrap();
        proxy.set(Way::AnswersLost);
        let call = tokio::spawn({
            let (redis, call) = (redis.clone(), add().call(&["sum"]).arg(1));
            let call = if idempotent { call.idempotent() } else { call };
            async move { redis.query::<u32>(call).await }
        });
        let expected = if idempotent { "3" } else { "2" };
        server.wait_until(&["GET", "sum"], |sum| sum == expected);
        // The connection breaks while the answer is under way, and the next connection works.
        proxy.cut(Way::Through);
        match call.await.unwrap() {
            Ok(sum) => assert_eq!((sum, idempotent), (4, true)),
            Err(error) => assert!(!idempotent && error.may_have_run(), "{error}"),
        }
    }
    assert_eq!(server.command(&["GET", "sum"]), "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_a_lost_call_was_not_sent_and_runs_once() {
    let Some(server) = RedisServer::start() else { return };
    let proxy = SlowProxy::start(server.port(), Duration::ZERO).await;
    let redis = Redis::connect(proxied(&proxy, 10 * SECOND)).await.unwrap();
    redis.run(add().call(&["first"]).arg(0)).await.unwrap();
    proxy.set(Way::AnswersLost);
    let call = |key: &'static str| {
        let redis = redis.clone();
        tokio::spawn(async move { redis.query::<u32>(add().call(&[key]).arg(1)).await })
    };
    let first = call("first");
    server.wait_until(&["GET", "first"], |value| value == "1");
    let (waiting, given_up) = (call("second"), call("third"));
    // Behind the first one; nobody sees them from outside before they are sent.
    tokio::time::sleep(SECOND / 5).await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    proxy.cut(Way::Through);
    assert!(first.await.unwrap().unwrap_err().may_have_run());
    let sum = waiting.await.unwrap();
    assert!(matches!(sum, Ok(1)), "it is tried again, though it must not run twice: {sum:?}");
    assert_eq!(server.command(&["GET", "third"]), "");
    assert_eq!(server.command(&["GET", "first"]), "1");
}

#[tokio::test]
async fn a_slow_network_costs_time_but_no_call() {
    let Some(server) = RedisServer::start() else { return };
    let proxy = SlowProxy::start(server.port(), SECOND / 10).await;
    let redis = Redis::connect(proxied(&proxy, 5 * SECOND)).await.unwrap();
    let calls = |count: u32| (0..count).map(|n| set().call(&[format!("k{n}")]).arg(n)).collect();
    redis.query_many::<String>(calls(1)).await.unwrap();
    let started = Instant::now();
    redis.query_many::<String>(calls(1000)).await.unwrap();
    let elapsed = started.elapsed();
    // One after the other, the calls would take 200 s.
    assert!((SECOND / 5..60 * SECOND).contains(&elapsed), "{elapsed:?} for one pipeline at 200 ms");
    let started = Instant::now();
    let alone = (0..100u32).map(|n| {
        let redis = redis.clone();
        tokio::spawn(async move { redis.run(Call::command("GET", format!("k{n}"))).await })
    });
    for call in alone.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert!(started.elapsed() < 15 * SECOND, "{:?} for calls at the same time", started.elapsed());
}

#[tokio::test]
async fn a_connection_that_takes_longer_than_a_call_is_made_nevertheless() {
    let Some(server) = RedisServer::start() else { return };
    let proxy = SlowProxy::start(server.port(), SECOND / 5).await;
    let redis = Redis::connect(proxied(&proxy, SECOND / 2)).await.unwrap();
    proxy.cut(Way::Refused);
    let get = || Call::command("GET", "k").idempotent();
    let error = redis.run(get()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    proxy.set(Way::Through);
    let started = Instant::now();
    while let Err(error) = redis.run(get()).await {
        assert!(started.elapsed() < 10 * SECOND, "{error}");
    }
}

#[tokio::test]
async fn a_subscriber_that_is_too_slow_is_told_that_it_missed_messages() {
    let Some((_server, redis)) = alone().await else { return };
    let mut subscription = redis.subscribe(vec!["c".to_owned()]).await.unwrap();
    const SENT: usize = 3000;
    let publish = |n: usize| Call::anywhere("PUBLISH").arg("c").arg(n);
    redis.query_many::<u32>((0..SENT).map(publish).collect()).await.unwrap();
    // The subscription is full. The test waits a moment longer, so that the next message finds no place.
    for _ in 0..100 {
        while !subscription.is_full() {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
    }
    let mut seen = 0;
    while let Event::Message { payload, .. } = subscription.next().await.unwrap() {
        assert_eq!(payload, seen.to_string());
        seen += 1;
    }
    assert!(seen < SENT, "{seen} messages were kept");
    redis.publish("c", b"later").await.unwrap();
    loop {
        match subscription.next().await.unwrap() {
            Event::Message { payload, .. } if payload == "later" => break,
            Event::Message { .. } => {}
            // The message may have been among those that were lost.
            Event::Reconnected => redis.publish("c", b"later").await.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_at_the_same_address_is_found() {
    let Some(server) = RedisServer::start() else { return };
    let replica_of = format!("127.0.0.1 {}", server.port());
    let replica = RedisServer::start_with(&["--replicaof", &replica_of]).unwrap();
    let error = Redis::connect(config(&replica.url())).await.err().unwrap();
    assert!(matches!(error, RedisError::FailingOver { .. }), "{error}");
    assert_eq!(replica.command(&["REPLICAOF", "NO", "ONE"]), "OK");
    let redis = connect(&replica.url()).await;
    redis.run(set().call(&["k"]).arg("v")).await.unwrap();
    // The master becomes a replica: calls wait until it is one no more.
    assert_eq!(replica.command(&["REPLICAOF", "127.0.0.1", &server.port().to_string()]), "OK");
    let call = tokio::spawn({
        let redis = redis.clone();
        async move { redis.run(add().call(&["sum"]).arg(1)).await }
    });
    replica.wait_until(&["INFO", "stats"], |stats| {
        let failed = stats.lines().find_map(|line| line.strip_prefix("total_error_replies:"));
        failed.is_some_and(|failed| failed.trim() != "0")
    });
    assert_eq!(replica.command(&["REPLICAOF", "NO", "ONE"]), "OK");
    call.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_followed_another_one_meanwhile_counts_as_a_change() {
    let Some((server, redis)) = alone().await else { return };
    let set = |value: &str| Call::command("SET", "k").arg(value).idempotent();
    redis.run(set("before")).await.unwrap();
    let before = redis.stats().changes;
    // No server is at that address. The server becomes a replica all the same, and would take over the
    // other's data.
    assert_eq!(server.command(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    let call = tokio::spawn({
        let (redis, call) = (redis.clone(), set("after"));
        async move { redis.run(call).await }
    });
    server.wait_until(&["INFO", "errorstats"], |info| info.contains("READONLY"));
    assert_eq!(server.command(&["REPLICAOF", "NO", "ONE"]), "OK");
    call.await.unwrap().unwrap();
    assert_eq!(redis.stats().changes, before + 1, "the process is the same, what it knows is not");
}
