//! Lock files that a git leaves which is killed while it writes (`NAME.lock`, beside what it writes): whoever writes the
//! same later fails for as long as they are there.
//!
//! They are removed where nobody can be writing. A git that writes a tree holds the tree's slot as its stdin for as long as it
//! runs, so that whoever has the slot removes them at once. Each other git of ours holds a file of the clone, also where it
//! outlives a runner that was killed; what these leave goes while none of them runs.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::repository::{GitError, Repository};
use super::slots::Slot;

/// What is held, in the clone.
const HELD: &str = "kiln-held";
/// For so long it is waited until no git of ours runs, and how often it is looked.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// Most files that are looked at.
const MAX_SEEN: usize = 200_000;

/// What locks are removed of while no git of ours runs.
#[derive(Clone, Copy, Debug)]
enum Part {
    Heads,
    All,
}

impl Repository {
    fn held(&self) -> Result<File, GitError> {
        let path = self.directory().join(HELD);
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        open.map_err(|source| self.path(&path, source))
    }

    /// The stdin of one git: no locks but those of trees are removed before it has ended.
    pub(super) fn hold(&self) -> Result<File, GitError> {
        let file = self.held()?;
        // Whoever removes locks does so without a pause.
        file.lock_shared().map_err(|source| self.path(self.directory(), source))?;
        Ok(file)
    }

    /// Removes locks of the heads that were fetched: nobody but the queue writes these, checks neither. Answers whether
    /// there were any that were left.
    pub async fn unlock_heads(&self) -> Result<bool, GitError> {
        self.unlock(Part::Heads).await
    }

    /// The same of a slot's tree, at once: whoever writes there has the slot, which the caller has.
    pub(super) fn unlock_tree(&self, slot: &Slot) -> Result<bool, GitError> {
        let mut left = Vec::new();
        // Git names what it keeps of a tree after its directory.
        if let Some(name) = slot.tree.file_name() {
            look(self.directory().join("worktrees").join(name), true, &mut left);
        }
        self.remove_locks(&left)
    }

    /// The same of the whole clone, where no check runs: these may run gits of their own.
    pub async fn unlock_all(&self) -> Result<bool, GitError> {
        self.unlock(Part::All).await
    }

    /// Not where a git of ours goes on for long.
    async fn unlock(&self, part: Part) -> Result<bool, GitError> {
        if self.locks(part).is_empty() {
            return Ok(false);
        }
        let (file, until) = (self.held()?, Instant::now() + PATIENCE);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => {
                    return Err(self.path(self.directory(), source));
                }
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(false),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
            }
        }
        // Those of a git that has ended meanwhile are gone.
        self.remove_locks(&self.locks(part))
    }

    fn remove_locks(&self, left: &[PathBuf]) -> Result<bool, GitError> {
        for path in left {
            std::fs::remove_file(path).map_err(|source| self.path(path, source))?;
            tracing::warn!(lock = %path.display(), "a killed git left this lock: it is removed");
        }
        Ok(!left.is_empty())
    }

    fn locks(&self, part: Part) -> Vec<PathBuf> {
        let at = |name: &str| self.directory().join(name);
        let mut found = Vec::new();
        match part {
            Part::Heads => look(at("refs/kiln"), true, &mut found),
            Part::All => {
                look(self.directory().to_owned(), false, &mut found);
                for name in ["refs", "reftable", "worktrees"] {
                    look(at(name), true, &mut found);
                }
            }
        }
        found
    }
}

/// Locks in a directory and, where `deep`, below it. No name of a ref ends so. Links are not followed, and what cannot be
/// read has none.
fn look(directory: PathBuf, deep: bool, found: &mut Vec<PathBuf>) {
    let (mut open, mut seen) = (vec![directory], 0);
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for entry in entries {
            seen += 1;
            if seen > MAX_SEEN {
                return;
            }
            let Ok(entry) = entry else { continue };
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() && deep {
                open.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|it| it == "lock") {
                found.push(path);
            }
        }
    }
}
