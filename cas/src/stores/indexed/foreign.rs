//! Small blobs that other processes are still to write to the object store, and that this one
//! has reported present: before it says that all is durable, it makes sure of them too.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};

use super::index::{Generation, Place};
use super::parts::Parts;
use crate::digest::Digest;
use crate::error::StoreError;

/// Most such blobs that are remembered; then they are settled first.
const MOST: usize = 10_000;
/// Blobs that are settled at the same time.
const SETTLED: usize = 16;

#[derive(Default)]
pub struct Foreign {
    pending: Mutex<HashSet<Digest>>,
}

impl Foreign {
    fn pending(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    pub async fn note_foreign(&self, digests: Vec<Digest>) -> Result<(), StoreError> {
        if digests.is_empty() {
            return Ok(());
        }
        let full = {
            let mut pending = self.foreign.pending();
            pending.extend(digests);
            pending.len() > MOST
        };
        if full { self.settle_foreign().await } else { Ok(()) }
    }

    /// Returns when all of them are in the object store. Mostly they are by now.
    pub async fn settle_foreign(&self) -> Result<(), StoreError> {
        let noted: Vec<_> = self.foreign.pending().iter().copied().collect();
        if noted.is_empty() {
            return Ok(());
        }
        let entries = self.finds.call(noted.clone(), noted.len()).await?;
        let waiting = noted
            .iter()
            .zip(&entries)
            .filter(|(_, entry)| entry.is_some_and(|entry| entry.place == Place::Index));
        futures_util::stream::iter(waiting.map(|(digest, _)| Ok(digest)))
            .try_for_each_concurrent(SETTLED, |digest| self.settle_one(digest))
            .await?;
        let mut pending = self.foreign.pending();
        for digest in &noted {
            pending.remove(digest);
        }
        Ok(())
    }

    async fn settle_one(&self, digest: &Digest) -> Result<(), StoreError> {
        match self.small(digest).await? {
            Some(data) => self.settle(digest, Generation::fresh(), data).await,
            None => Ok(()),
        }
    }

    /// Takes over what processes that are gone left in the index. Returns how many there were.
    pub async fn adopt(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        let pending = self.index.take_pending(age, limit).await?;
        let count = pending.len();
        let others = pending.into_iter().filter(|(digest, _)| self.behind.get(digest).is_none());
        let adopted = futures_util::stream::iter(others).map(|(digest, data)| async move {
            self.settle(&digest, Generation::fresh(), data).await
        });
        // All are tried: one that cannot be written does not keep the others from it.
        let results: Vec<_> = adopted.buffer_unordered(SETTLED).collect().await;
        let mut first_error = None;
        for result in results {
            match result {
                Ok(()) => drop(self.counters.adopted.fetch_add(1, Ordering::Relaxed)),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        first_error.map_or(Ok(count), Err)
    }
}
