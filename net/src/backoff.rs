//! How long to wait before something is tried again: longer each time, and never as long as others
//! who failed at the same moment.

use std::time::Duration;

/// Pauses that double, from the first to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The pause after so many failures in a row, at least 1. Its later half is random.
    pub fn pause(self, failures: u32) -> Duration {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let full = self.first.saturating_mul(doubled).min(self.longest);
        full / 2 + spread(full / 2)
    }
}

/// A random part of `time`: what many do at the same moment spreads over it.
pub fn spread(time: Duration) -> Duration {
    time.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_never_vanish() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(3));
        let backoff = Backoff::new(first, longest);
        for (failures, full) in [(0, 50), (1, 50), (2, 100), (6, 1_600), (7, 3_000), (99, 3_000)] {
            let full = Duration::from_millis(full);
            for _ in 0..20 {
                let pause = backoff.pause(failures);
                assert!(pause >= full / 2 && pause <= full, "{failures}: {pause:?}");
            }
        }
        let pauses: Vec<_> = (0..20).map(|_| backoff.pause(1)).collect();
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "they are all the same");
    }
}
