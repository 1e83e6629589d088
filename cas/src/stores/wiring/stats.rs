//! The figures of all stores of a process.

use std::sync::Arc;

use crate::pins::Pins;
use crate::promises::Invocations;
use crate::redis::{Redis, RedisStats};
use crate::stores::actions::DiskActionCache;
use crate::stores::disk::DiskBlobStore;
use crate::stores::indexed::{Indexed, IndexedStats};
use crate::stores::s3::{S3Objects, S3Stats};

/// A view of the counters of a [`super::Storage`].
pub struct StorageStats {
    pub(super) pins: Pins,
    pub(super) disk: DiskBlobStore,
    pub(super) actions: Option<Arc<DiskActionCache>>,
    pub(super) shared: Option<FleetFigures>,
    pub(super) invocations: Invocations,
}

impl StorageStats {
    /// The counters as they are now. Cheap enough for every scrape of the metrics.
    pub fn snapshot(&self) -> StorageSnapshot {
        let blobs = self.disk.snapshot();
        let pins = self.pins.figures();
        let actions = self.actions.as_ref().map(|actions| actions.snapshot()).unwrap_or_default();
        StorageSnapshot {
            blobs: blobs.blobs,
            used_bytes: blobs.used_bytes,
            reserved_bytes: blobs.reserved_bytes,
            max_bytes: blobs.max_bytes,
            promised_bytes: blobs.promised_bytes,
            pinned_blobs: pins.blobs,
            pinned_bytes: pins.bytes,
            lost_pins: pins.lost,
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
pub(super) struct FleetFigures {
    pub(super) indexed: Indexed,
    pub(super) redis: Redis,
    pub(super) objects: Arc<S3Objects>,
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
    /// Bytes of blobs that are not pinned and whose lease had not ended when they were last counted.
    pub promised_bytes: u64,
    /// Blobs that somebody has pinned, of the whole fleet where there is one; their bytes are not among those
    /// that are promised.
    pub pinned_blobs: u64,
    pub pinned_bytes: u64,
    /// Pinned blobs that are not there any more.
    pub lost_pins: u64,
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
