//! What holds for every blob store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use kiln_test_servers::s3::Weed;

use super::{blob, content, naming};
use crate::blob::{Blob, BlobStore, MAX_WHOLE_BLOB};
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;
use crate::redis::tests::alone;
use crate::stores::indexed::{BlobIndex, Indexed, IndexedOptions, MemoryIndex, MemoryObjects};
use crate::stores::redis::{RedisBlobIndex, RedisBlobIndexOptions};
use crate::stores::s3::{S3Config, S3Credentials, S3Objects};
use crate::stores::{
    Clock, Coalesced, DiskBlobStore, DiskOptions, MemoryBlobStore, SMALL_BLOB, Verified,
};

const MIB: usize = 1 << 20;
pub const LEASE: Duration = Duration::from_secs(3600);

/// Sizes around every boundary that an implementation has.
const SIZES: [usize; 9] = [
    1,
    4096,
    SMALL_BLOB as usize - 1,
    SMALL_BLOB as usize,
    SMALL_BLOB as usize + 1,
    MAX_WHOLE_BLOB as usize,
    MAX_WHOLE_BLOB as usize + 1,
    3 * MIB,
    5 * MIB + 7,
];

/// A store under test, and what it needs to go on existing.
pub struct Subject {
    pub store: Arc<dyn BlobStore>,
    pub clock: Clock,
    _dir: Option<tempfile::TempDir>,
}

fn memory(max_size: u64, clock: &Clock) -> MemoryBlobStore {
    MemoryBlobStore::new(max_size, LEASE, clock.clone())
}

async fn disk(max_size: u64, clock: &Clock) -> (DiskBlobStore, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (clock, path, invocations) = (clock.clone(), dir.path().to_owned(), None);
    let options = DiskOptions { dir: path, max_size, lease: LEASE, invocations, clock };
    (DiskBlobStore::open(options).await.unwrap(), dir)
}

/// Every composition, by name.
pub async fn subject(kind: &str, max_size: u64) -> Subject {
    let clock = Clock::manual(1_000_000);
    let mut kept = None;
    let store: Arc<dyn BlobStore> = match kind {
        "memory" => Arc::new(memory(max_size, &clock)),
        "verified memory" => Arc::new(Verified::new(memory(max_size, &clock))),
        "coalesced memory" => Arc::new(Coalesced::new(
            Arc::new(memory(max_size, &clock)),
            Arc::new(memory(max_size, &clock)),
        )),
        "disk" | "verified disk" => {
            let (store, dir) = disk(max_size, &clock).await;
            kept = Some(dir);
            if kind == "disk" { Arc::new(store) } else { Arc::new(Verified::new(store)) }
        }
        "indexed" => {
            let index = Arc::new(MemoryIndex::new(clock.clone()));
            let objects = Arc::new(MemoryObjects::new(clock.clone()));
            let options = indexed_options(max_size, &clock);
            Arc::new(Indexed::open(index, objects, options).await)
        }
        other => panic!("no store {other}"),
    };
    Subject { store, clock, _dir: kept }
}

fn indexed_options(max_size: u64, clock: &Clock) -> IndexedOptions {
    let clock = clock.clone();
    IndexedOptions { lease: LEASE, small: SMALL_BLOB, max_size, clock, ..IndexedOptions::default() }
}

/// Bytes in S3.
async fn indexed_in_s3(
    weed: &Weed,
    prefix: &str,
    index: Arc<dyn BlobIndex>,
    clock: Clock,
) -> Subject {
    let keys = weed.credentials();
    let config = S3Config {
        endpoint: Some(weed.endpoint()),
        credentials: Some(S3Credentials {
            access_key: keys.access_key.to_owned(),
            secret_key: keys.secret_key.to_owned(),
        }),
        ..format!("s3://{}/{prefix}", weed.bucket()).parse().unwrap()
    };
    let objects = Arc::new(S3Objects::open(&config).await.unwrap());
    let store = Indexed::open(index, objects, indexed_options(0, &clock)).await;
    Subject { store: Arc::new(store), clock, _dir: None }
}

async fn read(store: &dyn BlobStore, digest: &Digest) -> Result<Bytes, StoreError> {
    store.read(digest, 0, None).await?.collect(u64::MAX).await
}

async fn stream_in(store: &dyn BlobStore, digest: &Digest, data: &Bytes, piece: usize) {
    let mut writer = store.writer(digest).await.unwrap();
    for from in (0..data.len()).step_by(piece) {
        writer.write(data.slice(from..data.len().min(from + piece))).await.unwrap();
    }
    writer.commit().await.unwrap();
}

async fn what_is_written_is_read(store: &dyn BlobStore) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let (whole, whole_data) = blob(seed as u64, size);
        store.write(&whole, whole_data.clone()).await.unwrap();
        assert_eq!(read(store, &whole).await.unwrap(), whole_data, "{size} bytes");
        let (pieces, pieces_data) = blob(100 + seed as u64, size);
        stream_in(store, &pieces, &pieces_data, 100_000).await;
        assert_eq!(read(store, &pieces).await.unwrap(), pieces_data, "{size} bytes in pieces");
        assert_eq!(store.find_missing(&[whole, pieces]).await.unwrap(), []);
        // Again: storing what is present is success.
        store.write(&whole, whole_data.clone()).await.unwrap();
        stream_in(store, &whole, &whole_data, 300_000).await;
        assert_eq!(read(store, &whole).await.unwrap(), whole_data, "{size} bytes again");
    }
    store.sync().await.unwrap();
}

async fn ranges_are_cut_exactly(store: &dyn BlobStore) {
    for size in [10, 300 * 1024, 3 * MIB] {
        let (digest, data) = blob(size as u64, size);
        store.write(&digest, data.clone()).await.unwrap();
        let full = size as u64;
        for (offset, limit) in [
            (0, Some(0)),
            (0, Some(3)),
            (1, None),
            (full / 2, Some(full)),
            (full - 1, Some(1)),
            (full, None),
            (3, Some(full - 5)),
        ] {
            let got = store.read(&digest, offset, limit).await.unwrap();
            let got = got.collect(u64::MAX).await.unwrap();
            let end = limit.map_or(full, |limit| full.min(offset + limit));
            assert_eq!(got, data.slice(offset as usize..end as usize), "{offset} {limit:?}");
        }
        let beyond = store.read(&digest, full + 1, None).await;
        assert!(matches!(beyond, Err(StoreError::OutOfRange { .. })));
    }
}

async fn large_blobs_stream_and_small_ones_come_whole(store: &dyn BlobStore) {
    for size in SIZES {
        let (digest, data) = blob(7, size);
        store.write(&digest, data).await.unwrap();
        match store.read(&digest, 0, None).await.unwrap() {
            Blob::Whole(_) => {}
            Blob::Stream(mut stream) => {
                assert!(size as u64 > MAX_WHOLE_BLOB, "{size} bytes were streamed");
                while let Some(piece) = stream.next().await {
                    assert!(piece.unwrap().len() as u64 <= MAX_WHOLE_BLOB);
                }
            }
        }
    }
}

async fn absence_is_reported_in_order(store: &dyn BlobStore) {
    let mut digests = Vec::new();
    let mut absent = Vec::new();
    for number in 0..600 {
        let (digest, data) = blob(number, if number % 50 == 3 { 300_000 } else { 20 });
        if number % 3 == 0 {
            store.write(&digest, data).await.unwrap();
        } else {
            absent.push(digest);
        }
        digests.push(digest);
    }
    digests.insert(5, DigestFunction::Sha256.digest(b""));
    digests.insert(9, DigestFunction::Blake3.digest(b""));
    assert_eq!(store.find_missing(&digests).await.unwrap(), absent);
    assert_eq!(store.find_missing(&[]).await.unwrap(), []);
    for digest in [absent[0], *absent.iter().find(|digest| digest.size == 300_000).unwrap()] {
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
        assert!(matches!(read(store, &digest).await, Err(StoreError::NotFound(d)) if d == digest));
    }
}

async fn the_empty_blob_is_always_there(store: &dyn BlobStore) {
    for function in DigestFunction::ALL {
        let empty = function.digest(b"");
        assert_eq!(read(store, &empty).await.unwrap(), Bytes::new());
        store.write(&empty, Bytes::new()).await.unwrap();
        stream_in(store, &empty, &Bytes::new(), 1).await;
        let beyond = store.read(&empty, 1, None).await;
        assert!(matches!(beyond, Err(StoreError::OutOfRange { .. })));
        let mut writer = store.writer(&empty).await.unwrap();
        assert!(writer.write(Bytes::from_static(b"x")).await.is_err());
    }
}

async fn both_functions_and_equal_hashes_of_other_sizes_are_told_apart(store: &dyn BlobStore) {
    for size in [50, 400_000] {
        let data = content(99, size);
        let sha = DigestFunction::Sha256.digest(&data);
        let blake = DigestFunction::Blake3.digest(&data);
        store.write(&blake, data.clone()).await.unwrap();
        let other_size = Digest { size: blake.size + 1, ..blake };
        assert_eq!(store.find_missing(&[sha, blake, other_size]).await.unwrap(), [sha, other_size]);
        assert_eq!(read(store, &blake).await.unwrap(), data);
    }
}

async fn sizes_are_enforced(store: &dyn BlobStore) {
    for size in [100, 2 * MIB] {
        let (digest, data) = blob(1, size);
        let mut writer = store.writer(&digest).await.unwrap();
        writer.write(data.clone()).await.unwrap();
        let more = writer.write(Bytes::from_static(b"x")).await;
        assert!(matches!(more, Err(StoreError::SizeMismatch { .. })), "{more:?}");
        drop(writer);
        let mut writer = store.writer(&digest).await.unwrap();
        writer.write(data.slice(1..)).await.unwrap();
        let short = writer.commit().await;
        assert!(matches!(short, Err(StoreError::SizeMismatch { .. })), "{short:?}");
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
    }
}

async fn an_abandoned_write_leaves_nothing(store: &dyn BlobStore) {
    for size in [1000, 4 * MIB] {
        let (digest, data) = blob(2, size);
        let mut writer = store.writer(&digest).await.unwrap();
        writer.write(data.slice(..size / 2)).await.unwrap();
        drop(writer);
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
        stream_in(store, &digest, &data, 70_000).await;
        assert_eq!(read(store, &digest).await.unwrap(), data);
    }
}

async fn concurrent_writers_of_one_blob_all_succeed(store: &Arc<dyn BlobStore>) {
    for size in [5000, 2 * MIB] {
        let (digest, data) = blob(3, size);
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let (store, data) = (store.clone(), data.clone());
                tokio::spawn(async move {
                    if number % 2 == 0 {
                        store.write(&digest, data).await.unwrap();
                    } else {
                        stream_in(&*store, &digest, &data, 50_000).await;
                    }
                    read(&*store, &digest).await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), data);
        }
    }
}

async fn general(kind: &str) {
    general_of(subject(kind, 1 << 30).await, subject(kind, 1 << 30).await).await;
}

/// Of two empty stores of one kind.
async fn general_of(subject: Subject, fresh: Subject) {
    let store = &*subject.store;
    the_empty_blob_is_always_there(store).await;
    sizes_are_enforced(store).await;
    an_abandoned_write_leaves_nothing(store).await;
    concurrent_writers_of_one_blob_all_succeed(&subject.store).await;
    what_is_written_is_read(store).await;
    naming::what_names_itself_is_read(store).await;
    ranges_are_cut_exactly(store).await;
    large_blobs_stream_and_small_ones_come_whole(store).await;
    both_functions_and_equal_hashes_of_other_sizes_are_told_apart(store).await;
    absence_is_reported_in_order(&*fresh.store).await;
}

/// Promises are kept under pressure; what is unpromised goes; then writes go on.
async fn pressure(kind: &str) {
    let max = 16 * MIB as u64;
    let subject = subject(kind, max).await;
    let store = &*subject.store;
    for size in [20_000, 500_000] {
        let seed = |number: u64| number * 1_000_000 + size as u64;
        let mut kept = Vec::new();
        let full = loop {
            let (digest, data) = blob(seed(kept.len() as u64), size);
            match store.write(&digest, data).await {
                Ok(()) => kept.push(digest),
                Err(error) => break error,
            }
        };
        assert!(matches!(full, StoreError::Full { .. }), "{kind}: {full}");
        let bytes = kept.len() * size;
        assert!(bytes > max as usize * 7 / 10, "{kind}: full at {bytes} bytes");
        assert_eq!(store.find_missing(&kept).await.unwrap(), [], "{kind}");
        store.sync().await.unwrap();

        // Near its end the lease of one half is renewed; only the other half may go.
        subject.clock.advance(3000);
        let (renewed, lapsed) = kept.split_at(kept.len() / 2);
        assert_eq!(store.find_missing(renewed).await.unwrap(), []);
        subject.clock.advance(3000);
        let mut fresh = Vec::new();
        for number in 0..lapsed.len() * 2 / 3 {
            let (digest, data) = blob(seed(50_000 + number as u64), size);
            store.write(&digest, data).await.unwrap();
            fresh.push(digest);
        }
        assert_eq!(store.find_missing(renewed).await.unwrap(), [], "{kind}: a promise was broken");
        assert_eq!(store.find_missing(&fresh).await.unwrap(), [], "{kind}: a promise was broken");
        assert!(!store.find_missing(lapsed).await.unwrap().is_empty(), "{kind}: nothing went");
        for digest in renewed.iter().chain(&fresh) {
            let data = read(store, digest).await.unwrap();
            assert_eq!(DigestFunction::Sha256.digest(&data), *digest);
        }
        subject.clock.advance(10_000);
    }
}

macro_rules! suite {
    ($($name:ident: $kind:literal, $test:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $test($kind).await;
        })*
    };
}

suite! {
    memory_keeps_the_contract: "memory", general;
    verified_memory_keeps_the_contract: "verified memory", general;
    disk_keeps_the_contract: "disk", general;
    verified_disk_keeps_the_contract: "verified disk", general;
    coalesced_keeps_the_contract: "coalesced memory", general;
    indexed_keeps_the_contract: "indexed", general;
    indexed_keeps_promises_under_pressure: "indexed", pressure;
    memory_keeps_promises_under_pressure: "memory", pressure;
    disk_keeps_promises_under_pressure: "disk", pressure;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexed_in_s3_keeps_the_contract() {
    let Some(weed) = Weed::start() else { return };
    let subject = async |prefix| {
        let clock = Clock::manual(1_000_000);
        indexed_in_s3(&weed, prefix, Arc::new(MemoryIndex::new(clock.clone())), clock).await
    };
    general_of(subject("one").await, subject("two").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexed_in_s3_and_redis_keeps_the_contract() {
    let Some(weed) = Weed::start() else { return };
    let (Some((_one, one)), Some((_two, two))) = (alone().await, alone().await) else { return };
    let subject = async |prefix, redis| {
        let index = RedisBlobIndex::new(redis, RedisBlobIndexOptions::default());
        indexed_in_s3(&weed, prefix, Arc::new(index), Clock::system()).await
    };
    general_of(subject("one", one).await, subject("two", two).await).await;
}
