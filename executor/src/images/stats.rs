//! Counts what a worker did for its images.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::problem::Problem;
use super::pull::Pulled;

#[derive(Debug, Default)]
pub struct ImageStats {
    hits: AtomicU64,
    pulled: AtomicU64,
    /// Pulls that failed for good: the request, the image or the configuration has to change.
    refused: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    fetched_bytes: AtomicU64,
    nanos: AtomicU64,
    stored: AtomicU64,
    stored_bytes: AtomicU64,
}

/// The figures about images at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageFigures {
    /// Actions whose image was on disk already.
    pub hits: u64,
    /// How many pulls ended, by how they ended.
    pub pulled: u64,
    pub refused: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Compressed bytes of layers that were fetched.
    pub fetched_bytes: u64,
    /// Time that pulls took which ended with an image.
    pub pull_time: Duration,
    pub stored: u64,
    pub stored_bytes: u64,
}

/// A pull that counts as cancelled unless it ends.
pub struct Unfinished(Option<Arc<ImageStats>>);

impl ImageStats {
    pub fn figures(&self) -> ImageFigures {
        ImageFigures {
            hits: self.hits.load(Relaxed),
            pulled: self.pulled.load(Relaxed),
            refused: self.refused.load(Relaxed),
            failed: self.failed.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            fetched_bytes: self.fetched_bytes.load(Relaxed),
            pull_time: Duration::from_nanos(self.nanos.load(Relaxed)),
            stored: self.stored.load(Relaxed),
            stored_bytes: self.stored_bytes.load(Relaxed),
        }
    }

    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Relaxed);
    }

    pub(super) fn begin(self: &Arc<Self>) -> Unfinished {
        Unfinished(Some(self.clone()))
    }

    pub(super) fn set_store(&self, images: u64, bytes: u64) {
        self.stored.store(images, Relaxed);
        self.stored_bytes.store(bytes, Relaxed);
    }
}

impl Unfinished {
    pub(super) fn end(mut self, outcome: &Result<Pulled, Problem>, time: Duration) {
        let Some(stats) = self.0.take() else { return };
        match outcome {
            Ok(pulled) => {
                stats.pulled.fetch_add(1, Relaxed);
                stats.fetched_bytes.fetch_add(pulled.fetched, Relaxed);
                let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                stats.nanos.fetch_add(nanos, Relaxed);
            }
            Err(Problem::Final(_)) => drop(stats.refused.fetch_add(1, Relaxed)),
            Err(_) => drop(stats.failed.fetch_add(1, Relaxed)),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stats) = &self.0 {
            stats.cancelled.fetch_add(1, Relaxed);
        }
    }
}
