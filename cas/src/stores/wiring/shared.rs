//! Storage of a process of a fleet: blobs are in S3, everything else is in Redis, and the directory holds copies
//! of blobs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::common::{complete, open_disk};
use super::config::{SharedConfig, StorageConfig};
use super::stats::{FleetFigures, StorageStats};
use super::storage::{Opened, Storage};
use crate::blob::SharedBlobStore;
use crate::clock::Clock;
use crate::error::{Reason, StoreError};
use crate::pins::Pins;
use crate::promises::Invocations;
use crate::records::SharedRecords;
use crate::redis::{Redis, RedisError};
use crate::stores::coalesce::Coalesced;
use crate::stores::directory::DirectoryLock;
use crate::stores::indexed::{
    BlobIndex, IndexUsage, Indexed, IndexedOptions, Objects, Rebuilt, is_marked, rebuild,
};
use crate::stores::redis::{
    RedisActionCache, RedisActionCacheOptions, RedisBlobIndex, RedisBlobIndexOptions, RedisRecords,
};
use crate::stores::s3::S3Objects;
use crate::stores::verify::Verified;

/// A copy that was just made stays until whoever fetched it has read it. Nobody was promised it.
const COPY_LEASE: Duration = Duration::from_secs(10);
/// Finished work waits so many times as long as an attempt of a request for an S3 that is away.
const SYNC_PATIENCE: u32 = 6;

pub async fn open(
    config: &StorageConfig,
    shared: SharedConfig,
    lock: Mutex<Option<DirectoryLock>>,
) -> Result<Storage, StoreError> {
    let clock = Clock::system();
    let invocations = Invocations::new(clock.clone(), config.min_lease);
    let copies = StorageConfig { lease: COPY_LEASE.min(config.lease), ..config.clone() };
    let disk = open_disk(&copies, None, &clock).await?;
    // What is configured wrongly is said before anything is waited for.
    let objects = Arc::new(S3Objects::connect(&shared.s3).await?);
    let redis = Redis::connect(shared.redis).await.map_err(unusable)?;
    objects.check().await?;
    // Where promises may be cut short, the index has to know when they were made.
    let ahead = match shared.max_size {
        0 => Duration::MAX,
        _ => config.min_lease / 2,
    };
    let index_options = RedisBlobIndexOptions { ahead, ..RedisBlobIndexOptions::default() };
    let index = RedisBlobIndex::new(redis.clone(), index_options);
    let options = IndexedOptions {
        patience: shared.s3.timeout * SYNC_PATIENCE,
        lease: config.lease,
        small: shared.small,
        max_size: shared.max_size,
        keep: shared.keep,
        clock: clock.clone(),
        invocations: Some(invocations.clone()),
        ..IndexedOptions::default()
    };
    let indexed = Indexed::open(Arc::new(index), objects.clone(), options).await;
    // Each tier is checked on its own: a copy that is damaged is dropped and fetched again.
    let remote: SharedBlobStore = Arc::new(Verified::new(indexed.clone()));
    let local: SharedBlobStore = Arc::new(Verified::new(disk.clone()));
    let blobs: SharedBlobStore = Arc::new(Coalesced::new(local, remote));
    let results = RedisActionCacheOptions { keep: shared.keep_results };
    let results = Arc::new(RedisActionCache::new(redis.clone(), results));
    let figures = FleetFigures { indexed: indexed.clone(), redis: redis.clone(), objects };
    let records: SharedRecords = Arc::new(RedisRecords::new(redis.clone()));
    let pins = Pins::new(blobs.clone(), records.clone());
    let stats = StorageStats {
        pins: pins.clone(),
        disk: disk.clone(),
        actions: None,
        shared: Some(figures),
        invocations: invocations.clone(),
    };
    Ok(Storage {
        actions: complete(config, results, blobs.clone(), clock),
        blobs,
        records,
        pins,
        stats: Arc::new(stats),
        invocations,
        redis: Some(redis),
        opened: Arc::new(Opened {
            disk,
            actions: None,
            indexed: Some(indexed),
            records: None,
            lock,
        }),
    })
}

/// The index of a fleet and what it is about, for those who look after it.
pub struct SharedIndex {
    index: RedisBlobIndex,
    objects: S3Objects,
}

impl SharedIndex {
    /// Errors: Redis or S3 cannot be used.
    pub async fn open(config: &SharedConfig) -> Result<Self, StoreError> {
        let objects = S3Objects::connect(&config.s3).await?;
        let redis = Redis::connect(config.redis.clone()).await.map_err(unusable)?;
        objects.check().await?;
        Ok(Self { index: RedisBlobIndex::new(redis, RedisBlobIndexOptions::default()), objects })
    }

    pub async fn usage(&self) -> Result<IndexUsage, StoreError> {
        self.index.usage().await
    }

    /// False: S3 holds blobs that the index does not know, because it was lost.
    pub async fn is_complete(&self) -> Result<bool, StoreError> {
        let marked = is_marked(&self.index, &self.objects).await?;
        Ok(marked || self.objects.list(None).await?.0.is_empty())
    }

    /// See [`rebuild`].
    pub async fn rebuild(
        &self,
        lease: Duration,
        progress: &mut (dyn FnMut(&Rebuilt) + Send),
    ) -> Result<Rebuilt, StoreError> {
        rebuild(&self.index, &self.objects, lease, progress).await
    }
}

fn unusable(error: RedisError) -> StoreError {
    match error {
        RedisError::Config(message) => StoreError::config(message),
        RedisError::Auth { .. } => StoreError::denied(Reason::of(error)),
        error if error.is_transient() => StoreError::unavailable(Reason::of(error)),
        error => StoreError::invalid(Reason::of(error)),
    }
}
