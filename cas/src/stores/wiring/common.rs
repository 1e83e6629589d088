//! Storage that a single server and a process of a fleet set up in the same way.

use std::sync::Arc;

use super::config::StorageConfig;
use crate::action_cache::SharedActionCache;
use crate::blob::SharedBlobStore;
use crate::clock::Clock;
use crate::error::StoreError;
use crate::promises::Invocations;
use crate::stores::actions::CompletenessChecking;
use crate::stores::disk::{DiskBlobStore, DiskOptions};

/// `invocations`: whose promises may be cut short; `None`: nobody's.
pub async fn open_disk(
    config: &StorageConfig,
    invocations: Option<Invocations>,
    clock: &Clock,
) -> Result<DiskBlobStore, StoreError> {
    DiskBlobStore::open(DiskOptions {
        dir: config.data_dir.join("blobs"),
        max_size: config.max_size,
        lease: config.lease,
        invocations,
        clock: clock.clone(),
    })
    .await
}

/// An action cache that answers with complete results only, and keeps recent ones in memory.
pub fn complete(
    config: &StorageConfig,
    actions: SharedActionCache,
    blobs: SharedBlobStore,
    clock: Clock,
) -> SharedActionCache {
    let memory = usize::try_from(config.action_cache_memory).unwrap_or(usize::MAX);
    Arc::new(CompletenessChecking::new(actions, blobs, memory, clock))
}
