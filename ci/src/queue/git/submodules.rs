//! Submodules. The queue merges their pointers and checks none of them out; a check may.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use kiln_net::causes::chain;
use kiln_net::process::{Keep, ProcessError, run, words};
use tokio::process::Command;

use super::repository::{GitError, LIMIT, Repository};
use super::slots::Slot;

/// What `find` removes of the directories that it is given: all that is in them. What git has fetched of submodules is elsewhere.
const EMPTIES: [&str; 10] =
    ["-mindepth", "1", "-maxdepth", "1", "-exec", "rm", "-rf", "--", "{}", "+"];
/// Mode and path of each entry, as git prints them, and how it begins with a submodule.
const ENTRY: &str = "--format=%(objectmode) %(path)";
const POINTER: &[u8] = b"160000 ";
const ORIGIN: &str = "remote.origin.url";
/// Most bytes of what `find` says that are shown.
const SHOWN: usize = 1_000;

impl Repository {
    /// Empties the submodules that a check has checked out. They are at commits of another change, with what its build left there,
    /// and git cleans none of them with the tree. `git submodule foreach` would end at one that `.gitmodules` does not name.
    pub(super) async fn empty_submodules(&self, slot: &Slot) -> Result<(), GitError> {
        if !slot.tree.join(".gitmodules").exists() {
            return Ok(());
        }
        // Of a tree with very many files these are the directories and the submodules alone.
        let list = ["ls-tree", "-r", "-d", "-z", ENTRY, "HEAD"];
        let listed = self.git_in(Some(&slot.tree), &list).await?;
        let mut filled = pointers(&listed);
        filled.retain(|it| is_filled(&slot.tree.join(it)));
        if filled.is_empty() {
            return Ok(());
        }
        // It holds the slot for as long as it runs, and ends with this process.
        let stdin = slot.stdin().map_err(|source| self.path(&slot.tree, source))?;
        let mut command = Command::new("find");
        command.args(&filled).args(EMPTIES).current_dir(&slot.tree).stdin(Stdio::from(stdin));
        let ran = run(command, None, LIMIT, Keep::End(0)).await?;
        match ran.status.success() {
            true => Ok(()),
            false => {
                let (program, said) = ("find".to_owned(), words(&ran.stderr, SHOWN));
                Err(ProcessError::Failed { program, status: ran.status, said }.into())
            }
        }
    }

    /// Notes in the clone where the repository is: relative addresses of submodules are meant from there. The queue itself does
    /// not need it.
    pub(super) async fn note_origin(&self) {
        if let Err(error) = self.write_origin().await {
            tracing::warn!(error = chain(&error), "relative addresses of submodules lead nowhere");
        }
    }

    async fn write_origin(&self) -> Result<(), GitError> {
        let (_, noted) = self.ask(&["config", "--get", ORIGIN]).await?;
        let is_noted = String::from_utf8_lossy(&noted.stdout).trim_end() == self.remote();
        if !is_noted && !has_password(self.remote()) {
            self.git(["config", ORIGIN, self.remote()]).await?;
        }
        Ok(())
    }
}

/// The paths of submodules in what `git ls-tree -z` has printed, each as `find` takes no option from it.
fn pointers(listed: &[u8]) -> Vec<PathBuf> {
    let paths = listed.split(|it| *it == 0).filter_map(|it| it.strip_prefix(POINTER));
    paths.map(|it| Path::new(".").join(OsStr::from_bytes(it))).collect()
}

/// Whether something is in a directory. A link is none: git makes a directory of it.
fn is_filled(directory: &Path) -> bool {
    let is_directory = directory.symlink_metadata().is_ok_and(|it| it.is_dir());
    is_directory && std::fs::read_dir(directory).is_ok_and(|mut it| it.next().is_some())
}

/// Whether a URL has a password in it, which is to stay out of files.
fn has_password(remote: &str) -> bool {
    let authority = remote.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    let who = authority.and_then(|it| it.rsplit_once('@')).map(|(who, _)| who);
    who.is_some_and(|it| it.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::super::Method;
    use super::super::tests::{Rig, branch, fetched, git, piece};
    use super::*;
    use crate::queue::Commit;

    const MODULES: &str = "[submodule \"library\"]\n\tpath = library\n\turl = ../library\n";

    /// Makes a library of three commits, each with its number in a file, and has `main` point to the first one.
    fn library(rig: &Rig) -> [String; 3] {
        let work = rig.work();
        let place = work.parent().unwrap();
        git(place, &["init", "--quiet", "library"]);
        let library = place.join("library");
        let commits = ["1", "2", "3"].map(|number| {
            std::fs::write(library.join("number"), number).unwrap();
            git(&library, &["add", "number"]);
            git(&library, &["commit", "--quiet", "-m", number]);
            git(&library, &["rev-parse", "HEAD"])
        });
        std::fs::create_dir(work.join("library")).unwrap();
        rig.write("main", "name the library", &[(".gitmodules", MODULES)]);
        point(rig, "main", &commits[0]);
        commits
    }

    fn point(rig: &Rig, branch: &str, commit: &str) -> Commit {
        let work = rig.work();
        if branch != "main" {
            git(&work, &["checkout", "--quiet", "-B", branch, "main"]);
        }
        let entry = format!("160000,{commit},library");
        git(&work, &["update-index", "--add", "--cacheinfo", &entry]);
        git(&work, &["commit", "--quiet", "-m", branch]);
        git(&work, &["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")]);
        Commit::new(&git(&work, &["rev-parse", "HEAD"])).unwrap()
    }

    #[tokio::test]
    async fn pointers_are_merged_and_two_that_move_the_same_one_conflict() {
        let rig = Rig::new();
        let commits = library(&rig);
        let second = point(&rig, "second", &commits[1]);
        let third = point(&rig, "third", &commits[2]);
        let other = rig.write("other", "other", &[("a", "2\n")]);
        let repository = rig.open().await;
        let heads = fetched(&repository, &["main", "second", "third", "other"]).await;
        let base = heads[&branch("main")].clone();
        let pieces = [piece("other", &other), piece("second", &second), piece("third", &third)];
        for method in [Method::Merge, Method::Squash, Method::Rebase] {
            let built = repository.build(&base, &pieces, method).await.unwrap();
            assert_eq!(built.left_out, [(2, false)], "{method:?}");
            let tree = ["ls-tree", built.commit.as_str(), "library"];
            let entry = git(repository.directory(), &tree);
            assert!(entry.starts_with(&format!("160000 commit {}", commits[1])), "{entry}");
        }
    }

    /// The check of one change must see nothing of the submodules that another one had, but may fetch its own.
    #[tokio::test]
    async fn what_a_check_fetched_is_gone_before_the_next_one() {
        let rig = Rig::new();
        let commits = library(&rig);
        let heads = [("second", &commits[1]), ("third", &commits[2])];
        let heads = heads.map(|(name, commit)| point(&rig, name, commit));
        let repository = rig.open().await;
        fetched(&repository, &["main", "second", "third"]).await;
        let slot = rig.slots().take().unwrap();
        let library = slot.tree.join("library");
        let there = || std::fs::read_dir(&library).unwrap().count();
        for (head, number) in heads.iter().zip(["2", "3"]) {
            repository.check_out(&slot, head).await.unwrap();
            assert_eq!(there(), 0, "it is not checked out");
            check(&slot.tree);
            assert_eq!(std::fs::read_to_string(library.join("number")).unwrap(), number);
            assert_eq!(there(), 2, "nothing of another change is there");
            std::fs::write(library.join("left"), "").unwrap();
        }
        let of_the_slot = repository.directory().join("worktrees/slot-0/modules/library");
        assert!(of_the_slot.is_dir(), "what was fetched stays");
    }

    /// Git itself refuses to go through submodules where one of them is not named.
    #[tokio::test]
    async fn one_that_is_not_named_is_emptied_as_the_others_are() {
        let rig = Rig::new();
        let commits = library(&rig);
        let head = point(&rig, "second", &commits[1]);
        let work = rig.work();
        let entry = format!("160000,{},-un named", commits[0]);
        git(&work, &["update-index", "--add", "--cacheinfo", &entry]);
        git(&work, &["commit", "--quiet", "-m", "name it nowhere"]);
        git(&work, &["push", "--quiet", "origin", "HEAD:refs/heads/odd"]);
        let odd = Commit::new(&git(&work, &["rev-parse", "HEAD"])).unwrap();
        let repository = rig.open().await;
        fetched(&repository, &["main", "second", "odd"]).await;
        let slot = rig.slots().take().unwrap();
        repository.check_out(&slot, &head).await.unwrap();
        check(&slot.tree);
        repository.check_out(&slot, &odd).await.unwrap();
        let directories = ["library", "-un named"].map(|name| slot.tree.join(name));
        for directory in &directories {
            assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0, "{directory:?}");
            std::fs::write(directory.join("left"), "").unwrap();
        }
        // Where this fails the whole tree is made anew.
        repository.empty_submodules(&slot).await.unwrap();
        for directory in &directories {
            assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0, "{directory:?}");
        }
    }

    /// A check that needs its submodules.
    fn check(tree: &Path) {
        git(tree, &["submodule", "--quiet", "update", "--init"]);
    }

    #[tokio::test]
    async fn no_password_is_written_to_the_clone() {
        let at = tempfile::tempdir().unwrap();
        for (remote, is_noted) in
            [("https://a:secret@git.example/x.git", false), ("https://a@git.example/x.git", true)]
        {
            Repository::open(at.path(), remote).await.unwrap();
            let config = std::fs::read_to_string(at.path().join("config")).unwrap();
            assert_eq!(config.contains("git.example"), is_noted, "{config}");
        }
        for remote in ["/a@b:c/d", "git@git.example:a/b.git", "ssh://git@git.example:22/a"] {
            assert!(!has_password(remote), "{remote}");
        }
    }
}
