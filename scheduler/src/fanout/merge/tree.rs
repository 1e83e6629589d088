//! Output directories of several parts as one. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use kiln_cas::tree::{TreeParts, check_name};
use kiln_cas::{Digest, DigestFunction, counted};
use kiln_protos::reapi;
use prost::Message;

/// Entries of one merged directory; trees with more are not put together.
const MAX_ENTRIES: usize = 100_000;
/// How deep directories may be nested.
const MAX_DEPTH: usize = 64;

const NO_TREE: TreeProblem = "they are no trees";

/// Why trees cannot be put together, in words.
pub type TreeProblem = &'static str;

/// A directory's entries by name.
#[derive(Debug, Default, PartialEq)]
struct Folder(BTreeMap<String, Node>);

#[derive(Debug, PartialEq)]
enum Node {
    Folder(Folder),
    File(reapi::FileNode),
    Link(reapi::SymlinkNode),
}

/// Makes one encoded Tree with the entries of all. Where files of one path differ, the first one
/// keeps the path, and those of later trees get it below `shard-N/`.
pub fn put_together(
    trees: &[(u32, Bytes)],
    function: DigestFunction,
) -> Result<Bytes, TreeProblem> {
    let mut merged = Folder::default();
    let mut left = MAX_ENTRIES;
    for (number, tree) in trees {
        let mut beside = Folder::default();
        let reader = Reader { function, children: HashMap::new(), left: &mut left };
        let folder = reader.read(tree)?;
        merged.take_in(folder, &mut beside);
        if !beside.0.is_empty() {
            let mut name = format!("shard-{number}");
            while merged.0.contains_key(&name) {
                name.push('_');
            }
            merged.0.insert(name, Node::Folder(beside));
        }
    }
    Ok(Writer::new(function).tree(&merged))
}

impl Folder {
    /// Takes in the other folder's entries; those whose path has another content here go to
    /// `beside`.
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

/// Directories stay encoded until it is their turn: decoded, a tree takes many times as much.
struct Reader<'a> {
    function: DigestFunction,
    children: HashMap<Digest, Bytes>,
    /// Entries that there may still be, each time that a directory is named.
    left: &'a mut usize,
}

impl Reader<'_> {
    fn read(mut self, tree: &Bytes) -> Result<Folder, TreeProblem> {
        let mut root = Bytes::new();
        for part in TreeParts::new(tree.clone()) {
            let part = part.map_err(|_| NO_TREE)?;
            if part.is_root {
                root = part.directory;
            } else {
                self.children.insert(self.function.digest(&part.directory), part.directory);
            }
        }
        self.folder(root, 0)
    }

    fn folder(&mut self, directory: Bytes, depth: usize) -> Result<Folder, TreeProblem> {
        let directory: reapi::Directory = counted::decode(directory).map_err(|_| NO_TREE)?;
        let entries =
            directory.files.len() + directory.directories.len() + directory.symlinks.len();
        *self.left = self.left.checked_sub(entries).ok_or("they have too many entries")?;
        if depth > MAX_DEPTH {
            return Err("their directories are nested too deep");
        }
        let mut folder = Folder::default();
        for file in directory.files {
            folder.add(file.name.clone(), Node::File(file))?;
        }
        for link in directory.symlinks {
            folder.add(link.name.clone(), Node::Link(link))?;
        }
        for node in directory.directories {
            let digest = node.digest.as_ref().ok_or(NO_TREE)?;
            let digest = Digest::from_wire(digest, self.function).map_err(|_| NO_TREE)?;
            let child = match self.children.get(&digest) {
                Some(child) => child.clone(),
                None if digest.is_empty_blob() => Bytes::new(),
                None => return Err("a tree lacks one of its directories"),
            };
            let child = self.folder(child, depth + 1)?;
            folder.add(node.name, Node::Folder(child))?;
        }
        Ok(folder)
    }
}

impl Folder {
    fn add(&mut self, name: String, node: Node) -> Result<(), TreeProblem> {
        check_name(&name).map_err(|_| "a name in a tree is none")?;
        self.0.insert(name, node);
        Ok(())
    }
}

struct Writer {
    function: DigestFunction,
    seen: HashSet<Digest>,
    /// The directories written so far, children before their parents, each once.
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

    /// Makes the message of one folder and collects those below it. Names are in order, as the
    /// canonical form wants them.
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

    fn tree(files: &[(&str, &str)]) -> Bytes {
        Writer::new(FUNCTION).tree(&folder(files))
    }

    fn read(tree: &Bytes) -> Result<Folder, TreeProblem> {
        let mut left = MAX_ENTRIES;
        Reader { function: FUNCTION, children: HashMap::new(), left: &mut left }.read(tree)
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
        assert_eq!(read(&merged), Ok(expected));
    }

    #[test]
    fn trees_that_are_broken_or_too_large_are_refused() {
        let whole = reapi::Tree::decode(tree(&[("a/x", "1")])).unwrap();
        let refused = |root: reapi::Directory| {
            let tree = reapi::Tree { root: Some(root), children: Vec::new() };
            put_together(&[(1, tree.encode_to_vec().into())], FUNCTION).is_err()
        };
        assert!(refused(whole.root.unwrap()), "its child is not there");
        let name = |name: &str| reapi::FileNode { name: name.to_owned(), ..Default::default() };
        assert!(refused(reapi::Directory { files: vec![name("..")], ..Default::default() }));
        let files = (0..=MAX_ENTRIES).map(|n| name(&n.to_string())).collect();
        assert!(refused(reapi::Directory { files, ..Default::default() }));
        assert!(put_together(&[(1, Bytes::from_static(b"\x0a\xff"))], FUNCTION).is_err());
        assert_eq!(read(&put_together(&[], FUNCTION).unwrap()), Ok(Folder::default()));
    }

    #[test]
    fn directories_that_name_one_another_again_and_again_are_refused() {
        let mut children = vec![reapi::Directory::default()];
        for _ in 0..MAX_DEPTH - 1 {
            let digest = FUNCTION.digest(&children[children.len() - 1].encode_to_vec()).to_wire();
            let node = |name: &str| reapi::DirectoryNode {
                name: name.to_owned(),
                digest: Some(digest.clone()),
            };
            let directories = vec![node("a"), node("b")];
            children.push(reapi::Directory { directories, ..Default::default() });
        }
        let tree = reapi::Tree { root: children.pop(), children };
        let bomb = tree.encode_to_vec().into();
        assert_eq!(put_together(&[(1, bomb)], FUNCTION), Err("they have too many entries"));
    }
}
