//! The blob store on a local disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::contents::Contents;
use super::large::LargeFiles;
use super::naming::DiskNamingWriter;
use super::premises::Premises;
use super::reader;
use super::sizes::{SMALL_BLOB, segment_size};
use super::tenant::Occupancy;
use super::writer::{LargeWriter, SmallWriter};
use crate::blob::{Blob, BlobStore, BlobWriter, MAX_WHOLE_BLOB, NamingWriter};
use crate::clock::Clock;
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;
use crate::promises::Invocations;
use crate::stores::capacity::{Capacity, Evictable, Terms};
use crate::stores::group::{GroupCommit, blocking};
use crate::stores::log::{Key, LogOptions, LogStore};
use crate::stores::range::{EmptyWriter, clip, slice};

#[derive(Debug, Clone)]
pub struct DiskOptions {
    pub dir: PathBuf,
    /// Most bytes of all files in `dir`.
    pub max_size: u64,
    /// How long a blob is kept after it was written or reported present.
    pub lease: Duration,
    /// Which promises may be cut short where there is no room; `None`: none.
    pub invocations: Option<Invocations>,
    pub clock: Clock,
}

/// Small blobs in a log, each large one in a file. Clones share it.
#[derive(Clone)]
pub struct DiskBlobStore {
    pub(super) contents: Arc<Contents>,
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
        let contents = Contents {
            log,
            large,
            capacity: Capacity::new(max_size, segment_size, terms),
            commits: GroupCommit::default(),
            clock,
            lease,
            tenant: Occupancy::default(),
        };
        Ok(Self { contents: Arc::new(contents) })
    }

    /// Makes everything durable and writes down access times and leases. Nothing may be
    /// written during or after it.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.contents.capacity.close().await;
        self.sync().await?;
        let contents = self.contents.clone();
        blocking(move || {
            contents.log.close()?;
            contents.large.close()
        })
        .await
    }

    /// Ends work in the background without writing down anything else, as a crash would.
    #[cfg(test)]
    pub(crate) async fn abandon(&self) {
        self.contents.capacity.close().await;
        self.sync().await.unwrap();
    }

    /// A place for a tenant to keep files in, under this store's limit.
    pub fn premises(&self) -> Premises {
        Premises::of(self.contents.clone())
    }

    /// See [`Capacity::on_full`].
    pub fn on_full(&self, give_up: impl Fn() -> bool + Send + Sync + 'static) {
        self.contents.capacity.on_full(give_up);
    }

    /// Blobs evicted since the start.
    pub fn evicted_blobs(&self) -> u64 {
        self.contents.capacity.evicted()
    }

    /// The counters as they are now.
    pub fn snapshot(&self) -> DiskSnapshot {
        let contents = &self.contents;
        DiskSnapshot {
            blobs: contents.log.count() + contents.large.count(),
            used_bytes: contents.used(),
            reserved_bytes: contents.capacity.reserved(),
            max_bytes: contents.capacity.max(),
            promised_bytes: contents.capacity.promised_bytes(&**contents),
            evicted_blobs: contents.capacity.evicted(),
            evicted_bytes: contents.capacity.evicted_bytes(),
            corrupt_blobs: contents.log.corrupt() + contents.large.corrupt(),
            refused_writes: contents.capacity.refused(),
            cut_blobs: contents.capacity.cut().count,
            cut_bytes: contents.capacity.cut().bytes,
            wanted_bytes: contents.capacity.wanted(),
        }
    }
}

#[async_trait]
impl BlobStore for DiskBlobStore {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        Ok(self.contents.touch_all(digests, self.contents.promised_now()))
    }

    async fn pin(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        Ok(self.contents.touch_all(digests, self.contents.pinned_now()))
    }

    async fn unpin(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let until = self.contents.promised_now().leased_until;
        for digest in digests {
            match digest.size <= SMALL_BLOB {
                true => self.contents.log.shorten(&Key::from(digest), until),
                false => self.contents.large.shorten(digest, until),
            }
        }
        Ok(())
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        let contents = &self.contents;
        if digest.is_empty_blob() {
            return slice(&Bytes::new(), digest, offset, limit).map(Blob::Whole);
        }
        if digest.size <= SMALL_BLOB {
            let data = contents.log.get(&Key::from(digest), contents.accessed_now())?;
            let data = data.ok_or(StoreError::NotFound(*digest))?;
            return slice(&data, digest, offset, limit).map(Blob::Whole);
        }
        if !contents.large.touch(digest, contents.accessed_now()) {
            return Err(StoreError::NotFound(*digest));
        }
        let range = clip(digest, offset, limit)?;
        if range.end - range.start <= MAX_WHOLE_BLOB {
            return reader::read_whole(contents, *digest, range).await.map(Blob::Whole);
        }
        reader::stream(contents, *digest, range).await.map(Blob::Stream)
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
            return self.contents.put_small(digest, &data).await;
        }
        if self.contents.large.touch(digest, self.contents.promised_now()) {
            return Ok(());
        }
        let mut writer = self.writer(digest).await?;
        writer.write(data).await?;
        writer.commit().await
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        let contents = &self.contents;
        if digest.is_empty_blob() {
            return Ok(Box::new(EmptyWriter(*digest)));
        }
        if digest.size <= SMALL_BLOB {
            return Ok(Box::new(SmallWriter::new(contents.clone(), *digest)));
        }
        Ok(Box::new(LargeWriter::begin(contents.clone(), *digest)?))
    }

    async fn naming_writer(
        &self,
        function: DigestFunction,
        most: u64,
    ) -> Result<Option<Box<dyn NamingWriter>>, StoreError> {
        Ok(Some(Box::new(DiskNamingWriter::new(self.contents.clone(), function, most))))
    }

    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let contents = &self.contents;
        let known = |digest: &Digest| match digest.size {
            0 => true,
            size if size <= SMALL_BLOB => contents.log.contains(&Key::from(digest)),
            _ => contents.large.contains(digest),
        };
        Ok(digests.iter().filter(|digest| !known(digest)).copied().collect())
    }

    async fn sync(&self) -> Result<(), StoreError> {
        let contents = self.contents.clone();
        // Files are synced nowhere else, so that none is while this is asked.
        let is_done = || self.contents.large.is_synced() && self.contents.log.is_synced();
        let work = move || {
            contents.large.sync()?;
            contents.log.sync()
        };
        self.contents.commits.run(is_done, work).await
    }

    async fn link(&self, digest: &Digest, destination: &Path) -> Result<bool, StoreError> {
        let contents = &self.contents;
        if digest.size <= SMALL_BLOB {
            return match digest.is_empty_blob()
                || contents.log.touch(&digest.into(), contents.accessed_now())
            {
                true => Ok(false),
                false => Err(StoreError::NotFound(*digest)),
            };
        }
        if !contents.large.touch(digest, contents.accessed_now()) {
            return Err(StoreError::NotFound(*digest));
        }
        let (contents, digest, destination) = (contents.clone(), *digest, destination.to_owned());
        blocking(move || reader::link(&contents, &digest, &destination)).await
    }
}
