//! What holds on one server that works.

use std::sync::{Arc, Mutex};

use kiln_test_servers::redis::RedisServer;

use super::super::{
    Address, Call, Event, Flush, Observer, Redis, RedisConfig, RedisError, Secret, TlsFiles, Value,
};
use super::{add, alone, config, connect, set};

#[tokio::test]
async fn scripts_run_and_are_loaded_again_when_the_server_forgot_them() {
    let Some((server, redis)) = alone().await else { return };
    let key = redis.key("test", "counter");
    let add = add();
    for round in 1..4 {
        let before = redis.round_trips();
        let sum: u64 = redis.query(add.call(&[&key]).arg(1)).await.unwrap();
        assert_eq!(sum, 2 * round - 1);
        let expected = if round == 1 { 1 } else { 2 };
        assert_eq!(redis.round_trips() - before, expected, "again where the script was lost");
        let before = redis.round_trips();
        let sum: u64 = redis.query(add.call(&[&key]).arg(1)).await.unwrap();
        assert_eq!(sum, 2 * round);
        assert_eq!(redis.round_trips() - before, 1);
        assert_eq!(server.command(&["SCRIPT", "FLUSH"]), "OK");
    }
    assert_eq!(server.command(&["GET", "{kiln:test}:counter"]), "6");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_is_sent_once_however_many_call_it_first() {
    let Some((server, redis)) = alone().await else { return };
    let add = add();
    let loads = || -> u64 {
        let stats = server.command(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_script|load:calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    };
    let many = async || {
        let calls = (0..5000).map(|_| {
            let (redis, call) = (redis.clone(), add.call(&["sum"]).arg(1));
            tokio::spawn(async move { redis.run(call).await })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap().unwrap();
        }
    };
    many().await;
    assert_eq!(loads(), 1);
    assert_eq!(server.command(&["SCRIPT", "FLUSH"]), "OK");
    many().await;
    assert_eq!(loads(), 2);
    assert_eq!(server.command(&["GET", "sum"]), "10000");
}

#[tokio::test]
async fn many_calls_are_one_round_trip_and_answer_in_order() {
    let Some((_server, redis)) = alone().await else { return };
    let add = add();
    let key = |number: usize| redis.key(&format!("t{}", number % 7), number.to_string());
    let calls = || (0..500).map(|number| add.call(&[key(number)]).arg(number)).collect();
    redis.query_many::<usize>(calls()).await.unwrap();
    let before = redis.round_trips();
    let sums: Vec<usize> = redis.query_many(calls()).await.unwrap();
    assert_eq!(redis.round_trips() - before, 1);
    assert_eq!(sums, (0..500).map(|number| 2 * number).collect::<Vec<_>>());
    assert!(redis.run_many(Vec::new()).await.is_empty());
}

#[tokio::test]
async fn a_refused_call_does_not_spoil_its_neighbours() {
    let Some((_server, redis)) = alone().await else { return };
    let (text, number) = (redis.key("a", "text"), redis.key("a", "number"));
    redis.run(Call::command("SET", &text).arg("x")).await.unwrap();
    let add = add();
    let other = redis.key("b", "number");
    let answers = redis
        .run_many(vec![
            add.call(&[&text]).arg(1),
            add.call(&[&number]).arg(1),
            add.call(&[&number, &other]).arg(1),
        ])
        .await;
    let Err(RedisError::Script { name: "test.add", reason }) = &answers[0] else {
        panic!("{answers:?}");
    };
    assert!(reason.to_string().contains("not an integer"), "{reason}");
    assert!(matches!(answers[1], Ok(Value::Int(1))), "{answers:?}");
    let Err(RedisError::Script { reason, .. }) = &answers[2] else { panic!("{answers:?}") };
    assert!(reason.to_string().contains("different slots"), "{reason}");
    let wrong = redis.query::<u64>(Call::command("GET", &text)).await;
    assert!(matches!(wrong, Err(RedisError::Script { name: "GET", .. })), "{wrong:?}");
}

#[tokio::test]
async fn concurrent_calls_share_a_connection() {
    let Some((server, redis)) = alone().await else { return };
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let redis = redis.clone();
            tokio::spawn(async move {
                for step in 0..50u32 {
                    let key = redis.lone_key(format!("{task}/{step}"));
                    redis.run(Call::command("SET", &key).arg(step)).await.unwrap();
                    let found: u32 = redis.query(Call::command("GET", &key)).await.unwrap();
                    assert_eq!(found, step);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let clients = server.command(&["INFO", "clients"]);
    // The second client is the test's own, which asks.
    assert!(clients.contains("connected_clients:2\r"), "{clients}");
}

#[tokio::test]
async fn calls_made_while_one_is_on_its_way_share_the_next_round_trip() {
    let Some((_server, redis)) = alone().await else { return };
    let add = add();
    redis.run(add.call(&["sum"]).arg(0)).await.unwrap();
    let before = redis.round_trips();
    let calls = (0..200).map(|_| redis.query::<u32>(add.call(&["sum"]).arg(1)));
    let mut sums = futures_util::future::try_join_all(calls).await.unwrap();
    sums.sort_unstable();
    assert_eq!(sums, (1..=200).collect::<Vec<_>>(), "each has an answer of its own");
    let trips = redis.round_trips() - before;
    assert!(trips <= 3, "{trips} round trips");
}

#[derive(Default)]
struct Recorder(Mutex<Vec<(&'static str, usize, bool)>>);

impl Observer for Recorder {
    fn flushed(&self, flush: &Flush) {
        self.0.lock().unwrap().push((flush.name, flush.calls, flush.failed));
    }
}

#[tokio::test]
async fn an_observer_sees_every_flush() {
    let Some(server) = RedisServer::start() else { return };
    let recorder = Arc::new(Recorder::default());
    let config = RedisConfig { observer: Some(recorder.clone()), ..config(&server.url()) };
    let redis = Redis::connect(config).await.unwrap();
    let set = set();
    let calls = (0..3).map(|number| set.call(&[redis.key("t", number.to_string())]).arg("v"));
    redis.query_many::<String>(calls.collect()).await.unwrap();
    redis.run(Call::command("GET", "none")).await.unwrap();
    let seen = recorder.0.lock().unwrap().clone();
    assert_eq!(seen, [("test.set", 3, false), ("GET", 1, false)]);
}

#[tokio::test]
async fn messages_reach_the_subscribers_of_their_channel() {
    let Some((_server, redis)) = alone().await else { return };
    let (one, two) = (redis.channel("one"), redis.channel("two"));
    let mut both = redis.subscribe(vec![one.clone(), two.clone()]).await.unwrap();
    let mut second = redis.subscribe(vec![two.clone()]).await.unwrap();
    redis.publish(&one, b"1").await.unwrap();
    redis.publish(&two, &[0, 255]).await.unwrap();
    let message = |channel: &str, payload: &'static [u8]| {
        Some(Event::Message { channel: channel.into(), payload: payload.into() })
    };
    assert_eq!(both.next().await, message(&one, b"1"));
    assert_eq!(both.next().await, message(&two, &[0, 255]));
    assert_eq!(second.next().await, message(&two, &[0, 255]));
}

#[tokio::test]
async fn tls_passwords_and_client_certificates_are_used() {
    let Some(server) = RedisServer::start_secured() else { return };
    let tls = server.tls().unwrap();
    let secured = RedisConfig {
        password: Some(Secret::new(&tls.password)),
        tls: Some(TlsFiles {
            ca: Some(tls.ca.clone()),
            client: Some((tls.client_certificate.clone(), tls.client_key.clone())),
        }),
        ..config(&server.url())
    };
    let redis = Redis::connect(secured.clone()).await.unwrap();
    assert_eq!(redis.query::<String>(set().call(&["k"]).arg("v")).await.unwrap(), "set");
    let mut subscription = redis.subscribe(vec!["c".to_owned()]).await.unwrap();
    redis.publish("c", b"message").await.unwrap();
    assert!(matches!(subscription.next().await, Some(Event::Message { .. })));

    let wrong = |change: fn(&mut RedisConfig)| {
        let mut config = secured.clone();
        change(&mut config);
        async move { Redis::connect(config).await.err().unwrap() }
    };
    let error = wrong(|config| config.password = Some(Secret::new("hidden"))).await;
    assert!(matches!(error, RedisError::Auth { .. }), "{error}");
    assert!(!error.to_string().contains("hidden") && error.to_string().contains("password"));
    let error = wrong(|config| config.password = None).await;
    assert!(matches!(error, RedisError::Auth { .. }), "{error}");
    assert!(error.to_string().contains("redis.password_file"), "{error}");
    assert!(error.to_string().contains("KILN_REDIS_URL"), "{error}");
    // The system does not know this authority.
    let error = wrong(|config| config.tls.as_mut().unwrap().ca = None).await;
    assert!(error.to_string().contains("set redis.ca"), "{error}");
    let error = wrong(|config| config.tls.as_mut().unwrap().client = None).await;
    assert!(matches!(error, RedisError::Unavailable { .. }), "{error}");
    let error = wrong(|config| config.tls = None).await;
    assert!(error.to_string().contains("rediss://"), "{error}");
    let error = wrong(|config| config.tls.as_mut().unwrap().ca = Some("/none".into())).await;
    assert!(error.to_string().contains("/none"), "{error}");
}

#[tokio::test]
async fn a_server_that_may_have_no_tls_is_said_to() {
    let Some(server) = RedisServer::start() else { return };
    let url = server.url().replace("redis://", "rediss://");
    let error = Redis::connect(config(&url)).await.err().unwrap().to_string();
    assert!(error.contains("redis:// where it does not speak TLS"), "{error}");
}

#[tokio::test]
async fn servers_that_lose_data_are_refused() {
    let Some(server) = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]) else {
        return;
    };
    let error = Redis::connect(config(&server.url())).await.err().unwrap();
    assert!(matches!(error, RedisError::WrongServer { .. }), "{error}");
    assert!(error.to_string().contains("noeviction"), "{error}");
    let clustered = RedisConfig { cluster: true, ..config(&server.url()) };
    assert!(Redis::connect(clustered).await.is_err());
}

#[tokio::test]
async fn a_full_server_says_so() {
    let Some((server, redis)) = alone().await else { return };
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    let full = redis.run(set().call(&["k"]).arg("v")).await;
    assert!(matches!(&full, Err(RedisError::Full { .. })), "{full:?}");
    assert!(full.unwrap_err().to_string().contains("maxmemory"));
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    redis.run(set().call(&["k"]).arg("v")).await.unwrap();
}

#[tokio::test]
async fn databases_and_prefixes_keep_users_apart() {
    let Some((server, redis)) = alone().await else { return };
    let other = connect(&format!("{}/3", server.url())).await;
    let third = Redis::connect(RedisConfig {
        prefix: "other".to_owned(),
        addresses: vec![Address { host: "localhost".to_owned(), port: server.port() }],
        ..config(&server.url())
    });
    let third = third.await.unwrap();
    for (number, redis) in [&redis, &other, &third].into_iter().enumerate() {
        let key = redis.key("t", "k");
        assert_eq!(redis.query::<Option<u32>>(Call::command("GET", &key)).await.unwrap(), None);
        redis.run(Call::command("SET", &key).arg(number)).await.unwrap();
    }
}
