//! Layers: the same from the same files, and nothing that leads out.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read as _};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::super::{
    LayerEntry, LayerError, LayerLimits, LayerNode, LayerProblem, PathProblem, check_layer,
    layer_size_at_most, write_layer,
};

fn file(path: &str, content: &str) -> LayerEntry<String> {
    let size = content.len() as u64;
    let node = LayerNode::File { content: content.to_owned(), size, is_executable: false };
    LayerEntry { path: path.to_owned(), node }
}

fn link(path: &str, target: &str) -> LayerEntry<String> {
    LayerEntry { path: path.to_owned(), node: LayerNode::Symlink { target: target.to_owned() } }
}

fn layer(entries: Vec<LayerEntry<String>>) -> Result<Vec<u8>, LayerError> {
    let mut out = Vec::new();
    let mut open = |content: &String| Ok(Cursor::new(content.clone().into_bytes()));
    write_layer(entries, &mut open, &mut out).map(|()| out)
}

/// Names and contents of a layer, in its order.
fn members(layer: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(layer);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!(
            (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
            (0, 0, 0)
        );
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    });
    entries.collect()
}

#[test]
fn files_come_in_the_order_of_their_paths_behind_their_directories() {
    let packed =
        layer(vec![file("b/c", "1"), file("a", "2"), file("b-c", "3"), file("b/a/x", "4")]);
    let names = [("a", "2"), ("b/", ""), ("b/a/", ""), ("b/a/x", "4"), ("b/c", "1"), ("b-c", "3")];
    let expected: Vec<_> = names.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    assert_eq!(members(&packed.unwrap()), expected);
}

#[test]
fn what_leads_out_is_not_packed() {
    type Is = fn(&PathProblem) -> bool;
    let bad: [(&str, Is); 8] = [
        ("/etc/passwd", |it| matches!(it, PathProblem::Absolute(_))),
        ("../x", |it| matches!(it, PathProblem::Out(_))),
        ("a/../../x", |it| matches!(it, PathProblem::Out(_))),
        ("a//b", |it| matches!(it, PathProblem::Empty(_))),
        ("./a", |it| matches!(it, PathProblem::Empty(_))),
        ("", |it| matches!(it, PathProblem::Empty(_))),
        ("a/.wh.b", |it| matches!(it, PathProblem::Whiteout(_))),
        ("a\0b", |it| matches!(it, PathProblem::Characters(_))),
    ];
    for (path, is) in bad {
        let packed = layer(vec![file(path, "")]);
        assert!(matches!(&packed, Err(LayerError::Path(it)) if is(it)), "{path:?}: {packed:?}");
    }
    for target in ["/etc/passwd", "../../x", "../a/../../x", ""] {
        let packed = layer(vec![link("a/l", target)]);
        assert!(matches!(packed, Err(LayerError::Link { .. })), "{target}");
    }
    assert!(layer(vec![link("a/l", "../b"), file("b", "")]).is_ok());
}

#[test]
fn two_things_at_one_path_are_not_packed() {
    assert!(matches!(layer(vec![file("a", "1"), file("a", "2")]), Err(LayerError::Twice(_))));
    let below = layer(vec![file("a", "1"), file("a/b", "2")]);
    assert!(matches!(below, Err(LayerError::BelowFile(_))));
    let below = layer(vec![link("a", "b"), file("a/b", "2"), file("b/x", "")]);
    assert!(matches!(below, Err(LayerError::BelowFile(_))));
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_noticed() {
    for (content, size) in [("12", 3), ("1234", 3)] {
        let node = LayerNode::File { content: content.to_owned(), size, is_executable: true };
        let packed = layer(vec![LayerEntry { path: "a".to_owned(), node }]);
        assert!(matches!(packed, Err(LayerError::Size { expected: 3, .. })), "{packed:?}");
    }
    let mut open = |_: &()| Err::<io::Empty, _>(io::ErrorKind::NotFound.into());
    let node = LayerNode::File { content: (), size: 1, is_executable: false };
    let entries = vec![LayerEntry { path: "a".to_owned(), node }];
    assert!(matches!(write_layer(entries, &mut open, &mut Vec::new()), Err(LayerError::Io { .. })));
}

#[test]
fn long_paths_are_packed_and_read_again() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let packed = layer(vec![file(&long, "x")]).unwrap();
    assert_eq!(members(&packed)[1], (long, "x".to_owned()));
    assert_eq!(check_layer(&packed[..], LayerLimits::default()).unwrap(), 2);
}

/// An archive with one member, as somebody else may write it.
fn foreign(kind: EntryType, name: &str, target: &str) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o644);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, io::empty()).unwrap();
    builder.into_inner().unwrap()
}

fn check(kind: EntryType, name: &str, target: &str) -> Result<u64, LayerProblem> {
    check_layer(&foreign(kind, name, target)[..], LayerLimits::default())
}

#[test]
fn a_layer_of_others_leads_nowhere_and_has_no_devices() {
    for (kind, name, target) in [
        (EntryType::Regular, "./etc/passwd", ""),
        (EntryType::Directory, "./", ""),
        (EntryType::Regular, "etc/.wh.passwd", ""),
        (EntryType::Symlink, "etc/alternatives/x", "/usr/bin/x"),
        (EntryType::Symlink, "a/b", "../c"),
        (EntryType::Link, "a/b", "c/d"),
    ] {
        assert!(check(kind, name, target).is_ok(), "{name} -> {target}");
    }
    for (kind, name, target) in [
        (EntryType::Regular, "/etc/passwd", ""),
        (EntryType::Regular, "../x", ""),
        (EntryType::Regular, "a/../../x", ""),
        (EntryType::Symlink, "a/b", "../../c"),
        (EntryType::Symlink, "a", "/../x"),
        (EntryType::Symlink, "a", ""),
        (EntryType::Link, "a/b", "../c"),
        (EntryType::Link, "a/b", "/etc/passwd"),
        (EntryType::Char, "dev/null", ""),
        (EntryType::Block, "dev/sda", ""),
        (EntryType::Fifo, "run/pipe", ""),
    ] {
        assert!(check(kind, name, target).is_err(), "{kind:?} {name} -> {target}");
    }
}

#[test]
fn a_layer_has_limits() {
    let packed = layer(vec![file("a", "123"), file("b", "456")]).unwrap();
    let with = |entries, bytes| check_layer(&packed[..], LayerLimits { entries, bytes });
    assert_eq!(with(2, 6).unwrap(), 2);
    assert!(matches!(with(1, 6), Err(LayerProblem::Entries(1))));
    assert!(matches!(with(2, 5), Err(LayerProblem::Bytes(5))));
}

#[test]
fn a_layer_is_no_larger_than_is_said_beforehand() {
    let long = "n".repeat(200);
    let deep = format!("{long}/{long}/{long}");
    for entries in [
        vec![],
        vec![file("a", "")],
        vec![file(&deep, &"1".repeat(513))],
        vec![file(&format!("{deep}/a"), "1"), link(&format!("{deep}/b"), &long)],
        vec![LayerEntry { path: deep.clone(), node: LayerNode::Directory }],
    ] {
        let most = layer_size_at_most(&entries);
        let written = layer(entries).unwrap().len() as u64;
        assert!(written <= most && most <= 5 * written, "{written} of {most}");
    }
}

proptest! {
    #[test]
    fn the_order_of_files_changes_nothing(files in prop::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,2}", "[a-z]{0,20}", 0..12), seed in any::<u64>()) {
        let entries = |files: &BTreeMap<String, String>| -> Vec<_> {
            files.iter().map(|(path, content)| file(path, content)).collect()
        };
        let mut shuffled = entries(&files);
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        match (layer(entries(&files)), layer(shuffled)) {
            (Ok(one), Ok(two)) => {
                prop_assert_eq!(&one, &two);
                let found: BTreeMap<_, _> = members(&one).into_iter().filter(|it| !it.0.ends_with('/')).collect();
                prop_assert_eq!(found, files);
                prop_assert!(check_layer(&one[..], LayerLimits::default()).is_ok());
            }
            (Err(one), Err(two)) => prop_assert_eq!(one.to_string(), two.to_string()),
            (one, two) => prop_assert!(false, "{:?} and {:?}", one, two),
        }
    }

    #[test]
    fn whatever_a_layer_holds_it_is_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = check_layer(&data[..], LayerLimits::default());
    }
}
