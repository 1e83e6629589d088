//! Records as the walk through a closure reads them: by content, with the directories of inputs from the store.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kiln_cas::records::RecordsError;
use kiln_cas::{Digest, SharedBlobStore, StoreError};
use kiln_protos::executions::Uses;
use kiln_protos::reapi::{self, Directory};
use lru::LruCache;
use prost::Message as _;
use tokio::runtime::Handle;

use super::kept::record;
use super::keys::RecordId;
use super::store::ExecutionStore;
use crate::provenance::{ActionRecord, Archive, Listing};

/// Records that stay in memory: most are asked for once for each of their outputs.
const MAX_RECORDS: NonZeroUsize = NonZeroUsize::new(20_000).expect("it is not 0");
/// How many records of one content that the invocation did not use are read.
const MAX_UNUSED: usize = 8;
/// Contents whose makers are looked up together, and how many such look-ups are under way: while records of one are
/// decoded, those of others are read.
const TOGETHER: usize = 256;
const LOOK_UPS: usize = 4;
/// Bytes of a directory.
const MAX_DIRECTORY: u64 = 64 << 20;
/// Directories that are read at the same time for one call.
const DIRECTORIES: usize = 32;

/// The records that an invocation used.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    pub instance: String,
    pub invocation: String,
    /// Records that were used, each with the targets for which it was.
    pub used: HashMap<RecordId, Vec<Arc<str>>>,
    pub ran: usize,
    pub hits: usize,
    pub merged: usize,
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("records of executions cannot be read")]
    Records(#[from] RecordsError),
    #[error("the directory {0} cannot be read")]
    Directory(Digest, #[source] StoreError),
}

impl Invocation {
    /// Reads what is recorded of an invocation; nothing if there is none.
    pub async fn read(
        store: &ExecutionStore,
        instance: &str,
        invocation: &str,
    ) -> Result<Self, RecordsError> {
        let mut all = Self {
            instance: instance.to_owned(),
            invocation: invocation.to_owned(),
            ..Self::default()
        };
        store.uses(instance, invocation, &mut |uses| all.add(&uses)).await?;
        Ok(all)
    }

    fn add(&mut self, uses: &Uses) {
        for it in &uses.targets {
            let target: Arc<str> = it.target.as_str().into();
            self.ran += it.ran.len();
            self.hits += it.hit.len();
            self.merged += it.merged.len();
            let ids = it.ran.iter().chain(&it.hit).chain(&it.merged);
            for id in ids.filter_map(|it| RecordId::from_bytes(it)) {
                let targets = self.used.entry(id).or_default();
                if !targets.contains(&target) {
                    targets.push(target.clone());
                }
            }
        }
    }

    /// Records that were used for a target, in the order of their names.
    pub fn of_target(&self, target: &str) -> Vec<RecordId> {
        let of = |(id, targets): (&RecordId, &Vec<Arc<str>>)| {
            targets.iter().any(|it| **it == *target).then_some(*id)
        };
        let mut ids: Vec<_> = self.used.iter().filter_map(of).collect();
        ids.sort_unstable();
        ids
    }
}

/// What one invocation used, and what others did before it. Calls block: they are made on a thread of their own.
pub struct RecordArchive {
    store: ExecutionStore,
    blobs: SharedBlobStore,
    instance: String,
    used: HashSet<RecordId>,
    records: Mutex<LruCache<RecordId, Option<Arc<ActionRecord>>>>,
    unrecorded: u64,
    runtime: Handle,
}

impl RecordArchive {
    /// Must be called within a Tokio runtime.
    pub fn new(store: ExecutionStore, blobs: SharedBlobStore, invocation: &Invocation) -> Self {
        Self {
            store,
            blobs,
            instance: invocation.instance.clone(),
            used: invocation.used.keys().copied().collect(),
            records: Mutex::new(LruCache::new(MAX_RECORDS)),
            unrecorded: 0,
            runtime: Handle::current(),
        }
    }

    /// This archive, with the number of executions that were not recorded in the time in question.
    pub fn missing(self, unrecorded: u64) -> Self {
        Self { unrecorded, ..self }
    }

    /// Records that made each content; those of an invocation that was not meant are few.
    async fn makers(
        &self,
        contents: &[Digest],
    ) -> Result<Vec<Vec<Arc<ActionRecord>>>, RecordsError> {
        let chosen = |ids: Vec<RecordId>| {
            let (used, others): (Vec<_>, Vec<_>) =
                ids.into_iter().partition(|it| self.used.contains(it));
            used.into_iter().chain(others.into_iter().take(MAX_UNUSED)).collect::<Vec<_>>()
        };
        let all = self.store.makers_each(&self.instance, contents).await?;
        let all: Vec<_> = all.into_iter().map(chosen).collect();
        let known = self.get_each(all.iter().flatten()).await?;
        let of = |ids: Vec<RecordId>| {
            let mut found: Vec<_> = ids.iter().filter_map(|it| known.get(it)?.clone()).collect();
            found.sort_by_cached_key(|it| (!self.is_used(it), Reverse(it.finished)));
            found
        };
        Ok(all.into_iter().map(of).collect())
    }

    async fn get_each<'i>(
        &self,
        ids: impl Iterator<Item = &'i RecordId>,
    ) -> Result<HashMap<RecordId, Option<Arc<ActionRecord>>>, RecordsError> {
        let mut known = HashMap::new();
        let mut missing = Vec::new();
        {
            let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            for id in ids {
                match records.get(id) {
                    Some(found) => drop(known.insert(*id, found.clone())),
                    // Each is read once.
                    None => missing.extend(known.insert(*id, None).is_none().then_some(*id)),
                }
            }
        }
        let read = self.store.get_each(&missing).await?;
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, kept) in missing.into_iter().zip(read) {
            let found = kept.and_then(|it| record(id, &it)).map(Arc::new);
            records.put(id, found.clone());
            known.insert(id, found);
        }
        Ok(known)
    }

    async fn read(&self, directory: &Digest) -> Result<Option<Listing>, StoreError> {
        let bytes = match self.blobs.read(directory, 0, None).await {
            Ok(blob) => blob.collect(MAX_DIRECTORY).await?,
            Err(StoreError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        // What is no directory says nothing of what made it either.
        Ok(Directory::decode(bytes).ok().map(|it| listing(it, directory)))
    }
}

fn listing(it: Directory, of: &Digest) -> Listing {
    let named = |name: String, digest: Option<reapi::Digest>| {
        Some((name, Digest::from_wire(&digest?, of.function).ok()?))
    };
    let files = it.files.into_iter().filter_map(|it| named(it.name, it.digest));
    let directories = it.directories.into_iter().filter_map(|it| named(it.name, it.digest));
    Listing { files: files.collect(), directories: directories.collect() }
}

impl Archive for RecordArchive {
    type Error = ArchiveError;

    fn producers(&self, contents: &[Digest]) -> Result<Vec<Vec<Arc<ActionRecord>>>, ArchiveError> {
        let makers = stream::iter(contents.chunks(TOGETHER)).map(|it| self.makers(it));
        Ok(self.runtime.block_on(makers.buffered(LOOK_UPS).try_concat())?)
    }

    fn is_used(&self, record: &ActionRecord) -> bool {
        RecordId::parse(&record.id).is_some_and(|it| self.used.contains(&it))
    }

    fn unrecorded(&self) -> u64 {
        self.unrecorded
    }

    fn directories(&self, directories: &[Digest]) -> Result<Vec<Option<Listing>>, ArchiveError> {
        let read = |it: &Digest| {
            let it = *it;
            async move { self.read(&it).await.map_err(|error| ArchiveError::Directory(it, error)) }
        };
        let read = stream::iter(directories).map(read).buffered(DIRECTORIES);
        self.runtime.block_on(read.try_collect())
    }
}
