//! Uploads that broke off, kept for a while so that a client can go on where it was.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::blob::BlobWriter;
use crate::digest::Digest;
use crate::services::resource::Compression;

/// Uploads kept at most; the oldest goes first.
pub const MAX_PARTIAL_UPLOADS: usize = 128;
/// How long an upload waits to be continued.
pub const PARTIAL_LIFETIME: Duration = Duration::from_secs(600);

/// What names an upload: its resource name without the trailing metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadKey {
    pub instance: String,
    pub uuid: String,
    pub digest: Digest,
    pub compressed: bool,
}

impl UploadKey {
    pub fn new(instance: &str, uuid: &str, digest: Digest, compression: Compression) -> Self {
        let compressed = compression == Compression::Zstd;
        Self { instance: instance.to_owned(), uuid: uuid.to_owned(), digest, compressed }
    }
}

/// An unfinished blob and how many of its (uncompressed) bytes are there.
pub struct Partial {
    pub writer: Box<dyn BlobWriter>,
    pub committed: u64,
}

/// All uploads that wait to be continued. Time is passed in.
#[derive(Default)]
pub struct Uploads {
    waiting: Mutex<HashMap<UploadKey, (Instant, Partial)>>,
}

impl Uploads {
    /// Takes the upload out: whoever has it continues it alone.
    pub fn take(&self, key: &UploadKey, now: Instant) -> Option<Partial> {
        let (since, partial) = self.lock().remove(key)?;
        (now.duration_since(since) < PARTIAL_LIFETIME).then_some(partial)
    }

    /// Bytes of the upload that are there. `None`: unknown.
    pub fn committed(&self, key: &UploadKey, now: Instant) -> Option<u64> {
        let waiting = self.lock();
        let (since, partial) = waiting.get(key)?;
        (now.duration_since(*since) < PARTIAL_LIFETIME).then_some(partial.committed)
    }

    pub fn keep(&self, key: UploadKey, partial: Partial, now: Instant) {
        let mut waiting = self.lock();
        waiting.retain(|_, (since, _)| now.duration_since(*since) < PARTIAL_LIFETIME);
        if waiting.len() >= MAX_PARTIAL_UPLOADS {
            let oldest = waiting.iter().min_by_key(|(_, (since, _))| *since);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                waiting.remove(&oldest);
            }
        }
        waiting.insert(key, (now, partial));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadKey, (Instant, Partial)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::digest::DigestFunction;
    use crate::error::StoreError;

    struct Nowhere;

    #[async_trait::async_trait]
    impl BlobWriter for Nowhere {
        async fn write(&mut self, _: Bytes) -> Result<(), StoreError> {
            Ok(())
        }
        async fn commit(self: Box<Self>) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn key(number: usize) -> UploadKey {
        let digest = DigestFunction::Sha256.digest(b"x");
        UploadKey::new("a/b", &number.to_string(), digest, Compression::Identity)
    }

    fn partial(committed: u64) -> Partial {
        Partial { writer: Box::new(Nowhere), committed }
    }

    #[test]
    fn uploads_expire() {
        let (uploads, start) = (Uploads::default(), Instant::now());
        uploads.keep(key(1), partial(7), start);
        assert_eq!(uploads.committed(&key(1), start), Some(7));
        assert_eq!(uploads.committed(&key(1), start + PARTIAL_LIFETIME), None);
        assert!(uploads.take(&key(1), start + PARTIAL_LIFETIME).is_none());
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let (uploads, start) = (Uploads::default(), Instant::now());
        for i in 0..=MAX_PARTIAL_UPLOADS {
            uploads.keep(key(i), partial(1), start + Duration::from_millis(i as u64));
        }
        let now = start + Duration::from_secs(1);
        assert_eq!(uploads.committed(&key(0), now), None);
        assert_eq!(uploads.committed(&key(1), now), Some(1));
        assert_eq!(uploads.lock().len(), MAX_PARTIAL_UPLOADS);
    }
}
