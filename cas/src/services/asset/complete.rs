//! Whether a directory tree is in the store, whole.

use std::collections::HashSet;

use kiln_protos::reapi::Directory;
use tonic::Status;

use crate::blob::SharedBlobStore;
use crate::counted;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::services::get_tree::{MAX_DIRECTORY, MAX_TREE_DIRECTORIES};
use crate::services::status::store_status;
use crate::tree::validate_directory;

const FIELD: &str = "root_directory_digest";

/// The first blob found absent. What is there lives at least the store's lease from now on.
pub(super) async fn first_missing(
    blobs: &SharedBlobStore,
    root: Digest,
) -> Result<Option<Digest>, Status> {
    let mut seen = HashSet::from([root]);
    let mut queue = vec![root];
    while let Some(digest) = queue.pop() {
        let Some(directory) = read(blobs, &digest).await? else { return Ok(Some(digest)) };
        let mut files = Vec::new();
        for (list, wire) in digests(&directory) {
            let child = Digest::from_wire(wire, root.function)
                .map_err(|error| invalid(&digest, &error.to_string()))?;
            match list {
                List::Files => files.push(child),
                List::Directories if seen.insert(child) => queue.push(child),
                List::Directories => {}
            }
        }
        if seen.len() > MAX_TREE_DIRECTORIES {
            return Err(Status::resource_exhausted(format!(
                "{FIELD}: the tree has more than {MAX_TREE_DIRECTORIES} different directories"
            )));
        }
        files.push(digest);
        let missing = blobs.find_missing(&files).await;
        let missing = missing.map_err(|error| store_status(FIELD, &error))?;
        if let Some(first) = missing.first() {
            return Ok(Some(*first));
        }
    }
    Ok(None)
}

enum List {
    Files,
    Directories,
}

fn digests(directory: &Directory) -> impl Iterator<Item = (List, &kiln_protos::reapi::Digest)> {
    let files = directory.files.iter().filter_map(|file| file.digest.as_ref());
    let children = directory.directories.iter().filter_map(|child| child.digest.as_ref());
    files.map(|d| (List::Files, d)).chain(children.map(|d| (List::Directories, d)))
}

async fn read(blobs: &SharedBlobStore, digest: &Digest) -> Result<Option<Directory>, Status> {
    let blob = match blobs.read(digest, 0, None).await {
        Ok(blob) => blob,
        Err(StoreError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(store_status(FIELD, &error)),
    };
    let data = blob.collect(MAX_DIRECTORY).await.map_err(|e| store_status(FIELD, &e))?;
    let directory: Directory =
        counted::decode(data).map_err(|e| invalid(digest, &e.to_string()))?;
    validate_directory(&directory).map_err(|e| invalid(digest, &e.to_string()))?;
    Ok(Some(directory))
}

fn invalid(digest: &Digest, error: &str) -> Status {
    Status::invalid_argument(format!("{FIELD}: directory {digest}: {error}"))
}
