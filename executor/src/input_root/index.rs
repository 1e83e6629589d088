//! What the local cache holds and what goes first: no I/O, only accounts.
//!
//! An input root consists of trees, its layers. A tree refers to its files; a file lives as
//! long as a tree (or a tree being built) refers to it. Trees go in the order of their last
//! use; pinned ones stay.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_cas::Digest;

use super::key::FileKey;
use super::limits::CacheLimits;

/// Names a file or a directory of the cache on disk; never used twice in one process.
pub(super) type Id = u64;

/// Input roots whose layers are remembered; then all are forgotten, and layers are found anew.
const MAX_ROOTS: usize = 65_536;
/// Bytes charged for an entry of a tree besides the contents of files.
const ENTRY_BYTES: u64 = 128;
/// Bytes charged for a directory: file systems hand out whole blocks.
const BLOCK_BYTES: u64 = 4096;

pub(super) struct Index {
    limits: CacheLimits,
    files: HashMap<FileKey, FileEntry>,
    /// Trees by the key of their layer.
    trees: HashMap<Digest, TreeEntry>,
    /// The keys of the layers of each input root, by the digest of its uppermost directory.
    roots: HashMap<Digest, Arc<[Digest]>>,
    /// The keys of unpinned trees by their last use, the oldest first.
    idle: BTreeMap<u64, Digest>,
    garbage: Garbage,
    next: u64,
    bytes: u64,
    /// Bytes of the cache, without the contents of files that are hard links to blobs of the store.
    own: Arc<AtomicU64>,
    entries: usize,
}

struct FileEntry {
    id: Id,
    references: usize,
    linked: bool,
}

struct TreeEntry {
    id: Id,
    files: Arc<[FileKey]>,
    size: TreeSize,
    pins: usize,
    last_used: u64,
}

/// What a tree takes on disk besides the contents of files.
#[derive(Debug, Clone, Copy)]
pub(super) struct TreeSize {
    /// How many files, directories and symlinks the tree has.
    pub entries: usize,
    pub directories: usize,
}

impl TreeSize {
    fn bytes(self) -> u64 {
        self.entries as u64 * ENTRY_BYTES + self.directories as u64 * BLOCK_BYTES
    }
}

/// Trees and files that are no longer part of the cache but still on disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Garbage {
    pub trees: Vec<Id>,
    pub files: Vec<Id>,
}

impl Garbage {
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty() && self.files.is_empty()
    }
}

impl Index {
    pub fn new(limits: CacheLimits) -> Self {
        Self {
            limits,
            files: HashMap::new(),
            trees: HashMap::new(),
            roots: HashMap::new(),
            idle: BTreeMap::new(),
            garbage: Garbage::default(),
            next: 0,
            bytes: 0,
            own: Arc::default(),
            entries: 0,
        }
    }

    /// Bytes of the cache, as its limit counts them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A counter of the bytes that are not hard links to blobs. It follows the cache.
    pub fn own_bytes(&self) -> Arc<AtomicU64> {
        self.own.clone()
    }

    fn add(&mut self, bytes: u64, own: u64) {
        self.bytes += bytes;
        self.own.fetch_add(own, Ordering::Relaxed);
    }

    fn subtract(&mut self, bytes: u64, own: u64) {
        self.bytes -= bytes;
        self.own.fetch_sub(own, Ordering::Relaxed);
    }

    /// Entries of all trees together.
    pub fn entries(&self) -> usize {
        self.entries
    }

    pub fn next_id(&mut self) -> Id {
        self.next += 1;
        self.next
    }

    /// Pins all layers of `root`, or none: `None` when one of them is not there.
    pub fn pin_root(&mut self, root: &Digest) -> Option<Vec<(Digest, Id)>> {
        let layers = self.roots.get(root)?.clone();
        let mut pinned = Vec::with_capacity(layers.len());
        for layer in layers.iter() {
            let Some(id) = self.pin(layer) else {
                pinned.iter().for_each(|(layer, _)| self.unpin(layer));
                self.roots.remove(root);
                return None;
            };
            pinned.push((*layer, id));
        }
        Some(pinned)
    }

    pub fn remember_root(&mut self, root: Digest, layers: Arc<[Digest]>) {
        if self.roots.len() >= MAX_ROOTS {
            self.roots.clear();
        }
        self.roots.insert(root, layers);
    }

    /// Keeps the tree of a layer until [`Self::unpin`] has been called as often.
    pub fn pin(&mut self, layer: &Digest) -> Option<Id> {
        let tree = self.trees.get_mut(layer)?;
        self.idle.remove(&tree.last_used);
        tree.pins += 1;
        Some(tree.id)
    }

    pub fn unpin(&mut self, layer: &Digest) {
        self.next += 1;
        let Some(tree) = self.trees.get_mut(layer) else { return };
        tree.pins = tree.pins.saturating_sub(1);
        if tree.pins == 0 {
            tree.last_used = self.next;
            self.idle.insert(self.next, *layer);
        }
    }

    /// Adds a reference to a file; `None`: the cache does not have it.
    pub fn retain(&mut self, key: &FileKey) -> Option<Id> {
        let file = self.files.get_mut(key)?;
        file.references += 1;
        Some(file.id)
    }

    /// The id of a file to which the caller holds a reference.
    pub fn find(&self, key: &FileKey) -> Option<Id> {
        self.files.get(key).map(|file| file.id)
    }

    /// Adds a file that is complete on disk, with one reference for the caller; `linked`: as a hard
    /// link to a blob. An equal file that came first is used instead.
    pub fn insert_file(&mut self, key: FileKey, id: Id, linked: bool) {
        if self.retain(&key).is_some() {
            self.garbage.files.push(id);
            return;
        }
        self.add(file_bytes(&key), own_bytes(&key, linked));
        self.files.insert(key, FileEntry { id, references: 1, linked });
    }

    /// Gives a file that was not finished to the garbage. It may not exist.
    pub fn discard_file(&mut self, id: Id) {
        self.garbage.files.push(id);
    }

    /// Takes back one reference to each of the files.
    pub fn release(&mut self, keys: &[FileKey]) {
        for key in keys {
            let Some(file) = self.files.get_mut(key) else { continue };
            file.references -= 1;
            if file.references == 0 {
                let (id, linked) = (file.id, file.linked);
                self.garbage.files.push(id);
                self.files.remove(key);
                self.subtract(file_bytes(key), own_bytes(key, linked));
            }
        }
    }

    /// Adds a tree that is complete on disk, pinned once. It takes over one reference to each of `files`.
    pub fn insert_tree(&mut self, layer: Digest, id: Id, files: Arc<[FileKey]>, size: TreeSize) {
        self.add(size.bytes(), size.bytes());
        self.entries += size.entries;
        self.trees.insert(layer, TreeEntry { id, files, size, pins: 1, last_used: 0 });
    }

    /// Drops idle trees until the limits hold, and hands over everything to be deleted.
    pub fn collect_garbage(&mut self) -> Garbage {
        while self.is_over() {
            let Some((_, layer)) = self.idle.pop_first() else { break };
            self.drop_tree(&layer);
        }
        std::mem::take(&mut self.garbage)
    }

    fn is_over(&self) -> bool {
        self.bytes > self.limits.bytes
            || self.own.load(Ordering::Relaxed) > self.limits.own_bytes
            || self.entries > self.limits.entries
    }

    /// Drops idle trees of about so many bytes, the one used longest ago first.
    pub fn shed(&mut self, bytes: u64) -> Garbage {
        let enough = self.bytes.saturating_sub(bytes);
        while self.bytes > enough {
            let Some((_, layer)) = self.idle.pop_first() else { break };
            self.drop_tree(&layer);
        }
        std::mem::take(&mut self.garbage)
    }

    fn drop_tree(&mut self, layer: &Digest) {
        let Some(tree) = self.trees.remove(layer) else { return };
        self.garbage.trees.push(tree.id);
        self.subtract(tree.size.bytes(), tree.size.bytes());
        self.entries -= tree.size.entries;
        self.release(&tree.files);
    }
}

fn file_bytes(key: &FileKey) -> u64 {
    key.digest.size.next_multiple_of(BLOCK_BYTES) + ENTRY_BYTES
}

fn own_bytes(key: &FileKey, linked: bool) -> u64 {
    if linked { ENTRY_BYTES } else { file_bytes(key) }
}

#[cfg(test)]
mod tests {
    use kiln_cas::DigestFunction;

    use super::*;

    fn key(name: &str) -> FileKey {
        FileKey { digest: DigestFunction::Sha256.digest(name.as_bytes()), executable: false }
    }

    fn add_tree(index: &mut Index, name: &str, files: &[FileKey]) -> Id {
        for file in files {
            if index.retain(file).is_none() {
                let id = index.next_id();
                index.insert_file(*file, id, false);
            }
        }
        let id = index.next_id();
        let size = TreeSize { entries: files.len(), directories: 1 };
        index.insert_tree(key(name).digest, id, files.into(), size);
        id
    }

    fn limited(entries: usize) -> Index {
        Index::new(CacheLimits { bytes: u64::MAX, entries, ..Default::default() })
    }

    #[test]
    fn the_tree_used_longest_ago_goes_first_with_the_files_it_alone_used() {
        let mut index = limited(3);
        let shared = key("shared");
        let oldest = add_tree(&mut index, "1", &[shared, key("own")]);
        index.unpin(&key("1").digest);
        let own = index.files[&key("own")].id;
        add_tree(&mut index, "2", &[shared, key("other")]);
        assert_eq!(index.collect_garbage(), Garbage { trees: vec![oldest], files: vec![own] });
        assert!(index.pin(&key("1").digest).is_none());
        assert!(index.retain(&shared).is_some());
    }

    #[test]
    fn pinned_trees_stay_however_full_the_cache_is() {
        let mut index = limited(0);
        add_tree(&mut index, "1", &[key("a")]);
        assert!(index.collect_garbage().is_empty());
        assert!(index.pin(&key("1").digest).is_some());
        index.unpin(&key("1").digest);
        assert!(index.collect_garbage().is_empty());
        index.unpin(&key("1").digest);
        assert_eq!(index.collect_garbage().trees.len(), 1);
        assert_eq!((index.bytes, index.entries), (0, 0));
    }

    #[test]
    fn what_is_asked_for_goes_with_the_links_and_what_is_used_stays() {
        let sized = |name, size| {
            let digest = Digest { size, ..key(name).digest };
            FileKey { digest, executable: true }
        };
        let mut index = limited(usize::MAX);
        let own = index.own_bytes();
        let own = || own.load(Ordering::Relaxed);
        for (name, linked) in [("1", false), ("2", true), ("3", true)] {
            let id = index.next_id();
            index.insert_file(sized(name, 100_000), id, linked);
            add_tree(&mut index, name, &[sized(name, 100_000)]);
            index.release(&[sized(name, 100_000)]);
        }
        assert!((100_000..130_000).contains(&own()), "{}", own());
        assert!(index.bytes() > 300_000);
        index.unpin(&key("1").digest);
        index.unpin(&key("2").digest);
        assert_eq!(index.shed(1).trees.len(), 1);
        assert!(own() < 20_000, "{}", own());
        assert_eq!(index.shed(1 << 40).trees.len(), 1);
        assert!(index.shed(1 << 40).is_empty());
        assert!(index.pin(&key("3").digest).is_some());
    }

    #[test]
    fn a_root_is_pinned_with_all_its_layers_or_not_at_all() {
        let mut index = limited(1);
        for name in ["1", "2"] {
            add_tree(&mut index, name, &[key(name)]);
        }
        let layers = [key("1").digest, key("2").digest];
        index.remember_root(key("root").digest, layers.into());
        assert_eq!(index.pin_root(&key("root").digest).map(|pinned| pinned.len()), Some(2));
        for layer in [layers[0], layers[0], layers[1]] {
            index.unpin(&layer);
        }
        index.collect_garbage();
        assert!(index.pin_root(&key("root").digest).is_none());
        index.unpin(&layers[1]);
        index.collect_garbage();
        assert!(index.pin(&layers[1]).is_some(), "one entry is within the limit");
    }

    #[test]
    fn use_renews_a_tree() {
        let mut index = limited(2);
        for name in ["1", "2"] {
            add_tree(&mut index, name, &[key(name)]);
            index.unpin(&key(name).digest);
        }
        index.pin(&key("1").digest);
        index.unpin(&key("1").digest);
        add_tree(&mut index, "3", &[key("3")]);
        index.collect_garbage();
        assert!(index.pin(&key("1").digest).is_some());
        assert!(index.pin(&key("2").digest).is_none());
    }
}
