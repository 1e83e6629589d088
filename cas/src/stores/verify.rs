//! Verification: a blob lands under its digest only if its bytes hash to it.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;

use super::hashing::{StreamHasher, hash};
use super::range::EmptyWriter;
use crate::blob::{Blob, BlobStore, BlobWriter, NamingWriter};
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;

/// Hashes everything that is written. Reads pass through.
pub struct Verified<S> {
    inner: S,
}

impl<S: BlobStore> Verified<S> {
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for Verified<S> {
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
        let actual = data.len() as u64;
        if actual != digest.size {
            return Err(StoreError::SizeMismatch { expected: *digest, actual });
        }
        check(digest, hash(digest.function, &data).await?)?;
        if digest.is_empty_blob() {
            return Ok(());
        }
        self.inner.write(digest, data).await
    }

    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.absent(digests).await
    }

    async fn at_hand(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        self.inner.at_hand(digest, limit).await
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        let inner: Box<dyn BlobWriter> = if digest.size == 0 {
            Box::new(EmptyWriter(*digest))
        } else {
            self.inner.writer(digest).await?
        };
        Ok(Box::new(VerifyingWriter {
            inner,
            expected: *digest,
            received: 0,
            hasher: StreamHasher::new(digest.function),
        }))
    }

    /// The store hashes these itself: their digest comes from their bytes.
    async fn naming_writer(
        &self,
        function: DigestFunction,
        most: u64,
    ) -> Result<Option<Box<dyn NamingWriter>>, StoreError> {
        self.inner.naming_writer(function, most).await
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

    async fn link(&self, digest: &Digest, destination: &Path) -> Result<bool, StoreError> {
        self.inner.link(digest, destination).await
    }
}

struct VerifyingWriter {
    inner: Box<dyn BlobWriter>,
    expected: Digest,
    received: u64,
    hasher: StreamHasher,
}

#[async_trait]
impl BlobWriter for VerifyingWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.received += data.len() as u64;
        if self.received > self.expected.size {
            return Err(StoreError::SizeMismatch {
                expected: self.expected,
                actual: self.received,
            });
        }
        self.hasher.update(data.clone()).await?;
        self.inner.write(data).await
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        if self.received != self.expected.size {
            return Err(StoreError::SizeMismatch {
                expected: self.expected,
                actual: self.received,
            });
        }
        check(&self.expected, self.hasher.finish().await?)?;
        self.inner.commit().await
    }
}

fn check(expected: &Digest, actual: Digest) -> Result<(), StoreError> {
    if actual == *expected {
        return Ok(());
    }
    Err(StoreError::DigestMismatch { expected: *expected, actual })
}
