//! Limits how many bytes move in a second, over all who share the limit.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that are counted at once: whoever moves bytes asks for each so many.
pub const STEP: usize = 64 << 10;

pub struct Rate {
    /// How many bytes may move in a second; `None`: as many as there are.
    limit: Option<u64>,
    /// When the next bytes may pass.
    next: Mutex<Instant>,
}

impl Rate {
    /// `limit`: bytes in a second, at least 1.
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit: limit.map(|it| it.max(1)), next: Mutex::new(Instant::now()) }
    }

    /// How long whoever moves so many bytes now has to wait before.
    pub fn wait_for(&self, bytes: usize) -> Duration {
        let Some(limit) = self.limit else { return Duration::ZERO };
        let takes = Duration::from_secs_f64(bytes as f64 / limit as f64);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let start = (*next).max(now);
        *next = start + takes;
        start - now
    }

    /// Waits for so many bytes. `false`: whoever waits does not go on.
    pub fn pass(&self, bytes: usize, goes_on: &dyn Fn() -> bool) -> bool {
        let until = Instant::now() + self.wait_for(bytes);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !goes_on() {
                return left.is_zero();
            }
            std::thread::park_timeout(left.min(Duration::from_millis(100)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_no_faster_than_they_may() {
        let rate = Rate::new(Some(1_000_000));
        let waits: Vec<_> = (0..4).map(|_| rate.wait_for(500_000)).collect();
        assert!(waits[0].is_zero());
        assert!(waits[3] > Duration::from_millis(1_300), "{waits:?}");
        assert!(!rate.pass(1, &|| false), "who is to end does not wait");
        assert!(Rate::new(None).wait_for(usize::MAX).is_zero());
    }
}
