//! Where a process keeps what it stores.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::promises::{DEFAULT_LEASE, DEFAULT_MIN_LEASE};
use crate::redis::RedisConfig;
use crate::stores::s3::S3Config;

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
