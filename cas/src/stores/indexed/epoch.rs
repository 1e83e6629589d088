//! Whether the index is still the one that this process knows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::parts::Parts;
use crate::error::StoreError;

#[derive(Default)]
pub struct Epochs {
    /// The one that was seen last. Held by whoever asks.
    last: tokio::sync::Mutex<Option<u64>>,
    /// When the question was put that was answered last.
    asked: Mutex<Option<Instant>>,
    /// Nobody has looked yet whether index and objects belong together.
    unmarked: AtomicBool,
}

impl Epochs {
    fn asked(&self) -> MutexGuard<'_, Option<Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    /// Returns when the index was asked for its epoch within the last interval: what is
    /// remembered is of an index that was there then. Errors: it does not answer.
    pub async fn confirm_epoch(&self) -> Result<(), StoreError> {
        if self.epoch_is_fresh() {
            return Ok(());
        }
        let mut last = self.epochs.last.lock().await;
        // Perhaps somebody asked meanwhile.
        if self.epoch_is_fresh() {
            return Ok(());
        }
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.ask_epoch(&mut last).await.map(drop)
    }

    fn epoch_is_fresh(&self) -> bool {
        self.epochs.asked().is_some_and(|asked| asked.elapsed() < self.options.interval)
    }

    /// Forgets everything when the index is another one.
    async fn ask_epoch(&self, last: &mut Option<u64>) -> Result<u64, StoreError> {
        let asked = Instant::now();
        let epoch = self.index.epoch().await?;
        if *last != Some(epoch) {
            self.known.forget_all();
            self.epochs.unmarked.store(true, Ordering::Release);
        }
        *last = Some(epoch);
        *self.epochs.asked() = Some(asked);
        Ok(epoch)
    }

    /// Looks at the index, and whether it belongs to the objects where that is not known.
    pub async fn check_epoch(&self) -> Result<(), StoreError> {
        let epoch = self.ask_epoch(&mut *self.epochs.last.lock().await).await?;
        let unmarked = self.epochs.unmarked.swap(false, Ordering::AcqRel);
        if !unmarked && !self.counters.incomplete.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.check_mark(epoch).await.inspect_err(|_| {
            self.epochs.unmarked.store(true, Ordering::Release);
        })
    }

    pub fn is_unmarked(&self) -> bool {
        self.epochs.unmarked.load(Ordering::Acquire)
    }

    /// Looks whether index and objects belong together; an empty store is marked as such.
    async fn check_mark(&self, epoch: u64) -> Result<(), StoreError> {
        let marked = self.objects.mark().await? == Some(epoch);
        let complete = marked || self.objects.list(None).await?.0.is_empty();
        if complete && !marked {
            self.objects.set_mark(epoch).await?;
        }
        let was_incomplete = self.counters.incomplete.swap(!complete, Ordering::Relaxed);
        if !complete && !was_incomplete {
            tracing::warn!(
                "the index was lost: until it is rebuilt, blobs that the object store holds are \
                 reported missing, and no orphans are collected"
            );
        }
        Ok(())
    }
}
