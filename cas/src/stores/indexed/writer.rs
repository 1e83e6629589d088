//! Writing a blob that arrives in pieces.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::index::Generation;
use super::parts::Parts;
use super::store::write_small;
use crate::blob::BlobWriter;
use crate::digest::Digest;
use crate::error::StoreError;

/// Collects a small blob.
pub struct SmallWriter {
    pub parts: Arc<Parts>,
    pub digest: Digest,
    pub data: BytesMut,
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
        write_small(&self.parts, &self.digest, self.data.freeze()).await
    }
}

/// Streams a large blob into an object, and places it.
pub struct LargeWriter {
    pub parts: Arc<Parts>,
    pub digest: Digest,
    pub generation: Generation,
    pub object: Box<dyn BlobWriter>,
}

#[async_trait]
impl BlobWriter for LargeWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.object.write(data).await
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.object.commit().await?;
        self.parts.publish(&self.digest, self.generation).await.map(drop)
    }
}
