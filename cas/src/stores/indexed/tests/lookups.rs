//! How often the index is asked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rig::{LEASE, Rig, read};
use crate::blob::BlobStore;
use crate::digest::Digest;
use crate::stores::contract::blob;
use crate::stores::indexed::{BlobIndex, Generation};

#[tokio::test]
async fn ten_thousand_digests_cost_one_call_and_none_while_their_promise_lasts() {
    let rig = Rig::new();
    let store = rig.process().await;
    let digests: Vec<_> =
        (0..10_000).map(|seed| Digest { size: 70_000, ..blob(seed, 10).0 }).collect();
    let named: Vec<_> = digests.iter().map(|digest| (*digest, Generation(1))).collect();
    rig.index.inner.place_all(&named, LEASE).await.unwrap();
    rig.index.calls();
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
    assert_eq!(rig.index.calls(), 1);
    for _ in 0..5 {
        assert_eq!(store.find_missing(&digests).await.unwrap(), []);
        rig.clock.advance(300);
    }
    assert_eq!(rig.index.calls(), 0);
    // Half of the promise that was asked for is used up: it is renewed.
    rig.clock.advance(310);
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
    assert_eq!(rig.index.calls(), 1);
    // The index holds the promises that the store answered without a call.
    let found = rig.index.inner.find(&digests, Duration::ZERO).await.unwrap();
    assert!(found.iter().all(|entry| entry.unwrap().lease >= LEASE));
}

#[tokio::test]
async fn what_is_promised_out_of_memory_is_promised_by_the_index() {
    let rig = Rig::new();
    let store = rig.process().await;
    let (digest, data) = blob(1, 100);
    store.write(&digest, data).await.unwrap();
    for seconds in (0..200_000).step_by(97) {
        rig.clock.advance(97);
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
        let entry = rig.index.inner.find(&[digest], Duration::ZERO).await.unwrap()[0].unwrap();
        assert!(entry.lease >= LEASE, "{:?} are left after {seconds} s", entry.lease);
    }
}

#[tokio::test]
async fn a_thousand_callers_at_once_share_few_calls() {
    let rig = Rig::new();
    let store = rig.process().await;
    let blobs: Vec<_> = (0..1000).map(|seed| blob(seed, 100 + seed as usize % 50)).collect();
    let others = rig.process().await;
    rig.index.calls();
    let tasks: Vec<_> = blobs
        .iter()
        .map(|(digest, data)| {
            let (store, digest, data) = (others.clone(), *digest, data.clone());
            tokio::spawn(async move { store.write(&digest, data).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    others.sync().await.unwrap();
    let calls = rig.index.calls();
    assert!(calls < 150, "{calls} calls for 1000 writes and places");
    let tasks: Vec<_> = blobs
        .iter()
        .map(|(digest, data)| {
            let (store, digest, data) = (store.clone(), *digest, data.clone());
            tokio::spawn(async move {
                assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
                assert_eq!(read(&store, &digest).await.unwrap(), data);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let calls = rig.index.calls();
    assert!(calls < 100, "{calls} calls for 1000 look-ups and 1000 reads");
}

#[tokio::test(start_paused = true)]
async fn an_idle_process_asks_once_a_minute() {
    let rig = Rig::new();
    let store = rig.process().await;
    rig.index.calls();
    tokio::time::sleep(Duration::from_secs(301)).await;
    let calls = rig.index.calls();
    assert!((4..=6).contains(&calls), "{calls} calls in 5 minutes");
    drop(store);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.index.calls(), 0, "it goes on after its end");
}

#[tokio::test(start_paused = true)]
async fn an_index_that_was_lost_is_noticed_and_nothing_of_it_is_remembered() {
    let rig = Rig::new();
    let store = rig.process().await;
    let (digest, data) = blob(1, 100_000);
    store.write(&digest, data).await.unwrap();
    rig.index.inner.wipe();
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
    assert!(store.stats().index_incomplete);
}

#[tokio::test]
async fn promises_of_an_index_that_failed_are_asked_for_again() {
    let rig = Rig::new();
    let store = rig.process().await;
    let (digest, data) = blob(1, 100);
    store.write(&digest, data).await.unwrap();
    store.sync().await.unwrap();
    assert!(store.find_missing(&[digest]).await.unwrap().is_empty());
    rig.index.calls();
    assert!(store.find_missing(&[digest]).await.unwrap().is_empty());
    assert_eq!(rig.index.calls(), 0, "it is remembered");
    // A replica took over that did not have the last writes: the blob is not known there.
    rig.index.forget(&digest, rig.place(&digest).await.unwrap()).await.unwrap();
    rig.index.failures.fetch_add(1, Ordering::Relaxed);
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
}
