//! How much the streams of each instance take.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// What the streams of each instance take, as far as this server knows: as of when all were counted, and what it
/// has appended since.
#[derive(Debug, Default)]
pub struct Taken(Mutex<HashMap<String, u64>>);

impl Taken {
    /// Counts what was appended, and says what the instance's streams take now.
    pub(super) fn add(&self, instance: &str, bytes: u64) -> u64 {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.entry(instance.to_owned()).or_default();
        *own = own.saturating_add(bytes);
        *own
    }

    pub(super) fn set(&self, counted: HashMap<String, u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    }

    pub(super) fn most(&self) -> u64 {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.values().copied().max().unwrap_or(0)
    }
}
