//! A fast tier in front of a slow one. The slow tier is the truth: it is asked what is missing,
//! and a write has succeeded when it has. The fast one only ever saves time.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;

use super::range::{clip, slice};
use crate::blob::{Blob, BlobStore, BlobStream, BlobWriter, MAX_WHOLE_BLOB};
use crate::digest::Digest;
use crate::error::StoreError;

/// Reads come from the fast tier or fill it.
pub struct Tiered<F, S> {
    fast: Arc<F>,
    slow: S,
}

impl<F: BlobStore, S: BlobStore> Tiered<F, S> {
    pub fn new(fast: F, slow: S) -> Self {
        Self { fast: Arc::new(fast), slow }
    }

    /// Reads a blob that fits in memory whole, and keeps it.
    async fn fill(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let data = self.slow.read(digest, 0, None).await?.collect(MAX_WHOLE_BLOB).await?;
        ignore(digest, self.fast.write(digest, data.clone()).await);
        Ok(data)
    }

    /// Passes a stream of the whole blob on, and keeps it once it came to its end.
    async fn tee(&self, digest: &Digest) -> Result<Blob, StoreError> {
        let source = self.slow.read(digest, 0, None).await?.into_stream();
        let copy = ignore(digest, self.fast.writer(digest).await);
        let state = Tee { source, copy, digest: *digest };
        Ok(Blob::Stream(Box::pin(futures_util::stream::unfold(state, Tee::next))))
    }

    async fn copy_all(&self, digest: &Digest) -> Result<(), StoreError> {
        let mut writer = self.fast.writer(digest).await?;
        let mut source = self.slow.read(digest, 0, None).await?.into_stream();
        while let Some(piece) = source.next().await {
            writer.write(piece?).await?;
        }
        writer.commit().await
    }
}

/// A fast tier that fails is a slow one, nothing worse.
fn ignore<T>(digest: &Digest, result: Result<T, StoreError>) -> Option<T> {
    result.inspect_err(|error| tracing::debug!(%digest, %error, "the fast tier failed")).ok()
}

struct Tee {
    source: BlobStream,
    copy: Option<Box<dyn BlobWriter>>,
    digest: Digest,
}

impl Tee {
    async fn next(mut self) -> Option<(Result<Bytes, StoreError>, Self)> {
        let Some(piece) = self.source.next().await else {
            if let Some(copy) = self.copy.take() {
                ignore(&self.digest, copy.commit().await);
            }
            return None;
        };
        match (&piece, &mut self.copy) {
            (Ok(data), Some(copy)) => {
                if ignore(&self.digest, copy.write(data.clone()).await).is_none() {
                    self.copy = None;
                }
            }
            _ => self.copy = None,
        }
        Some((piece, self))
    }
}

#[async_trait]
impl<F: BlobStore, S: BlobStore> BlobStore for Tiered<F, S> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.slow.find_missing(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        match self.fast.read(digest, offset, limit).await {
            Ok(blob) => return Ok(blob),
            Err(error @ StoreError::OutOfRange { .. }) => return Err(error),
            Err(error) => ignore::<()>(digest, Err(error)),
        };
        if digest.size <= MAX_WHOLE_BLOB {
            let data = self.fill(digest).await?;
            return slice(&data, digest, offset, limit).map(Blob::Whole);
        }
        let range = clip(digest, offset, limit)?;
        if range == (0..digest.size) {
            return self.tee(digest).await;
        }
        self.slow.read(digest, offset, limit).await
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.slow.write(digest, data.clone()).await?;
        ignore(digest, self.fast.write(digest, data).await);
        Ok(())
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        let slow = self.slow.writer(digest).await?;
        let fast = ignore(digest, self.fast.writer(digest).await);
        Ok(Box::new(TieredWriter { slow, fast, digest: *digest }))
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.slow.sync().await
    }

    async fn link(&self, digest: &Digest, destination: &Path) -> Result<bool, StoreError> {
        match self.fast.link(digest, destination).await {
            Err(StoreError::NotFound(_)) => {}
            result => return result,
        }
        self.copy_all(digest).await?;
        self.fast.link(digest, destination).await
    }
}

struct TieredWriter {
    slow: Box<dyn BlobWriter>,
    fast: Option<Box<dyn BlobWriter>>,
    digest: Digest,
}

#[async_trait]
impl BlobWriter for TieredWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.slow.write(data.clone()).await?;
        if let Some(fast) = &mut self.fast
            && ignore(&self.digest, fast.write(data).await).is_none()
        {
            self.fast = None;
        }
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.slow.commit().await?;
        if let Some(fast) = self.fast {
            ignore(&self.digest, fast.commit().await);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::contract::blob;
    use crate::stores::faults::{Faults, Faulty, Operation};
    use crate::stores::memory::MemoryBlobStore;

    type Subject = (Tiered<Faulty<MemoryBlobStore>, Faulty<MemoryBlobStore>>, Faults, Faults);

    fn tiered() -> Subject {
        let (fast, slow) = (Faults::default(), Faults::default());
        let store = |faults: &Faults| Faulty::new(MemoryBlobStore::default(), faults.clone());
        (Tiered::new(store(&fast), store(&slow)), fast, slow)
    }

    async fn read(store: &dyn BlobStore, digest: &Digest) -> Result<Bytes, StoreError> {
        store.read(digest, 0, None).await?.collect(u64::MAX).await
    }

    #[tokio::test]
    async fn the_second_read_does_not_ask_the_slow_tier() {
        for size in [1000, 3 << 20] {
            let (store, _, slow) = tiered();
            let (digest, data) = blob(1, size);
            store.slow.write(&digest, data.clone()).await.unwrap();
            assert_eq!(read(&store, &digest).await.unwrap(), data);
            let asked = slow.count(Operation::Read);
            assert_eq!(read(&store, &digest).await.unwrap(), data);
            assert_eq!(slow.count(Operation::Read), asked);
        }
    }

    #[tokio::test]
    async fn a_failing_fast_tier_only_costs_time_and_a_failing_slow_one_is_told() {
        for size in [1000, 3 << 20] {
            let (store, fast, slow) = tiered();
            let (digest, data) = blob(1, size);
            let down = || StoreError::Unavailable("down".to_owned());
            fast.fail_always(Operation::Read, down());
            fast.fail_always(Operation::Write, down());
            store.write(&digest, data.clone()).await.unwrap();
            assert_eq!(read(&store, &digest).await.unwrap(), data);
            slow.fail_always(Operation::Read, down());
            slow.fail_always(Operation::Write, down());
            slow.fail_always(Operation::FindMissing, down());
            assert!(matches!(read(&store, &digest).await, Err(StoreError::Unavailable(_))));
            assert!(matches!(store.write(&digest, data).await, Err(StoreError::Unavailable(_))));
            let missing = store.find_missing(&[digest]).await;
            assert!(matches!(missing, Err(StoreError::Unavailable(_))));
        }
    }
}
