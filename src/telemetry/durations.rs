//! A histogram of durations with fixed buckets: adding to it allocates and locks nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets in nanoseconds, from 100 µs to half an hour.
pub const BOUNDS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
    60_000_000_000,
    300_000_000_000,
    1_800_000_000_000,
];

const BUCKETS: usize = BOUNDS.len() + 1;
const NANOS: f64 = 1e9;
/// Longer durations are those of clocks that were set: a week, so that sums stay sums.
const LONGEST: u64 = 7 * 24 * 3600 * 1_000_000_000;

#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Durations {
    pub fn observe(&self, nanos: u64) {
        let nanos = nanos.min(LONGEST);
        let bucket = BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Adds what was observed so far to `total`.
    pub fn add_to(&self, total: &mut Observed) {
        for (bucket, count) in total.buckets.iter_mut().zip(&self.buckets) {
            *bucket += count.load(Ordering::Relaxed);
        }
        total.sum += self.sum.load(Ordering::Relaxed);
    }
}

/// A copy of histograms' counts and sums, taken at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observed {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Observed {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum as f64 / NANOS
    }

    /// Upper bounds in seconds, each with how many fell between it and the one before.
    pub fn buckets(&self) -> [(f64, u64); BUCKETS] {
        std::array::from_fn(|index| {
            let bound = BOUNDS.get(index).map_or(f64::INFINITY, |bound| *bound as f64 / NANOS);
            (bound, self.buckets[index])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let durations = Durations::default();
        for nanos in [0, 100_000, 100_001, u64::MAX] {
            durations.observe(nanos);
        }
        let mut observed = Observed::default();
        durations.add_to(&mut observed);
        durations.add_to(&mut observed);
        assert_eq!(observed.count(), 8);
        let buckets = observed.buckets();
        assert_eq!(buckets[0], (0.0001, 4));
        assert_eq!(buckets[1], (0.00025, 2));
        assert_eq!(buckets[BUCKETS - 1], (f64::INFINITY, 2));
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }
}
