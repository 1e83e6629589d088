//! Locks that a git left which was killed.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::repository::Repository;
use super::tests::{Rig, branch, fetched};

/// As a git leaves them that was killed while it wrote.
fn leave(repository: &Repository, names: &[&str]) -> Vec<PathBuf> {
    let paths: Vec<_> = names.iter().map(|it| repository.directory().join(it)).collect();
    for path in &paths {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    paths
}

#[tokio::test]
async fn locks_that_a_killed_git_left_hold_up_nobody() {
    let rig = Rig::new();
    let one = rig.write("one", "one", &[("c", "1\n")]);
    let repository = rig.open().await;
    // Left by one that was killed a moment ago, while this runner goes on.
    let own = leave(&repository, &["refs/kiln/heads/one.lock", "refs/kiln/heads/main.lock"]);
    let base = fetched(&repository, &["main", "one"]).await[&branch("main")].clone();
    assert!(own.iter().all(|it| !it.exists()));
    let slot = rig.slots().take().unwrap();
    repository.check_out(&slot, &base).await.unwrap();
    let number = || std::os::unix::fs::MetadataExt::ino(&slot.tree.metadata().unwrap());
    let made = number();
    leave(&repository, &["worktrees/slot-0/index.lock", "worktrees/slot-0/HEAD.lock"]);
    repository.check_out(&slot, &one).await.unwrap();
    assert_eq!(number(), made, "the tree stays warm");
    let all = ["packed-refs.lock", "config.lock", "HEAD.lock", "shallow.lock", "refs/heads/a.lock"];
    let all = leave(&repository, &all);
    assert!(!repository.unlock_heads().await.unwrap(), "a check may have written these");
    assert!(all.iter().all(|it| it.exists()));
    assert!(repository.unlock_all().await.unwrap());
    assert!(all.iter().all(|it| !it.exists()));
    repository.fetch(&[(branch("one"), one)].into()).await.unwrap();
}

#[tokio::test]
async fn a_lock_stays_while_a_git_may_be_writing() {
    let rig = Rig::new();
    let repository = rig.open().await;
    let lock = leave(&repository, &["refs/kiln/heads/one.lock"]).remove(0);
    // One that outlives its runner has the file as its stdin.
    let stdin = repository.hold().unwrap();
    let mut git = Command::new("sleep").arg("600").stdin(stdin).spawn().unwrap();
    {
        let mut unlocking = std::pin::pin!(repository.unlock_heads());
        let early = tokio::time::timeout(Duration::from_millis(200), &mut unlocking).await;
        assert!(early.is_err() && lock.exists(), "{early:?}");
        git.kill().unwrap();
        git.wait().unwrap();
        assert!(unlocking.await.unwrap());
    }
    assert!(!lock.exists());
}

#[tokio::test]
async fn locks_of_a_tree_go_at_once_while_another_git_hangs() {
    let rig = Rig::new();
    let one = rig.write("one", "one", &[("c", "1\n")]);
    let repository = rig.open().await;
    let base = fetched(&repository, &["main", "one"]).await[&branch("main")].clone();
    let slot = rig.slots().take().unwrap();
    repository.check_out(&slot, &base).await.unwrap();
    let number = || std::os::unix::fs::MetadataExt::ino(&slot.tree.metadata().unwrap());
    let made = number();
    // As a fetch has it that does not end.
    let hangs = repository.hold().unwrap();
    let lock = leave(&repository, &["worktrees/slot-0/index.lock"]).remove(0);
    let began = Instant::now();
    repository.check_out(&slot, &one).await.unwrap();
    assert!(began.elapsed() < super::locks::PATIENCE, "it waits for the other git");
    assert!(!lock.exists());
    assert_eq!(number(), made, "the tree stays warm");
    drop(hangs);
}
