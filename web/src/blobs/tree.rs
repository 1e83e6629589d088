//! Walks an input root, or an output directory, one path at a time.

use bytes::Bytes;
use kiln_cas::counted::{self, CountError};
use kiln_cas::tree::TreeParts;
use kiln_cas::{Digest, StoreError};
use kiln_protos::reapi::{Directory, DirectoryNode};

use crate::content::{MAX_MESSAGE, MAX_TREE, off_thread};
use crate::error::WebError;
use crate::format::short;
use crate::state::WebState;

/// Deepest path that is walked.
const MAX_DEPTH: usize = 100;

/// What a digest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A `Directory`, as in `Action.input_root_digest`.
    Directory,
    /// A `Tree`, as in `OutputDirectory.tree_digest`.
    Tree,
}

/// The directory at `path` below the root that `digest` names.
pub async fn walk(
    state: &WebState,
    digest: &Digest,
    kind: Kind,
    path: &str,
) -> Result<Directory, WebError> {
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    if names.len() > MAX_DEPTH {
        let hint = "Open the directory by its own digest.";
        return Err(WebError::invalid(format!("a path deeper than {MAX_DEPTH} levels"), hint));
    }
    match kind {
        Kind::Directory => {
            let mut directory: Directory = state.message(digest, MAX_MESSAGE).await?;
            for name in names {
                let child = child(&directory, name)?;
                let digest = child_digest(child, digest)?;
                directory = state.message(&digest, MAX_MESSAGE).await?;
            }
            Ok(directory)
        }
        Kind::Tree => {
            let tree = state.bytes(digest, MAX_TREE).await?;
            let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
            let digest = *digest;
            off_thread(tree.len(), move || walk_tree(&tree, &digest, &names)).await?
        }
    }
}

/// Decodes the directories on the way and no other: each is found by the digest of its bytes.
fn walk_tree(tree: &Bytes, digest: &Digest, names: &[String]) -> Result<Directory, WebError> {
    let parts: Result<Vec<_>, _> = TreeParts::new(tree.clone()).collect();
    let parts = parts.map_err(|error| not_a_tree(digest, &error))?;
    let decode = |data: &Bytes| -> Result<Directory, WebError> {
        Ok(counted::decode(data.clone()).map_err(|error| not_a_tree(digest, &error))?)
    };
    let root = parts.iter().rfind(|part| part.is_root);
    let mut directory = root.map_or(Ok(Directory::default()), |root| decode(&root.directory))?;
    for name in names {
        let wanted = child_digest(child(&directory, name)?, digest)?;
        let found = parts.iter().map(|part| &part.directory).find(|data| {
            data.len() as u64 == wanted.size && digest.function.digest(data) == wanted
        });
        directory = decode(found.ok_or(StoreError::NotFound(wanted))?)?;
    }
    Ok(directory)
}

fn not_a_tree(digest: &Digest, error: &CountError) -> StoreError {
    StoreError::invalid(format!("blob {digest} is not the message it should be: {error}"))
}

fn child<'a>(directory: &'a Directory, name: &str) -> Result<&'a DirectoryNode, WebError> {
    directory.directories.iter().find(|child| child.name == name).ok_or_else(|| {
        let message = format!("there is no directory {:?} at this path", short(name, 200));
        WebError::not_found(message, "Start again at the root.")
    })
}

fn child_digest(node: &DirectoryNode, parent: &Digest) -> Result<Digest, StoreError> {
    let wire = node.digest.clone().unwrap_or_default();
    Digest::from_wire(&wire, parent.function)
        .map_err(|error| StoreError::invalid(format!("directory {:?}: {error}", node.name)))
}
