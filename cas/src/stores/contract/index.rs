//! What holds for every blob index.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use super::blob;
use crate::clock::Clock;
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;
use crate::promises::Run;
use crate::stores::indexed::{
    BlobIndex, Candidate, Generation, IndexEntry, IndexUsage, MemoryIndex, Place, Runs,
};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
/// Long enough for a few calls on a busy machine.
const SHORT: Duration = Duration::from_secs(3);

async fn find(index: &dyn BlobIndex, digest: &Digest) -> Option<IndexEntry> {
    index.find(&[*digest], Duration::ZERO).await.unwrap()[0]
}

/// Everything that scans find until they are through.
pub async fn scan_all(index: &dyn BlobIndex) -> HashMap<Digest, Candidate> {
    let (mut all, mut from) = (HashMap::new(), None);
    loop {
        let (part, next) = index.scan(from).await.unwrap();
        all.extend(part.into_iter().map(|candidate| (candidate.digest, candidate)));
        from = next;
        if from.is_none() {
            return all;
        }
    }
}

async fn small_blobs_are_there_at_once_and_pending(index: &dyn BlobIndex) {
    let before = index.usage().await.unwrap();
    let blobs: Vec<_> = (0..300).map(|seed| blob(seed, seed as usize + 1)).collect();
    let digests: Vec<_> = blobs.iter().map(|(digest, _)| *digest).collect();
    assert!(index.find(&digests, HOUR).await.unwrap().iter().all(Option::is_none));
    assert!(index.small(&digests).await.unwrap().iter().all(Option::is_none));
    assert_eq!(index.absent(&digests).await.unwrap().len(), digests.len());
    index.put_small(&blobs, HOUR).await.unwrap();
    // Again, and twice in one batch: what is known already is left as it is.
    index.put_small(&[blobs[7].clone(), blobs[7].clone()], SECOND).await.unwrap();
    for entry in index.find(&digests, Duration::ZERO).await.unwrap() {
        let IndexEntry { place, lease } = entry.unwrap();
        assert_eq!(place, Place::Index);
        assert!(lease >= HOUR - SECOND * 60, "{lease:?}");
    }
    for ((_, bytes), found) in blobs.iter().zip(index.small(&digests).await.unwrap()) {
        assert_eq!(found.as_ref(), Some(bytes));
    }
    let usage = index.usage().await.unwrap();
    assert_eq!(usage.blobs - before.blobs, 300);
    assert_eq!(usage.bytes - before.bytes, (1..=300).sum::<u64>());
    assert_eq!(usage.pending - before.pending, 300);
    let wrong = index.put_small(&[(digests[0], Bytes::from_static(b"ab"))], HOUR).await;
    assert!(matches!(wrong, Err(StoreError::SizeMismatch { .. })), "{wrong:?}");
    let scanned = scan_all(index).await;
    assert!(digests.iter().all(|digest| !scanned.contains_key(digest)), "pending is not scanned");
    for digest in &digests {
        assert!(index.forget(digest, Place::Index).await.unwrap());
    }
    assert_eq!(index.usage().await.unwrap(), before);
}

async fn the_first_place_counts(index: &dyn BlobIndex) {
    let before = index.usage().await.unwrap();
    let (one, two) = (Generation(1), Generation(u64::MAX));
    let (digest, bytes) = blob(1000, 50);
    index.put_small(&[(digest, bytes.clone())], HOUR).await.unwrap();
    assert_eq!(index.place(&digest, two, HOUR).await.unwrap(), two);
    assert_eq!(index.place(&digest, one, HOUR).await.unwrap(), two);
    assert_eq!(index.place(&digest, two, HOUR).await.unwrap(), two);
    assert_eq!(find(index, &digest).await.unwrap().place, Place::Object(two));
    let small = index.small(&[digest]).await.unwrap().remove(0);
    assert!(small.is_none_or(|small| small == bytes), "other bytes");
    // Many at once: one of them new, one where it is, one that is elsewhere.
    let new = blob(1001, 5).0;
    let many = [(new, one), (digest, two), (digest, one)];
    assert_eq!(index.place_all(&many, HOUR).await.unwrap(), [one, two, two]);
    assert!(index.forget(&new, Place::Object(one)).await.unwrap());
    assert_eq!(index.place_all(&[], HOUR).await.unwrap(), []);
    // A blob that has a place stays there.
    index.put_small(&[(digest, bytes)], HOUR).await.unwrap();
    assert_eq!(find(index, &digest).await.unwrap().place, Place::Object(two));
    let large = Digest { size: 1 << 40, ..DigestFunction::Blake3.digest(b"large") };
    assert_eq!(index.place(&large, one, HOUR).await.unwrap(), one);
    let usage = index.usage().await.unwrap();
    assert_eq!(usage.bytes - before.bytes, (1 << 40) + 50);
    assert_eq!((usage.blobs - before.blobs, usage.pending), (2, before.pending));

    for place in [Place::Index, Place::Object(one)] {
        assert!(!index.forget(&digest, place).await.unwrap(), "it is elsewhere");
    }
    assert!(find(index, &digest).await.is_some());
    assert!(index.forget(&digest, Place::Object(two)).await.unwrap());
    assert!(!index.forget(&digest, Place::Object(two)).await.unwrap());
    assert_eq!(find(index, &digest).await, None);
    assert_eq!(index.small(&[digest]).await.unwrap(), [None]);
    assert!(index.forget(&large, Place::Object(one)).await.unwrap());
    assert_eq!(index.usage().await.unwrap(), before);
}

async fn the_oldest_of_those_who_run_is_known(
    index: &dyn BlobIndex,
    pass: &impl AsyncFn(Duration),
) {
    let run = |name: u8, age, left| Run { id: [name; 16], age, left };
    let report = async |runs: &[Run]| {
        let Runs { now, oldest } = index.report_runs(runs).await.unwrap();
        oldest.map(|oldest| now - oldest)
    };
    let about = |age: Option<u32>, expected: u32| {
        let age = age.expect("one runs");
        assert!((expected..expected + 60).contains(&age), "{age} for {expected}");
    };
    assert_eq!(report(&[]).await, None);
    about(report(&[run(1, 100, 3600)]).await, 100);
    // Another process knows one that began earlier, and the first one since later.
    about(report(&[run(2, 500, 3), run(1, 10, 3)]).await, 500);
    about(report(&[]).await, 500);
    pass(2 * SHORT).await;
    about(report(&[]).await, 100);
    // One may have begun before any clock.
    let Runs { oldest, .. } = index.report_runs(&[run(3, u32::MAX, 2)]).await.unwrap();
    assert_eq!(oldest, Some(0));
    pass(2 * SHORT).await;
    about(report(&[]).await, 100);
}

async fn answers_are_in_order(index: &dyn BlobIndex) {
    let digests: Vec<_> = (0..2000u64)
        .map(|number| {
            let function = DigestFunction::ALL[number as usize % 2];
            function.digest(&number.to_be_bytes())
        })
        .collect();
    for (number, digest) in digests.iter().enumerate().filter(|(number, _)| number % 3 == 0) {
        index.place(digest, Generation(number as u64), HOUR).await.unwrap();
    }
    let twice = [digests.clone(), digests.clone()].concat();
    let found = index.find(&twice, HOUR).await.unwrap();
    assert_eq!(found.len(), 4000);
    for (at, entry) in found.iter().enumerate() {
        let number = at % 2000;
        let expected = (number % 3 == 0).then_some(Place::Object(Generation(number as u64)));
        assert_eq!(entry.map(|entry| entry.place), expected, "{at}");
    }
    // The same hash with another size or function is another blob.
    let other = Digest { size: 9, ..digests[0] };
    assert_eq!(find(index, &other).await, None);
    let other = Digest { function: DigestFunction::ALL[1], ..digests[0] };
    assert_eq!(find(index, &other).await, None);
    assert_eq!(index.find(&[], HOUR).await.unwrap(), []);
    assert!(index.small(&[]).await.unwrap().is_empty());
    index.put_small(&[], HOUR).await.unwrap();
    assert!(index.evict(&[]).await.unwrap().is_empty());

    let scanned = scan_all(index).await;
    for (number, digest) in digests.iter().enumerate() {
        let generation = scanned.get(digest).map(|candidate| candidate.generation);
        assert_eq!(generation, (number % 3 == 0).then_some(Generation(number as u64)));
        let forgotten = index.forget(digest, Place::Object(Generation(number as u64))).await;
        assert_eq!(forgotten.unwrap(), number % 3 == 0);
    }
}

async fn promises_are_kept(index: &dyn BlobIndex, pass: &impl AsyncFn(Duration)) {
    let before = index.usage().await.unwrap();
    let place = async |seed: u64, lease| {
        let digest = blob(seed, 10).0;
        index.place(&digest, Generation(seed), lease).await.unwrap();
        (digest, Generation(seed))
    };
    let short = place(1, SHORT).await;
    let long = place(2, HOUR).await;
    let prolonged = place(3, SHORT).await;
    let asked = index.find(&[prolonged.0], HOUR).await.unwrap()[0].unwrap();
    assert!(asked.lease >= HOUR, "{:?}", asked.lease);
    let placed_again = place(4, SHORT).await;
    index.place(&placed_again.0, Generation(99), HOUR).await.unwrap();
    let kept_again = place(5, SHORT).await;
    index.put_small(&[blob(5, 10)], HOUR).await.unwrap();
    let all = [short, long, prolonged, placed_again, kept_again];
    assert_eq!(index.evict(&all).await.unwrap(), [false; 5], "all are promised");
    assert!(scan_all(index).await.values().all(|candidate| candidate.expired.is_zero()));

    pass(2 * SHORT).await;
    // Asking for less does not end what was promised; asking without a lease promises nothing.
    assert!(find(index, &long.0).await.unwrap().lease > SECOND);
    assert!(!scan_all(index).await[&short.0].expired.is_zero());
    assert!(scan_all(index).await[&long.0].expired.is_zero());
    let stale = (short.0, Generation(77));
    assert_eq!(index.evict(&[stale]).await.unwrap(), [false]);
    assert_eq!(index.evict(&all).await.unwrap(), [true, false, false, false, false]);
    assert_eq!(index.evict(&[short]).await.unwrap(), [false], "it is gone");
    assert_eq!(find(index, &short.0).await, None);
    let usage = index.usage().await.unwrap();
    assert_eq!((usage.blobs - before.blobs, usage.bytes - before.bytes), (4, 40));
    // Until a second that lies ahead, where promises are cut short.
    let ends = scan_all(index).await[&long.0].ends;
    let cut = async |until| index.evict_until(&[long], until).await.unwrap();
    assert_eq!(cut(ends - 1).await, [false]);
    assert_eq!(cut(ends).await, [true]);
    index.place(&long.0, long.1, HOUR).await.unwrap();
    // What comes back is another object.
    index.place(&short.0, Generation(8), HOUR).await.unwrap();
    assert_eq!(index.evict(&[short, (short.0, Generation(8))]).await.unwrap(), [false; 2]);
    for (digest, generation) in
        [(short.0, Generation(8)), long, prolonged, placed_again, kept_again]
    {
        assert!(index.forget(&digest, Place::Object(generation)).await.unwrap());
    }
    assert_eq!(index.usage().await.unwrap(), before);
}

async fn promises_are_shortened(index: &dyn BlobIndex) {
    let (digest, other) = (blob(1, 10).0, blob(2, 10).0);
    index.place(&digest, Generation(1), HOUR * 100).await.unwrap();
    index.shorten(&[digest, other], HOUR).await.unwrap();
    let left = find(index, &digest).await.unwrap().lease;
    assert!(left > HOUR - SECOND * 60 && left <= HOUR + SECOND * 2, "{left:?}");
    index.shorten(&[digest], HOUR * 2).await.unwrap();
    assert!(find(index, &digest).await.unwrap().lease <= HOUR + SECOND * 2, "it was prolonged");
    assert_eq!(find(index, &other).await, None);
    index.shorten(&[], HOUR).await.unwrap();
    assert!(index.forget(&digest, Place::Object(Generation(1))).await.unwrap());
}

async fn pending_blobs_are_handed_out_to_one_at_a_time(
    index: &dyn BlobIndex,
    pass: &impl AsyncFn(Duration),
) {
    let blobs: Vec<_> = (0..10).map(|seed| blob(seed, 100)).collect();
    let take = async |limit| index.take_pending(SHORT, limit).await.unwrap();
    // The promise is over long before they are handed out: pending blobs stay anyway.
    index.put_small(&blobs, Duration::ZERO).await.unwrap();
    assert!(take(100).await.is_empty(), "they are new");
    pass(2 * SHORT).await;
    let mut taken = take(4).await;
    assert_eq!(taken.len(), 4);
    taken.extend(take(100).await);
    taken.sort();
    let mut expected = blobs.clone();
    expected.sort();
    assert_eq!(taken, expected);
    assert!(take(100).await.is_empty(), "they were handed out just now");
    for (digest, _) in &blobs[..6] {
        index.place(digest, Generation(1), HOUR).await.unwrap();
    }
    assert!(index.forget(&blobs[6].0, Place::Index).await.unwrap());
    pass(2 * SHORT).await;
    let mut taken = take(100).await;
    taken.sort();
    expected.retain(|blob| blobs[7..].contains(blob));
    assert_eq!(taken, expected);
    assert_eq!(take(0).await, []);
    for (digest, _) in &blobs[..6] {
        assert!(index.forget(digest, Place::Object(Generation(1))).await.unwrap());
    }
    for (digest, _) in &blobs[7..] {
        assert!(index.forget(digest, Place::Index).await.unwrap());
    }
}

async fn one_at_a_time_collects(index: &dyn BlobIndex, pass: &impl AsyncFn(Duration)) {
    assert!(index.claim_collection("a", 2 * SECOND).await.unwrap());
    assert!(!index.claim_collection("b", 2 * SECOND).await.unwrap());
    assert!(index.claim_collection("a", 2 * SECOND).await.unwrap());
    pass(4 * SECOND).await;
    assert!(index.claim_collection("b", HOUR).await.unwrap());
    assert!(!index.claim_collection("a", HOUR).await.unwrap());
}

/// Of an empty index. `pass` returns when so much of its time has passed.
pub async fn suite(index: &dyn BlobIndex, pass: impl AsyncFn(Duration)) {
    let epoch = index.epoch().await.unwrap();
    assert_eq!(index.usage().await.unwrap(), IndexUsage::default());
    assert!(scan_all(index).await.is_empty());
    small_blobs_are_there_at_once_and_pending(index).await;
    the_first_place_counts(index).await;
    answers_are_in_order(index).await;
    promises_are_kept(index, &pass).await;
    the_oldest_of_those_who_run_is_known(index, &pass).await;
    promises_are_shortened(index).await;
    pending_blobs_are_handed_out_to_one_at_a_time(index, &pass).await;
    one_at_a_time_collects(index, &pass).await;
    assert_eq!(index.usage().await.unwrap(), IndexUsage::default());
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
}
