//! Input roots: read-only directory trees on the local disk, built from the store without
//! copying where possible and kept for the next action with the same root digest.
//!
//! Each file is fetched once into a local file cache. An input root is a stack of layers,
//! directory trees of hard links to those files: large directories are layers of their own,
//! shared by all input roots that have them at the same path. A layer becomes known only when
//! it is complete, and the whole cache is emptied when a worker starts, so that a half-built
//! one is never used. Files have mode 0644 or 0755 and directories 0777, all with one fixed
//! modification time.

mod directory;
mod files;
mod index;
mod list;
mod load;
mod materialise;
mod plan;
mod stats;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use kiln_cas::stores::{Premises, Tenant};
use kiln_cas::{Digest, SharedBlobStore, StoreError};

use crate::failure::Failure;
use crate::keyed_lock::KeyedLocks;
use crate::paths;
pub use directory::{Directory, DirectoryError};
use files::FileFetcher;
use index::{Garbage, Id, Index, TreeSize};
pub use list::{InputFile, InputSymlink, Listing};
use load::DirectoryLoader;
use plan::Layer;
pub use stats::{InputFigures, InputStats};

/// Directories and small files fetched at the same time for one input root.
pub const FETCH_CONCURRENCY: usize = 64;

/// What one input root may be.
#[derive(Debug, Clone)]
pub struct InputLimits {
    /// Files, directories and symlinks.
    pub entries: usize,
    /// Of all files together.
    pub bytes: u64,
}

impl Default for InputLimits {
    fn default() -> Self {
        Self { entries: 250_000, bytes: 64 << 30 }
    }
}

/// What the local cache may hold; trees in use are kept beyond it.
#[derive(Debug, Clone)]
pub struct CacheLimits {
    pub bytes: u64,
    /// The same without hard links to blobs of the store.
    pub own_bytes: u64,
    /// Entries of all trees together.
    pub entries: usize,
    /// Directories with at least so many entries are layers of their own.
    pub layer_entries: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { bytes: 16 << 30, own_bytes: u64::MAX, entries: 4_000_000, layer_entries: 64 }
    }
}

/// A file's content and mode: what equal files share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    pub digest: Digest,
    pub executable: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{} blobs of the input root are missing", .0.len())]
    Missing(Vec<Digest>),
    #[error("input root: Directory {digest}: {error}")]
    Directory { digest: Digest, error: DirectoryError },
    #[error("input root: Directory {digest} is larger than {limit} bytes")]
    DirectoryTooLarge { digest: Digest, limit: u64 },
    #[error("the input root has more than {limit} entries, the limit of this worker")]
    TooManyEntries { limit: usize },
    #[error("the files of the input root have more than {limit} bytes, the limit of this worker")]
    TooManyBytes { limit: u64 },
    #[error("the input root is more than {limit} directories deep")]
    TooDeep { limit: usize },
    #[error("input root: the path {path:?} is longer than {limit} bytes")]
    PathTooLong { path: String, limit: usize },
    #[error("input root: {0}")]
    Store(#[from] StoreError),
    #[error("input root: {context}: {error}")]
    Io { context: String, error: std::io::Error },
}

impl InputError {
    fn io(context: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let context = context.into();
        move |error| Self::Io { context, error }
    }
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        match error {
            InputError::Missing(missing) => Self::MissingInputs(missing),
            InputError::Store(error @ StoreError::NotFound(_)) => error.into(),
            InputError::Store(_) | InputError::Io { .. } => Self::Infrastructure(error.to_string()),
            InputError::Directory { .. }
            | InputError::DirectoryTooLarge { .. }
            | InputError::TooManyEntries { .. }
            | InputError::TooManyBytes { .. }
            | InputError::TooDeep { .. }
            | InputError::PathTooLong { .. } => Self::InvalidAction(error.to_string()),
        }
    }
}

/// The local cache of input roots. Cheap to clone.
#[derive(Clone)]
pub struct InputRoots {
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    limits: InputLimits,
    layer_entries: usize,
    index: Mutex<Index>,
    loader: DirectoryLoader,
    fetcher: FileFetcher,
    /// Of input roots and of layers. Who holds one of a layer waits for no other.
    building: KeyedLocks<Digest>,
    /// At most one deletion of what was evicted runs at a time.
    deleting: tokio::sync::Mutex<()>,
    stats: Arc<InputStats>,
    /// Bytes that are not hard links to blobs.
    own: Arc<AtomicU64>,
    premises: OnceLock<Premises>,
}

/// A complete input root that stays on disk while this exists.
pub struct InputRoot {
    shared: Arc<Shared>,
    layers: Vec<(Digest, Id)>,
}

impl InputRoot {
    /// Read-only trees that make up the input root together. No two hold the same file.
    pub fn layers(&self) -> impl Iterator<Item = PathBuf> {
        self.layers.iter().map(|(_, id)| self.shared.tree_path(*id))
    }
}

impl Drop for InputRoot {
    fn drop(&mut self) {
        let mut index = self.shared.index();
        self.layers.iter().for_each(|(layer, _)| index.unpin(layer));
    }
}

/// References to cached files, given back unless a tree took them over.
struct Retained {
    shared: Arc<Shared>,
    keys: Vec<FileKey>,
}

impl Retained {
    fn new(shared: &Arc<Shared>, keys: Vec<FileKey>) -> Self {
        Self { shared: shared.clone(), keys }
    }

    /// Adds those of `keys` that the cache has, and returns the others.
    fn add_known(&mut self, keys: HashSet<FileKey>) -> Vec<FileKey> {
        let mut index = self.shared.index();
        let (known, absent) = keys.into_iter().partition(|key| index.retain(key).is_some());
        drop(index);
        self.keys.extend::<Vec<_>>(known);
        absent
    }

    fn absorb(&mut self, mut other: Self) {
        self.keys.append(&mut other.keys);
    }
}

impl Drop for Retained {
    fn drop(&mut self) {
        self.shared.index().release(&self.keys);
    }
}

impl InputRoots {
    /// Empties `directory` and uses it.
    pub fn open(
        directory: &Path,
        store: SharedBlobStore,
        limits: InputLimits,
        cache: CacheLimits,
    ) -> std::io::Result<Self> {
        materialise::remove_tree(directory)?;
        for kind in ["files", "trees"] {
            std::fs::create_dir_all(directory.join(kind))?;
        }
        let stats = Arc::<InputStats>::default();
        stats.limit(cache.bytes);
        let layer_entries = cache.layer_entries;
        let index = Index::new(cache);
        let shared = Shared {
            directory: directory.to_owned(),
            limits,
            layer_entries,
            own: index.own_bytes(),
            premises: OnceLock::new(),
            index: Mutex::new(index),
            loader: DirectoryLoader::new(store.clone()),
            fetcher: FileFetcher::new(store),
            building: KeyedLocks::default(),
            deleting: tokio::sync::Mutex::default(),
            stats,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What is kept here counts against the limit of this store from now on.
    pub fn move_into(&self, premises: Premises) {
        let tenant: Weak<dyn Tenant> = Arc::<Shared>::downgrade(&self.shared);
        premises.move_in(tenant);
        // An error means that it has moved in already.
        let _ = self.shared.premises.set(premises);
    }

    pub fn stats(&self) -> Arc<InputStats> {
        self.shared.stats.clone()
    }

    /// The input root with the digest `root`, from the cache or built now. `None`: the root is empty.
    pub async fn prepare(&self, root: Digest) -> Result<Option<InputRoot>, InputError> {
        if root.is_empty_blob() {
            return Ok(None);
        }
        if let Some(ready) = self.shared.pinned(root) {
            return Ok(Some(ready));
        }
        let _alone = self.shared.building.lock(root).await;
        if let Some(ready) = self.shared.pinned(root) {
            return Ok(Some(ready));
        }
        let built = self.build(root).await;
        self.delete_garbage().await;
        let built = built?;
        self.shared.stats.built();
        Ok(Some(built))
    }

    async fn build(&self, root: Digest) -> Result<InputRoot, InputError> {
        let shared = &self.shared;
        let loaded = shared.loader.load(root, &shared.limits).await?;
        let layers = plan::layers(root, &loaded.directories, &shared.limits, shared.layer_entries)?;
        let mut built = InputRoot { shared: shared.clone(), layers: Vec::new() };
        let mut absent = Vec::new();
        for layer in layers {
            let key = layer.key();
            let pinned = shared.index().pin(&key);
            match pinned {
                Some(id) => built.layers.push((key, id)),
                None => absent.push((key, layer)),
            }
        }
        let _files = self.fetch_files(&absent, loaded.missing).await?;
        for (key, layer) in absent {
            let id = self.build_layer(key, layer).await?;
            built.layers.push((key, id));
        }
        let keys = built.layers.iter().map(|(key, _)| *key).collect();
        shared.index().remember_root(root, keys);
        Ok(built)
    }

    /// All files of `layer` are in the file cache. Returns it pinned.
    async fn build_layer(&self, key: Digest, layer: Layer) -> Result<Id, InputError> {
        let _alone = self.shared.building.lock(key).await;
        if let Some(id) = self.shared.index().pin(&key) {
            return Ok(id);
        }
        let shared = self.shared.clone();
        blocking(move || shared.materialise(key, &layer)).await
    }

    /// Makes every file of `layers` present in the file cache. Reports all that is missing at
    /// once, together with what is known to be `missing` before.
    async fn fetch_files(
        &self,
        layers: &[(Digest, Layer)],
        mut missing: Vec<Digest>,
    ) -> Result<Retained, InputError> {
        let shared = &self.shared;
        let files = layers.iter().flat_map(|(_, layer)| &layer.files);
        let wanted: HashSet<FileKey> = files.map(|(_, key)| *key).collect();
        let mut retained = Retained::new(shared, Vec::with_capacity(wanted.len()));
        let absent = retained.add_known(wanted);
        missing.extend(shared.fetcher.find_missing(&absent).await?);
        if !missing.is_empty() {
            return Err(InputError::Missing(missing));
        }
        if let Some(premises) = shared.premises.get() {
            premises.make_room(FileFetcher::copied_bytes(&absent)).await;
        }
        shared.fetcher.fetch(shared, absent, &mut retained).await?;
        Ok(retained)
    }

    async fn delete_garbage(&self) {
        let garbage = self.shared.collect_garbage();
        if garbage.is_empty() {
            return;
        }
        let _alone = self.shared.deleting.lock().await;
        let shared = self.shared.clone();
        let deleted = blocking(move || shared.delete(garbage));
        if let Err(error) = deleted.await {
            tracing::warn!(%error, "the input root cache could not delete what it evicted");
        }
    }
}

impl Tenant for Shared {
    fn used(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    fn give_way(&self, bytes: u64) -> bool {
        let garbage = self.note(|index| index.shed(bytes));
        if garbage.is_empty() {
            return false;
        }
        if let Err(error) = self.delete(garbage) {
            tracing::warn!(%error, "the input root cache could not delete what it gave up");
        }
        true
    }
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Blocks.
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

    fn pinned(self: &Arc<Self>, root: Digest) -> Option<InputRoot> {
        let layers = self.index().pin_root(&root)?;
        self.stats.hit();
        Some(InputRoot { shared: self.clone(), layers })
    }

    fn tree_path(&self, id: Id) -> PathBuf {
        self.directory.join("trees").join(id.to_string())
    }

    fn file_path(&self, id: Id) -> PathBuf {
        self.directory.join("files").join(id.to_string())
    }

    /// Blocks. Returns the tree pinned.
    fn materialise(self: Arc<Self>, key: Digest, layer: &Layer) -> Result<Id, InputError> {
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

impl From<paths::PathError> for Failure {
    fn from(error: paths::PathError) -> Self {
        Self::InvalidAction(error.to_string())
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InputError> + Send + 'static,
) -> Result<T, InputError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(InputError::Io {
            context: "a file task".to_owned(),
            error: std::io::Error::other(error),
        }),
    }
}
