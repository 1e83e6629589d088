//! Against real bare repositories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::queue::{Branch, Commit, Outcome};

/// What git prints that looks at nothing of this machine.
pub(in crate::queue) fn git(at: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "protocol.file.allow=always"]).args(arguments).current_dir(at);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "A")
            .env(format!("GIT_{who}_EMAIL"), "a@example.com");
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A bare repository with a branch `main`, and a clone to write in.
pub(super) struct Rig {
    directory: tempfile::TempDir,
}

impl Rig {
    pub(super) fn new() -> Self {
        let rig = Self { directory: tempfile::tempdir().unwrap() };
        // A name that is none for shells.
        let remote = rig.remote();
        git(rig.directory.path(), &["init", "--quiet", "--bare", "--initial-branch=main", &remote]);
        let work = rig.work();
        let work = work.to_str().unwrap();
        git(rig.directory.path(), &["clone", "--quiet", &remote, work]);
        rig.write("main", "base", &[("a", "1\n"), ("b", "1\n")]);
        rig
    }

    fn remote(&self) -> String {
        self.directory.path().join("the remote; $(x).git").to_str().unwrap().to_owned()
    }

    pub(super) fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Commits files on a branch that begins at `main`, and pushes it.
    pub(super) fn write(&self, branch: &str, message: &str, files: &[(&str, &str)]) -> Commit {
        let work = self.work();
        if branch != "main" {
            git(&work, &["checkout", "--quiet", "-B", branch, "main"]);
        }
        for (name, text) in files {
            std::fs::write(work.join(name), text).unwrap();
        }
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "--allow-empty", "-m", message]);
        git(&work, &["push", "--quiet", "--force", "origin", &format!("HEAD:refs/heads/{branch}")]);
        Commit::new(&git(&work, &["rev-parse", "HEAD"])).unwrap()
    }

    pub(super) async fn open(&self) -> Repository {
        let at = self.directory.path().join("queue's clone");
        Repository::open(&at, &self.remote()).await.unwrap()
    }

    pub(super) fn slots(&self) -> Slots {
        Slots::new(self.directory.path().join("trees"))
    }

    fn at_main(&self) -> Commit {
        let remote = PathBuf::from(self.remote());
        Commit::new(&git(&remote, &["rev-parse", "refs/heads/main"])).unwrap()
    }
}

pub(super) fn branch(name: &str) -> Branch {
    Branch::new(name).unwrap()
}

pub(super) fn piece(name: &str, head: &Commit) -> Piece {
    Piece { branch: branch(name), head: head.clone() }
}

pub(super) async fn fetched(repository: &Repository, names: &[&str]) -> BTreeMap<Branch, Commit> {
    let names: Vec<_> = names.iter().map(|it| branch(it)).collect();
    let heads = repository.heads(&names).await.unwrap();
    repository.fetch(&heads).await.unwrap();
    heads
}

#[tokio::test]
async fn changes_are_put_together_always_alike_and_conflicts_left_out() {
    let rig = Rig::new();
    let one = rig.write("one", "one", &[("c", "1\n")]);
    let two = rig.write("feature/two", "two", &[("a", "2\n")]);
    let clashing = rig.write("three", "three", &[("a", "3\n")]);
    let repository = rig.open().await;
    let heads = fetched(&repository, &["main", "one", "feature/two", "three", "gone"]).await;
    assert_eq!(heads.len(), 4, "one is not there: {heads:?}");
    let base = heads[&branch("main")].clone();
    let pieces = [piece("one", &one), piece("feature/two", &two), piece("three", &clashing)];
    for method in [Method::Merge, Method::Squash, Method::Rebase] {
        let built = repository.build(&base, &pieces, method).await.unwrap();
        assert_eq!(built.left_out, [(2, false)], "it merges into the base alone");
        assert_eq!(repository.build(&base, &pieces, method).await.unwrap(), built);
        let prefix = repository.build(&base, &pieces[..1], method).await.unwrap();
        assert!(repository.is_in(&prefix.commit, &built.commit).await.unwrap(), "runs begin alike");
        let files =
            repository.git(["ls-tree", "--name-only", built.commit.as_str()]).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&files), "a\nb\nc\n");
    }
    // On top of what has landed, the change will conflict however often it is tried.
    let landed = repository.build(&base, &pieces[..2], Method::Merge).await.unwrap().commit;
    let built = repository.build(&landed, &pieces[2..], Method::Merge).await.unwrap();
    assert_eq!((built.left_out.as_slice(), &built.commit), ([(0, true)].as_slice(), &landed));
}

#[tokio::test]
async fn a_branch_is_fetched_where_a_shorter_name_was_and_only_as_it_was_listed() {
    let rig = Rig::new();
    rig.write("a", "a", &[("c", "1\n")]);
    let repository = rig.open().await;
    fetched(&repository, &["main", "a"]).await;
    let work = rig.work();
    git(&work, &["push", "--quiet", "origin", ":refs/heads/a"]);
    git(&work, &["checkout", "--quiet", "main"]);
    git(&work, &["branch", "--quiet", "-D", "a"]);
    let first = rig.write("a/b", "b", &[("c", "2\n")]);
    let heads = repository.heads(&[branch("a/b")]).await.unwrap();
    assert_eq!(heads[&branch("a/b")], first);
    let second = rig.write("a/b", "b again", &[("c", "3\n")]);
    let overtaken = repository.fetch(&heads).await;
    assert!(matches!(overtaken, Err(GitError::Overtaken(_))), "{overtaken:?}");
    assert_eq!(fetched(&repository, &["a/b"]).await[&branch("a/b")], second);
}

#[tokio::test]
async fn only_what_was_tested_is_pushed_and_only_from_where_it_began() {
    let rig = Rig::new();
    let one = rig.write("one", "one", &[("c", "1\n")]);
    let two = rig.write("two", "two", &[("d", "1\n")]);
    let repository = rig.open().await;
    let base = fetched(&repository, &["main", "one", "two"]).await[&branch("main")].clone();
    let main = branch("main");
    let first = repository.build(&base, &[piece("one", &one)], Method::Merge).await.unwrap().commit;
    let other = repository.build(&base, &[piece("two", &two)], Method::Merge).await.unwrap().commit;
    assert_eq!(repository.push(&main, &base, &first).await.unwrap(), Pushed::Done);
    assert_eq!(rig.at_main(), first);
    assert_eq!(
        repository.push(&main, &base, &first).await.unwrap(),
        Pushed::Done,
        "as after a crash"
    );
    assert_eq!(repository.push(&main, &base, &other).await.unwrap(), Pushed::Moved);
    let Pushed::Refused(_) = repository.push(&main, &first, &other).await.unwrap() else {
        panic!("it would take back what has landed")
    };
    assert_eq!(rig.at_main(), first);
    // A hook of the repository has the last word.
    let hook = PathBuf::from(rig.remote()).join("hooks/update");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho 'not on Fridays' >&2\nexit 1\n").unwrap();
    git(rig.directory.path(), &["version"]);
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let second =
        repository.build(&first, &[piece("two", &two)], Method::Merge).await.unwrap().commit;
    let Pushed::Refused(words) = repository.push(&main, &first, &second).await.unwrap() else {
        panic!("a hook refuses it")
    };
    assert!(words.contains("not on Fridays"), "{words}");
    std::fs::remove_file(hook).unwrap();
    // Somebody pushes on top of what landed unheard.
    assert_eq!(repository.push(&main, &first, &second).await.unwrap(), Pushed::Done);
    git(&rig.work(), &["fetch", "--quiet"]);
    git(&rig.work(), &["checkout", "--quiet", "-B", "main", "origin/main"]);
    rig.write("main", "by hand", &[("e", "1\n")]);
    assert_eq!(repository.push(&main, &first, &second).await.unwrap(), Pushed::Done);
}

#[tokio::test]
async fn nothing_that_a_repository_says_is_run() {
    let rig = Rig::new();
    let mark = rig.directory.path().join("ran");
    let attributes = "* filter=evil merge=evil diff=evil\n";
    let evil = rig.write("evil", "evil", &[(".gitattributes", attributes), ("a", "evil\n")]);
    let repository = rig.open().await;
    let base = fetched(&repository, &["main", "evil"]).await[&branch("main")].clone();
    // As a check might leave them in the clone.
    let hooks = repository.directory().join("hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    for name in ["post-checkout", "pre-push", "reference-transaction", "post-merge"] {
        let hook = hooks.join(name);
        std::fs::write(&hook, format!("#!/bin/sh\ntouch '{}'\n", mark.display())).unwrap();
        std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    }
    let built = repository.build(&base, &[piece("evil", &evil)], Method::Merge).await.unwrap();
    let slot = rig.slots().take().unwrap();
    repository.check_out(&slot, &built.commit).await.unwrap();
    assert_eq!(repository.push(&branch("main"), &base, &built.commit).await.unwrap(), Pushed::Done);
    assert!(!mark.exists());
    for odd in ["", "--upload-pack=touch x", "-x"] {
        let opened = Repository::open(repository.directory(), odd).await;
        assert!(matches!(opened, Err(GitError::Address(_))), "{odd}");
    }
    let outside = Repository::open(repository.directory(), "ext::sh -c touch% ran").await.unwrap();
    assert!(outside.heads(&[branch("main")]).await.is_err());
}

fn check(command: &str) -> Check {
    Check { command: command.into(), limit_s: 60, env: Vec::new(), proven: false }
}

async fn outcome(rig: &Rig, check: &Check) -> Checked {
    let repository = rig.open().await;
    let base = fetched(&repository, &["main"]).await[&branch("main")].clone();
    let slot = rig.slots().take().unwrap();
    repository.check_out(&slot, &base).await.unwrap();
    check.run(&slot, &base, &base, "one", &BTreeSet::new()).await.unwrap()
}

#[tokio::test]
async fn a_check_is_told_what_to_test_first_or_nothing_of_it() {
    let rig = Rig::new();
    let repository = rig.open().await;
    let base = fetched(&repository, &["main"]).await[&branch("main")].clone();
    let slot = rig.slots().take().unwrap();
    repository.check_out(&slot, &base).await.unwrap();
    let log = async |command: &str, first: &[&str]| {
        let first = first.iter().map(|it| (*it).to_owned()).collect();
        check(command).run(&slot, &base, &base, "one", &first).await.unwrap().log
    };
    let says = "cat \"${KILN_QUEUE_FIRST:-/dev/null}\"; echo end";
    assert_eq!(log(says, &["//a:b", "//c"]).await, "//a:b\n//c\nend");
    assert_eq!(log(says, &[]).await, "end", "nothing is left of the last one");
    // A check leaves a link there. What it leads to stays as it is.
    let other = rig.directory.path().join("other");
    std::fs::write(&other, "mine").unwrap();
    let links = format!("ln -sf '{}' \"$KILN_QUEUE_FIRST\"", other.display());
    log(&links, &["//a:b"]).await;
    assert_eq!(log(says, &["//c"]).await, "//c\nend");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "mine");
    // A folder cannot be written. The check runs all the same, and tests all of it.
    log("rm \"$KILN_QUEUE_FIRST\"; mkdir \"$KILN_QUEUE_FIRST\"", &["//a:b"]).await;
    assert_eq!(log(says, &["//c"]).await, "end");
}

#[tokio::test]
async fn a_check_passes_fails_names_targets_or_cannot_run() {
    let rig = Rig::new();
    let passed = outcome(&rig, &check("cat a; echo said >&2; touch left")).await;
    assert_eq!((passed.outcome, passed.log.as_str()), (Outcome::Passed, "1\nsaid"));
    let clean = outcome(&rig, &check("test ! -e left && test -z \"$SSH_AUTH_SOCK$GIT_DIR\"")).await;
    assert_eq!(clean.outcome, Outcome::Passed, "nothing is left of the last one");
    let failed =
        outcome(&rig, &check("echo //a:b >> \"$KILN_QUEUE_FAILED\"; exit 3")).await.outcome;
    let targets = ["//a:b".to_owned()].into();
    assert_eq!(failed, Outcome::Failed { targets, proven: false, affecting: None });
    for (code, is_proven) in [(3, true), (6, false)] {
        let exact = Check { proven: true, ..check(&format!("exit {code}")) };
        let failed = outcome(&rig, &exact).await.outcome;
        assert!(matches!(failed, Outcome::Failed { proven, .. } if proven == is_proven), "{code}");
    }
    let unable = outcome(&rig, &check("exit 75")).await.outcome;
    assert!(matches!(unable, Outcome::Unable(_)), "{unable:?}");
    let killed = outcome(&rig, &check("kill -9 $$")).await.outcome;
    assert!(matches!(killed, Outcome::Unable(_)), "{killed:?}");
    let gigabyte = "head -c 1073741824 /dev/zero; echo; echo the end";
    let loud = outcome(&rig, &check(gigabyte)).await;
    assert!(loud.log.ends_with("the end") && loud.log.len() <= 64 << 10, "{}", loud.log.len());
}

#[tokio::test]
async fn a_check_that_hangs_is_ended_with_all_that_it_started() {
    let rig = Rig::new();
    let pid = rig.directory.path().join("pid");
    let hanging = format!("sleep 600 & echo $! > '{}'; wait", pid.display());
    let hanging = Check { limit_s: 1, ..check(&hanging) };
    let failed = outcome(&rig, &hanging).await;
    assert!(matches!(failed.outcome, Outcome::Failed { .. }), "{failed:?}");
    let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    let gone = || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    let waiting = async {
        while !gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it is ended");
}

#[tokio::test]
async fn a_tree_that_a_check_still_uses_is_left_alone() {
    let rig = Rig::new();
    let slots = rig.slots();
    let first = slots.take().unwrap();
    let stdin = first.stdin().unwrap();
    let mut left = Command::new("sleep").arg("600").stdin(stdin).spawn().unwrap();
    drop(first);
    let second = slots.take().unwrap();
    assert!(second.tree.ends_with("slot-1"), "{second:?}");
    left.kill().unwrap();
    left.wait().unwrap();
    assert!(slots.take().unwrap().tree.ends_with("slot-0"));
}

#[tokio::test]
async fn it_is_said_of_each_step_what_it_affects() {
    let rig = Rig::new();
    let heads = ["one", "two"].map(|name| rig.write(name, name, &[(name, "1\n")]));
    let repository = rig.open().await;
    let base = fetched(&repository, &["main", "one", "two"]).await[&branch("main")].clone();
    let pieces = [piece("one", &heads[0]), piece("two", &heads[1])];
    let built = repository.build(&base, &pieces, Method::Merge).await.unwrap();
    assert_eq!(built.steps.last().map(|(_, commit)| commit), Some(&built.commit));
    let slot = rig.slots().take().unwrap();
    let says = check("git diff --name-only $KILN_QUEUE_BASE HEAD > $KILN_QUEUE_IMPACT");
    let mut before = base.clone();
    for ((place, commit), name) in built.steps.iter().zip(["one", "two"]) {
        repository.check_out(&slot, commit).await.unwrap();
        let affected = says.affected(&slot, &before, commit).await.unwrap();
        assert_eq!(affected, Some([name.to_owned()].into()), "{place}");
        before = commit.clone();
    }
    // If the command cannot say what is affected, the answer is unknown and not "nothing". A result that is
    // no file is unknown, too.
    for silent in ["exit 1", "true", "mkfifo $KILN_QUEUE_IMPACT", "sleep 600"] {
        let silent = Check { limit_s: 1, ..check(silent) };
        assert_eq!(silent.affected(&slot, &base, &before).await.unwrap(), None, "{silent:?}");
        std::fs::remove_file(slot.tree.with_extension("impact")).ok();
    }
}

#[tokio::test]
async fn a_command_says_what_a_check_costs_or_it_is_not_known() {
    let rig = Rig::new();
    let repository = rig.open().await;
    let base = fetched(&repository, &["main"]).await[&branch("main")].clone();
    let slot = rig.slots().take().unwrap();
    repository.check_out(&slot, &base).await.unwrap();
    for (says, cost) in [
        ("ls | wc -l > $KILN_QUEUE_COST", Some(2)),
        ("true", None),
        ("echo 1.5 > $KILN_QUEUE_COST", None),
        ("printf '1\\n2\\n' > $KILN_QUEUE_COST", None),
        ("echo 1 > $KILN_QUEUE_COST; exit 1", None),
        ("echo 1 > $KILN_QUEUE_COST; sleep 600", None),
    ] {
        let limit_s = if cost.is_some() { 60 } else { 1 };
        let command = Check { limit_s, ..check(says) };
        assert_eq!(command.cost(&slot, &base, &base).await.unwrap(), cost, "{says}");
    }
}

#[tokio::test]
async fn a_clone_whose_making_was_cut_off_is_made_again() {
    let rig = Rig::new();
    let at = rig.directory.path().join("queue's clone");
    std::fs::create_dir_all(&at).unwrap();
    for name in ["config.lock", "HEAD"] {
        std::fs::write(at.join(name), "ref: refs/heads/main\n").unwrap();
    }
    let repository = rig.open().await;
    fetched(&repository, &["main"]).await;
}

#[tokio::test]
async fn trees_are_free_when_nothing_of_a_check_is_left() {
    let rig = Rig::new();
    assert!(rig.slots().are_free().unwrap());
    let slot = rig.slots().take().unwrap();
    assert!(!rig.slots().are_free().unwrap());
    drop(slot);
    let waiting = async {
        // Programs that other tests start have its lock for a moment.
        while !rig.slots().are_free().unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it is free");
}
