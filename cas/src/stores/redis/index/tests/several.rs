//! Several processes at once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use kiln_test_servers::redis::RedisServer;

use super::*;
use crate::redis::tests::connect;

async fn indexes(url: &str, count: usize) -> Vec<Arc<RedisBlobIndex>> {
    let mut indexes = Vec::new();
    for _ in 0..count {
        indexes.push(Arc::new(index(&connect(url).await)));
    }
    indexes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_agree_on_the_place_that_came_first() {
    let Some(server) = RedisServer::start() else { return };
    let digests = Arc::new(digests(300));
    let mut tasks = Vec::new();
    for (number, index) in indexes(&server.url(), 4).await.into_iter().enumerate() {
        let digests = digests.clone();
        tasks.push(tokio::spawn(async move {
            let generation = Generation(number as u64);
            let mut counts = Vec::new();
            for digest in digests.iter() {
                counts.push(index.place(digest, generation, HOUR).await.unwrap());
            }
            (counts, index.epoch().await.unwrap())
        }));
    }
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    assert!(seen.iter().all(|other| *other == seen[0]), "some disagree");
}

/// Collectors evict all they may while others promise: what was promised stays, and the figures
/// stay exact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_promised_is_evicted() {
    let Some(server) = RedisServer::start() else { return };
    let indexes = indexes(&server.url(), 4).await;
    let digests = Arc::new(digests(4000));
    place_all(&indexes[0], &digests, Duration::ZERO).await;
    loop {
        let scanned = scan_all(&*indexes[0]).await;
        if scanned.values().all(|candidate| !candidate.expired.is_zero()) {
            break;
        }
    }
    let mut finders = Vec::new();
    let mut collectors = Vec::new();
    for (number, index) in indexes.iter().cloned().enumerate() {
        let digests = digests.clone();
        if number % 2 == 0 {
            finders.push(tokio::spawn(async move {
                let mut promised = Vec::new();
                for part in digests[number * 500..].chunks(50) {
                    let found = index.find(&part[..10], HOUR).await.unwrap();
                    let found = part.iter().zip(found).filter(|(_, entry)| entry.is_some());
                    promised.extend(found.map(|(digest, _)| *digest));
                }
                promised
            }));
        } else {
            collectors.push(tokio::spawn(async move {
                let mut evicted = 0;
                // From the other end, so that both have something.
                for part in digests.rchunks(100) {
                    let part: Vec<_> = part.iter().map(|digest| (*digest, Generation(1))).collect();
                    let done = index.evict(&part).await.unwrap();
                    evicted += done.iter().filter(|done| **done).count();
                }
                evicted
            }));
        }
    }
    let mut promised = Vec::new();
    for finder in finders {
        promised.extend(finder.await.unwrap());
    }
    let mut evicted = 0;
    for collector in collectors {
        evicted += collector.await.unwrap();
    }
    assert!(!promised.is_empty() && evicted > 0, "{} and {evicted}", promised.len());
    let left = indexes[0].find(&promised, Duration::ZERO).await.unwrap();
    assert!(left.iter().all(Option::is_some), "a promised blob is gone");
    let usage = indexes[0].usage().await.unwrap();
    let left = (digests.len() - evicted) as u64;
    assert_eq!(usage, IndexUsage { blobs: left, bytes: 8 * left, pending: 0 });
    assert_eq!(scan_all(&*indexes[0]).await.len() as u64, left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_blobs_are_taken_by_one_each() {
    let Some(server) = RedisServer::start() else { return };
    let indexes = indexes(&server.url(), 4).await;
    let blobs: Vec<_> = (0..500).map(|seed| blob(seed, 20)).collect();
    indexes[0].put_small(&blobs, HOUR).await.unwrap();
    let age = Duration::from_secs(1);
    while indexes[0].due(age.as_millis()).await.unwrap().iter().sum::<usize>() < 500 {
        tokio::task::yield_now().await;
    }
    // Some may be due again before others had their turns, so all go on until each was taken.
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let tasks: Vec<_> = indexes
        .into_iter()
        .map(|index| {
            let (seen, all) = (seen.clone(), blobs.len());
            tokio::spawn(async move {
                let mut taken = Vec::new();
                while seen.lock().unwrap().len() < all {
                    assert_eq!(index.take_pending(60 * age, 30).await.unwrap(), []);
                    let from = Instant::now();
                    let blobs = index.take_pending(age, 30).await.unwrap();
                    let until = Instant::now();
                    seen.lock().unwrap().extend(blobs.iter().map(|(digest, _)| *digest));
                    taken.extend(
                        blobs.into_iter().map(|(digest, data)| (digest, data, from, until)),
                    );
                }
                taken
            })
        })
        .collect();
    let mut takers: HashMap<_, Vec<_>> = HashMap::new();
    for task in tasks {
        for (digest, data, from, until) in task.await.unwrap() {
            takers.entry((digest, data)).or_default().push((from, until));
        }
    }
    for times in takers.values_mut() {
        times.sort();
        // A machine may be so busy that what one has taken is due again before all have had their turns.
        for pair in times.windows(2) {
            assert!(pair[1].1 - pair[0].0 >= age, "taken by two at once: {times:?}");
        }
    }
    assert_eq!(takers.into_keys().collect::<HashSet<_>>(), blobs.into_iter().collect());
}
