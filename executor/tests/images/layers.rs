//! Layers that nobody in their right mind would make.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_executor::images::unpack::{Budget, Tree, UnpackError, apply};
use tokio_util::sync::CancellationToken;

use crate::build::{Item, tar};

/// Applies archives to a directory beside which a file lies that must stay as it is.
fn unpack(layers: &[Vec<u8>]) -> (tempfile::TempDir, Result<(), UnpackError>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(dir.path().join("outside"), "untouched").unwrap();
    let mut tree = Tree::open(&root).unwrap();
    let mut budget = Budget { entries: 10_000, bytes: 10 << 20 };
    let stop = CancellationToken::new();
    let mut outcome = Ok(());
    for layer in layers {
        outcome = outcome.and_then(|()| apply(&mut tree, layer.as_slice(), &mut budget, &stop));
    }
    let outcome = outcome.and_then(|()| Ok(tree.finish(&[]).map(drop)?));
    assert_eq!(std::fs::read_to_string(dir.path().join("outside")).unwrap(), "untouched");
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().flatten().map(|it| it.file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    (dir, outcome)
}

fn fails(items: &[Item]) -> String {
    match unpack(&[tar(items)]).1 {
        Err(UnpackError::Layer(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn content(dir: &tempfile::TempDir, path: &str) -> String {
    std::fs::read_to_string(dir.path().join("root").join(path)).unwrap()
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in ["../outside", "a/../../outside", "/../outside", "a/b/../../../outside"] {
        assert!(fails(&[Item::file(path, "x")]).contains("upwards"), "{path}");
        assert!(fails(&[Item::file("a", ""), Item::link("b", path)]).contains("upwards"), "{path}");
    }
    let (dir, outcome) = unpack(&[tar(&[Item::file("/etc/passwd", "of the image")])]);
    outcome.unwrap();
    assert_eq!(content(&dir, "etc/passwd"), "of the image");
}

#[test]
fn links_are_followed_inside_of_the_image_alone() {
    let (dir, outcome) = unpack(&[tar(&[
        Item::directory("real"),
        Item::directory("a/b"),
        Item::symlink("up", "../../../../.."),
        Item::symlink("absolute", "/real"),
        Item::symlink("proc", "/proc/self/root"),
        Item::file("up/outside", "inside"),
        Item::file("absolute/file", "x"),
        Item::link("hard", "up/outside"),
    ])]);
    outcome.unwrap();
    assert_eq!(content(&dir, "outside"), "inside");
    assert_eq!(content(&dir, "real/file"), "x");
    assert_eq!(content(&dir, "hard"), "inside");

    let through = fails(&[Item::symlink("l", "/proc/self/root"), Item::file("l/x", "")]);
    assert!(through.contains("\"l\""), "no such directory in the image: {through}");
    assert!(fails(&[Item::symlink("loop", "loop"), Item::file("loop/x", "")]).contains("loop"));
    assert!(fails(&[Item::file("file", ""), Item::file("file/x", "")]).contains("file"));
    assert!(fails(&[Item::link("a", "absent")]).contains("absent"));
    assert!(fails(&[Item::link("a", "a")]).contains("\"a\""));
    assert!(fails(&[Item::symlink("a", "")]).contains("nowhere"));
}

#[test]
fn a_link_is_replaced_and_not_written_through() {
    let (dir, outcome) = unpack(&[
        tar(&[
            Item::file("target", "old"),
            Item::symlink("link", "target"),
            Item::symlink("dir", "/"),
        ]),
        tar(&[Item::file("link", "new"), Item::directory("dir"), Item::file("dir/x", "y")]),
    ]);
    outcome.unwrap();
    assert_eq!(content(&dir, "target"), "old");
    assert_eq!(content(&dir, "link"), "new");
    assert_eq!(content(&dir, "dir/x"), "y");
    assert!(!dir.path().join("root/x").exists());
}

#[test]
fn anything_gives_way_to_anything() {
    let makers: [fn(&str) -> Vec<Item>; 4] = [
        |path| vec![Item::file(path, "x")],
        |path| vec![Item::directory(path), Item::file(&format!("{path}/inner"), "x")],
        |path| vec![Item::symlink(path, "elsewhere")],
        |path| vec![Item::file("other", "x"), Item::link(path, "other")],
    ];
    for before in makers {
        for after in makers {
            unpack(&[tar(&before("a")), tar(&after("a"))]).1.unwrap();
            let mut both = before("a");
            both.extend(after("a"));
            unpack(&[tar(&both)]).1.unwrap();
        }
    }
    let (dir, outcome) = unpack(&[tar(&[Item::file("a", "x")]), tar(&[Item::device("a")])]);
    outcome.unwrap();
    assert!(!dir.path().join("root/a").exists(), "a device in its place is none");
}

#[test]
fn whiteouts_are_for_layers_below_whatever_their_order() {
    let lower = tar(&[Item::file("d/old", "1"), Item::file("d/both", "1"), Item::file("e/x", "1")]);
    for marker_first in [true, false] {
        let marker = Item::file("d/.wh..wh..opq", "");
        let gone = Item::file(".wh.e", "");
        let own = [Item::file("d/new", "2"), Item::file("d/both", "2"), Item::file("e/y", "2")];
        let mut upper = own.to_vec();
        let at = if marker_first { 0 } else { upper.len() };
        upper.splice(at..at, [marker, gone]);
        let (dir, outcome) = unpack(&[lower.clone(), tar(&upper)]);
        outcome.unwrap();
        let root = dir.path().join("root");
        assert!(!root.join("d/old").exists() && !root.join("e/x").exists());
        for own in ["d/new", "d/both", "e/y"] {
            assert_eq!(content(&dir, own), "2", "{own}");
        }
    }
    let (dir, outcome) = unpack(&[tar(&[
        Item::file("no/such/.wh.x", ""),
        Item::file("no/such/.wh..wh..opq", ""),
        Item::file(".wh..wh.plnk/x", ""),
        Item::file(".wh..wh.aufs", ""),
    ])]);
    outcome.unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("root")).unwrap().count(), 0);
    for bad in [".wh.", ".wh..", ".wh..."] {
        assert!(fails(&[Item::file(bad, "")]).contains("names nothing"), "{bad}");
    }
}

#[test]
fn modes_let_everybody_read_and_nobody_become_another() {
    let (dir, outcome) = unpack(&[tar(&[
        Item::file("plain", "").mode(0o600),
        Item::file("program", "").mode(0o6711),
        Item::file("none", "").mode(0),
        Item::directory("closed").mode(0),
        Item::file("closed/file", "x"),
        Item::directory("sticky").mode(0o1777),
    ])]);
    outcome.unwrap();
    let mode = |path: &str| {
        let path = dir.path().join("root").join(path);
        path.metadata().unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(mode("plain"), 0o644);
    assert_eq!(mode("program"), 0o755);
    assert_eq!(mode("none"), 0);
    assert_eq!(mode("closed"), 0o755);
    assert_eq!(mode("sticky"), 0o777);
    assert_eq!(content(&dir, "closed/file"), "x");
}

#[test]
fn what_is_too_much_is_refused() {
    let deep = |names: usize| vec!["d"; names].join("/");
    assert!(fails(&[Item::file(&deep(50), ""), Item::link("x", "/../y")]).contains("upwards"));
    // Links must not make a tree deeper than any path may be.
    let mut items = vec![Item::directory(&deep(45)), Item::symlink("l0", &deep(45))];
    for step in 0..8 {
        items.push(Item::directory(&format!("l{step}/{}", deep(45))));
        items.push(Item::symlink(&format!("l{}", step + 1), &format!("l{step}/{}", deep(40))));
    }
    let text = fails(&items);
    assert!(text.contains("mkdir") || text.contains("open"), "{text}");
}

#[test]
fn headers_without_end_are_not_read_into_memory() {
    // A PAX header of 1 GiB of which only the beginning comes.
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_path("x").unwrap();
    header.set_size(1 << 30);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.resize(archive.len() + (4 << 20), b'0');
    match unpack(&[archive]).1 {
        Err(UnpackError::Layer(text)) => assert!(text.contains("too long"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_archive_is_refused_and_what_is_empty_is_empty() {
    for garbage in
        [vec![1; 2000], b"x".repeat(511), tar(&[Item::file("a", "content")])[..600].to_vec()]
    {
        assert!(matches!(unpack(&[garbage]).1, Err(UnpackError::Layer(_))));
    }
    unpack(&[Vec::new(), vec![0; 1024], tar(&[])]).1.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Tree::open(dir.path()).unwrap();
    let mut budget = Budget { entries: 10, bytes: 10 };
    let layer = tar(&[Item::file("a", "")]);
    let stopped = apply(&mut tree, layer.as_slice(), &mut budget, &stop);
    assert!(matches!(stopped, Err(UnpackError::Stopped)));
    assert!(!Path::new(&dir.path().join("a")).exists());
}
