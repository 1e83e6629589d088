//! What the stores in Redis do, through one connection to a server on this machine
//! (`KILN_REDIS`): `cargo bench -p kiln-cas --bench redis`.
#![allow(clippy::unwrap_used)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_cas::redis::{Redis, RedisConfig};
use kiln_cas::stores::indexed::{BlobIndex, Generation};
use kiln_cas::stores::{
    RedisActionCache, RedisActionCacheOptions, RedisBlobIndex, RedisBlobIndexOptions,
};
use kiln_cas::{ActionCache, ActionKey, Digest, DigestFunction};
use kiln_test_servers::redis::RedisServer;

/// The server packs the entries of an index of this size, which saves memory and costs time.
const PACKED: u64 = 100_000;
/// The server does not pack those of an index of this size.
const BLOBS: u64 = 400_000;
const TASKS: u64 = 64;
const CALLS: u64 = 100_000;
const ROUNDS: usize = 10;
const HOUR: Duration = Duration::from_secs(3600);

fn digest(number: u64) -> Digest {
    DigestFunction::Sha256.digest(&number.to_be_bytes())
}

/// Runs `work` for each number by `TASKS` tasks, and prints calls a second.
async fn many<F: Future<Output = ()> + Send>(
    name: &str,
    numbers: Range<u64>,
    work: impl Fn(u64) -> F + Send + Sync + Clone + 'static,
) {
    let (calls, end) = (numbers.end - numbers.start, numbers.end);
    let next = Arc::new(AtomicU64::new(numbers.start));
    let started = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (next, work) = (next.clone(), work.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    work(number).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    println!("{name}: {:.0}/s", calls as f64 / started.elapsed().as_secs_f64());
}

async fn results(redis: &Redis) {
    let cache = RedisActionCache::new(redis.clone(), RedisActionCacheOptions::default());
    let cache = Arc::new(cache);
    let result = Bytes::from(vec![7; 600]);
    let key = |number| ActionKey { instance: "".into(), action: digest(number) };
    let writer = cache.clone();
    many("results written, 600 bytes, 64 tasks", 0..CALLS, move |number| {
        let (cache, result) = (writer.clone(), result.clone());
        async move { cache.put(&key(number), result).await.unwrap() }
    })
    .await;
    many("results read", 0..CALLS, move |number| {
        let cache = cache.clone();
        async move { assert!(cache.get(&key(number)).await.unwrap().is_some()) }
    })
    .await;
}

async fn small(index: &Arc<RedisBlobIndex>) {
    let blob = |number: u64| {
        let data = Bytes::from([number.to_be_bytes().as_slice(), &[7; 1016]].concat());
        (DigestFunction::Sha256.digest(&data), data)
    };
    const SMALL: u64 = 10_000;
    let blobs: Arc<Vec<_>> = Arc::new((0..SMALL).map(blob).collect());
    let started = Instant::now();
    for part in blobs.chunks(500) {
        index.put_small(part, HOUR).await.unwrap();
    }
    let rate = SMALL as f64 / started.elapsed().as_secs_f64();
    println!("small blobs kept, 1 KiB, 500 at a time: {rate:.0}/s");
    let reader = index.clone();
    many("small blobs read, one at a time, 64 tasks", 0..CALLS, move |number| {
        let (index, digest) = (reader.clone(), blobs[(number % SMALL) as usize].0);
        async move { assert!(index.small(&[digest]).await.unwrap()[0].is_some()) }
    })
    .await;
}

async fn find(redis: &Redis, index: &RedisBlobIndex, blobs: u64) {
    let digests: Vec<_> = (0..10_000).map(|number| digest(number * blobs / 10_000)).collect();
    let timed = async |name: &str, lease| {
        let (mut best, mut total) = (Duration::MAX, Duration::ZERO);
        let before = redis.round_trips();
        for _ in 0..ROUNDS {
            let started = Instant::now();
            assert!(index.find(&digests, lease).await.unwrap().iter().all(Option::is_some));
            best = best.min(started.elapsed());
            total += started.elapsed();
        }
        let trips = (redis.round_trips() - before) as f64 / ROUNDS as f64;
        println!(
            "{name}: {trips} round trips, best {best:.1?}, mean {:.1?}",
            total / ROUNDS as u32
        );
    };
    index.find(&digests, HOUR).await.unwrap();
    timed("find of 10,000", HOUR).await;
    let mut lease = HOUR;
    let mut slowest = Duration::ZERO;
    for _ in 0..ROUNDS {
        lease *= 2;
        let started = Instant::now();
        index.find(&digests, lease).await.unwrap();
        slowest = slowest.max(started.elapsed());
    }
    println!("find of 10,000 that renews each lease: at most {slowest:.1?}");
    let one = [digests[0]];
    let started = Instant::now();
    for _ in 0..2000 {
        index.find(&one, HOUR).await.unwrap();
    }
    println!("find of one, one after the other: {:.1?}", started.elapsed() / 2000);
}

fn used_memory(server: &RedisServer) -> u64 {
    let info = server.command(&["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    used.trim().parse().unwrap()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let Some(server) = RedisServer::start() else { return };
    let config = RedisConfig::from_url(&server.url()).unwrap();
    let redis = Redis::connect(config).await.unwrap();
    let index = RedisBlobIndex::new(redis.clone(), RedisBlobIndexOptions::default());
    let index = Arc::new(index);
    index.usage().await.unwrap();
    let before = used_memory(&server);
    for numbers in [0..PACKED, PACKED..BLOBS] {
        let (placing, blobs) = (index.clone(), numbers.end);
        many("blobs placed, 64 tasks", numbers, move |number| {
            let index = placing.clone();
            async move {
                index.place(&digest(number), Generation(number), HOUR).await.unwrap();
            }
        })
        .await;
        println!("{blobs} blobs: {} bytes each", (used_memory(&server) - before) / blobs);
        find(&redis, &index, blobs).await;
    }
    small(&index).await;
    results(&redis).await;
}
