//! The blob store made of an index and an object store.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_net::causes::chain;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::collect::Collected;
use super::index::{BlobIndex, IndexUsage};
use super::mechanisms::Mechanisms;
use super::objects::Objects;
use super::options::IndexedOptions;
use super::orphans::Orphans;
use super::stats::IndexedStats;
use super::writer::{LargeWriter, SmallWriter};
use super::writes::check_size;
use crate::blob::{Blob, BlobStore, BlobWriter};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::range::{EmptyWriter, slice};

/// Clones share it. Its background tasks end with the last clone, or with [`Indexed::close`].
#[derive(Clone)]
pub struct Indexed {
    inner: Arc<IndexedInner>,
}

struct IndexedInner {
    mechanisms: Mechanisms,
    /// Blobs up to this many bytes go through the index.
    small: u64,
    /// How long `sync` goes on while nothing reaches the object store.
    patience: Duration,
    stop: watch::Sender<bool>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
}

impl Indexed {
    /// Begins to serve, and to look after the store in the background, on the current runtime.
    /// Neither index nor object store need be there yet.
    pub async fn open(
        index: Arc<dyn BlobIndex>,
        objects: Arc<dyn Objects>,
        options: IndexedOptions,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mechanisms = Mechanisms::new(index, objects, &options, stopped.clone());
        // Before the first write: an empty store is only told from a lost index while empty.
        if let Err(error) = mechanisms.epochs.check().await {
            tracing::warn!(error = %chain(&error), "index and object store could not be compared");
        }
        let upkeep = tokio::spawn(mechanisms.upkeep(&options).run(stopped));
        let inner = IndexedInner {
            mechanisms,
            small: options.small,
            patience: options.patience,
            stop,
            upkeep: Mutex::new(Some(upkeep)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Writes what is pending to the object store, and ends the background tasks. Errors: those
    /// of [`BlobStore::sync`]; what is still pending is taken over by other processes.
    pub async fn close(&self) -> Result<(), StoreError> {
        // Whoever ends does not wait for a store that is away.
        let result = self.sync_within(Duration::ZERO).await;
        self.inner.stop.send_replace(true);
        let upkeep = self.inner.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(upkeep) = upkeep {
            // An error means that it has ended already.
            let _ = upkeep.await;
        }
        result
    }

    async fn sync_within(&self, patience: Duration) -> Result<(), StoreError> {
        let mechanisms = &self.inner.mechanisms;
        let _hurry = mechanisms.write_behind.hurry_up();
        mechanisms.write_behind.sync(patience).await?;
        mechanisms.elsewhere.settle().await
    }

    /// Figures of the whole fleet.
    pub async fn usage(&self) -> Result<IndexUsage, StoreError> {
        self.inner.mechanisms.index.usage().await
    }

    /// Figures of this process.
    pub fn stats(&self) -> IndexedStats {
        self.inner.mechanisms.stats()
    }

    /// Collects garbage now. It runs by itself, too.
    pub async fn collect(&self) -> Result<Collected, StoreError> {
        self.inner.mechanisms.collector.collect(0).await
    }

    /// Deletes objects that no blob is in, now. It runs by itself, too, about once a day.
    pub async fn collect_orphans(&self) -> Result<Orphans, StoreError> {
        self.inner.mechanisms.orphans.collect().await
    }
}

#[async_trait]
impl BlobStore for Indexed {
    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.mechanisms.lookups.absent(digests).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.mechanisms.lookups.find_missing(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        match digest.is_empty_blob() {
            true => slice(&Bytes::new(), digest, offset, limit).map(Blob::Whole),
            false => self.inner.mechanisms.reads.read(digest, offset, limit).await,
        }
    }

    async fn at_hand(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        match digest.size > limit {
            true => None,
            false => self.inner.mechanisms.reads.in_memory(digest),
        }
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        let writes = &self.inner.mechanisms.writes;
        match digest.size {
            _ if digest.is_empty_blob() => check_size(digest, data.len() as u64),
            size if size <= self.inner.small => writes.small(digest, data).await,
            _ => writes.large(digest, data).await,
        }
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        if digest.is_empty_blob() {
            return Ok(Box::new(EmptyWriter(*digest)));
        }
        let writes = self.inner.mechanisms.writes.clone();
        if digest.size <= self.inner.small {
            return Ok(Box::new(SmallWriter::new(writes, *digest)));
        }
        Ok(Box::new(LargeWriter::begin(writes, *digest).await?))
    }

    async fn pin(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.mechanisms.lookups.pin(digests).await
    }

    async fn unpin(&self, digests: &[Digest]) -> Result<(), StoreError> {
        self.inner.mechanisms.lookups.unpin(digests).await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.sync_within(self.inner.patience).await
    }
}
