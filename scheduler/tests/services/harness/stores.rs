//! Stores that note in which order what happens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::stores::{MemoryActionCache, MemoryBlobStore};
use kiln_cas::{ActionCache, ActionKey, Blob, BlobStore, BlobWriter, Digest, StoreError};

/// Notes in which order blobs were made durable and results published.
pub struct Recorded<T> {
    inner: T,
    notes: Arc<Mutex<Vec<&'static str>>>,
    delay: Mutex<Duration>,
}

impl<T> Recorded<T> {
    pub fn new(inner: T, notes: &Arc<Mutex<Vec<&'static str>>>) -> Arc<Self> {
        Arc::new(Self { inner, notes: notes.clone(), delay: Mutex::default() })
    }

    /// Every read and sync takes so long from now on.
    pub fn delay(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }
}

#[async_trait]
impl BlobStore for Recorded<MemoryBlobStore> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.find_missing(digests).await
    }
    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        let delay = *self.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        self.inner.read(digest, offset, limit).await
    }
    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(digest, data).await
    }
    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.inner.writer(digest).await
    }
    async fn sync(&self) -> Result<(), StoreError> {
        self.notes.lock().unwrap().push("sync");
        let delay = *self.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        self.inner.sync().await
    }
}

#[async_trait]
impl ActionCache for Recorded<MemoryActionCache> {
    async fn get(&self, key: &ActionKey) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key).await
    }
    async fn put(&self, key: &ActionKey, result: Bytes) -> Result<(), StoreError> {
        self.notes.lock().unwrap().push("put");
        self.inner.put(key, result).await
    }
}
