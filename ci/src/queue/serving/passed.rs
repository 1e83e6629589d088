//! Commits of which this runner itself saw the check pass, or found each target as it is in such ones or was on the branch
//! that changes land on, on disk: it pushes nothing else. That a lane says so is no proof where a server keeps it: whoever
//! has the runner's token, or the server, could say it of any commit.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::queue::Commit;
use crate::queue::git::GitError;

/// Most commits that are known. What was forgotten, or passed on another machine, is tested again.
const MAX_PASSED: usize = 1_000;

/// Clones are the same.
#[derive(Clone)]
pub struct Passed {
    path: PathBuf,
    /// Commits with their trees, the newest last.
    known: Arc<Mutex<VecDeque<(Commit, String)>>>,
}

impl Passed {
    /// A line that is not understood is as if it were not there.
    pub fn read(path: PathBuf) -> Result<Self, GitError> {
        let text = match std::fs::read(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(source) => return Err(GitError::Path { path, source }),
        };
        let line = |line: &str| {
            let (commit, tree) = line.split_once(' ')?;
            Some((Commit::new(commit).ok()?, tree.to_owned()))
        };
        let known: VecDeque<_> = text.lines().filter_map(line).collect();
        Ok(Self { path, known: Arc::new(Mutex::new(known)) })
    }

    pub fn knows(&self, commit: &Commit, tree: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().any(|(one, of)| one == commit && of == tree)
    }

    /// It is on disk when this returns; an error means that nobody knows.
    pub fn note(&self, commit: &Commit, tree: &str) -> Result<(), GitError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = known.clone();
        new.retain(|(one, _)| one != commit);
        new.push_back((commit.clone(), tree.to_owned()));
        drop(new.drain(..new.len().saturating_sub(MAX_PASSED)));
        let text: String = new.iter().map(|(commit, tree)| format!("{commit} {tree}\n")).collect();
        write(&self.path, text.as_bytes())
            .map_err(|source| GitError::Path { path: self.path.clone(), source })?;
        *known = new;
        Ok(())
    }
}

/// As a whole or not at all, also where the machine stops.
fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(number: usize) -> Commit {
        Commit::new(&format!("{number:040x}")).unwrap()
    }

    #[test]
    fn what_passed_is_known_to_the_next_one_with_its_tree_and_so_many_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passed");
        let read = || Passed::read(path.clone()).unwrap();
        assert!(!read().knows(&commit(1), "a"), "nothing is there yet");
        let full: String = (0..MAX_PASSED).map(|it| format!("{} a\n", commit(it))).collect();
        std::fs::write(&path, full).unwrap();
        assert!(read().knows(&commit(0), "a"));
        read().note(&commit(MAX_PASSED), "a").unwrap();
        let passed = read();
        assert!(passed.knows(&commit(1), "a") && passed.knows(&commit(MAX_PASSED), "a"));
        assert!(!passed.knows(&commit(0), "a"), "the oldest is forgotten");
        assert!(!passed.knows(&commit(1), "b"), "another tree is another thing");
        std::fs::write(&path, format!("nonsense\n{} a\n{}", commit(7), commit(8))).unwrap();
        assert!(read().knows(&commit(7), "a") && !read().knows(&commit(8), ""));
        let nowhere = Passed::read(directory.path().join("gone/passed")).unwrap();
        assert!(nowhere.note(&commit(1), "a").is_err());
        assert!(!nowhere.knows(&commit(1), "a"), "what is not on disk is not known");
    }
}
