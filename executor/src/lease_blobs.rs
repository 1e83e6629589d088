//! Blobs that arrived with leases.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::stores::Recent;
use kiln_cas::{Blob, BlobStore, BlobWriter, Digest, DigestFunction, SharedBlobStore, StoreError};

/// Most bytes that the blobs of all leases may take together.
const MAX_BYTES: usize = 16 << 20;
/// Bytes that each blob is charged beside its content.
const ITEM: usize = 128;

/// Serves blobs that arrived with a lease without asking the store, and all others from it.
pub struct LeaseBlobs {
    store: SharedBlobStore,
    recent: Mutex<Recent<Digest, Bytes>>,
}

impl LeaseBlobs {
    pub fn before(store: SharedBlobStore) -> Self {
        Self { store, recent: Mutex::new(Recent::new(MAX_BYTES)) }
    }

    fn recent(&self) -> MutexGuard<'_, Recent<Digest, Bytes>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the blobs of a lease. Nobody says their digests: each is known by what it hashes to here.
    pub fn keep(&self, function: DigestFunction, blobs: &[Bytes]) {
        for data in blobs {
            let digest = function.digest(data);
            // A copy: else each would keep the whole message in memory.
            let data = Bytes::copy_from_slice(data);
            self.recent().insert(digest, data, digest.size as usize + ITEM);
        }
    }
}

#[async_trait]
impl BlobStore for LeaseBlobs {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.store.find_missing(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        let kept = if (offset, limit) == (0, None) { self.recent().get(digest) } else { None };
        match kept {
            Some(data) => Ok(Blob::Whole(data)),
            None => self.store.read(digest, offset, limit).await,
        }
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.store.write(digest, data).await
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.store.writer(digest).await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.store.sync().await
    }

    async fn link(&self, digest: &Digest, destination: &Path) -> Result<bool, StoreError> {
        self.store.link(digest, destination).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_cas::stores::{Faults, Faulty, MemoryBlobStore, Operation};

    use super::*;

    #[tokio::test]
    async fn what_came_is_not_read_and_only_under_its_own_digest() {
        let faults = Faults::default();
        let store = Arc::new(Faulty::new(MemoryBlobStore::default(), faults.clone()));
        let blobs = LeaseBlobs::before(store);
        let data = Bytes::from_static(b"came with a lease");
        blobs.keep(DigestFunction::Sha256, std::slice::from_ref(&data));
        let read = blobs.read(&DigestFunction::Sha256.digest(&data), 0, None).await.unwrap();
        assert_eq!(read.collect(u64::MAX).await.unwrap(), data);
        assert_eq!(faults.count(Operation::Read), 0);
        for other in [DigestFunction::Blake3.digest(&data), DigestFunction::Sha256.digest(b"no")] {
            let read = blobs.read(&other, 0, None).await;
            assert!(matches!(read, Err(StoreError::NotFound(_))));
        }
        assert_eq!(faults.count(Operation::Read), 2);
    }
}
