//! Directories in which commits are checked out and checks run. Each is used again and again, so that what a build
//! tool keeps beside its sources stays warm.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::repository::{GitError, LIMIT, Repository, finish, succeeded};
use crate::queue::Commit;

/// Most slots of a lane: those beyond its workers stand in for some that a check of a killed server still uses.
const MAX_SLOTS: usize = 256;

#[derive(Clone, Debug)]
pub struct Slots {
    directory: PathBuf,
}

/// A directory that is this run's alone. The lock is handed on to the check as its stdin, and to all that writes there:
/// while anything is left of these, also after this process was killed, nobody else uses the directory.
#[derive(Debug)]
pub struct Slot {
    pub tree: PathBuf,
    lock: File,
}

impl Slots {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// A slot that nobody uses.
    pub fn take(&self) -> Result<Slot, GitError> {
        std::fs::create_dir_all(&self.directory).map_err(|it| path(&self.directory, it))?;
        for number in 0..MAX_SLOTS {
            if let Some(lock) = lock(&self.lock_of(number))? {
                let tree = self.directory.join(format!("slot-{number}"));
                return Ok(Slot { tree, lock });
            }
        }
        let source =
            std::io::Error::other("checks of a server that was killed still use all slots");
        Err(path(&self.directory, source))
    }

    /// Whether nobody uses any of them, be it what is left of a check of a killed server.
    pub fn are_free(&self) -> Result<bool, GitError> {
        for name in (0..MAX_SLOTS).map(|number| self.lock_of(number)).filter(|it| it.exists()) {
            if lock(&name)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn lock_of(&self, number: usize) -> PathBuf {
        self.directory.join(format!("slot-{number}.lock"))
    }
}

fn path(path: &Path, source: std::io::Error) -> GitError {
    GitError::Path { path: path.to_owned(), source }
}

/// Locks a slot; `None` where somebody else has it.
fn lock(name: &Path) -> Result<Option<File>, GitError> {
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(name);
    let lock = open.map_err(|it| path(name, it))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(path(name, source)),
    }
}

impl Slot {
    pub(super) fn stdin(&self) -> std::io::Result<File> {
        self.lock.try_clone()
    }
}

impl Repository {
    /// Makes a slot's tree a commit, and nothing else. Submodules are left as empty directories.
    pub async fn check_out(&self, slot: &Slot, commit: &Commit) -> Result<(), GitError> {
        // What a git that was killed with its check has left there.
        self.unlock_tree(slot)?;
        if self.refresh(slot, commit).await.is_ok() {
            return Ok(());
        }
        // What a crash left of it, or what somebody made of it, goes.
        if slot.tree.symlink_metadata().is_ok() {
            let removed = tokio::fs::remove_dir_all(&slot.tree).await;
            removed.map_err(|it| self.path(&slot.tree, it))?;
        }
        self.git(["worktree", "prune"]).await?;
        let tree = slot.tree.to_string_lossy().into_owned();
        let arguments = [
            "worktree",
            "add",
            "--force",
            "--force",
            "--detach",
            "--quiet",
            "--",
            &tree,
            commit.as_str(),
        ];
        self.write_tree(slot, None, &arguments).await.map(drop)
    }

    /// Git that writes a slot's tree, in `tree` or in the clone. It holds the slot for as long as it runs.
    pub(super) async fn write_tree(
        &self,
        slot: &Slot,
        tree: Option<&Path>,
        arguments: &[&str],
    ) -> Result<Vec<u8>, GitError> {
        let mut command = self.command(tree)?;
        let stdin = slot.stdin().map_err(|source| self.path(&slot.tree, source))?;
        command.stdin(Stdio::from(stdin));
        let ran = finish(command, arguments, LIMIT).await?;
        succeeded(arguments.first().copied().unwrap_or_default(), ran)
    }

    async fn refresh(&self, slot: &Slot, commit: &Commit) -> Result<(), GitError> {
        if !slot.tree.join(".git").is_file() {
            return Err(GitError::Odd(slot.tree.display().to_string()));
        }
        let tree = Some(slot.tree.as_path());
        let checkout = ["checkout", "--force", "--detach", "--quiet", commit.as_str(), "--"];
        self.write_tree(slot, tree, &checkout).await?;
        self.write_tree(slot, tree, &["clean", "-ffdxq"]).await?;
        self.empty_submodules(slot).await?;
        let at = self.git_in(tree, &["rev-parse", "HEAD"]).await?;
        match String::from_utf8_lossy(&at).trim() == commit.as_str() {
            true => Ok(()),
            false => Err(GitError::Odd(String::from_utf8_lossy(&at).into_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rig, branch, fetched};

    /// A git that outlives its runner would otherwise write into the tree that another check has by then.
    #[tokio::test]
    async fn a_git_that_writes_a_tree_holds_its_slot() {
        let rig = Rig::new();
        let repository = rig.open().await;
        let base = fetched(&repository, &["main"]).await[&branch("main")].clone();
        let slot = rig.slots().take().unwrap();
        repository.check_out(&slot, &base).await.unwrap();
        let says = ["-c", "alias.held=!readlink /proc/self/fd/0", "held"];
        let held = repository.write_tree(&slot, Some(&slot.tree), &says).await.unwrap();
        assert!(held.ends_with(b"/slot-0.lock\n"), "{}", String::from_utf8_lossy(&held));
    }
}
