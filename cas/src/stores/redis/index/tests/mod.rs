//! Against real servers.

mod model;
mod several;

use super::*;
use crate::redis::tests::{alone, cluster};
use crate::redis::{Call, Redis};
use crate::stores::contract::blob;
use crate::stores::contract::index::{scan_all, suite};

const HOUR: Duration = Duration::from_secs(3600);

fn index(redis: &Redis) -> RedisBlobIndex {
    RedisBlobIndex::new(redis.clone(), RedisBlobIndexOptions::default())
}

#[tokio::test]
async fn a_server_keeps_the_contract() {
    let Some((_server, redis)) = alone().await else { return };
    suite(&index(&redis), async |time| tokio::time::sleep(time).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_contract() {
    let Some((_cluster, redis)) = cluster().await else { return };
    suite(&index(&redis), async |time| tokio::time::sleep(time).await).await;
}

fn digests(count: u64) -> Vec<Digest> {
    (0..count).map(|seed| blob(seed, 8).0).collect()
}

async fn place_all(index: &RedisBlobIndex, digests: &[Digest], lease: Duration) {
    let places = digests.iter().map(|digest| index.place(digest, Generation(1), lease));
    futures_util::future::try_join_all(places).await.unwrap();
}

#[tokio::test]
async fn any_number_of_digests_is_one_round_trip() {
    let Some((_server, redis)) = alone().await else { return };
    let index = index(&redis);
    let digests = digests(10_000);
    let blobs: Vec<_> = (20_000..21_000).map(|seed| blob(seed, 500)).collect();
    let small: Vec<_> = blobs.iter().map(|(digest, _)| *digest).collect();
    // Scripts are loaded by their first use.
    index.find(&digests[..1], HOUR).await.unwrap();
    index.put_small(&blobs[..1], HOUR).await.unwrap();
    place_all(&index, &digests[..1], HOUR).await;
    index.evict(&[(digests[1], Generation(1))]).await.unwrap();
    index.epoch().await.unwrap();
    place_all(&index, &digests[..5000], HOUR).await;
    let before = redis.round_trips();
    let found = index.find(&digests, HOUR).await.unwrap();
    assert_eq!(found.iter().flatten().count(), 5000);
    assert_eq!(redis.round_trips() - before, 1);
    index.put_small(&blobs, HOUR).await.unwrap();
    assert!(index.small(&small).await.unwrap().iter().all(Option::is_some));
    let evict: Vec<_> = digests.iter().map(|digest| (*digest, Generation(1))).collect();
    assert!(!index.evict(&evict).await.unwrap().contains(&true));
    index.usage().await.unwrap();
    index.epoch().await.unwrap();
    assert_eq!(redis.round_trips() - before, 6);
    let before = redis.round_trips();
    assert_eq!(index.place_all(&evict[..5000], HOUR).await.unwrap(), vec![Generation(1); 5000]);
    assert_eq!(redis.round_trips() - before, 1);
    let before = redis.round_trips();
    assert_eq!(scan_all(&index).await.len(), 5000);
    let trips = redis.round_trips() - before;
    assert!(trips <= 8, "{trips} round trips to scan 5000 entries");
}

#[tokio::test]
async fn finding_what_is_promised_writes_nothing() {
    let Some((server, redis)) = alone().await else { return };
    let index = index(&redis);
    let digests = digests(500);
    place_all(&index, &digests, Duration::from_secs(9)).await;
    let written = || -> u64 {
        let info = server.command(&["INFO", "persistence"]);
        let size = info.lines().find_map(|line| line.strip_prefix("aof_current_size:"));
        size.unwrap().trim().parse().unwrap()
    };
    let before = written();
    index.find(&digests, HOUR).await.unwrap();
    let prolonged = written();
    assert!(prolonged > before + 500 * 50);
    for _ in 0..5 {
        index.find(&digests, HOUR).await.unwrap();
    }
    assert_eq!(written(), prolonged);
}

#[tokio::test]
async fn bytes_that_expired_come_back_when_they_are_put_again() {
    let Some((server, redis)) = alone().await else { return };
    let keep_small = Duration::from_secs(100);
    let index = RedisBlobIndex::new(
        redis.clone(),
        RedisBlobIndexOptions { keep_small, ..Default::default() },
    );
    let (digest, bytes) = blob(1, 900);
    index.put_small(&[(digest, bytes.clone())], HOUR).await.unwrap();
    index.place(&digest, Generation(3), HOUR).await.unwrap();
    let key = index.bucket(&digest).small(&field(&digest));
    let left = async || redis.query::<i64>(Call::command("TTL", &key)).await.unwrap();
    assert!((90..=100).contains(&left().await));
    redis.run(Call::command("EXPIRE", &key).arg(10)).await.unwrap();
    assert_eq!(index.small(&[digest]).await.unwrap(), [Some(bytes.clone())]);
    assert!((90..=100).contains(&left().await), "use prolongs it");
    redis.run(Call::command("DEL", &key)).await.unwrap();
    assert_eq!(index.small(&[digest]).await.unwrap(), [None]);
    index.put_small(&[(digest, bytes.clone())], HOUR).await.unwrap();
    assert_eq!(index.small(&[digest]).await.unwrap(), [Some(bytes)]);
    assert_eq!(index.usage().await.unwrap(), IndexUsage { blobs: 1, bytes: 900, pending: 0 });
    assert!(index.forget(&digest, Place::Object(Generation(3))).await.unwrap());
    // The one key that is left is the sum of the bytes, which is zero.
    assert_eq!(server.command(&["DBSIZE"]), "1");
}

#[tokio::test]
async fn a_restart_keeps_everything_and_a_flush_shows() {
    let Some((mut server, redis)) = alone().await else { return };
    let index = index(&redis);
    let digests = digests(300);
    let (pending, bytes) = blob(999, 100);
    place_all(&index, &digests, HOUR).await;
    index.put_small(&[(pending, bytes.clone())], HOUR).await.unwrap();
    let (epoch, usage) = (index.epoch().await.unwrap(), index.usage().await.unwrap());
    server.kill();
    server.restart();
    assert_eq!(index.epoch().await.unwrap(), epoch);
    assert_eq!(index.usage().await.unwrap(), usage);
    for entry in index.find(&digests, Duration::ZERO).await.unwrap() {
        assert!(entry.unwrap().lease > HOUR / 2);
    }
    assert_eq!(index.small(&[pending]).await.unwrap(), [Some(bytes)]);
    assert_eq!(server.command(&["FLUSHALL"]), "OK");
    assert!(index.find(&digests, HOUR).await.unwrap().iter().all(Option::is_none));
    assert_eq!(index.usage().await.unwrap(), IndexUsage::default());
    let second = index.epoch().await.unwrap();
    assert_ne!(second, epoch);
    // The loss of one bucket changes the epoch as well.
    redis.run(Call::command("DEL", &index.buckets[7].random)).await.unwrap();
    assert_ne!(index.epoch().await.unwrap(), second);
}

#[tokio::test]
async fn large_buckets_are_scanned_in_parts() {
    let Some((_server, redis)) = alone().await else { return };
    let index = index(&redis);
    let mut digests = digests(20_000);
    for digest in &mut digests[..15_000] {
        digest.hash[0] = 3;
    }
    place_all(&index, &digests, HOUR).await;
    let scanned = scan_all(&index).await;
    assert_eq!(scanned.len(), 20_000);
    assert!(digests.iter().all(|digest| scanned.contains_key(digest)));
    let far = index.scan(Some(u64::MAX)).await;
    assert!(far.is_err() || far.unwrap().0.len() < 5000);
}

#[tokio::test]
async fn a_blob_costs_little_memory() {
    const BLOBS: u64 = 10_000;
    const MOST: u64 = 130;
    let Some((server, redis)) = alone().await else { return };
    let index = index(&redis);
    let mut digests = digests(BLOBS);
    // All blobs are put into one bucket, which so has as many as it would in an index of millions.
    digests.iter_mut().for_each(|digest| digest.hash[0] = 3);
    place_all(&index, &digests[..1], HOUR).await;
    let used = || -> u64 {
        let entries = String::from_utf8(index.buckets[3].entries.clone()).unwrap();
        server.command(&["MEMORY", "USAGE", &entries, "SAMPLES", "0"]).parse().unwrap()
    };
    let before = used();
    place_all(&index, &digests, HOUR).await;
    let each = (used() - before) / BLOBS;
    println!("{each} bytes a blob");
    assert!(each <= MOST, "{each} bytes a blob");
}

#[tokio::test]
async fn damage_is_told_from_absence() {
    let Some((_server, redis)) = alone().await else { return };
    let index = index(&redis);
    let digest = digests(1)[0];
    let entries = &index.bucket(&digest).entries;
    redis.run(Call::command("HSET", entries).arg(&field(&digest)[..]).arg("odd")).await.unwrap();
    assert!(index.find(&[digest], HOUR).await.is_err());
    redis.run(Call::command("SET", entries).arg("of something else")).await.unwrap();
    let error = index.find(&[digest], HOUR).await.unwrap_err();
    assert!(error.to_string().contains("WRONGTYPE"), "{error}");
}
