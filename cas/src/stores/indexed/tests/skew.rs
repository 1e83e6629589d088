//! Processes whose clocks are hours apart, on a real index: time is the index's own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rig::read;
use crate::blob::BlobStore;
use crate::clock::Clock;
use crate::redis::Redis;
use crate::redis::tests::alone;
use crate::stores::contract::blob;
use crate::stores::indexed::*;
use crate::stores::redis::{RedisBlobIndex, RedisBlobIndexOptions};

const HOUR: u32 = 3600;
const NOW: u32 = 1_800_000_000;

/// A process of the fleet whose clock shows `now`.
async fn process(
    index: &Arc<RedisBlobIndex>,
    objects: &Arc<MemoryObjects>,
    now: u32,
    lease: Duration,
) -> Indexed {
    let options = IndexedOptions {
        lease,
        keep: Some(Duration::ZERO),
        clock: Clock::manual(now),
        ..IndexedOptions::default()
    };
    Indexed::open(index.clone(), objects.clone(), options).await
}

#[tokio::test]
async fn clocks_that_are_hours_apart_end_no_promise_early_and_none_late() {
    // One process collects the garbage of all: first the one for which all leases are long over,
    // then the one for which they have hardly begun.
    for (collector, other) in [(NOW + HOUR, NOW - HOUR), (NOW - HOUR, NOW + HOUR)] {
        let Some((_server, redis)) = alone().await else { return };
        check(redis, collector, other).await;
    }
}

async fn check(redis: Redis, collector: u32, other: u32) {
    let index = Arc::new(RedisBlobIndex::new(redis, RedisBlobIndexOptions::default()));
    let objects = Arc::new(MemoryObjects::new(Clock::manual(NOW)));
    let long = Duration::from_secs(1200);
    let collector = process(&index, &objects, collector, long).await;
    let other = process(&index, &objects, other, long).await;
    let large = usize::try_from(IndexedOptions::default().small).unwrap() + 1;
    // Written by one and promised by the other, both ways, and both kinds of blobs.
    let mut blobs = Vec::new();
    for (seed, store) in [(1, &collector), (2, &other), (3, &collector), (4, &other)] {
        let (digest, data) = blob(seed, if seed < 3 { 100 } else { large });
        store.write(&digest, data.clone()).await.unwrap();
        store.sync().await.unwrap();
        blobs.push((digest, data));
    }
    let digests: Vec<_> = blobs.iter().map(|(digest, _)| *digest).collect();
    for store in [&collector, &other] {
        assert!(store.find_missing(&digests).await.unwrap().is_empty());
    }
    // A lease that is over by the clock of the index is over for all.
    let brief = process(&index, &objects, NOW, Duration::from_secs(1)).await;
    let (digest, data) = blob(5, large);
    brief.write(&digest, data).await.unwrap();
    let (begun, mut collected) = (Instant::now(), 0);
    while collected == 0 {
        collected = collector.collect().await.unwrap().blobs;
        assert!(begun.elapsed() < Duration::from_secs(20), "the lease does not end");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(collected, 1, "only the blob whose lease was over");
    assert_eq!(other.find_missing(&[digest]).await.unwrap(), [digest]);
    for (digest, data) in &blobs {
        for store in [&collector, &other] {
            assert_eq!(read(store, digest).await.unwrap(), data);
        }
    }
}
