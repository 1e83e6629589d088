//! Counts what a worker and its server send each other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Transfers {
    fetched: Count,
    uploaded: Count,
}

#[derive(Debug, Default)]
struct Count {
    blobs: AtomicU64,
    bytes: AtomicU64,
}

/// The figures of one moment. Bytes are those of blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferFigures {
    pub fetched_blobs: u64,
    pub fetched_bytes: u64,
    /// The server has taken them.
    pub uploaded_blobs: u64,
    pub uploaded_bytes: u64,
}

impl Transfers {
    pub fn figures(&self) -> TransferFigures {
        TransferFigures {
            fetched_blobs: self.fetched.blobs.load(Relaxed),
            fetched_bytes: self.fetched.bytes.load(Relaxed),
            uploaded_blobs: self.uploaded.blobs.load(Relaxed),
            uploaded_bytes: self.uploaded.bytes.load(Relaxed),
        }
    }

    /// A blob, or the first bytes of one that comes in parts.
    pub(super) fn fetched(&self, bytes: u64) {
        self.fetched.blobs.fetch_add(1, Relaxed);
        self.fetched_part(bytes);
    }

    pub(super) fn fetched_part(&self, bytes: u64) {
        self.fetched.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn uploaded(&self, bytes: u64) {
        self.uploaded.blobs.fetch_add(1, Relaxed);
        self.uploaded.bytes.fetch_add(bytes, Relaxed);
    }
}
