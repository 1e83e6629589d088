//! Checks whole blobs against their digests while they are read from another store: their bytes may have been
//! damaged there or on the way.

use bytes::Bytes;
use futures_util::StreamExt;

use super::hashing::StreamHasher;
use crate::blob::{Blob, BlobStream};
use crate::digest::Digest;
use crate::error::StoreError;

/// Whether an error says that bytes came which are not the blob's.
pub fn is_damage(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::DigestMismatch { .. }
            | StoreError::SizeMismatch { .. }
            | StoreError::Corrupt(_)
    )
}

/// A blob that is read from its first byte to its last, checked: at once where it came whole,
/// before the last piece of a stream else. Errors: `Corrupt`.
pub fn checked(digest: &Digest, blob: Blob) -> Result<Blob, StoreError> {
    match blob {
        Blob::Whole(data) if digest.function.digest(&data) == *digest => Ok(Blob::Whole(data)),
        Blob::Whole(data) => Err(damaged(digest, &digest.function.digest(&data))),
        Blob::Stream(pieces) => Ok(Blob::Stream(checked_stream(*digest, pieces))),
    }
}

fn damaged(expected: &Digest, actual: &Digest) -> StoreError {
    StoreError::corrupt(format!("the bytes of blob {expected} came as {actual}"))
}

struct Checking {
    digest: Digest,
    pieces: BlobStream,
    hasher: StreamHasher,
    received: u64,
    /// Held back until it is known whether it may follow.
    held: Option<Bytes>,
}

fn checked_stream(digest: Digest, pieces: BlobStream) -> BlobStream {
    let hasher = StreamHasher::new(digest.function);
    let checking = Checking { digest, pieces, hasher, received: 0, held: None };
    Box::pin(futures_util::stream::unfold(Some(checking), |checking| async {
        let mut checking = checking?;
        match checking.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(checking))),
            Ok(None) => match checking.finish().await {
                Ok(last) => last.map(|last| (Ok(last), None)),
                Err(error) => Some((Err(error), None)),
            },
            Err(error) => Some((Err(error), None)),
        }
    }))
}

impl Checking {
    /// The piece before the one that comes next; `None`: nothing comes any more.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while let Some(piece) = self.pieces.next().await {
            let piece = piece?;
            self.received += piece.len() as u64;
            self.hasher.update(piece.clone()).await?;
            if let Some(before) = self.held.replace(piece) {
                return Ok(Some(before));
            }
        }
        Ok(None)
    }

    async fn finish(self) -> Result<Option<Bytes>, StoreError> {
        let actual = self.hasher.finish().await?;
        if actual != self.digest || self.received != self.digest.size {
            return Err(damaged(&self.digest, &actual));
        }
        Ok(self.held)
    }
}
