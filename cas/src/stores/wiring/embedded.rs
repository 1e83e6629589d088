//! Storage of a single server: everything is in one directory.

use std::sync::{Arc, Mutex};

use super::common::{complete, open_disk};
use super::config::StorageConfig;
use super::stats::StorageStats;
use super::storage::{Opened, Storage};
use crate::blob::SharedBlobStore;
use crate::clock::Clock;
use crate::error::StoreError;
use crate::pins::Pins;
use crate::promises::Invocations;
use crate::stores::actions::{DiskActionCache, DiskActionCacheOptions};
use crate::stores::directory::DirectoryLock;
use crate::stores::group::blocking;
use crate::stores::records::DiskRecords;
use crate::stores::verify::Verified;

pub async fn open(
    config: &StorageConfig,
    lock: Mutex<Option<DirectoryLock>>,
) -> Result<Storage, StoreError> {
    let path = config.data_dir.join("records.redb");
    let records = blocking(move || DiskRecords::open(&path).map_err(StoreError::from));
    let records = Arc::new(records.await?);
    let clock = Clock::system();
    let invocations = Invocations::new(clock.clone(), config.min_lease);
    let disk = open_disk(config, Some(invocations.clone()), &clock).await?;
    let results = DiskActionCache::open(DiskActionCacheOptions {
        dir: config.data_dir.join("actions"),
        max_size: config.action_cache_max_size,
        clock: clock.clone(),
    });
    let results = Arc::new(results.await?);
    let blobs: SharedBlobStore = Arc::new(Verified::new(disk.clone()));
    let pins = Pins::new(blobs.clone(), records.clone());
    // Before anything can be evicted: a crash has left no other trace of them.
    pins.renew().await.map_err(StoreError::from)?;
    let stats = StorageStats {
        pins: pins.clone(),
        disk: disk.clone(),
        actions: Some(results.clone()),
        shared: None,
        invocations: invocations.clone(),
    };
    Ok(Storage {
        actions: complete(config, results.clone(), blobs.clone(), clock),
        blobs,
        records: records.clone(),
        pins,
        stats: Arc::new(stats),
        invocations,
        redis: None,
        opened: Arc::new(Opened {
            disk,
            actions: Some(results),
            indexed: None,
            records: Some(records),
            lock,
        }),
    })
}
