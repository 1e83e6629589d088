//! Whether what passed on one base counts on another one, by a comparison of this runner's own: nothing that passed
//! elsewhere is believed.
//!
//! A target of the tree that would land has the hash that it had in the base, the one that it had in what was tested, or
//! another one. The impact command says which differ from each; where none differs from both, each has passed as it is.

use std::collections::BTreeSet;

use kiln_net::causes::chain;
use tokio::sync::mpsc::UnboundedSender;

use super::work::Tools;
use crate::queue::git::{Check, GitError, Piece, Slot};
use crate::queue::{Commit, Event, Lane, Member, RunId};

/// Changes that were put together on one base, and the base on which that is to count.
pub struct Proof {
    pub base: Commit,
    /// The commit with the same changes on the other base, which was tested.
    pub tested: Commit,
    /// Nothing where one of the changes is not known any more.
    pub pieces: Option<Vec<Piece>>,
}

impl Proof {
    pub fn of(lane: &Lane, base: Commit, tested: Commit, members: &[Member]) -> Self {
        let piece = |it: &Member| {
            let branch = lane.changes.get(&it.id)?.branch.clone();
            Some(Piece { branch, head: it.head.clone() })
        };
        let pieces = members.iter().map(piece).collect();
        Self { base, tested, pieces }
    }
}

impl Tools {
    /// What a run says, which has passed, is to count on a green base.
    pub async fn prove(self, run: RunId, proof: Proof, tell: UnboundedSender<Event>) {
        let commit = or_nothing(self.proven(&proof).await);
        // Nobody listens where the lane has ended.
        tell.send(Event::Proven { run, base: proof.base, commit }).ok();
    }

    /// What the run `with` is about to say is to count also on top of `run`. Nothing lands by that.
    pub async fn compare(
        self,
        (run, with): (RunId, RunId),
        proof: Proof,
        tell: UnboundedSender<Event>,
    ) {
        let clear = or_nothing(self.equal(&proof).await).is_some();
        tell.send(Event::Compared { run, with, clear }).ok();
    }

    /// What a lane says of either side is no proof: what it names as tested passed here, and its base did, or is what is
    /// landed on at this moment.
    async fn proven(&self, proof: &Proof) -> Result<Option<Commit>, GitError> {
        let stands = self.has_passed(&proof.base).await? || self.is_target(&proof.base).await?;
        if !stands || !self.has_passed(&proof.tested).await? {
            return Ok(None);
        }
        let Some(commit) = self.equal(proof).await? else { return Ok(None) };
        self.note(&commit).await?;
        Ok(Some(commit))
    }

    async fn is_target(&self, commit: &Commit) -> Result<bool, GitError> {
        let heads = self.repository.heads(std::slice::from_ref(&self.target)).await?;
        Ok(heads.get(&self.target) == Some(commit))
    }

    /// The changes on top of the base, if each target there is as in the base or as in what was tested.
    async fn equal(&self, proof: &Proof) -> Result<Option<Commit>, GitError> {
        let (Some(impact), Some(pieces)) = (&self.impact, &proof.pieces) else { return Ok(None) };
        let built = self.repository.build(&proof.base, pieces, self.method).await?;
        if !built.left_out.is_empty() {
            return Ok(None);
        }
        let slot = self.slots.take()?;
        let changed = self.differing(impact, &slot, &proof.base, &built.commit).await?;
        let Some(changed) = changed else { return Ok(None) };
        let landed = self.differing(impact, &slot, &proof.tested, &built.commit).await?;
        let is_equal = landed.is_some_and(|it| it.is_disjoint(&changed));
        Ok(is_equal.then_some(built.commit))
    }

    /// Targets of `commit` that are not as in `other`, which need not be behind it: the command is shown the tree as a
    /// child of `other`. Nothing where it cannot say.
    async fn differing(
        &self,
        impact: &Check,
        slot: &Slot,
        other: &Commit,
        commit: &Commit,
    ) -> Result<Option<BTreeSet<String>>, GitError> {
        let child = self.repository.child(other, commit).await?;
        self.repository.check_out(slot, &child).await?;
        impact.affected(slot, other, &child).await
    }
}

/// What cannot be compared is not proven.
fn or_nothing(compared: Result<Option<Commit>, GitError>) -> Option<Commit> {
    compared.unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "what passed cannot be compared");
        None
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::passed::{Measure, Passed};
    use super::*;
    use crate::queue::Branch;
    use crate::queue::git::tests::git;
    use crate::queue::git::{Method, Repository, Slots};

    /// A branch of one commit with a file that is called like it.
    fn write(at: &Path, branch: &str) -> Commit {
        git(at, &["checkout", "--quiet", "-B", branch]);
        std::fs::write(at.join(branch), "").unwrap();
        git(at, &["add", "--all"]);
        git(at, &["commit", "--quiet", "-m", branch]);
        Commit::new(&git(at, &["rev-parse", "HEAD"])).unwrap()
    }

    async fn tools(directory: &Path, remote: &Path) -> Tools {
        let remote = remote.to_string_lossy().into_owned();
        let repository = Repository::open(&directory.join("clone"), &remote).await.unwrap();
        let command = "git diff --name-only $KILN_QUEUE_BASE HEAD > $KILN_QUEUE_IMPACT".to_owned();
        let check = Check { command, limit_s: 60, env: Vec::new(), proven: false };
        let target = Branch::new("main").unwrap();
        let measure = Measure::of(&target, &check, Some(&check));
        Tools {
            repository,
            slots: Slots::new(directory.join("trees")),
            method: Method::Merge,
            impact: Some(check.clone()),
            check,
            target,
            logs: directory.join("logs"),
            passed: Passed::read(directory.join("passed"), measure).unwrap(),
        }
    }

    #[tokio::test]
    async fn what_a_lane_says_of_what_passed_or_of_the_target_proves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let work = directory.path().join("work");
        git(directory.path(), &["init", "--quiet", "--initial-branch=main", "work"]);
        let first = write(&work, "main");
        let landed = write(&work, "landed");
        git(&work, &["checkout", "--quiet", "main"]);
        let head = write(&work, "change");
        let tools = tools(directory.path(), &work).await;
        let branches = ["main", "landed", "change"].map(|it| Branch::new(it).unwrap());
        let heads = tools.repository.heads(&branches).await.unwrap();
        tools.repository.fetch(&heads).await.unwrap();
        let pieces = vec![Piece { branch: branches[2].clone(), head }];
        let tested = tools.repository.build(&first, &pieces, Method::Merge).await.unwrap().commit;
        let proof = Proof { base: landed.clone(), tested, pieces: Some(pieces) };
        assert_eq!(tools.proven(&proof).await.unwrap(), None, "it did not pass here");
        tools.note(&proof.tested).await.unwrap();
        assert_eq!(tools.proven(&proof).await.unwrap(), None, "that is not the target");
        git(&work, &["branch", "--quiet", "--force", "main", landed.as_str()]);
        let proven = tools.proven(&proof).await.unwrap().expect("no file differs from both");
        assert!(tools.repository.is_in(&landed, &proven).await.unwrap());
        assert!(tools.has_passed(&proven).await.unwrap(), "it may be pushed");
    }
}
