//! What an action left, as its record says: files and links, those in directories too.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;

use kiln_cas::{Digest, SharedBlobStore, StoreError};
use kiln_protos::executions::Kept;
use kiln_protos::reapi::{Directory, OutputSymlink, Tree};
use prost::Message as _;

use super::error::CatalogError;
use super::files::{MAX_FILES, OutputFile, OutputNode};
use crate::executions::{function, result};

/// Directories of one tree, counted at each place.
pub(super) const MAX_DIRECTORIES: usize = 200_000;
/// Bytes of a Tree or a Directory.
const MAX_TREE: u64 = 64 << 20;
/// Bytes of a path within a tree: names are not empty, so that it ends.
const MAX_PATH: usize = 4096;

/// What one action left.
#[derive(Debug, Clone, Default)]
pub struct Left {
    pub files: Vec<OutputFile>,
    /// Links, and directories without anything in them.
    pub nodes: Vec<OutputNode>,
    /// The directories that were declared as such.
    pub directories: Vec<String>,
}

impl Left {
    pub async fn read(blobs: &SharedBlobStore, kept: &Kept) -> Result<Self, CatalogError> {
        let mut left = Self::default();
        let Some(function) = function(kept) else { return Ok(left) };
        let result = result(kept);
        for it in result.output_files {
            let digest = it.digest.as_ref().and_then(|it| Digest::from_wire(it, function).ok());
            let (path, is_executable) = (it.path, it.is_executable);
            left.files.extend(digest.map(|digest| OutputFile { path, digest, is_executable }));
        }
        let link = |OutputSymlink { path, target, .. }| OutputNode { path, target: Some(target) };
        left.nodes.extend(result.output_symlinks.into_iter().map(link));
        for it in result.output_directories {
            let tree = it.tree_digest.as_ref().and_then(|it| Digest::from_wire(it, function).ok());
            if let Some(tree) = tree {
                left.tree(blobs, &it.path, &tree).await?;
            }
            left.directories.push(it.path);
        }
        Ok(left)
    }

    async fn tree(
        &mut self,
        blobs: &SharedBlobStore,
        path: &str,
        tree: &Digest,
    ) -> Result<(), CatalogError> {
        let decoded = match message::<Tree>(blobs, tree).await? {
            Some(tree) => tree,
            None => return Err(CatalogError::Evicted(StoreError::NotFound(*tree))),
        };
        let function = tree.function;
        let children: BTreeMap<_, _> = decoded
            .children
            .iter()
            .map(|it| (function.digest(&it.encode_to_vec()).hash, it))
            .collect();
        let mut open: Vec<_> = decoded.root.iter().map(|it| (path.to_owned(), it)).collect();
        let mut directories = 0;
        while let Some((path, directory)) = open.pop() {
            directories += 1;
            // One directory may stand in many places.
            if directories > MAX_DIRECTORIES {
                return Err(CatalogError::TooMany(MAX_DIRECTORIES));
            }
            self.directory(&path, directory, tree)?;
            for child in &directory.directories {
                let digest =
                    child.digest.as_ref().and_then(|it| Digest::from_wire(it, function).ok());
                let directory = digest.and_then(|it| children.get(&it.hash).copied());
                if let Some(directory) = directory.filter(|_| path.len() < MAX_PATH) {
                    open.push((format!("{path}/{}", child.name), directory));
                }
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        path: &str,
        directory: &Directory,
        tree: &Digest,
    ) -> Result<(), CatalogError> {
        let Directory { files, directories, symlinks, .. } = directory;
        if self.files.len() + self.nodes.len() + files.len() + symlinks.len() >= MAX_FILES {
            return Err(CatalogError::TooMany(MAX_FILES));
        }
        if files.is_empty() && directories.is_empty() && symlinks.is_empty() {
            self.nodes.push(OutputNode { path: path.to_owned(), target: None });
        }
        for it in symlinks {
            let path = format!("{path}/{}", it.name);
            self.nodes.push(OutputNode { path, target: Some(it.target.clone()) });
        }
        for it in files {
            let wire = it.digest.as_ref();
            let digest = wire.and_then(|it| Digest::from_wire(it, tree.function).ok());
            let (path, is_executable) = (format!("{path}/{}", it.name), it.is_executable);
            self.files.extend(digest.map(|digest| OutputFile { path, digest, is_executable }));
        }
        Ok(())
    }

    /// The links that somebody names, and links and empty directories in those directories of which somebody names a file.
    pub fn nodes_of(&self, named: &BTreeSet<&str>) -> impl Iterator<Item = &OutputNode> {
        let is_named = |directory: &&String| {
            let below = format!("{directory}/");
            let from = (Bound::Included(below.as_str()), Bound::Unbounded);
            let next = named.range::<str, _>(from).next();
            next.is_some_and(|it| it.starts_with(&below))
        };
        let directories: HashSet<&str> =
            self.directories.iter().filter(is_named).map(String::as_str).collect();
        let is_within = move |path: &str| {
            let mut above = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
            above.any(|it| directories.contains(it))
        };
        self.nodes.iter().filter(move |it| named.contains(it.path.as_str()) || is_within(&it.path))
    }
}

/// `None`: it is not in the store any more.
pub(super) async fn message<M: prost::Message + Default>(
    blobs: &SharedBlobStore,
    digest: &Digest,
) -> Result<Option<M>, CatalogError> {
    let bytes = match blobs.read(digest, 0, None).await {
        Ok(blob) => blob.collect(MAX_TREE).await?,
        Err(StoreError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(M::decode(bytes).unwrap_or_default()))
}
