use std::sync::Arc;

use kiln_net::lease::Slot as _;

use super::*;
use crate::records::lease::LeaseRecord;
use crate::records::{MAX_VALUE, SharedRecords};
use crate::redis::tests::{alone, cluster, connect};

fn write(key: &str, expect: Expect, value: &[u8]) -> Write {
    Write { key: key.to_owned(), expect, value: Some(Bytes::copy_from_slice(value)) }
}

async fn put(records: &RedisRecords, key: &str, value: &[u8]) -> Version {
    records.write(vec![write(key, Expect::Anything, value)]).await.unwrap()[0]
}

#[tokio::test]
async fn each_call_is_one_round_trip() {
    let Some((_server, redis)) = alone().await else { return };
    let records = RedisRecords::new(redis.clone());
    let batch = || (0..1000).map(|n| write(&n.to_string(), Expect::Anything, b"v")).collect();
    records.write(batch()).await.unwrap();
    records.list("", None, false, 10).await.unwrap();
    let before = redis.round_trips();
    records.write(batch()).await.unwrap();
    records.get("1").await.unwrap();
    assert_eq!(records.list("", None, false, 500).await.unwrap().len(), 500);
    assert_eq!(redis.round_trips() - before, 3);
    let before = redis.round_trips();
    assert_eq!(records.list("", None, true, 1500).await.unwrap().len(), 1000);
    assert_eq!(redis.round_trips() - before, 2, "pages of {PAGE}");
    let lease = LeaseRecord::new(Arc::new(records), "lease");
    let version = lease.swap(None, b"1".to_vec()).await.unwrap();
    let before = redis.round_trips();
    assert!(lease.swap(version, b"2".to_vec()).await.unwrap() > version);
    assert_eq!(redis.round_trips() - before, 1, "a renewal");
}

#[tokio::test]
async fn lists_of_large_values_come_in_pages_and_whole() {
    let Some((_server, redis)) = alone().await else { return };
    let records = RedisRecords::new(redis);
    let large = vec![7; MAX_VALUE];
    for number in 0..20 {
        put(&records, &format!("large/{number:02}"), &large).await;
    }
    for reverse in [false, true] {
        let found = records.list("large/", None, reverse, 18).await.unwrap();
        assert_eq!(found.len(), 18);
        let mut keys: Vec<_> = found.iter().map(|record| record.key.clone()).collect();
        if reverse {
            keys.reverse();
        }
        let first = if reverse { 2 } else { 0 };
        let expected = (first..first + 18).map(|number| format!("large/{number:02}"));
        assert!(keys.into_iter().eq(expected));
        assert!(found.iter().all(|record| record.value == large));
    }
    let many = (0..129).map(|number| write(&number.to_string(), Expect::Anything, &large));
    let error = records.write(many.collect()).await;
    assert!(matches!(error, Err(RecordsError::Invalid(_))), "{error:?}");
}

#[tokio::test]
async fn a_restart_keeps_records_and_a_flush_does_not_bring_versions_back() {
    let Some((mut server, redis)) = alone().await else { return };
    let records = RedisRecords::new(redis);
    let first = put(&records, "k", b"1").await;
    server.kill();
    server.restart();
    assert_eq!(records.get("k").await.unwrap().unwrap().version, first);
    let second = records.write(vec![write("k", Expect::Version(first), b"2")]).await.unwrap()[0];
    assert!(second > first);
    assert_eq!(server.command(&["FLUSHALL"]), "OK");
    assert_eq!(records.get("k").await.unwrap(), None);
    assert!(put(&records, "k", b"3").await > second);
    let stale = records.write(vec![write("k", Expect::Version(second), b"4")]).await;
    assert!(matches!(stale, Err(RecordsError::Conflict { .. })), "{stale:?}");
}

#[tokio::test]
async fn versions_grow_when_the_clock_goes_back() {
    let Some((server, redis)) = alone().await else { return };
    let records = RedisRecords::new(redis);
    put(&records, "k", b"1").await;
    // As if it had been written a day later.
    let ahead = records.get("k").await.unwrap().unwrap().version + 86_400_000_000;
    assert_eq!(server.command(&["SET", "{kiln:records}:version", &ahead.to_string()]), "OK");
    assert_eq!(put(&records, "k", b"2").await, ahead + 1);
    assert_eq!(put(&records, "k", b"3").await, ahead + 2);
}

#[tokio::test]
async fn damage_is_told_from_absence() {
    let Some((server, redis)) = alone().await else { return };
    let records = RedisRecords::new(redis);
    put(&records, "k", b"1").await;
    assert_eq!(server.command(&["HSET", "{kiln:records}:values", "k", "damaged"]), "0");
    assert!(matches!(records.get("k").await, Err(RecordsError::Corrupt(_))));
    let listed = records.list("", None, false, 9).await;
    assert!(matches!(listed, Err(RecordsError::Corrupt(_))), "{listed:?}");
    assert_eq!(server.command(&["SET", "{kiln:records}:values", "of something else"]), "OK");
    assert!(matches!(records.get("k").await, Err(RecordsError::Corrupt(_))));
    server.pause();
    let started = std::time::Instant::now();
    assert!(matches!(records.get("k").await, Err(RecordsError::Unavailable(_))));
    assert!(started.elapsed().as_secs() < 10);
}

/// Increments by several processes, while the server is killed and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost_or_done_twice_over_a_restart() {
    let Some((mut server, redis)) = alone().await else { return };
    let url = server.url();
    let records = RedisRecords::new(redis);
    put(&records, "counter", b"0").await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let records: SharedRecords = Arc::new(RedisRecords::new(connect(&url).await));
        tasks.push(tokio::spawn(async move {
            let (mut done, mut doubtful) = (0, 0);
            while done + doubtful < 300 {
                let Ok(now) = records.get("counter").await else { continue };
                let now = now.unwrap();
                let count: u64 = std::str::from_utf8(&now.value).unwrap().parse().unwrap();
                let next = (count + 1).to_string();
                let next = write("counter", Expect::Version(now.version), next.as_bytes());
                match records.write(vec![next]).await {
                    Ok(_) => done += 1,
                    Err(RecordsError::Conflict { .. }) => {}
                    Err(error) => {
                        assert!(matches!(error, RecordsError::Unavailable(_)), "{error}");
                        doubtful += 1;
                    }
                }
            }
            (done, doubtful)
        }));
    }
    server.wait_until(&["HGET", "{kiln:records}:values", "counter"], |stored| {
        stored.split(' ').nth(1).is_some_and(|count| count.parse::<u64>().unwrap() > 100)
    });
    server.restart();
    let (mut done, mut doubtful) = (0, 0);
    for task in tasks {
        let counted = task.await.unwrap();
        done += counted.0;
        doubtful += counted.1;
    }
    let count = records.get("counter").await.unwrap().unwrap().value;
    let count: u64 = std::str::from_utf8(&count).unwrap().parse().unwrap();
    assert!((done..=done + doubtful).contains(&count), "{count}: {done} and {doubtful} doubtful");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_contract() {
    let Some((_cluster, redis)) = cluster().await else { return };
    let records = Arc::new(RedisRecords::new(redis));
    crate::stores::contract::records::suite(records.clone()).await;
    crate::stores::contract::leases::suite(records).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_keeps_the_contract() {
    let Some((_server, redis)) = alone().await else { return };
    let records = Arc::new(RedisRecords::new(redis));
    crate::stores::contract::records::suite(records.clone()).await;
    crate::stores::contract::leases::suite(records).await;
}
