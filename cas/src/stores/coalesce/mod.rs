//! A local store in front of a remote one, which fetches each absent blob once, however many
//! ask for it at the same time.

mod copy;
mod rest;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_net::causes::chain;
use tokio::sync::watch;
use tokio::time::Instant;

use self::copy::{CopyError, DAMAGED_FETCHES, copy};
use self::rest::Rest;
use crate::blob::{Blob, BlobStore, BlobWriter, SharedBlobStore};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::checked::{checked, is_damage};
use crate::stores::range::clip;

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
        let gone = |_| StoreError::unavailable(format!("the fetch of {digest} was cut off"));
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

    /// A part of the blob from the remote store, checked where it is read whole.
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
        tracing::warn!(
            error = %chain(error),
            "no local copies of blobs: they are read from where they are kept"
        );
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

    /// Copies are never pinned: nothing depends on them.
    async fn pin(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.remote.pin(digests).await
    }

    async fn unpin(&self, digests: &[Digest]) -> Result<(), StoreError> {
        self.remote.unpin(digests).await
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
