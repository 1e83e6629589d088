//! Input roots on a real disk.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::stores::{Clock, Coalesced, DiskBlobStore, DiskOptions};
use kiln_cas::{Blob, BlobStore, BlobWriter, Digest, SharedBlobStore, StoreError};
use kiln_executor::input_root::{CacheLimits, InputError, InputLimits, InputRoot, InputRoots};
use kiln_protos::reapi;

use crate::common::{
    FUNCTION, Node, directory, executable, file, memory_store, put, put_message, put_tree,
};

fn open(dir: &Path, store: &SharedBlobStore) -> InputRoots {
    open_with(dir, store, InputLimits::default(), CacheLimits::default())
}

fn open_with(
    dir: &Path,
    store: &SharedBlobStore,
    limits: InputLimits,
    cache: CacheLimits,
) -> InputRoots {
    InputRoots::open(&dir.join("inputs"), store.clone(), limits, cache).unwrap()
}

/// The one layer of a small input root.
fn only(root: &InputRoot) -> PathBuf {
    let layers: Vec<_> = root.layers().collect();
    assert_eq!(layers.len(), 1);
    layers[0].clone()
}

/// Counts what is read, and links from a directory where it may.
struct Watched {
    inner: SharedBlobStore,
    reads: AtomicUsize,
    links_from: Option<std::path::PathBuf>,
}

#[async_trait]
impl BlobStore for Watched {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.find_missing(digests).await
    }
    async fn read(&self, digest: &Digest, at: u64, limit: Option<u64>) -> Result<Blob, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.read(digest, at, limit).await
    }
    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(digest, data).await
    }
    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        self.inner.writer(digest).await
    }
    async fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync().await
    }
    async fn link(&self, digest: &Digest, destination: &Path) -> Result<bool, StoreError> {
        let Some(directory) = &self.links_from else { return Ok(false) };
        fs::hard_link(directory.join(digest.hex()), destination).unwrap();
        Ok(true)
    }
}

#[tokio::test]
async fn a_tree_has_the_declared_content_fixed_modes_and_fixed_times() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let big = Node::File { data: vec![7; 3 << 20], executable: false };
    let root = directory([
        ("a", directory([("b", directory([("deep ünïcode", file("x"))])), ("empty", file(""))])),
        ("big", big),
        ("link", Node::Symlink("/etc/passwd".into())),
        ("nothing", directory([])),
        ("run", executable("#!/bin/sh\n")),
    ]);
    let roots = open(dir.path(), &store);
    let tree = roots.prepare(put_tree(&store, &root).await).await.unwrap().unwrap();
    let path = only(&tree);
    assert_eq!(fs::read_to_string(path.join("a/b/deep ünïcode")).unwrap(), "x");
    assert_eq!(fs::read(path.join("big")).unwrap(), vec![7; 3 << 20]);
    assert_eq!(fs::read_link(path.join("link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read_dir(path.join("nothing")).unwrap().count(), 0);
    for (name, mode) in [
        ("", 0o777),
        ("a", 0o777),
        ("a/b", 0o777),
        ("a/empty", 0o644),
        ("big", 0o644),
        ("run", 0o755),
    ] {
        let metadata = fs::metadata(path.join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{name}");
        assert_eq!(metadata.mtime(), 946_684_800, "{name}");
    }
}

#[tokio::test]
async fn equal_roots_are_built_once_and_equal_files_are_shared_between_roots() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory_store();
    let watched = Arc::new(Watched { inner: memory.clone(), reads: 0.into(), links_from: None });
    let store: SharedBlobStore = watched.clone();
    let common = file("shared");
    let one = put_tree(&memory, &directory([("f", common.clone())])).await;
    let two = put_tree(&memory, &directory([("f", common.clone()), ("g", common)])).await;
    let roots = open(dir.path(), &store);
    let (a, b) = tokio::join!(roots.prepare(one), roots.prepare(one));
    let (a, b) = (a.unwrap().unwrap(), b.unwrap().unwrap());
    assert_eq!(only(&a), only(&b));
    assert_eq!(watched.reads.load(Ordering::Relaxed), 2, "a Directory and a file");
    let c = roots.prepare(two).await.unwrap().unwrap();
    assert_eq!(watched.reads.load(Ordering::Relaxed), 3, "a Directory");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&only(&a).join("f")), inode(&only(&c).join("g")));
}

#[tokio::test]
async fn a_large_executable_is_a_link_into_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    let inner = memory_store();
    let data = vec![1; 100 << 10];
    let digest = put(&inner, data.clone()).await;
    let stored = blobs.join(digest.hex());
    fs::write(&stored, &data).unwrap();
    fs::set_permissions(&stored, fs::Permissions::from_mode(0o555)).unwrap();
    let store: SharedBlobStore =
        Arc::new(Watched { inner, reads: 0.into(), links_from: Some(blobs) });
    let run = Node::File { data: data.clone(), executable: true };
    let plain = Node::File { data, executable: false };
    let root = put_tree(&store, &directory([("plain", plain), ("run", run)])).await;
    let tree = open(dir.path(), &store).prepare(root).await.unwrap().unwrap();
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&only(&tree).join("run")), inode(&stored));
    assert_ne!(inode(&only(&tree).join("plain")), inode(&stored));
    for (name, mode) in [("plain", 0o644), ("run", 0o755)] {
        let metadata = fs::metadata(only(&tree).join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
}

#[tokio::test]
async fn what_is_missing_is_named_once_each_and_nothing_is_kept_of_the_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let absent = FUNCTION.digest(b"absent").to_wire();
    let node = |name: &str, executable| reapi::FileNode {
        name: name.into(),
        digest: Some(absent.clone()),
        is_executable: executable,
        ..Default::default()
    };
    let present = Some(put(&store, "present").await.to_wire());
    let ok = reapi::FileNode { name: "c".into(), digest: present, ..Default::default() };
    let root = reapi::Directory {
        files: vec![node("a", false), node("b", true), ok],
        ..Default::default()
    };
    let root = put_message(&store, &root).await;
    let roots = open(dir.path(), &store);
    match roots.prepare(root).await.map(|_| ()).unwrap_err() {
        InputError::Missing(missing) => assert_eq!(missing, [FUNCTION.digest(b"absent")]),
        other => panic!("{other}"),
    }
    assert_eq!(fs::read_dir(dir.path().join("inputs/files")).unwrap().count(), 0);
    put(&store, "absent").await;
    assert!(roots.prepare(root).await.unwrap().is_some());
}

#[tokio::test]
async fn bad_trees_are_refused_with_the_field_or_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let small = InputLimits { entries: 10, bytes: 100, ..InputLimits::default() };
    let roots = open_with(dir.path(), &store, small, CacheLimits::default());
    let link = |name: &str| reapi::SymlinkNode {
        name: name.into(),
        target: "x".into(),
        ..Default::default()
    };
    let bad = |names: &[&str]| reapi::Directory {
        symlinks: names.iter().map(|name| link(name)).collect(),
        ..Default::default()
    };
    let many: Vec<String> = (10..21).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (names, said) in [
        (vec![".."], "symlinks[0].name"),
        (vec!["a/b"], "symlinks[0].name"),
        (vec![""], "symlinks[0].name"),
        (vec!["a", "a"], "twice"),
        (vec!["b", "a"], "sorted"),
        (many, "more than 10 entries"),
    ] {
        let root = put_message(&store, &bad(&names)).await;
        let error = roots.prepare(root).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(said), "{error:?} lacks {said:?}");
    }
    let large = put_tree(&store, &directory([("f", file(&"x".repeat(101)))])).await;
    let error = roots.prepare(large).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("more than 100 bytes"), "{error}");
}

#[tokio::test]
async fn the_cache_is_bounded_and_what_is_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let cache = CacheLimits { entries: 4, ..Default::default() };
    let roots = open_with(dir.path(), &store, InputLimits::default(), cache);
    let mut held = None;
    for n in 0..20 {
        let tree = directory([("a", file(&n.to_string())), ("b", file("same"))]);
        let root = roots.prepare(put_tree(&store, &tree).await).await.unwrap().unwrap();
        if n == 0 {
            held = Some(root);
        }
    }
    let count = |kind| fs::read_dir(dir.path().join("inputs").join(kind)).unwrap().count();
    assert!(count("trees") <= 3, "{} trees", count("trees"));
    assert!(count("files") <= 4, "{} files", count("files"));
    let held = held.unwrap();
    assert_eq!(fs::read_to_string(only(&held).join("a")).unwrap(), "0");
}

/// Bytes of all files below `dir`, hard links counted once.
fn bytes_on_disk(dir: &Path, seen: &mut HashSet<u64>) -> u64 {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_on_disk(&entry.path(), seen),
        Ok(metadata) if seen.insert(metadata.ino()) => metadata.len(),
        _ => 0,
    });
    bytes.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_limit_bounds_blobs_and_the_inputs_that_outlive_them() {
    const MAX: u64 = 24 << 20;
    // What describes the contents is small, and beside the limit.
    const MOST: u64 = MAX + (4 << 10);
    let dir = tempfile::tempdir().unwrap();
    let remote = memory_store();
    let disk = DiskBlobStore::open(DiskOptions {
        dir: dir.path().join("blobs"),
        max_size: MAX,
        lease: Duration::ZERO,
        invocations: None,
        clock: Clock::system(),
    });
    let disk = disk.await.unwrap();
    let store: SharedBlobStore = Arc::new(Coalesced::new(Arc::new(disk.clone()), remote.clone()));
    let cache = CacheLimits { own_bytes: disk.premises().share(), ..Default::default() };
    let roots = open_with(dir.path(), &store, InputLimits::default(), cache);
    roots.move_into(disk.premises());
    let mut held = None;
    for n in 0..40u8 {
        let data = |size: usize| (0..size).map(|i| (i / 7) as u8 ^ n).collect::<Vec<u8>>();
        let tool = Node::File { data: data(2 << 20), executable: true };
        let text = Node::File { data: data(1 << 20), executable: false };
        let tree = directory([("tool", tool), ("text", text)]);
        let root = roots.prepare(put_tree(&remote, &tree).await).await.unwrap().unwrap();
        assert_eq!(fs::read(only(&root).join("tool")).unwrap(), data(2 << 20));
        if n % 10 == 0 {
            held = Some(root);
        }
        let used = bytes_on_disk(dir.path(), &mut HashSet::new());
        assert!(used <= MOST, "{used} bytes after {n} actions");
    }
    assert!(fs::read(only(&held.unwrap()).join("text")).is_ok(), "what is in use stays");
    // Blobs may have all of it when nothing runs.
    for n in 0..30u8 {
        let data = Bytes::from(vec![n; 1 << 20]);
        disk.write(&FUNCTION.digest(&data), data).await.unwrap();
    }
    let used = bytes_on_disk(dir.path(), &mut HashSet::new());
    assert!(used <= MOST, "{used} bytes");
}

#[tokio::test]
async fn a_restart_begins_with_an_empty_cache() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let root = put_tree(&store, &directory([("d", directory([("f", file("x"))]))])).await;
    let first = open(dir.path(), &store).prepare(root).await.unwrap().unwrap();
    let half_built = dir.path().join("inputs/trees/half-built");
    fs::create_dir_all(&half_built).unwrap();
    drop(first);
    let again = open(dir.path(), &store).prepare(root).await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(only(&again).join("d/f")).unwrap(), "x");
    assert!(!half_built.exists());
}

#[tokio::test]
async fn a_file_may_occur_more_often_than_a_file_system_links_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let names = (0..66_000).map(|n| (format!("{n:05}"), file("one"))).collect::<BTreeMap<_, _>>();
    let root = put_tree(&store, &Node::Directory(names)).await;
    let tree = open(dir.path(), &store).prepare(root).await.unwrap().unwrap();
    assert_eq!(fs::read_dir(only(&tree)).unwrap().count(), 66_000);
    assert_eq!(fs::read_to_string(only(&tree).join("65999")).unwrap(), "one");
}

#[tokio::test]
async fn a_large_directory_is_built_once_for_all_roots_that_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let roots = open(dir.path(), &store);
    let many: BTreeMap<String, Node> =
        (0..100).map(|n| (format!("f{n}"), file(&n.to_string()))).collect();
    let mut layers = Vec::new();
    for own in ["one", "two"] {
        let lib = directory([("lib", Node::Directory(many.clone())), ("own", file(own))]);
        let root = put_tree(&store, &directory([("external", lib)])).await;
        for _ in 0..2 {
            let tree = roots.prepare(root).await.unwrap().unwrap();
            let mut found: Vec<_> = tree.layers().collect();
            found.sort();
            assert_eq!(found.len(), 2);
            let file = |name: &str| {
                let paths = found.iter().map(|layer| layer.join("external").join(name));
                paths.filter(|path| path.exists()).collect::<Vec<_>>()
            };
            assert_eq!(file("own").len(), 1);
            assert_eq!(fs::read_to_string(&file("own")[0]).unwrap(), own);
            assert_eq!(fs::read_to_string(&file("lib/f42")[0]).unwrap(), "42");
            layers.extend(found);
        }
    }
    layers.sort();
    layers.dedup();
    assert_eq!(layers.len(), 3, "the library and two small ones");
}

#[tokio::test]
#[ignore = "prints how long input roots take"]
async fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    let roots = open(dir.path(), &store);
    for (what, salt) in [("fetched", "a"), ("files known", "b"), ("directory known", "c")] {
        let mut entries: BTreeMap<String, Node> =
            (0..1_000).map(|n| (format!("f{n:04}"), file(&"x".repeat(4_000 + n)))).collect();
        if salt == "b" {
            entries.insert("salt".into(), file(salt));
        }
        let large = Node::Directory(entries);
        let root = put_tree(&store, &directory([("salt", file(salt)), ("large", large)])).await;
        for again in ["", ", same root again"] {
            let start = std::time::Instant::now();
            let tree = roots.prepare(root).await.unwrap().unwrap();
            println!("1,000 files, {what}{again}: {:?}", start.elapsed());
            drop(tree);
        }
    }
}
