//! The one place that turns configuration into storage.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::actions::MemoryActionCache;
use super::clock::Clock;
use super::memory::MemoryBlobStore;
use super::records::MemoryRecords;
use super::verify::Verified;
use crate::action_cache::SharedActionCache;
use crate::blob::SharedBlobStore;
use crate::error::StoreError;
use crate::records::SharedRecords;

/// How long what was reported present is kept.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(12 * 3600);
const GIB: u64 = 1 << 30;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// Created if absent; one process at a time uses it.
    pub data_dir: PathBuf,
    /// Most bytes of blobs on disk.
    pub max_size: u64,
    /// How long a blob is kept after it was written or reported present.
    pub lease: Duration,
    /// Most bytes of action results on disk.
    pub action_cache_max_size: u64,
    /// Most bytes of action results kept in memory, ready to be sent.
    pub action_cache_memory: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("kiln-data"),
            max_size: 50 * GIB,
            lease: DEFAULT_LEASE,
            action_cache_max_size: GIB,
            action_cache_memory: 32 << 20,
        }
    }
}

/// Everything a process keeps.
#[derive(Clone)]
pub struct Storage {
    pub blobs: SharedBlobStore,
    pub actions: SharedActionCache,
    pub records: SharedRecords,
    pub stats: Arc<StorageStats>,
}

impl Storage {
    /// Opens what `config` names. Errors: the directory is in use by another process, cannot
    /// be read or written, or holds data of another format.
    pub async fn open(config: StorageConfig) -> Result<Self, StoreError> {
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|error| StoreError::io(config.data_dir.display().to_string(), &error))?;
        let blobs = MemoryBlobStore::new(config.max_size, config.lease, Clock::system());
        Ok(Self {
            blobs: Arc::new(Verified::new(blobs)),
            actions: Arc::new(MemoryActionCache::default()),
            records: Arc::new(MemoryRecords::default()),
            stats: Arc::new(StorageStats { max_bytes: config.max_size }),
        })
    }

    /// Makes everything durable and gives the directory free. Later calls on this storage fail.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.blobs.sync().await
    }
}

/// A view of the counters of a [`Storage`].
pub struct StorageStats {
    max_bytes: u64,
}

impl StorageStats {
    /// The counters as they are now. Cheap enough for every scrape of the metrics.
    pub fn snapshot(&self) -> StorageSnapshot {
        StorageSnapshot { max_bytes: self.max_bytes, ..StorageSnapshot::default() }
    }
}

/// Counters of one moment; `*_total` count from the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StorageSnapshot {
    pub blobs: u64,
    /// Bytes on disk for blobs, headers and dead space included.
    pub used_bytes: u64,
    /// Bytes that writes in progress have set aside.
    pub reserved_bytes: u64,
    pub max_bytes: u64,
    /// Bytes of blobs whose lease had not ended when they were last counted.
    pub promised_bytes: u64,
    pub evicted_blobs_total: u64,
    pub evicted_bytes_total: u64,
    /// Blobs dropped because their bytes on disk had changed.
    pub corrupt_blobs_total: u64,
    /// Writes refused because everything stored was promised.
    pub refused_writes_total: u64,
    pub actions: u64,
    pub action_cache_used_bytes: u64,
    pub action_cache_max_bytes: u64,
    pub evicted_actions_total: u64,
}
