use std::time::Duration;

use super::*;
use crate::blob::BlobStore;
use crate::clock::Clock;
use crate::digest::DigestFunction;
use crate::promises::PIN;
use crate::stores::{MemoryBlobStore, MemoryRecords};

const LEASE: u32 = 100;

struct Rig {
    store: MemoryBlobStore,
    pins: Pins,
    clock: Clock,
}

/// A store with room for two blobs of ten bytes.
fn rig() -> Rig {
    let clock = Clock::manual(1000);
    let store = MemoryBlobStore::new(25, Duration::from_secs(LEASE.into()), clock.clone());
    let pins = Pins::new(Arc::new(store.clone()), Arc::new(MemoryRecords::default()));
    Rig { store, pins, clock }
}

fn blob(seed: u8) -> (Digest, Bytes) {
    let bytes = Bytes::from(vec![seed; 10]);
    (DigestFunction::Blake3.digest(&bytes), bytes)
}

fn pin(digest: Digest, kind: &str, name: &str) -> Pin {
    Pin { digest, kind: kind.into(), name: name.into(), at: 7 }
}

impl Rig {
    async fn write(&self, seed: u8) -> Digest {
        let (digest, bytes) = blob(seed);
        self.store.write(&digest, bytes).await.unwrap();
        digest
    }

    /// Returns whether a blob is still there after others, written when its lease is over, needed its room.
    async fn survives(&self, digest: Digest) -> bool {
        self.clock.advance(LEASE + 1);
        self.write(201).await;
        self.clock.advance(LEASE + 1);
        self.write(202).await;
        self.clock.advance(LEASE + 1);
        self.store.absent(&[digest]).await.unwrap().is_empty()
    }
}

#[tokio::test]
async fn what_is_pinned_stays_until_nobody_pins_it() {
    let rig = rig();
    let digest = rig.write(1).await;
    let (one, other) = (pin(digest, "tests", "a"), pin(digest, "release", "b"));
    rig.pins.pin(&one).await.unwrap();
    rig.pins.pin(&other).await.unwrap();
    assert!(rig.survives(digest).await);
    rig.pins.unpin(&one).await.unwrap();
    rig.pins.unpin(&one).await.unwrap();
    assert!(rig.survives(digest).await, "another one pins it");
    rig.pins.unpin(&other).await.unwrap();
    assert!(rig.store.absent(&[digest]).await.unwrap().is_empty(), "it has a lease yet");
    assert!(!rig.survives(digest).await);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_pinned() {
    let rig = rig();
    let digest = blob(1).0;
    let refused = rig.pins.pin(&pin(digest, "tests", "a")).await;
    assert!(matches!(refused, Err(PinError::Absent(it)) if it == digest));
    assert_eq!(rig.pins.list("tests", None, 10).await.unwrap(), []);
    let digest = rig.write(1).await;
    for name in ["", "a/b", "é", &"x".repeat(MAX_NAME + 1)] {
        let refused = rig.pins.pin(&pin(digest, "tests", name)).await;
        assert!(matches!(refused, Err(PinError::Name(_))), "{name}");
    }
}

/// A crash keeps records alone: neither leases nor what was in memory.
#[tokio::test]
async fn records_alone_bring_pins_back() {
    let rig = rig();
    let digest = rig.write(1).await;
    rig.pins.pin(&pin(digest, "tests", "a")).await.unwrap();
    rig.store.unpin(&[digest]).await.unwrap();
    let pins = Pins::new(rig.pins.blobs.clone(), rig.pins.records.clone());
    let figures = pins.renew().await.unwrap();
    assert_eq!(figures, PinFigures { blobs: 1, bytes: 10, lost: 0 });
    assert_eq!(pins.figures(), figures);
    assert!(rig.survives(digest).await);
    // A pin ends by itself unless somebody renews it.
    rig.clock.advance(u32::try_from(PIN.as_secs()).unwrap());
    assert!(!rig.survives(digest).await);
    assert_eq!(pins.renew().await.unwrap().lost, 1);
}

#[tokio::test]
async fn kinds_are_listed_apart_and_in_pages() {
    let rig = rig();
    let digest = rig.write(1).await;
    for name in ["a", "b", "c"] {
        rig.pins.pin(&pin(digest, "tests", name)).await.unwrap();
    }
    rig.pins.pin(&pin(digest, "events", "x")).await.unwrap();
    let all = rig.pins.list("tests", None, 10).await.unwrap();
    assert_eq!(all, ["a", "b", "c"].map(|name| pin(digest, "tests", name)));
    let first = rig.pins.list("tests", None, 1).await.unwrap();
    assert_eq!(rig.pins.list("tests", first.last(), 10).await.unwrap(), all[1..]);
    assert_eq!(rig.pins.list("events", None, 10).await.unwrap().len(), 1);
    assert_eq!(rig.pins.renew().await.unwrap().blobs, 1);
}
