use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::action_cache::{ActionCache, ActionKey};
use crate::error::StoreError;

/// An action cache in memory, without a limit: for tests.
#[derive(Default)]
pub struct MemoryActionCache {
    results: Mutex<HashMap<ActionKey, Bytes>>,
    failures: AtomicU64,
}

impl MemoryActionCache {
    fn results(&self) -> MutexGuard<'_, HashMap<ActionKey, Bytes>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses these results, as Redis does that fails over to a replica which has not heard of them.
    pub fn fail_over(&self, lost: &[ActionKey]) {
        let mut results = self.results();
        lost.iter().for_each(|key| drop(results.remove(key)));
        self.failures.fetch_add(1, Ordering::AcqRel);
    }
}

#[async_trait]
impl ActionCache for MemoryActionCache {
    async fn get(&self, key: &ActionKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.results().get(key).cloned())
    }

    async fn put(&self, key: &ActionKey, result: Bytes) -> Result<(), StoreError> {
        self.results().insert(key.clone(), result);
        Ok(())
    }

    fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }
}
