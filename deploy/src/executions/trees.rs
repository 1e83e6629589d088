//! What is in the directories that an action left.

use kiln_cas::{Digest, SharedBlobStore};
use kiln_protos::reapi::Tree;
use prost::Message as _;

/// Bytes of a directory that is looked into.
const MAX_TREE: u64 = 16 << 20;

/// The files in a tree. One that is not there, or too large, is not looked into.
pub async fn files_of(blobs: &SharedBlobStore, tree: &Digest) -> Vec<Digest> {
    let read = async { blobs.read(tree, 0, None).await?.collect(MAX_TREE).await };
    let Ok(bytes) = read.await else { return Vec::new() };
    let Ok(decoded) = Tree::decode(bytes) else { return Vec::new() };
    let files = decoded.root.iter().chain(&decoded.children).flat_map(|it| &it.files);
    let digests = files.filter_map(|it| Digest::from_wire(it.digest.as_ref()?, tree.function).ok());
    digests.collect()
}
