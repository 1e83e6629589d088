//! The blob store on a local disk: small blobs in a log, each large one in a file.

mod append;
mod large;
mod premises;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::large::LargeFiles;
use self::premises::Occupancy;
pub use self::premises::{Premises, Tenant};
use self::writer::{LargeWriter, SmallWriter};
use super::clock::Clock;
use super::group::{GroupCommit, blocking};
use super::log::{Key, LogOptions, LogStore, Put, Times};
use super::range::{EmptyWriter, clip, slice};
use super::room::{Evictable, Reservation, Room, Terms};
use crate::blob::{Blob, BlobStore, BlobWriter, MAX_WHOLE_BLOB};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::{self, Invocations, Ruling};

/// Blobs of up to this many bytes live in the log.
pub const SMALL_BLOB: u64 = 256 * 1024;
/// The log's segments are a 64th of the limit, within these bounds; a 1024th of a very large one,
/// so that the number of open files stays bounded.
const SEGMENT_SIZES: std::ops::RangeInclusive<u64> = 64 * 1024..=64 << 20;
const MAX_SEGMENTS: u64 = 1024;
const LARGEST_SEGMENT: u64 = 1 << 30;

#[derive(Debug, Clone)]
pub struct DiskOptions {
    pub dir: PathBuf,
    /// Most bytes of all files in `dir`.
    pub max_size: u64,
    pub lease: Duration,
    /// Which promises may be cut short where there is no room; `None`: none.
    pub invocations: Option<Invocations>,
    pub clock: Clock,
}

/// Bytes after which a log that may grow to `max_size` begins its next file.
pub fn segment_size(max_size: u64) -> u64 {
    let usual = (max_size / 64).clamp(*SEGMENT_SIZES.start(), *SEGMENT_SIZES.end());
    usual.max((max_size / MAX_SEGMENTS).min(LARGEST_SEGMENT))
}

#[derive(Clone)]
pub struct DiskBlobStore {
    inner: Arc<Inner>,
}

struct Inner {
    log: LogStore,
    large: LargeFiles,
    room: Arc<Room>,
    commits: GroupCommit,
    clock: Clock,
    lease: u32,
    tenant: Occupancy,
}

/// Counters of one moment, in the terms of [`super::StorageSnapshot`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskSnapshot {
    pub blobs: u64,
    pub used_bytes: u64,
    pub reserved_bytes: u64,
    pub max_bytes: u64,
    pub promised_bytes: u64,
    pub evicted_blobs: u64,
    pub evicted_bytes: u64,
    pub corrupt_blobs: u64,
    pub refused_writes: u64,
    pub cut_blobs: u64,
    pub cut_bytes: u64,
    pub wanted_bytes: u64,
}

impl DiskBlobStore {
    /// Opens or creates the store in `options.dir`, which nobody else may use.
    pub async fn open(options: DiskOptions) -> Result<Self, StoreError> {
        blocking(move || Self::open_blocking(options)).await
    }

    fn open_blocking(options: DiskOptions) -> Result<Self, StoreError> {
        let DiskOptions { dir, max_size, lease, invocations, clock } = options;
        let lease = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        let segment_size = segment_size(max_size);
        let now = clock.now();
        let log = LogOptions { dir: dir.join("small"), segment_size, lease, mutable: false };
        let log = LogStore::open(log, now)?;
        let large = LargeFiles::open(&dir, now, lease)?;
        let terms = Terms { lease, invocations, clock: clock.clone() };
        let inner = Inner {
            log,
            large,
            room: Room::new(max_size, segment_size, terms),
            commits: GroupCommit::default(),
            clock,
            lease,
            tenant: Occupancy::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes everything durable and writes down access times and leases. Nothing may be
    /// written during or after it.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.inner.room.close().await;
        self.sync().await?;
        let inner = self.inner.clone();
        blocking(move || {
            inner.log.close()?;
            inner.large.close()
        })
        .await
    }

    /// Ends work in the background without writing down anything else, as a crash would.
    #[cfg(test)]
    pub(crate) async fn abandon(&self) {
        self.inner.room.close().await;
        self.sync().await.unwrap();
    }

    /// Where another one may keep files under this store's limit.
    pub fn premises(&self) -> Premises {
        Premises { inner: self.inner.clone() }
    }

    /// See [`Room::on_full`].
    pub fn on_full(&self, give_up: impl Fn() -> bool + Send + Sync + 'static) {
        self.inner.room.on_full(give_up);
    }

    /// Blobs evicted since the start.
    pub fn evicted_blobs(&self) -> u64 {
        self.inner.room.evicted()
    }

    /// The counters as they are now.
    pub fn snapshot(&self) -> DiskSnapshot {
        let inner = &self.inner;
        DiskSnapshot {
            blobs: inner.log.count() + inner.large.count(),
            used_bytes: inner.used(),
            reserved_bytes: inner.room.reserved(),
            max_bytes: inner.room.max(),
            promised_bytes: inner.room.promised_bytes(&**inner),
            evicted_blobs: inner.room.evicted(),
            evicted_bytes: inner.room.evicted_bytes(),
            corrupt_blobs: inner.log.corrupt() + inner.large.corrupt(),
            refused_writes: inner.room.refused(),
            cut_blobs: inner.room.cut().count,
            cut_bytes: inner.room.cut().bytes,
            wanted_bytes: inner.room.wanted(),
        }
    }
}

impl Evictable for Inner {
    fn used(&self) -> u64 {
        self.log.used() + self.large.used() + self.tenant.used(self.room.max())
    }

    fn survey(&self, visit: &mut dyn FnMut(u64, Times)) {
        self.log.survey(&mut *visit);
        self.large.survey(visit);
    }

    fn evict(&self, ruling: &Ruling, choose: &mut dyn FnMut(u64, Times) -> bool) -> u64 {
        self.log.evict(ruling, &mut *choose) + self.large.evict(ruling, choose)
    }

    fn compact_worst(&self, divisor: u64) -> Result<bool, StoreError> {
        Ok(self.large.bury() || self.log.compact_worst(divisor)?)
    }

    fn give_way(&self, bytes: u64) -> bool {
        self.tenant.give_way(bytes)
    }
}

impl Inner {
    async fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, StoreError> {
        self.room.reserve(self, bytes).await
    }

    /// Raises the access time only.
    fn accessed_now(&self) -> Times {
        Times { accessed: self.clock.now(), leased_until: 0, holders: 0 }
    }

    /// Raises access time and lease: a promise to those for whom this task works.
    fn promised_now(&self) -> Times {
        let now = self.clock.now();
        let leased_until = now.saturating_add(self.lease);
        Times { accessed: now, leased_until, holders: promises::holders() }
    }

    async fn put_small(self: &Arc<Self>, digest: &Digest, data: &[u8]) -> Result<(), StoreError> {
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
    fn relieve_if_full(self: &Arc<Self>, error: &StoreError) {
        if matches!(error, StoreError::DiskFull { .. }) {
            self.room.relieve(self);
        }
    }

    /// A segment is full: its bytes go to the disk and its sidecar is written.
    fn sync_in_background(self: &Arc<Self>) {
        let inner = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = inner.log.sync() {
                tracing::warn!(%error, "could not make a full log segment durable");
            }
        });
    }
}

#[async_trait]
impl BlobStore for DiskBlobStore {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let inner = &self.inner;
        let times = inner.promised_now();
        let mut small = Vec::with_capacity(digests.len());
        let mut positions = Vec::new();
        let mut missing = Vec::new();
        for (position, digest) in digests.iter().enumerate() {
            if digest.size > SMALL_BLOB {
                if !inner.large.touch(digest, times) {
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
        inner.log.touch_all(&small, times, |index| {
            missing.push(positions.get(index).copied().unwrap_or(index));
        });
        missing.sort_unstable();
        Ok(missing.into_iter().map(|position| digests[position]).collect())
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        let inner = &self.inner;
        if digest.is_empty_blob() {
            return slice(&Bytes::new(), digest, offset, limit).map(Blob::Whole);
        }
        if digest.size <= SMALL_BLOB {
            let data = inner.log.get(&Key::from(digest), inner.accessed_now())?;
            let data = data.ok_or(StoreError::NotFound(*digest))?;
            return slice(&data, digest, offset, limit).map(Blob::Whole);
        }
        if !inner.large.touch(digest, inner.accessed_now()) {
            return Err(StoreError::NotFound(*digest));
        }
        let range = clip(digest, offset, limit)?;
        if range.end - range.start <= MAX_WHOLE_BLOB {
            return reader::read_whole(inner, *digest, range).await.map(Blob::Whole);
        }
        reader::stream(inner, *digest, range).await.map(Blob::Stream)
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        if data.len() as u64 != digest.size {
            let actual = data.len() as u64;
            return Err(StoreError::SizeMismatch { expected: *digest, actual });
        }
        if digest.is_empty_blob() {
            return Ok(());
        }
        if digest.size <= SMALL_BLOB {
            return self.inner.put_small(digest, &data).await;
        }
        if self.inner.large.touch(digest, self.inner.promised_now()) {
            return Ok(());
        }
        let mut writer = self.writer(digest).await?;
        writer.write(data).await?;
        writer.commit().await
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        let inner = &self.inner;
        if digest.is_empty_blob() {
            return Ok(Box::new(EmptyWriter(*digest)));
        }
        if digest.size <= SMALL_BLOB {
            return Ok(Box::new(SmallWriter::new(inner.clone(), *digest)));
        }
        let reservation = inner.room.begin(digest.size)?;
        Ok(Box::new(LargeWriter::new(inner.clone(), *digest, reservation)))
    }

    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let inner = &self.inner;
        let known = |digest: &Digest| match digest.size {
            0 => true,
            size if size <= SMALL_BLOB => inner.log.contains(&Key::from(digest)),
            _ => inner.large.contains(digest),
        };
        Ok(digests.iter().filter(|digest| !known(digest)).copied().collect())
    }

    async fn sync(&self) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        let work = move || {
            inner.large.sync()?;
            inner.log.sync()
        };
        self.inner.commits.run(work).await
    }

    async fn link(&self, digest: &Digest, destination: &Path) -> Result<bool, StoreError> {
        let inner = &self.inner;
        if digest.size <= SMALL_BLOB {
            return match digest.is_empty_blob()
                || inner.log.touch(&digest.into(), inner.accessed_now())
            {
                true => Ok(false),
                false => Err(StoreError::NotFound(*digest)),
            };
        }
        if !inner.large.touch(digest, inner.accessed_now()) {
            return Err(StoreError::NotFound(*digest));
        }
        let (inner, digest, destination) = (inner.clone(), *digest, destination.to_owned());
        blocking(move || reader::link(&inner, &digest, &destination)).await
    }
}
