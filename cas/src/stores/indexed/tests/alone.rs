//! Each mechanism of the store by itself, with an index and objects in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::rig::{LAPSE, LEASE, Rig};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::contract::blob;
use crate::stores::indexed::activity::Activity;
use crate::stores::indexed::admission::Admission;
use crate::stores::indexed::claim::CollectionClaim;
use crate::stores::indexed::collect::Collector;
use crate::stores::indexed::hurry::Hurry;
use crate::stores::indexed::index_client::{IndexClient, Leases};
use crate::stores::indexed::orphans::OrphanCollector;
use crate::stores::indexed::pending_elsewhere::PendingElsewhere;
use crate::stores::indexed::presence::PresenceCache;
use crate::stores::indexed::read_repair::ReadRepair;
use crate::stores::indexed::running::RunningInvocations;
use crate::stores::indexed::space::Space;
use crate::stores::indexed::uploads::Uploads;
use crate::stores::indexed::write_behind::WriteBehind;
use crate::stores::indexed::{BlobIndex, Generation, Objects, Place};

/// What is beneath the mechanisms, of one process.
struct Process {
    presence: Arc<PresenceCache>,
    client: Arc<IndexClient>,
    uploads: Arc<Uploads>,
    write_behind: Arc<WriteBehind>,
    stop: watch::Sender<bool>,
}

fn process(rig: &Rig) -> Process {
    let presence = Arc::new(PresenceCache::new(rig.clock.clone()));
    let hurry = Hurry::default();
    let client = Arc::new(IndexClient::new(
        rig.index.clone(),
        presence.clone(),
        Activity::default(),
        Leases { told: LEASE, asked: LEASE },
        hurry.clone(),
    ));
    let uploads = Arc::new(Uploads::new(client.clone(), rig.objects.clone()));
    let (stop, stopped) = watch::channel(false);
    let write_behind = Arc::new(WriteBehind::new(uploads.clone(), hurry, stopped));
    Process { presence, client, uploads, write_behind, stop }
}

/// Has the index hold a small blob.
async fn put(rig: &Rig, seed: u64) -> (Digest, Bytes) {
    let (digest, data) = blob(seed, 100);
    rig.index.inner.put_small(&[(digest, data.clone())], LEASE).await.unwrap();
    (digest, data)
}

/// Has both hold a blob of so many bytes.
async fn place(rig: &Rig, seed: u64, size: usize) -> Digest {
    let (digest, data) = blob(seed, size);
    rig.objects.put(&digest, Generation(seed), data).await.unwrap();
    rig.index.inner.place(&digest, Generation(seed), LEASE).await.unwrap();
    digest
}

#[tokio::test]
async fn uploads_that_lost_are_deleted() {
    let rig = Rig::new();
    let Process { uploads, presence, .. } = process(&rig);
    let (digest, data) = blob(1, 70_000);
    for generation in [Generation(1), Generation(2)] {
        rig.objects.put(&digest, generation, data.clone()).await.unwrap();
        assert_eq!(uploads.publish(&digest, generation).await.unwrap(), Generation(1));
    }
    assert_eq!(rig.objects.inner.names(), [(digest, Generation(1))]);
    assert_eq!(presence.place(&digest), Some(Place::Object(Generation(1))));
}

#[tokio::test(start_paused = true)]
async fn what_is_written_behind_is_tried_until_it_is_in_the_object_store() {
    let rig = Rig::new();
    let Process { write_behind, stop: _open, .. } = process(&rig);
    let (digest, data) = put(&rig, 1).await;
    rig.objects.set_down(true);
    for _ in 0..2 {
        let reservation = write_behind.reserve(digest.size).await.unwrap();
        write_behind.write(&digest, data.clone(), reservation);
    }
    assert_eq!((write_behind.pending(), write_behind.get(&digest)), ((1, 100), Some(data)));
    let failed = write_behind.sync(Duration::ZERO).await.unwrap_err();
    assert!(failed.to_string().contains("is down"), "{failed}");
    let (patience, writer) = (Duration::from_secs(60), write_behind.clone());
    let syncing = tokio::spawn(async move { writer.sync(patience).await });
    tokio::time::sleep(patience / 2).await;
    assert!(!syncing.is_finished());
    rig.objects.set_down(false);
    syncing.await.unwrap().unwrap();
    assert_eq!((write_behind.pending(), write_behind.get(&digest)), ((0, 0), None));
    assert!(matches!(rig.place(&digest).await, Some(Place::Object(_))));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_behind_after_the_store_was_closed() {
    let rig = Rig::new();
    let Process { write_behind, stop, .. } = process(&rig);
    rig.objects.set_down(true);
    let (digest, data) = put(&rig, 1).await;
    let reservation = write_behind.reserve(digest.size).await.unwrap();
    write_behind.write(&digest, data, reservation);
    stop.send_replace(true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    rig.objects.set_down(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.place(&digest).await, Some(Place::Index));
    let closed = write_behind.sync(Duration::from_secs(60)).await;
    assert!(matches!(closed, Err(StoreError::Unavailable(_))), "{closed:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_noted_as_pending_elsewhere_is_settled() {
    let rig = Rig::new();
    let Process { client, uploads, write_behind, stop: _open, .. } = process(&rig);
    let (index, here) = (rig.index.clone(), write_behind.clone());
    let elsewhere = PendingElsewhere::new(index, client.clone(), uploads, here);
    let (theirs, _) = put(&rig, 1).await;
    let (ours, data) = put(&rig, 2).await;
    let placed = place(&rig, 3, 70_000).await;
    rig.objects.set_down(true);
    let reservation = write_behind.reserve(ours.size).await.unwrap();
    write_behind.write(&ours, data, reservation);
    let digests = [theirs, ours, placed, blob(4, 10).0];
    let entries = client.find(digests.to_vec()).await.unwrap();
    elsewhere.note(&digests, &entries).await.unwrap();
    assert!(elsewhere.settle().await.is_err(), "the object store is down");
    rig.objects.set_down(false);
    elsewhere.settle().await.unwrap();
    assert!(matches!(rig.place(&theirs).await, Some(Place::Object(_))));
    rig.index.calls();
    elsewhere.settle().await.unwrap();
    assert_eq!(rig.index.calls(), 0, "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn what_lost_processes_left_is_adopted_once_it_is_old_enough() {
    let rig = Rig::new();
    let Process { client, uploads, write_behind, stop: _open, .. } = process(&rig);
    let elsewhere = PendingElsewhere::new(rig.index.clone(), client, uploads, write_behind);
    let age = Duration::from_secs(10);
    for seed in 0..5 {
        put(&rig, seed).await;
    }
    assert_eq!(elsewhere.adopt(age, 3).await.unwrap(), 0, "their process may be at it");
    rig.clock.advance(11);
    assert_eq!(elsewhere.adopt(age, 3).await.unwrap(), 3);
    assert_eq!(elsewhere.adopt(age, 3).await.unwrap(), 2);
    assert_eq!((elsewhere.adopted(), rig.objects.inner.names().len()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_the_index_lost_is_repaired_and_one_that_is_nowhere_is_looked_for_rarely() {
    let rig = Rig::new();
    let Process { uploads, .. } = process(&rig);
    let repair = ReadRepair::new(rig.objects.clone(), uploads);
    let (digest, data) = blob(1, 70_000);
    for _ in 0..3 {
        assert_eq!(repair.find(&digest).await.unwrap(), None);
    }
    assert_eq!(rig.objects.lookups.load(Ordering::Relaxed), 1);
    rig.objects.put(&digest, Generation(7), data).await.unwrap();
    tokio::time::advance(Duration::from_secs(11)).await;
    let copy = repair.find(&digest).await.unwrap().unwrap();
    assert_ne!(copy, Generation(7), "somebody may be about to delete that one");
    assert_eq!(rig.place(&digest).await, Some(Place::Object(copy)));
    assert_eq!(repair.repaired(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_who_miss_the_same_blob_look_for_it_once_each_turn() {
    let rig = Rig::new();
    let Process { uploads, .. } = process(&rig);
    let repair = ReadRepair::new(rig.objects.clone(), uploads);
    let (digest, _) = blob(1, 70_000);
    let looks = (0..1000).map(|_| repair.find(&digest));
    let found = futures_util::future::join_all(looks).await;
    assert!(found.into_iter().all(|found| found.unwrap().is_none()));
    assert!(rig.objects.lookups.load(Ordering::Relaxed) <= 16, "those who waited had the answer");
}

struct Garbage {
    space: Arc<Space>,
    collector: Arc<Collector>,
    running: Arc<RunningInvocations>,
}

fn garbage(rig: &Rig, process: &Process, max: u64, keep: Option<Duration>) -> Garbage {
    let space = Arc::new(Space::new(max));
    let running = Arc::new(RunningInvocations::new(rig.index.clone(), None, LEASE));
    let collector = Arc::new(Collector::new(
        (rig.index.clone(), rig.objects.clone()),
        process.presence.clone(),
        space.clone(),
        running.clone(),
        Arc::new(CollectionClaim::new(rig.index.clone())),
        keep,
    ));
    Garbage { space, collector, running }
}

#[tokio::test]
async fn garbage_is_what_nobody_is_promised_and_is_in_the_way() {
    let rig = Rig::new();
    let process = process(&rig);
    let Garbage { collector, .. } = garbage(&rig, &process, 1_000_000, None);
    for seed in 0..10 {
        place(&rig, seed, 90_000).await;
        rig.clock.advance(1);
    }
    assert_eq!(collector.collect(200_000).await.unwrap().blobs, 0, "all is promised");
    rig.clock.advance(LAPSE);
    let collected = collector.collect(200_000).await.unwrap();
    assert_eq!((collected.blobs, collected.bytes), (2, 180_000));
    assert_eq!((collector.evicted(), collector.cut_short()), ((2, 180_000), (0, 0)));
    assert_eq!(rig.objects.inner.names().len(), 8);
    let other = Collector::new(
        (rig.index.clone(), rig.objects.clone()),
        process.presence.clone(),
        Arc::new(Space::new(1)),
        Arc::new(RunningInvocations::new(rig.index.clone(), None, LEASE)),
        Arc::new(CollectionClaim::new(rig.index.clone())),
        None,
    );
    assert!(other.collect(0).await.unwrap().busy, "one process at a time collects");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_admitted_when_there_is_room_or_room_can_be_made() {
    let rig = Rig::new();
    let process = process(&rig);
    let Garbage { space, collector, running } = garbage(&rig, &process, 1_000_000, None);
    let (index, clock) = (rig.index.clone(), rig.clock.clone());
    let behind = process.write_behind.clone();
    let admission = Admission::new(index, space.clone(), running, behind, collector, clock);
    let never = admission.admit(1_000_001).await;
    assert!(matches!(never, Err(StoreError::TooLarge { .. })), "{never:?}");
    for seed in 0..10 {
        admission.admit(90_000).await.unwrap();
        place(&rig, seed, 90_000).await;
    }
    rig.index.calls();
    let full = admission.admit(200_000).await;
    assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
    let calls = rig.index.calls();
    assert!(admission.admit(200_000).await.is_err());
    assert!(rig.index.calls() < calls, "within a second nothing more can have lapsed");
    assert_eq!(admission.refused(), 2);
    rig.clock.advance(LAPSE);
    admission.admit(200_000).await.unwrap();
    assert_eq!(space.used(), 8 * 90_000 + 200_000);
}

#[tokio::test]
async fn orphans_are_old_objects_that_no_blob_is_in() {
    let rig = Rig::new();
    let claim = Arc::new(CollectionClaim::new(rig.index.clone()));
    let orphans = OrphanCollector::new(rig.index.clone(), rig.objects.clone(), claim);
    place(&rig, 1, 70_000).await;
    let (digest, data) = blob(2, 70_000);
    rig.objects.put(&digest, Generation(2), data).await.unwrap();
    rig.clock.advance(LAPSE + 24 * 3600);
    assert!(orphans.collect().await.unwrap().stopped, "nobody has said that the index is whole");
    rig.objects.set_mark(rig.index.inner.epoch().await.unwrap()).await.unwrap();
    let collected = orphans.collect().await.unwrap();
    assert_eq!((collected.stopped, collected.objects, collected.bytes), (false, 1, 70_000));
    assert_eq!((orphans.deleted(), rig.objects.inner.names().len()), (1, 1));
}
