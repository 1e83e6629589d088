//! The one trait for blobs. Every policy (verification, tiers, coalescing, metrics) is a
//! decorator around it.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;

/// Chunks of a blob in order.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// What a read returns: small blobs at once, large ones as they come from the medium.
pub enum Blob {
    Whole(Bytes),
    Stream(BlobStream),
}

/// Blobs larger than this are never held whole in memory by a store or a service.
pub const MAX_WHOLE_BLOB: u64 = 1 << 20;

/// A store of blobs by digest. Shared, cheap to clone behind `Arc`.
///
/// The empty blob is always present and never stored: implementations answer for it
/// without touching their medium.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Returns those of `digests` that are absent, in order. The others are promised: they survive
    /// at least the store's lease from now on.
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError>;

    /// The bytes from `offset` on, at most `limit` of them (`None`: to the end).
    /// Blobs of up to [`MAX_WHOLE_BLOB`] bytes come as [`Blob::Whole`].
    /// Errors: `NotFound`; `OutOfRange` when `offset` is beyond the end.
    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError>;

    /// Stores a blob that is in memory. Storing what is present is success.
    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError>;

    /// Begins to store a blob that arrives in pieces. Nothing is visible before `commit`.
    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError>;

    /// Begins to store a blob of at most `most` bytes whose digest shows once all of it has come. `None`: the store has to
    /// know the digest first.
    async fn naming_writer(
        &self,
        _function: DigestFunction,
        _most: u64,
    ) -> Result<Option<Box<dyn NamingWriter>>, StoreError> {
        Ok(None)
    }

    /// Returns when all writes acknowledged before this call survive a power cut.
    async fn sync(&self) -> Result<(), StoreError>;

    /// Returns those of `digests` that are absent. Promises nothing, and does not count as a use: eviction
    /// takes the blobs as if nobody had asked. A store that cannot tell returns an empty list.
    async fn absent(&self, _digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        Ok(Vec::new())
    }

    /// Promises those of `digests` that are present for [`PIN`](crate::promises::PIN) beyond a lease, so that
    /// they outlive whatever was promised to builds, and returns the absent ones in order. Only
    /// [`Pins`](crate::pins::Pins) asks for it, again and again.
    async fn pin(&self, _digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        Err(StoreError::invalid("this store pins nothing"))
    }

    /// Takes back the promise of [`BlobStore::pin`]: from now on the blobs are promised for about one lease.
    async fn unpin(&self, _digests: &[Digest]) -> Result<(), StoreError> {
        Err(StoreError::invalid("this store pins nothing"))
    }

    /// The bytes of a blob of at most `limit` bytes where this process has them at hand, without
    /// asking any other one.
    async fn at_hand(&self, _digest: &Digest, _limit: u64) -> Option<Bytes> {
        None
    }

    /// Creates `destination` as a hard link to the stored blob, with mode 0555, where the
    /// medium can; `false` where it cannot, and the caller copies.
    async fn link(&self, _digest: &Digest, _destination: &Path) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// An unfinished blob. Dropping it abandons the bytes.
#[async_trait]
pub trait BlobWriter: Send {
    /// Appends. Errors: `SizeMismatch` as soon as more bytes came than the digest says.
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError>;

    /// Makes the blob visible, whole and verified, or not at all.
    async fn commit(self: Box<Self>) -> Result<(), StoreError>;
}

/// An unfinished blob whose digest nobody knows yet. Dropping it abandons the bytes.
#[async_trait]
pub trait NamingWriter: Send {
    /// Appends. Where the store has no room, bytes are hashed all the same.
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError>;

    /// The digest of what came, and whether it is visible under it now, whole: `false` where there was no room.
    async fn finish(self: Box<Self>) -> Result<(Digest, bool), StoreError>;
}

pub type SharedBlobStore = Arc<dyn BlobStore>;

impl Blob {
    /// Collects all bytes. Errors: `TooLarge` when there are more than `limit`.
    pub async fn collect(self, limit: u64) -> Result<Bytes, StoreError> {
        use futures_util::StreamExt;
        let mut stream = match self {
            Self::Whole(data) if data.len() as u64 <= limit => return Ok(data),
            Self::Whole(data) => {
                return Err(StoreError::TooLarge { size: data.len() as u64, limit });
            }
            Self::Stream(stream) => stream,
        };
        let mut all = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            let size = (all.len() + chunk.len()) as u64;
            if size > limit {
                return Err(StoreError::TooLarge { size, limit });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }

    pub fn into_stream(self) -> BlobStream {
        match self {
            Self::Whole(data) => Box::pin(futures_util::stream::iter([Ok(data)])),
            Self::Stream(stream) => stream,
        }
    }
}
