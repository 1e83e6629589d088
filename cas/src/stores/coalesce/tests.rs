//! Two stores of which either fails.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::blob::{Blob, BlobStore, BlobWriter};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::contract::blob;
use crate::stores::faults::{Faults, Faulty, Operation};
use crate::stores::memory::MemoryBlobStore;
use crate::stores::verify::Verified;

fn subject() -> (Arc<Coalesced>, Faults, SharedBlobStore) {
    let faults = Faults::default();
    let remote: SharedBlobStore = Arc::new(Faulty::new(MemoryBlobStore::default(), faults.clone()));
    let local = Arc::new(MemoryBlobStore::default());
    (Arc::new(Coalesced::new(local, remote.clone())), faults, remote)
}

#[tokio::test]
async fn many_readers_make_one_fetch() {
    for size in [1000, 3 << 20] {
        let (store, faults, remote) = subject();
        let (digest, data) = blob(1, size);
        remote.write(&digest, data.clone()).await.unwrap();
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    store.read(&digest, 0, None).await.unwrap().collect(u64::MAX).await
                })
            })
            .collect();
        for reader in readers {
            assert_eq!(reader.await.unwrap().unwrap(), data);
        }
        assert_eq!(faults.count(Operation::Read), 1);
    }
}

#[tokio::test]
async fn a_failed_fetch_is_told_to_all_and_the_next_one_tries_again() {
    let (store, faults, remote) = subject();
    let (digest, data) = blob(1, 1000);
    remote.write(&digest, data.clone()).await.unwrap();
    faults.fail_next(Operation::Read, StoreError::unavailable("down"));
    let (one, two) = tokio::join!(store.read(&digest, 0, None), store.read(&digest, 0, None));
    assert!(matches!(one, Err(StoreError::Unavailable(_))));
    assert!(matches!(two, Err(StoreError::Unavailable(_))));
    let read = store.read(&digest, 0, None).await.unwrap().collect(u64::MAX).await;
    assert_eq!(read.unwrap(), data);
    assert!(store.fetches().is_empty());
}

fn broken() -> [StoreError; 4] {
    [
        StoreError::DiskFull { path: "blobs".to_owned() },
        StoreError::Io { context: "open".to_owned(), reason: "Read-only".into() },
        StoreError::Full { used: 1, limit: 1, setting: "x" },
        StoreError::TooLarge { size: 2, limit: 1 },
    ]
}

#[tokio::test]
async fn a_copy_is_never_required() {
    let dir = tempfile::tempdir().unwrap();
    let all = [Operation::Read, Operation::Write, Operation::Append, Operation::Commit];
    for size in [1000, 3 << 20] {
        let (digest, data) = blob(1, size);
        for error in broken() {
            for failing in all.into_iter().chain([Operation::Link]) {
                let (faults, remote) = (Faults::default(), MemoryBlobStore::default());
                remote.write(&digest, data.clone()).await.unwrap();
                let local = Faulty::new(MemoryBlobStore::default(), faults.clone());
                faults.fail_always(failing, error.clone());
                let store = Coalesced::new(Arc::new(local), Arc::new(remote));
                for (offset, limit) in [(0, None), (10, Some(500)), (900, None)] {
                    let read = store.read(&digest, offset, limit).await.unwrap();
                    let end = limit.map_or(size, |limit| (offset + limit) as usize);
                    let read = read.collect(u64::MAX).await.unwrap();
                    assert_eq!(read, data[offset as usize..end], "{failing:?} {error}");
                }
                let linked = store.link(&digest, &dir.path().join("link")).await;
                assert!(matches!(linked, Ok(false)), "{failing:?} {error}: {linked:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_copy_that_breaks_off_is_read_on_from_where_it_is_kept() {
    struct Breaking(MemoryBlobStore);
    #[async_trait]
    impl BlobStore for Breaking {
        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            self.0.find_missing(digests).await
        }
        async fn read(
            &self,
            digest: &Digest,
            offset: u64,
            limit: Option<u64>,
        ) -> Result<Blob, StoreError> {
            let first = self.0.read(digest, offset, limit).await?.collect(u64::MAX).await?;
            let broken = StoreError::Io { context: "read".into(), reason: "I/O".into() };
            let pieces = [Ok(first.slice(..first.len() / 3)), Err(broken)];
            Ok(Blob::Stream(Box::pin(futures_util::stream::iter(pieces))))
        }
        async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
            self.0.write(digest, data).await
        }
        async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
            self.0.writer(digest).await
        }
        async fn sync(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }
    let (digest, data) = blob(1, 3 << 20);
    let (local, remote) = (MemoryBlobStore::default(), MemoryBlobStore::default());
    for store in [&local, &remote] {
        store.write(&digest, data.clone()).await.unwrap();
    }
    let store = Coalesced::new(Arc::new(Breaking(local)), Arc::new(remote));
    for (offset, limit) in [(0, None), (1000, Some(2 << 20)), (7, None)] {
        let read = store.read(&digest, offset, limit).await.unwrap();
        let end = limit.map_or(data.len() as u64, |limit| offset + limit) as usize;
        assert_eq!(read.collect(u64::MAX).await.unwrap(), data[offset as usize..end]);
    }
}

/// Answers reads of `digest` with other bytes, so many times.
struct Damaging {
    inner: MemoryBlobStore,
    left: std::sync::atomic::AtomicU32,
}

#[async_trait]
impl BlobStore for Damaging {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.find_missing(digests).await
    }
    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        use std::sync::atomic::Ordering;
        let blob = self.inner.read(digest, offset, limit).await?;
        let take = |left: u32| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Ok(blob);
        }
        let stream = matches!(blob, Blob::Stream(_));
        let mut data = blob.collect(u64::MAX).await?.to_vec();
        *data.last_mut().unwrap() ^= 1;
        let data = Bytes::from(data);
        if !stream {
            return Ok(Blob::Whole(data));
        }
        let half = data.len() / 2;
        let pieces = [Ok(data.slice(..half)), Ok(data.slice(half..))];
        Ok(Blob::Stream(Box::pin(futures_util::stream::iter(pieces))))
    }
    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(digest, data).await
    }
    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.inner.writer(digest).await
    }
    async fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn damaged_bytes_are_fetched_again_and_never_handed_out() {
    for (size, full) in [(1000, false), (1000, true), (3 << 20, false), (3 << 20, true)] {
        let (digest, data) = blob(1, size);
        for damaged in [1, 2, 100] {
            let remote = Damaging { inner: MemoryBlobStore::default(), left: damaged.into() };
            remote.write(&digest, data.clone()).await.unwrap();
            let faults = Faults::default();
            if full {
                let error = StoreError::DiskFull { path: "blobs".to_owned() };
                faults.fail_always(Operation::Write, error);
            }
            let local = Faulty::new(Verified::new(MemoryBlobStore::default()), faults);
            let store = Coalesced::new(Arc::new(local), Arc::new(remote));
            let read = match store.read(&digest, 0, None).await {
                Ok(blob) => blob.collect(u64::MAX).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(read) => assert_eq!(read, data),
                // A stream that has begun cannot begin anew; whoever reads tries again.
                Err(error) => {
                    let begun = full && size > 1000;
                    assert!(damaged == 100 || begun, "{damaged} {size} {error}");
                    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_absent_blob_is_not_found() {
    let (store, _, _) = subject();
    let (digest, _) = blob(1, 1000);
    let read = store.read(&digest, 0, None).await;
    assert!(matches!(read, Err(StoreError::NotFound(_))));
}
