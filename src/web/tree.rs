//! Walks an input root, or an output directory, one path at a time.

use kiln_cas::{Digest, StoreError};
use kiln_protos::reapi::{Directory, DirectoryNode, Tree};
use prost::Message;

use super::WebState;
use super::content::{MAX_MESSAGE, MAX_TREE};
use super::error::WebError;
use super::format::short;

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
        Kind::Tree => walk_tree(&state.message(digest, MAX_TREE).await?, digest, &names),
    }
}

fn walk_tree(tree: &Tree, digest: &Digest, names: &[&str]) -> Result<Directory, WebError> {
    let mut directory = tree.root.clone().unwrap_or_default();
    for name in names {
        let wanted = child_digest(child(&directory, name)?, digest)?;
        let found = tree
            .children
            .iter()
            .find(|child| digest.function.digest(&child.encode_to_vec()) == wanted);
        directory = found.cloned().ok_or(StoreError::NotFound(wanted))?;
    }
    Ok(directory)
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
        .map_err(|error| StoreError::Invalid(format!("directory {:?}: {error}", node.name)))
}
