//! Pins: blobs that stay until whoever pinned them lets go, whatever else needs their room.
//!
//! A pin is a record. While it is there, the store is asked again and again to promise the blob for longer
//! than any build is promised anything ([`BlobStore::pin`]): what a store may evict is decided by its
//! promises alone, and a crash anywhere leaves a record whose promise is made anew, or a promise that ends by
//! itself. Blobs are counted and pinned as often as somebody does so.

mod key;
mod pin;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kiln_net::causes::chain;

use self::key::{PINS, key, of_blob, parse};
use crate::blob::SharedBlobStore;
use crate::digest::Digest;
use crate::error::{Reason, StoreError};
use crate::records::{Expect, RecordsError, SharedRecords, Write};

pub use self::key::MAX_NAME;
pub use self::pin::Pin;

/// Records read, and blobs pinned, together.
const PAGE: usize = 500;
/// How often all promises are made anew.
const RENEW_EVERY: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, thiserror::Error)]
pub enum PinError {
    /// Only what is stored can be pinned.
    #[error("blob {0} cannot be pinned: it is not in the store")]
    Absent(Digest),
    #[error("{0:?} is no name for a pin: 1 to {MAX_NAME} letters, digits, dots and dashes are")]
    Name(String),
    #[error(transparent)]
    Blobs(#[from] StoreError),
    #[error(transparent)]
    Records(#[from] RecordsError),
}

impl From<PinError> for StoreError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Absent(digest) => Self::NotFound(digest),
            PinError::Blobs(error) => error,
            PinError::Records(error) => error.into(),
            error @ PinError::Name(_) => Self::invalid(Reason::of(error)),
        }
    }
}

/// Figures of all pins, as of the last time that they were all seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PinFigures {
    /// Blobs that somebody has pinned, each counted once.
    pub blobs: u64,
    pub bytes: u64,
    /// Of these, blobs that are not there: they were lost with their medium.
    pub lost: u64,
}

/// All pins of a store. Clones share them.
#[derive(Clone)]
pub struct Pins {
    blobs: SharedBlobStore,
    records: SharedRecords,
    figures: Arc<Mutex<PinFigures>>,
}

impl Pins {
    pub fn new(blobs: SharedBlobStore, records: SharedRecords) -> Self {
        Self { blobs, records, figures: Arc::default() }
    }

    /// Pins a blob that is in the store. It is made durable first; a pin that is there already is success.
    pub async fn pin(&self, pin: &Pin) -> Result<(), PinError> {
        self.pin_all(std::slice::from_ref(pin)).await
    }

    /// Pins several blobs that are in the store, or none of them where one is not.
    pub async fn pin_all(&self, pins: &[Pin]) -> Result<(), PinError> {
        let mut puts = Vec::with_capacity(pins.len());
        for pin in pins {
            let key =
                key(pin).ok_or_else(|| PinError::Name(format!("{}/{}", pin.kind, pin.name)))?;
            puts.push(put(key, pin.at));
        }
        let digests: Vec<_> = pins.iter().map(|pin| pin.digest).collect();
        // Promised before they are pinned: they cannot go in between.
        for page in digests.chunks(PAGE) {
            if let Some(absent) = self.blobs.find_missing(page).await?.first() {
                return Err(PinError::Absent(*absent));
            }
        }
        self.blobs.sync().await?;
        for page in puts.chunks(PAGE) {
            self.records.write(page.to_vec()).await?;
        }
        // Letting go takes them off again.
        self.count(&digests);
        for page in digests.chunks(PAGE) {
            if let Some(absent) = self.blobs.pin(page).await?.first().copied() {
                self.unpin_all(pins).await?;
                return Err(PinError::Absent(absent));
            }
        }
        Ok(())
    }

    /// Removes a pin; one that is not there is no error. A blob without any other pin may be evicted as all others,
    /// once its lease has ended.
    pub async fn unpin(&self, pin: &Pin) -> Result<(), PinError> {
        self.unpin_all(std::slice::from_ref(pin)).await
    }

    /// Removes several pins, as [`Pins::unpin`] removes one.
    pub async fn unpin_all(&self, pins: &[Pin]) -> Result<(), PinError> {
        let named = pins.iter().filter_map(|pin| Some((key(pin)?, pin.digest)));
        let (keys, digests): (Vec<String>, Vec<Digest>) = named.unzip();
        for page in keys.chunks(PAGE) {
            self.records.write(page.iter().cloned().map(delete).collect()).await?;
        }
        for page in digests.chunks(PAGE) {
            let free = self.pinned(page, false).await?;
            if free.is_empty() {
                continue;
            }
            self.blobs.unpin(&free).await?;
            // Somebody may have pinned them meanwhile; whatever crashes in between, they stay for a lease, and
            // pins are made anew sooner.
            let again = self.pinned(&free, true).await?;
            if !again.is_empty() {
                self.blobs.pin(&again).await?;
            }
            self.count_off(&free);
        }
        Ok(())
    }

    /// Those of `digests` that have a pin (`wanted` is true), or that have none (`wanted` is false).
    async fn pinned(&self, digests: &[Digest], wanted: bool) -> Result<Vec<Digest>, PinError> {
        let prefixes: Vec<String> = digests.iter().map(of_blob).collect();
        let pins = self.records.list_each(&prefixes, 1).await?;
        let found = digests.iter().zip(pins).filter(|(_, pins)| pins.is_empty() != wanted);
        Ok(found.map(|(digest, _)| *digest).collect())
    }

    fn count(&self, digests: &[Digest]) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.blobs += digests.len() as u64;
        figures.bytes += bytes_of(digests);
    }

    fn count_off(&self, digests: &[Digest]) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.blobs = figures.blobs.saturating_sub(digests.len() as u64);
        figures.bytes = figures.bytes.saturating_sub(bytes_of(digests));
    }

    /// Pins of a kind in order, at most `limit`, behind one of them.
    pub async fn list(
        &self,
        kind: &str,
        after: Option<&Pin>,
        limit: usize,
    ) -> Result<Vec<Pin>, PinError> {
        let mut after = after.and_then(key);
        let mut found = Vec::new();
        while found.len() < limit {
            let page = self.records.list(PINS, after.as_deref(), false, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            let pins = page.iter().filter_map(parse).filter(|pin| pin.kind == kind);
            found.extend(pins.take(limit - found.len()));
        }
        Ok(found)
    }

    /// Makes the promises of all pins anew, and counts them.
    pub async fn renew(&self) -> Result<PinFigures, PinError> {
        let mut figures = PinFigures::default();
        let (mut after, mut last) = (None::<String>, None);
        loop {
            let page = self.records.list(PINS, after.as_deref(), false, PAGE).await?;
            let Some(end) = page.last() else { break };
            after = Some(end.key.clone());
            let mut digests: Vec<_> = page.iter().filter_map(parse).map(|pin| pin.digest).collect();
            digests.dedup();
            // The pins of one blob may lie on two pages.
            digests.retain(|digest| last != Some(*digest));
            last = digests.last().copied().or(last);
            figures.blobs += digests.len() as u64;
            figures.bytes += bytes_of(&digests);
            figures.lost += self.blobs.pin(&digests).await?.len() as u64;
        }
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
        Ok(figures)
    }

    /// Makes promises anew from time to time. Never returns; drop it to end it.
    pub async fn keep_renewed(self) {
        let mut lost = 0;
        loop {
            match self.renew().await {
                Ok(figures) if figures.lost > lost => {
                    lost = figures.lost;
                    tracing::error!(lost, "pinned blobs are gone: their medium has lost them");
                }
                Ok(figures) => lost = figures.lost,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "pins are not renewed for now");
                }
            }
            tokio::time::sleep(RENEW_EVERY).await;
        }
    }

    pub fn figures(&self) -> PinFigures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(digests: &[Digest]) -> u64 {
    digests.iter().map(|digest| digest.size).sum()
}

fn put(key: String, at: u64) -> Write {
    Write { key, expect: Expect::Anything, value: Some(Bytes::from(at.to_string())) }
}

fn delete(key: String) -> Write {
    Write { key, expect: Expect::Anything, value: None }
}
