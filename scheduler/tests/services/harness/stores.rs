//! Stores that note in which order what happens, and may be slow or at fault.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::stores::{MemoryActionCache, MemoryBlobStore};
use kiln_cas::{ActionCache, ActionKey, Blob, BlobStore, BlobWriter, Digest, StoreError};

/// Notes in which order blobs were made durable and results published.
pub struct Recorded<T> {
    inner: T,
    notes: Arc<Mutex<Vec<&'static str>>>,
    delay: Mutex<Duration>,
    is_at_fault: AtomicBool,
    failover: Mutex<Failover>,
}

/// When Redis fails over, to a replica that lacks the last writes.
#[derive(Default)]
pub enum Failover {
    #[default]
    Never,
    /// The next result is put at the new master.
    BeforePut,
    /// The next result is lost, right after whoever put it saw that nothing has failed.
    AfterPut,
    /// The result of this action is lost as soon as somebody looks for it.
    Due(ActionKey),
    /// No failover happens, but whoever looks for failures after so many looks panics.
    FaultAfterLooks(u32),
}

impl<T> Recorded<T> {
    pub fn new(inner: T, notes: &Arc<Mutex<Vec<&'static str>>>) -> Arc<Self> {
        let (delay, is_at_fault) = (Mutex::default(), AtomicBool::new(false));
        let failover = Mutex::default();
        Arc::new(Self { inner, notes: notes.clone(), delay, is_at_fault, failover })
    }

    pub fn fail_over(&self, when: Failover) {
        *self.failover.lock().unwrap() = when;
    }

    /// Makes every read and sync panic from now on, or no more.
    pub fn is_at_fault(&self, is_at_fault: bool) {
        self.is_at_fault.store(is_at_fault, Ordering::Relaxed);
    }

    async fn waits(&self) {
        let delay = *self.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        assert!(!self.is_at_fault.load(Ordering::Relaxed), "a fault that a test wants");
    }

    /// Makes every read and sync take so long from now on.
    pub fn delay(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }
}

#[async_trait]
impl BlobStore for Recorded<MemoryBlobStore> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.find_missing(digests).await
    }
    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        self.waits().await;
        self.inner.read(digest, offset, limit).await
    }
    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(digest, data).await
    }
    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.inner.writer(digest).await
    }
    async fn sync(&self) -> Result<(), StoreError> {
        self.notes.lock().unwrap().push("sync");
        self.waits().await;
        self.inner.sync().await
    }
}

#[async_trait]
impl ActionCache for Recorded<MemoryActionCache> {
    async fn get(&self, key: &ActionKey) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key).await
    }
    async fn put(&self, key: &ActionKey, result: Bytes) -> Result<(), StoreError> {
        self.notes.lock().unwrap().push("put");
        {
            let mut failover = self.failover.lock().unwrap();
            *failover = match std::mem::take(&mut *failover) {
                Failover::BeforePut => {
                    self.inner.fail_over(&[]);
                    Failover::Never
                }
                Failover::AfterPut => Failover::Due(key.clone()),
                other => other,
            };
        }
        self.inner.put(key, result).await
    }
    fn failures(&self) -> u64 {
        let failures = self.inner.failures();
        let mut failover = self.failover.lock().unwrap();
        let mut is_at_fault = false;
        *failover = match std::mem::take(&mut *failover) {
            Failover::Due(key) => {
                self.inner.fail_over(&[key]);
                Failover::Never
            }
            Failover::FaultAfterLooks(0) => {
                is_at_fault = true;
                Failover::Never
            }
            Failover::FaultAfterLooks(more) => Failover::FaultAfterLooks(more - 1),
            other => other,
        };
        drop(failover);
        assert!(!is_at_fault, "a fault that a test wants");
        failures
    }
}
