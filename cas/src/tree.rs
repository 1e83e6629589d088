//! Rules for names, paths and `Directory` messages (REAPI: canonical form of `Directory`).

use bytes::{Buf, Bytes};
use kiln_protos::reapi;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

use crate::counted::{CountError, take};
use crate::digest::{Digest, DigestError};

/// Longest name of one path segment in bytes (Linux `NAME_MAX`).
pub const MAX_NAME: usize = 255;
/// Longest path, and longest target of a symbolic link, in bytes (Linux `PATH_MAX`).
pub const MAX_PATH: usize = 4096;

/// What is wrong with a `Directory` or a path. `field` is where, e.g. `files[3].name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error("{field}: {name:?} {problem}")]
    Name { field: String, name: String, problem: &'static str },
    #[error("{field}: {name:?} comes after {previous:?}: names must be sorted by their bytes")]
    Unsorted { field: String, name: String, previous: String },
    #[error("{field}: {name:?} occurs twice in the directory")]
    Duplicate { field: String, name: String },
    #[error("{field}: {source}")]
    Digest { field: String, source: DigestError },
}

/// One path segment as it may stand in a `Directory`.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("is empty"),
        "." | ".." => Err("is not a name: it would leave its directory"),
        _ if name.len() > MAX_NAME => Err("is longer than 255 bytes"),
        _ if name.contains('/') => Err("holds a slash: a name is one path segment"),
        _ if name.contains('\0') => Err("holds a NUL byte"),
        _ => Ok(()),
    }
}

/// A path below some root: relative, with no empty, `.` or `..` segment.
pub fn check_relative_path(path: &str) -> Result<(), TreeError> {
    let wrong = |problem| TreeError::Name { field: "path".into(), name: path.into(), problem };
    if path.starts_with('/') {
        return Err(wrong("is absolute: it must be relative"));
    }
    if path.len() > MAX_PATH {
        return Err(wrong("is longer than 4096 bytes"));
    }
    path.split('/').try_for_each(check_name).map_err(|problem| match problem {
        "is empty" => wrong("has an empty segment"),
        other => wrong(other),
    })
}

/// A path as outputs have it: relative to a working directory that may lie deep in the input root, so
/// that it may begin with `.` and `..` segments. It may consist of them alone.
pub fn check_output_path(path: &str) -> Result<(), TreeError> {
    let mut names = path;
    while let Some(("." | "..", rest)) = names.split_once('/') {
        names = rest;
    }
    if path.len() > MAX_PATH || names.len() == path.len() && !matches!(path, "." | "..") {
        return check_relative_path(path);
    }
    match names {
        "." | ".." => Ok(()),
        _ => check_relative_path(names).map_err(|error| with_name(error, path)),
    }
}

fn with_name(error: TreeError, path: &str) -> TreeError {
    match error {
        TreeError::Name { field, problem, .. } => {
            TreeError::Name { field, name: path.to_owned(), problem }
        }
        other => other,
    }
}

/// The target of a symbolic link: anything a kernel takes.
pub fn check_target(target: &str) -> Result<(), &'static str> {
    match target {
        "" => Err("is empty"),
        // With the byte of NUL that ends it.
        _ if target.len() >= MAX_PATH => Err("is longer than 4095 bytes"),
        _ if target.contains('\0') => Err("holds a NUL byte"),
        _ => Ok(()),
    }
}

/// Checks that `directory` is in canonical form: names of one segment, sorted, unique across
/// files, directories and symlinks; every digest set and well formed.
pub fn validate_directory(directory: &reapi::Directory) -> Result<(), TreeError> {
    let reapi::Directory { files, directories, symlinks, .. } = directory;
    check_sorted("files", files, |file| &file.name)?;
    check_sorted("directories", directories, |child| &child.name)?;
    check_sorted("symlinks", symlinks, |link| &link.name)?;
    check_disjoint("directories", directories, |child| &child.name, files, |file| &file.name)?;
    check_disjoint("symlinks", symlinks, |link| &link.name, files, |file| &file.name)?;
    check_disjoint("symlinks", symlinks, |link| &link.name, directories, |child| &child.name)?;
    for (i, file) in files.iter().enumerate() {
        check_digest("files", i, file.digest.as_ref())?;
    }
    for (i, child) in directories.iter().enumerate() {
        check_digest("directories", i, child.digest.as_ref())?;
    }
    for (i, link) in symlinks.iter().enumerate() {
        check_target(&link.target).map_err(|problem| TreeError::Name {
            field: format!("symlinks[{i}].target"),
            name: link.target.clone(),
            problem,
        })?;
    }
    Ok(())
}

/// The directories of an encoded `Tree` one by one, as slices of it: a tree of a few megabytes
/// would take a hundred times as much if it were decoded whole.
pub struct TreeParts {
    rest: Bytes,
}

/// One directory of a `Tree`, still encoded: its digest is that of these bytes.
pub struct TreePart {
    pub is_root: bool,
    pub directory: Bytes,
}

impl TreeParts {
    pub fn new(tree: Bytes) -> Self {
        Self { rest: tree }
    }

    fn next_part(&mut self) -> Result<Option<TreePart>, CountError> {
        const ROOT: u32 = 1;
        const CHILD: u32 = 2;
        while self.rest.has_remaining() {
            let mut data = &self.rest[..];
            let (tag, wire) = decode_key(&mut data)?;
            let mut part = None;
            if matches!(tag, ROOT | CHILD) && wire == WireType::LengthDelimited {
                let directory = self.rest.slice_ref(take(&mut data)?);
                part = Some(TreePart { is_root: tag == ROOT, directory });
            } else {
                skip_field(wire, tag, &mut data, DecodeContext::default())?;
            }
            let used = self.rest.len() - data.len();
            self.rest.advance(used);
            if part.is_some() {
                return Ok(part);
            }
        }
        Ok(None)
    }
}

impl Iterator for TreeParts {
    type Item = Result<TreePart, CountError>;

    fn next(&mut self) -> Option<Self::Item> {
        let part = self.next_part();
        if part.is_err() {
            self.rest.clear();
        }
        part.transpose()
    }
}

fn check_sorted<T>(list: &str, nodes: &[T], name: fn(&T) -> &String) -> Result<(), TreeError> {
    let field = |i: usize| format!("{list}[{i}].name");
    let mut previous: Option<&String> = None;
    for (i, node) in nodes.iter().enumerate() {
        let name = name(node);
        check_name(name).map_err(|problem| TreeError::Name {
            field: field(i),
            name: name.clone(),
            problem,
        })?;
        match previous {
            Some(previous) if previous == name => {
                return Err(TreeError::Duplicate { field: field(i), name: name.clone() });
            }
            Some(previous) if previous > name => {
                return Err(TreeError::Unsorted {
                    field: field(i),
                    name: name.clone(),
                    previous: previous.clone(),
                });
            }
            _ => previous = Some(name),
        }
    }
    Ok(())
}

/// Both lists are sorted.
fn check_disjoint<T, U>(
    list: &str,
    nodes: &[T],
    name: fn(&T) -> &String,
    others: &[U],
    other_name: fn(&U) -> &String,
) -> Result<(), TreeError> {
    for (i, node) in nodes.iter().enumerate() {
        if others.binary_search_by(|other| other_name(other).cmp(name(node))).is_ok() {
            let field = format!("{list}[{i}].name");
            return Err(TreeError::Duplicate { field, name: name(node).clone() });
        }
    }
    Ok(())
}

fn check_digest(list: &str, i: usize, digest: Option<&reapi::Digest>) -> Result<(), TreeError> {
    digest
        .ok_or(DigestError::Absent)
        .and_then(Digest::check_shape)
        .map_err(|source| TreeError::Digest { field: format!("{list}[{i}].digest"), source })
}

#[cfg(test)]
mod tests {
    use kiln_protos::reapi::{Directory, DirectoryNode, FileNode, SymlinkNode, Tree};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::digest::DigestFunction;

    fn digest() -> Option<reapi::Digest> {
        Some(DigestFunction::Sha256.digest(b"x").to_wire())
    }

    fn file(name: &str) -> FileNode {
        FileNode { name: name.into(), digest: digest(), ..Default::default() }
    }

    fn files(names: &[&str]) -> Directory {
        Directory { files: names.iter().map(|name| file(name)).collect(), ..Default::default() }
    }

    fn refused(directory: &Directory, part: &str) {
        let error = validate_directory(directory).expect_err("it is not canonical").to_string();
        assert!(error.contains(part), "{error:?} does not name {part:?}");
    }

    #[test]
    fn a_tree_comes_in_the_parts_that_it_was_made_of() {
        let (root, child) = (files(&["a"]), files(&["b", "c"]));
        let tree = Tree { root: Some(root.clone()), children: vec![child.clone(), root.clone()] };
        let mut encoded = tree.encode_to_vec();
        let parts: Result<Vec<_>, _> = TreeParts::new(encoded.clone().into()).collect();
        let parts = parts.unwrap();
        let directories: Vec<_> = parts.iter().map(|part| part.directory.to_vec()).collect();
        assert_eq!(directories, [&root, &child, &root].map(|part| part.encode_to_vec()));
        assert_eq!(parts.iter().map(|part| part.is_root).collect::<Vec<_>>(), [true, false, false]);
        encoded.truncate(encoded.len() - 1);
        let broken: Vec<_> = TreeParts::new(encoded.into()).collect();
        assert!(broken.last().unwrap().is_err());
        assert_eq!(broken.len(), 3);
    }

    #[test]
    fn canonical_directories_pass() {
        let mut directory = files(&["a", "b.c", "ä"]);
        directory.directories.push(DirectoryNode { name: "dir".into(), digest: digest() });
        directory.symlinks.push(SymlinkNode {
            name: "link".into(),
            target: "../up".into(),
            ..Default::default()
        });
        assert_eq!(validate_directory(&directory), Ok(()));
        assert_eq!(validate_directory(&Directory::default()), Ok(()));
        for function in DigestFunction::ALL {
            let empty = Some(function.digest(b"").to_wire());
            directory.directories[0].digest = empty.clone();
            directory.files[0].digest = empty;
            assert_eq!(validate_directory(&directory), Ok(()), "{function}");
        }
    }

    #[test]
    fn each_rule_names_its_field() {
        refused(&files(&[".."]), "files[0].name: \"..\"");
        refused(&files(&["a", "b/c"]), "files[1].name: \"b/c\" holds a slash");
        refused(&files(&[""]), "files[0].name: \"\" is empty");
        refused(&files(&["a", "a"]), "files[1].name: \"a\" occurs twice");
        refused(&files(&["b", "a"]), "must be sorted");
        refused(&files(&["nul\0"]), "NUL");
        let mut both = files(&["a", "same"]);
        both.directories.push(DirectoryNode { name: "same".into(), digest: digest() });
        refused(&both, "directories[0].name: \"same\" occurs twice");
        let mut unset = files(&["a"]);
        unset.files[0].digest = None;
        refused(&unset, "files[0].digest: the digest is not set");
        let link = SymlinkNode { name: "l".into(), ..Default::default() };
        refused(
            &Directory { symlinks: vec![link], ..Default::default() },
            "symlinks[0].target: \"\" is empty",
        );
        assert_eq!(check_target(&"x".repeat(4095)), Ok(()));
        assert!(check_target(&"x".repeat(4096)).is_err());
    }

    #[test]
    fn relative_paths() {
        for good in ["a", "a/b/c", "..a/b..", "ä/…"] {
            assert_eq!(check_relative_path(good), Ok(()), "{good}");
        }
        for bad in ["", "/a", "a//b", "a/", "a/../b", "./a", "a\0"] {
            assert!(check_relative_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn output_paths_may_lead_up_first() {
        for good in ["a/b", ".", "..", "../..", "../../x/y", "./x", "..a"] {
            assert_eq!(check_output_path(good), Ok(()), "{good}");
        }
        let long = "../".repeat(2_000) + "x";
        for bad in ["", "/a", "..//a", "../", "../a/..", "a/../b", "a/./b", "../a\0", &long] {
            let error = check_output_path(bad).expect_err(bad).to_string();
            assert!(error.starts_with(&format!("path: {bad:?} ")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_path_never_leaves_its_root(path in "[a./\\x00]{0,12}") {
            if check_relative_path(&path).is_ok() {
                let depth = std::path::Path::new(&path).components().all(|part| {
                    matches!(part, std::path::Component::Normal(_))
                });
                prop_assert!(depth);
            }
        }
    }
}
