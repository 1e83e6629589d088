//! An action result is a hit only if all blobs that it needs are there, and from then on they
//! are promised. A hit that is remembered here and that the cache has lost since is put there again:
//! nobody else could answer with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_net::causes::chain;
use kiln_protos::reapi;
use prost::Message;

use super::closure::{ClosureError, closure};
use super::recent::Recent;
use crate::action_cache::{ActionCache, ActionKey, SharedActionCache};
use crate::blob::SharedBlobStore;
use crate::clock::Clock;
use crate::digest::Digest;
use crate::error::StoreError;

/// Seconds after which a result in memory is asked for again below: that keeps its access time
/// there fresh, and bounds how long another process's overwrite goes unseen.
const REFRESH_AFTER: u32 = 300;
/// Bytes that an entry takes besides its result and its closure.
const ENTRY_OVERHEAD: usize = 256;

/// Keeps the encoded results and their closures of recent hits in memory: such a hit costs one
/// look-up here and one `find_missing`.
pub struct CompletenessChecking {
    actions: SharedActionCache,
    blobs: SharedBlobStore,
    clock: Clock,
    memory: Mutex<Memory>,
}

struct Memory {
    recent: Recent<ActionKey, Arc<Hit>>,
    /// Counts puts: a hit that was read before a put is not remembered after it.
    puts: u64,
}

struct Hit {
    result: Bytes,
    closure: Vec<Digest>,
    read_at: u32,
    /// Failures of the cache that were known before it was read.
    failures: u64,
}

impl CompletenessChecking {
    /// `memory`: most bytes of results kept in memory.
    pub fn new(
        actions: SharedActionCache,
        blobs: SharedBlobStore,
        memory: usize,
        clock: Clock,
    ) -> Self {
        let memory = Mutex::new(Memory { recent: Recent::new(memory), puts: 0 });
        Self { actions, blobs, clock, memory }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(&self, key: &ActionKey) -> Result<Option<Arc<Hit>>, StoreError> {
        let failures = self.actions.failures();
        let puts = {
            let mut memory = self.memory();
            if let Some(hit) = memory.recent.get(key)
                && self.clock.now() < hit.read_at.saturating_add(REFRESH_AFTER)
            {
                return Ok(Some(hit));
            }
            memory.puts
        };
        let Some(result) = self.actions.get(key).await? else { return Ok(None) };
        let Some(closure) = self.closure(key, &result).await? else { return Ok(None) };
        let hit = Arc::new(Hit { result, closure, read_at: self.clock.now(), failures });
        self.remember(key, &hit, puts);
        Ok(Some(hit))
    }

    /// `puts`: those that there were before the hit was read.
    fn remember(&self, key: &ActionKey, hit: &Arc<Hit>, puts: u64) {
        let bytes = ENTRY_OVERHEAD
            + key.instance.len()
            + hit.result.len()
            + hit.closure.len() * size_of::<Digest>();
        let mut memory = self.memory();
        if memory.puts == puts {
            memory.recent.insert(key.clone(), hit.clone(), bytes);
        }
    }

    /// Whether all blobs of a hit are there, which are promised then.
    async fn is_whole(&self, key: &ActionKey, hit: &Hit) -> Result<bool, StoreError> {
        let whole = self.blobs.find_missing(&hit.closure).await?.is_empty();
        if !whole {
            self.memory().recent.remove(key);
        }
        Ok(whole)
    }

    /// Puts a hit, whose blobs are there, where it is lost. What another process has put there since it
    /// was read stays, and is read the next time.
    async fn give_back(&self, key: &ActionKey, hit: &Hit) -> Result<(), StoreError> {
        let puts = self.memory().puts;
        let failures = self.actions.failures();
        match self.actions.get(key).await? {
            None => self.actions.put(key, hit.result.clone()).await?,
            Some(result) if result != hit.result => {
                self.memory().recent.remove(key);
                return Ok(());
            }
            Some(_) => {}
        }
        let (result, closure) = (hit.result.clone(), hit.closure.clone());
        let hit = Hit { result, closure, read_at: self.clock.now(), failures };
        self.remember(key, &Arc::new(hit), puts);
        Ok(())
    }

    /// `None`: the closure cannot be known, so that the result is of no use.
    async fn closure(
        &self,
        key: &ActionKey,
        result: &Bytes,
    ) -> Result<Option<Vec<Digest>>, StoreError> {
        let decoded = match reapi::ActionResult::decode(result.clone()) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::warn!(
                    action = %key.action, error = %chain(&error),
                    "ignored an unreadable result"
                );
                return Ok(None);
            }
        };
        match closure(&decoded, key.action.function, &*self.blobs).await {
            Ok(closure) => Ok(Some(closure)),
            Err(ClosureError::Missing(_)) => Ok(None),
            Err(ClosureError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(
                    action = %key.action, error = %chain(&error),
                    "ignored a malformed result"
                );
                Ok(None)
            }
        }
    }
}

#[async_trait]
impl ActionCache for CompletenessChecking {
    async fn get(&self, key: &ActionKey) -> Result<Option<Bytes>, StoreError> {
        let Some(hit) = self.look_up(key).await? else { return Ok(None) };
        if !self.is_whole(key, &hit).await? {
            return Ok(None);
        }
        if hit.failures != self.actions.failures() {
            // What was known of the blobs may be of before the failure as well.
            if !self.is_whole(key, &hit).await? {
                return Ok(None);
            }
            if let Err(error) = self.give_back(key, &hit).await {
                // It is a hit all the same, and tried again with the next one.
                tracing::debug!(
                    action = %key.action, error = %chain(&error),
                    "a result was not given back to the cache"
                );
            }
        }
        Ok(Some(hit.result.clone()))
    }

    async fn put(&self, key: &ActionKey, result: Bytes) -> Result<(), StoreError> {
        let stored = self.actions.put(key, result).await;
        // Also after a failure, which may have come after the write.
        let mut memory = self.memory();
        memory.puts += 1;
        memory.recent.remove(key);
        stored
    }

    fn failures(&self) -> u64 {
        self.actions.failures()
    }
}
