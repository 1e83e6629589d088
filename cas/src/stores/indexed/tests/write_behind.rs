//! Small blobs between the index and the object store.

use std::sync::Arc;
use std::time::Duration;

use super::rig::{Fragile, Rig, read};
use crate::blob::BlobStore;
use crate::error::StoreError;
use crate::stores::contract::blob;
use crate::stores::indexed::{BlobIndex, Place};

fn is_unavailable(result: &Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

#[tokio::test(start_paused = true)]
async fn a_small_blob_is_there_at_once_and_synced_only_when_it_is_in_the_object_store() {
    let rig = Rig::new();
    let store = rig.process().await;
    store.sync().await.unwrap();
    rig.objects.set_down(true);
    let (digest, data) = blob(1, 1000);
    store.write(&digest, data.clone()).await.unwrap();
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
    assert_eq!(read(&store, &digest).await.unwrap(), data);
    let other = rig.process_on(&Arc::new(Fragile::new(rig.objects.inner.clone()))).await;
    assert_eq!(read(&other, &digest).await.unwrap(), data);
    for _ in 0..3 {
        let result = store.sync().await;
        assert!(is_unavailable(&result), "{result:?}");
        assert!(result.unwrap_err().to_string().contains("is down"));
    }
    assert_eq!(store.stats().pending_blobs, 1);
    assert_eq!(rig.place(&digest).await, Some(Place::Index));
    rig.objects.set_down(false);
    store.sync().await.unwrap();
    assert_eq!(store.stats().pending_bytes, 0);
    let [(there, generation)] = rig.objects.inner.names()[..] else { panic!("one object") };
    assert_eq!(there, digest);
    assert_eq!(rig.place(&digest).await, Some(Place::Object(generation)));
    store.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_syncs_waits_for_a_store_that_answers_now_and_then() {
    let rig = Rig::new();
    let store = rig.process().await;
    rig.objects.set_down(true);
    let work = async {
        for seed in 0..40 {
            let (digest, data) = blob(seed, 1000);
            store.write(&digest, data).await.unwrap();
            store.sync().await.unwrap();
        }
    };
    let outages = async {
        loop {
            tokio::time::sleep(Duration::from_secs(18)).await;
            rig.objects.set_down(false);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            rig.objects.set_down(true);
        }
    };
    tokio::select! {
        () = work => {}
        () = outages => {}
    }
    assert_eq!(rig.objects.inner.names().len(), 40);
    // The store gives up an S3 that does not answer at all.
    rig.objects.set_down(true);
    let (digest, data) = blob(99, 1000);
    store.write(&digest, data).await.unwrap();
    let began = tokio::time::Instant::now();
    assert!(is_unavailable(&store.sync().await));
    let waited = began.elapsed();
    assert!((Duration::from_secs(60)..Duration::from_secs(70)).contains(&waited), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_syncs_finds_all_that_was_acknowledged_before_in_the_object_store() {
    let rig = Arc::new(Rig::new());
    let store = rig.process().await;
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let (rig, store) = (rig.clone(), store.clone());
            tokio::spawn(async move {
                for step in 0..20 {
                    let (digest, data) = blob(task * 1000 + step, 50 + step as usize);
                    store.write(&digest, data).await.unwrap();
                    store.sync().await.unwrap();
                    assert!(matches!(rig.place(&digest).await, Some(Place::Object(_))));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(rig.objects.inner.names().len(), 16 * 20);
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_process_left_is_taken_over() {
    let rig = Rig::new();
    let cut_off = Arc::new(Fragile::new(rig.objects.inner.clone()));
    let lost = rig.process_on(&cut_off).await;
    cut_off.set_down(true);
    let blobs: Vec<_> = (0..600).map(|seed| blob(seed, 100)).collect();
    for (digest, data) in &blobs {
        lost.write(digest, data.clone()).await.unwrap();
    }
    drop(lost);
    let survivor = rig.process().await;
    rig.clock.advance(11);
    // The survivor's upkeep looks at an unused index once a minute, and every other time for blobs that a
    // lost process left pending.
    tokio::time::sleep(Duration::from_secs(120)).await;
    for _ in 0..60 {
        if survivor.stats().adopted_blobs_total == 600 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(rig.index.inner.usage().await.unwrap().pending, 0);
    assert_eq!(survivor.stats().adopted_blobs_total, 600);
    assert_eq!(rig.objects.inner.names().len(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_blob_pending_elsewhere_that_was_reported_present_is_synced_too() {
    let rig = Rig::new();
    let cut_off = Arc::new(Fragile::new(rig.objects.inner.clone()));
    let slow = rig.process_on(&cut_off).await;
    cut_off.set_down(true);
    let (digest, data) = blob(1, 100);
    slow.write(&digest, data).await.unwrap();
    let store = rig.process().await;
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
    rig.objects.set_down(true);
    assert!(is_unavailable(&store.sync().await));
    rig.objects.set_down(false);
    store.sync().await.unwrap();
    assert!(matches!(rig.place(&digest).await, Some(Place::Object(_))));
    // The slow one comes late: its object is not the place, and goes.
    cut_off.set_down(false);
    slow.sync().await.unwrap();
    assert_eq!(rig.objects.inner.names().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_holds_writers_back_and_refuses_them_when_it_lasts() {
    let rig = Rig::new();
    let store = rig.process().await;
    rig.objects.set_down(true);
    for seed in 0..1024 {
        let (digest, data) = blob(seed, 64 << 10);
        store.write(&digest, data).await.unwrap();
    }
    let (digest, data) = blob(5000, 64 << 10);
    let result = store.write(&digest, data.clone()).await;
    assert!(is_unavailable(&result), "{result:?}");
    assert!(result.unwrap_err().to_string().contains("is down"));
    let waiting = {
        let (store, data) = (store.clone(), data.clone());
        tokio::spawn(async move { store.write(&digest, data).await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.objects.set_down(false);
    waiting.await.unwrap().unwrap();
    store.sync().await.unwrap();
    assert_eq!(rig.objects.inner.names().len(), 1025);
}

#[tokio::test(start_paused = true)]
async fn a_closed_store_does_not_claim_that_what_is_pending_is_durable() {
    let rig = Rig::new();
    let store = rig.process().await;
    rig.objects.set_down(true);
    let (digest, data) = blob(1, 100);
    store.write(&digest, data).await.unwrap();
    assert!(is_unavailable(&store.close().await));
    assert!(is_unavailable(&store.sync().await));
}
