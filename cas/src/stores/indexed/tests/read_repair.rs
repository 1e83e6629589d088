//! Blobs that one of the two lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rig::{LAPSE, LEASE, Rig, read};
use crate::blob::BlobStore;
use crate::error::StoreError;
use crate::stores::contract::blob;
use crate::stores::indexed::{BlobIndex, Generation, Objects, Place, Rebuilt, rebuild};

const SIZES: [usize; 3] = [100, 100_000, 3 << 20];

#[tokio::test]
async fn an_object_that_was_never_placed_is_read_and_placed_as_a_copy() {
    for size in SIZES {
        let rig = Rig::new();
        let store = rig.process().await;
        let (digest, data) = blob(1, size);
        // A process wrote the object and ended before it placed it in the index.
        rig.objects.put(&digest, Generation(7), data.clone()).await.unwrap();
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
        assert_eq!(read(&store, &digest).await.unwrap(), data);
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
        let Some(Place::Object(generation)) = rig.place(&digest).await else { panic!("{size}") };
        assert_ne!(generation, Generation(7), "somebody may be about to delete that one");
        rig.objects.delete(&[(digest, Generation(7))]).await.unwrap();
        assert_eq!(read(&store, &digest).await.unwrap(), data);
        assert_eq!(store.stats().repaired_blobs_total, 1);
    }
}

#[tokio::test]
async fn a_blob_that_is_nowhere_is_looked_for_once_and_found_as_soon_as_it_is_written() {
    let rig = Rig::new();
    let store = rig.process().await;
    for size in SIZES {
        let (digest, data) = blob(1, size);
        let before = rig.objects.lookups.load(Ordering::Relaxed);
        for _ in 0..5 {
            let result = read(&store, &digest).await;
            assert!(matches!(result, Err(StoreError::NotFound(d)) if d == digest), "{result:?}");
        }
        assert_eq!(rig.objects.lookups.load(Ordering::Relaxed), before + 1);
        store.write(&digest, data.clone()).await.unwrap();
        assert_eq!(read(&store, &digest).await.unwrap(), data);
    }
}

#[tokio::test]
async fn a_blob_whose_object_is_lost_is_forgotten_or_found_elsewhere() {
    for (size, elsewhere) in [(100_000, false), (100_000, true), (3 << 20, true)] {
        let rig = Rig::new();
        let (writer, reader) = (rig.process().await, rig.process().await);
        let (digest, data) = blob(1, size);
        writer.write(&digest, data.clone()).await.unwrap();
        assert_eq!(reader.find_missing(&[digest]).await.unwrap(), []);
        let names = rig.objects.inner.names();
        if elsewhere {
            rig.objects.put(&digest, Generation(7), data.clone()).await.unwrap();
        }
        rig.objects.delete(&names).await.unwrap();
        let result = read(&reader, &digest).await;
        if elsewhere {
            assert_eq!(result.unwrap(), data);
        } else {
            assert!(matches!(result, Err(StoreError::NotFound(_))), "{result:?}");
            assert_eq!(reader.find_missing(&[digest]).await.unwrap(), [digest]);
            // A client that has the blob may write it again, also through a process that knew the lost copy.
            writer.write(&digest, data.clone()).await.unwrap();
        }
        assert_eq!(reader.find_missing(&[digest]).await.unwrap(), []);
        assert_eq!(read(&reader, &digest).await.unwrap(), data);
    }
}

#[tokio::test]
async fn an_object_of_the_wrong_size_is_an_error() {
    for size in [100_000, 3 << 20] {
        let rig = Rig::new();
        let store = rig.process().await;
        let (digest, data) = blob(1, size);
        store.write(&digest, data).await.unwrap();
        rig.objects.short.store(1, Ordering::Relaxed);
        let result = read(&store, &digest).await;
        assert!(matches!(result, Err(StoreError::Corrupt(_))), "{result:?}");
    }
}

#[tokio::test]
async fn an_index_that_was_wiped_is_wrong_in_the_safe_direction_until_it_is_rebuilt() {
    let rig = Rig::new();
    let store = rig.process().await;
    let blobs: Vec<_> =
        (0..2300).map(|seed| blob(seed, if seed % 100 == 0 { 70_000 } else { 30 })).collect();
    for (digest, data) in &blobs {
        store.write(digest, data.clone()).await.unwrap();
    }
    store.sync().await.unwrap();
    let digests: Vec<_> = blobs.iter().map(|(digest, _)| *digest).collect();
    let bytes: u64 = digests.iter().map(|digest| digest.size).sum();
    rig.index.inner.wipe();
    rig.clock.advance(LAPSE + 24 * 3600);

    let fresh = rig.process().await;
    assert!(fresh.stats().index_incomplete);
    assert_eq!(fresh.find_missing(&digests).await.unwrap(), digests);
    assert_eq!(read(&fresh, &digests[0]).await.unwrap(), blobs[0].1, "by read repair");
    // By the word of this index all objects would be orphans.
    assert!(fresh.collect_orphans().await.unwrap().stopped);
    assert_eq!(rig.objects.inner.names().len(), 2301);

    let busy = rebuild(&*rig.index, &*rig.objects, LEASE, &mut |_| {}).await;
    assert!(matches!(busy, Err(StoreError::Unavailable(_))), "the pass above holds the right");
    rig.clock.advance(100);
    let mut pages = 0;
    let rebuilt = rebuild(&*rig.index, &*rig.objects, LEASE, &mut |_| pages += 1).await.unwrap();
    // The repaired blob has its old object still, which is the spare one.
    assert_eq!((rebuilt.objects, rebuilt.blobs, rebuilt.spare), (2301, 2300, 1));
    assert_eq!((rebuilt.bytes, pages), (bytes, 3));
    assert_eq!(fresh.find_missing(&digests).await.unwrap(), []);
    for (digest, data) in &blobs {
        assert_eq!(read(&fresh, digest).await.unwrap(), data);
    }
    let again = rebuild(&*rig.index, &*rig.objects, LEASE, &mut |_| {}).await.unwrap();
    assert_eq!(again, Rebuilt { objects: 2301, blobs: 2300, bytes, spare: 1 });

    rig.clock.advance(100);
    let orphans = fresh.collect_orphans().await.unwrap();
    assert_eq!((orphans.stopped, orphans.objects), (false, 1));
    assert_eq!(fresh.find_missing(&digests).await.unwrap(), []);
    for (digest, data) in &blobs {
        assert_eq!(read(&fresh, digest).await.unwrap(), data);
    }
}

#[tokio::test]
async fn a_rebuilt_index_promises_what_it_found() {
    let rig = Rig::new();
    let (digest, data) = blob(1, 100);
    rig.objects.put(&digest, Generation(1), data).await.unwrap();
    rebuild(&*rig.index, &*rig.objects, LEASE, &mut |_| {}).await.unwrap();
    let entry = rig.index.find(&[digest], Duration::ZERO).await.unwrap()[0].unwrap();
    assert_eq!((entry.place, entry.lease), (Place::Object(Generation(1)), LEASE));
}

#[tokio::test]
async fn small_bytes_that_the_index_lost_come_back_to_it_with_the_first_reader() {
    let rig = Rig::new();
    let (digest, data) = blob(1, 100);
    rig.objects.put(&digest, Generation(1), data.clone()).await.unwrap();
    rebuild(&*rig.index, &*rig.objects, LEASE, &mut |_| {}).await.unwrap();
    let kept = async || rig.index.inner.small(&[digest]).await.unwrap().pop().unwrap();
    assert_eq!(kept().await, None);
    let store = rig.process().await;
    let part = store.read(&digest, 1, Some(5)).await.unwrap().collect(5).await.unwrap();
    assert_eq!((part, kept().await), (data.slice(1..6), None), "a part is not the blob");
    assert_eq!(read(&store, &digest).await.unwrap(), data);
    assert_eq!(kept().await, Some(data.clone()));
    assert_eq!(rig.place(&digest).await, Some(Place::Object(Generation(1))));
    // Bytes that are not the blob's are not spread.
    let (other, _) = blob(2, 100);
    rig.objects.put(&other, Generation(1), data).await.unwrap();
    rebuild(&*rig.index, &*rig.objects, LEASE, &mut |_| {}).await.unwrap();
    read(&store, &other).await.unwrap();
    assert_eq!(rig.index.inner.small(&[other]).await.unwrap(), [None]);
}
