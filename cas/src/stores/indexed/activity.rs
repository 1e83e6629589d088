//! Whether the store is used: an idle process looks at the index less often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what callers ask of the index. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<AtomicU64>);

impl Activity {
    /// A caller asks something.
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often callers have asked.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
