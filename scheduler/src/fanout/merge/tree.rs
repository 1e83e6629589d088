//! Output directories of several parts as one. No I/O.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use kiln_cas::{Digest, DigestFunction, tree::check_name};
use kiln_protos::reapi;
use prost::Message;

/// Entries of one merged directory; trees with more are not put together.
const MAX_ENTRIES: usize = 100_000;
/// Directories within directories.
const MAX_DEPTH: usize = 64;

/// Why trees cannot be put together, in words.
pub type TreeProblem = &'static str;

/// What a directory holds by name.
#[derive(Debug, Default, PartialEq)]
struct Folder(BTreeMap<String, Node>);

#[derive(Debug, PartialEq)]
enum Node {
    Folder(Folder),
    File(reapi::FileNode),
    Link(reapi::SymlinkNode),
}

/// One Tree message with what is in all. Of files of one path that differ the first
/// keeps it, those of later trees get it below `shard-N/`.
pub fn put_together(
    trees: &[(u32, reapi::Tree)],
    function: DigestFunction,
) -> Result<Bytes, TreeProblem> {
    let mut merged = Folder::default();
    let mut left = MAX_ENTRIES;
    for (number, tree) in trees {
        let mut beside = Folder::default();
        let folder = Reader::new(tree, function, &mut left).read()?;
        merged.take_in(folder, &mut beside);
        if !beside.0.is_empty() {
            let mut root = Folder::default();
            root.0.insert(format!("shard-{number}"), Node::Folder(beside));
            // The tests of one part cannot have made a directory of this name for another.
            merged.take_in(root, &mut Folder::default());
        }
    }
    Ok(Writer::new(function).tree(&merged))
}

impl Folder {
    /// What has another content here under its path goes `beside`.
    fn take_in(&mut self, other: Self, beside: &mut Self) {
        for (name, node) in other.0 {
            match (self.0.get_mut(&name), node) {
                (None, node) => _ = self.0.insert(name, node),
                (Some(Node::Folder(here)), Node::Folder(there)) => {
                    let mut differs = Self::default();
                    here.take_in(there, &mut differs);
                    if !differs.0.is_empty() {
                        beside.0.insert(name, Node::Folder(differs));
                    }
                }
                (Some(here), there) if *here == there => {}
                (Some(_), there) => _ = beside.0.insert(name, there),
            }
        }
    }
}

struct Reader<'a> {
    tree: &'a reapi::Tree,
    children: BTreeMap<String, &'a reapi::Directory>,
    left: &'a mut usize,
}

impl<'a> Reader<'a> {
    fn new(tree: &'a reapi::Tree, function: DigestFunction, left: &'a mut usize) -> Self {
        let hash = |child: &reapi::Directory| function.digest(&child.encode_to_vec()).hex();
        let children = tree.children.iter().map(|child| (hash(child), child)).collect();
        Self { tree, children, left }
    }

    fn read(&mut self) -> Result<Folder, TreeProblem> {
        self.tree.root.as_ref().map_or(Ok(Folder::default()), |root| self.folder(root, 0))
    }

    fn folder(
        &mut self,
        directory: &reapi::Directory,
        depth: usize,
    ) -> Result<Folder, TreeProblem> {
        let entries =
            directory.files.len() + directory.directories.len() + directory.symlinks.len();
        *self.left = self.left.checked_sub(entries).ok_or("they have too many entries")?;
        if depth > MAX_DEPTH {
            return Err("their directories are nested too deep");
        }
        let mut folder = Folder::default();
        for file in &directory.files {
            folder.add(&file.name, Node::File(file.clone()))?;
        }
        for link in &directory.symlinks {
            folder.add(&link.name, Node::Link(link.clone()))?;
        }
        for node in &directory.directories {
            let hash = node.digest.as_ref().map_or("", |digest| digest.hash.as_str());
            let child = self.children.get(hash).copied();
            let is_empty = node.digest.as_ref().is_some_and(|digest| digest.size_bytes == 0);
            let child = match child {
                Some(child) => self.folder(child, depth + 1)?,
                None if is_empty => Folder::default(),
                None => return Err("a tree lacks one of its directories"),
            };
            folder.add(&node.name, Node::Folder(child))?;
        }
        Ok(folder)
    }
}

impl Folder {
    fn add(&mut self, name: &str, node: Node) -> Result<(), TreeProblem> {
        check_name(name).map_err(|_| "a name in a tree is none")?;
        self.0.insert(name.to_owned(), node);
        Ok(())
    }
}

struct Writer {
    function: DigestFunction,
    seen: HashSet<Digest>,
    /// Children before their parents, each once.
    children: Vec<reapi::Directory>,
}

impl Writer {
    fn new(function: DigestFunction) -> Self {
        Self { function, seen: HashSet::new(), children: Vec::new() }
    }

    fn tree(mut self, root: &Folder) -> Bytes {
        let root = self.directory(root);
        let children = self.children.into_iter().rev().collect();
        reapi::Tree { root: Some(root), children }.encode_to_vec().into()
    }

    /// Names are in order, as the canonical form wants them.
    fn directory(&mut self, folder: &Folder) -> reapi::Directory {
        let mut directory = reapi::Directory::default();
        for (name, node) in &folder.0 {
            match node {
                Node::File(file) => directory.files.push(file.clone()),
                Node::Link(link) => directory.symlinks.push(link.clone()),
                Node::Folder(child) => {
                    let child = self.directory(child);
                    let digest = self.function.digest(&child.encode_to_vec());
                    if self.seen.insert(digest) {
                        self.children.push(child);
                    }
                    let digest = Some(digest.to_wire());
                    directory.directories.push(reapi::DirectoryNode { name: name.clone(), digest });
                }
            }
        }
        directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn folder(files: &[(&str, &str)]) -> Folder {
        let mut root = Folder::default();
        for (path, content) in files {
            let mut place = &mut root;
            let (front, name) = path.rsplit_once('/').unwrap_or(("", path));
            for part in front.split('/').filter(|part| !part.is_empty()) {
                let node = place.0.entry(part.to_owned());
                let Node::Folder(next) = node.or_insert(Node::Folder(Folder::default())) else {
                    panic!("{path}")
                };
                place = next;
            }
            let digest = Some(FUNCTION.digest(content.as_bytes()).to_wire());
            let file = reapi::FileNode { name: name.to_owned(), digest, ..Default::default() };
            place.0.insert(name.to_owned(), Node::File(file));
        }
        root
    }

    fn tree(files: &[(&str, &str)]) -> reapi::Tree {
        let bytes = Writer::new(FUNCTION).tree(&folder(files));
        reapi::Tree::decode(bytes).unwrap()
    }

    fn read(tree: Bytes) -> Folder {
        let tree = reapi::Tree::decode(tree).unwrap();
        let mut left = MAX_ENTRIES;
        Reader::new(&tree, FUNCTION, &mut left).read().unwrap()
    }

    #[test]
    fn all_files_are_there_and_those_that_differ_lie_apart() {
        let one = tree(&[("a/x", "1"), ("log", "one"), ("same", "s")]);
        let two = tree(&[("a/y", "2"), ("a/x", "other"), ("log", "two"), ("same", "s")]);
        let merged = put_together(&[(1, one), (2, two)], FUNCTION).unwrap();
        let expected = folder(&[
            ("a/x", "1"),
            ("a/y", "2"),
            ("log", "one"),
            ("same", "s"),
            ("shard-2/a/x", "other"),
            ("shard-2/log", "two"),
        ]);
        assert_eq!(read(merged), expected);
    }

    #[test]
    fn trees_that_are_broken_or_too_large_are_refused() {
        let mut broken = tree(&[("a/x", "1")]);
        broken.children.clear();
        assert!(put_together(&[(1, broken)], FUNCTION).is_err());
        let name = |name: &str| reapi::FileNode { name: name.to_owned(), ..Default::default() };
        let root = reapi::Directory { files: vec![name("..")], ..Default::default() };
        let evil = reapi::Tree { root: Some(root), children: Vec::new() };
        assert!(put_together(&[(1, evil)], FUNCTION).is_err());
        let files = (0..=MAX_ENTRIES).map(|n| name(&n.to_string())).collect();
        let root = reapi::Directory { files, ..Default::default() };
        let large = reapi::Tree { root: Some(root), children: Vec::new() };
        assert!(put_together(&[(1, large)], FUNCTION).is_err());
        assert_eq!(read(put_together(&[], FUNCTION).unwrap()), Folder::default());
    }
}
