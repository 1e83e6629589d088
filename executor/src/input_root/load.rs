//! Fetches the Directory messages of an input root, level by level.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, stream};
use kiln_cas::{Digest, SharedBlobStore, StoreError};

use super::directory::Directory;
use super::error::InputError;
use super::limits::{FETCH_CONCURRENCY, InputLimits};
use crate::paths::MAX_PATH_BYTES;

/// Largest Directory message, in bytes: some 150,000 entries.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;
/// Levels of directories: no path of more could be short enough.
const MAX_DEPTH: usize = MAX_PATH_BYTES / 2;
/// Bytes of decoded directories kept for the next input roots.
const CACHE_BYTES: usize = 32 << 20;

/// All directories of one input root that are in the store, by digest.
pub(super) struct LoadedTree {
    pub directories: HashMap<Digest, Arc<Directory>>,
    /// Directories that are not in the store.
    pub missing: Vec<Digest>,
}

pub(super) struct DirectoryLoader {
    store: SharedBlobStore,
    cache: Mutex<TwoGenerations>,
}

impl DirectoryLoader {
    pub fn new(store: SharedBlobStore) -> Self {
        Self { store, cache: Mutex::default() }
    }

    pub async fn load(&self, root: Digest, limits: &InputLimits) -> Result<LoadedTree, InputError> {
        let mut tree = LoadedTree { directories: HashMap::new(), missing: Vec::new() };
        let mut seen = HashSet::from([root]);
        let mut level = vec![root];
        let mut room = Room { left: limits.entries, limit: limits.entries };
        for _ in 0..MAX_DEPTH {
            let loaded = self.load_level(&level, &mut room).await?;
            level.clear();
            for (digest, directory) in loaded {
                let Some(directory) = directory else {
                    tree.missing.push(digest);
                    continue;
                };
                let children = directory.directories.iter().map(|child| child.digest);
                level.extend(children.filter(|child| seen.insert(*child)));
                tree.directories.insert(digest, directory);
            }
            if seen.len() > limits.entries {
                return Err(InputError::TooManyEntries { limit: limits.entries });
            }
            if level.is_empty() {
                return Ok(tree);
            }
        }
        Err(InputError::TooDeep { limit: MAX_DEPTH })
    }

    /// Loads directories, in the order of `level`; `None` for one that is missing.
    async fn load_level(
        &self,
        level: &[Digest],
        room: &mut Room,
    ) -> Result<Vec<(Digest, Option<Arc<Directory>>)>, InputError> {
        let mut loads = stream::iter(level.iter().copied().map(|digest| self.load_one(digest)))
            .buffered(FETCH_CONCURRENCY);
        let mut loaded = Vec::with_capacity(level.len());
        while let Some(one) = loads.next().await {
            let (digest, directory) = one?;
            room.take(directory.as_ref().map_or(0, |directory| directory.entries()))?;
            loaded.push((digest, directory));
        }
        Ok(loaded)
    }

    async fn load_one(
        &self,
        digest: Digest,
    ) -> Result<(Digest, Option<Arc<Directory>>), InputError> {
        if digest.is_empty_blob() {
            return Ok((digest, Some(Arc::default())));
        }
        if let Some(directory) = self.lock().get(&digest) {
            return Ok((digest, Some(directory)));
        }
        if digest.size > MAX_DIRECTORY_BYTES {
            return Err(InputError::DirectoryTooLarge { digest, limit: MAX_DIRECTORY_BYTES });
        }
        let data = match self.store.read(&digest, 0, None).await {
            Ok(blob) => blob.collect(MAX_DIRECTORY_BYTES).await?,
            Err(StoreError::NotFound(_)) => return Ok((digest, None)),
            Err(error) => return Err(error.into()),
        };
        let directory = Directory::decode(&data, digest.function)
            .map_err(|source| InputError::Directory { digest, source })?;
        let directory = Arc::new(directory);
        self.lock().insert(digest, directory.clone());
        Ok((digest, Some(directory)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TwoGenerations> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries that the directories of one input root may still have: each occurs once at least.
struct Room {
    left: usize,
    limit: usize,
}

impl Room {
    fn take(&mut self, entries: usize) -> Result<(), InputError> {
        let left = self.left.checked_sub(entries);
        self.left = left.ok_or(InputError::TooManyEntries { limit: self.limit })?;
        Ok(())
    }
}

/// A bounded cache: when the young generation has grown to half the budget it becomes the
/// old one, and what was not used since the last turn is forgotten.
#[derive(Default)]
struct TwoGenerations {
    young: HashMap<Digest, Arc<Directory>>,
    old: HashMap<Digest, Arc<Directory>>,
    young_bytes: usize,
}

impl TwoGenerations {
    fn get(&mut self, digest: &Digest) -> Option<Arc<Directory>> {
        if let Some(directory) = self.young.get(digest) {
            return Some(directory.clone());
        }
        let directory = self.old.remove(digest)?;
        self.insert(*digest, directory.clone());
        Some(directory)
    }

    fn insert(&mut self, digest: Digest, directory: Arc<Directory>) {
        if self.young_bytes > CACHE_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += directory.weight();
        self.young.insert(digest, directory);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kiln_cas::DigestFunction;
    use kiln_cas::stores::MemoryBlobStore;
    use kiln_protos::reapi;
    use prost::Message;

    use super::*;

    #[tokio::test]
    async fn entries_are_counted_as_their_directories_come() {
        let digest = Some(DigestFunction::Sha256.digest(b"x").to_wire());
        let file = |n: u32| reapi::FileNode {
            name: n.to_string(),
            digest: digest.clone(),
            ..Default::default()
        };
        let message =
            reapi::Directory { files: (10..21).map(file).collect(), ..Default::default() };
        let data = Bytes::from(message.encode_to_vec());
        let root = DigestFunction::Sha256.digest(&data);
        let store: SharedBlobStore = Arc::new(MemoryBlobStore::default());
        store.write(&root, data).await.unwrap();
        let loader = DirectoryLoader::new(store);
        let load = async |entries| {
            let limits = InputLimits { entries, ..Default::default() };
            loader.load(root, &limits).await.map(|_| ())
        };
        assert!(load(11).await.is_ok());
        let error = load(10).await.unwrap_err();
        assert!(matches!(error, InputError::TooManyEntries { limit: 10 }), "{error}");
    }
}
