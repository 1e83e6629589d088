//! What a store on disk holds, and how it keeps within its limit.

use std::sync::Arc;

use kiln_net::causes::chain;

use super::large::LargeFiles;
use super::sizes::SMALL_BLOB;
use super::tenant::Occupancy;
use crate::clock::Clock;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::{self, ANYBODY, PIN, Ruling, Times};
use crate::stores::capacity::{Capacity, Evictable, Reservation};
use crate::stores::group::GroupCommit;
use crate::stores::log::{Key, LogStore, Put};

/// Everything that one store on disk holds.
pub struct Contents {
    pub log: LogStore,
    pub large: LargeFiles,
    pub capacity: Arc<Capacity>,
    pub commits: GroupCommit,
    pub clock: Clock,
    /// Seconds for which blobs are promised.
    pub lease: u32,
    pub tenant: Occupancy,
}

impl Evictable for Contents {
    fn used(&self) -> u64 {
        self.log.used() + self.large.used() + self.tenant.used(self.capacity.max())
    }

    fn survey(&self, visit: &mut dyn FnMut(u64, Times)) {
        self.log.survey(&mut *visit);
        self.large.survey(visit);
    }

    fn evict(&self, ruling: &Ruling, choose: &mut dyn FnMut(u64, Times) -> bool) -> u64 {
        self.log.evict(ruling, &mut *choose) + self.large.evict(ruling, choose)
    }

    fn compact_worst(&self, divisor: u64) -> Result<bool, StoreError> {
        Ok(self.large.retry_removals() || self.log.compact_worst(divisor)?)
    }

    fn give_way(&self, bytes: u64) -> bool {
        self.tenant.give_way(bytes)
    }
}

impl Contents {
    /// Sets `bytes` aside. Errors: those of [`Capacity::reserve`].
    pub async fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, StoreError> {
        self.capacity.reserve(self, bytes).await
    }

    /// Raises the access time only.
    pub fn accessed_now(&self) -> Times {
        Times { accessed: self.clock.now(), leased_until: 0, holders: 0 }
    }

    /// Raises access time and lease: a promise to those for whom this task works.
    pub fn promised_now(&self) -> Times {
        let now = self.clock.now();
        let leased_until = now.saturating_add(self.lease);
        Times { accessed: now, leased_until, holders: promises::holders() }
    }

    /// Raises the lease beyond whatever builds are promised, for nobody in particular.
    pub fn pinned_now(&self) -> Times {
        let now = self.clock.now();
        let lease = self.lease.saturating_add(PIN.as_secs() as u32);
        Times { accessed: now, leased_until: now.saturating_add(lease), holders: ANYBODY }
    }

    /// Raises the times of those that are here, and returns those that are not, in order.
    pub fn touch_all(&self, digests: &[Digest], times: Times) -> Vec<Digest> {
        let mut small = Vec::with_capacity(digests.len());
        let mut positions = Vec::new();
        let mut missing = Vec::new();
        for (position, digest) in digests.iter().enumerate() {
            if digest.size > SMALL_BLOB {
                if !self.large.touch(digest, times) {
                    missing.push(position);
                }
                continue;
            }
            if digest.is_empty_blob() {
                continue;
            }
            // Positions are needed only once they differ from those in `digests`.
            if small.len() != position && positions.is_empty() {
                positions.extend(0..small.len());
            }
            if small.len() != position {
                positions.push(position);
            }
            small.push(Key::from(digest));
        }
        self.log.touch_all(&small, times, |index| {
            missing.push(positions.get(index).copied().unwrap_or(index));
        });
        missing.sort_unstable();
        missing.into_iter().map(|position| digests[position]).collect()
    }

    /// Stores a blob in the log, which is not larger than [`SMALL_BLOB`].
    pub async fn put_small(
        self: &Arc<Self>,
        digest: &Digest,
        data: &[u8],
    ) -> Result<(), StoreError> {
        let key = Key::from(digest);
        let times = self.promised_now();
        if self.log.touch(&key, times) {
            return Ok(());
        }
        let _reserved = self.reserve(LogStore::space(digest.size)).await?;
        let stored = self.log.put(&key, data, Put::IfAbsent, times);
        stored.inspect_err(|error| self.relieve_if_full(error))?;
        if self.log.take_sealing_due() {
            self.sync_in_background();
        }
        Ok(())
    }

    /// After a failed write: where the device is full, makes room for later ones.
    pub fn relieve_if_full(self: &Arc<Self>, error: &StoreError) {
        if matches!(error, StoreError::DiskFull { .. }) {
            self.capacity.relieve(self);
        }
    }

    /// A segment is full: its bytes go to the disk and its sidecar is written.
    fn sync_in_background(self: &Arc<Self>) {
        let inner = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = inner.log.sync() {
                tracing::warn!(error = %chain(&error), "could not make a full log segment durable");
            }
        });
    }
}
