//! What is counted of forges.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one forge has sent to this process and was told by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgeFigures {
    pub name: String,
    /// Deliveries that asked queues for something.
    pub asked: u64,
    /// Copies of ones that were acted on before.
    pub known: u64,
    /// Deliveries that ask for nothing.
    pub ignored: u64,
    /// Deliveries that were not believed: forged, unsigned, late.
    pub refused: u64,
    /// Deliveries that were believed and could not be acted on.
    pub failed: u64,
    /// Statuses and comments that the forge took.
    pub told: u64,
    /// Statuses and comments that it did not take, for good.
    pub untold: u64,
    /// Tries in a row that the forge did not take.
    pub failures: u64,
}

/// The figures of a forge while they are counted.
#[derive(Debug, Default)]
pub struct Counts {
    pub asked: AtomicU64,
    pub known: AtomicU64,
    pub ignored: AtomicU64,
    pub refused: AtomicU64,
    pub failed: AtomicU64,
    pub told: AtomicU64,
    pub untold: AtomicU64,
    pub failures: AtomicU64,
}

/// Adds one to a counter.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    pub fn figures(&self, name: &str) -> ForgeFigures {
        let get = |it: &AtomicU64| it.load(Ordering::Relaxed);
        ForgeFigures {
            name: name.to_owned(),
            asked: get(&self.asked),
            known: get(&self.known),
            ignored: get(&self.ignored),
            refused: get(&self.refused),
            failed: get(&self.failed),
            told: get(&self.told),
            untold: get(&self.untold),
            failures: get(&self.failures),
        }
    }

    /// Notes how many tries in a row have failed.
    pub fn failing(&self, failures: u32) {
        self.failures.store(u64::from(failures), Ordering::Relaxed);
    }
}
