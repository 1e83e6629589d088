//! What every store answers in the same way: ranges, and the empty blob.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::blob::BlobWriter;
use crate::digest::Digest;
use crate::error::StoreError;

/// The bytes of a blob that a read with `offset` and `limit` asks for.
pub fn clip(digest: &Digest, offset: u64, limit: Option<u64>) -> Result<Range<u64>, StoreError> {
    if offset > digest.size {
        return Err(StoreError::OutOfRange { digest: *digest, offset });
    }
    let rest = digest.size - offset;
    Ok(offset..offset + limit.map_or(rest, |limit| limit.min(rest)))
}

/// The part of a whole blob in memory that a read asks for.
pub fn slice(
    data: &Bytes,
    digest: &Digest,
    offset: u64,
    limit: Option<u64>,
) -> Result<Bytes, StoreError> {
    let range = clip(digest, offset, limit)?;
    Ok(data.slice(range.start as usize..range.end as usize))
}

/// Receives the empty blob: takes nothing, stores nothing.
pub struct EmptyWriter(pub Digest);

#[async_trait]
impl BlobWriter for EmptyWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        match data.len() as u64 {
            0 => Ok(()),
            actual => Err(StoreError::SizeMismatch { expected: self.0, actual }),
        }
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}
