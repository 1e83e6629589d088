//! Finds what the targets of commits are made from: in a kept snapshot, or by asking the build
//! tool.

use std::io;
use std::path::Path;

use kiln_ci::impact::{Hasher, Snapshot};
use kiln_net::causes::chain;
use thiserror::Error;

use super::content;
use super::git::{Commit, Git};
use super::kept::{Kept, Turn};
use super::place;
use super::process::ProcessError;
use super::tool::{Tool, ToolError};
use crate::cli::error::CliError;
use crate::cli::say::say;

#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error("{what} cannot be checked out: {}", chain(.source))]
    CheckOut { what: String, source: ProcessError },
    #[error("git: {}", chain(.0))]
    Git(#[from] ProcessError),
    #[error("the targets of {what} cannot be loaded: {}", chain(.source))]
    Targets { what: String, source: ToolError },
    #[error("a source file of {what} cannot be read: {source}")]
    Content { what: String, source: io::Error },
    #[error("the directory of checked-out commits: {0}")]
    Directory(io::Error),
}

pub struct Found {
    pub snapshot: Snapshot,
    /// Whether the snapshot was kept, so that the build tool was not asked.
    pub kept: bool,
}

pub struct Snapshots {
    git: Git,
    tool: Tool,
    kept: Kept,
    common: Vec<String>,
}

impl Snapshots {
    pub async fn open(
        git: Git,
        tool: Tool,
        directory: Option<&Path>,
        common: Vec<String>,
    ) -> Result<Self, CliError> {
        let directory = place::directory(&git, directory, place::cache_home())?;
        let kept = Kept::open(&directory).map_err(|error| {
            CliError::machine(format!("cannot use {}: {error}", directory.display()))
                .hint("choose another place with --cache-dir")
        })?;
        Ok(Self { git, tool, kept, common })
    }

    fn key(&self, commit: &Commit) -> String {
        let mut hasher = Hasher::new("question");
        for part in self.tool.question() {
            hasher.text(part);
        }
        hasher.bytes(self.git.prefix.as_os_str().as_encoded_bytes());
        self.common.iter().for_each(|path| {
            hasher.text(path);
        });
        format!("{}-{}", commit.tree, hasher.finish())
    }

    /// The snapshot of a commit.
    pub async fn of(&self, commit: &Commit) -> Result<Found, SnapshotError> {
        let key = self.key(commit);
        if let Some(snapshot) = self.kept.load(&key) {
            return Ok(Found { snapshot, kept: true });
        }
        // The user's own tree is the quickest where it has the same files: its packages are loaded.
        let head = self.git.clean_head().await?;
        let snapshot = if head.is_some_and(|head| head.tree == commit.tree) {
            self.ask(&self.git.workspace, false, commit.short()).await?
        } else {
            let turn = self.turn().await?;
            let tree = self.kept.work_tree();
            let workspace = self.git.check_out(&tree, &turn, commit).await;
            let workspace = workspace.map_err(|source| SnapshotError::CheckOut {
                what: commit.short().to_owned(),
                source,
            })?;
            self.ask(&workspace, true, commit.short()).await?
        };
        if let Err(error) = self.kept.store(&key, &snapshot) {
            say(&format!(
                "warning: what commit {} is made from cannot be kept: {error}",
                commit.short()
            ));
        }
        Ok(Found { snapshot, kept: false })
    }

    /// The snapshot of the working tree as it is.
    pub async fn here(&self) -> Result<Found, SnapshotError> {
        if let Some(commit) = self.git.clean_head().await? {
            return self.of(&commit).await;
        }
        let snapshot = self.ask(&self.git.workspace, false, "the working tree").await?;
        Ok(Found { snapshot, kept: false })
    }

    async fn turn(&self) -> Result<Turn, SnapshotError> {
        // In place: the lock is waited for only where another one of these commands runs.
        self.kept.turn().map_err(SnapshotError::Directory)
    }

    async fn ask(
        &self,
        workspace: &Path,
        alone: bool,
        what: &str,
    ) -> Result<Snapshot, SnapshotError> {
        say(&format!("asking {} for the targets of {what}", self.tool.version));
        let graph = self.tool.targets(workspace, alone).await;
        let graph =
            graph.map_err(|source| SnapshotError::Targets { what: what.to_owned(), source })?;
        let mut common = self.tool.common(workspace);
        common.extend(self.common.iter().cloned());
        // What is not the repository's (a user's own .bazelrc) differs from tree to tree.
        let common = self.git.tracked(workspace, &common).await?;
        for named in self.common.iter().filter(|it| !common.contains(it)) {
            say(&format!("warning: {what} has no file {named} (--common)"));
        }
        let failed = |source| SnapshotError::Content { what: what.to_owned(), source };
        let common = content::of_common(workspace, &common).map_err(failed)?;
        let content = content::of_sources(&graph, workspace).map_err(failed)?;
        Ok(Snapshot::new(&graph, common, &content))
    }
}
