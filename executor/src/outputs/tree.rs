//! Directory and Tree messages of an output directory, in canonical form.

use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::reapi;
use prost::Message;

/// Protobuf tags of `Tree.root` and `Tree.children`, both length-delimited.
const ROOT_TAG: u8 = 1 << 3 | 2;
const CHILD_TAG: u8 = 2 << 3 | 2;

/// Collects directories from the leaves to the root. Equal directories are kept once.
pub struct TreeBuilder {
    function: DigestFunction,
    seen: HashSet<Digest>,
    /// The encoded directories in the order in which they were completed: children before parents.
    directories: Vec<(Digest, Bytes)>,
}

/// A finished tree.
pub struct EncodedTree {
    /// The Tree message: parents before children, equal directories once, as
    /// `OutputDirectory.is_topologically_sorted` demands.
    pub tree: Bytes,
    /// Every Directory message, the root's included, with its digest.
    pub directories: Vec<(Digest, Bytes)>,
}

impl TreeBuilder {
    pub fn new(function: DigestFunction) -> Self {
        Self { function, seen: HashSet::new(), directories: Vec::new() }
    }

    /// Adds a directory all of whose children were added before. Sorts its entries.
    pub fn add(&mut self, mut directory: reapi::Directory) -> Digest {
        directory.files.sort_by(|a, b| a.name.cmp(&b.name));
        directory.directories.sort_by(|a, b| a.name.cmp(&b.name));
        directory.symlinks.sort_by(|a, b| a.name.cmp(&b.name));
        let data = Bytes::from(directory.encode_to_vec());
        let digest = self.function.digest(&data);
        if self.seen.insert(digest) {
            self.directories.push((digest, data));
        }
        digest
    }

    /// Makes the Tree message. `root` is the digest of the directory that was added last.
    pub fn finish(self, root: Digest) -> EncodedTree {
        // Children are completed before their parents, so the reverse order is topological.
        let mut tree = BytesMut::new();
        let (first, rest): (Vec<_>, Vec<_>) =
            self.directories.iter().rev().partition(|(digest, _)| *digest == root);
        for (tag, records) in [(ROOT_TAG, first), (CHILD_TAG, rest)] {
            for (_, data) in records {
                tree.put_u8(tag);
                prost::encoding::encode_varint(data.len() as u64, &mut tree);
                tree.put_slice(data);
            }
        }
        EncodedTree { tree: tree.freeze(), directories: self.directories }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(children: &[(&str, Digest)]) -> reapi::Directory {
        let directories = children
            .iter()
            .map(|(name, digest)| reapi::DirectoryNode {
                name: (*name).into(),
                digest: Some(digest.to_wire()),
            })
            .collect();
        reapi::Directory { directories, ..Default::default() }
    }

    #[test]
    fn parents_come_before_children_and_equal_directories_once() {
        let mut builder = TreeBuilder::new(DigestFunction::Sha256);
        let leaf = builder.add(directory(&[]));
        let middle = builder.add(directory(&[("leaf", leaf)]));
        assert_eq!(builder.add(directory(&[])), leaf);
        let root = builder.add(directory(&[("z", leaf), ("a", middle)]));
        let encoded = builder.finish(root);

        let tree = reapi::Tree::decode(&*encoded.tree).unwrap();
        assert_eq!(tree.encode_to_vec(), encoded.tree, "the encoding is canonical");
        let names: Vec<_> =
            tree.root.iter().flat_map(|root| &root.directories).map(|node| &node.name).collect();
        assert_eq!(names, ["a", "z"]);
        let function = DigestFunction::Sha256;
        let children: Vec<_> =
            tree.children.iter().map(|child| function.digest(&child.encode_to_vec())).collect();
        assert_eq!(children, [middle, leaf]);
        assert_eq!(encoded.directories.len(), 3);
    }

    #[test]
    fn an_empty_directory_is_a_tree_of_an_empty_root() {
        let mut builder = TreeBuilder::new(DigestFunction::Blake3);
        let root = builder.add(reapi::Directory::default());
        let encoded = builder.finish(root);
        assert_eq!(encoded.tree, [ROOT_TAG, 0].as_slice());
        assert!(root.is_empty_blob());
    }
}
