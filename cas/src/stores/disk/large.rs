//! Large blobs: one file each, `large/ab/abcd…-SIZE`, and what is known of them in memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::append::Appender;
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;
use crate::promises::Ruling;
use crate::stores::log::sidecar;
use crate::stores::log::{ANYBODY, Key, KeyMap, Times};

/// Outputs may be executables; nobody writes to a stored blob.
const MODE: u32 = 0o555;
/// More unsynced files than this are made durable by one `syncfs`.
const MAX_SINGLE_SYNCS: usize = 32;
/// Seconds after which a blob is checked again when it is read whole.
const RECHECK_AFTER: u32 = 3600;
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
    unsynced: Mutex<Vec<PathBuf>>,
    /// Evicted blobs that somebody holds a hard link to: their bytes are still on the disk.
    graves: Mutex<Vec<Grave>>,
}

struct Grave {
    path: PathBuf,
    size: u64,
}

impl Grave {
    /// Nobody else has a link to the file, or it is gone.
    fn is_last(&self) -> bool {
        self.path.symlink_metadata().map_or(true, |metadata| metadata.nlink() <= 1)
    }
}

struct Slot {
    digest: Digest,
    accessed: AtomicU32,
    leased_until: AtomicU32,
    holders: AtomicU32,
    /// When the bytes were last known to match the digest; 0: not by this process.
    checked_at: AtomicU32,
    /// Modification time of the file then, nanoseconds.
    checked_mtime: AtomicI64,
}

impl Slot {
    fn new(digest: Digest, times: Times) -> Self {
        Self {
            digest,
            accessed: times.accessed.into(),
            leased_until: times.leased_until.into(),
            holders: times.holders.into(),
            checked_at: AtomicU32::new(0),
            checked_mtime: AtomicI64::new(0),
        }
    }

    fn times(&self) -> Times {
        Times {
            accessed: self.accessed.load(Ordering::Relaxed),
            leased_until: self.leased_until.load(Ordering::Relaxed),
            holders: self.holders.load(Ordering::Relaxed),
        }
    }

    fn touch(&self, times: Times) {
        self.accessed.fetch_max(times.accessed, Ordering::Relaxed);
        self.leased_until.fetch_max(times.leased_until, Ordering::Relaxed);
        self.holders.fetch_or(times.holders, Ordering::Relaxed);
    }
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
            std::fs::create_dir_all(dir).map_err(|error| failed("create", dir, &error))?;
        }
        for entry in list(&temporary)? {
            std::fs::remove_file(&entry).map_err(|error| failed("remove", &entry, &error))?;
        }
        let files = Self {
            dir,
            temporary,
            index: RwLock::default(),
            used: AtomicU64::new(0),
            corrupt: AtomicU64::new(0),
            next_temporary: AtomicU64::new(0),
            naming: Mutex::default(),
            unsynced: Mutex::default(),
            graves: Mutex::default(),
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
                let Some(digest) = self.parse(&path) else { continue };
                let size = path.metadata().map_err(|error| failed("stat", &path, &error))?.len();
                if size != digest.size {
                    // Cut short by a power failure before it was made durable.
                    std::fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
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

    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let prefix = match digest.function {
            DigestFunction::Sha256 => "",
            DigestFunction::Blake3 => "blake3-",
        };
        self.dir.join(&hex[..2]).join(format!("{prefix}{hex}-{}", digest.size))
    }

    /// The digest that a file of ours is named by.
    fn parse(&self, path: &Path) -> Option<Digest> {
        let name = path.file_name()?.to_str()?;
        let (function, name) = match name.strip_prefix("blake3-") {
            Some(rest) => (DigestFunction::Blake3, rest),
            None => (DigestFunction::Sha256, name),
        };
        let (hash, size) = name.split_once('-')?;
        let digest = Digest::from_hex(hash.as_bytes(), size.parse().ok()?, function).ok()?;
        (self.path(&digest) == path).then_some(digest)
    }

    /// Raises the times of a blob. `false`: absent.
    pub fn touch(&self, digest: &Digest, times: Times) -> bool {
        let index = self.index();
        let slot = index.get(&digest.into());
        slot.inspect(|slot| slot.touch(times)).is_some()
    }

    /// Whether the blob is here; its times stay.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.index().contains_key(&digest.into())
    }

    /// A new file for `size` bytes.
    pub fn temporary(&self, size: u64) -> Result<Temporary, StoreError> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.temporary.join(number.to_string());
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&path)
            .map_err(|error| failed("create", &path, &error))?;
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
        temporary.file.finish().map_err(|error| failed("write", &temporary.path, &error))?;
        let file = temporary.file.file();
        file.set_permissions(permissions).map_err(|error| failed("chmod", &path, &error))?;
        let metadata = file.metadata().map_err(|error| failed("stat", &path, &error))?;
        let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        if self.touch(digest, times) {
            return Ok(());
        }
        rename_into(&temporary.path, &path).map_err(|error| failed("rename to", &path, &error))?;
        temporary.published = true;
        let slot = Slot::new(*digest, times);
        slot.checked_at.store(times.accessed, Ordering::Relaxed);
        slot.checked_mtime.store(mtime(&metadata), Ordering::Relaxed);
        self.used.fetch_add(digest.size, Ordering::Relaxed);
        self.note_unsynced(path);
        // Last: who finds it here may ask for a sync at once.
        self.index_mut().insert(digest.into(), slot);
        Ok(())
    }

    fn note_unsynced(&self, path: PathBuf) {
        // One too many stands for all that follow: `syncfs` covers them.
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if unsynced.len() <= MAX_SINGLE_SYNCS {
            unsynced.push(path);
        }
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
            Err(error) => Err(failed("open", &path, &error)),
        }
    }

    fn forget(&self, digest: &Digest) -> bool {
        let known = self.index_mut().remove(&digest.into()).is_some();
        if known {
            self.used.fetch_sub(digest.size, Ordering::Relaxed);
        }
        known
    }

    /// Whether the bytes should be compared with the digest when they are read whole: not by
    /// this process yet, long ago, or the file was touched since.
    pub fn check_due(&self, digest: &Digest, file: &File, now: u32) -> bool {
        let Ok(metadata) = file.metadata() else { return true };
        let index = self.index();
        let Some(slot) = index.get(&digest.into()) else { return true };
        let checked_at = slot.checked_at.load(Ordering::Relaxed);
        checked_at.saturating_add(RECHECK_AFTER) <= now
            || metadata.len() != digest.size
            || slot.checked_mtime.load(Ordering::Relaxed) != mtime(&metadata)
    }

    pub fn mark_checked(&self, digest: &Digest, file: &File, now: u32) {
        let Ok(metadata) = file.metadata() else { return };
        if let Some(slot) = self.index().get(&digest.into()) {
            slot.checked_mtime.store(mtime(&metadata), Ordering::Relaxed);
            slot.checked_at.store(now, Ordering::Relaxed);
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
    /// are freed outside the lock, which may take long.
    fn remove(&self, digest: &Digest, allowed: impl FnOnce(Times) -> bool) -> bool {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let grave = self.temporary.join(number.to_string());
        {
            let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
            let mut index = self.index_mut();
            let key = Key::from(digest);
            if !index.get(&key).is_some_and(|slot| allowed(slot.times())) {
                return false;
            }
            index.remove(&key);
            drop(index);
            if let Err(error) = std::fs::rename(self.path(digest), &grave) {
                tracing::warn!(%digest, %error, "could not remove a blob");
            }
        }
        let grave = Grave { path: grave, size: digest.size };
        if grave.is_last() {
            self.free(&grave);
        } else {
            self.graves().push(grave);
        }
        true
    }

    fn graves(&self) -> MutexGuard<'_, Vec<Grave>> {
        self.graves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self, grave: &Grave) {
        // A file that stays is found by the next start, which empties the directory.
        let _ = std::fs::remove_file(&grave.path);
        self.used.fetch_sub(grave.size, Ordering::Relaxed);
    }

    /// Frees evicted blobs whose last other link has gone. `false`: there are none.
    pub fn bury(&self) -> bool {
        let last: Vec<_> = {
            let mut graves = self.graves();
            graves.extract_if(.., |grave| grave.is_last()).collect()
        };
        last.iter().for_each(|grave| self.free(grave));
        !last.is_empty()
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

    /// Makes all published files and their names durable. Blocks.
    pub fn sync(&self) -> Result<(), StoreError> {
        let paths =
            std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        let result = self.sync_paths(&paths);
        if result.is_err() {
            self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).extend(paths);
        }
        result
    }

    fn sync_paths(&self, paths: &[PathBuf]) -> Result<(), StoreError> {
        if paths.is_empty() {
            return Ok(());
        }
        if paths.len() > MAX_SINGLE_SYNCS {
            let dir = File::open(&self.dir).map_err(|error| failed("open", &self.dir, &error))?;
            return nix::unistd::syncfs(&dir)
                .map_err(|error| failed("sync", &self.dir, &error.into()));
        }
        let mut directories: Vec<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
        directories.sort_unstable();
        directories.dedup();
        // The directories may be new themselves.
        directories.push(&self.dir);
        let files = paths.iter().map(PathBuf::as_path);
        for path in files.chain(directories) {
            match File::open(path).and_then(|file| file.sync_all()) {
                // Evicted since: nothing to keep.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(|error| failed("sync", path, &error))?,
            }
        }
        Ok(())
    }

    /// Writes down access times and leases for the next start.
    pub fn close(&self) -> Result<(), StoreError> {
        let entries: Vec<_> = self
            .index()
            .iter()
            .map(|(key, slot)| sidecar::Entry {
                key: *key,
                offset: 0,
                length: 0,
                times: slot.times(),
            })
            .collect();
        sidecar::write(&self.dir, TIMES_FILE, 0, &entries).map(drop)
    }
}

fn mtime(metadata: &std::fs::Metadata) -> i64 {
    metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec())
}

/// Renames, creating the directory that holds `to` if it is not there yet.
fn rename_into(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(dir) = to.parent() {
                std::fs::create_dir_all(dir)?;
            }
            std::fs::rename(from, to)
        }
        result => result,
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = std::fs::read_dir(dir).map_err(|error| failed("list", dir, &error))?;
    let paths: Result<_, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    paths.map_err(|error| failed("list", dir, &error))
}

pub fn failed(what: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::io(format!("{what} {}", path.display()), error)
}
