//! Faults on demand, for tests of code that uses a store.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::blob::{Blob, BlobStore, BlobWriter};
use crate::digest::Digest;
use crate::error::StoreError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    FindMissing,
    Read,
    /// [`BlobStore::write`] and [`BlobStore::writer`].
    Write,
    /// [`BlobWriter::write`].
    Append,
    Commit,
    Sync,
    Link,
}

/// Which operations fail. Clones share it.
#[derive(Clone, Default)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    next: HashMap<Operation, VecDeque<StoreError>>,
    always: HashMap<Operation, StoreError>,
    counts: HashMap<Operation, u64>,
}

impl Faults {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next such operation that has no error yet fails with `error`.
    pub fn fail_next(&self, operation: Operation, error: StoreError) {
        self.plan().next.entry(operation).or_default().push_back(error);
    }

    /// Every such operation fails until [`Faults::heal`].
    pub fn fail_always(&self, operation: Operation, error: StoreError) {
        self.plan().always.insert(operation, error);
    }

    pub fn heal(&self) {
        let mut plan = self.plan();
        plan.next.clear();
        plan.always.clear();
    }

    /// How often the operation was asked for, failures included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.plan().counts.get(&operation).copied().unwrap_or(0)
    }

    fn check(&self, operation: Operation) -> Result<(), StoreError> {
        let mut plan = self.plan();
        *plan.counts.entry(operation).or_default() += 1;
        if let Some(error) = plan.next.get_mut(&operation).and_then(VecDeque::pop_front) {
            return Err(error);
        }
        plan.always.get(&operation).cloned().map_or(Ok(()), Err)
    }
}

/// A store that fails as its [`Faults`] say, before it does anything.
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S: BlobStore> Faulty<S> {
    pub fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for Faulty<S> {
    async fn at_hand(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        self.inner.at_hand(digest, limit).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.faults.check(Operation::FindMissing)?;
        self.inner.find_missing(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        self.faults.check(Operation::Read)?;
        self.inner.read(digest, offset, limit).await
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.faults.check(Operation::Write)?;
        self.inner.write(digest, data).await
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.faults.check(Operation::Write)?;
        let inner = self.inner.writer(digest).await?;
        Ok(Box::new(FaultyWriter { inner, faults: self.faults.clone() }))
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.faults.check(Operation::Sync)?;
        self.inner.sync().await
    }

    async fn pin(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.pin(digests).await
    }

    async fn unpin(&self, digests: &[Digest]) -> Result<(), StoreError> {
        self.inner.unpin(digests).await
    }

    async fn link(&self, digest: &Digest, destination: &Path) -> Result<bool, StoreError> {
        self.faults.check(Operation::Link)?;
        self.inner.link(digest, destination).await
    }
}

struct FaultyWriter {
    inner: Box<dyn BlobWriter>,
    faults: Faults,
}

#[async_trait]
impl BlobWriter for FaultyWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.faults.check(Operation::Append)?;
        self.inner.write(data).await
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.faults.check(Operation::Commit)?;
        self.inner.commit().await
    }
}
