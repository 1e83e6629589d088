//! Every blob that an action result needs.

use std::collections::HashSet;

use kiln_protos::reapi;
use prost::Message;

use crate::blob::BlobStore;
use crate::digest::{Digest, DigestError, DigestFunction};
use crate::error::StoreError;
use crate::result::{ResultError, named_blobs};

/// Bytes of the largest `Tree` or `Directory` that is read.
const MAX_TREE: u64 = 256 << 20;
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
    fn digest(
        &self,
        holder: &Digest,
        digest: &Option<reapi::Digest>,
    ) -> Result<Digest, ClosureError> {
        digest
            .as_ref()
            .ok_or(DigestError::Absent)
            .and_then(|digest| Digest::from_wire(digest, self.function))
            .map_err(|error| ClosureError::Directory {
                digest: *holder,
                message: error.to_string(),
            })
    }

    async fn add_tree(
        &mut self,
        digest: Digest,
        blobs: &dyn BlobStore,
    ) -> Result<(), ClosureError> {
        self.found.insert(digest);
        let tree: reapi::Tree = load(blobs, &digest).await?;
        for directory in tree.root.iter().chain(&tree.children) {
            self.add_files(&digest, directory)?;
        }
        Ok(())
    }

    fn add_files(
        &mut self,
        holder: &Digest,
        directory: &reapi::Directory,
    ) -> Result<(), ClosureError> {
        for file in &directory.files {
            let digest = self.digest(holder, &file.digest)?;
            self.found.insert(digest);
        }
        Ok(())
    }

    /// Adds a directory that is stored by itself, and all below it.
    async fn walk(&mut self, root: Digest, blobs: &dyn BlobStore) -> Result<(), ClosureError> {
        let mut seen = HashSet::from([root]);
        let mut pending = vec![root];
        while let Some(digest) = pending.pop() {
            self.found.insert(digest);
            let directory: reapi::Directory = load(blobs, &digest).await?;
            self.add_files(&digest, &directory)?;
            for child in &directory.directories {
                let child = self.digest(&digest, &child.digest)?;
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

async fn load<M: Message + Default>(
    blobs: &dyn BlobStore,
    digest: &Digest,
) -> Result<M, ClosureError> {
    let blob = match blobs.read(digest, 0, None).await {
        Ok(blob) => blob,
        Err(StoreError::NotFound(digest)) => return Err(ClosureError::Missing(digest)),
        Err(error) => return Err(ClosureError::Store(error)),
    };
    let data = blob.collect(MAX_TREE).await.map_err(|error| match error {
        StoreError::NotFound(digest) => ClosureError::Missing(digest),
        error => ClosureError::Store(error),
    })?;
    M::decode(data)
        .map_err(|error| ClosureError::Directory { digest: *digest, message: error.to_string() })
}
