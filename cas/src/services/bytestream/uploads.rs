//! Uploads that broke off, kept for a while so that a client can go on where it was.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
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
///
/// Each holds the room of the bytes that came, so none may stay for longer than it should.
#[derive(Default)]
pub struct Uploads {
    waiting: Mutex<HashMap<UploadKey, (Instant, Partial)>>,
    /// How many there are, for those who need not look.
    count: AtomicUsize,
}

impl Uploads {
    /// Takes the upload out: whoever has it continues it alone.
    pub fn take(&self, key: &UploadKey, now: Instant) -> Option<Partial> {
        let mut waiting = self.lock();
        let taken = waiting.remove(key);
        self.count.store(waiting.len(), Ordering::Release);
        drop(waiting);
        let (since, partial) = taken?;
        (now.duration_since(since) < PARTIAL_LIFETIME).then_some(partial)
    }

    /// Takes the upload out if so many of its bytes are there. Errors: how many there are; it stays
    /// where it is, for no longer than before.
    pub fn take_at(&self, key: &UploadKey, offset: u64, now: Instant) -> Result<Partial, u64> {
        let mut waiting = self.lock();
        let there = match waiting.get(key) {
            Some((since, partial)) if now.duration_since(*since) < PARTIAL_LIFETIME => {
                partial.committed
            }
            _ => 0,
        };
        let taken = if there == offset { waiting.remove(key) } else { None };
        self.count.store(waiting.len(), Ordering::Release);
        taken.map(|(_, partial)| partial).ok_or(there)
    }

    /// Gives up those that nobody continued in time. Costs next to nothing without any.
    pub fn expire(&self, now: Instant) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut waiting = self.lock();
        let expired: Vec<_> = waiting
            .extract_if(|_, (since, _)| now.duration_since(*since) >= PARTIAL_LIFETIME)
            .collect();
        self.count.store(waiting.len(), Ordering::Release);
        // Their files are removed without the lock.
        drop(waiting);
        drop(expired);
    }

    /// Gives up all of them: somebody who is there needs their room.
    pub fn give_up_all(&self) -> bool {
        let given_up = std::mem::take(&mut *self.lock());
        self.count.store(0, Ordering::Release);
        !given_up.is_empty()
    }

    /// Bytes of the upload that are there. `None`: unknown.
    pub fn committed(&self, key: &UploadKey, now: Instant) -> Option<u64> {
        let waiting = self.lock();
        let (since, partial) = waiting.get(key)?;
        (now.duration_since(*since) < PARTIAL_LIFETIME).then_some(partial.committed)
    }

    pub fn keep(&self, key: UploadKey, partial: Partial, now: Instant) {
        self.expire(now);
        let mut waiting = self.lock();
        let mut dropped = None;
        if waiting.len() >= MAX_PARTIAL_UPLOADS {
            let oldest = waiting.iter().min_by_key(|(_, (since, _))| *since);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                dropped = waiting.remove(&oldest);
            }
        }
        let replaced = waiting.insert(key, (now, partial));
        self.count.store(waiting.len(), Ordering::Release);
        drop(waiting);
        drop((dropped, replaced));
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
    fn an_upload_goes_on_where_it_is_and_a_wrong_offset_keeps_it_for_no_longer() {
        let (uploads, start) = (Uploads::default(), Instant::now());
        uploads.keep(key(1), partial(7), start);
        let late = start + PARTIAL_LIFETIME / 2;
        assert_eq!(uploads.take_at(&key(1), 6, late).err(), Some(7));
        assert_eq!(uploads.take_at(&key(2), 7, late).err(), Some(0));
        assert_eq!(uploads.committed(&key(1), late), Some(7));
        assert_eq!(uploads.take_at(&key(1), 7, start + PARTIAL_LIFETIME).err(), Some(0));
        assert_eq!(uploads.take_at(&key(1), 7, late).map(|it| it.committed).ok(), Some(7));
        assert_eq!(uploads.committed(&key(1), late), None, "whoever has it continues it alone");
    }

    #[test]
    fn what_expired_is_given_up_without_another_upload_that_breaks_off() {
        struct Room {
            _held: std::sync::Arc<()>,
        }
        #[async_trait::async_trait]
        impl BlobWriter for Room {
            async fn write(&mut self, _: Bytes) -> Result<(), StoreError> {
                Ok(())
            }
            async fn commit(self: Box<Self>) -> Result<(), StoreError> {
                Ok(())
            }
        }
        let (uploads, start) = (Uploads::default(), Instant::now());
        let room = std::sync::Arc::new(());
        let partial = || Partial { writer: Box::new(Room { _held: room.clone() }), committed: 1 };
        let held = || std::sync::Arc::strong_count(&room) - 1;
        uploads.keep(key(1), partial(), start);
        uploads.keep(key(2), partial(), start + Duration::from_secs(1));
        uploads.expire(start + PARTIAL_LIFETIME);
        assert_eq!(held(), 1);
        assert!(uploads.give_up_all());
        assert_eq!(held(), 0);
        assert!(!uploads.give_up_all());
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
