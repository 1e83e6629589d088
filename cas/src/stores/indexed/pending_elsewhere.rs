//! Small blobs that other processes are still to write to the object store, and that this one
//! has reported present: before it says that all is durable, it makes sure of them too. What
//! processes that are gone left behind is taken over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};

use super::index::{BlobIndex, Generation, IndexEntry, Place};
use super::index_client::IndexClient;
use super::uploads::Uploads;
use super::write_behind::WriteBehind;
use crate::digest::Digest;
use crate::error::StoreError;

/// Most such blobs that are remembered; then they are settled first.
const MOST: usize = 10_000;
/// Blobs that are settled at the same time.
const SETTLED: usize = 16;

pub struct PendingElsewhere {
    index: Arc<dyn BlobIndex>,
    client: Arc<IndexClient>,
    uploads: Arc<Uploads>,
    /// Knows what is pending here.
    write_behind: Arc<WriteBehind>,
    noted: Mutex<Noted>,
    adopted: AtomicU64,
}

#[derive(Default)]
struct Noted {
    /// When each was noted last.
    blobs: HashMap<Digest, u64>,
    count: u64,
}

impl PendingElsewhere {
    pub fn new(
        index: Arc<dyn BlobIndex>,
        client: Arc<IndexClient>,
        uploads: Arc<Uploads>,
        write_behind: Arc<WriteBehind>,
    ) -> Self {
        let (noted, adopted) = (Mutex::default(), AtomicU64::new(0));
        Self { index, client, uploads, write_behind, noted, adopted }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blobs that were taken over from processes that are gone.
    pub fn adopted(&self) -> u64 {
        self.adopted.load(Ordering::Relaxed)
    }

    /// Notes those of the blobs that the index alone holds and somebody else is to write. Errors:
    /// there are too many, and they could not be written.
    pub async fn note(
        &self,
        digests: &[Digest],
        entries: &[Option<IndexEntry>],
    ) -> Result<(), StoreError> {
        let in_index =
            |entry: &Option<IndexEntry>| entry.is_some_and(|it| it.place == Place::Index);
        let found = digests.iter().zip(entries).filter(|(_, entry)| in_index(entry));
        let elsewhere: Vec<_> = found
            .map(|(digest, _)| *digest)
            .filter(|digest| self.write_behind.get(digest).is_none())
            .collect();
        if elsewhere.is_empty() {
            return Ok(());
        }
        let full = {
            let mut noted = self.noted();
            noted.count += 1;
            let count = noted.count;
            noted.blobs.extend(elsewhere.into_iter().map(|digest| (digest, count)));
            noted.blobs.len() > MOST
        };
        if full { self.settle().await } else { Ok(()) }
    }

    /// Returns when all that were noted are in the object store. Mostly they are by now.
    pub async fn settle(&self) -> Result<(), StoreError> {
        let noted: Vec<_> = self.noted().blobs.iter().map(|(digest, at)| (*digest, *at)).collect();
        if noted.is_empty() {
            return Ok(());
        }
        let digests: Vec<_> = noted.iter().map(|(digest, _)| *digest).collect();
        let entries = self.client.find(digests.clone()).await?;
        let waiting = digests
            .iter()
            .zip(&entries)
            .filter(|(_, entry)| entry.is_some_and(|entry| entry.place == Place::Index));
        futures_util::stream::iter(waiting.map(|(digest, _)| Ok(digest)))
            .try_for_each_concurrent(SETTLED, |digest| self.settle_one(digest))
            .await?;
        let mut left = self.noted();
        for (digest, at) in &noted {
            // One that was noted again meanwhile may be pending again.
            if left.blobs.get(digest) == Some(at) {
                left.blobs.remove(digest);
            }
        }
        Ok(())
    }

    async fn settle_one(&self, digest: &Digest) -> Result<(), StoreError> {
        match self.client.small(digest).await? {
            Some(data) => self.uploads.settle(digest, Generation::fresh(), data).await,
            None => Ok(()),
        }
    }

    /// Writes at most `limit` blobs that have been pending for longer than `age`: their processes
    /// are gone or slow. Returns how many there were.
    pub async fn adopt(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        let pending = self.index.take_pending(age, limit).await?;
        let count = pending.len();
        let others =
            pending.into_iter().filter(|(digest, _)| self.write_behind.get(digest).is_none());
        let adopted = futures_util::stream::iter(others).map(|(digest, data)| async move {
            self.uploads.settle(&digest, Generation::fresh(), data).await
        });
        // All are tried: one that cannot be written does not keep the others from it.
        let results: Vec<_> = adopted.buffer_unordered(SETTLED).collect().await;
        let mut first_error = None;
        for result in results {
            match result {
                Ok(()) => drop(self.adopted.fetch_add(1, Ordering::Relaxed)),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        first_error.map_or(Ok(count), Err)
    }
}
