//! Where the bytes of a blob come from: memory, the index, the object store, or read repair.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use kiln_net::causes::chain;

use super::index::{Generation, Place};
use super::index_client::IndexClient;
use super::lookups::Lookups;
use super::objects::Objects;
use super::read_repair::ReadRepair;
use super::recent_writes::RecentWrites;
use super::write_behind::WriteBehind;
use crate::blob::{Blob, BlobStream, MAX_WHOLE_BLOB};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::range::clip;

pub struct Reads {
    pub client: Arc<IndexClient>,
    pub lookups: Arc<Lookups>,
    pub objects: Arc<dyn Objects>,
    pub write_behind: Arc<WriteBehind>,
    pub recent: Arc<RecentWrites>,
    pub repair: Arc<ReadRepair>,
    /// The index may hold blobs up to this many bytes.
    pub small: u64,
}

impl Reads {
    /// The bytes from `offset` on, at most `limit`, of a blob that is not empty.
    pub async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        let range = clip(digest, offset, limit)?;
        let index_failed = match self.near(digest).await {
            Ok(Some(data)) => return Ok(whole(&data, &range)),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        let lacking = index_failed.is_none() && digest.size <= self.small;
        let far = self.far(digest, &range, index_failed).await?;
        if let Blob::Whole(data) = &far
            && lacking
            && data.len() as u64 == digest.size
        {
            self.give_back(digest, data).await;
        }
        Ok(far)
    }

    /// A small blob that this process is still to write, or wrote a short while ago.
    pub fn in_memory(&self, digest: &Digest) -> Option<Bytes> {
        self.write_behind.get(digest).or_else(|| self.recent.get(digest))
    }

    /// The bytes where that takes no look-up, or one that is likely to have them.
    async fn near(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if digest.size > self.small {
            return Ok(None);
        }
        match self.in_memory(digest) {
            Some(data) => Ok(Some(data)),
            None => self.client.small(digest).await,
        }
    }

    /// Out of the object store. `index_failed`: the error of the index, if it answered with one;
    /// with a place in mind a blob is read all the same.
    async fn far(
        &self,
        digest: &Digest,
        range: &Range<u64>,
        index_failed: Option<StoreError>,
    ) -> Result<Blob, StoreError> {
        if let Some(Place::Object(generation)) = self.client.last_place(digest) {
            match self.object(digest, generation, range).await {
                Err(StoreError::NotFound(_)) => self.client.forget(digest),
                result => return result,
            }
        }
        match index_failed {
            Some(error) => Err(error),
            None => self.find_and_read(digest, range).await,
        }
    }

    async fn find_and_read(&self, digest: &Digest, range: &Range<u64>) -> Result<Blob, StoreError> {
        let entry = self.lookups.find(vec![*digest]).await?.pop().flatten();
        match entry.map(|entry| entry.place) {
            Some(Place::Object(generation)) => match self.object(digest, generation, range).await {
                Err(StoreError::NotFound(_)) => {
                    self.lost(digest, Place::Object(generation)).await?;
                }
                result => return result,
            },
            // It came just now.
            Some(Place::Index) => match self.client.small(digest).await? {
                Some(data) => return Ok(whole(&data, range)),
                None => self.lost(digest, Place::Index).await?,
            },
            None => {}
        }
        match self.repair.find(digest).await? {
            Some(generation) => self.object(digest, generation, range).await,
            None => Err(StoreError::NotFound(*digest)),
        }
    }

    async fn lost(&self, digest: &Digest, place: Place) -> Result<(), StoreError> {
        tracing::warn!(%digest, ?place, "a blob is not where the index says");
        self.client.forget_place(digest, place).await
    }

    async fn object(
        &self,
        digest: &Digest,
        generation: Generation,
        range: &Range<u64>,
    ) -> Result<Blob, StoreError> {
        let size = range.end - range.start;
        let pieces = self.objects.read(digest, generation, range.start, Some(size)).await?;
        let pieces = exactly(*digest, size, pieces);
        if size > MAX_WHOLE_BLOB {
            return Ok(Blob::Stream(pieces));
        }
        Blob::Stream(pieces).collect(size).await.map(Blob::Whole)
    }

    /// Gives the index a small blob again that it knows and had no bytes of, for the next
    /// reader. Only bytes that are the blob's: they may be all that is left of it one day.
    async fn give_back(&self, digest: &Digest, data: &Bytes) {
        if digest.function.digest(data) == *digest
            && let Err(error) = self.client.put_small(digest, data.clone()).await
        {
            tracing::debug!(
                %digest, error = %chain(&error),
                "a small blob was not given back to the index"
            );
        }
    }
}

fn whole(data: &Bytes, range: &Range<u64>) -> Blob {
    Blob::Whole(data.slice(range.start as usize..range.end as usize))
}

/// A stream that is not over before `size` bytes came, and brings no more.
fn exactly(digest: Digest, size: u64, pieces: BlobStream) -> BlobStream {
    let wrong = move |came: u64| {
        let message = format!("{came} of {size} bytes of blob {digest} came from its object");
        StoreError::corrupt(message)
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
