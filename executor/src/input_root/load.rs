//! Fetches the Directory messages of an input root, level by level.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, stream};
use kiln_cas::{Digest, SharedBlobStore, StoreError};
use tokio::sync::Semaphore;

use super::directory::Directory;
use super::error::InputError;
use super::limits::{FETCH_CONCURRENCY, InputLimits};
use crate::paths::MAX_PATH_BYTES;

/// Largest Directory message, in bytes: some 150,000 entries.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;
/// Bytes of Directory messages that are read and decoded at a time, for all input roots: a few of the largest.
const LOADING_BYTES: usize = 64 << 20;
/// Most levels of directories: no path of more could be short enough.
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
    /// The bytes that may still be fetched at the same time: one permit for each.
    loading: Semaphore,
}

impl DirectoryLoader {
    pub fn new(store: SharedBlobStore) -> Self {
        Self { store, cache: Mutex::default(), loading: Semaphore::new(LOADING_BYTES) }
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
        let loads = level.iter().copied().enumerate();
        let loads =
            loads.map(|(index, digest)| async move { (index, self.load_one(digest).await) });
        // In order, what comes behind one that is slow would pile up before it is counted.
        let mut loads = stream::iter(loads).buffer_unordered(FETCH_CONCURRENCY);
        let mut loaded = Vec::with_capacity(level.len());
        while let Some((index, one)) = loads.next().await {
            let (digest, directory) = one?;
            room.take(directory.as_ref().map_or(0, |directory| directory.entries()))?;
            loaded.push((index, digest, directory));
        }
        loaded.sort_unstable_by_key(|(index, ..)| *index);
        Ok(loaded.into_iter().map(|(_, digest, directory)| (digest, directory)).collect())
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
        let bytes = u32::try_from(digest.size).unwrap_or(u32::MAX);
        let _under_way = self.loading.acquire_many(bytes).await;
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
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;
    use kiln_cas::stores::MemoryBlobStore;
    use kiln_cas::{Blob, BlobStore, BlobWriter, DigestFunction};
    use kiln_protos::reapi;
    use prost::Message;

    use super::*;

    #[tokio::test]
    async fn entries_are_counted_as_their_directories_come() {
        let digest = |n: u8| Some(DigestFunction::Sha256.digest(&[n]).to_wire());
        let file = |n: u8| reapi::FileNode {
            name: n.to_string(),
            digest: digest(n),
            ..Default::default()
        };
        let child = |n: u8| reapi::DirectoryNode { name: n.to_string(), digest: digest(n) };
        let files = reapi::Directory { files: (10..21).map(file).collect(), ..Default::default() };
        let directories =
            reapi::Directory { directories: (10..21).map(child).collect(), ..Default::default() };
        for message in [files, directories] {
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

    /// A store that notes how many bytes were read from it at a time.
    #[derive(Default)]
    struct Watched {
        inner: MemoryBlobStore,
        under_way: AtomicU64,
        most: AtomicU64,
    }

    #[async_trait]
    impl BlobStore for Watched {
        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            self.inner.find_missing(digests).await
        }

        async fn read(
            &self,
            digest: &Digest,
            offset: u64,
            limit: Option<u64>,
        ) -> Result<Blob, StoreError> {
            let before = self.under_way.fetch_add(digest.size, Ordering::Relaxed);
            self.most.fetch_max(before + digest.size, Ordering::Relaxed);
            // During this pause every other read that may begin does so.
            tokio::task::yield_now().await;
            self.under_way.fetch_sub(digest.size, Ordering::Relaxed);
            self.inner.read(digest, offset, limit).await
        }

        async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
            self.inner.write(digest, data).await
        }

        async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
            self.inner.writer(digest).await
        }

        async fn sync(&self) -> Result<(), StoreError> {
            self.inner.sync().await
        }
    }

    #[tokio::test]
    async fn the_bytes_of_directories_under_way_are_bounded() {
        const BYTES: u64 = 2_000;
        let store = Arc::new(Watched::default());
        let put = async |message: reapi::Directory| {
            let data = Bytes::from(message.encode_to_vec());
            let digest = DigestFunction::Sha256.digest(&data);
            store.write(&digest, data).await.unwrap();
            digest
        };
        let mut root = reapi::Directory::default();
        for n in 10..30 {
            let link = reapi::SymlinkNode {
                name: "link".into(),
                target: format!("{n:0>900}"),
                ..Default::default()
            };
            let child = put(reapi::Directory { symlinks: vec![link], ..Default::default() }).await;
            let (name, digest) = (n.to_string(), Some(child.to_wire()));
            root.directories.push(reapi::DirectoryNode { name, digest });
        }
        let root = put(root).await;
        let loading = Semaphore::new(BYTES as usize);
        let loader = DirectoryLoader { loading, ..DirectoryLoader::new(store.clone()) };
        let tree = loader.load(root, &InputLimits::default()).await.map_err(|it| it.to_string());
        assert_eq!(tree.unwrap().directories.len(), 21);
        let most = store.most.load(Ordering::Relaxed);
        assert!((900..=BYTES).contains(&most), "{most}");
    }
}
