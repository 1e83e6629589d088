//! An index that counts its calls, and objects that fail and pause on demand.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::blob::{BlobStore, BlobStream, BlobWriter};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::Run;
use crate::stores::indexed::*;

pub const LEASE: Duration = Duration::from_secs(3600);
/// Seconds after which all that was promised once, and remembered generously, has lapsed.
pub const LAPSE: u32 = 2 * 3600;

pub struct Rig {
    pub clock: Clock,
    pub index: Arc<Counting>,
    pub objects: Arc<Fragile>,
}

impl Rig {
    pub fn new() -> Self {
        let clock = Clock::manual(1_000_000);
        let index = Arc::new(Counting::new(MemoryIndex::new(clock.clone())));
        let objects = Arc::new(Fragile::new(MemoryObjects::new(clock.clone())));
        Self { clock, index, objects }
    }

    pub fn options(&self) -> IndexedOptions {
        IndexedOptions { lease: LEASE, clock: self.clock.clone(), ..IndexedOptions::default() }
    }

    /// One more process of the fleet.
    pub async fn process(&self) -> Indexed {
        self.process_with(self.options()).await
    }

    pub async fn process_with(&self, options: IndexedOptions) -> Indexed {
        Indexed::open(self.index.clone(), self.objects.clone(), options).await
    }

    /// Opens one more process of the fleet, which reaches the same objects through `objects`.
    pub async fn process_on(&self, objects: &Arc<Fragile>) -> Indexed {
        Indexed::open(self.index.clone(), objects.clone(), self.options()).await
    }

    pub async fn place(&self, digest: &Digest) -> Option<Place> {
        let found = self.index.inner.find(&[*digest], Duration::ZERO).await.unwrap();
        found[0].map(|entry| entry.place)
    }
}

pub async fn read(store: &Indexed, digest: &Digest) -> Result<Bytes, StoreError> {
    store.read(digest, 0, None).await?.collect(u64::MAX).await
}

pub struct Counting {
    pub inner: MemoryIndex,
    pub calls: AtomicU64,
    pub failures: AtomicU64,
}

impl Counting {
    fn new(inner: MemoryIndex) -> Self {
        Self { inner, calls: AtomicU64::new(0), failures: AtomicU64::new(1) }
    }

    /// Calls since this was last asked.
    pub fn calls(&self) -> u64 {
        self.calls.swap(0, Ordering::Relaxed)
    }

    async fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // A round trip to Redis would let other tasks run here, too.
        tokio::task::yield_now().await;
    }
}

#[async_trait]
impl BlobIndex for Counting {
    fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    async fn find(
        &self,
        digests: &[Digest],
        lease: Duration,
    ) -> Result<Vec<Option<IndexEntry>>, StoreError> {
        self.count().await;
        self.inner.find(digests, lease).await
    }

    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.count().await;
        self.inner.absent(digests).await
    }

    async fn shorten(&self, digests: &[Digest], lease: Duration) -> Result<(), StoreError> {
        self.count().await;
        self.inner.shorten(digests, lease).await
    }

    async fn small(&self, digests: &[Digest]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.count().await;
        self.inner.small(digests).await
    }

    async fn put_small(
        &self,
        blobs: &[(Digest, Bytes)],
        lease: Duration,
    ) -> Result<(), StoreError> {
        self.count().await;
        self.inner.put_small(blobs, lease).await
    }

    async fn place(
        &self,
        digest: &Digest,
        generation: Generation,
        lease: Duration,
    ) -> Result<Generation, StoreError> {
        self.inner.place(digest, generation, lease).await
    }

    async fn place_all(
        &self,
        blobs: &[(Digest, Generation)],
        lease: Duration,
    ) -> Result<Vec<Generation>, StoreError> {
        self.count().await;
        self.inner.place_all(blobs, lease).await
    }

    async fn forget(&self, digest: &Digest, place: Place) -> Result<bool, StoreError> {
        self.count().await;
        self.inner.forget(digest, place).await
    }

    async fn take_pending(
        &self,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<(Digest, Bytes)>, StoreError> {
        self.count().await;
        self.inner.take_pending(age, limit).await
    }

    async fn usage(&self) -> Result<IndexUsage, StoreError> {
        self.count().await;
        self.inner.usage().await
    }

    async fn scan(&self, from: Option<u64>) -> Result<(Vec<Candidate>, Option<u64>), StoreError> {
        self.count().await;
        self.inner.scan(from).await
    }

    async fn evict_until(
        &self,
        blobs: &[(Digest, Generation)],
        ends: u32,
    ) -> Result<Vec<bool>, StoreError> {
        self.count().await;
        self.inner.evict_until(blobs, ends).await
    }

    async fn report_runs(&self, runs: &[Run]) -> Result<Runs, StoreError> {
        self.count().await;
        self.inner.report_runs(runs).await
    }

    async fn epoch(&self) -> Result<u64, StoreError> {
        self.count().await;
        self.inner.epoch().await
    }

    async fn claim_collection(&self, owner: &str, hold: Duration) -> Result<bool, StoreError> {
        self.count().await;
        self.inner.claim_collection(owner, hold).await
    }
}

pub struct Fragile {
    pub inner: MemoryObjects,
    down: AtomicBool,
    /// Bytes by which reads are too short.
    pub short: AtomicU64,
    pub lookups: AtomicU64,
    /// The gate at which deletions wait, if a test has set one.
    gate: Mutex<Option<Arc<Gate>>>,
}

pub struct Gate {
    pub reached: Semaphore,
    pub open: Semaphore,
}

impl Fragile {
    pub fn new(inner: MemoryObjects) -> Self {
        let (down, gate) = (AtomicBool::new(false), Mutex::default());
        Self { inner, down, short: AtomicU64::new(0), lookups: AtomicU64::new(0), gate }
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// From now on deletions pause.
    pub fn pause_deletions(&self) -> Arc<Gate> {
        let gate = Arc::new(Gate { reached: Semaphore::new(0), open: Semaphore::new(0) });
        *self.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.down.load(Ordering::Relaxed) {
            true => Err(StoreError::unavailable("the object store is down")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Objects for Fragile {
    async fn put(
        &self,
        digest: &Digest,
        generation: Generation,
        data: Bytes,
    ) -> Result<(), StoreError> {
        self.check()?;
        self.inner.put(digest, generation, data).await
    }

    async fn writer(
        &self,
        digest: &Digest,
        generation: Generation,
    ) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.check()?;
        self.inner.writer(digest, generation).await
    }

    async fn read(
        &self,
        digest: &Digest,
        generation: Generation,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<BlobStream, StoreError> {
        self.check()?;
        let short = self.short.load(Ordering::Relaxed);
        let limit = limit.map_or(digest.size, |limit| limit.min(digest.size)).saturating_sub(short);
        self.inner.read(digest, generation, offset, Some(limit)).await
    }

    async fn copy(
        &self,
        digest: &Digest,
        from: Generation,
        to: Generation,
    ) -> Result<(), StoreError> {
        self.check()?;
        self.inner.copy(digest, from, to).await
    }

    async fn delete(&self, objects: &[(Digest, Generation)]) -> Result<(), StoreError> {
        self.check()?;
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.reached.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
        }
        self.inner.delete(objects).await
    }

    async fn generations(&self, digest: &Digest) -> Result<Vec<Generation>, StoreError> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        self.check()?;
        self.inner.generations(digest).await
    }

    async fn list(
        &self,
        after: Option<String>,
    ) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        self.check()?;
        self.inner.list(after).await
    }

    async fn now(&self) -> Result<u64, StoreError> {
        self.check()?;
        self.inner.now().await
    }

    async fn mark(&self) -> Result<Option<u64>, StoreError> {
        self.check()?;
        self.inner.mark().await
    }

    async fn set_mark(&self, epoch: u64) -> Result<(), StoreError> {
        self.check()?;
        self.inner.set_mark(epoch).await
    }

    async fn sweep(&self, before: u64) -> Result<u64, StoreError> {
        self.check()?;
        self.inner.sweep(before).await
    }
}
