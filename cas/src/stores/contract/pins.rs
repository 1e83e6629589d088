//! What holds for pins in every blob store that has them.

use super::blob;
use super::blobs::{LEASE, Subject, subject};
use crate::digest::Digest;
use crate::error::StoreError;

const MAX: u64 = 16 << 20;
/// Small and large for every store.
const SIZES: [usize; 2] = [20_000, 500_000];

/// Writes until something else had to go.
async fn crowd(subject: &Subject, round: u64) {
    let lease = LEASE.as_secs() as u32;
    for size in SIZES {
        subject.clock.advance(lease + 10);
        for number in 0..2 * MAX / size as u64 {
            let (digest, data) = blob(round * 1_000_000 + number * 1000 + size as u64, size);
            match subject.store.write(&digest, data).await {
                Ok(()) => {}
                Err(StoreError::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        subject.store.sync().await.unwrap();
    }
}

async fn pinned(subject: &Subject) -> Vec<Digest> {
    let mut digests = Vec::new();
    for (seed, size) in SIZES.into_iter().enumerate() {
        let (digest, data) = blob(seed as u64, size);
        subject.store.write(&digest, data).await.unwrap();
        digests.push(digest);
    }
    subject.store.sync().await.unwrap();
    assert_eq!(subject.store.pin(&digests).await.unwrap(), []);
    digests
}

async fn pins(kind: &str) {
    let subject = subject(kind, MAX).await;
    let store = &*subject.store;
    let (absent, other) = (blob(77, 100).0, blob(78, 400_000).0);
    assert_eq!(store.pin(&[absent, other]).await.unwrap(), [absent, other], "{kind}");
    assert_eq!(store.pin(&[]).await.unwrap(), []);
    let digests = pinned(&subject).await;
    for round in 1..4 {
        crowd(&subject, round).await;
        assert_eq!(store.absent(&digests).await.unwrap(), [], "{kind}: a pin was broken");
    }
    // To be asked after, or written again, does not shorten it.
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
    subject.clock.advance(3700);
    store.write(&digests[0], blob(0, SIZES[0]).1).await.unwrap();
    crowd(&subject, 4).await;
    assert_eq!(store.absent(&digests).await.unwrap(), [], "{kind}: a pin was broken");

    store.unpin(&digests).await.unwrap();
    store.unpin(&[absent]).await.unwrap();
    assert_eq!(store.absent(&digests).await.unwrap(), [], "{kind}: it goes as others do");
    // What lets go keeps a lease, and nothing is shortened twice.
    subject.clock.advance(10);
    store.unpin(&digests).await.unwrap();
    subject.clock.advance(3600);
    for round in 5..9 {
        crowd(&subject, round).await;
    }
    assert_eq!(store.absent(&digests).await.unwrap(), digests, "{kind}: it stays for ever");
}

macro_rules! suite {
    ($($name:ident: $kind:literal;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            pins($kind).await;
        })*
    };
}

suite! {
    memory_keeps_pins: "memory";
    verified_memory_keeps_pins: "verified memory";
    coalesced_keeps_pins: "coalesced memory";
    disk_keeps_pins: "disk";
    verified_disk_keeps_pins: "verified disk";
    indexed_keeps_pins: "indexed";
}
