//! `ActionResult` messages: what clients of every age need to find in one, and which blobs
//! one names.

use std::collections::{BTreeSet, HashSet};

use kiln_protos::reapi;
use kiln_protos::reapi::{ActionResult, OutputSymlink};

use crate::digest::{Digest, DigestError, DigestFunction};
use crate::tree::{TreeError, check_output_path, check_target};

/// Largest encoded result: it has to fit into one message with room for inlined output.
pub const MAX_ACTION_RESULT: usize = 3 << 20;

/// What is wrong with a result, and in which field, e.g. `action_result.output_files[2].path`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    #[error("action_result.{field}: {source}")]
    Path { field: String, source: TreeError },
    #[error("action_result.{field}: {source}")]
    Digest { field: String, source: DigestError },
    #[error("action_result.{field}: the symlink's target {problem}")]
    Target { field: String, problem: &'static str },
}

/// The blobs that a result names directly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Output files, stdout and stderr.
    pub blobs: Vec<Digest>,
    /// `Tree` messages of output directories: their content names more.
    pub trees: Vec<Digest>,
    /// Root `Directory` messages of output directories.
    pub roots: Vec<Digest>,
}

/// Checks every path and digest of `result`, and returns the digests.
pub fn named_blobs(result: &ActionResult, function: DigestFunction) -> Result<Named, ResultError> {
    let mut named = Named::default();
    for (i, file) in result.output_files.iter().enumerate() {
        check_path("output_files", i, &file.path)?;
        named.blobs.push(digest(&format!("output_files[{i}].digest"), &file.digest, function)?);
    }
    for (i, directory) in result.output_directories.iter().enumerate() {
        // The empty path is the working directory itself.
        if !directory.path.is_empty() {
            check_path("output_directories", i, &directory.path)?;
        }
        let field = format!("output_directories[{i}].tree_digest");
        named.trees.push(digest(&field, &directory.tree_digest, function)?);
        if directory.root_directory_digest.is_some() {
            let field = format!("output_directories[{i}].root_directory_digest");
            named.roots.push(digest(&field, &directory.root_directory_digest, function)?);
        }
    }
    check_symlinks(result)?;
    for (field, wire) in
        [("stdout_digest", &result.stdout_digest), ("stderr_digest", &result.stderr_digest)]
    {
        if wire.is_some() {
            named.blobs.push(digest(field, wire, function)?);
        }
    }
    Ok(named)
}

#[allow(deprecated)]
fn check_symlinks(result: &ActionResult) -> Result<(), ResultError> {
    for (list, links) in [
        ("output_symlinks", &result.output_symlinks),
        ("output_file_symlinks", &result.output_file_symlinks),
        ("output_directory_symlinks", &result.output_directory_symlinks),
    ] {
        for (i, link) in links.iter().enumerate() {
            check_path(list, i, &link.path)?;
            check_target(&link.target).map_err(|problem| ResultError::Target {
                field: format!("{list}[{i}].target"),
                problem,
            })?;
        }
    }
    Ok(())
}

fn check_path(list: &str, i: usize, path: &str) -> Result<(), ResultError> {
    check_output_path(path)
        .map_err(|source| ResultError::Path { field: format!("{list}[{i}]"), source })
}

fn digest(
    field: &str,
    wire: &Option<reapi::Digest>,
    function: DigestFunction,
) -> Result<Digest, ResultError> {
    wire.as_ref()
        .ok_or(DigestError::Absent)
        .and_then(|wire| Digest::from_wire(wire, function))
        .map_err(|source| ResultError::Digest { field: field.to_owned(), source })
}

/// Makes `result` readable by clients of every version: `output_symlinks` (REAPI 2.1) and the
/// two older lists hold the same links, and `execution_metadata` is set.
#[allow(deprecated)]
pub fn complete_for_all_clients(result: &mut ActionResult) {
    result.execution_metadata.get_or_insert_default();
    let new = paths(&result.output_symlinks);
    let files = paths(&result.output_file_symlinks);
    let directories = paths(&result.output_directory_symlinks);
    let outputs = Outputs::of(result);
    let old: Vec<OutputSymlink> = result
        .output_file_symlinks
        .iter()
        .chain(&result.output_directory_symlinks)
        .filter(|link| !new.contains(link.path.as_str()))
        .cloned()
        .collect();
    let (directories, files): (Vec<_>, Vec<_>) = result
        .output_symlinks
        .iter()
        .filter(|link| {
            !files.contains(link.path.as_str()) && !directories.contains(link.path.as_str())
        })
        .cloned()
        .partition(|link| outputs.are_led_to_by(link));
    result.output_symlinks.extend(old);
    result.output_file_symlinks.extend(files);
    result.output_directory_symlinks.extend(directories);
}

fn paths(links: &[OutputSymlink]) -> HashSet<&str> {
    links.iter().map(|link| link.path.as_str()).collect()
}

/// Paths of the outputs, to look them up: a result may name very many, and as many links.
struct Outputs<'a> {
    directories: HashSet<&'a str>,
    files: BTreeSet<&'a str>,
}

impl<'a> Outputs<'a> {
    fn of(result: &'a ActionResult) -> Self {
        Self {
            directories: result.output_directories.iter().map(|o| o.path.as_str()).collect(),
            files: result.output_files.iter().map(|o| o.path.as_str()).collect(),
        }
    }

    /// Whether the target is an output directory, or above some output. Where that cannot be
    /// told (a link out of the outputs) a link counts as one to a file.
    fn are_led_to_by(&self, link: &OutputSymlink) -> bool {
        let Some(target) = resolve(&link.path, &link.target) else { return false };
        if self.directories.contains(target.as_str()) {
            return true;
        }
        let below = format!("{target}/");
        let first = self.files.range(below.as_str()..).next();
        first.is_some_and(|path| path.starts_with(&below))
    }
}

/// `target` as seen from the directory of `path`, lexically. `None`: absolute or outside.
fn resolve(path: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut segments: Vec<&str> = path.split('/').collect();
    segments.pop();
    for segment in target.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop().filter(|last| !matches!(*last, "." | ".."))?;
            }
            name => segments.push(name),
        }
    }
    Some(segments.join("/"))
}

#[cfg(test)]
#[allow(deprecated)]
mod tests {
    use kiln_protos::reapi::{OutputDirectory, OutputFile};

    use super::*;

    fn link(path: &str, target: &str) -> OutputSymlink {
        OutputSymlink { path: path.into(), target: target.into(), ..Default::default() }
    }

    #[test]
    fn symlinks_appear_in_the_lists_of_old_and_new_clients() {
        let mut result = ActionResult {
            output_directories: vec![OutputDirectory {
                path: "out/d".into(),
                ..Default::default()
            }],
            output_symlinks: vec![link("out/f", "x"), link("out/l", "./d")],
            ..Default::default()
        };
        complete_for_all_clients(&mut result);
        assert_eq!(result.output_file_symlinks, [link("out/f", "x")]);
        assert_eq!(result.output_directory_symlinks, [link("out/l", "./d")]);
        assert_eq!(resolve("../up/l", "../x").as_deref(), Some("../x"));
        assert_eq!(resolve("../l", "../x"), None, "above what the path itself names");
        assert!(result.execution_metadata.is_some());

        let mut old = ActionResult {
            output_file_symlinks: vec![link("f", "x")],
            output_directory_symlinks: vec![link("d", "y")],
            ..Default::default()
        };
        complete_for_all_clients(&mut old);
        assert_eq!(old.output_symlinks, [link("f", "x"), link("d", "y")]);
        let once = old.clone();
        complete_for_all_clients(&mut old);
        assert_eq!(old, once, "completing twice changes nothing");
    }

    #[test]
    fn bad_results_name_the_field() {
        let function = DigestFunction::Sha256;
        let good = Some(function.digest(b"x").to_wire());
        let cases = [
            (
                ActionResult {
                    output_files: vec![OutputFile {
                        path: "x/../y".into(),
                        digest: good.clone(),
                        ..Default::default()
                    }],
                    ..Default::default()
                },
                "action_result.output_files[0]: path",
            ),
            (
                ActionResult {
                    output_files: vec![OutputFile { path: "x".into(), ..Default::default() }],
                    ..Default::default()
                },
                "action_result.output_files[0].digest: the digest is not set",
            ),
            (
                ActionResult {
                    output_directories: vec![OutputDirectory::default()],
                    ..Default::default()
                },
                "action_result.output_directories[0].tree_digest",
            ),
            (
                ActionResult { output_symlinks: vec![link("/abs", "x")], ..Default::default() },
                "action_result.output_symlinks[0]: path",
            ),
            (
                ActionResult {
                    stdout_digest: Some(reapi::Digest { hash: "x".into(), size_bytes: 1 }),
                    ..Default::default()
                },
                "action_result.stdout_digest: hash",
            ),
        ];
        for (result, part) in cases {
            let error = named_blobs(&result, function).expect_err(part).to_string();
            assert!(error.starts_with(part), "{error:?} does not start with {part:?}");
        }
    }

    #[test]
    fn completing_a_result_of_very_many_links_takes_no_time() {
        let links = (0..50_000).map(|i| link(&format!("out/link{i}"), &format!("dir{i}/file")));
        let files = (0..20_000)
            .map(|i| OutputFile { path: format!("out/dir{i}/file/x"), ..Default::default() });
        let mut result = ActionResult {
            output_symlinks: links.collect(),
            output_files: files.collect(),
            ..Default::default()
        };
        let begun = std::time::Instant::now();
        complete_for_all_clients(&mut result);
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(result.output_directory_symlinks.len(), 20_000);
        assert_eq!(result.output_file_symlinks.len(), 30_000);
    }
}
