//! A read goes on at the remote store where the local copy breaks off.

use futures_util::StreamExt;
use kiln_net::causes::chain;

use crate::blob::{BlobStream, SharedBlobStore};
use crate::digest::Digest;

/// What is left of a range when its local copy turns out to be unreadable.
pub struct Rest {
    pub remote: SharedBlobStore,
    pub digest: Digest,
    pub offset: u64,
    pub limit: Option<u64>,
}

impl Rest {
    /// Streams `pieces` of the local copy; where they end with an error, the stream goes on with the bytes of the
    /// remote store from there.
    pub fn after(self, pieces: BlobStream) -> BlobStream {
        Box::pin(futures_util::stream::unfold((Some(self), pieces), |(rest, mut pieces)| async {
            let (piece, mut rest) = match (pieces.next().await?, rest) {
                (Err(error), Some(Rest { remote, digest, offset, limit })) => {
                    tracing::warn!(
                        %digest, error = %chain(&error),
                        "a local copy cannot be read to its end"
                    );
                    return match remote.read(&digest, offset, limit).await {
                        Ok(blob) => {
                            let mut pieces = blob.into_stream();
                            Some((pieces.next().await?, (None, pieces)))
                        }
                        Err(error) => Some((Err(error), (None, pieces))),
                    };
                }
                (piece, None) => return Some((piece, (None, pieces))),
                (Ok(piece), Some(rest)) => (piece, rest),
            };
            let came = piece.len() as u64;
            rest.offset += came;
            rest.limit = rest.limit.map(|limit| limit.saturating_sub(came));
            Some((Ok(piece), (Some(rest), pieces)))
        }))
    }
}
