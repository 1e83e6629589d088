//! Writing a blob that arrives in pieces.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::index::Generation;
use super::writes::Writes;
use crate::blob::BlobWriter;
use crate::digest::Digest;
use crate::error::StoreError;

/// Collects a small blob.
pub struct SmallWriter {
    writes: Arc<Writes>,
    digest: Digest,
    data: BytesMut,
}

impl SmallWriter {
    pub fn new(writes: Arc<Writes>, digest: Digest) -> Self {
        let data = BytesMut::with_capacity(digest.size as usize);
        Self { writes, digest, data }
    }
}

#[async_trait]
impl BlobWriter for SmallWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        let actual = (self.data.len() + data.len()) as u64;
        if actual > self.digest.size {
            return Err(StoreError::SizeMismatch { expected: self.digest, actual });
        }
        self.data.extend_from_slice(&data);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.writes.small(&self.digest, self.data.freeze()).await
    }
}

/// Streams a large blob into an object, and places it.
pub struct LargeWriter {
    writes: Arc<Writes>,
    digest: Digest,
    generation: Generation,
    object: Box<dyn BlobWriter>,
}

impl LargeWriter {
    pub async fn begin(writes: Arc<Writes>, digest: Digest) -> Result<Self, StoreError> {
        let (generation, object) = writes.begin_large(&digest).await?;
        Ok(Self { writes, digest, generation, object })
    }
}

#[async_trait]
impl BlobWriter for LargeWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.object.write(data).await
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.object.commit().await?;
        self.writes.uploads.publish(&self.digest, self.generation).await.map(drop)
    }
}
