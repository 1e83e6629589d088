use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::action_cache::{ActionCache, ActionKey};
use crate::error::StoreError;

/// An action cache in memory, without a limit: for tests.
#[derive(Default)]
pub struct MemoryActionCache {
    results: Mutex<HashMap<ActionKey, Bytes>>,
}

#[async_trait]
impl ActionCache for MemoryActionCache {
    async fn get(&self, key: &ActionKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.results.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    async fn put(&self, key: &ActionKey, result: Bytes) -> Result<(), StoreError> {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.insert(key.clone(), result);
        Ok(())
    }
}
