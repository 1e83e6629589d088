//! Takes in bytes as they come, cut into pieces.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use kiln_cas::blob::SharedBlobStore;
use kiln_cas::{Digest, DigestFunction};

use super::error::{BrokenOff, RegistryError};
use crate::registry::uploads::PIECE;

/// Pieces of one body that are hashed and written at the same time.
const AT_ONCE: usize = 3;

/// The body of a request.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, BrokenOff>> + Send>>;

/// Counts the bytes that are arriving for all uploads of this process.
#[derive(Debug, Default)]
pub struct Arriving(AtomicU64);

/// How much of a body is taken.
pub struct Room {
    pub arriving: Arc<Arriving>,
    /// Bytes that may be arriving for all uploads together.
    pub all: u64,
    /// Bytes that may be arriving for this upload.
    pub own: u64,
    pub own_limit: u64,
}

/// Counts what has arrived of one body until it is dropped.
struct Counted {
    room: Room,
    bytes: u64,
}

impl Counted {
    fn add(&mut self, bytes: u64) -> Result<(), RegistryError> {
        // Counted first: what is counted here is taken off again when this is dropped.
        self.bytes += bytes;
        let before = self.room.arriving.0.fetch_add(bytes, Ordering::Relaxed);
        if self.room.own + self.bytes > self.room.own_limit {
            let limit = self.room.own_limit;
            return Err(RegistryError::TooLarge { what: "a blob", limit });
        }
        match before + bytes > self.room.all {
            true => Err(RegistryError::TooManyUploads),
            false => Ok(()),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.room.arriving.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Cutting {
    body: Body,
    /// What came and is in no piece yet.
    rest: Bytes,
    counted: Counted,
}

impl Cutting {
    /// The next piece; `None`: the body has ended.
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let mut piece = BytesMut::new();
        while piece.len() < PIECE {
            if self.rest.is_empty() {
                let Some(data) = self.body.next().await.transpose()? else { break };
                self.counted.add(data.len() as u64)?;
                self.rest = data;
            }
            // All at once: a buffer that grows is copied each time.
            piece.reserve(PIECE - piece.len());
            let size = self.rest.len().min(PIECE - piece.len());
            piece.extend_from_slice(&self.rest.split_to(size));
        }
        Ok((!piece.is_empty()).then(|| piece.freeze()))
    }
}

/// Stores a body as pieces.
pub async fn store_pieces(
    store: &SharedBlobStore,
    body: Body,
    room: Room,
) -> Result<Vec<Digest>, RegistryError> {
    let counted = Counted { room, bytes: 0 };
    let cutting = Cutting { body, rest: Bytes::new(), counted };
    let pieces = stream::try_unfold(cutting, |mut cutting| async {
        Ok::<_, RegistryError>(cutting.next().await?.map(|piece| (piece, cutting)))
    });
    let store = store.clone();
    let written = pieces.map_ok(move |piece| write_piece(store.clone(), piece));
    written.try_buffered(AT_ONCE).try_collect().await
}

async fn write_piece(store: SharedBlobStore, piece: Bytes) -> Result<Digest, RegistryError> {
    let digest = hash(piece.clone()).await?;
    store.write(&digest, piece).await?;
    Ok(digest)
}

/// Away from the thread that serves connections.
async fn hash(data: Bytes) -> Result<Digest, RegistryError> {
    let done = tokio::task::spawn_blocking(move || DigestFunction::Sha256.digest(&data)).await;
    done.map_err(|error| kiln_cas::StoreError::failed("hash a piece", error).into())
}

/// All of a body of exactly `size` bytes. `None`: it has more or fewer.
pub async fn collect(mut body: Body, size: usize) -> Result<Option<Bytes>, RegistryError> {
    let mut all = BytesMut::with_capacity(size);
    while let Some(data) = body.next().await.transpose()? {
        if all.len() + data.len() > size {
            return Ok(None);
        }
        all.extend_from_slice(&data);
    }
    Ok((all.len() == size).then(|| all.freeze()))
}
