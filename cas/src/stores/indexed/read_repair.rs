//! Read repair: a reader asks for a blob that the index does not know, and the object store has it
//! all the same. The index was lost, or a process ended between writing an object and placing it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::index::Generation;
use super::objects::Objects;
use super::uploads::Uploads;
use crate::digest::Digest;
use crate::error::StoreError;

/// Blobs that are looked for in the object store at the same time.
const LOOKS: usize = 16;
/// How long a blob that is not there either is not looked for again...
const ABSENT_FOR: Duration = Duration::from_secs(10);
/// ...and how many such blobs are remembered.
const MOST_ABSENT: usize = 10_000;

pub struct ReadRepair {
    objects: Arc<dyn Objects>,
    uploads: Arc<Uploads>,
    looks: Semaphore,
    absent: Mutex<HashMap<Digest, Instant>>,
    repaired: AtomicU64,
}

impl ReadRepair {
    pub fn new(objects: Arc<dyn Objects>, uploads: Arc<Uploads>) -> Self {
        let (looks, absent) = (Semaphore::new(LOOKS), Mutex::default());
        Self { objects, uploads, looks, absent, repaired: AtomicU64::new(0) }
    }

    fn absent(&self) -> MutexGuard<'_, HashMap<Digest, Instant>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blobs that were found and placed again.
    pub fn repaired(&self) -> u64 {
        self.repaired.load(Ordering::Relaxed)
    }

    /// Looks for the blob in the object store and places it again, as a copy: whoever deletes
    /// garbage may have chosen the object that was found. `None`: it is not there.
    pub async fn find(&self, digest: &Digest) -> Result<Option<Generation>, StoreError> {
        if self.is_absent(digest) {
            return Ok(None);
        }
        let closed = |_| StoreError::unavailable("the store is closed");
        let _look = self.looks.acquire().await.map_err(closed)?;
        // Whoever looked before this one may have found out.
        if self.is_absent(digest) {
            return Ok(None);
        }
        for found in self.objects.generations(digest).await? {
            let copy = Generation::fresh();
            match self.objects.copy(digest, found, copy).await {
                Ok(()) => {
                    self.repaired.fetch_add(1, Ordering::Relaxed);
                    return self.uploads.publish(digest, copy).await.map(Some);
                }
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.note_absent(digest);
        Ok(None)
    }

    fn is_absent(&self, digest: &Digest) -> bool {
        self.absent().get(digest).is_some_and(|since| since.elapsed() < ABSENT_FOR)
    }

    fn note_absent(&self, digest: &Digest) {
        let mut absent = self.absent();
        if absent.len() >= MOST_ABSENT {
            absent.retain(|_, since| since.elapsed() < ABSENT_FOR);
        }
        if absent.len() < MOST_ABSENT {
            absent.insert(*digest, Instant::now());
        }
    }
}
