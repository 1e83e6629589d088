//! An embedded log-structured key-value engine for small values.
//!
//! Values are appended to segment files; an index in memory says where. Nothing is changed in
//! place but a mark on records that were replaced. Space comes back when a segment that is
//! mostly dead is compacted: its live records are copied to the end of the log and made durable
//! before the file goes.
//!
//! A write is one `pwritev` into the page cache and a read one `pread`, both on the caller's
//! thread: for values of this size that is cheaper than handing them to another thread.
//!
//! Appending and pointing the index at the new record happen under one lock, so the order of
//! records in the log is the order in which they took effect: a start replays segments in the
//! order of their numbers, and the last record of a key wins.
//!
//! Leases after a restart: a clean close writes access times and leases into the sidecars. After
//! a crash they are unknown, so everything is promised for one lease from the start: too
//! long, never too short.

mod clean;
mod compact;
mod index;
mod open;
mod record;
pub(super) mod segment;
pub(super) mod sidecar;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use kiln_net::causes::chain;

use index::Index;
pub use index::Location;
use record::{HEADER, Header};
pub use record::{Key, KeyMap};
use segment::Segment;
use sidecar::SidecarEntry;

use crate::error::StoreError;
use crate::promises::Times;

#[derive(Debug, Clone)]
pub struct LogOptions {
    pub dir: PathBuf,
    /// Bytes after which a segment is sealed and the next begun; at most 1 GiB.
    pub segment_size: u64,
    /// Leases of entries found after a crash: seconds from the start.
    pub lease: u32,
    /// Values of one key may differ: an evicted one must not come back in a crash, because an
    /// older or a newer one may have been the latest.
    pub mutable: bool,
}

/// Whether a write replaces what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    IfAbsent,
    Replace,
}

pub struct LogStore {
    options: LogOptions,
    index: Index,
    segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    active: Mutex<Active>,
    /// Full segments that have no sidecar yet: [`LogStore::sync`] writes it.
    sealed: Mutex<Vec<Sealed>>,
    sealing_due: AtomicBool,
    /// Segments were created since the directory was made durable.
    directory_dirty: AtomicBool,
    /// Bytes of all files.
    used: AtomicU64,
    corrupt: AtomicU64,
    syncing: Mutex<()>,
}

struct Active {
    segment: Arc<Segment>,
    /// What the segment holds, for its sidecar.
    entries: Vec<SidecarEntry>,
}

struct Sealed {
    segment: Arc<Segment>,
    entries: Vec<SidecarEntry>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStore {
    /// Bytes that a value takes on disk.
    pub fn space(length: u64) -> u64 {
        record::space(length)
    }

    /// Bytes of all files of the log.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn count(&self) -> u64 {
        self.index.count()
    }

    /// Records dropped because their bytes had changed.
    pub fn corrupt(&self) -> u64 {
        self.corrupt.load(Ordering::Relaxed)
    }

    #[cfg(feature = "fuzzing")]
    pub fn for_each_key(&self, mut visit: impl FnMut(&Key)) {
        self.index.for_each(|key, _, _| visit(key));
    }

    /// Raises the times of `key`. `false`: absent.
    pub fn touch(&self, key: &Key, times: Times) -> bool {
        self.index.touch(key, times).is_some()
    }

    /// Lets the lease of `key` end at `until` if it ends later.
    pub fn shorten(&self, key: &Key, until: u32) {
        self.index.shorten(key, until);
    }

    /// Whether the key is here; its times stay.
    pub fn contains(&self, key: &Key) -> bool {
        self.index.locate(key).is_some()
    }

    /// Raises the times of all `keys`; calls `absent` with the positions of absent ones, in no
    /// particular order.
    pub fn touch_all(&self, keys: &[Key], times: Times, absent: impl FnMut(usize)) {
        self.index.touch_all(keys, times, absent);
    }

    /// The value, checked. A damaged record is dropped and absent from then on.
    pub fn get(&self, key: &Key, times: Times) -> Result<Option<Bytes>, StoreError> {
        loop {
            let Some(at) = self.index.touch(key, times) else { return Ok(None) };
            let Some(segment) = self.segment(at.segment) else {
                // Compacted between the two look-ups: the index knows the new place.
                if self.index.locate(key) == Some(at) {
                    self.index.remove_if_at(key, at);
                }
                continue;
            };
            let record = segment.read(u64::from(at.offset), HEADER + at.length as usize);
            match record {
                Ok(record) => match Header::decode(&record) {
                    Some(header)
                        if header.live
                            && header.key == *key
                            && header.matches(&record[HEADER..]) =>
                    {
                        return Ok(Some(Bytes::from(record).slice(HEADER..)));
                    }
                    Some(header) if !header.live && header.key == *key => {
                        self.forget(key, at);
                    }
                    _ => self.drop_damaged(key, at),
                },
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    self.drop_damaged(key, at);
                }
                Err(error) => {
                    return Err(StoreError::io(format!("read log segment {}", at.segment), error));
                }
            }
        }
    }

    fn segment(&self, id: u32) -> Option<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Forgets a record; its bytes are dead.
    fn forget(&self, key: &Key, at: Location) -> bool {
        let forgotten = self.index.remove_if_at(key, at);
        if forgotten {
            self.mark_space_dead(at);
        }
        forgotten
    }

    fn mark_space_dead(&self, at: Location) {
        if let Some(segment) = self.segment(at.segment) {
            segment.add_dead(at.space());
        }
    }

    fn drop_damaged(&self, key: &Key, at: Location) {
        if !self.forget(key, at) {
            return;
        }
        self.corrupt.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(segment = at.segment, offset = at.offset, "dropped a damaged record");
        // The sidecar vouches for the record: without it the next start walks the segment.
        if let Some(segment) = self.segment(at.segment)
            && let Err(error) = self.remove_sidecar(&segment)
        {
            tracing::warn!(error = %chain(&error), "a restart may bring the damaged record back");
        }
    }

    fn remove_sidecar(&self, segment: &Segment) -> Result<(), StoreError> {
        sidecar::remove(&self.options.dir, segment.id)?;
        self.used.fetch_sub(segment.sidecar.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        Ok(())
    }

    /// Stores a value. `false`: [`Put::IfAbsent`], and it was there (its times are raised).
    pub fn put(
        &self,
        key: &Key,
        value: &[u8],
        mode: Put,
        times: Times,
    ) -> Result<bool, StoreError> {
        let header = record::encode(key, value);
        let mut active = lock(&self.active);
        if mode == Put::IfAbsent && self.touch(key, times) {
            return Ok(false);
        }
        let at = self.append(&mut active, key, &header, value, times)?;
        let replaced = self.index.set(key, at, times);
        drop(active);
        if let Some(old) = replaced
            && let Some(segment) = self.segment(old.segment)
        {
            // Marked first: a segment that is all dead may be emptied at once.
            let marked = segment.mark_dead(u64::from(old.offset));
            segment.add_dead(old.space());
            marked?;
        }
        Ok(true)
    }

    fn append(
        &self,
        active: &mut Active,
        key: &Key,
        header: &[u8; HEADER],
        value: &[u8],
        times: Times,
    ) -> Result<Location, StoreError> {
        let space = record::space(value.len() as u64);
        let length = active.segment.length();
        if length > segment::PREFIX && length + space > self.options.segment_size {
            self.roll(active)?;
        }
        let offset = active.segment.append(header, value)? as u32;
        self.used.fetch_add(space, Ordering::Relaxed);
        let length = value.len() as u32;
        active.entries.push(SidecarEntry { key: *key, offset, length, times });
        Ok(Location { segment: active.segment.id, offset, length })
    }

    /// Begins the next segment.
    fn roll(&self, active: &mut Active) -> Result<(), StoreError> {
        let next = Arc::new(Segment::create(&self.options.dir, active.segment.id + 1)?);
        self.used.fetch_add(segment::PREFIX, Ordering::Relaxed);
        self.directory_dirty.store(true, Ordering::Release);
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(next.id, next.clone());
        drop(segments);
        let segment = std::mem::replace(&mut active.segment, next);
        let entries = std::mem::take(&mut active.entries);
        lock(&self.sealed).push(Sealed { segment, entries });
        self.sealing_due.store(true, Ordering::Release);
        Ok(())
    }

    /// True once after a segment was filled: the caller should see to a [`LogStore::sync`].
    pub fn take_sealing_due(&self) -> bool {
        self.sealing_due.load(Ordering::Relaxed) && self.sealing_due.swap(false, Ordering::AcqRel)
    }

    /// Whether all that was put before this call is durable already. `false` as well while a sync goes on, which has taken
    /// note of what it has not written yet.
    pub fn is_synced(&self) -> bool {
        let Ok(_nobody_syncs) = self.syncing.try_lock() else { return false };
        if self.directory_dirty.load(Ordering::Acquire) || !lock(&self.sealed).is_empty() {
            return false;
        }
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        !segments.values().any(|segment| segment.is_dirty())
    }

    /// Makes all that was put before this call durable. Blocks.
    pub fn sync(&self) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.syncing);
        let sealed = std::mem::take(&mut *lock(&self.sealed));
        let result = self.sync_files().and_then(|()| {
            for Sealed { segment, entries } in &sealed {
                self.write_sidecar(segment, entries)?;
            }
            Ok(())
        });
        if result.is_err() {
            lock(&self.sealed).extend(sealed);
        }
        result
    }

    fn sync_files(&self) -> Result<(), StoreError> {
        let segments: Vec<_> = {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            segments.values().cloned().collect()
        };
        for segment in segments {
            segment.sync()?;
        }
        if self.directory_dirty.swap(false, Ordering::AcqRel) {
            let dir = &self.options.dir;
            std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| {
                self.directory_dirty.store(true, Ordering::Release);
                StoreError::io(format!("sync {}", dir.display()), error)
            })?;
        }
        Ok(())
    }

    fn write_sidecar(&self, segment: &Segment, entries: &[SidecarEntry]) -> Result<(), StoreError> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        if !segments.contains_key(&segment.id) {
            return Ok(()); // Compacted meanwhile.
        }
        let size = sidecar::write(&self.options.dir, segment.id, segment.length(), entries)?;
        let before = segment.sidecar.swap(size, Ordering::Relaxed);
        self.used.fetch_add(size, Ordering::Relaxed);
        self.used.fetch_sub(before, Ordering::Relaxed);
        Ok(())
    }

    /// Makes everything durable and writes sidecars with the present access times and leases, so
    /// that the next start knows them. Nothing may be put during or after it.
    pub fn close(&self) -> Result<(), StoreError> {
        self.sync()?;
        let mut entries: BTreeMap<u32, Vec<SidecarEntry>> = BTreeMap::new();
        self.index.for_each(|key, at, times| {
            let Location { offset, length, .. } = at;
            let entry = SidecarEntry { key: *key, offset, length, times };
            entries.entry(at.segment).or_default().push(entry);
        });
        let segments: Vec<_> = {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            segments.values().cloned().collect()
        };
        for segment in segments {
            let entries = entries.remove(&segment.id).unwrap_or_default();
            self.write_sidecar(&segment, &entries)?;
        }
        clean::set_mark(&self.options.dir)
    }
}
