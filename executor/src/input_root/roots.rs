//! Makes input roots out of the store, or finds them in the cache.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use kiln_cas::stores::{Premises, Tenant};
use kiln_cas::{Digest, SharedBlobStore};

use super::cache::{Cache, InputRoot, Retained, blocking};
use super::error::InputError;
use super::files::FileFetcher;
use super::index::Id;
use super::key::FileKey;
use super::limits::{CacheLimits, InputLimits};
use super::load::DirectoryLoader;
use super::plan::{self, Layer};
use super::stats::InputStats;
use crate::keyed_lock::KeyedLocks;

/// The local cache of input roots. Cheap to clone.
#[derive(Clone)]
pub struct InputRoots {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) limits: InputLimits,
    layer_entries: usize,
    cache: Arc<Cache>,
    pub(super) loader: DirectoryLoader,
    fetcher: FileFetcher,
    /// Held while an input root or a layer is built. Who holds one of a layer waits for no other.
    building: KeyedLocks<Digest>,
    premises: OnceLock<Premises>,
}

impl InputRoots {
    /// Empties `directory` and uses it.
    pub fn open(
        directory: &Path,
        store: SharedBlobStore,
        limits: InputLimits,
        cache: CacheLimits,
    ) -> std::io::Result<Self> {
        let layer_entries = cache.layer_entries;
        let shared = Shared {
            limits,
            layer_entries,
            cache: Arc::new(Cache::open(directory, cache)?),
            loader: DirectoryLoader::new(store.clone()),
            fetcher: FileFetcher::new(store),
            building: KeyedLocks::default(),
            premises: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Counts the bytes of the cache against the limit of this store from now on.
    pub fn move_into(&self, premises: Premises) {
        let tenant: Weak<dyn Tenant> = Arc::<Cache>::downgrade(&self.shared.cache);
        premises.move_in(tenant);
        // An error means that it has moved in already.
        let _ = self.shared.premises.set(premises);
    }

    pub fn stats(&self) -> Arc<InputStats> {
        self.shared.cache.stats.clone()
    }

    /// The input root with the digest `root`, from the cache or built now. `None`: the root is empty.
    pub async fn prepare(&self, root: Digest) -> Result<Option<InputRoot>, InputError> {
        if root.is_empty_blob() {
            return Ok(None);
        }
        if let Some(ready) = self.shared.cache.pinned(root) {
            return Ok(Some(ready));
        }
        let _alone = self.shared.building.lock(root).await;
        if let Some(ready) = self.shared.cache.pinned(root) {
            return Ok(Some(ready));
        }
        let built = self.build(root).await;
        self.shared.cache.delete_garbage().await;
        let built = built?;
        self.shared.cache.stats.built();
        Ok(Some(built))
    }

    async fn build(&self, root: Digest) -> Result<InputRoot, InputError> {
        let shared = &self.shared;
        let loaded = shared.loader.load(root, &shared.limits).await?;
        let layers = plan::layers(root, &loaded.directories, &shared.limits, shared.layer_entries)?;
        let mut built = InputRoot { cache: shared.cache.clone(), layers: Vec::new() };
        let mut absent = Vec::new();
        for layer in layers {
            let key = layer.key();
            let pinned = shared.cache.index().pin(&key);
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
        shared.cache.index().remember_root(root, keys);
        Ok(built)
    }

    /// Lays out `layer`, whose files are all in the file cache. Returns its tree pinned.
    async fn build_layer(&self, key: Digest, layer: Layer) -> Result<Id, InputError> {
        let _alone = self.shared.building.lock(key).await;
        if let Some(id) = self.shared.cache.index().pin(&key) {
            return Ok(id);
        }
        let cache = self.shared.cache.clone();
        blocking(move || cache.materialise(key, &layer)).await
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
        let mut retained = Retained::new(&shared.cache, Vec::with_capacity(wanted.len()));
        let absent = retained.add_known(wanted);
        missing.extend(shared.fetcher.find_missing(&absent).await?);
        if !missing.is_empty() {
            return Err(InputError::Missing(missing));
        }
        if let Some(premises) = shared.premises.get() {
            premises.make_room(FileFetcher::copied_bytes(&absent)).await;
        }
        shared.fetcher.fetch(&shared.cache, absent, &mut retained).await?;
        Ok(retained)
    }
}
