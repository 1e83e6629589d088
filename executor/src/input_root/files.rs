//! Brings blobs into the local file cache: linked where the store can, copied otherwise.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use kiln_cas::blob::MAX_WHOLE_BLOB;
use kiln_cas::{Digest, SharedBlobStore};
use tokio::io::AsyncWriteExt as _;

use super::cache::{Cache, Retained, blocking};
use super::error::InputError;
use super::index::Id;
use super::key::FileKey;
use super::limits::FETCH_CONCURRENCY;
use super::materialise::set_fixed_time;
use crate::keyed_lock::KeyedLocks;

/// Bytes of a file from which on a hard link is cheaper than a copy.
const LINK_FROM_BYTES: u64 = 64 << 10;
/// Mode of executable files, as umask 022 leaves them. An action writes to a copy of its own.
const EXECUTABLE: u32 = 0o755;
/// Small files written to disk by one blocking task.
const WRITE_BATCH: usize = 64;
/// Large files fetched at the same time for one input root.
const LARGE_CONCURRENCY: usize = 4;

pub(super) struct FileFetcher {
    store: SharedBlobStore,
    fetching: KeyedLocks<FileKey>,
}

impl FileFetcher {
    pub fn new(store: SharedBlobStore) -> Self {
        Self { store, fetching: KeyedLocks::default() }
    }

    /// The digests that the store lacks, each once.
    pub async fn find_missing(&self, keys: &[FileKey]) -> Result<Vec<Digest>, InputError> {
        let digests: HashSet<Digest> =
            keys.iter().map(|key| key.digest).filter(|digest| !digest.is_empty_blob()).collect();
        if digests.is_empty() {
            return Ok(Vec::new());
        }
        let mut digests: Vec<Digest> = digests.into_iter().collect();
        digests.sort_unstable();
        Ok(self.store.find_missing(&digests).await?)
    }

    /// Bytes that copies of these files take; the others are hard links to blobs.
    pub fn copied_bytes(keys: &[FileKey]) -> u64 {
        let copied = keys.iter().filter(|key| !is_linked(key));
        copied.map(|key| key.digest.size).sum()
    }

    /// Fetches all of `keys`, and notes in `retained` each as soon as it is there.
    pub async fn fetch(
        &self,
        cache: &Arc<Cache>,
        keys: Vec<FileKey>,
        retained: &mut Retained,
    ) -> Result<(), InputError> {
        let (large, small): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| key.digest.size >= LINK_FROM_BYTES);
        self.fetch_small(cache, small, retained).await?;
        let mut fetches = stream::iter(large.into_iter().map(|key| self.fetch_large(cache, key)))
            .buffer_unordered(LARGE_CONCURRENCY);
        while let Some(fetched) = fetches.next().await {
            retained.absorb(fetched?);
        }
        Ok(())
    }

    async fn fetch_small(
        &self,
        cache: &Arc<Cache>,
        keys: Vec<FileKey>,
        retained: &mut Retained,
    ) -> Result<(), InputError> {
        let reads = stream::iter(keys.into_iter().map(|key| self.read_small(key)))
            .buffer_unordered(FETCH_CONCURRENCY);
        let mut batches = std::pin::pin!(reads.ready_chunks(WRITE_BATCH));
        while let Some(batch) = batches.next().await {
            let batch: Vec<(FileKey, Bytes)> = batch.into_iter().collect::<Result<_, _>>()?;
            let cache = cache.clone();
            retained.absorb(blocking(move || write_batch(&cache, batch)).await?);
        }
        Ok(())
    }

    async fn read_small(&self, key: FileKey) -> Result<(FileKey, Bytes), InputError> {
        if key.digest.is_empty_blob() {
            return Ok((key, Bytes::new()));
        }
        let blob = self.store.read(&key.digest, 0, None).await?;
        Ok((key, blob.collect(MAX_WHOLE_BLOB).await?))
    }

    async fn fetch_large(&self, cache: &Arc<Cache>, key: FileKey) -> Result<Retained, InputError> {
        let _alone = self.fetching.lock(key).await;
        if cache.index().retain(&key).is_some() {
            return Ok(Retained::new(cache, vec![key]));
        }
        let unfinished = Unfinished::new(cache);
        // Links have the mode of what is executable.
        let linked = is_linked(&key) && self.store.link(&key.digest, &unfinished.path).await?;
        if linked {
            let path = unfinished.path.clone();
            blocking(move || {
                File::open(&path)
                    .and_then(|file| {
                        file.set_permissions(Permissions::from_mode(EXECUTABLE))?;
                        set_fixed_time(&file)
                    })
                    .map_err(InputError::io(format!("set mode and time of {}", path.display())))
            })
            .await?;
        } else {
            self.copy(&key, &unfinished.path).await?;
        }
        unfinished.keep(key, linked);
        Ok(Retained::new(cache, vec![key]))
    }

    async fn copy(&self, key: &FileKey, path: &Path) -> Result<(), InputError> {
        let failed = |error| InputError::io(format!("write {}", path.display()))(error);
        let blob = self.store.read(&key.digest, 0, None).await?;
        let mut file = tokio::fs::File::create_new(path).await.map_err(failed)?;
        let mut chunks = blob.into_stream();
        while let Some(chunk) = chunks.next().await {
            file.write_all(&chunk?).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        let (file, mode) = (file.into_std().await, mode(key));
        let path = path.to_owned();
        blocking(move || {
            file.set_permissions(Permissions::from_mode(mode))
                .and_then(|()| set_fixed_time(&file))
                .map_err(InputError::io(format!("write {}", path.display())))
        })
        .await
    }
}

/// Whether a file is to be a hard link to its blob.
fn is_linked(key: &FileKey) -> bool {
    key.executable && key.digest.size >= LINK_FROM_BYTES
}

fn write_batch(cache: &Arc<Cache>, batch: Vec<(FileKey, Bytes)>) -> Result<Retained, InputError> {
    let mut written = Retained::new(cache, Vec::with_capacity(batch.len()));
    for (key, data) in batch {
        let unfinished = Unfinished::new(cache);
        let path = &unfinished.path;
        write_file(path, &data, mode(&key))
            .map_err(InputError::io(format!("write {}", path.display())))?;
        unfinished.keep(key, false);
        written.keys.push(key);
    }
    Ok(written)
}

/// A file of the cache that is not complete: dropping it gives it to the garbage.
struct Unfinished<'a> {
    cache: &'a Arc<Cache>,
    id: Option<Id>,
    path: PathBuf,
}

impl<'a> Unfinished<'a> {
    fn new(cache: &'a Arc<Cache>) -> Self {
        let id = cache.index().next_id();
        Self { cache, id: Some(id), path: cache.file_path(id) }
    }

    /// Hands the file over to the cache, which knows it as `key` from now on. `linked`: it is a
    /// hard link to a blob of the store.
    fn keep(mut self, key: FileKey, linked: bool) {
        if let Some(id) = self.id.take() {
            self.cache.index().insert_file(key, id, linked);
        }
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.cache.index().discard_file(id);
        }
    }
}

fn write_file(path: &Path, data: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(data)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    set_fixed_time(&file)
}

fn mode(key: &FileKey) -> u32 {
    if key.executable { EXECUTABLE } else { 0o644 }
}
