//! Moves the target from one commit to another, which was tested, and to nothing else.

use super::repository::{GitError, Repository};
use crate::queue::{Branch, Commit};
use kiln_net::process::words;

/// Most bytes of a refusal that are kept.
const SHOWN: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The target is there, or was there.
    Done,
    /// Somebody else moved the target.
    Moved,
    /// The repository does not want it, with these words.
    Refused(String),
}

impl Repository {
    /// Asks before and after, so that a push of which nothing was heard is known the next time. An error means that
    /// it is not known: the same again.
    pub async fn push(
        &self,
        target: &Branch,
        old: &Commit,
        new: &Commit,
    ) -> Result<Pushed, GitError> {
        if let Some(known) = self.stands(target, old, new).await? {
            return Ok(known);
        }
        // The other side compares too; this one never asks for anything but to go forward.
        if !self.is_in(old, new).await? {
            return Ok(Pushed::Refused(format!("{} is not behind {}", new.short(), old.short())));
        }
        let lease = format!("--force-with-lease={}:{old}", target.full());
        let change = format!("{new}:{}", target.full());
        let arguments = [
            "push",
            "--porcelain",
            "--atomic",
            "--no-verify",
            "--no-follow-tags",
            "--recurse-submodules=no",
            &lease,
            "--",
            self.remote(),
            &change,
        ];
        let (code, ran) = self.ask(&arguments).await?;
        if code == 0 {
            return Ok(Pushed::Done);
        }
        let said = format!("{}\n{}", words(&ran.stdout, SHOWN), words(&ran.stderr, SHOWN));
        match self.stands(target, old, new).await? {
            Some(known) => Ok(known),
            None => Ok(Pushed::Refused(words(said.as_bytes(), SHOWN))),
        }
    }

    /// The tree of a commit; nothing where it is not here.
    pub async fn tree(&self, commit: &Commit) -> Result<Option<String>, GitError> {
        let tree = format!("{commit}^{{tree}}");
        let (code, ran) = self.ask(&["rev-parse", "--verify", "--quiet", &tree]).await?;
        Ok((code == 0).then(|| words(&ran.stdout, SHOWN)))
    }

    /// What is known without pushing; nothing while the target is at `old`.
    pub async fn stands(
        &self,
        target: &Branch,
        old: &Commit,
        new: &Commit,
    ) -> Result<Option<Pushed>, GitError> {
        let heads = self.heads(std::slice::from_ref(target)).await?;
        let Some(at) = heads.get(target) else { return Ok(Some(Pushed::Moved)) };
        if at == new {
            return Ok(Some(Pushed::Done));
        }
        if at == old {
            return Ok(None);
        }
        self.fetch(&heads).await?;
        // It may have landed, and something else upon it. All that is in the target is here by now.
        let landed = self.tree(new).await?.is_some() && self.is_in(new, at).await?;
        Ok(Some(if landed { Pushed::Done } else { Pushed::Moved }))
    }
}
