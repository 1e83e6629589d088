//! Segments of the history and chunks of event streams as pinned blobs of the store.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::pins::{Pin, Pins};
use kiln_cas::stores::Storage;
use kiln_cas::{Digest, DigestFunction, SharedBlobStore, StoreError};
use kiln_ci::model::Time;
use kiln_ci::services::Clock;
use kiln_ci::storage::{Segments, StorageError};

use super::errors::unavailable;

/// Blobs under names `HASH.SIZE.UNIQUE`: what two put alike is one blob with two pins.
pub struct PinnedSegments {
    blobs: SharedBlobStore,
    pins: Pins,
    kind: &'static str,
    clock: Arc<dyn Clock>,
}

impl PinnedSegments {
    /// Makes a store of segments whose pins are of this `kind`.
    pub fn new(storage: &Storage, kind: &'static str, clock: Arc<dyn Clock>) -> Self {
        let (blobs, pins) = (storage.blobs.clone(), storage.pins.clone());
        Self { blobs, pins, kind, clock }
    }

    fn pin(&self, name: &str) -> Result<Pin, StorageError> {
        parse(name, self.kind).ok_or_else(|| StorageError::NotFound(name.to_owned()))
    }
}

#[async_trait]
impl Segments for PinnedSegments {
    async fn put(&self, bytes: Bytes) -> Result<String, StorageError> {
        let digest = DigestFunction::Blake3.digest(&bytes);
        let pin = Pin {
            digest,
            kind: self.kind.to_owned(),
            name: Pin::fresh_name(),
            at: self.clock.now().0,
        };
        self.blobs.write(&digest, bytes).await.map_err(unavailable)?;
        self.pins.pin(&pin).await.map_err(unavailable)?;
        Ok(name(&pin))
    }

    async fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        let digest = self.pin(name)?.digest;
        let end = range.end.min(digest.size);
        if range.start >= end {
            return Ok(Bytes::new());
        }
        let length = end - range.start;
        let read = match self.blobs.read(&digest, range.start, Some(length)).await {
            Ok(blob) => blob.collect(length).await,
            Err(error) => Err(error),
        };
        read.map_err(|error| match error {
            StoreError::NotFound(_) => StorageError::NotFound(name.to_owned()),
            error => unavailable(error),
        })
    }

    async fn remove(&self, name: &str) -> Result<(), StorageError> {
        let Ok(pin) = self.pin(name) else { return Ok(()) };
        self.pins.unpin(&pin).await.map_err(unavailable)
    }

    async fn list(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Time)>, StorageError> {
        let after = after.map(|name| self.pin(name)).transpose()?;
        let found = self.pins.list(self.kind, after.as_ref(), limit).await.map_err(unavailable)?;
        Ok(found.iter().map(|pin| (name(pin), Time(pin.at))).collect())
    }
}

fn name(pin: &Pin) -> String {
    format!("{}.{}.{}", pin.digest.hex(), pin.digest.size, pin.name)
}

fn parse(name: &str, kind: &str) -> Option<Pin> {
    let mut parts = name.splitn(3, '.');
    let (hash, size, name) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    let digest = Digest::from_hex(hash.as_bytes(), size, DigestFunction::Blake3).ok()?;
    Some(Pin { digest, kind: kind.to_owned(), name: name.to_owned(), at: 0 })
}
