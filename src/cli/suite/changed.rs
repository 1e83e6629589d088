//! Finds the tests that a change edits: those of whose own sources it changes one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueHint};

use super::files::{open, shown};
use crate::cli::error::CliError;
use crate::cli::impact::process::ask;
use crate::cli::impact::tool;
use crate::cli::say::say;

/// How long git and the build tool may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of a list of files.
const MAX_LIST: u64 = 64 << 20;
/// Tests of which the build tool is asked for sources at once.
const MAX_ASKED: usize = 200;

#[derive(Debug, Args)]
pub struct ChangedOptions {
    /// The commit that the change is based on: what differs from it is what the change edits
    #[arg(long, value_name = "COMMIT", value_hint = ValueHint::Other, conflicts_with = "changed_files")]
    base: Option<String>,

    /// Files that the change edits, one a line, from the root of the workspace (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    changed_files: Option<PathBuf>,
}

/// The files that a change edits, by path from the root of the workspace.
#[derive(Debug, Default)]
pub struct Changed {
    files: BTreeSet<String>,
    /// Bazel, with its startup options.
    bazel: Vec<OsString>,
}

impl Changed {
    pub async fn read(options: &ChangedOptions, bazel: &[OsString]) -> Result<Self, CliError> {
        let text = match (&options.base, &options.changed_files) {
            (Some(base), _) => differing(base).await?,
            (None, Some(path)) => listed(path)?,
            (None, None) => String::new(),
        };
        let files = text.lines().map(|it| it.trim().trim_start_matches("./"));
        let files = files.filter(|it| !it.is_empty()).map(str::to_owned).collect();
        Ok(Self { files, bazel: bazel.to_owned() })
    }

    pub fn any(&self) -> bool {
        !self.files.is_empty()
    }

    /// The tests among these that the change edits. Where the build tool does not say what a test's
    /// sources are, or that it has none, a test counts as edited when anything in its package is: that
    /// masks less, never more.
    pub async fn edited(&self, labels: &[String]) -> Vec<String> {
        let unique: BTreeSet<&String> = labels.iter().collect();
        let mut edited = Vec::new();
        for (asked, label) in unique.into_iter().enumerate() {
            let sources = match asked < MAX_ASKED {
                true => self.sources(label).await,
                false => None,
            };
            let is_edited = match sources {
                Some(sources) if !sources.is_empty() => {
                    sources.iter().any(|it| self.files.contains(it))
                }
                // What a macro wraps is named in ways of its own.
                Some(_) | None => self.edits_package(label),
            };
            if is_edited {
                edited.push(label.clone());
            }
        }
        edited
    }

    /// The paths of a test's own sources; `None`: the build tool does not say.
    async fn sources(&self, label: &str) -> Option<Vec<String>> {
        // What is no plain label could mean something else to the build tool.
        if !label.starts_with("//") && !label.starts_with('@') || label.contains(['"', '\\', ' ']) {
            return None;
        }
        let query = sources_of(label);
        let question = ["query", "--output=label", "--noshow_progress", &query];
        let (bazel, startup) = self.bazel.split_first()?;
        let arguments: Vec<OsString> =
            startup.iter().cloned().chain(question.map(OsString::from)).collect();
        let answer = ask(Path::new(bazel), &arguments, Path::new("."), LIMIT).await;
        let answer = answer.inspect_err(|error| {
            say(&format!("warning: the sources of {label} are not known: {error}"));
        });
        let text = String::from_utf8(answer.ok()?).ok()?;
        Some(text.lines().filter_map(path_of).collect())
    }

    fn edits_package(&self, label: &str) -> bool {
        let Some((_, rest)) = label.split_once("//") else {
            return true;
        };
        let package = rest.split(':').next().unwrap_or_default();
        let prefix = if package.is_empty() { String::new() } else { format!("{package}/") };
        self.files.iter().any(|it| it.starts_with(&prefix))
    }
}

/// The question for a test's own sources: also those behind groups of files and generated ones, and those of the crate of
/// which a test of Rust tests what is in it.
fn sources_of(label: &str) -> String {
    let own = format!("labels(srcs, \"{label}\" + labels(crate, \"{label}\"))");
    format!("kind('source file', deps({own}))")
}

/// `//a/b:c/d.cc` is `a/b/c/d.cc`; what is of another repository is none of the workspace's files.
fn path_of(label: &str) -> Option<String> {
    let rest = label.trim().trim_start_matches('@').strip_prefix("//")?;
    let (package, name) = rest.split_once(':')?;
    Some(if package.is_empty() { name.to_owned() } else { format!("{package}/{name}") })
}

/// Files of the workspace of which the working tree differs from where it left a commit.
async fn differing(base: &str) -> Result<String, CliError> {
    let range = format!("{base}^{{commit}}");
    let here = std::env::current_dir().map_err(|error| CliError::of_machine(&error))?;
    // Where Bazel would look for it; elsewhere a list of tests is of the directory itself.
    let root = tool::workspace(&here).map_or(here, |(root, _)| root);
    let git = |arguments: &[&str]| {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let root = root.clone();
        async move { ask(Path::new("git"), &arguments, &root, LIMIT).await }
    };
    let failed = |error| {
        CliError::usage(format!("git cannot say what differs from {base:?}: {error}")).hint(
            "a shallow clone lacks older commits: git fetch --deepen=100, or give --changed-files",
        )
    };
    let fork = git(&["merge-base", "--end-of-options", &range, "HEAD"]).await.map_err(failed)?;
    let fork = String::from_utf8_lossy(&fork).trim().to_owned();
    let mut names =
        git(&["diff", "-z", "--name-only", "--relative", &fork]).await.map_err(failed)?;
    let fresh = git(&["ls-files", "-z", "--others", "--exclude-standard"]).await;
    names.extend(fresh.map_err(failed)?);
    Ok(String::from_utf8_lossy(&names).replace('\0', "\n"))
}

fn listed(path: &Path) -> Result<String, CliError> {
    let failed = |why: String| CliError::usage(format!("cannot read {}: {why}", shown(path)));
    let mut list = String::new();
    let read = open(path)?.take(MAX_LIST + 1).read_to_string(&mut list);
    read.map_err(|error| failed(error.to_string()))?;
    match list.len() as u64 > MAX_LIST {
        true => Err(failed(format!("it has more than {MAX_LIST} bytes"))),
        false => Ok(list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(files: &[&str]) -> Changed {
        let files = files.iter().map(|it| (*it).to_owned()).collect();
        Changed { files, bazel: vec!["/nowhere/bazel".into()] }
    }

    #[tokio::test]
    async fn without_the_build_tool_a_package_is_edited_as_a_whole() {
        let labels = ["//a:t", "//b:t", "suite"].map(str::to_owned);
        assert_eq!(changed(&["a/x.py"]).edited(&labels).await, ["//a:t", "suite"]);
        let root = ["//:t".to_owned()];
        assert_eq!(changed(&["x.py"]).edited(&root).await, root);
        assert!(!changed(&[]).any());
    }

    #[tokio::test]
    async fn sources_are_those_that_the_build_tool_names_and_without_any_the_package_counts() {
        let directory = tempfile::tempdir().unwrap();
        let bazel = directory.path().join("bazel");
        std::fs::write(&bazel, "case \"$*\" in *//a:t*) echo //a:cases/t.sh ;; esac").unwrap();
        let of = |files: &[&str]| Changed {
            bazel: vec!["sh".into(), bazel.clone().into()],
            ..changed(files)
        };
        let labels = ["//a:t", "//a:wrapped"].map(str::to_owned);
        assert_eq!(of(&["a/cases/t.sh"]).edited(&labels).await, labels);
        assert_eq!(of(&["a/other.sh"]).edited(&labels).await, ["//a:wrapped"]);
        assert_eq!(of(&["b/other.sh"]).edited(&labels).await, [""; 0]);
    }

    #[test]
    fn labels_of_sources_are_paths() {
        assert_eq!(path_of("//a/b:c/d.cc").as_deref(), Some("a/b/c/d.cc"));
        assert_eq!(path_of("@@//:x.py").as_deref(), Some("x.py"));
        assert_eq!(path_of("@other//a:b"), None);
    }
}
