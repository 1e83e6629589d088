//! Large blobs: one file each, and what is known of them in memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kiln_net::causes::chain;

use super::append::Appender;
use super::evicted::EvictedFiles;
use super::names::{self, failed, list, rename_into};
use super::slot::Slot;
use super::unsynced::Unsynced;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::{ANYBODY, Ruling, Times};
use crate::stores::log::sidecar::{self, SidecarEntry};
use crate::stores::log::{Key, KeyMap};

/// Mode of the files: outputs may be executables, and nobody writes to a stored blob.
const MODE: u32 = 0o555;
/// Number under which the access times and leases are kept between two runs.
const TIMES_FILE: u32 = 0;

pub struct LargeFiles {
    dir: PathBuf,
    temporary: PathBuf,
    index: RwLock<KeyMap<Slot>>,
    used: AtomicU64,
    corrupt: AtomicU64,
    next_temporary: AtomicU64,
    /// Held while a name appears or disappears, so that the index and the directory agree.
    naming: Mutex<()>,
    unsynced: Unsynced,
    evicted: EvictedFiles,
}

/// A file that is removed when dropped, unless it was published.
pub struct Temporary {
    pub file: Appender,
    path: PathBuf,
    published: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // Start-up removes what this cannot.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl LargeFiles {
    /// Opens or creates `base/large` and `base/tmp`, and empties the latter.
    pub fn open(base: &Path, now: u32, lease: u32) -> Result<Self, StoreError> {
        let (dir, temporary) = (base.join("large"), base.join("tmp"));
        for dir in [&dir, &temporary] {
            std::fs::create_dir_all(dir).map_err(|error| failed("create", dir, error))?;
        }
        for entry in list(&temporary)? {
            std::fs::remove_file(&entry).map_err(|error| failed("remove", &entry, error))?;
        }
        let files = Self {
            dir,
            temporary,
            index: RwLock::default(),
            used: AtomicU64::new(0),
            corrupt: AtomicU64::new(0),
            next_temporary: AtomicU64::new(0),
            naming: Mutex::default(),
            unsynced: Unsynced::default(),
            evicted: EvictedFiles::default(),
        };
        files.load(now, lease)?;
        Ok(files)
    }

    fn load(&self, now: u32, lease: u32) -> Result<(), StoreError> {
        let known = sidecar::read(&self.dir, TIMES_FILE);
        // Valid for one start only: a crash after it leaves leases unknown again.
        sidecar::remove(&self.dir, TIMES_FILE)?;
        let clean = known.is_some();
        let known: KeyMap<Times> =
            known.into_iter().flat_map(|file| file.entries).map(|e| (e.key, e.times)).collect();
        let leased_until = if clean { now } else { now.saturating_add(lease) };
        let fallback = Times { accessed: now, leased_until, holders: ANYBODY };
        let mut index = self.index_mut();
        for path in list(&self.dir)?.into_iter().filter(|path| path.is_dir()) {
            for path in list(&path)? {
                let Some(digest) = names::parse(&self.dir, &path) else { continue };
                let size = path.metadata().map_err(|error| failed("stat", &path, error))?.len();
                if size != digest.size {
                    // Cut short by a power failure before it was made durable.
                    std::fs::remove_file(&path).map_err(|error| failed("remove", &path, error))?;
                    continue;
                }
                let key = Key::from(&digest);
                let times = known.get(&key).copied().unwrap_or(fallback);
                index.insert(key, Slot::new(digest, times));
                self.used.fetch_add(size, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn index(&self) -> RwLockReadGuard<'_, KeyMap<Slot>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, KeyMap<Slot>> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn count(&self) -> u64 {
        self.index().len() as u64
    }

    pub fn corrupt(&self) -> u64 {
        self.corrupt.load(Ordering::Relaxed)
    }

    /// The file of a blob.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        names::path(&self.dir, digest)
    }

    /// Raises the times of a blob. `false`: absent.
    pub fn touch(&self, digest: &Digest, times: Times) -> bool {
        let index = self.index();
        let slot = index.get(&digest.into());
        slot.inspect(|slot| slot.touch(times)).is_some()
    }

    /// Lets the lease of a blob end at `until` if it ends later.
    pub fn shorten(&self, digest: &Digest, until: u32) {
        self.index().get(&digest.into()).inspect(|slot| slot.shorten(until));
    }

    /// Whether the blob is here; its times stay.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.index().contains_key(&digest.into())
    }

    /// A new file for at most `size` bytes.
    pub fn temporary(&self, size: u64) -> Result<Temporary, StoreError> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.temporary.join(number.to_string());
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&path)
            .map_err(|error| failed("create", &path, error))?;
        Ok(Temporary { file: Appender::new(file, size), path, published: false })
    }

    /// Makes a complete and verified file visible under its digest. Blocks.
    pub fn publish(
        &self,
        digest: &Digest,
        mut temporary: Temporary,
        times: Times,
    ) -> Result<(), StoreError> {
        let path = self.path(digest);
        let permissions = std::fs::Permissions::from_mode(MODE);
        temporary.file.finish().map_err(|error| failed("write", &temporary.path, error))?;
        let file = temporary.file.file();
        file.set_permissions(permissions).map_err(|error| failed("chmod", &path, error))?;
        let metadata = file.metadata().map_err(|error| failed("stat", &path, error))?;
        let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        if self.touch(digest, times) {
            return Ok(());
        }
        rename_into(&temporary.path, &path).map_err(|error| failed("rename to", &path, error))?;
        temporary.published = true;
        let slot = Slot::new(*digest, times);
        slot.mark_checked(&metadata, times.accessed);
        self.used.fetch_add(digest.size, Ordering::Relaxed);
        self.unsynced.note(path);
        // Last: who finds it here may ask for a sync at once.
        self.index_mut().insert(digest.into(), slot);
        Ok(())
    }

    /// Opens a blob's file. Errors: `NotFound`, also when the file went away behind the index.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
                if !path.exists() {
                    self.forget(digest);
                }
                Err(StoreError::NotFound(*digest))
            }
            Err(error) => Err(failed("open", &path, error)),
        }
    }

    fn forget(&self, digest: &Digest) -> bool {
        let known = self.index_mut().remove(&digest.into()).is_some();
        if known {
            self.used.fetch_sub(digest.size, Ordering::Relaxed);
        }
        known
    }

    /// Whether the bytes should be compared with the digest when they are read whole.
    pub fn check_due(&self, digest: &Digest, file: &File, now: u32) -> bool {
        let index = self.index();
        index.get(&digest.into()).is_none_or(|slot| slot.check_due(file, now))
    }

    /// The bytes of `file` matched the digest.
    pub fn mark_checked(&self, digest: &Digest, file: &File, now: u32) {
        let Ok(metadata) = file.metadata() else { return };
        if let Some(slot) = self.index().get(&digest.into()) {
            slot.mark_checked(&metadata, now);
        }
    }

    /// Drops a blob whose bytes no longer match its digest.
    pub fn drop_damaged(&self, digest: &Digest) {
        tracing::warn!(%digest, "dropped a damaged blob");
        if self.remove(digest, |_| true) {
            self.corrupt.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes a blob if `allowed` still agrees. The file leaves its name at once; its blocks
    /// are freed outside the lock, which may take long. A blob whose file cannot be moved stays, known and
    /// counted.
    fn remove(&self, digest: &Digest, allowed: impl FnOnce(Times) -> bool) -> bool {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let aside = self.temporary.join(number.to_string());
        {
            let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
            let mut index = self.index_mut();
            let key = Key::from(digest);
            if !index.get(&key).is_some_and(|slot| allowed(slot.times())) {
                return false;
            }
            let slot = index.remove(&key);
            drop(index);
            if let Err(error) = move_away(&self.path(digest), &aside) {
                tracing::warn!(%digest, error = %chain(&error), "could not remove a blob");
                self.index_mut().extend(slot.map(|slot| (key, slot)));
                return false;
            }
        }
        let freed = self.evicted.remove(aside, digest.size);
        self.used.fetch_sub(freed, Ordering::Relaxed);
        true
    }

    /// Frees evicted blobs whose last other link has gone. `false`: there are none.
    pub fn retry_removals(&self) -> bool {
        let freed = self.evicted.retry();
        self.used.fetch_sub(freed, Ordering::Relaxed);
        freed > 0
    }

    /// Calls `visit` with the size and times of every blob.
    pub fn survey(&self, mut visit: impl FnMut(u64, Times)) {
        for slot in self.index().values() {
            visit(slot.digest.size, slot.times());
        }
    }

    /// Removes the blobs without a promise that stands that `choose` picks by size and times.
    /// Returns how many.
    pub fn evict(&self, ruling: &Ruling, mut choose: impl FnMut(u64, Times) -> bool) -> u64 {
        let chosen: Vec<Digest> = {
            let index = self.index();
            let unpromised = index.values().filter(|slot| !ruling.stands(slot.times()));
            unpromised
                .filter(|slot| choose(slot.digest.size, slot.times()))
                .map(|slot| slot.digest)
                .collect()
        };
        let removed =
            chosen.iter().filter(|digest| self.remove(digest, |times| !ruling.stands(times)));
        removed.count() as u64
    }

    /// Whether all published files are durable, where no sync goes on.
    pub fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Makes all published files and their names durable. Blocks.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.unsynced.sync(&self.dir)
    }

    /// Writes down access times and leases for the next start.
    pub fn close(&self) -> Result<(), StoreError> {
        let entries: Vec<_> = self
            .index()
            .iter()
            .map(|(key, slot)| SidecarEntry {
                key: *key,
                offset: 0,
                length: 0,
                times: slot.times(),
            })
            .collect();
        sidecar::write(&self.dir, TIMES_FILE, 0, &entries).map(drop)
    }
}

/// Renames a file; one that is gone already is no error.
fn move_away(path: &Path, aside: &Path) -> io::Result<()> {
    match std::fs::rename(path, aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => Ok(()),
        moved => moved,
    }
}
