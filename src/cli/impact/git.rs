//! The repository that a workspace is in, by git's command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_net::causes::chain;

use super::kept::Turn;
use super::process::{ProcessError, ask, ask_holding};
use crate::cli::error::CliError;

/// How long one of git's commands may take: a checkout of a large repository is the longest.
const LIMIT: Duration = Duration::from_secs(600);
/// The name of a work tree that is being removed, beside the others.
const REMOVED: &str = "tree-removed";

pub struct Git {
    /// The directory of the workspace.
    pub workspace: PathBuf,
    /// The workspace's path within the repository, empty or with a slash at its end.
    pub prefix: PathBuf,
    /// The directory that all work trees share.
    pub common: PathBuf,
}

/// A commit and its tree, by their full names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub name: String,
    /// The files of the commit, submodules' commits included: two commits with one tree have the same targets.
    pub tree: String,
}

impl Commit {
    pub fn short(&self) -> &str {
        self.name.get(..12).unwrap_or(&self.name)
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
            .hint("run it in a workspace that is a clone of a git repository")
        };
        let prefix = git(workspace, &["rev-parse", "--show-prefix"]).await.map_err(failed)?;
        let common = git(workspace, &["rev-parse", "--git-common-dir"]).await.map_err(failed)?;
        let common = workspace.join(PathBuf::from(line(common)));
        Ok(Self { workspace: workspace.to_owned(), prefix: line(prefix).into(), common })
    }

    pub async fn commit(&self, name: &str) -> Result<Commit, CliError> {
        self.find(name).await.map_err(|_| {
            CliError::usage(format!("git knows no commit {name:?}")).hint(
                "a shallow clone lacks older commits: git fetch --deepen=100, or fetch the branch",
            )
        })
    }

    async fn find(&self, revision: &str) -> Result<Commit, ProcessError> {
        let name = self.parse(&format!("{revision}^{{commit}}")).await?;
        let tree = self.parse(&format!("{name}^{{tree}}")).await?;
        Ok(Commit { name, tree })
    }

    /// The full name of the one object that a revision leads to.
    async fn parse(&self, revision: &str) -> Result<String, ProcessError> {
        let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", revision];
        let found = git(&self.workspace, &arguments).await?;
        Ok(line(found).to_string_lossy().into_owned())
    }

    /// The commit that the working tree is, if nothing in it differs.
    pub async fn clean_head(&self) -> Result<Option<Commit>, ProcessError> {
        // Users may have configured that they want to see neither new files nor changed submodules.
        let all = ["--untracked-files=normal", "--ignore-submodules=none"];
        let words = [&["status", "--porcelain", "-z"][..], &all].concat();
        if !git(&self.workspace, &words).await?.is_empty() {
            return Ok(None);
        }
        self.find("HEAD").await.map(Some)
    }

    /// The paths among these that the repository tracks in a work tree.
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
    pub async fn check_out(
        &self,
        tree: &Path,
        turn: &Turn,
        commit: &Commit,
    ) -> Result<PathBuf, ProcessError> {
        let updated = match tree.join(".git").is_file() {
            true => Some(update(tree, turn, commit).await),
            false => None,
        };
        match updated {
            // A git that was killed leaves locks, halves of trees and of submodules: no other one goes on with these.
            None | Some(Err(ProcessError::Failed { .. })) => self.make(tree, turn, commit).await?,
            Some(done) => done?,
        }
        Ok(tree.join(&self.prefix))
    }

    /// Makes the work tree anew at this commit.
    async fn make(&self, tree: &Path, turn: &Turn, commit: &Commit) -> Result<(), ProcessError> {
        remove(tree);
        // One that was removed is still known to the repository.
        git(&self.workspace, &["worktree", "prune"]).await?;
        let path = tree.to_string_lossy();
        // Twice: one whose making was cut off is locked.
        let arguments =
            ["worktree", "add", "--force", "--force", "--detach", "--quiet", &path, &commit.name];
        write(&self.workspace, turn, &arguments).await?;
        submodules(tree, turn).await
    }
}

/// Runs a git command that writes the work tree. It holds the turn for as long as it runs.
async fn write(directory: &Path, turn: &Turn, arguments: &[&str]) -> Result<Vec<u8>, ProcessError> {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let held = turn.share();
    let held = held.map_err(|source| ProcessError::Start { program: "git".to_owned(), source })?;
    ask_holding(Path::new("git"), &arguments, directory, LIMIT, held).await
}

async fn update(tree: &Path, turn: &Turn, commit: &Commit) -> Result<(), ProcessError> {
    write(tree, turn, &["checkout", "--force", "--detach", "--quiet", &commit.name]).await?;
    write(tree, turn, &["clean", "-ffdxq"]).await?;
    submodules(tree, turn).await
}

async fn submodules(tree: &Path, turn: &Turn) -> Result<(), ProcessError> {
    if !tree.join(".gitmodules").exists() {
        return Ok(());
    }
    let arguments = ["submodule", "update", "--init", "--recursive", "--force", "--quiet"];
    write(tree, turn, &arguments).await.map(drop)
}

/// Removes a work tree, so that none is there of which only a part is gone. What stays is in the way of git, which says so.
fn remove(tree: &Path) {
    let removed = tree.with_file_name(REMOVED);
    std::fs::remove_dir_all(&removed).ok();
    if tree.join(".git").is_file() && std::fs::rename(tree, &removed).is_ok() {
        std::fs::remove_dir_all(&removed).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, read, read_to_string};
    use std::process::Command;
    use std::time::SystemTime;

    use super::super::kept::Kept;
    use super::*;

    struct Rig {
        directory: tempfile::TempDir,
        git: Git,
    }

    impl Rig {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let workspace = directory.path().join("repository");
            std::fs::create_dir(&workspace).unwrap();
            run(&workspace, &["init", "--quiet"]);
            commit(&workspace, "1");
            let git = Git::open(&workspace).await.map_err(|error| error.message).unwrap();
            Self { directory, git }
        }

        fn kept(&self) -> Kept {
            Kept::open(&self.directory.path().join("kept")).unwrap()
        }

        async fn head(&self) -> Commit {
            self.git.commit("HEAD").await.map_err(|error| error.message).unwrap()
        }
    }

    fn run(workspace: &Path, arguments: &[&str]) {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]);
        git.args(["-c", "commit.gpgSign=false"]).args(arguments).current_dir(workspace);
        assert!(git.status().unwrap().success(), "{arguments:?}");
    }

    fn commit(workspace: &Path, text: &str) {
        std::fs::write(workspace.join("file"), text).unwrap();
        run(workspace, &["add", "file"]);
        run(workspace, &["commit", "--quiet", "-m", text]);
    }

    #[tokio::test]
    async fn what_a_killed_git_has_left_is_in_the_way_of_no_other_one() {
        let rig = Rig::new().await;
        let one = rig.head().await;
        commit(&rig.git.workspace, "2");
        let two = rig.head().await;
        let (tree, turn) = (rig.kept().work_tree(), rig.kept().turn().unwrap());
        let text = || read_to_string(tree.join("file")).unwrap();
        rig.git.check_out(&tree, &turn, &one).await.unwrap();
        assert_eq!(text(), "1");
        let left = rig.git.common.join("worktrees/tree");
        std::fs::write(left.join("index.lock"), "").unwrap();
        rig.git.check_out(&tree, &turn, &two).await.unwrap();
        assert_eq!(text(), "2");
        // As git says while it makes one.
        std::fs::write(left.join("locked"), "initializing").unwrap();
        std::fs::write(left.join("index.lock"), "").unwrap();
        rig.git.check_out(&tree, &turn, &one).await.unwrap();
        assert_eq!(text(), "1");
        assert!(!tree.with_file_name(REMOVED).exists());
    }

    #[tokio::test]
    async fn a_git_that_writes_the_tree_holds_its_turn() {
        let rig = Rig::new().await;
        let turn = rig.kept().turn().unwrap();
        let says = ["-c", "alias.held=!readlink /proc/self/fd/0", "held"];
        let held = write(&rig.git.workspace, &turn, &says).await.unwrap();
        assert!(held.ends_with(b"/kept/lock\n"), "{}", String::from_utf8_lossy(&held));
    }

    #[tokio::test]
    async fn commits_of_the_same_files_have_one_tree() {
        let rig = Rig::new().await;
        let one = rig.head().await;
        run(&rig.git.workspace, &["commit", "--quiet", "--allow-empty", "-m", "nothing"]);
        let same = rig.head().await;
        assert!(same.name != one.name && same.tree == one.tree, "{one:?} {same:?}");
        commit(&rig.git.workspace, "2");
        assert_ne!(rig.head().await.tree, one.tree);
    }

    /// What is not a commit's is not to be kept as what the commit is made from.
    #[tokio::test]
    async fn a_new_file_counts_also_where_users_do_not_want_to_see_it() {
        let rig = Rig::new().await;
        run(&rig.git.workspace, &["config", "status.showUntrackedFiles", "no"]);
        assert_eq!(rig.git.clean_head().await.unwrap(), Some(rig.head().await));
        std::fs::write(rig.git.workspace.join("new"), "").unwrap();
        assert_eq!(rig.git.clean_head().await.unwrap(), None);
    }

    /// Looking at a user's tree must not refresh git's index: git would hold a lock there, which
    /// stays where it is killed.
    #[tokio::test]
    async fn whoever_looks_at_a_users_tree_writes_nothing_there() {
        let rig = Rig::new().await;
        let workspace = &rig.git.workspace;
        let file = File::options().write(true).open(workspace.join("file")).unwrap();
        // Git finds the file the same, and would note its time.
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
        let index = || read(workspace.join(".git/index")).unwrap();
        let before = index();
        assert_eq!(rig.git.clean_head().await.unwrap(), Some(rig.head().await));
        assert!(index() == before, "the index was written");
    }
}
