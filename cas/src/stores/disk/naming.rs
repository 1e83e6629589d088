//! Blobs whose digest shows at their end: they are hashed and written in one go.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::contents::Contents;
use super::sizes::SMALL_BLOB;
use super::writer::LargeFile;
use crate::blob::NamingWriter;
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;
use crate::stores::hashing::StreamHasher;

pub struct DiskNamingWriter {
    contents: Arc<Contents>,
    /// Bytes that may come.
    most: u64,
    received: u64,
    hasher: StreamHasher,
    place: Place,
}

/// Where the bytes go.
enum Place {
    /// Nobody knows yet whether the blob is for the log or for a file.
    Gathered(BytesMut),
    File(LargeFile),
    /// There is no room: they are only hashed.
    Nowhere,
}

impl DiskNamingWriter {
    pub fn new(contents: Arc<Contents>, function: DigestFunction, most: u64) -> Self {
        let (hasher, place) = (StreamHasher::new(function), Place::Gathered(BytesMut::new()));
        Self { contents, most, received: 0, hasher, place }
    }

    async fn keep(&mut self, data: Bytes) -> Result<(), StoreError> {
        match &mut self.place {
            Place::Nowhere => Ok(()),
            Place::File(file) => file.push(data).await,
            Place::Gathered(gathered) => {
                gathered.extend_from_slice(&data);
                if gathered.len() as u64 <= SMALL_BLOB {
                    return Ok(());
                }
                let gathered = std::mem::take(gathered).freeze();
                let mut file = LargeFile::begin(self.contents.clone(), self.most)?;
                file.push(gathered).await?;
                self.place = Place::File(file);
                Ok(())
            }
        }
    }
}

/// Whether bytes were refused for want of room, of whatever kind.
fn is_full(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Full { .. } | StoreError::TooLarge { .. } | StoreError::DiskFull { .. }
    )
}

#[async_trait]
impl NamingWriter for DiskNamingWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.received += data.len() as u64;
        if self.received > self.most {
            return Err(StoreError::TooLarge { size: self.received, limit: self.most });
        }
        self.hasher.update(data.clone()).await?;
        let Err(error) = self.keep(data).await else { return Ok(()) };
        // What was written goes at once, so that others have its room. After any other error as well: a part of it is
        // never to be found under the digest of the whole.
        self.place = Place::Nowhere;
        if is_full(&error) { Ok(()) } else { Err(error) }
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, bool), StoreError> {
        let Self { contents, hasher, place, .. } = *self;
        let digest = hasher.finish().await?;
        let stored = match place {
            Place::Nowhere => return Ok((digest, false)),
            Place::Gathered(_) if digest.is_empty_blob() => Ok(()),
            Place::Gathered(gathered) => contents.put_small(&digest, &gathered).await,
            Place::File(file) => file.publish(digest).await,
        };
        match stored {
            Err(error) if is_full(&error) => Ok((digest, false)),
            stored => stored.map(|()| (digest, true)),
        }
    }
}
