//! Where the data of one upload goes: plain or decompressed, into a writer that outlives the
//! request when the request breaks off.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tonic::Status;

use super::uploads::{Partial, UploadKey, Uploads};
use crate::error::StoreError;
use crate::services::compression::{Decompressor, ZstdError};
use crate::services::status::store_status;

pub(super) struct Sink {
    uploads: Arc<Uploads>,
    key: UploadKey,
    /// `None`: finished or given up.
    partial: Option<Partial>,
    /// A write is under way: what the writer holds is not known.
    writing: bool,
    decompressor: Option<Decompressor>,
}

impl Sink {
    /// `window`: most bytes that decompression may look back.
    pub(super) fn new(
        uploads: Arc<Uploads>,
        key: UploadKey,
        partial: Partial,
        window: u64,
    ) -> Result<Self, Status> {
        let left = key.digest.size.saturating_sub(partial.committed);
        let decompressor = key.compressed.then(|| Decompressor::with_window(left, window));
        let decompressor = decompressor.transpose().map_err(|e| zstd(&e))?;
        Ok(Self { uploads, key, partial: Some(partial), writing: false, decompressor })
    }

    /// (Uncompressed) bytes that are there.
    pub(super) fn committed(&self) -> u64 {
        self.partial.as_ref().map_or(0, |partial| partial.committed)
    }

    /// On an error what was written is given up.
    pub(super) async fn write(&mut self, mut data: Bytes) -> Result<(), Status> {
        if self.decompressor.is_none() {
            return self.put(data).await;
        }
        while let Some(piece) = self.decompress(&mut data)? {
            self.put(piece).await?;
        }
        Ok(())
    }

    fn decompress(&mut self, data: &mut Bytes) -> Result<Option<Bytes>, Status> {
        let Some(decompressor) = &mut self.decompressor else { return Ok(None) };
        let piece = decompressor.step(data);
        piece.map_err(|error| {
            self.partial = None;
            zstd(&error)
        })
    }

    async fn put(&mut self, data: Bytes) -> Result<(), Status> {
        let Some(partial) = &mut self.partial else {
            return Err(Status::internal("data: the upload was given up"));
        };
        if data.is_empty() {
            return Ok(());
        }
        let committed = partial.committed + data.len() as u64;
        let expected = self.key.digest;
        let result = if committed > expected.size {
            Err(StoreError::SizeMismatch { expected, actual: committed })
        } else {
            self.writing = true;
            let result = partial.writer.write(data).await;
            self.writing = false;
            result
        };
        if let Err(error) = result {
            self.partial = None;
            return Err(store_status("data", &error));
        }
        partial.committed = committed;
        Ok(())
    }

    /// Makes the blob visible.
    pub(super) async fn commit(mut self) -> Result<(), Status> {
        let Some(partial) = self.partial.take() else {
            return Err(Status::internal("data: the upload was given up"));
        };
        if let Some(decompressor) = &self.decompressor {
            decompressor.finish().map_err(|e| zstd(&e))?;
        }
        let expected = self.key.digest;
        if partial.committed != expected.size {
            let error = StoreError::SizeMismatch { expected, actual: partial.committed };
            return Err(store_status("data", &error));
        }
        partial.writer.commit().await.map_err(|error| store_status("data", &error))
    }
}

/// Also runs when the client disappears and the request is dropped at an await.
impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(partial) = self.partial.take()
            && !self.writing
            && partial.committed > 0
        {
            self.uploads.keep(self.key.clone(), partial, Instant::now());
        }
    }
}

fn zstd(error: &ZstdError) -> Status {
    Status::invalid_argument(format!("data: {error}"))
}
