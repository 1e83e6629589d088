//! The same files are packed once.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::blob::{Blob, BlobStore, BlobWriter, SharedBlobStore};
use kiln_cas::{Digest, StoreError};

use super::super::CatalogError;
use super::rig::House;
use crate::executions::tests::rig::content;

/// A store from which some blobs cannot be read.
struct Hiding {
    inner: SharedBlobStore,
    hidden: Mutex<Vec<Digest>>,
}

impl Hiding {
    fn hides(&self, digest: &Digest) -> bool {
        self.hidden.lock().unwrap().contains(digest)
    }
}

#[async_trait]
impl BlobStore for Hiding {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut missing = self.inner.find_missing(digests).await?;
        missing.extend(digests.iter().filter(|it| self.hides(it)));
        Ok(missing)
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        match self.hides(digest) {
            true => Err(StoreError::NotFound(*digest)),
            false => self.inner.read(digest, offset, limit).await,
        }
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(digest, data).await
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
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
async fn the_same_files_under_another_name_are_not_read_again() {
    let house = House::start().await;
    house.build("one", "1").await;
    let blobs = Arc::new(Hiding { inner: house.rig.blobs.clone(), hidden: Mutex::default() });
    let server = house.over_blobs(blobs.clone());
    let first = server.create("team/app:1.0", "one").await.unwrap();
    blobs.hidden.lock().unwrap().push(content("program 1"));
    let second = server.create("team/app:1.1", "one").await.unwrap();
    assert_eq!(first.release.subject, second.release.subject);
    // A layer that is gone is packed anew, which needs the files.
    let layer = first.content.iter().max_by_key(|it| it.1).unwrap();
    let layer = super::super::sized(&layer.0, layer.1).unwrap();
    blobs.hidden.lock().unwrap().push(layer);
    let third = server.create("team/app:1.2", "one").await;
    assert!(matches!(third, Err(CatalogError::Evicted(_))), "{third:?}");
}
