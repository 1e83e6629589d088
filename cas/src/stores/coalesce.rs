//! A local store in front of a remote one, which fetches each absent blob once, however many
//! ask for it at the same time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::checked::{checked, is_damage};
use super::range::clip;
use crate::blob::{Blob, BlobStore, BlobStream, BlobWriter, SharedBlobStore};
use crate::digest::Digest;
use crate::error::StoreError;

/// How often bytes that are not the blob's are fetched again.
const DAMAGED_FETCHES: u32 = 3;
/// Between two warnings that no copies can be kept.
const WARNING_EVERY: Duration = Duration::from_secs(60);

/// What became of a fetch.
type Outcome = Option<Result<Copied, StoreError>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// The blob is in the local store.
    Here,
    /// The local store cannot take it: it is read past that.
    Nowhere,
}

/// The remote store is the truth; the local one holds copies, which nothing depends on: where it
/// is full, read-only or fails, blobs are read past it. A fetch goes on when all who waited for it
/// went away.
pub struct Coalesced {
    local: SharedBlobStore,
    remote: SharedBlobStore,
    fetches: Arc<Mutex<HashMap<Digest, watch::Receiver<Outcome>>>>,
    warned: Arc<Mutex<Option<Instant>>>,
}

impl Coalesced {
    /// `local` verifies what it takes.
    pub fn new(local: SharedBlobStore, remote: SharedBlobStore) -> Self {
        Self { local, remote, fetches: Arc::default(), warned: Arc::default() }
    }

    fn fetches(&self) -> MutexGuard<'_, HashMap<Digest, watch::Receiver<Outcome>>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the blob is in the local store, or cannot be.
    async fn fetch(&self, digest: &Digest) -> Result<Copied, StoreError> {
        let mut outcome = self.join_or_begin(digest);
        let gone = |_| StoreError::Unavailable(format!("the fetch of {digest} was cut off"));
        let outcome = outcome.wait_for(Option::is_some).await.map_err(gone)?;
        outcome.clone().unwrap_or(Ok(Copied::Here))
    }

    fn join_or_begin(&self, digest: &Digest) -> watch::Receiver<Outcome> {
        let mut fetches = self.fetches();
        if let Some(fetch) = fetches.get(digest) {
            return fetch.clone();
        }
        let (sender, receiver) = watch::channel(None);
        fetches.insert(*digest, receiver.clone());
        let fetch = Fetch { digest: *digest, fetches: self.fetches.clone() };
        let (local, remote) = (self.local.clone(), self.remote.clone());
        let warned = self.warned.clone();
        tokio::spawn(async move {
            let result = match copy(&*remote, &*local, &fetch.digest).await {
                Err(CopyError::Local(error)) => {
                    warn(&warned, &error);
                    Ok(Copied::Nowhere)
                }
                Err(CopyError::Remote(error)) => Err(error),
                Ok(()) => Ok(Copied::Here),
            };
            // Out of the table first: who comes now finds the blob, or tries anew.
            drop(fetch);
            sender.send_replace(Some(result));
        });
        receiver
    }

    /// A part of the blob as the local store has it. `None`: it does not, or cannot read it.
    async fn nearby(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Option<Blob>, StoreError> {
        match self.local.read(digest, offset, limit).await {
            Ok(Blob::Stream(pieces)) => {
                let rest = Rest { remote: self.remote.clone(), digest: *digest, offset, limit };
                Ok(Some(Blob::Stream(rest.after(pieces))))
            }
            Ok(whole) => Ok(Some(whole)),
            Err(error @ StoreError::OutOfRange { .. }) => Err(error),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => {
                warn(&self.warned, &error);
                Ok(None)
            }
        }
    }

    /// The same from the remote store, checked where it is read whole.
    async fn past(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        let range = clip(digest, offset, limit)?;
        let mut attempt = 1;
        loop {
            let read = self.remote.read(digest, offset, limit).await;
            let read = match read {
                Ok(blob) if range == (0..digest.size) => checked(digest, blob),
                read => read,
            };
            match read {
                Err(error) if is_damage(&error) && attempt < DAMAGED_FETCHES => attempt += 1,
                read => return read,
            }
        }
    }
}

/// Says why no copies are kept, now and then.
fn warn(warned: &Mutex<Option<Instant>>, error: &StoreError) {
    if matches!(error, StoreError::Full { .. } | StoreError::TooLarge { .. }) {
        // Usual where a cache is small.
        return;
    }
    let mut warned = warned.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.is_none_or(|at| at.elapsed() >= WARNING_EVERY) {
        *warned = Some(Instant::now());
        tracing::warn!(%error, "no local copies of blobs: they are read from where they are kept");
    }
}

/// An entry of the table; it goes when its task ends, however that ends.
struct Fetch {
    digest: Digest,
    fetches: Arc<Mutex<HashMap<Digest, watch::Receiver<Outcome>>>>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}

/// Which side failed.
enum CopyError {
    Local(StoreError),
    Remote(StoreError),
}

/// Copies a blob; what came damaged is fetched again.
async fn copy(from: &dyn BlobStore, to: &dyn BlobStore, digest: &Digest) -> Result<(), CopyError> {
    let mut attempt = 1;
    loop {
        match copy_once(from, to, digest).await {
            Err(CopyError::Local(error) | CopyError::Remote(error)) if is_damage(&error) => {
                tracing::warn!(%digest, %error, attempt, "a blob came damaged from its store");
                if attempt == DAMAGED_FETCHES {
                    let message = format!("blob {digest}, {attempt} times in a row: {error}");
                    return Err(CopyError::Remote(StoreError::Corrupt(message)));
                }
                attempt += 1;
            }
            result => return result,
        }
    }
}

async fn copy_once(
    from: &dyn BlobStore,
    to: &dyn BlobStore,
    digest: &Digest,
) -> Result<(), CopyError> {
    match from.read(digest, 0, None).await.map_err(CopyError::Remote)? {
        Blob::Whole(data) => to.write(digest, data).await.map_err(CopyError::Local),
        Blob::Stream(mut pieces) => {
            let mut writer = to.writer(digest).await.map_err(CopyError::Local)?;
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(CopyError::Remote)?;
                writer.write(piece).await.map_err(CopyError::Local)?;
            }
            writer.commit().await.map_err(CopyError::Local)
        }
    }
}

/// What is left of a range when its local copy turns out to be unreadable.
struct Rest {
    remote: SharedBlobStore,
    digest: Digest,
    offset: u64,
    limit: Option<u64>,
}

impl Rest {
    /// The pieces, and from where they fail those of the remote store.
    fn after(self, pieces: BlobStream) -> BlobStream {
        Box::pin(futures_util::stream::unfold((Some(self), pieces), |(rest, mut pieces)| async {
            let (piece, mut rest) = match (pieces.next().await?, rest) {
                (Err(error), Some(Rest { remote, digest, offset, limit })) => {
                    tracing::warn!(%digest, %error, "a local copy cannot be read to its end");
                    return match remote.read(&digest, offset, limit).await {
                        Ok(blob) => {
                            let mut pieces = blob.into_stream();
                            Some((pieces.next().await?, (None, pieces)))
                        }
                        Err(error) => Some((Err(error), (None, pieces))),
                    };
                }
                (piece, None) => return Some((piece, (None, pieces))),
                (Ok(piece), Some(rest)) => (piece, rest),
            };
            let came = piece.len() as u64;
            rest.offset += came;
            rest.limit = rest.limit.map(|limit| limit.saturating_sub(came));
            Some((Ok(piece), (Some(rest), pieces)))
        }))
    }
}

#[async_trait]
impl BlobStore for Coalesced {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.remote.find_missing(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        if let Some(blob) = self.nearby(digest, offset, limit).await? {
            return Ok(blob);
        }
        clip(digest, offset, limit)?;
        if self.fetch(digest).await? == Copied::Here
            && let Some(blob) = self.nearby(digest, offset, limit).await?
        {
            return Ok(blob);
        }
        self.past(digest, offset, limit).await
    }

    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.remote.absent(digests).await
    }

    async fn at_hand(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        if digest.size > limit {
            return None;
        }
        if let Some(data) = self.remote.at_hand(digest, limit).await {
            return Some(data);
        }
        self.local.read(digest, 0, None).await.ok()?.collect(limit).await.ok()
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.remote.write(digest, data).await
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.remote.writer(digest).await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.remote.sync().await
    }

    async fn link(&self, digest: &Digest, destination: &Path) -> Result<bool, StoreError> {
        match self.local.link(digest, destination).await {
            Ok(linked) => return Ok(linked),
            Err(StoreError::NotFound(_)) => {}
            Err(error) => {
                warn(&self.warned, &error);
                return Ok(false);
            }
        }
        if self.fetch(digest).await? == Copied::Nowhere {
            return Ok(false);
        }
        // Whatever hinders it now, the caller can copy.
        Ok(self.local.link(digest, destination).await.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::contract::blob;
    use crate::stores::faults::{Faults, Faulty, Operation};
    use crate::stores::memory::MemoryBlobStore;
    use crate::stores::verify::Verified;

    fn subject() -> (Arc<Coalesced>, Faults, SharedBlobStore) {
        let faults = Faults::default();
        let remote: SharedBlobStore =
            Arc::new(Faulty::new(MemoryBlobStore::default(), faults.clone()));
        let local = Arc::new(MemoryBlobStore::default());
        (Arc::new(Coalesced::new(local, remote.clone())), faults, remote)
    }

    #[tokio::test]
    async fn many_readers_make_one_fetch() {
        for size in [1000, 3 << 20] {
            let (store, faults, remote) = subject();
            let (digest, data) = blob(1, size);
            remote.write(&digest, data.clone()).await.unwrap();
            let readers: Vec<_> = (0..20)
                .map(|_| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        store.read(&digest, 0, None).await.unwrap().collect(u64::MAX).await
                    })
                })
                .collect();
            for reader in readers {
                assert_eq!(reader.await.unwrap().unwrap(), data);
            }
            assert_eq!(faults.count(Operation::Read), 1);
        }
    }

    #[tokio::test]
    async fn a_failed_fetch_is_told_to_all_and_the_next_one_tries_again() {
        let (store, faults, remote) = subject();
        let (digest, data) = blob(1, 1000);
        remote.write(&digest, data.clone()).await.unwrap();
        faults.fail_next(Operation::Read, StoreError::Unavailable("down".to_owned()));
        let (one, two) = tokio::join!(store.read(&digest, 0, None), store.read(&digest, 0, None));
        assert!(matches!(one, Err(StoreError::Unavailable(_))));
        assert!(matches!(two, Err(StoreError::Unavailable(_))));
        let read = store.read(&digest, 0, None).await.unwrap().collect(u64::MAX).await;
        assert_eq!(read.unwrap(), data);
        assert!(store.fetches().is_empty());
    }

    fn broken() -> [StoreError; 4] {
        [
            StoreError::DiskFull { path: "blobs".to_owned() },
            StoreError::Io { context: "open".to_owned(), message: "Read-only".to_owned() },
            StoreError::Full { used: 1, limit: 1, setting: "x" },
            StoreError::TooLarge { size: 2, limit: 1 },
        ]
    }

    #[tokio::test]
    async fn a_copy_is_never_required() {
        let dir = tempfile::tempdir().unwrap();
        let all = [Operation::Read, Operation::Write, Operation::Append, Operation::Commit];
        for size in [1000, 3 << 20] {
            let (digest, data) = blob(1, size);
            for error in broken() {
                for failing in all.into_iter().chain([Operation::Link]) {
                    let (faults, remote) = (Faults::default(), MemoryBlobStore::default());
                    remote.write(&digest, data.clone()).await.unwrap();
                    let local = Faulty::new(MemoryBlobStore::default(), faults.clone());
                    faults.fail_always(failing, error.clone());
                    let store = Coalesced::new(Arc::new(local), Arc::new(remote));
                    for (offset, limit) in [(0, None), (10, Some(500)), (900, None)] {
                        let read = store.read(&digest, offset, limit).await.unwrap();
                        let end = limit.map_or(size, |limit| (offset + limit) as usize);
                        let read = read.collect(u64::MAX).await.unwrap();
                        assert_eq!(read, data[offset as usize..end], "{failing:?} {error}");
                    }
                    let linked = store.link(&digest, &dir.path().join("link")).await;
                    assert!(matches!(linked, Ok(false)), "{failing:?} {error}: {linked:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_copy_that_breaks_off_is_read_on_from_where_it_is_kept() {
        struct Breaking(MemoryBlobStore);
        #[async_trait]
        impl BlobStore for Breaking {
            async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
                self.0.find_missing(digests).await
            }
            async fn read(
                &self,
                digest: &Digest,
                offset: u64,
                limit: Option<u64>,
            ) -> Result<Blob, StoreError> {
                let first = self.0.read(digest, offset, limit).await?.collect(u64::MAX).await?;
                let broken = StoreError::Io { context: "read".into(), message: "I/O".into() };
                let pieces = [Ok(first.slice(..first.len() / 3)), Err(broken)];
                Ok(Blob::Stream(Box::pin(futures_util::stream::iter(pieces))))
            }
            async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
                self.0.write(digest, data).await
            }
            async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
                self.0.writer(digest).await
            }
            async fn sync(&self) -> Result<(), StoreError> {
                Ok(())
            }
        }
        let (digest, data) = blob(1, 3 << 20);
        let (local, remote) = (MemoryBlobStore::default(), MemoryBlobStore::default());
        for store in [&local, &remote] {
            store.write(&digest, data.clone()).await.unwrap();
        }
        let store = Coalesced::new(Arc::new(Breaking(local)), Arc::new(remote));
        for (offset, limit) in [(0, None), (1000, Some(2 << 20)), (7, None)] {
            let read = store.read(&digest, offset, limit).await.unwrap();
            let end = limit.map_or(data.len() as u64, |limit| offset + limit) as usize;
            assert_eq!(read.collect(u64::MAX).await.unwrap(), data[offset as usize..end]);
        }
    }

    /// Answers reads of `digest` with other bytes, so many times.
    struct Damaging {
        inner: MemoryBlobStore,
        left: std::sync::atomic::AtomicU32,
    }

    #[async_trait]
    impl BlobStore for Damaging {
        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            self.inner.find_missing(digests).await
        }
        async fn read(
            &self,
            digest: &Digest,
            offset: u64,
            limit: Option<u64>,
        ) -> Result<Blob, StoreError> {
            use std::sync::atomic::Ordering;
            let blob = self.inner.read(digest, offset, limit).await?;
            let take = |left: u32| left.checked_sub(1);
            if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                return Ok(blob);
            }
            let stream = matches!(blob, Blob::Stream(_));
            let mut data = blob.collect(u64::MAX).await?.to_vec();
            *data.last_mut().unwrap() ^= 1;
            let data = Bytes::from(data);
            if !stream {
                return Ok(Blob::Whole(data));
            }
            let half = data.len() / 2;
            let pieces = [Ok(data.slice(..half)), Ok(data.slice(half..))];
            Ok(Blob::Stream(Box::pin(futures_util::stream::iter(pieces))))
        }
        async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
            self.inner.write(digest, data).await
        }
        async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
            self.inner.writer(digest).await
        }
        async fn sync(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn damaged_bytes_are_fetched_again_and_never_handed_out() {
        for (size, full) in [(1000, false), (1000, true), (3 << 20, false), (3 << 20, true)] {
            let (digest, data) = blob(1, size);
            for damaged in [1, 2, 100] {
                let remote = Damaging { inner: MemoryBlobStore::default(), left: damaged.into() };
                remote.write(&digest, data.clone()).await.unwrap();
                let faults = Faults::default();
                if full {
                    let error = StoreError::DiskFull { path: "blobs".to_owned() };
                    faults.fail_always(Operation::Write, error);
                }
                let local = Faulty::new(Verified::new(MemoryBlobStore::default()), faults);
                let store = Coalesced::new(Arc::new(local), Arc::new(remote));
                let read = match store.read(&digest, 0, None).await {
                    Ok(blob) => blob.collect(u64::MAX).await,
                    Err(error) => Err(error),
                };
                match read {
                    Ok(read) => assert_eq!(read, data),
                    // A stream that has begun cannot begin anew; whoever reads tries again.
                    Err(error) => {
                        let begun = full && size > 1000;
                        assert!(damaged == 100 || begun, "{damaged} {size} {error}");
                        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn an_absent_blob_is_not_found() {
        let (store, _, _) = subject();
        let (digest, _) = blob(1, 1000);
        let read = store.read(&digest, 0, None).await;
        assert!(matches!(read, Err(StoreError::NotFound(_))));
    }
}
