//! A store between a catalog and its blobs that fills, or loses what it had.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::blob::{Blob, BlobStore, BlobWriter, SharedBlobStore};
use kiln_cas::{Digest, StoreError};

pub struct Failing {
    inner: SharedBlobStore,
    /// Blobs for which there is room.
    room: AtomicI64,
    lost: Mutex<Vec<Digest>>,
}

impl Failing {
    pub fn over(inner: SharedBlobStore) -> Self {
        Self { inner, room: i64::MAX.into(), lost: Mutex::default() }
    }

    /// A disk that is full after so many more blobs.
    pub fn with_room(inner: SharedBlobStore, room: i64) -> Self {
        Self { room: room.into(), ..Self::over(inner) }
    }

    pub fn lose(&self, digest: Digest) {
        self.lost.lock().unwrap().push(digest);
    }

    fn has_lost(&self, digest: &Digest) -> bool {
        self.lost.lock().unwrap().contains(digest)
    }

    fn take(&self) -> Result<(), StoreError> {
        match self.room.fetch_sub(1, Ordering::Relaxed) > 0 {
            true => Ok(()),
            false => Err(StoreError::DiskFull { path: "blobs".to_owned() }),
        }
    }
}

#[async_trait]
impl BlobStore for Failing {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut missing = self.inner.find_missing(digests).await?;
        missing.extend(digests.iter().filter(|it| self.has_lost(it)));
        Ok(missing)
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        match self.has_lost(digest) {
            true => Err(StoreError::NotFound(*digest)),
            false => self.inner.read(digest, offset, limit).await,
        }
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
