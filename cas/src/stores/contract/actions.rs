//! What holds for every action cache.

use std::sync::Arc;

use bytes::Bytes;

use super::content;
use crate::action_cache::{ActionCache, ActionKey};
use crate::digest::DigestFunction;
use crate::stores::{
    Clock, CompletenessChecking, DiskActionCache, DiskActionCacheOptions, MemoryActionCache,
    MemoryBlobStore,
};

pub fn key(instance: &str, action: &str) -> ActionKey {
    let action = DigestFunction::Sha256.digest(action.as_bytes());
    ActionKey { instance: instance.into(), action }
}

pub async fn suite(cache: &dyn ActionCache) {
    let result = |text: &str| {
        let result = kiln_protos::reapi::ActionResult {
            stdout_raw: text.as_bytes().to_vec(),
            ..Default::default()
        };
        Bytes::from(prost::Message::encode_to_vec(&result))
    };
    assert_eq!(cache.get(&key("", "a")).await.unwrap(), None);
    cache.put(&key("", "a"), result("one")).await.unwrap();
    cache.put(&key("x", "a"), result("of x")).await.unwrap();
    assert_eq!(cache.get(&key("", "a")).await.unwrap(), Some(result("one")));
    assert_eq!(cache.get(&key("x", "a")).await.unwrap(), Some(result("of x")));
    assert_eq!(cache.get(&key("x/a", "a")).await.unwrap(), None);
    assert_eq!(cache.get(&key("", "b")).await.unwrap(), None);
    for text in ["two", "", "three"] {
        cache.put(&key("", "a"), result(text)).await.unwrap();
        assert_eq!(cache.get(&key("", "a")).await.unwrap(), Some(result(text)));
    }
    let blake = ActionKey { action: DigestFunction::Blake3.digest(b"a"), ..key("", "a") };
    assert_eq!(cache.get(&blake).await.unwrap(), None);
    let mut other_size = key("", "a");
    other_size.action.size += 1;
    assert_eq!(cache.get(&other_size).await.unwrap(), None);
    // A result without any field is a result.
    cache.put(&key("", "empty"), Bytes::new()).await.unwrap();
    assert_eq!(cache.get(&key("", "empty")).await.unwrap(), Some(Bytes::new()));
}

async fn disk(dir: &std::path::Path, max_size: u64, clock: &Clock) -> Arc<DiskActionCache> {
    let options = DiskActionCacheOptions { dir: dir.to_owned(), max_size, clock: clock.clone() };
    Arc::new(DiskActionCache::open(options).await.unwrap())
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    suite(&MemoryActionCache::default()).await;
}

#[tokio::test]
async fn disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    suite(&*disk(dir.path(), 1 << 24, &Clock::manual(9)).await).await;
}

#[tokio::test]
async fn completeness_checking_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(9);
    let actions = disk(dir.path(), 1 << 24, &clock).await;
    let blobs = Arc::new(MemoryBlobStore::default());
    for memory in [0, 1 << 20] {
        let actions = if memory == 0 {
            Arc::new(MemoryActionCache::default()) as Arc<dyn ActionCache>
        } else {
            actions.clone()
        };
        suite(&CompletenessChecking::new(actions, blobs.clone(), memory, clock.clone())).await;
    }
}

#[tokio::test]
async fn the_latest_result_wins_after_restarts_and_compactions() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(9);
    let mut latest = vec![Bytes::new(); 50];
    for round in 0..6u64 {
        let cache = disk(dir.path(), 4 << 20, &clock).await;
        for (number, expected) in latest.iter().enumerate().filter(|_| round > 0) {
            let found = cache.get(&key("", &number.to_string())).await.unwrap();
            assert_eq!(found.as_ref(), Some(expected), "{number} in round {round}");
        }
        // Many times the size of the cache in all: old versions must be compacted away.
        for step in 0..400 {
            let number = (step * 7 + round) as usize % latest.len();
            latest[number] = content(round * 1000 + step, 30_000);
            cache.put(&key("", &number.to_string()), latest[number].clone()).await.unwrap();
            assert!(cache.snapshot().used_bytes <= 4 << 20);
        }
        assert_eq!(cache.snapshot().evicted, 0);
        if round % 2 == 0 {
            cache.close().await.unwrap();
        } else {
            cache.abandon().await;
        }
    }
}

#[tokio::test]
async fn a_full_cache_forgets_what_was_used_longest_ago() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(9);
    let cache = disk(dir.path(), 2 << 20, &clock).await;
    for number in 0..400u64 {
        cache.put(&key("", &number.to_string()), content(number, 20_000)).await.unwrap();
        clock.advance(1);
        assert!(cache.get(&key("", "0")).await.unwrap().is_some(), "0 was used just now");
        assert!(cache.snapshot().used_bytes <= 2 << 20);
    }
    assert!(cache.snapshot().evicted > 200);
    assert!(cache.get(&key("", "399")).await.unwrap().is_some());
    assert!(cache.get(&key("", "1")).await.unwrap().is_none());
}
