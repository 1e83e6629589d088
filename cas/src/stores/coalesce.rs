//! A local store in front of a remote one, which fetches each absent blob once, however many
//! ask for it at the same time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::range::clip;
use crate::blob::{Blob, BlobStore, BlobWriter, SharedBlobStore};
use crate::digest::Digest;
use crate::error::StoreError;

type Outcome = Option<Result<(), StoreError>>;

/// The remote store is the truth; the local one holds copies, and a blob is read from there
/// only. A fetch goes on when all who waited for it went away.
pub struct Coalesced {
    local: SharedBlobStore,
    remote: SharedBlobStore,
    fetches: Arc<Mutex<HashMap<Digest, watch::Receiver<Outcome>>>>,
}

impl Coalesced {
    pub fn new(local: SharedBlobStore, remote: SharedBlobStore) -> Self {
        Self { local, remote, fetches: Arc::default() }
    }

    fn fetches(&self) -> MutexGuard<'_, HashMap<Digest, watch::Receiver<Outcome>>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the blob is in the local store.
    async fn fetch(&self, digest: &Digest) -> Result<(), StoreError> {
        let mut outcome = self.join_or_begin(digest);
        let gone = |_| StoreError::Unavailable(format!("the fetch of {digest} was cut off"));
        let outcome = outcome.wait_for(Option::is_some).await.map_err(gone)?;
        outcome.clone().unwrap_or(Ok(()))
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
        tokio::spawn(async move {
            let result = copy(&*remote, &*local, &fetch.digest).await;
            // Out of the table first: who comes now finds the blob, or tries anew.
            drop(fetch);
            sender.send_replace(Some(result));
        });
        receiver
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

async fn copy(from: &dyn BlobStore, to: &dyn BlobStore, digest: &Digest) -> Result<(), StoreError> {
    match from.read(digest, 0, None).await? {
        Blob::Whole(data) => to.write(digest, data).await,
        Blob::Stream(mut pieces) => {
            let mut writer = to.writer(digest).await?;
            while let Some(piece) = pieces.next().await {
                writer.write(piece?).await?;
            }
            writer.commit().await
        }
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
        match self.local.read(digest, offset, limit).await {
            Err(StoreError::NotFound(_)) => {}
            result => return result,
        }
        clip(digest, offset, limit)?;
        match self.fetch(digest).await {
            Ok(()) => self.local.read(digest, offset, limit).await,
            // No room for a copy: read past it.
            Err(StoreError::Full { .. } | StoreError::TooLarge { .. }) => {
                self.remote.read(digest, offset, limit).await
            }
            Err(error) => Err(error),
        }
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
            Err(StoreError::NotFound(_)) => {}
            result => return result,
        }
        self.fetch(digest).await?;
        self.local.link(digest, destination).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::contract::blob;
    use crate::stores::faults::{Faults, Faulty, Operation};
    use crate::stores::memory::MemoryBlobStore;

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

    #[tokio::test]
    async fn an_absent_blob_is_not_found() {
        let (store, _, _) = subject();
        let (digest, _) = blob(1, 1000);
        let read = store.read(&digest, 0, None).await;
        assert!(matches!(read, Err(StoreError::NotFound(_))));
    }
}
