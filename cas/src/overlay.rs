//! Puts directory trees together: the outputs of an action as one tree, and several trees merged into one.

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use kiln_protos::reapi;
use prost::Message;

use crate::blob::BlobStore;
use crate::counted::{self, CountError};
use crate::digest::{Digest, DigestError, DigestFunction};
use crate::error::StoreError;
use crate::tree::{TreeError, TreeParts, check_name, validate_directory};

/// Directories that are read or written for one tree.
const MAX_DIRECTORIES: usize = 50_000;
/// Most levels of directories.
const MAX_DEPTH: usize = 200;
/// Bytes of all directories that are read for one tree, which is in memory: one blob may stand under thousands of names.
const MAX_MERGED: u64 = 64 << 20;
/// Bytes of a `Directory`, and of a `Tree`.
const MAX_DIRECTORY: u64 = 16 << 20;
const MAX_TREE: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("blob {digest} is no directory")]
    NoDirectory {
        digest: Digest,
        #[source]
        source: CountError,
    },
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error("more than {MAX_DIRECTORIES} directories, {MAX_DEPTH} levels or {MAX_MERGED} bytes")]
    Large,
    #[error("{0:?} leads out of the tree")]
    Outside(String),
}

/// What stands under a name in a tree.
enum TreeNode {
    File(reapi::FileNode),
    Link(reapi::SymlinkNode),
    /// A directory as it is in the store.
    Stored(Digest),
    Open(Entries),
}

type Entries = BTreeMap<String, TreeNode>;
type Later<'s, T> = Pin<Box<dyn Future<Output = Result<T, OverlayError>> + Send + 's>>;

/// Puts one tree together. Only what differs from what is stored is read and written.
pub struct Overlay<'a> {
    blobs: &'a dyn BlobStore,
    function: DigestFunction,
    directories: usize,
    /// Bytes of directories that may still be read.
    room: u64,
}

impl<'a> Overlay<'a> {
    pub fn new(blobs: &'a dyn BlobStore, function: DigestFunction) -> Self {
        Self { blobs, function, directories: 0, room: MAX_MERGED }
    }

    /// The root of trees that are laid over each other, each over those before it: directories are merged, and anything
    /// else hides what is below it. No tree at all is an empty directory.
    pub async fn lay(&mut self, roots: &[Digest]) -> Result<Digest, OverlayError> {
        let mut all = TreeNode::Open(Entries::new());
        for root in roots {
            all = match all {
                TreeNode::Open(entries) if entries.is_empty() => TreeNode::Stored(*root),
                below => self.merge(below, TreeNode::Stored(*root), 0).await?,
            };
        }
        match all {
            TreeNode::Open(entries) => self.put(entries, 0).await,
            TreeNode::Stored(root) => Ok(root),
            TreeNode::File(_) | TreeNode::Link(_) => Err(OverlayError::Large),
        }
    }

    /// What an action left, as a tree in which its working directory is `directory`. `None`: nothing.
    pub async fn outputs(
        &mut self,
        directory: &str,
        result: &reapi::ActionResult,
    ) -> Result<Option<Digest>, OverlayError> {
        let mut root = Entries::new();
        // What is in one of them as well is there already when it comes.
        for output in &result.output_directories {
            if let Some(stored) = self.stored(output).await? {
                insert(&mut root, directory, &output.path, TreeNode::Stored(stored))?;
            }
        }
        for output in &result.output_files {
            let node = reapi::FileNode {
                digest: output.digest.clone(),
                is_executable: output.is_executable,
                ..Default::default()
            };
            insert(&mut root, directory, &output.path, TreeNode::File(node))?;
        }
        for output in &result.output_symlinks {
            let target = output.target.clone();
            let node = reapi::SymlinkNode { target, ..Default::default() };
            insert(&mut root, directory, &output.path, TreeNode::Link(node))?;
        }
        match root.is_empty() {
            true => Ok(None),
            false => self.put(root, 0).await.map(Some),
        }
    }

    /// An output directory, each of its directories as a blob of its own.
    async fn stored(
        &mut self,
        output: &reapi::OutputDirectory,
    ) -> Result<Option<Digest>, OverlayError> {
        if let Some(root) = &output.root_directory_digest {
            return Ok(Some(Digest::from_wire(root, self.function)?));
        }
        let Some(tree) = &output.tree_digest else { return Ok(None) };
        let digest = Digest::from_wire(tree, self.function)?;
        let bytes = self.blobs.read(&digest, 0, None).await?.collect(MAX_TREE).await?;
        let mut root = None;
        for part in TreeParts::new(bytes) {
            let part = part.map_err(|source| OverlayError::NoDirectory { digest, source })?;
            self.count()?;
            let is_root = part.is_root;
            // A copy: a slice would keep all of the tree in memory.
            let written = self.write(Bytes::copy_from_slice(&part.directory)).await?;
            root = if is_root { Some(written) } else { root };
        }
        Ok(root)
    }

    fn count(&mut self) -> Result<(), OverlayError> {
        self.directories += 1;
        if self.directories > MAX_DIRECTORIES { Err(OverlayError::Large) } else { Ok(()) }
    }

    fn merge(&mut self, below: TreeNode, over: TreeNode, depth: usize) -> Later<'_, TreeNode> {
        Box::pin(async move {
            let is_directory =
                |it: &TreeNode| matches!(it, TreeNode::Stored(_) | TreeNode::Open(_));
            match (&below, &over) {
                (TreeNode::Stored(a), TreeNode::Stored(b)) if a == b => return Ok(over),
                _ if is_directory(&below) && is_directory(&over) => {}
                _ => return Ok(over),
            }
            if depth >= MAX_DEPTH {
                return Err(OverlayError::Large);
            }
            let mut merged = self.open(below).await?;
            for (name, entry) in self.open(over).await? {
                let entry = match merged.remove(&name) {
                    Some(hidden) => self.merge(hidden, entry, depth + 1).await?,
                    None => entry,
                };
                merged.insert(name, entry);
            }
            Ok(TreeNode::Open(merged))
        })
    }

    async fn open(&mut self, entry: TreeNode) -> Result<Entries, OverlayError> {
        let digest = match entry {
            TreeNode::Open(entries) => return Ok(entries),
            TreeNode::Stored(digest) if !digest.is_empty_blob() => digest,
            _ => return Ok(Entries::new()),
        };
        self.count()?;
        self.room = self.room.checked_sub(digest.size).ok_or(OverlayError::Large)?;
        let bytes = self.blobs.read(&digest, 0, None).await?.collect(MAX_DIRECTORY).await?;
        let directory: reapi::Directory = counted::decode(bytes)
            .map_err(|source| OverlayError::NoDirectory { digest, source })?;
        validate_directory(&directory)?;
        let mut entries = Entries::new();
        for node in directory.directories {
            let digest = Digest::from_wire(&node.digest.unwrap_or_default(), self.function)?;
            entries.insert(node.name, TreeNode::Stored(digest));
        }
        let files = directory.files.into_iter().map(|it| (it.name.clone(), TreeNode::File(it)));
        let links = directory.symlinks.into_iter().map(|it| (it.name.clone(), TreeNode::Link(it)));
        entries.extend(files.chain(links));
        Ok(entries)
    }

    /// Names are in order of their bytes, as the canonical form wants them.
    fn put(&mut self, entries: Entries, depth: usize) -> Later<'_, Digest> {
        Box::pin(async move {
            if depth >= MAX_DEPTH {
                return Err(OverlayError::Large);
            }
            self.count()?;
            let mut directory = reapi::Directory::default();
            for (name, entry) in entries {
                let digest = match entry {
                    TreeNode::File(node) => {
                        directory.files.push(reapi::FileNode { name, ..node });
                        continue;
                    }
                    TreeNode::Link(node) => {
                        directory.symlinks.push(reapi::SymlinkNode { name, ..node });
                        continue;
                    }
                    TreeNode::Stored(digest) => digest,
                    TreeNode::Open(entries) => self.put(entries, depth + 1).await?,
                };
                let digest = Some(digest.to_wire());
                directory.directories.push(reapi::DirectoryNode { name, digest });
            }
            self.write(directory.encode_to_vec().into()).await
        })
    }

    async fn write(&self, directory: Bytes) -> Result<Digest, OverlayError> {
        let digest = self.function.digest(&directory);
        if !digest.is_empty_blob() {
            self.blobs.write(&digest, directory).await?;
        }
        Ok(digest)
    }
}

/// Puts an entry where a path leads to. A path within a directory that is stored as a whole is there already.
fn insert(
    root: &mut Entries,
    directory: &str,
    path: &str,
    entry: TreeNode,
) -> Result<(), OverlayError> {
    let names = names(directory, path)?;
    let Some((last, parents)) = names.split_last() else {
        return Err(OverlayError::Outside(path.to_owned()));
    };
    let mut at = root;
    for name in parents {
        let child = at.entry((*name).to_owned()).or_insert_with(|| TreeNode::Open(Entries::new()));
        match child {
            TreeNode::Stored(_) => return Ok(()),
            TreeNode::File(_) | TreeNode::Link(_) => *child = TreeNode::Open(Entries::new()),
            TreeNode::Open(_) => {}
        }
        let TreeNode::Open(entries) = child else { return Ok(()) };
        at = entries;
    }
    at.insert((*last).to_owned(), entry);
    Ok(())
}

/// The names on the way to a path below a directory.
fn names<'p>(directory: &'p str, path: &'p str) -> Result<Vec<&'p str>, OverlayError> {
    let mut names = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                names.pop().ok_or_else(|| OverlayError::Outside(path.to_owned()))?;
            }
            name => {
                check_name(name).map_err(|_| OverlayError::Outside(path.to_owned()))?;
                names.push(name);
            }
        }
    }
    if names.len() > MAX_DEPTH { Err(OverlayError::Large) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::MemoryBlobStore;

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    fn file(text: &str) -> TreeNode {
        let digest = Some(FUNCTION.digest(text.as_bytes()).to_wire());
        TreeNode::File(reapi::FileNode { digest, ..Default::default() })
    }

    async fn tree(store: &MemoryBlobStore, paths: &[(&str, &str)]) -> Digest {
        let mut root = Entries::new();
        for (path, text) in paths {
            insert(&mut root, "", path, file(text)).unwrap();
        }
        Overlay::new(store, FUNCTION).put(root, 0).await.unwrap()
    }

    /// All files of a tree with the hashes of their contents.
    async fn files(store: &MemoryBlobStore, root: Digest) -> Vec<(String, String)> {
        let (mut open, mut found) = (vec![(String::new(), root)], Vec::new());
        let mut overlay = Overlay::new(store, FUNCTION);
        while let Some((path, digest)) = open.pop() {
            for (name, entry) in overlay.open(TreeNode::Stored(digest)).await.unwrap() {
                let path = format!("{path}/{name}");
                match entry {
                    TreeNode::Stored(digest) => open.push((path, digest)),
                    TreeNode::File(node) => found.push((path, node.digest.unwrap().hash)),
                    TreeNode::Link(node) => found.push((path, node.target)),
                    TreeNode::Open(_) => unreachable!(),
                }
            }
        }
        found.sort();
        found
    }

    #[tokio::test]
    async fn a_tree_over_another_hides_what_it_has_itself() {
        let store = MemoryBlobStore::default();
        let below =
            tree(&store, &[("a/x", "1"), ("a/y", "2"), ("b", "3"), ("c/deep/z", "4")]).await;
        let over =
            tree(&store, &[("a/y", "new"), ("b/now/a/directory", "5"), ("c", "a file")]).await;
        let laid = Overlay::new(&store, FUNCTION).lay(&[below, over]).await.unwrap();
        let expected = tree(
            &store,
            &[("a/x", "1"), ("a/y", "new"), ("b/now/a/directory", "5"), ("c", "a file")],
        )
        .await;
        assert_eq!(files(&store, laid).await, files(&store, expected).await);
        assert_eq!(laid, expected, "it is in its canonical form");
        assert_eq!(Overlay::new(&store, FUNCTION).lay(&[below]).await.unwrap(), below);
        let none = Overlay::new(&store, FUNCTION).lay(&[]).await.unwrap();
        assert!(none.is_empty_blob());
    }

    #[tokio::test]
    async fn outputs_are_where_their_command_left_them() {
        let store = MemoryBlobStore::default();
        let inner = reapi::Directory {
            files: vec![reapi::FileNode {
                name: "report.xml".into(),
                digest: Some(FUNCTION.digest(b"r").to_wire()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let tree = reapi::Tree { root: Some(inner), children: vec![] }.encode_to_vec();
        let tree_digest = FUNCTION.digest(&tree);
        store.write(&tree_digest, tree.into()).await.unwrap();
        let output = |path: &str, text: &[u8]| reapi::OutputFile {
            path: path.into(),
            digest: Some(FUNCTION.digest(text).to_wire()),
            ..Default::default()
        };
        let result = reapi::ActionResult {
            output_files: vec![output("out/report.xml", b"r"), output("../top", b"t")],
            output_directories: vec![reapi::OutputDirectory {
                path: "out".into(),
                tree_digest: Some(tree_digest.to_wire()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let root = Overlay::new(&store, FUNCTION).outputs("sub", &result).await.unwrap().unwrap();
        let hash = |text: &[u8]| FUNCTION.digest(text).hex();
        let expected =
            [("/sub/out/report.xml".to_owned(), hash(b"r")), ("/top".to_owned(), hash(b"t"))];
        assert_eq!(files(&store, root).await, expected);
        let none = reapi::ActionResult::default();
        assert_eq!(Overlay::new(&store, FUNCTION).outputs("", &none).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_leads_out_or_goes_too_deep_is_refused() {
        let store = MemoryBlobStore::default();
        let mut root = Entries::new();
        let outside = insert(&mut root, "a", "../../b", file("x"));
        assert!(matches!(outside, Err(OverlayError::Outside(_))));
        let deep = vec!["d"; MAX_DEPTH + 1].join("/");
        assert!(matches!(insert(&mut root, "", &deep, file("x")), Err(OverlayError::Large)));
        let gone = FUNCTION.digest(b"gone");
        let other = tree(&store, &[("a", "1")]).await;
        let laid = Overlay::new(&store, FUNCTION).lay(&[gone, other]).await;
        assert!(matches!(laid, Err(OverlayError::Store(StoreError::NotFound(_)))));
    }

    #[tokio::test]
    async fn one_directory_under_many_names_is_counted_each_time() {
        let store = MemoryBlobStore::default();
        let paths: Vec<_> = (0..50).map(|name| format!("{name}/file")).collect();
        let all =
            |text: &'static str| paths.iter().map(|it| (it.as_str(), text)).collect::<Vec<_>>();
        let (below, over) = (tree(&store, &all("1")).await, tree(&store, &all("2")).await);
        let mut overlay = Overlay::new(&store, FUNCTION);
        overlay.room = below.size + over.size + 100;
        let laid = overlay.lay(&[below, over]).await;
        assert!(matches!(laid, Err(OverlayError::Large)), "{laid:?}");
    }
}
