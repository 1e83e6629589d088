//! Garbage, and what must not be taken for it.

use std::sync::Arc;
use std::time::Duration;

use super::rig::{Fragile, LAPSE, LEASE, Rig, read};
use crate::blob::BlobStore;
use crate::error::StoreError;
use crate::promises::Invocations;
use crate::stores::contract::blob;
use crate::stores::indexed::{BlobIndex, Generation, Indexed, IndexedOptions, Objects, Place};

const DAY: u32 = 24 * 3600;

/// Writes blobs of 70,000 bytes, one after another, and says what they are.
async fn fill(rig: &Rig, store: &Indexed, seeds: std::ops::Range<u64>) -> Vec<crate::Digest> {
    let mut digests = Vec::new();
    for seed in seeds {
        let (digest, data) = blob(seed, 70_000);
        store.write(&digest, data).await.unwrap();
        digests.push(digest);
        rig.clock.advance(1);
    }
    digests
}

#[tokio::test]
async fn what_lapsed_first_goes_first_and_only_as_much_as_must() {
    let rig = Rig::new();
    let options = IndexedOptions { max_size: 7_000_000, ..rig.options() };
    let store = rig.process_with(options).await;
    let digests = fill(&rig, &store, 0..99).await;
    assert_eq!(store.collect().await.unwrap().blobs, 0, "all is promised");
    let (digest, data) = blob(1000, 100_000);
    let full = store.write(&digest, data.clone()).await;
    assert!(matches!(full, Err(StoreError::Full { limit: 7_000_000, .. })), "{full:?}");
    assert_eq!(store.stats().refused_writes_total, 1);
    rig.clock.advance(LAPSE);
    assert_eq!(store.find_missing(&digests[..3]).await.unwrap(), []);
    let collected = store.collect().await.unwrap();
    assert_eq!((collected.blobs, collected.bytes), (9, 9 * 70_000), "90 blobs are 90 %");
    assert_eq!(store.find_missing(&digests).await.unwrap(), digests[3..12]);
    assert_eq!(rig.objects.inner.names().len(), 90);
    store.write(&digest, data).await.unwrap();
    assert_eq!(store.collect().await.unwrap().blobs, 0, "there is room");
}

#[tokio::test]
async fn a_write_makes_room_for_itself_and_one_that_never_fits_is_told_so() {
    let rig = Rig::new();
    let options = IndexedOptions { max_size: 1_000_000, ..rig.options() };
    let store = rig.process_with(options).await;
    fill(&rig, &store, 0..14).await;
    rig.clock.advance(LAPSE);
    let (digest, data) = blob(100, 900_000);
    store.write(&digest, data.clone()).await.unwrap();
    assert_eq!(read(&store, &digest).await.unwrap(), data);
    assert!(rig.index.inner.usage().await.unwrap().bytes <= 1_000_000);
    let (digest, data) = blob(101, 1_000_001);
    let never = store.write(&digest, data).await;
    assert!(matches!(never, Err(StoreError::TooLarge { .. })), "{never:?}");
}

#[tokio::test]
async fn without_a_limit_blobs_go_when_they_have_outlived_their_lease_for_long_enough() {
    let rig = Rig::new();
    let keep = Duration::from_secs(DAY.into());
    let store = rig.process_with(IndexedOptions { keep: Some(keep), ..rig.options() }).await;
    let old = fill(&rig, &store, 0..5).await;
    rig.clock.advance(LAPSE);
    let young = fill(&rig, &store, 10..15).await;
    assert_eq!(store.collect().await.unwrap().blobs, 0);
    rig.clock.advance(DAY);
    assert_eq!(store.collect().await.unwrap().blobs, 5);
    let all = [old.clone(), young].concat();
    assert_eq!(store.find_missing(&all).await.unwrap(), old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_pauses_before_it_deletes_does_not_delete_what_came_meanwhile() {
    for repair in [false, true] {
        let rig = Rig::new();
        let options = IndexedOptions { keep: Some(Duration::ZERO), ..rig.options() };
        let paused = rig.process_with(options).await;
        let (digest, data) = blob(1, 100_000);
        paused.write(&digest, data.clone()).await.unwrap();
        rig.clock.advance(LAPSE);
        let gate = rig.objects.pause_deletions();
        let collecting = tokio::spawn(async move { paused.collect().await });
        gate.reached.acquire().await.unwrap().forget();
        // Evicted, and not deleted yet: a client uploads it again, or reads it.
        let swift = rig.process_on(&Arc::new(Fragile::new(rig.objects.inner.clone()))).await;
        assert_eq!(swift.find_missing(&[digest]).await.unwrap(), [digest]);
        if repair {
            assert_eq!(read(&swift, &digest).await.unwrap(), data);
        } else {
            swift.write(&digest, data.clone()).await.unwrap();
        }
        assert_eq!(swift.find_missing(&[digest]).await.unwrap(), []);
        gate.open.add_permits(10);
        assert_eq!(collecting.await.unwrap().unwrap().blobs, 1);
        let fresh = rig.process_on(&Arc::new(Fragile::new(rig.objects.inner.clone()))).await;
        assert_eq!(fresh.find_missing(&[digest]).await.unwrap(), []);
        assert_eq!(read(&fresh, &digest).await.unwrap(), data, "repair: {repair}");
        assert_eq!(rig.objects.inner.names().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_promised_while_garbage_is_collected_stays() {
    let rig = Arc::new(Rig::new());
    let options = IndexedOptions { keep: Some(Duration::ZERO), ..rig.options() };
    for round in 0..30u64 {
        // By now all blobs of the earlier round have lapsed, and the same ones are wanted again.
        rig.clock.advance(LAPSE);
        let collector = rig.process_with(options.clone()).await;
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let rig = rig.clone();
                tokio::spawn(async move {
                    let store = rig.process().await;
                    for step in 0..40u64 {
                        let seed = (task * 7 + step + round) % 50;
                        let (digest, data) = blob(seed, if seed % 2 == 0 { 50 } else { 70_000 });
                        let missing = store.find_missing(&[digest]).await.unwrap();
                        if !missing.is_empty() {
                            store.write(&digest, data.clone()).await.unwrap();
                        }
                        assert_eq!(read(&store, &digest).await.unwrap(), data);
                    }
                    store.sync().await.unwrap();
                })
            })
            .collect();
        while !tasks.iter().all(|task| task.is_finished()) {
            collector.collect().await.unwrap();
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        let fresh = rig.process().await;
        for seed in 0..50 {
            let (digest, data) = blob(seed, if seed % 2 == 0 { 50 } else { 70_000 });
            if fresh.find_missing(&[digest]).await.unwrap().is_empty() {
                assert_eq!(read(&fresh, &digest).await.unwrap(), data, "{seed} in {round}");
                let Some(Place::Object(at)) = rig.place(&digest).await else { panic!("{seed}") };
                assert!(rig.objects.inner.names().contains(&(digest, at)), "{seed} in {round}");
            }
        }
        assert_eq!(
            rig.objects.inner.names().len() as u64,
            rig.index.inner.usage().await.unwrap().blobs
        );
    }
}

#[tokio::test]
async fn one_process_collects_at_a_time() {
    let rig = Rig::new();
    let options = IndexedOptions { keep: Some(Duration::ZERO), ..rig.options() };
    let (first, second) =
        (rig.process_with(options.clone()).await, rig.process_with(options).await);
    assert!(!first.collect().await.unwrap().busy);
    assert!(second.collect().await.unwrap().busy);
    assert!(second.collect_orphans().await.unwrap().stopped);
    rig.clock.advance(100);
    assert!(!second.collect().await.unwrap().busy);
}

#[tokio::test]
async fn only_old_objects_that_no_blob_is_in_are_orphans() {
    let rig = Rig::new();
    let store = rig.process().await;
    let blobs: Vec<_> = (0..4).map(|seed| blob(seed, 100_000)).collect();
    let [placed, second, orphan, young] = &blobs[..] else { panic!("four") };
    store.write(&placed.0, placed.1.clone()).await.unwrap();
    store.write(&second.0, second.1.clone()).await.unwrap();
    for (digest, data) in [second, orphan] {
        rig.objects.put(digest, Generation(7), data.clone()).await.unwrap();
    }
    // This blob is pending: its object is written, and the index does not name it yet.
    let (pending, data) = blob(10, 100);
    rig.index.inner.put_small(&[(pending, data.clone())], LEASE).await.unwrap();
    rig.objects.put(&pending, Generation(7), data).await.unwrap();
    assert_eq!(store.collect_orphans().await.unwrap().objects, 0, "they are young");
    rig.clock.advance(DAY + 10);
    rig.objects.put(&young.0, Generation(7), young.1.clone()).await.unwrap();
    let orphans = store.collect_orphans().await.unwrap();
    assert_eq!((orphans.objects, orphans.bytes, orphans.stopped), (2, 200_000, false));
    let mut left = rig.objects.inner.names();
    left.retain(|(_, generation)| *generation == Generation(7));
    left.sort_unstable();
    let mut expected = [(pending, Generation(7)), (young.0, Generation(7))];
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(read(&store, &placed.0).await.unwrap(), placed.1);
    assert_eq!(read(&store, &second.0).await.unwrap(), second.1);
}

#[tokio::test]
async fn objects_that_cannot_be_deleted_now_become_orphans() {
    let rig = Rig::new();
    let options = IndexedOptions { keep: Some(Duration::ZERO), ..rig.options() };
    let store = rig.process_with(options).await;
    fill(&rig, &store, 0..3).await;
    rig.clock.advance(LAPSE);
    rig.objects.set_down(true);
    assert!(matches!(store.collect().await, Err(StoreError::Unavailable(_))));
    rig.objects.set_down(false);
    assert_eq!(rig.objects.inner.names().len(), 3);
    rig.clock.advance(DAY);
    assert_eq!(store.collect_orphans().await.unwrap().objects, 3);
    assert_eq!(rig.objects.inner.names(), []);
}

const MIN_LEASE: Duration = Duration::from_secs(600);

/// A process with room for 100 blobs of 70,000 bytes, and who runs there.
async fn narrow(rig: &Rig) -> (Indexed, Invocations) {
    let invocations = Invocations::new(rig.clock.clone(), MIN_LEASE);
    let options = IndexedOptions {
        max_size: 7_000_000,
        invocations: Some(invocations.clone()),
        ..rig.options()
    };
    (rig.process_with(options).await, invocations)
}

#[tokio::test]
async fn promises_to_builds_that_are_over_give_way_the_oldest_first() {
    let rig = Rig::new();
    let (store, _) = narrow(&rig).await;
    let digests = fill(&rig, &store, 0..99).await;
    let (digest, data) = blob(1000, 100_000);
    let full = store.write(&digest, data.clone()).await;
    assert!(matches!(full, Err(StoreError::Full { .. })), "within the least: {full:?}");
    // Less than the lease, more than what is kept at least, and what was promised in advance.
    rig.clock.advance(1000);
    store.write(&digest, data.clone()).await.unwrap();
    let stats = store.stats();
    assert_eq!((stats.cut_short_blobs_total, stats.evicted_blobs_total), (9, 9));
    let missing = store.find_missing(&digests).await.unwrap();
    assert_eq!(missing, digests[..9], "the oldest");
    // The call above asked for these blobs just now, so their promises stand.
    let (other, data) = blob(1001, 900_000);
    let full = store.write(&other, data).await;
    assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
}

/// Lets both clocks go on, and the processes look after the store meanwhile.
async fn minutes(rig: &Rig, minutes: u32) {
    for _ in 0..minutes {
        rig.clock.advance(60);
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_build_that_runs_anywhere_was_promised_stays() {
    let rig = Rig::new();
    let (store, _) = narrow(&rig).await;
    let (elsewhere, running) = narrow(&rig).await;
    // Past the time in which a build may have begun before these processes.
    rig.clock.advance(1000);
    let before = fill(&rig, &store, 0..50).await;
    // Promises are made for a little longer than asked for.
    minutes(&rig, 10).await;
    let build = running.begin(b"a build").unwrap();
    let after = fill(&rig, &elsewhere, 50..99).await;
    minutes(&rig, 30).await;
    let (digest, data) = blob(1000, 300_000);
    store.write(&digest, data).await.unwrap();
    assert_eq!(elsewhere.find_missing(&after).await.unwrap(), []);
    // The store has evicted everything that it may, so the next blob finds no room.
    let (large, data) = blob(1001, 6_000_000);
    let full = store.write(&large, data.clone()).await;
    assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
    assert_eq!(store.find_missing(&after).await.unwrap(), []);
    assert_eq!(store.find_missing(&before).await.unwrap(), before);
    drop(build);
    // The build counts as over some time after its last request. The processes then no longer report it.
    minutes(&rig, 50).await;
    store.write(&large, data).await.unwrap();
}

#[tokio::test]
async fn what_is_remembered_of_a_promise_ends_with_it() {
    let rig = Rig::new();
    let (store, _) = narrow(&rig).await;
    let (elsewhere, _) = narrow(&rig).await;
    let digests = fill(&rig, &store, 0..99).await;
    assert_eq!(elsewhere.find_missing(&digests).await.unwrap(), [], "and remembers them");
    rig.clock.advance(1000);
    let (digest, data) = blob(1000, 100_000);
    store.write(&digest, data).await.unwrap();
    let gone = store.find_missing(&digests).await.unwrap();
    assert!(!gone.is_empty());
    assert_eq!(elsewhere.find_missing(&digests).await.unwrap(), gone);
}
