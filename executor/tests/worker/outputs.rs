//! Outputs on a real disk: what actions leave, well-behaved or not.
#![allow(deprecated, reason = "the fields of REAPI 2.0 are tested too")]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln_cas::{Digest, SharedBlobStore};
use kiln_executor::input_root::{CacheLimits, InputLimits, InputRoots};
use kiln_executor::outputs::{
    Collected, Expected, OutputError, OutputKind, OutputLimits, OutputSpec, Patience, collect,
    upload,
};
use kiln_protos::reapi;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use proptest::prelude::*;
use prost::Message;
use tokio_util::sync::CancellationToken;

use crate::common::{self, FUNCTION, Node, get, memory_store, put_tree};

fn collect_kinds(root: &Path, outputs: &[(&str, OutputKind)]) -> Result<Collected, OutputError> {
    let expected = outputs
        .iter()
        .map(|(path, kind)| Expected {
            declared: (*path).into(),
            path: (*path).into(),
            kind: *kind,
        })
        .collect();
    let spec = OutputSpec { expected, directories_apart: true };
    let time = Duration::from_secs(60);
    let limits =
        OutputLimits { entries: 1_000, blob: 1 << 30, bytes: 4 << 20, hole_bytes: 1 << 29, time };
    let patience =
        Patience { cancel: CancellationToken::new(), until: std::time::Instant::now() + time };
    let root = Arc::new(File::open(root).unwrap().into());
    let mut collected = collect(root, &spec, FUNCTION, &limits, &patience)?;
    collected.fault.take().map_or(Ok(collected), Err)
}

fn collect_all(root: &Path, outputs: &[&str]) -> Result<Collected, OutputError> {
    let outputs: Vec<_> = outputs.iter().map(|path| (*path, OutputKind::Any)).collect();
    collect_kinds(root, &outputs)
}

async fn store_all(store: &SharedBlobStore, collected: Collected) -> reapi::ActionResult {
    let Collected { result, blobs, root, .. } = collected;
    upload(store, &root, blobs, Duration::ZERO).await.unwrap();
    result
}

#[tokio::test]
async fn files_directories_and_symlinks_are_found_and_missing_ones_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("tree/sub")).unwrap();
    fs::write(root.join("plain"), "text").unwrap();
    fs::write(root.join("tree/sub/run"), "x").unwrap();
    fs::set_permissions(root.join("tree/sub/run"), Permissions::from_mode(0o755)).unwrap();
    symlink("sub/run", root.join("tree/link")).unwrap();
    symlink("tree", root.join("to-directory")).unwrap();
    symlink("plain", root.join("to-file")).unwrap();
    let store = memory_store();
    let outputs = ["plain", "tree", "to-directory", "to-file", "gone", "plain/below", "no/where"];
    let result = store_all(&store, collect_all(root, &outputs).unwrap()).await;

    assert_eq!(result.output_files.len(), 1);
    assert_eq!(get(&store, result.output_files[0].digest.as_ref().unwrap()).await, "text");
    let names = |links: &[reapi::OutputSymlink]| {
        links.iter().map(|link| link.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&result.output_symlinks), ["to-directory", "to-file"]);
    assert_eq!(names(&result.output_directory_symlinks), ["to-directory"]);
    assert_eq!(names(&result.output_file_symlinks), ["to-file"]);

    let output = &result.output_directories[0];
    assert!(output.is_topologically_sorted);
    let data = get(&store, output.tree_digest.as_ref().unwrap()).await;
    let tree = reapi::Tree::decode(data).unwrap();
    let root = tree.root.unwrap();
    assert_eq!(root.symlinks[0].target, "sub/run");
    assert!(tree.children[0].files[0].is_executable);
    let apart = get(&store, output.root_directory_digest.as_ref().unwrap()).await;
    assert_eq!(reapi::Directory::decode(apart).unwrap(), root);
    get(&store, root.directories[0].digest.as_ref().unwrap()).await;
}

#[tokio::test]
async fn a_symlink_is_reported_and_what_it_points_to_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/etc/passwd", dir.path().join("out")).unwrap();
    symlink("/etc", dir.path().join("etc")).unwrap();
    symlink("..", dir.path().join("up")).unwrap();
    symlink("loop", dir.path().join("loop")).unwrap();
    let collected = collect_all(dir.path(), &["out", "loop"]).unwrap();
    assert!(collected.blobs.is_empty());
    assert_eq!(collected.result.output_symlinks[0].target, "/etc/passwd");
    assert!(collected.result.output_files.is_empty());
    for path in ["etc/passwd", "up/out", "loop/x"] {
        let error = collect_all(dir.path(), &[path]).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("leads out of the input root"), "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn parents_may_be_symlinks_within_the_root() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("real/deep")).unwrap();
    fs::write(dir.path().join("real/deep/out"), "x").unwrap();
    symlink("real/deep", dir.path().join("alias")).unwrap();
    let result = collect_all(dir.path(), &["alias/out"]).unwrap().result;
    assert_eq!(result.output_files[0].path, "alias/out");
}

#[test]
fn special_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("tree/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    for (output, said) in [("tree", "\"tree/pipe\" is a named pipe"), ("socket", "is a socket")] {
        let error = collect_all(dir.path(), &[output]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(said), "{error:?} lacks {said:?}");
    }
}

#[test]
fn names_and_targets_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let bad = std::ffi::OsStr::from_bytes(b"bad\xff");
    for link in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        if link {
            symlink(bad, dir.path().join("tree/link")).unwrap();
        } else {
            fs::write(dir.path().join("tree").join(bad), "x").unwrap();
        }
        let error = collect_all(dir.path(), &["tree"]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("not UTF-8") && error.contains("tree"), "{error}");
    }
}

#[test]
fn declared_kinds_are_enforced() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    symlink("gone", dir.path().join("link")).unwrap();
    let error = collect_kinds(dir.path(), &[("tree", OutputKind::File)]).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("output_files declares a file"), "{error}");
    let error =
        collect_kinds(dir.path(), &[("file", OutputKind::Directory)]).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("output_directories declares a directory"), "{error}");
    let links = [("link", OutputKind::Directory)];
    let result = collect_kinds(dir.path(), &links).unwrap().result;
    assert_eq!(result.output_directory_symlinks.len(), 1);
    assert_eq!(result.output_symlinks.len(), 1);
}

/// Counted once for each name, the file would have 300 times the bytes that outputs may have.
#[tokio::test]
async fn a_file_of_many_names_is_counted_and_read_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    let content = vec![7; 4 << 20];
    fs::write(dir.path().join("one"), &content).unwrap();
    for n in 0..300 {
        fs::hard_link(dir.path().join("one"), dir.path().join("d").join(n.to_string())).unwrap();
    }
    let collected = collect_all(dir.path(), &["d", "one"]).unwrap();
    let whole = FUNCTION.digest(&content);
    let contents = collected.blobs.iter().filter(|(digest, _)| *digest == whole);
    assert_eq!(contents.count(), 1);
    let store = memory_store();
    let result = store_all(&store, collected).await;
    assert_eq!(result.output_files[0].digest, Some(whole.to_wire()));
    assert_eq!(get(&store, &whole.to_wire()).await, content);
    // Another file of the same content is another file.
    fs::write(dir.path().join("two"), &content).unwrap();
    let error = collect_all(dir.path(), &["d", "two"]).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}

#[test]
fn too_many_too_large_and_too_deep_outputs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("many")).unwrap();
    for n in 0..1_001 {
        fs::write(dir.path().join("many").join(n.to_string()), "").unwrap();
    }
    let holes = File::create(dir.path().join("holes")).unwrap();
    holes.set_len(1 << 30).unwrap();
    fs::write(dir.path().join("large"), vec![1; (4 << 20) + 1]).unwrap();
    let deep: String = "d/".repeat(600);
    fs::create_dir_all(dir.path().join("deep").join(deep)).unwrap();
    for (output, said) in [
        ("many", "more than 1000 entries"),
        ("holes", "more than 536870912 bytes of holes"),
        ("large", "more than 4194304 bytes"),
        ("deep", "directories deep"),
    ] {
        let error = collect_all(dir.path(), &[output]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(said), "{error:?} lacks {said:?}");
    }
}

/// Each level has fewer names than there may be. The pipe, which is looked at first, would end the
/// look-up otherwise.
#[test]
fn names_of_all_levels_are_counted_when_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("wide/0")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("wide/0/0"), Mode::S_IRWXU).unwrap();
    for n in 1..=600 {
        fs::write(dir.path().join(format!("wide/{n}")), "").unwrap();
        fs::write(dir.path().join(format!("wide/0/{n}")), "").unwrap();
    }
    let error = collect_all(dir.path(), &["wide"]).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("more than 1000 entries"), "{error}");
}

/// The path is longer than any that a system call takes: an action comes there step by step, and
/// nobody does by the path.
#[test]
fn a_path_that_is_longer_than_any_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    let mut at: OwnedFd = File::open(dir.path().join("out")).unwrap().into();
    let name = "d".repeat(200);
    for _ in 0..21 {
        mkdirat(&at, name.as_str(), Mode::S_IRWXU).unwrap();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        at = openat(&at, name.as_str(), flags, Mode::empty()).unwrap();
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT;
    let file = File::from(openat(&at, "large", flags, Mode::S_IRUSR).unwrap());
    file.set_len(1 << 20).unwrap();
    let error = collect_all(dir.path(), &["out"]).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("longer than 4095 bytes") && error.len() < 1_000, "{error}");
}

#[tokio::test]
async fn the_whole_root_can_be_an_output_and_unreadable_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("closed")).unwrap();
    fs::write(dir.path().join("closed/secret"), vec![3; 1 << 20]).unwrap();
    for path in ["closed/secret", "closed"] {
        fs::set_permissions(dir.path().join(path), Permissions::from_mode(0o000)).unwrap();
    }
    let store = memory_store();
    let result = store_all(&store, collect_all(dir.path(), &[""]).unwrap()).await;
    let output = &result.output_directories[0];
    assert_eq!(output.path, "");
    let data = get(&store, output.tree_digest.as_ref().unwrap()).await;
    let tree = reapi::Tree::decode(data).unwrap();
    let secret = &tree.children[0].files[0];
    assert!(!secret.is_executable);
    assert_eq!(get(&store, secret.digest.as_ref().unwrap()).await, vec![3; 1 << 20]);
    fs::set_permissions(dir.path().join("closed"), Permissions::from_mode(0o700)).unwrap();
}

/// To root no directory is closed: run as an ordinary user, this shows that the way is opened
/// again.
#[tokio::test]
async fn closed_directories_on_the_way_to_an_output_are_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
    fs::write(dir.path().join("a/b/c/out"), "text").unwrap();
    fs::create_dir(dir.path().join("gone")).unwrap();
    for path in ["a/b/c", "a/b", "a", "gone"] {
        fs::set_permissions(dir.path().join(path), Permissions::from_mode(0o000)).unwrap();
    }
    let outputs = ["a/b/c/out", "a/b/c/none", "gone/b/c/none"];
    let result = collect_all(dir.path(), &outputs).unwrap().result;
    assert_eq!(result.output_files.len(), 1);
    assert_eq!(result.output_files[0].path, "a/b/c/out");
}

/// A fault of one output takes away none of the others.
#[test]
fn the_other_outputs_are_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log"), "text").unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let expected = ["log", "pipe"].map(|path| Expected {
        declared: path.into(),
        path: path.into(),
        kind: OutputKind::File,
    });
    let spec = OutputSpec { expected: expected.to_vec(), directories_apart: false };
    let patience = Patience {
        cancel: CancellationToken::new(),
        until: std::time::Instant::now() + Duration::from_secs(60),
    };
    let root = Arc::new(File::open(dir.path()).unwrap().into());
    let limits = OutputLimits::default();
    let collected = collect(root, &spec, FUNCTION, &limits, &patience).unwrap();
    assert_eq!(collected.result.output_files[0].path, "log");
    assert!(collected.fault.unwrap().to_string().contains("a named pipe"));
}

fn any_node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        (proptest::collection::vec(any::<u8>(), 0..40), any::<bool>())
            .prop_map(|(data, executable)| Node::File { data, executable }),
        "[a-z/.]{1,12}".prop_map(Node::Symlink),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| any_directory(inner).boxed())
}

fn any_directory(inner: impl Strategy<Value = Node> + 'static) -> impl Strategy<Value = Node> {
    proptest::collection::btree_map("[a-zé]{1,3}", inner, 0..6).prop_map(Node::Directory)
}

/// Stores the tree, builds it on disk, collects it, and returns both digests.
async fn round_trip(root: Node) -> (Digest, Digest) {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    // Beneath a name of its own: an empty root is no tree on disk.
    let stored = put_tree(&store, &root).await;
    let wrapped = Node::Directory(BTreeMap::from([("tree".to_owned(), root)]));
    let wrapped = put_tree(&store, &wrapped).await;
    let cache = CacheLimits { layer_entries: 4, ..Default::default() };
    let inputs = dir.path().join("inputs");
    let roots = InputRoots::open(&inputs, store.clone(), InputLimits::default(), cache).unwrap();
    let built = roots.prepare(wrapped).await.unwrap().unwrap();
    // What the overlay does in a sandbox.
    let merged = dir.path().join("merged");
    fs::create_dir(&merged).unwrap();
    for layer in built.layers() {
        common::copy(&layer, &merged);
    }
    let result = store_all(&store, collect_all(&merged, &["tree"]).unwrap()).await;
    let digest = result.output_directories[0].root_directory_digest.as_ref().unwrap();
    (stored, Digest::from_wire(digest, FUNCTION).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_that_is_stored_built_and_collected_is_the_same_tree(root in any_directory(any_node())) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (stored, collected) = runtime.block_on(round_trip(root));
        prop_assert_eq!(stored, collected);
    }
}

/// The size of the file is found to be too large before a byte of it is read.
#[test]
fn a_file_that_the_store_would_not_take_is_a_fault_of_the_action() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    let large = File::create(dir.path().join("tree/large")).unwrap();
    large.set_len((1 << 30) + 1).unwrap();
    for output in ["tree", "tree/large"] {
        let fault = collect_all(dir.path(), &[output]);
        assert!(matches!(fault, Err(OutputError::TooLarge { limit, .. }) if limit == 1 << 30));
    }
}
