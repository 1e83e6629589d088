//! A blob store in memory, with the same limit and lease rules as the one on disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::range::{EmptyWriter, clip, slice};
use crate::blob::{Blob, BlobStore, BlobWriter, MAX_WHOLE_BLOB};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::PIN;

/// Pieces in which blobs above [`MAX_WHOLE_BLOB`] are handed out.
const CHUNK: u64 = 256 * 1024;

#[derive(Clone)]
pub struct MemoryBlobStore {
    inner: Arc<Mutex<Contents>>,
    clock: Clock,
    lease: u32,
    max_size: u64,
}

#[derive(Default)]
struct Contents {
    blobs: HashMap<Digest, StoredBlob>,
    used: u64,
}

struct StoredBlob {
    data: Bytes,
    accessed: u32,
    leased_until: u32,
}

impl MemoryBlobStore {
    /// Holds at most `max_size` bytes.
    pub fn new(max_size: u64, lease: Duration, clock: Clock) -> Self {
        let lease = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        Self { inner: Arc::default(), clock, lease, max_size }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises what is here for so many seconds, and returns what is not.
    fn promise(&self, digests: &[Digest], lease: u32) -> Vec<Digest> {
        let now = self.clock.now();
        let until = now.saturating_add(lease);
        let mut contents = self.lock();
        let mut missing = Vec::new();
        for digest in digests.iter().filter(|digest| !digest.is_empty_blob()) {
            match contents.blobs.get_mut(digest) {
                Some(entry) => entry.promise(now, until),
                None => missing.push(*digest),
            }
        }
        missing
    }

    fn store(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        let now = self.clock.now();
        let leased_until = now.saturating_add(self.lease);
        let mut contents = self.lock();
        if let Some(entry) = contents.blobs.get_mut(digest) {
            entry.promise(now, leased_until);
            return Ok(());
        }
        contents.make_room(digest.size, self.max_size, now)?;
        contents.used += digest.size;
        contents.blobs.insert(*digest, StoredBlob { data, accessed: now, leased_until });
        Ok(())
    }
}

impl StoredBlob {
    fn promise(&mut self, now: u32, until: u32) {
        self.accessed = now;
        self.leased_until = self.leased_until.max(until);
    }
}

impl Contents {
    fn make_room(&mut self, size: u64, limit: u64, now: u32) -> Result<(), StoreError> {
        while self.used + size > limit {
            let oldest = self
                .blobs
                .iter()
                .filter(|(_, entry)| entry.leased_until <= now)
                .min_by_key(|(_, entry)| entry.accessed)
                .map(|(digest, _)| *digest)
                .ok_or(StoreError::Full { used: self.used, limit, setting: "storage.max_size" })?;
            self.blobs.remove(&oldest);
            self.used -= oldest.size;
        }
        Ok(())
    }
}

impl Default for MemoryBlobStore {
    /// A store without a limit worth naming, and with the usual lease.
    fn default() -> Self {
        Self::new(u64::MAX / 2, crate::promises::DEFAULT_LEASE, Clock::system())
    }
}

#[async_trait]
impl BlobStore for MemoryBlobStore {
    async fn at_hand(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        self.read(digest, 0, None).await.ok()?.collect(limit).await.ok()
    }

    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let contents = self.lock();
        let known = |digest: &Digest| digest.is_empty_blob() || contents.blobs.contains_key(digest);
        Ok(digests.iter().filter(|digest| !known(digest)).copied().collect())
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        Ok(self.promise(digests, self.lease))
    }

    async fn pin(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        Ok(self.promise(digests, self.lease.saturating_add(PIN.as_secs() as u32)))
    }

    async fn unpin(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let until = self.clock.now().saturating_add(self.lease);
        let mut contents = self.lock();
        for digest in digests {
            if let Some(entry) = contents.blobs.get_mut(digest) {
                entry.leased_until = entry.leased_until.min(until);
            }
        }
        Ok(())
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        if digest.is_empty_blob() {
            return slice(&Bytes::new(), digest, offset, limit).map(Blob::Whole);
        }
        let data = {
            let mut contents = self.lock();
            let entry = contents.blobs.get_mut(digest).ok_or(StoreError::NotFound(*digest))?;
            entry.accessed = self.clock.now();
            entry.data.clone()
        };
        let range = clip(digest, offset, limit)?;
        if range.end - range.start <= MAX_WHOLE_BLOB {
            return slice(&data, digest, offset, limit).map(Blob::Whole);
        }
        let pieces = (range.start..range.end)
            .step_by(CHUNK as usize)
            .map(move |from| Ok(data.slice(from as usize..range.end.min(from + CHUNK) as usize)));
        Ok(Blob::Stream(Box::pin(futures_util::stream::iter(pieces))))
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        if digest.is_empty_blob() {
            return Ok(());
        }
        self.store(digest, data)
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        if digest.is_empty_blob() {
            return Ok(Box::new(EmptyWriter(*digest)));
        }
        let writer = MemoryWriter { store: self.clone(), digest: *digest, data: BytesMut::new() };
        Ok(Box::new(writer))
    }

    async fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct MemoryWriter {
    store: MemoryBlobStore,
    digest: Digest,
    data: BytesMut,
}

impl MemoryWriter {
    fn mismatch(&self, actual: u64) -> StoreError {
        StoreError::SizeMismatch { expected: self.digest, actual }
    }
}

#[async_trait]
impl BlobWriter for MemoryWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        let size = (self.data.len() + data.len()) as u64;
        if size > self.digest.size {
            return Err(self.mismatch(size));
        }
        self.data.extend_from_slice(&data);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        if self.data.len() as u64 != self.digest.size {
            return Err(self.mismatch(self.data.len() as u64));
        }
        self.store.store(&self.digest, self.data.freeze())
    }
}
