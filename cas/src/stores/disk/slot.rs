//! What is known in memory of one large blob.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::digest::Digest;
use crate::promises::Times;

/// Seconds after which a blob is checked again when it is read whole.
const RECHECK_AFTER: u32 = 3600;

pub struct Slot {
    pub digest: Digest,
    accessed: AtomicU32,
    leased_until: AtomicU32,
    holders: AtomicU32,
    /// When the bytes were last known to match the digest; 0: not by this process.
    checked_at: AtomicU32,
    /// Modification time of the file then, nanoseconds.
    checked_mtime: AtomicI64,
}

impl Slot {
    pub fn new(digest: Digest, times: Times) -> Self {
        Self {
            digest,
            accessed: times.accessed.into(),
            leased_until: times.leased_until.into(),
            holders: times.holders.into(),
            checked_at: AtomicU32::new(0),
            checked_mtime: AtomicI64::new(0),
        }
    }

    pub fn times(&self) -> Times {
        Times {
            accessed: self.accessed.load(Ordering::Relaxed),
            leased_until: self.leased_until.load(Ordering::Relaxed),
            holders: self.holders.load(Ordering::Relaxed),
        }
    }

    /// Raises the times.
    pub fn touch(&self, times: Times) {
        self.accessed.fetch_max(times.accessed, Ordering::Relaxed);
        self.leased_until.fetch_max(times.leased_until, Ordering::Relaxed);
        self.holders.fetch_or(times.holders, Ordering::Relaxed);
    }

    /// Lets the lease end at `until` if it ends later.
    pub fn shorten(&self, until: u32) {
        self.leased_until.fetch_min(until, Ordering::Relaxed);
    }

    /// Whether the bytes of `file` should be compared with the digest when they are read whole: not
    /// by this process yet, long ago, or the file was touched since.
    pub fn check_due(&self, file: &File, now: u32) -> bool {
        let Ok(metadata) = file.metadata() else { return true };
        let checked_at = self.checked_at.load(Ordering::Relaxed);
        checked_at.saturating_add(RECHECK_AFTER) <= now
            || metadata.len() != self.digest.size
            || self.checked_mtime.load(Ordering::Relaxed) != mtime(&metadata)
    }

    /// The bytes matched the digest.
    pub fn mark_checked(&self, metadata: &Metadata, now: u32) {
        self.checked_mtime.store(mtime(metadata), Ordering::Relaxed);
        self.checked_at.store(now, Ordering::Relaxed);
    }
}

fn mtime(metadata: &Metadata) -> i64 {
    metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec())
}
