//! Seconds for leases and access times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Whole seconds since the Unix epoch. The system clock is read once and carried on by the
/// monotonic clock: setting the machine's time cannot end a lease early.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System { base: u32, since: Instant },
    Manual(Arc<AtomicU32>),
}

impl Clock {
    pub fn system() -> Self {
        let base = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
        Self(Source::System { base, since: Instant::now() })
    }

    /// A clock that stands still until [`Clock::advance`].
    pub fn manual(start: u32) -> Self {
        Self(Source::Manual(Arc::new(AtomicU32::new(start))))
    }

    pub fn now(&self) -> u32 {
        match &self.0 {
            Source::System { base, since } => base.saturating_add(since.elapsed().as_secs() as u32),
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock and all its clones; a system clock ignores it.
    pub fn advance(&self, seconds: u32) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(seconds, Ordering::Relaxed);
        }
    }
}
