//! Every blob that an action result needs.

use std::collections::HashSet;

use bytes::Bytes;
use kiln_protos::reapi;

use crate::blob::BlobStore;
use crate::counted;
use crate::digest::{Digest, DigestError, DigestFunction};
use crate::error::StoreError;
use crate::result::{ResultError, named_blobs};
use crate::tree::TreeParts;

/// Bytes of the largest `Tree` or `Directory` that is read.
const MAX_TREE: u64 = 256 << 20;
/// A larger `Tree` is decoded on another thread: it would hold up the connections of this one.
const WORTH_A_TRIP: usize = 128 << 10;
/// Directories walked below one `root_directory_digest`.
const MAX_DIRECTORIES: usize = 1_000_000;

#[derive(Debug, Clone, thiserror::Error)]
pub enum ClosureError {
    /// A `Tree` or `Directory` is not in the store, so that what it names is unknown.
    #[error("{0} is not in the store")]
    Missing(Digest),
    #[error(transparent)]
    Result(#[from] ResultError),
    /// A `Tree` or `Directory` that the result names is not one.
    #[error("{digest}: {message}")]
    Directory { digest: Digest, message: String },
    #[error(transparent)]
    Store(StoreError),
}

/// The digests of all blobs that `result` needs: output files, standard output and error, the
/// trees of output directories and all files within them; once each, in no particular order.
/// Whether they are present is not looked at, except for the trees, which are read.
pub async fn closure(
    result: &reapi::ActionResult,
    function: DigestFunction,
    blobs: &dyn BlobStore,
) -> Result<Vec<Digest>, ClosureError> {
    let named = named_blobs(result, function)?;
    let mut gather = Gather { function, found: named.blobs.into_iter().collect() };
    // Each once, however often the result names it.
    for tree in named.trees.into_iter().collect::<HashSet<_>>() {
        gather.add_tree(tree, blobs).await?;
    }
    for root in named.roots.into_iter().collect::<HashSet<_>>() {
        gather.walk(root, blobs).await?;
    }
    Ok(gather.found.into_iter().collect())
}

struct Gather {
    function: DigestFunction,
    found: HashSet<Digest>,
}

impl Gather {
    async fn add_tree(
        &mut self,
        digest: Digest,
        blobs: &dyn BlobStore,
    ) -> Result<(), ClosureError> {
        self.found.insert(digest);
        let data = load(blobs, &digest).await?;
        let function = self.function;
        let files = match data.len() > WORTH_A_TRIP {
            false => tree_files(&digest, data, function),
            true => {
                let work = move || tree_files(&digest, data, function);
                tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
                    Err(ClosureError::Directory { digest, message: error.to_string() })
                })
            }
        };
        self.found.extend(files?);
        Ok(())
    }

    /// Adds a directory that is stored by itself, and all below it.
    async fn walk(&mut self, root: Digest, blobs: &dyn BlobStore) -> Result<(), ClosureError> {
        let mut seen = HashSet::from([root]);
        let mut pending = vec![root];
        while let Some(digest) = pending.pop() {
            self.found.insert(digest);
            let directory = decode(&digest, load(blobs, &digest).await?)?;
            self.found.extend(files_of(&digest, &directory, self.function)?);
            for child in &directory.directories {
                let child = named(&digest, &child.digest, self.function)?;
                if seen.insert(child) {
                    pending.push(child);
                }
            }
            if seen.len() > MAX_DIRECTORIES {
                let message = format!("more than {MAX_DIRECTORIES} directories below it");
                return Err(ClosureError::Directory { digest: root, message });
            }
        }
        Ok(())
    }
}

/// What `holder` names in a field.
fn named(
    holder: &Digest,
    digest: &Option<reapi::Digest>,
    function: DigestFunction,
) -> Result<Digest, ClosureError> {
    digest
        .as_ref()
        .ok_or(DigestError::Absent)
        .and_then(|digest| Digest::from_wire(digest, function))
        .map_err(|error| wrong(holder, &error))
}

fn files_of(
    holder: &Digest,
    directory: &reapi::Directory,
    function: DigestFunction,
) -> Result<Vec<Digest>, ClosureError> {
    directory.files.iter().map(|file| named(holder, &file.digest, function)).collect()
}

/// The files of a `Tree`, of which one directory is decoded at a time.
fn tree_files(
    tree: &Digest,
    data: Bytes,
    function: DigestFunction,
) -> Result<HashSet<Digest>, ClosureError> {
    let mut files = HashSet::new();
    for part in TreeParts::new(data) {
        let part = part.map_err(|error| wrong(tree, &error))?;
        files.extend(files_of(tree, &decode(tree, part.directory)?, function)?);
    }
    Ok(files)
}

fn decode(holder: &Digest, data: Bytes) -> Result<reapi::Directory, ClosureError> {
    counted::decode(data).map_err(|error| wrong(holder, &error))
}

fn wrong(digest: &Digest, error: &dyn std::error::Error) -> ClosureError {
    ClosureError::Directory { digest: *digest, message: error.to_string() }
}

async fn load(blobs: &dyn BlobStore, digest: &Digest) -> Result<Bytes, ClosureError> {
    let missing = |error| match error {
        StoreError::NotFound(digest) => ClosureError::Missing(digest),
        error => ClosureError::Store(error),
    };
    if digest.size > MAX_TREE {
        let message = format!("{} bytes are more than the limit of {MAX_TREE}", digest.size);
        return Err(ClosureError::Directory { digest: *digest, message });
    }
    let blob = blobs.read(digest, 0, None).await.map_err(missing)?;
    blob.collect(MAX_TREE).await.map_err(missing)
}
