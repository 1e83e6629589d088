//! What two runs of one action made, side by side. No I/O.

use std::collections::{BTreeMap, HashMap};

use kiln_cas::DigestFunction;
use kiln_protos::hermeticity::{Difference, difference::Kind};
use kiln_protos::{events, reapi};
use prost::Message;

/// How deep directories of one output may be nested.
const MAX_DEPTH: usize = 256;

/// One output of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    File {
        digest: reapi::Digest,
        executable: bool,
    },
    Link(String),
    /// A directory as a whole, by the digest of its `Tree`.
    Tree(reapi::Digest),
    /// A directory within a tree that has been looked into.
    Directory,
}

/// Outputs by their path.
pub type Outputs = BTreeMap<String, Made>;

/// All outputs that `result` names.
pub fn outputs(result: &reapi::ActionResult) -> Outputs {
    let mut outputs = Outputs::new();
    for file in &result.output_files {
        let digest = file.digest.clone().unwrap_or_default();
        outputs.insert(file.path.clone(), Made::File { digest, executable: file.is_executable });
    }
    for directory in &result.output_directories {
        let tree = directory.tree_digest.clone().unwrap_or_default();
        outputs.insert(directory.path.clone(), Made::Tree(tree));
    }
    #[allow(deprecated, reason = "results of workers of other kinds may use the old fields only")]
    let links = result
        .output_symlinks
        .iter()
        .chain(&result.output_file_symlinks)
        .chain(&result.output_directory_symlinks);
    for link in links {
        outputs.insert(link.path.clone(), Made::Link(link.target.clone()));
    }
    outputs
}

/// All entries of `tree` as outputs, with paths below `path`.
pub fn within(path: &str, tree: &reapi::Tree, function: DigestFunction) -> Outputs {
    let children: HashMap<String, &reapi::Directory> = tree
        .children
        .iter()
        .map(|child| (function.digest(&child.encode_to_vec()).hex(), child))
        .collect();
    let mut outputs = Outputs::new();
    if let Some(root) = &tree.root {
        add(path, root, &children, MAX_DEPTH, &mut outputs);
    }
    outputs
}

fn add(
    path: &str,
    directory: &reapi::Directory,
    children: &HashMap<String, &reapi::Directory>,
    depth: usize,
    outputs: &mut Outputs,
) {
    for file in &directory.files {
        let digest = file.digest.clone().unwrap_or_default();
        let made = Made::File { digest, executable: file.is_executable };
        outputs.insert(format!("{path}/{}", file.name), made);
    }
    for link in &directory.symlinks {
        outputs.insert(format!("{path}/{}", link.name), Made::Link(link.target.clone()));
    }
    for node in &directory.directories {
        let below = format!("{path}/{}", node.name);
        let child = node.digest.as_ref().and_then(|digest| children.get(&digest.hash));
        if let (Some(child), true) = (child, depth > 0) {
            add(&below, child, children, depth - 1, outputs);
        }
        outputs.insert(below, Made::Directory);
    }
}

/// The outputs in which two runs differ, in the order of their paths.
pub fn differences(first: &Outputs, again: &Outputs) -> Vec<Difference> {
    let mut found: Vec<Difference> = first
        .iter()
        .filter_map(|(path, made)| difference(path, Some(made), again.get(path)))
        .collect();
    let added = again.iter().filter(|(path, _)| !first.contains_key(*path));
    found.extend(added.filter_map(|(path, made)| difference(path, None, Some(made))));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn difference(path: &str, first: Option<&Made>, again: Option<&Made>) -> Option<Difference> {
    let kind = match (first, again) {
        (first, again) if first == again => return None,
        (Some(_), None) => Kind::Missing,
        (None, _) => Kind::Added,
        (
            Some(Made::File { executable: before, .. }),
            Some(Made::File { executable: after, .. }),
        ) if before == after => Kind::Content,
        (Some(Made::Tree(_)), Some(Made::Tree(_))) => Kind::Content,
        (Some(Made::Link(_)), Some(Made::Link(_))) => Kind::Content,
        _ => Kind::Type,
    };
    let text = |made: Option<&Made>| match made {
        Some(Made::Link(target)) => format!("link to {}", target.escape_debug()),
        Some(Made::File { executable, .. }) if kind == Kind::Type => {
            if *executable { "executable file" } else { "file" }.to_owned()
        }
        Some(Made::Tree(_) | Made::Directory) if kind == Kind::Type => "directory".to_owned(),
        _ => String::new(),
    };
    Some(Difference {
        kind: kind as i32,
        path: path.to_owned(),
        first: first.and_then(digest),
        again: again.and_then(digest),
        first_text: text(first),
        again_text: text(again),
        ..Default::default()
    })
}

fn digest(made: &Made) -> Option<events::Digest> {
    match made {
        Made::File { digest, .. } | Made::Tree(digest) => {
            Some(events::Digest { hash: digest.hash.clone(), size_bytes: digest.size_bytes })
        }
        Made::Link(_) | Made::Directory => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made() -> impl Strategy<Value = Made> {
        let digest = |hash: u8| reapi::Digest { hash: hash.to_string(), size_bytes: 1 };
        prop_oneof![
            (0..3u8, any::<bool>()).prop_map(move |(hash, executable)| Made::File {
                digest: digest(hash),
                executable
            }),
            "[ab]".prop_map(Made::Link),
            (0..3u8).prop_map(move |hash| Made::Tree(digest(hash))),
        ]
    }

    fn some_outputs() -> impl Strategy<Value = Outputs> {
        proptest::collection::btree_map("[a-e]", made(), 0..5)
    }

    proptest! {
        #[test]
        fn exactly_what_differs_is_named_once(first in some_outputs(), again in some_outputs()) {
            let found: Vec<_> =
                differences(&first, &again).into_iter().map(|found| found.path).collect();
            let mut expected: Vec<_> = first.keys().chain(again.keys()).cloned().collect();
            expected.sort();
            expected.dedup();
            expected.retain(|path| first.get(path) != again.get(path));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn the_other_way_round_the_same_paths_differ(first in some_outputs(), again in some_outputs()) {
            let there = differences(&first, &again);
            let back = differences(&again, &first);
            prop_assert_eq!(there.len(), back.len());
            for (there, back) in there.iter().zip(&back) {
                prop_assert_eq!(&there.first, &back.again);
                prop_assert_eq!(there.kind() == Kind::Missing, back.kind() == Kind::Added);
            }
        }
    }

    #[test]
    fn a_tree_is_looked_into() {
        let function = DigestFunction::Sha256;
        let file = |name: &str, hash: &str| reapi::FileNode {
            name: name.into(),
            digest: Some(reapi::Digest { hash: hash.into(), size_bytes: 1 }),
            ..Default::default()
        };
        let tree = |hash: &str| {
            let child = reapi::Directory { files: vec![file("f", hash)], ..Default::default() };
            let node = reapi::DirectoryNode {
                name: "d".into(),
                digest: Some(function.digest(&child.encode_to_vec()).to_wire()),
            };
            let root = reapi::Directory { directories: vec![node], ..Default::default() };
            reapi::Tree { root: Some(root), children: vec![child] }
        };
        let (first, again) = (within("o", &tree("1"), function), within("o", &tree("2"), function));
        let found = differences(&first, &again);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].path.as_str(), found[0].kind()), ("o/d/f", Kind::Content));
    }
}
