//! A disk that fills while a release is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::blob::{Blob, BlobStore, BlobWriter, SharedBlobStore};
use kiln_cas::{Digest, StoreError};

use super::rig::House;

/// A store on a disk that is full after so many more blobs.
struct Filling {
    inner: SharedBlobStore,
    room: AtomicI64,
}

impl Filling {
    fn take(&self) -> Result<(), StoreError> {
        match self.room.fetch_sub(1, Ordering::Relaxed) > 0 {
            true => Ok(()),
            false => Err(StoreError::DiskFull { path: "blobs".to_owned() }),
        }
    }
}

#[async_trait]
impl BlobStore for Filling {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.find_missing(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        self.inner.read(digest, offset, limit).await
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.take()?;
        self.inner.write(digest, data).await
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.take()?;
        self.inner.writer(digest).await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync().await
    }

    async fn pin(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.pin(digests).await
    }

    async fn unpin(&self, digests: &[Digest]) -> Result<(), StoreError> {
        self.inner.unpin(digests).await
    }
}

#[tokio::test]
async fn a_disk_that_fills_leaves_no_half_release() {
    let mut finished = false;
    for room in 0..100 {
        let house = House::start().await;
        house.build("one", "1").await;
        let filling = Filling { inner: house.rig.blobs.clone(), room: AtomicI64::new(room) };
        let full = house.over_blobs(Arc::new(filling));
        if full.create("team/app:1.0", "one").await.is_ok() {
            finished = room > 5;
            break;
        }
        assert!(house.names().await.is_empty(), "after {room} blobs");
        // Once there is room again, the same release is made.
        house.create("team/app:1.0", "one").await.unwrap();
        assert_eq!(house.names().await, ["team/app:1.0"]);
    }
    assert!(finished, "it takes some blobs, and no more than that");
}
