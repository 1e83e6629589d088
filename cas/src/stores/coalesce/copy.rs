//! Copying a blob from one store to another.

use futures_util::StreamExt;
use kiln_net::causes::chain;

use crate::blob::{Blob, BlobStore};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::checked::is_damage;

/// How often bytes that are not the blob's are fetched again.
pub const DAMAGED_FETCHES: u32 = 3;

/// Which side failed.
pub enum CopyError {
    Local(StoreError),
    Remote(StoreError),
}

/// Copies a blob; what came damaged is fetched again.
pub async fn copy(
    from: &dyn BlobStore,
    to: &dyn BlobStore,
    digest: &Digest,
) -> Result<(), CopyError> {
    let mut attempt = 1;
    loop {
        match copy_once(from, to, digest).await {
            Err(CopyError::Local(error) | CopyError::Remote(error)) if is_damage(&error) => {
                tracing::warn!(
                    %digest, error = %chain(&error), attempt,
                    "a blob came damaged from its store"
                );
                if attempt == DAMAGED_FETCHES {
                    let message = format!("blob {digest}, {attempt} times in a row: {error}");
                    return Err(CopyError::Remote(StoreError::corrupt(message)));
                }
                attempt += 1;
            }
            result => return result,
        }
    }
}

async fn copy_once(
    from: &dyn BlobStore,
    to: &dyn BlobStore,
    digest: &Digest,
) -> Result<(), CopyError> {
    match from.read(digest, 0, None).await.map_err(CopyError::Remote)? {
        Blob::Whole(data) => to.write(digest, data).await.map_err(CopyError::Local),
        Blob::Stream(mut pieces) => {
            let mut writer = to.writer(digest).await.map_err(CopyError::Local)?;
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(CopyError::Remote)?;
                writer.write(piece).await.map_err(CopyError::Local)?;
            }
            writer.commit().await.map_err(CopyError::Local)
        }
    }
}
