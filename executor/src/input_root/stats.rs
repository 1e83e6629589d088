//! What the local cache of input roots did, and what it holds.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::index::Index;

#[derive(Debug, Default)]
pub struct InputStats {
    hits: AtomicU64,
    built: AtomicU64,
    evicted: AtomicU64,
    bytes: AtomicU64,
    max_bytes: AtomicU64,
    entries: AtomicU64,
}

/// The figures of the input root cache at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InputFigures {
    /// Input roots that were in the cache as a whole.
    pub hits: u64,
    /// Input roots of which something had to be fetched and laid out.
    pub built: u64,
    /// Layers of input roots that were deleted to make room.
    pub evicted: u64,
    /// Bytes on disk, as the cache counts them.
    pub bytes: u64,
    pub max_bytes: u64,
    /// Files, directories and symlinks of all layers.
    pub entries: u64,
}

impl InputStats {
    pub fn figures(&self) -> InputFigures {
        InputFigures {
            hits: self.hits.load(Relaxed),
            built: self.built.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            max_bytes: self.max_bytes.load(Relaxed),
            entries: self.entries.load(Relaxed),
        }
    }

    pub(super) fn limit(&self, bytes: u64) {
        self.max_bytes.store(bytes, Relaxed);
    }

    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Relaxed);
    }

    pub(super) fn built(&self) {
        self.built.fetch_add(1, Relaxed);
    }

    pub(super) fn evicted(&self, trees: usize) {
        self.evicted.fetch_add(trees as u64, Relaxed);
    }

    pub(super) fn holds(&self, index: &Index) {
        self.bytes.store(index.bytes(), Relaxed);
        self.entries.store(index.entries() as u64, Relaxed);
    }
}
