//! Commits of which this runner itself saw the check pass, or found each target as it is in such ones or was on the branch
//! that changes land on, on disk: it pushes nothing else. That a lane says so is no proof where a server keeps it: whoever
//! has the runner's token, or the server, could say it of any commit. Nor is it one under another check.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::queue::git::{Check, GitError};
use crate::queue::{Branch, Commit};

/// Most commits that are known. What was forgotten, or passed on another machine, is tested again.
const MAX_PASSED: usize = 1_000;

/// By what something passes: 32 hexadecimal digits of a hash of the target, the check, and the command by which trees are
/// compared, where what passed counts by that. How long a check may take and what its failures count is not in it, nor
/// the values of the variables that it sees: some are secrets, which change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure(String);

impl Measure {
    /// `compares`: nothing where a pass counts for the commit alone.
    pub fn of(target: &Branch, check: &Check, compares: Option<&Check>) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("kiln 2026 by what a commit passes");
        part(&mut hash, target.as_str());
        for it in std::iter::once(check).chain(compares) {
            part(&mut hash, &it.command);
            let names: BTreeSet<&str> = it.env.iter().map(String::as_str).collect();
            hash.update(&(names.len() as u64).to_le_bytes());
            names.into_iter().for_each(|name| part(&mut hash, name));
        }
        Self(hash.finalize().to_hex()[..32].to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn part(hash: &mut blake3::Hasher, text: &str) {
    hash.update(&(text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

/// A commit with its tree, and by what it passed.
#[derive(Clone, PartialEq, Eq)]
struct Known {
    commit: Commit,
    tree: String,
    measure: String,
}

impl Known {
    /// A line of the file.
    fn read(line: &str) -> Option<Self> {
        let (commit, rest) = line.split_once(' ')?;
        let (tree, measure) = rest.split_once(' ')?;
        let commit = Commit::new(commit).ok()?;
        Some(Self { commit, tree: tree.to_owned(), measure: measure.to_owned() })
    }
}

/// Clones are the same.
#[derive(Clone)]
pub struct Passed {
    path: PathBuf,
    /// The check by which commits pass now.
    measure: Measure,
    /// Commits that passed, the newest last.
    known: Arc<Mutex<VecDeque<Known>>>,
}

impl Passed {
    /// A line that is not understood is as if it were not there.
    pub fn read(path: PathBuf, measure: Measure) -> Result<Self, GitError> {
        let text = match std::fs::read(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(source) => return Err(GitError::Path { path, source }),
        };
        let known: VecDeque<_> = text.lines().filter_map(Known::read).collect();
        Ok(Self { path, measure, known: Arc::new(Mutex::new(known)) })
    }

    fn one(&self, commit: &Commit, tree: &str) -> Known {
        let measure = self.measure.as_str().to_owned();
        Known { commit: commit.clone(), tree: tree.to_owned(), measure }
    }

    pub fn knows(&self, commit: &Commit, tree: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&self.one(commit, tree))
    }

    /// Notes that a commit passed. That is on disk when this returns; an error means that nobody knows.
    pub fn note(&self, commit: &Commit, tree: &str) -> Result<(), GitError> {
        let one = self.one(commit, tree);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = known.clone();
        new.retain(|it| *it != one);
        new.push_back(one);
        drop(new.drain(..new.len().saturating_sub(MAX_PASSED)));
        let line = |it: &Known| format!("{} {} {}\n", it.commit, it.tree, it.measure);
        let text: String = new.iter().map(line).collect();
        write(&self.path, text.as_bytes())
            .map_err(|source| GitError::Path { path: self.path.clone(), source })?;
        *known = new;
        Ok(())
    }
}

/// Writes a file as a whole or not at all, also where the machine stops.
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

    fn measure(target: &str, command: &str, env: &[&str], compares: Option<&str>) -> Measure {
        let env: Vec<_> = env.iter().map(|it| (*it).to_owned()).collect();
        let check = |command: &str| {
            let (command, env) = (command.to_owned(), env.clone());
            Check { command, limit_s: 60, env, proven: false }
        };
        let (target, compares) = (Branch::new(target).unwrap(), compares.map(check));
        Measure::of(&target, &check(command), compares.as_ref())
    }

    #[test]
    fn what_passed_is_known_to_the_next_one_with_its_tree_and_so_many_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passed");
        let by = measure("main", "true", &[], None);
        let read = || Passed::read(path.clone(), by.clone()).unwrap();
        let line = |number: usize| format!("{} a {}\n", commit(number), by.as_str());
        assert!(!read().knows(&commit(1), "a"), "nothing is there yet");
        let full: String = (0..MAX_PASSED).map(line).collect();
        std::fs::write(&path, full).unwrap();
        assert!(read().knows(&commit(0), "a"));
        read().note(&commit(MAX_PASSED), "a").unwrap();
        let passed = read();
        assert!(passed.knows(&commit(1), "a") && passed.knows(&commit(MAX_PASSED), "a"));
        assert!(!passed.knows(&commit(0), "a"), "the oldest is forgotten");
        assert!(!passed.knows(&commit(1), "b"), "another tree is another thing");
        let text = format!("nonsense\n{}{} a\n{}", line(7), commit(8), commit(9));
        std::fs::write(&path, text).unwrap();
        assert!(read().knows(&commit(7), "a"));
        assert!(!read().knows(&commit(8), "a"), "nobody says by what it passed");
        assert!(!read().knows(&commit(9), ""));
        let nowhere = Passed::read(directory.path().join("gone/passed"), by.clone()).unwrap();
        assert!(nowhere.note(&commit(1), "a").is_err());
        assert!(!nowhere.knows(&commit(1), "a"), "what is not on disk is not known");
    }

    #[test]
    fn what_passed_by_one_check_is_not_known_by_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let read = |by: Measure| Passed::read(directory.path().join("passed"), by).unwrap();
        let first = || measure("main", "make test", &["A", "B"], None);
        read(first()).note(&commit(1), "a").unwrap();
        for other in [
            measure("stable", "make test", &["A", "B"], None),
            measure("main", "make all", &["A", "B"], None),
            measure("main", "make test", &["A"], None),
            measure("main", "make test", &["AB"], None),
            measure("main", "make test", &["A", "B"], Some("impact")),
        ] {
            assert!(!read(other.clone()).knows(&commit(1), "a"), "{other:?}");
            read(other.clone()).note(&commit(1), "a").unwrap();
            assert!(read(other).knows(&commit(1), "a"), "it is tested once by each");
        }
        assert!(read(first()).knows(&commit(1), "a"), "who goes back tests nothing again");
        assert!(read(measure("main", "make test", &["B", "A"], None)).knows(&commit(1), "a"));
    }
}
