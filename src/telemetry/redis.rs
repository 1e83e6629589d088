//! How long Redis takes to answer.

use std::sync::atomic::{AtomicU64, Ordering};

use kiln_cas::redis::{Flush, Observer};

use super::durations::{Durations, Observed};

/// Told of each pipeline that this process sends.
#[derive(Debug, Default)]
pub struct RedisTimes {
    durations: Durations,
    calls: AtomicU64,
    failed: AtomicU64,
}

impl RedisTimes {
    pub fn durations(&self) -> Observed {
        let mut observed = Observed::default();
        self.durations.add_to(&mut observed);
        observed
    }

    /// The number of scripts and commands that were sent to Redis.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The number of pipelines (batches of commands) that Redis did not answer.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl Observer for RedisTimes {
    fn flushed(&self, flush: &Flush) {
        self.durations.observe(u64::try_from(flush.elapsed.as_nanos()).unwrap_or(u64::MAX));
        self.calls.fetch_add(flush.calls as u64, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(flush.failed), Ordering::Relaxed);
    }
}
