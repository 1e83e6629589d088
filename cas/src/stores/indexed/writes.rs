//! How blobs are written: small ones to the index, and behind to the object store; large ones to
//! the object store, and then they get a place in the index.

use std::sync::Arc;

use bytes::Bytes;

use super::admission::Admission;
use super::index::Generation;
use super::index_client::IndexClient;
use super::objects::Objects;
use super::recent_writes::RecentWrites;
use super::uploads::Uploads;
use super::write_behind::WriteBehind;
use crate::blob::BlobWriter;
use crate::digest::Digest;
use crate::error::StoreError;

pub struct Writes {
    pub admission: Arc<Admission>,
    pub client: Arc<IndexClient>,
    pub objects: Arc<dyn Objects>,
    pub uploads: Arc<Uploads>,
    pub write_behind: Arc<WriteBehind>,
    pub recent: Arc<RecentWrites>,
}

impl Writes {
    /// A small blob: visible and promised when this returns; in the object store some time later.
    pub async fn small(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        check_size(digest, data.len() as u64)?;
        self.admission.admit(digest.size).await?;
        let reservation = self.write_behind.reserve(digest.size).await?;
        self.client.put_small(digest, data.clone()).await?;
        self.recent.note(digest, data.clone());
        self.write_behind.write(digest, data, reservation);
        Ok(())
    }

    /// A large blob that is in memory: in the object store and visible when this returns.
    pub async fn large(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        check_size(digest, data.len() as u64)?;
        self.admission.admit(digest.size).await?;
        let generation = Generation::fresh();
        self.objects.put(digest, generation, data).await?;
        self.uploads.publish(digest, generation).await.map(drop)
    }

    /// Begins the object of a large blob that arrives in pieces. It is for the caller to publish it
    /// under the generation that is returned.
    pub async fn begin_large(
        &self,
        digest: &Digest,
    ) -> Result<(Generation, Box<dyn BlobWriter>), StoreError> {
        self.admission.admit(digest.size).await?;
        let generation = Generation::fresh();
        Ok((generation, self.objects.writer(digest, generation).await?))
    }
}

/// Errors: `SizeMismatch`.
pub fn check_size(digest: &Digest, actual: u64) -> Result<(), StoreError> {
    match actual == digest.size {
        true => Ok(()),
        false => Err(StoreError::SizeMismatch { expected: *digest, actual }),
    }
}
