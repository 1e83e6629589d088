//! What holds for every index of blobs.

use std::time::Duration;

use bytes::Bytes;

use super::blob;
use crate::digest::Digest;
use crate::stores::Clock;
use crate::stores::indexed::{BlobIndex, Generation, MemoryIndex, Place};

/// Long enough that nothing ends by itself, unless time is made to pass.
const LEASE: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(1000);

fn small(seed: u64) -> (Digest, Bytes) {
    blob(seed, 100 + seed as usize)
}

async fn place_of(index: &dyn BlobIndex, digest: &Digest) -> Option<Place> {
    let entry = index.find(&[*digest], Duration::ZERO).await.unwrap().pop().unwrap();
    entry.map(|entry| entry.place)
}

async fn small_blobs_are_kept_until_and_after_they_have_a_place(index: &dyn BlobIndex) {
    let (first, second, absent) = (small(1), small(2), small(3).0);
    assert_eq!(index.find(&[first.0, absent], LONG).await.unwrap(), [None, None]);
    index.put_small(&[first.clone(), second.clone()], LONG).await.unwrap();
    let found = index.find(&[first.0, absent, second.0], LEASE).await.unwrap();
    assert_eq!(found[1], None);
    for entry in [found[0].unwrap(), found[2].unwrap()] {
        assert_eq!(entry.place, Place::Index);
        assert!(entry.lease > LONG / 2 && entry.lease <= LONG, "{entry:?}");
    }
    let bytes = index.small(&[absent, second.0, first.0]).await.unwrap();
    assert_eq!(bytes, [None, Some(second.1.clone()), Some(first.1.clone())]);

    assert_eq!(index.place(&first.0, Generation(7), LONG).await.unwrap(), Generation(7));
    assert_eq!(place_of(index, &first.0).await, Some(Place::Object(Generation(7))));
    // What is known stays where it is.
    index.put_small(&[first.clone(), second], LONG).await.unwrap();
    assert_eq!(place_of(index, &first.0).await, Some(Place::Object(Generation(7))));
    let kept = index.small(&[first.0]).await.unwrap().pop().unwrap();
    assert!(kept.is_none_or(|data| data == first.1));
}

async fn the_first_place_counts(index: &dyn BlobIndex) {
    let digests: Vec<_> = (10..15).map(|seed| small(seed).0).collect();
    let generation = Generation(u64::MAX);
    assert_eq!(index.place(&digests[2], generation, LONG).await.unwrap(), generation);
    let named: Vec<_> = digests.iter().map(|digest| (*digest, Generation(0))).collect();
    let zero = Generation(0);
    let expected = [zero, zero, generation, zero, zero];
    assert_eq!(index.place_all(&named, LONG).await.unwrap(), expected);
    assert_eq!(index.place(&digests[2], Generation(1), LONG).await.unwrap(), generation);
    assert_eq!(index.place(&digests[2], generation, LONG).await.unwrap(), generation);
}

async fn only_what_is_at_the_named_place_is_forgotten(index: &dyn BlobIndex) {
    let (placed, pending) = (small(20).0, small(21));
    index.place(&placed, Generation(5), LONG).await.unwrap();
    index.put_small(std::slice::from_ref(&pending), LONG).await.unwrap();
    for other in [Place::Object(Generation(6)), Place::Index] {
        assert!(!index.forget(&placed, other).await.unwrap());
    }
    assert!(!index.forget(&pending.0, Place::Object(Generation(5))).await.unwrap());
    assert_eq!(place_of(index, &placed).await, Some(Place::Object(Generation(5))));
    assert!(index.forget(&placed, Place::Object(Generation(5))).await.unwrap());
    assert!(index.forget(&pending.0, Place::Index).await.unwrap());
    for digest in [placed, pending.0] {
        assert_eq!(place_of(index, &digest).await, None);
    }
    assert_eq!(index.small(&[pending.0]).await.unwrap(), [None]);
    // It may come back, in another place.
    assert_eq!(index.place(&placed, Generation(8), LONG).await.unwrap(), Generation(8));
}

async fn pending_blobs_are_handed_out_once_per_age(
    index: &dyn BlobIndex,
    pass: &impl AsyncFn(Duration),
) {
    let blobs: Vec<_> = (30..36).map(small).collect();
    index.put_small(&blobs, LONG).await.unwrap();
    index.place(&blobs[0].0, Generation(1), LONG).await.unwrap();
    assert_eq!(index.take_pending(LONG, 100).await.unwrap(), []);
    pass(LEASE * 2).await;
    let mut taken = index.take_pending(LEASE, 2).await.unwrap();
    assert_eq!(taken.len(), 2);
    taken.extend(index.take_pending(LEASE, 100).await.unwrap());
    assert_eq!(index.take_pending(LEASE, 100).await.unwrap(), []);
    taken.retain(|blob| blobs.contains(blob));
    taken.sort_unstable();
    let mut expected = blobs[1..].to_vec();
    expected.sort_unstable();
    assert_eq!(taken, expected);
    pass(LEASE * 2).await;
    let again = index.take_pending(LEASE, 100).await.unwrap();
    assert_eq!(again.iter().filter(|blob| expected.contains(blob)).count(), 5);
}

async fn scan_all(index: &dyn BlobIndex) -> Vec<(Digest, Generation, Duration)> {
    let (mut all, mut from) = (Vec::new(), None);
    loop {
        let (page, next) = index.scan(from).await.unwrap();
        all.extend(page.iter().map(|found| (found.digest, found.generation, found.expired)));
        from = next;
        if from.is_none() {
            return all;
        }
    }
}

async fn only_what_is_unpromised_is_evicted(index: &dyn BlobIndex, pass: &impl AsyncFn(Duration)) {
    let digests: Vec<_> = (0..2500).map(|seed| small(1000 + seed).0).collect();
    let named: Vec<_> = digests.iter().map(|digest| (*digest, Generation(digest.size))).collect();
    index.place_all(&named, LEASE).await.unwrap();
    let pending = small(40);
    index.put_small(std::slice::from_ref(&pending), LEASE).await.unwrap();
    assert_eq!(index.evict(&named[..2]).await.unwrap(), [false, false]);
    // One is promised for longer by a look-up, one by being placed, one by being written.
    index.find(&digests[..1], LONG).await.unwrap();
    index.find(&digests[..1], LEASE).await.unwrap();
    index.place(&digests[1], Generation(99), LONG).await.unwrap();
    index.put_small(&[(digests[2], blob(1002, 1102).1)], LONG).await.unwrap();
    pass(LEASE * 2).await;

    let mut expired = Vec::new();
    for (digest, generation, since) in scan_all(index).await {
        assert_ne!(digest, pending.0, "it has no place");
        if named.contains(&(digest, generation)) && !since.is_zero() {
            assert!(since <= LEASE * 20, "{since:?}");
            expired.push((digest, generation));
        }
    }
    expired.sort_unstable();
    expired.dedup();
    let mut expected = named[3..].to_vec();
    expected.sort_unstable();
    assert_eq!(expired, expected);

    let wrong: Vec<_> = named[3..6].iter().map(|(digest, _)| (*digest, Generation(1))).collect();
    assert_eq!(index.evict(&wrong).await.unwrap(), [false; 3]);
    let before = index.usage().await.unwrap();
    let evicted = index.evict(&named[..1000]).await.unwrap();
    assert_eq!(evicted.iter().filter(|evicted| **evicted).count(), 997);
    assert!(!evicted[0] && !evicted[1] && !evicted[2]);
    let after = index.usage().await.unwrap();
    let bytes: u64 = digests[3..1000].iter().map(|digest| digest.size).sum();
    assert_eq!((before.blobs - after.blobs, before.bytes - after.bytes), (997, bytes));
    assert!(after.pending >= 1);
    assert_eq!(place_of(index, &digests[3]).await, None);
    assert!(place_of(index, &digests[1000]).await.is_some());
    assert_eq!(index.evict(&named[3..5]).await.unwrap(), [false, false], "they are gone");
}

async fn one_collects_at_a_time(index: &dyn BlobIndex, pass: &impl AsyncFn(Duration)) {
    assert!(index.claim_collection("a", LEASE).await.unwrap());
    assert!(!index.claim_collection("b", LEASE).await.unwrap());
    assert!(index.claim_collection("a", LEASE).await.unwrap());
    pass(LEASE * 2).await;
    assert!(index.claim_collection("b", LEASE).await.unwrap());
    assert!(!index.claim_collection("a", LEASE).await.unwrap());
}

/// Of an empty index. `pass` returns when so much time has passed for the index.
pub async fn suite(index: &dyn BlobIndex, pass: impl AsyncFn(Duration)) {
    let epoch = index.epoch().await.unwrap();
    assert_eq!(index.usage().await.unwrap(), Default::default());
    small_blobs_are_kept_until_and_after_they_have_a_place(index).await;
    the_first_place_counts(index).await;
    only_what_is_at_the_named_place_is_forgotten(index).await;
    pending_blobs_are_handed_out_once_per_age(index, &pass).await;
    only_what_is_unpromised_is_evicted(index, &pass).await;
    one_collects_at_a_time(index, &pass).await;
    for empty in
        [index.find(&[], LEASE).await.unwrap().len(), index.evict(&[]).await.unwrap().len()]
    {
        assert_eq!(empty, 0);
    }
    assert_eq!(index.epoch().await.unwrap(), epoch);
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    let clock = Clock::manual(1_000_000);
    let index = MemoryIndex::new(clock.clone());
    suite(&index, async |time: Duration| clock.advance(time.as_secs() as u32)).await;
    let epoch = index.epoch().await.unwrap();
    index.wipe();
    assert_ne!(index.epoch().await.unwrap(), epoch);
    assert_eq!(index.usage().await.unwrap(), Default::default());
}
