//! An object store in memory: for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::index::Generation;
use super::objects::{Listed, Objects, copy_through};
use crate::blob::{BlobStream, BlobWriter};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::range::slice;

/// Pieces of a read.
const CHUNK: usize = 256 * 1024;
/// Objects of a page of a listing.
const PAGE: usize = 1000;

/// Clones share it.
#[derive(Clone)]
pub struct MemoryObjects {
    state: Arc<Mutex<StoredObjects>>,
    clock: Clock,
}

#[derive(Default)]
struct StoredObjects {
    objects: BTreeMap<String, (Listed, Bytes)>,
    mark: Option<u64>,
}

impl MemoryObjects {
    pub fn new(clock: Clock) -> Self {
        Self { state: Arc::default(), clock }
    }

    /// Digests and generations of all objects.
    pub fn names(&self) -> Vec<(Digest, Generation)> {
        let state = self.state();
        state.objects.values().map(|(listed, _)| (listed.digest, listed.generation)).collect()
    }

    fn state(&self) -> MutexGuard<'_, StoredObjects> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(digest: &Digest, generation: Generation) -> String {
    format!("{digest}-{:016x}", generation.0)
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn put(
        &self,
        digest: &Digest,
        generation: Generation,
        data: Bytes,
    ) -> Result<(), StoreError> {
        if data.len() as u64 != digest.size {
            let actual = data.len() as u64;
            return Err(StoreError::SizeMismatch { expected: *digest, actual });
        }
        let listed = Listed { digest: *digest, generation, modified: self.clock.now().into() };
        self.state().objects.insert(key(digest, generation), (listed, data));
        Ok(())
    }

    async fn writer(
        &self,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Box<dyn BlobWriter>, StoreError> {
        let (objects, data) = (self.clone(), BytesMut::new());
        Ok(Box::new(Writer { objects, digest: *digest, generation, data }))
    }

    async fn read(
        &self,
        digest: &Digest,
        generation: Generation,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<BlobStream, StoreError> {
        let data = match self.state().objects.get(&key(digest, generation)) {
            Some((_, data)) => slice(data, digest, offset, limit)?,
            None => return Err(StoreError::NotFound(*digest)),
        };
        let pieces = (0..data.len())
            .step_by(CHUNK)
            .map(move |from| Ok(data.slice(from..data.len().min(from + CHUNK))));
        Ok(Box::pin(futures_util::stream::iter(pieces)))
    }

    async fn copy(
        &self,
        digest: &Digest,
        from: Generation,
        to: Generation,
    ) -> Result<(), StoreError> {
        copy_through(self, digest, from, to).await
    }

    async fn delete(&self, objects: &[(Digest, Generation)]) -> Result<(), StoreError> {
        let mut state = self.state();
        for (digest, generation) in objects {
            state.objects.remove(&key(digest, *generation));
        }
        Ok(())
    }

    async fn generations(&self, digest: &Digest) -> Result<Vec<Generation>, StoreError> {
        let state = self.state();
        let listed = state.objects.values().map(|(listed, _)| listed);
        let same = listed.filter(|listed| listed.digest == *digest);
        Ok(same.map(|listed| listed.generation).collect())
    }

    async fn list(
        &self,
        after: Option<String>,
    ) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.state();
        let mut rest = state.objects.range((after.map_or(Unbounded, Excluded), Unbounded));
        let page: Vec<_> = rest.by_ref().take(PAGE).collect();
        let last = page.last().map(|(key, _)| (*key).clone());
        let listed = page.iter().map(|(_, (listed, _))| *listed).collect();
        Ok((listed, last.filter(|_| rest.next().is_some())))
    }

    async fn now(&self) -> Result<u64, StoreError> {
        Ok(self.clock.now().into())
    }

    async fn mark(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.state().mark)
    }

    async fn set_mark(&self, epoch: u64) -> Result<(), StoreError> {
        self.state().mark = Some(epoch);
        Ok(())
    }

    async fn sweep(&self, _: u64) -> Result<u64, StoreError> {
        Ok(0)
    }
}

struct Writer {
    objects: MemoryObjects,
    digest: Digest,
    generation: Generation,
    data: BytesMut,
}

#[async_trait]
impl BlobWriter for Writer {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.data.extend_from_slice(&data);
        match self.data.len() as u64 {
            actual if actual > self.digest.size => {
                Err(StoreError::SizeMismatch { expected: self.digest, actual })
            }
            _ => Ok(()),
        }
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.objects.put(&self.digest, self.generation, self.data.freeze()).await
    }
}
