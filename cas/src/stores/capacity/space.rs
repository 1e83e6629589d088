//! What writes in progress have set aside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A background pass begins above this share of the limit, in percent...
const HIGH_WATERMARK: u64 = 95;
/// ...and ends below this one.
const LOW_WATERMARK: u64 = 90;

pub struct Space {
    /// Most bytes of all files.
    pub max: u64,
    /// What writes may fill: compaction needs the rest for the copies it makes.
    pub limit: u64,
    reserved: Arc<AtomicU64>,
}

/// Bytes set aside until dropped. Drop it after the bytes were counted as used, so that no
/// moment shows too much room.
pub struct Reservation {
    reserved: Arc<AtomicU64>,
    bytes: u64,
}

impl Reservation {
    /// Takes over what another one has set aside in the same store.
    pub fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.reserved.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Space {
    pub fn new(max: u64, headroom: u64) -> Self {
        Self { max, limit: max.saturating_sub(headroom), reserved: Arc::default() }
    }

    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    pub fn high(&self) -> u64 {
        self.limit / 100 * HIGH_WATERMARK
    }

    pub fn low(&self) -> u64 {
        self.limit / 100 * LOW_WATERMARK
    }

    /// Sets nothing aside yet.
    pub fn nothing(&self) -> Reservation {
        Reservation { reserved: self.reserved.clone(), bytes: 0 }
    }

    /// `used` is asked for after the bytes are set aside: what another write turned from
    /// reserved into used in between is counted twice rather than not at all.
    pub fn try_reserve(&self, bytes: u64, used: impl FnOnce() -> u64) -> Option<Reservation> {
        let reserved = self.reserved.fetch_add(bytes, Ordering::AcqRel).saturating_add(bytes);
        let reservation = Reservation { reserved: self.reserved.clone(), bytes };
        (used().saturating_add(reserved) <= self.limit).then_some(reservation)
    }
}
