//! The repository that a workspace is in, by git's command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_net::causes::chain;

use super::process::{ProcessError, ask};
use crate::cli::error::CliError;

/// How long one of git's commands may take: a checkout of a large repository is the longest.
const LIMIT: Duration = Duration::from_secs(600);

pub struct Git {
    /// The workspace.
    pub workspace: PathBuf,
    /// The workspace's path within the repository, empty or with a slash at its end.
    pub prefix: PathBuf,
    /// The directory that all work trees share.
    pub common: PathBuf,
}

/// A commit's full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit(pub String);

impl Commit {
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

fn line(output: Vec<u8>) -> OsString {
    let mut output = output;
    while output.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        output.pop();
    }
    OsString::from_vec(output)
}

async fn git(directory: &Path, arguments: &[&str]) -> Result<Vec<u8>, ProcessError> {
    // What a hook's surroundings say about another repository is not meant.
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    ask(Path::new("git"), &arguments, directory, LIMIT).await
}

impl Git {
    pub async fn open(workspace: &Path) -> Result<Self, CliError> {
        let failed = |error: ProcessError| {
            CliError::usage(format!(
                "{} is in no git repository: {}",
                workspace.display(),
                chain(&error)
            ))
        };
        let prefix = git(workspace, &["rev-parse", "--show-prefix"]).await.map_err(failed)?;
        let common = git(workspace, &["rev-parse", "--git-common-dir"]).await.map_err(failed)?;
        let common = workspace.join(PathBuf::from(line(common)));
        Ok(Self { workspace: workspace.to_owned(), prefix: line(prefix).into(), common })
    }

    pub async fn commit(&self, name: &str) -> Result<Commit, CliError> {
        let revision = format!("{name}^{{commit}}");
        let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &revision];
        let found = git(&self.workspace, &arguments).await.map_err(|_| {
            CliError::usage(format!("git knows no commit {name:?}")).hint(
                "a shallow clone lacks older commits: git fetch --deepen=100, or fetch the branch",
            )
        })?;
        Ok(Commit(line(found).to_string_lossy().into_owned()))
    }

    /// The commit that the working tree is, if nothing in it differs.
    pub async fn clean_head(&self) -> Result<Option<Commit>, ProcessError> {
        if !git(&self.workspace, &["status", "--porcelain", "-z"]).await?.is_empty() {
            return Ok(None);
        }
        let head = git(&self.workspace, &["rev-parse", "HEAD"]).await?;
        Ok(Some(Commit(line(head).to_string_lossy().into_owned())))
    }

    /// Which of these paths of a work tree are the repository's.
    pub async fn tracked(
        &self,
        tree: &Path,
        paths: &[String],
    ) -> Result<Vec<String>, ProcessError> {
        let mut arguments = vec!["ls-files", "-z", "--"];
        let literal: Vec<_> = paths.iter().map(|path| format!(":(literal){path}")).collect();
        arguments.extend(literal.iter().map(String::as_str));
        let found = git(tree, &arguments).await?;
        let names = found.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    /// Makes the work tree at `tree` a commit, with its submodules. Returns the workspace in it.
    pub async fn check_out(&self, tree: &Path, commit: &Commit) -> Result<PathBuf, ProcessError> {
        let path = tree.to_string_lossy();
        if git(tree, &["rev-parse", "--is-inside-work-tree"]).await.is_err()
            || !tree.join(".git").exists()
        {
            // One that was removed by hand is still known to the repository.
            git(&self.workspace, &["worktree", "prune"]).await?;
            let arguments = ["worktree", "add", "--force", "--detach", "--quiet", &path, &commit.0];
            git(&self.workspace, &arguments).await?;
        } else {
            git(tree, &["checkout", "--force", "--detach", "--quiet", &commit.0]).await?;
            git(tree, &["clean", "-ffdxq"]).await?;
        }
        if tree.join(".gitmodules").exists() {
            git(tree, &["submodule", "update", "--init", "--recursive", "--force", "--quiet"])
                .await?;
        }
        Ok(tree.join(&self.prefix))
    }
}
