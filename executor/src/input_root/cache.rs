//! The files and trees of input roots on this machine's disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_cas::Digest;
use kiln_cas::stores::Tenant;
use kiln_net::causes;

use super::error::InputError;
use super::index::{Garbage, Id, Index, TreeSize};
use super::key::FileKey;
use super::limits::CacheLimits;
use super::materialise;
use super::plan::Layer;
use super::stats::InputStats;

/// A directory with the files and trees that the index knows.
pub(super) struct Cache {
    directory: PathBuf,
    index: Mutex<Index>,
    /// The lock that lets at most one deletion of what was evicted run at a time.
    deleting: tokio::sync::Mutex<()>,
    pub(super) stats: Arc<InputStats>,
    /// Bytes on disk that belong to the cache alone: without files that are hard links to blobs of
    /// the store.
    own: Arc<AtomicU64>,
}

impl Cache {
    /// Empties `directory` and uses it.
    pub(super) fn open(directory: &Path, limits: CacheLimits) -> std::io::Result<Self> {
        materialise::remove_tree(directory)?;
        for kind in ["files", "trees"] {
            std::fs::create_dir_all(directory.join(kind))?;
        }
        let stats = Arc::<InputStats>::default();
        stats.limit(limits.bytes);
        let index = Index::new(limits);
        Ok(Self {
            directory: directory.to_owned(),
            own: index.own_bytes(),
            index: Mutex::new(index),
            deleting: tokio::sync::Mutex::default(),
            stats,
        })
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn delete_garbage(self: &Arc<Self>) {
        let garbage = self.collect_garbage();
        if garbage.is_empty() {
            return;
        }
        let _alone = self.deleting.lock().await;
        let cache = self.clone();
        let deleted = blocking(move || cache.delete(garbage));
        if let Err(error) = deleted.await {
            let error = causes::chain(&error);
            tracing::warn!(error, "the input root cache could not delete what it evicted");
        }
    }

    fn collect_garbage(&self) -> Garbage {
        self.note(Index::collect_garbage)
    }

    fn note(&self, collect: impl FnOnce(&mut Index) -> Garbage) -> Garbage {
        let mut index = self.index();
        let garbage = collect(&mut index);
        self.stats.evicted(garbage.trees.len());
        self.stats.holds(&index);
        garbage
    }

    /// Deletes from the disk what was evicted. Blocks.
    fn delete(&self, garbage: Garbage) -> Result<(), InputError> {
        for id in garbage.trees {
            let path = self.tree_path(id);
            materialise::remove_tree(&path)
                .map_err(InputError::io(format!("remove {}", path.display())))?;
        }
        for id in garbage.files {
            let path = self.file_path(id);
            materialise::remove_file(&path)
                .map_err(InputError::io(format!("remove {}", path.display())))?;
        }
        Ok(())
    }

    pub(super) fn pinned(self: &Arc<Self>, root: Digest) -> Option<InputRoot> {
        let layers = self.index().pin_root(&root)?;
        self.stats.hit();
        Some(InputRoot { cache: self.clone(), layers })
    }

    fn tree_path(&self, id: Id) -> PathBuf {
        self.directory.join("trees").join(id.to_string())
    }

    pub(super) fn file_path(&self, id: Id) -> PathBuf {
        self.directory.join("files").join(id.to_string())
    }

    /// Lays out a layer whose files are in the cache. Returns its tree pinned. Blocks.
    pub(super) fn materialise(
        self: Arc<Self>,
        key: Digest,
        layer: &Layer,
    ) -> Result<Id, InputError> {
        let mut files = Retained::new(&self, Vec::new());
        let absent = files.add_known(layer.files.iter().map(|(_, key)| *key).collect());
        debug_assert!(absent.is_empty(), "the caller holds references to all of them");
        let id = self.index().next_id();
        let path = self.tree_path(id);
        if let Err(error) = materialise::build(&path, layer, |key| self.known_file(key)) {
            // What cannot be removed now is removed at the next start.
            let _ = materialise::remove_tree(&path);
            return Err(error);
        }
        let keys: Arc<[FileKey]> = std::mem::take(&mut files.keys).into();
        let size = TreeSize { entries: layer.entries(), directories: layer.directories.len() + 1 };
        self.index().insert_tree(key, id, keys, size);
        Ok(id)
    }

    fn known_file(&self, key: &FileKey) -> Option<PathBuf> {
        let id = self.index().find(key)?;
        Some(self.file_path(id))
    }
}

/// A complete input root that stays on disk while this exists.
pub struct InputRoot {
    pub(super) cache: Arc<Cache>,
    pub(super) layers: Vec<(Digest, Id)>,
}

impl InputRoot {
    /// Read-only trees that make up the input root together. No two hold the same file.
    pub fn layers(&self) -> impl Iterator<Item = PathBuf> {
        self.layers.iter().map(|(_, id)| self.cache.tree_path(*id))
    }
}

impl Drop for InputRoot {
    fn drop(&mut self) {
        let mut index = self.cache.index();
        self.layers.iter().for_each(|(layer, _)| index.unpin(layer));
    }
}

impl Tenant for Cache {
    fn used(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    fn give_way(&self, bytes: u64) -> bool {
        let garbage = self.note(|index| index.shed(bytes));
        if garbage.is_empty() {
            return false;
        }
        if let Err(error) = self.delete(garbage) {
            let error = causes::chain(&error);
            tracing::warn!(error, "the input root cache could not delete what it gave up");
        }
        true
    }
}

/// References to cached files, given back unless a tree took them over.
pub(super) struct Retained {
    cache: Arc<Cache>,
    pub(super) keys: Vec<FileKey>,
}

impl Retained {
    pub(super) fn new(cache: &Arc<Cache>, keys: Vec<FileKey>) -> Self {
        Self { cache: cache.clone(), keys }
    }

    /// Adds those of `keys` that the cache has, and returns the others.
    pub(super) fn add_known(&mut self, keys: HashSet<FileKey>) -> Vec<FileKey> {
        let mut index = self.cache.index();
        let (known, absent) = keys.into_iter().partition(|key| index.retain(key).is_some());
        drop(index);
        self.keys.extend::<Vec<_>>(known);
        absent
    }

    pub(super) fn absorb(&mut self, mut other: Self) {
        self.keys.append(&mut other.keys);
    }
}

impl Drop for Retained {
    fn drop(&mut self) {
        self.cache.index().release(&self.keys);
    }
}

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InputError> + Send + 'static,
) -> Result<T, InputError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(InputError::Io {
            context: "a file task".to_owned(),
            source: std::io::Error::other(error),
        }),
    }
}
