//! Records that misbehave when a test says so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kiln_cas::records::{Record, Records, RecordsError, Version, Write};
use kiln_cas::stores::MemoryRecords;

/// Records that fail once: at the write of a number, before or after it is done.
#[derive(Default)]
pub struct Faulty {
    pub inner: Arc<MemoryRecords>,
    pub writes: AtomicUsize,
    pub fails: Mutex<Option<(usize, bool)>>,
    /// How many records of logs were read.
    pub reads: AtomicUsize,
    /// Whether others go on between a read and what follows from it.
    pub slow: AtomicBool,
    /// Whether the listing of the running rollouts panics.
    pub breaks: AtomicBool,
}

#[async_trait]
impl Records for Faulty {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        let found = self.inner.get(key).await;
        if self.slow.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        found
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        let fails = *self.fails.lock().unwrap();
        let broken =
            || RecordsError::Unavailable(kiln_cas::Reason::of(std::io::Error::other("cut")));
        match fails {
            Some((at, false)) if at == number => Err(broken()),
            Some((at, true)) if at == number => {
                self.inner.write(writes).await?;
                Err(broken())
            }
            _ => self.inner.write(writes).await,
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        let breaks = self.breaks.load(Ordering::SeqCst);
        assert!(!breaks || prefix != "rollouts/active/", "it breaks");
        let found = self.inner.list(prefix, after, reverse, limit).await?;
        if prefix.starts_with("rollouts/log/") {
            self.reads.fetch_add(found.len(), Ordering::SeqCst);
        }
        Ok(found)
    }
}
