//! What a release is made of, and what targets and outputs are called.

use kiln_cas::Digest;

/// Files of a release.
pub const MAX_FILES: usize = 200_000;

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputFile {
    /// The path of the file, as its action named it.
    pub path: String,
    pub digest: Digest,
    pub is_executable: bool,
}

/// What a release has beside files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputNode {
    pub path: String,
    /// What a symbolic link leads to; `None`: this is a directory without anything in it.
    pub target: Option<String>,
}

/// A file that a build event names as an output of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldFile {
    pub path: String,
    /// The hash of the content in hexadecimal digits.
    pub hash: String,
    pub size: u64,
    /// What a symbolic link leads to; such a link has no content. `None`: this is a file.
    pub link: Option<String>,
}

/// Bazel writes the labels of its main repository in three ways.
pub fn is_same(one: &str, other: &str) -> bool {
    plain(one) == plain(other)
}

/// `//app` for `//app:app`, `@//app` and `@@//app`.
fn plain(label: &str) -> String {
    let label = label.trim_start_matches('@');
    match label.rsplit_once(':') {
        Some((package, name)) if package.ends_with(&format!("/{name}")) => package.to_owned(),
        _ => label.to_owned(),
    }
}

/// Whether an output is meant by a path that somebody wrote: its own, its end, or that of a directory above it.
pub fn fits(output: &str, path: &str) -> bool {
    // So Bazel prints what lies below `bazel-out/CONFIGURATION/bin`.
    let path = path.strip_prefix("bazel-bin/").unwrap_or(path);
    output.strip_suffix(path).is_some_and(|it| it.is_empty() || it.ends_with('/'))
        || output.strip_prefix(path).is_some_and(|it| it.starts_with('/'))
}

/// The path that a link at `path` leads to; one that leads to another link is not followed. `None`: it leads out of the
/// tree.
pub fn led_to(path: &str, target: &str) -> Option<String> {
    let mut parts: Vec<_> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}
