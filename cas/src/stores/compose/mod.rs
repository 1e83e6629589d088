//! The one place that turns configuration into storage.

mod embedded;
mod shared;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use shared::SharedIndex;

use super::actions::{CompletenessChecking, DiskActionCache};
use super::clock::Clock;
use super::directory::DirectoryLock;
use super::disk::{DiskBlobStore, DiskOptions, Premises};
use super::group::blocking;
use super::indexed::{Indexed, IndexedStats};
use super::records::DiskRecords;
use super::s3::{S3Config, S3Objects, S3Stats};
use crate::action_cache::SharedActionCache;
use crate::blob::SharedBlobStore;
use crate::error::StoreError;
use crate::promises::{DEFAULT_MIN_LEASE, Invocations};
use crate::records::{RecordsError, SharedRecords};
use crate::redis::{Redis, RedisConfig, RedisStats};

/// How long what was reported present is kept.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(13 * 3600);
const GIB: u64 = 1 << 30;

#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// Created if absent; one process at a time uses it.
    pub data_dir: PathBuf,
    /// Most bytes of blobs on disk.
    pub max_size: u64,
    /// How long a blob is kept after it was written or reported present.
    pub lease: Duration,
    /// What is left at least of a promise to a build that is over, where there is no room.
    pub min_lease: Duration,
    /// Most bytes of action results on disk.
    pub action_cache_max_size: u64,
    /// Most bytes of action results kept in memory, ready to be sent.
    pub action_cache_memory: u64,
    /// Blobs, results and records of a fleet; the directory then holds copies. `None`:
    /// everything is in the directory.
    pub shared: Option<SharedConfig>,
}

/// Where a fleet keeps what it shares.
#[derive(Debug, Clone)]
pub struct SharedConfig {
    pub redis: RedisConfig,
    pub s3: S3Config,
    /// Blobs up to this many bytes are kept in Redis as well.
    pub small: u64,
    /// Most bytes of all blobs in S3; 0: no limit.
    pub max_size: u64,
    /// Blobs go this long after their lease has ended; `None`: when room is needed.
    pub keep: Option<Duration>,
    /// Results that were not used for so long are forgotten.
    pub keep_results: Duration,
}

impl fmt::Display for SharedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.redis.addresses.iter().map(ToString::to_string).collect();
        let S3Config { bucket, prefix, .. } = &self.s3;
        write!(f, "s3://{bucket}/{prefix}, Redis at {}", addresses.join(", "))
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("kiln-data"),
            max_size: 50 * GIB,
            lease: DEFAULT_LEASE,
            min_lease: DEFAULT_MIN_LEASE,
            action_cache_max_size: GIB,
            action_cache_memory: 32 << 20,
            shared: None,
        }
    }
}

/// Everything a process keeps. Clones share it.
#[derive(Clone)]
pub struct Storage {
    pub blobs: SharedBlobStore,
    /// Hits are complete: every blob that they name is present and promised.
    pub actions: SharedActionCache,
    pub records: SharedRecords,
    pub stats: Arc<StorageStats>,
    /// Whose promises the blobs are kept for.
    pub invocations: Invocations,
    /// What the fleet shares besides.
    pub redis: Option<Redis>,
    opened: Arc<Opened>,
}

/// The parts that closing needs.
struct Opened {
    disk: DiskBlobStore,
    actions: Option<Arc<DiskActionCache>>,
    indexed: Option<Indexed>,
    records: Option<Arc<DiskRecords>>,
    lock: Mutex<Option<DirectoryLock>>,
}

impl Storage {
    /// Opens what `config` names. Errors: the directory is in use by another process, cannot
    /// be read or written, or holds data of another format; Redis or S3 cannot be used.
    pub async fn open(config: StorageConfig) -> Result<Self, StoreError> {
        let dir = config.data_dir.clone();
        let lock = blocking(move || DirectoryLock::acquire(&dir)).await?;
        let lock = Some(lock).into();
        match config.shared.clone() {
            None => embedded::open(&config, lock).await,
            Some(shared) => shared::open(&config, shared, lock).await,
        }
    }

    /// Where others may keep files under the limit of the blobs in the data directory.
    pub fn premises(&self) -> Premises {
        self.opened.disk.premises()
    }

    /// `give_up` is asked for what unfinished uploads hold before a write is refused for want of
    /// room, whoever writes. `false`: they hold nothing.
    pub fn on_full(&self, give_up: impl Fn() -> bool + Send + Sync + 'static) {
        self.opened.disk.on_full(give_up);
    }

    /// Makes everything durable, writes down leases, and gives the directory free. Call it when
    /// nobody uses the storage any more: what is written during or after it may be lost.
    pub async fn close(&self) -> Result<(), StoreError> {
        let opened = &self.opened;
        // Whatever does not work, the rest is closed all the same.
        let shared = match &opened.indexed {
            Some(indexed) => indexed.close().await,
            None => Ok(()),
        };
        opened.disk.close().await?;
        if let Some(actions) = &opened.actions {
            actions.close().await?;
        }
        if let Some(records) = &opened.records {
            records.close().await.map_err(from_records)?;
        }
        opened.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared
    }
}

async fn open_disk(
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

/// Only complete results, the latest of them in memory.
fn complete(
    config: &StorageConfig,
    actions: SharedActionCache,
    blobs: SharedBlobStore,
    clock: Clock,
) -> SharedActionCache {
    let memory = usize::try_from(config.action_cache_memory).unwrap_or(usize::MAX);
    Arc::new(CompletenessChecking::new(actions, blobs, memory, clock))
}

fn from_records(error: RecordsError) -> StoreError {
    match error {
        RecordsError::Corrupt(message) => StoreError::Corrupt(message),
        error => StoreError::Unavailable(error.to_string()),
    }
}

/// A view of the counters of a [`Storage`].
pub struct StorageStats {
    disk: DiskBlobStore,
    actions: Option<Arc<DiskActionCache>>,
    shared: Option<SharedParts>,
    invocations: Invocations,
}

impl StorageStats {
    /// The counters as they are now. Cheap enough for every scrape of the metrics.
    pub fn snapshot(&self) -> StorageSnapshot {
        let blobs = self.disk.snapshot();
        let actions = self.actions.as_ref().map(|actions| actions.snapshot()).unwrap_or_default();
        StorageSnapshot {
            blobs: blobs.blobs,
            used_bytes: blobs.used_bytes,
            reserved_bytes: blobs.reserved_bytes,
            max_bytes: blobs.max_bytes,
            promised_bytes: blobs.promised_bytes,
            evicted_blobs_total: blobs.evicted_blobs,
            evicted_bytes_total: blobs.evicted_bytes,
            corrupt_blobs_total: blobs.corrupt_blobs,
            refused_writes_total: blobs.refused_writes,
            cut_blobs_total: blobs.cut_blobs,
            cut_bytes_total: blobs.cut_bytes,
            wanted_bytes: blobs.wanted_bytes,
            running_invocations: self.invocations.running() as u64,
            actions: actions.results,
            action_cache_used_bytes: actions.used_bytes,
            action_cache_max_bytes: actions.max_bytes,
            evicted_actions_total: actions.evicted,
        }
    }

    /// Blobs evicted from the disk since the start.
    pub fn evicted_blobs(&self) -> u64 {
        self.disk.evicted_blobs()
    }

    /// The blobs of a fleet; `None`: nothing is shared.
    pub fn shared_blobs(&self) -> Option<Indexed> {
        self.shared.as_ref().map(|shared| shared.indexed.clone())
    }

    /// Counters of what the fleet shares; `None`: nothing is shared.
    pub fn shared(&self) -> Option<SharedSnapshot> {
        self.shared.as_ref().map(|shared| SharedSnapshot {
            blobs: shared.indexed.stats(),
            redis: shared.redis.stats(),
            s3: shared.objects.stats(),
        })
    }
}

/// What the figures of a fleet's stores come from.
struct SharedParts {
    indexed: Indexed,
    redis: Redis,
    objects: Arc<S3Objects>,
}

/// Counters of one moment of the stores of a fleet, as this process uses them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharedSnapshot {
    pub blobs: IndexedStats,
    pub redis: RedisStats,
    pub s3: S3Stats,
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
    /// Blobs that were promised to builds that are over and made room before their lease ended.
    pub cut_blobs_total: u64,
    pub cut_bytes_total: u64,
    /// The limit with which every promise since the start would have been kept.
    pub wanted_bytes: u64,
    /// Builds whose promises are not cut short.
    pub running_invocations: u64,
    pub actions: u64,
    pub action_cache_used_bytes: u64,
    pub action_cache_max_bytes: u64,
    pub evicted_actions_total: u64,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;
    use crate::action_cache::ActionKey;
    use crate::records::{Expect, Write};
    use crate::stores::contract::blob;

    fn config(dir: &Path) -> StorageConfig {
        StorageConfig { data_dir: dir.join("data"), ..StorageConfig::default() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_is_there_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let small = blob(1, 3000);
        let large = blob(2, 3 << 20);
        let key = ActionKey { instance: "".into(), action: blob(3, 10).0 };
        let storage = Storage::open(config(dir.path())).await.unwrap();
        for (digest, data) in [&small, &large] {
            storage.blobs.write(digest, data.clone()).await.unwrap();
        }
        storage.actions.put(&key, Bytes::new()).await.unwrap();
        let value = Some(Bytes::from_static(b"v"));
        let write = Write { key: "k".to_owned(), expect: Expect::Absent, value };
        storage.records.write(vec![write]).await.unwrap();
        let before = storage.stats.snapshot();
        assert_eq!((before.blobs, before.actions), (2, 1));
        assert!(before.promised_bytes > 3 << 20 && before.used_bytes > before.promised_bytes);
        storage.close().await.unwrap();
        drop(storage);

        let storage = Storage::open(config(dir.path())).await.unwrap();
        for (digest, data) in [&small, &large] {
            let found = storage.blobs.read(digest, 0, None).await.unwrap();
            assert_eq!(found.collect(u64::MAX).await.unwrap(), data);
        }
        assert_eq!(storage.actions.get(&key).await.unwrap(), Some(Bytes::new()));
        assert_eq!(storage.records.get("k").await.unwrap().unwrap().value, "v");
        assert_eq!(storage.stats.snapshot().promised_bytes, before.promised_bytes);
        storage.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_second_process_is_refused_by_name_until_the_first_has_closed() {
        let dir = tempfile::tempdir().unwrap();
        let first = Storage::open(config(dir.path())).await.unwrap();
        let Err(error) = Storage::open(config(dir.path())).await else { panic!("it was opened") };
        let message = error.to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        assert!(message.contains("--data-dir"), "{message}");
        first.close().await.unwrap();
        drop(first);
        Storage::open(config(dir.path())).await.unwrap();
    }
}
