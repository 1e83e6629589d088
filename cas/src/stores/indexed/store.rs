//! The blob store made of an index and an object store.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::behind::carry;
use super::collect::Collected;
use super::index::{BlobIndex, Generation, IndexUsage, Place};
use super::objects::Objects;
use super::orphans::Orphans;
use super::parts::{IndexedOptions, IndexedStats, Parts};
use super::upkeep;
use super::writer::{LargeWriter, SmallWriter};
use crate::blob::{Blob, BlobStore, BlobStream, BlobWriter, MAX_WHOLE_BLOB};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::range::{EmptyWriter, clip, slice};

/// Clones share it. Its background tasks end with the last clone, or with [`Indexed::close`].
#[derive(Clone)]
pub struct Indexed {
    parts: Arc<Parts>,
    life: Arc<Life>,
}

struct Life {
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
        let parts = Arc::new(Parts::new(index, objects, options, stopped));
        // Before the first write: an empty store is only told from a lost index while empty.
        if let Err(error) = parts.check_epoch().await {
            tracing::warn!(%error, "index and object store could not be compared");
        }
        let upkeep = tokio::spawn(upkeep::run(parts.clone()));
        let life = Life { stop, upkeep: Mutex::new(Some(upkeep)) };
        Self { parts, life: Arc::new(life) }
    }

    /// Writes what is pending to the object store, and ends the background tasks. Errors: those
    /// of [`BlobStore::sync`]; what is still pending is taken over by other processes.
    pub async fn close(&self) -> Result<(), StoreError> {
        // Whoever ends does not wait for a store that is away.
        let result = self.sync_within(Duration::ZERO).await;
        self.life.stop.send_replace(true);
        let upkeep = self.life.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(upkeep) = upkeep {
            let _ = upkeep.await;
        }
        result
    }

    async fn sync_within(&self, patience: Duration) -> Result<(), StoreError> {
        let _hurry = self.parts.behind.hurry_up();
        self.parts.behind.sync(patience, self.parts.stop.clone()).await?;
        self.parts.settle_foreign().await
    }

    /// Of the whole fleet.
    pub async fn usage(&self) -> Result<IndexUsage, StoreError> {
        self.parts.index.usage().await
    }

    pub fn stats(&self) -> IndexedStats {
        self.parts.stats()
    }

    /// Collects garbage now. It runs by itself, too.
    pub async fn collect(&self) -> Result<Collected, StoreError> {
        self.parts.collect(0).await
    }

    /// Deletes objects that no blob is in, now. It runs by itself, too, about once a day.
    pub async fn collect_orphans(&self) -> Result<Orphans, StoreError> {
        self.parts.collect_orphans().await
    }

    async fn find_and_read(&self, digest: &Digest, range: &Range<u64>) -> Result<Blob, StoreError> {
        let parts = &self.parts;
        let entry = parts.find(vec![*digest]).await?.pop().flatten();
        match entry.map(|entry| entry.place) {
            Some(Place::Object(generation)) => match self.object(digest, generation, range).await {
                Err(StoreError::NotFound(_)) => {
                    self.lost(digest, Place::Object(generation)).await?
                }
                result => return result,
            },
            // It came just now.
            Some(Place::Index) => match parts.small(digest).await? {
                Some(data) => return Ok(whole(&data, range)),
                None => self.lost(digest, Place::Index).await?,
            },
            None => {}
        }
        match parts.heal(digest).await? {
            Some(generation) => self.object(digest, generation, range).await,
            None => Err(StoreError::NotFound(*digest)),
        }
    }

    async fn lost(&self, digest: &Digest, place: Place) -> Result<(), StoreError> {
        tracing::warn!(%digest, ?place, "a blob is not where the index says");
        self.parts.known.forget(digest);
        self.parts.index.forget(digest, place).await.map(drop)
    }

    async fn object(
        &self,
        digest: &Digest,
        generation: Generation,
        range: &Range<u64>,
    ) -> Result<Blob, StoreError> {
        let size = range.end - range.start;
        let pieces = self.parts.objects.read(digest, generation, range.start, Some(size)).await?;
        let pieces = exactly(*digest, size, pieces);
        if size > MAX_WHOLE_BLOB {
            return Ok(Blob::Stream(pieces));
        }
        Blob::Stream(pieces).collect(size).await.map(Blob::Whole)
    }

    /// Out of the object store. `no_index`: what the index answered, if that was an error; with
    /// a place in mind a blob is read all the same.
    async fn far(
        &self,
        digest: &Digest,
        range: &Range<u64>,
        no_index: Option<StoreError>,
    ) -> Result<Blob, StoreError> {
        if let Some(Place::Object(generation)) = self.parts.known.place(digest) {
            match self.object(digest, generation, range).await {
                Err(StoreError::NotFound(_)) => self.parts.known.forget(digest),
                result => return result,
            }
        }
        match no_index {
            Some(error) => Err(error),
            None => self.find_and_read(digest, range).await,
        }
    }

    /// The bytes where that takes no look-up, or one that is likely to have them.
    async fn near(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if !self.parts.is_small(digest) {
            return Ok(None);
        }
        if let Some(data) = self.parts.behind.get(digest).or_else(|| self.parts.written(digest)) {
            return Ok(Some(data));
        }
        self.parts.small(digest).await
    }
}

fn whole(data: &Bytes, range: &Range<u64>) -> Blob {
    Blob::Whole(data.slice(range.start as usize..range.end as usize))
}

/// A stream that is not over before `size` bytes came, and brings no more.
fn exactly(digest: Digest, size: u64, pieces: BlobStream) -> BlobStream {
    let wrong = move |came: u64| {
        let message = format!("{came} of {size} bytes of blob {digest} came from its object");
        StoreError::Corrupt(message)
    };
    Box::pin(futures_util::stream::unfold(Some((pieces, 0)), move |state| async move {
        let (mut pieces, before) = state?;
        match pieces.next().await {
            Some(Ok(piece)) => {
                let came = before + piece.len() as u64;
                match came > size {
                    true => Some((Err(wrong(came)), None)),
                    false => Some((Ok(piece), Some((pieces, came)))),
                }
            }
            Some(Err(error)) => Some((Err(error), None)),
            None if before < size => Some((Err(wrong(before)), None)),
            None => None,
        }
    }))
}

/// Visible and promised when this returns; in the object store some time later.
pub async fn write_small(
    parts: &Arc<Parts>,
    digest: &Digest,
    data: Bytes,
) -> Result<(), StoreError> {
    check_size(digest, data.len() as u64)?;
    parts.admit(digest.size).await?;
    let room = parts.behind.reserve(digest.size).await?;
    parts.put_small(digest, data.clone()).await?;
    parts.note_written(digest, data.clone());
    carry(parts, digest, data, room);
    Ok(())
}

fn check_size(digest: &Digest, actual: u64) -> Result<(), StoreError> {
    if actual == digest.size {
        return Ok(());
    }
    Err(StoreError::SizeMismatch { expected: *digest, actual })
}

#[async_trait]
impl BlobStore for Indexed {
    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let asked: Vec<_> =
            digests.iter().filter(|digest| !digest.is_empty_blob()).copied().collect();
        self.parts.confirm_epoch().await?;
        if self.stats().index_incomplete {
            // What an index that was lost does not know may well be in the object store.
            return Ok(Vec::new());
        }
        self.parts.index.absent(&asked).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let parts = &self.parts;
        if digests.iter().any(|digest| parts.promised(digest)) {
            // Out of memory only what an index has said that is still there.
            parts.confirm_epoch().await?;
        }
        let unsure = |digest: &&Digest| !digest.is_empty_blob() && !parts.promised(digest);
        let asked: Vec<_> = digests.iter().filter(unsure).copied().collect();
        if asked.is_empty() {
            return Ok(asked);
        }
        let entries = self.parts.find(asked.clone()).await?;
        let missing = asked.into_iter().zip(entries).filter(|(_, entry)| entry.is_none());
        Ok(missing.map(|(digest, _)| digest).collect())
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        if digest.is_empty_blob() {
            return slice(&Bytes::new(), digest, offset, limit).map(Blob::Whole);
        }
        let range = clip(digest, offset, limit)?;
        let no_index = match self.near(digest).await {
            Ok(Some(data)) => return Ok(whole(&data, &range)),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        let wanted_by_index = no_index.is_none() && self.parts.is_small(digest);
        let far = self.far(digest, &range, no_index).await?;
        if let Blob::Whole(data) = &far
            && wanted_by_index
            && data.len() as u64 == digest.size
        {
            self.parts.give_back(digest, data).await;
        }
        Ok(far)
    }

    async fn at_hand(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        let parts = &self.parts;
        if digest.size > limit {
            return None;
        }
        parts.behind.get(digest).or_else(|| parts.written(digest))
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        if digest.is_empty_blob() {
            return check_size(digest, data.len() as u64);
        }
        if self.parts.is_small(digest) {
            return write_small(&self.parts, digest, data).await;
        }
        check_size(digest, data.len() as u64)?;
        self.parts.admit(digest.size).await?;
        let generation = Generation::fresh();
        self.parts.objects.put(digest, generation, data).await?;
        self.parts.publish(digest, generation).await.map(drop)
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        let (parts, digest) = (self.parts.clone(), *digest);
        if digest.is_empty_blob() {
            return Ok(Box::new(EmptyWriter(digest)));
        }
        if parts.is_small(&digest) {
            let data = BytesMut::with_capacity(digest.size as usize);
            return Ok(Box::new(SmallWriter { parts, digest, data }));
        }
        parts.admit(digest.size).await?;
        let generation = Generation::fresh();
        let object = parts.objects.writer(&digest, generation).await?;
        Ok(Box::new(LargeWriter { parts, digest, generation, object }))
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.sync_within(self.parts.options.patience).await
    }
}
