//! How much of the limit of the whole store is in use. Pure but for the question to the index.

use std::sync::atomic::{AtomicU64, Ordering};

use super::index::BlobIndex;
use crate::error::StoreError;

/// Above this share of the limit garbage is collected, down to the lower one.
const HIGH: (u64, u64) = (95, 100);
const LOW: (u64, u64) = (90, 100);

/// Bytes of all blobs of the fleet, and their limit.
pub struct Space {
    max: u64,
    /// What the index last said, and what this process wrote since.
    used: AtomicU64,
}

impl Space {
    /// `max`: most bytes of all blobs; 0: no limit.
    pub fn new(max: u64) -> Self {
        Self { max, used: 0.into() }
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn limited(&self) -> bool {
        self.max > 0
    }

    /// Whether so much is in use that garbage is to be collected.
    pub fn is_high(&self) -> bool {
        self.limited() && self.used() > share(self.max, HIGH)
    }

    /// Asks the index what is in use.
    pub async fn count(&self, index: &dyn BlobIndex) -> Result<u64, StoreError> {
        let used = index.usage().await?.bytes;
        self.used.store(used, Ordering::Relaxed);
        Ok(used)
    }

    /// Bytes that a pass is to free when `used` are in use and `need` are about to be.
    pub fn excess(&self, used: u64, need: u64) -> u64 {
        let crowded = self.limited()
            && (used > share(self.max, HIGH) || used.saturating_add(need) > self.max);
        if !crowded {
            return 0;
        }
        used.saturating_sub(share(self.max, LOW).min(self.max.saturating_sub(need)))
    }

    /// Counts `size` as used if that keeps to `limit`.
    pub fn take(&self, size: u64, limit: u64) -> bool {
        let fits = |used: u64| used.checked_add(size).filter(|used| *used <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

fn share(of: u64, (part, whole): (u64, u64)) -> u64 {
    (u128::from(of) * u128::from(part) / u128::from(whole)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_the_high_mark_or_in_the_way_goes() {
        let space = Space::new(1000);
        assert_eq!(space.excess(950, 0), 0);
        assert_eq!(space.excess(951, 0), 51, "down to the low mark");
        assert_eq!(space.excess(901, 100), 1);
        assert_eq!(space.excess(500, 800), 300);
        assert_eq!(space.excess(500, u64::MAX), 500);
        assert_eq!(Space::new(0).excess(u64::MAX, 1), 0, "there is no limit");
    }

    #[test]
    fn only_what_fits_is_taken() {
        let space = Space::new(100);
        assert!(space.take(96, 100) && space.is_high());
        assert!(!space.take(5, 100) && !space.take(u64::MAX, u64::MAX));
        assert!(space.take(4, 100));
        assert_eq!(space.used(), 100);
    }
}
