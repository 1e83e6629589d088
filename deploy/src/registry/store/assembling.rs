//! Turns what was sent into a blob that is verified.

use bytes::Bytes;
use futures_util::StreamExt;
use kiln_cas::blob::{BlobWriter, SharedBlobStore};
use kiln_cas::{Digest, DigestFunction, StoreError};

use super::body::{Body, Room, collect, store_pieces};
use super::error::RegistryError;
use super::registry::Registry;
use crate::oci::{Algorithm, ContentDigest};
use crate::registry::uploads::PIECE;

impl Registry {
    /// Stores what comes as pieces. `own`: bytes that the same upload has already.
    pub(super) async fn take_pieces(
        &self,
        store: &SharedBlobStore,
        body: Body,
        own: u64,
    ) -> Result<Vec<Digest>, RegistryError> {
        let room = Room {
            arriving: self.arriving.clone(),
            all: self.parts.uploads.bytes,
            own,
            own_limit: self.parts.max_blob_size,
        };
        store_pieces(store, body, room).await
    }

    /// Makes one blob of pieces. Errors: `OtherBytes`; `NoUpload` where a piece is gone.
    pub(super) async fn assemble(
        &self,
        store: &SharedBlobStore,
        digest: &ContentDigest,
        pieces: &[Digest],
    ) -> Result<Digest, RegistryError> {
        // What waited for long is promised anew before it is needed.
        for some in pieces.chunks(1000) {
            if !self.parts.blobs.find_missing(some).await?.is_empty() {
                return Err(RegistryError::NoUpload);
            }
        }
        let other = || RegistryError::OtherBytes(digest.clone());
        let size = pieces.iter().map(|piece| piece.size).sum();
        let content = match digest.algorithm() {
            Algorithm::Sha256 => super::model::content(digest.hex(), size).map_err(|_| other())?,
            Algorithm::Sha512 => self.hashed(digest, pieces).await?,
        };
        match pieces {
            [] => {}
            [piece] if *piece == content => {}
            [piece] => {
                let data = self.piece(piece).await?;
                store.write(&content, data).await.map_err(|error| mismatch(error, digest))?;
            }
            pieces => {
                let mut writer = store.writer(&content).await?;
                for piece in pieces {
                    let data = self.piece(piece).await?;
                    writer.write(data).await.map_err(|error| mismatch(error, digest))?;
                }
                writer.commit().await.map_err(|error| mismatch(error, digest))?;
            }
        }
        Ok(content)
    }

    async fn piece(&self, piece: &Digest) -> Result<Bytes, RegistryError> {
        let read = self.parts.blobs.read(piece, 0, None).await;
        let blob = read.map_err(|error| match error {
            StoreError::NotFound(_) => RegistryError::NoUpload,
            error => error.into(),
        })?;
        Ok(blob.collect(PIECE as u64).await?)
    }

    /// What the store calls bytes that a client names by SHA-512.
    async fn hashed(
        &self,
        digest: &ContentDigest,
        pieces: &[Digest],
    ) -> Result<Digest, RegistryError> {
        let mut state = (digest.algorithm().hashing(), DigestFunction::Sha256.hasher());
        for piece in pieces {
            let data = self.piece(piece).await?;
            let hashed = tokio::task::spawn_blocking(move || {
                state.0.update(&data);
                state.1.update(&data);
                state
            });
            state = hashed.await.map_err(|error| StoreError::failed("hash a piece", error))?;
        }
        match state.0.finish() == *digest {
            true => Ok(state.1.finish()),
            false => Err(RegistryError::OtherBytes(digest.clone())),
        }
    }
}

/// Stores a blob whose name in the store is known before it comes.
pub async fn write_known(
    store: &SharedBlobStore,
    digest: &ContentDigest,
    content: &Digest,
    mut body: Body,
) -> Result<(), RegistryError> {
    if content.size <= PIECE as u64 {
        let data = collect(body, content.size as usize).await?;
        let data = data.ok_or_else(|| RegistryError::OtherBytes(digest.clone()))?;
        return store.write(content, data).await.map_err(|error| mismatch(error, digest));
    }
    let mut writer: Box<dyn BlobWriter> = store.writer(content).await?;
    while let Some(data) = body.next().await.transpose()? {
        writer.write(data).await.map_err(|error| mismatch(error, digest))?;
    }
    writer.commit().await.map_err(|error| mismatch(error, digest))
}

fn mismatch(error: StoreError, digest: &ContentDigest) -> RegistryError {
    match error {
        StoreError::DigestMismatch { .. } | StoreError::SizeMismatch { .. } => {
            RegistryError::OtherBytes(digest.clone())
        }
        error => error.into(),
    }
}
