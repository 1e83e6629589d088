//! The action cache on a local disk: results in a log, the latest of a key wins.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_net::causes::chain;

use crate::action_cache::{ActionCache, ActionKey};
use crate::clock::Clock;
use crate::digest::DigestFunction;
use crate::error::StoreError;
use crate::promises::{Ruling, Times};
use crate::stores::capacity::{Capacity, Evictable, Terms};
use crate::stores::disk::segment_size;
use crate::stores::group::blocking;
use crate::stores::log::{Key, LogOptions, LogStore, Put};

/// Bytes of the largest result that is kept.
const MAX_RESULT: u64 = 16 << 20;
/// Tells keys of actions from those of blobs.
const ACTION_KEY: u8 = 0xac;

#[derive(Debug, Clone)]
pub struct DiskActionCacheOptions {
    pub dir: PathBuf,
    /// Most bytes of all files in `dir`. Results not used for longest go first.
    pub max_size: u64,
    pub clock: Clock,
}

pub struct DiskActionCache {
    contents: Arc<Contents>,
    capacity: Arc<Capacity>,
    clock: Clock,
}

/// Counters of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskActionCacheSnapshot {
    pub results: u64,
    pub used_bytes: u64,
    pub max_bytes: u64,
    pub evicted: u64,
}

struct Contents {
    log: LogStore,
}

impl Evictable for Contents {
    fn used(&self) -> u64 {
        self.log.used()
    }

    fn survey(&self, visit: &mut dyn FnMut(u64, Times)) {
        self.log.survey(visit);
    }

    fn evict(&self, ruling: &Ruling, choose: &mut dyn FnMut(u64, Times) -> bool) -> u64 {
        self.log.evict(ruling, choose)
    }

    fn compact_worst(&self, divisor: u64) -> Result<bool, StoreError> {
        self.log.compact_worst(divisor)
    }
}

impl DiskActionCache {
    /// Opens or creates the cache in `options.dir`, which nobody else may use.
    pub async fn open(options: DiskActionCacheOptions) -> Result<Self, StoreError> {
        let DiskActionCacheOptions { dir, max_size, clock } = options;
        let segment_size = segment_size(max_size);
        let now = clock.now();
        // Results are not promised to anybody: no leases.
        let log = LogOptions { dir, segment_size, lease: 0, mutable: true };
        let log = blocking(move || LogStore::open(log, now)).await?;
        let capacity = Capacity::new(max_size, segment_size, Terms::of(clock.clone()));
        Ok(Self { contents: Arc::new(Contents { log }), capacity, clock })
    }

    /// Makes everything durable and writes down access times. Nothing may be put during or
    /// after it.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.capacity.close().await;
        let contents = self.contents.clone();
        blocking(move || contents.log.close()).await
    }

    /// Ends work in the background without writing down anything else, as a crash would.
    #[cfg(test)]
    pub(crate) async fn abandon(&self) {
        self.capacity.close().await;
        let contents = self.contents.clone();
        blocking(move || contents.log.sync()).await.unwrap();
    }

    pub fn snapshot(&self) -> DiskActionCacheSnapshot {
        DiskActionCacheSnapshot {
            results: self.contents.log.count(),
            used_bytes: self.contents.log.used(),
            max_bytes: self.capacity.max(),
            evicted: self.capacity.evicted(),
        }
    }

    fn times(&self) -> Times {
        Times { accessed: self.clock.now(), leased_until: 0, holders: 0 }
    }
}

fn log_key(key: &ActionKey) -> Key {
    let mut hasher = DigestFunction::Sha256.hasher();
    hasher.update(key.instance.as_bytes());
    hasher.update(&[0, key.action.function as u8]);
    hasher.update(&key.action.hash);
    hasher.update(&key.action.size.to_le_bytes());
    Key::new(&hasher.finish().hash, 0, ACTION_KEY)
}

#[async_trait]
impl ActionCache for DiskActionCache {
    async fn get(&self, key: &ActionKey) -> Result<Option<Bytes>, StoreError> {
        self.contents.log.get(&log_key(key), self.times())
    }

    async fn put(&self, key: &ActionKey, result: Bytes) -> Result<(), StoreError> {
        let size = result.len() as u64;
        if size > MAX_RESULT {
            return Err(StoreError::TooLarge { size, limit: MAX_RESULT });
        }
        let _reserved = self.capacity.reserve(&self.contents, LogStore::space(size)).await?;
        self.contents.log.put(&log_key(key), &result, Put::Replace, self.times())?;
        if self.contents.log.take_sealing_due() {
            let contents = self.contents.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = contents.log.sync() {
                    tracing::warn!(
                        error = %chain(&error),
                        "could not make a full log segment durable"
                    );
                }
            });
        }
        Ok(())
    }
}
