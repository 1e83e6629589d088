//! The trait of the object store below an index. It holds the bytes; which blobs there are is asked of the index,
//! since listings are slow.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;

use super::index::Generation;
use crate::blob::{BlobStream, BlobWriter};
use crate::digest::Digest;
use crate::error::StoreError;

/// A whole object as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub digest: Digest,
    pub generation: Generation,
    /// Seconds since the Unix epoch, by the object store's clock.
    pub modified: u64,
}

#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Writes an object that is in memory; whole and durable when this returns.
    async fn put(
        &self,
        digest: &Digest,
        generation: Generation,
        data: Bytes,
    ) -> Result<(), StoreError>;

    /// Begins an object that arrives in pieces; whole and durable after `commit`, absent before.
    async fn writer(
        &self,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Box<dyn BlobWriter>, StoreError>;

    /// The bytes from `offset` on, at most `limit`. Errors: `NotFound`.
    async fn read(
        &self,
        digest: &Digest,
        generation: Generation,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<BlobStream, StoreError>;

    /// Copies an object to another generation of its blob. Errors: `NotFound`.
    async fn copy(
        &self,
        digest: &Digest,
        from: Generation,
        to: Generation,
    ) -> Result<(), StoreError>;

    /// Deletes; what is absent already is success. One request per bounded batch.
    async fn delete(&self, objects: &[(Digest, Generation)]) -> Result<(), StoreError>;

    /// Generations of one blob that are there: for a blob that the index does not know.
    async fn generations(&self, digest: &Digest) -> Result<Vec<Generation>, StoreError>;

    /// A page of all objects and where to go on; start at `None`, end when `None` comes back.
    async fn list(
        &self,
        after: Option<String>,
    ) -> Result<(Vec<Listed>, Option<String>), StoreError>;

    /// The time of the object store's clock, in seconds since the Unix epoch.
    async fn now(&self) -> Result<u64, StoreError>;

    /// What [`Objects::set_mark`] wrote last.
    async fn mark(&self) -> Result<Option<u64>, StoreError>;

    /// Writes down the epoch of the index that knows all objects that are here.
    async fn set_mark(&self, epoch: u64) -> Result<(), StoreError>;

    /// Removes what uploads left behind that began before this time of the object store's clock
    /// and never ended. Returns how many.
    async fn sweep(&self, before: u64) -> Result<u64, StoreError>;
}

/// [`Objects::copy`] for stores that cannot copy by themselves: reads and writes.
pub async fn copy_through(
    objects: &dyn Objects,
    digest: &Digest,
    from: Generation,
    to: Generation,
) -> Result<(), StoreError> {
    let mut source = objects.read(digest, from, 0, None).await?;
    let mut writer = objects.writer(digest, to).await?;
    while let Some(piece) = source.next().await {
        writer.write(piece?).await?;
    }
    writer.commit().await
}
