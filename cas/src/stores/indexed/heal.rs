//! Blobs that the index does not know, and that the object store has all the same: the index
//! was lost, or a process ended between writing an object and placing it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::index::Generation;
use super::parts::Parts;
use crate::digest::Digest;
use crate::error::StoreError;

/// Blobs that are looked for in the object store at the same time.
const LOOKS: usize = 16;
/// How long a blob that is not there either is not looked for again...
const ABSENT_FOR: Duration = Duration::from_secs(10);
/// ...and how many such blobs are remembered.
const MOST_ABSENT: usize = 10_000;

pub struct Heals {
    looks: Semaphore,
    absent: Mutex<HashMap<Digest, Instant>>,
}

impl Default for Heals {
    fn default() -> Self {
        Self { looks: Semaphore::new(LOOKS), absent: Mutex::default() }
    }
}

impl Heals {
    fn absent(&self) -> MutexGuard<'_, HashMap<Digest, Instant>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Parts {
    /// Looks for the blob in the object store and places it again, as a copy: whoever deletes
    /// garbage may have chosen the object that was found. `None`: it is not there.
    pub async fn heal(&self, digest: &Digest) -> Result<Option<Generation>, StoreError> {
        if self.heals.is_absent(digest) {
            return Ok(None);
        }
        let closed = |_| StoreError::Unavailable("the store is closed".to_owned());
        let _look = self.heals.looks.acquire().await.map_err(closed)?;
        for found in self.objects.generations(digest).await? {
            let copy = Generation::fresh();
            match self.objects.copy(digest, found, copy).await {
                Ok(()) => {
                    self.counters.healed.fetch_add(1, Ordering::Relaxed);
                    return self.publish(digest, copy).await.map(Some);
                }
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.heals.note_absent(digest);
        Ok(None)
    }
}
