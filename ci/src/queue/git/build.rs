//! Puts changes together on top of a base, without a working tree. The same changes on the same base always give
//! the same commit: times are those of what is merged.

use serde::{Deserialize, Serialize};

use super::repository::{GitError, LIMIT, Repository, failed, succeeded};
use crate::queue::{Branch, Commit};
use kiln_net::process::{Keep, run_brief, words};

/// Most commits of a branch that are put onto the base one by one.
const MAX_COMMITS: usize = 500;
/// Most bytes of what is said of commits.
const MAX_SAID: usize = 1 << 20;

/// How a change becomes commits of the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A change becomes one commit with two parents.
    #[default]
    Merge,
    /// A change becomes one commit with all that its branch changes.
    Squash,
    /// A change becomes each commit of its branch, merges left out.
    Rebase,
}

/// A change that is put together with others.
#[derive(Clone, Debug)]
pub struct Piece {
    pub branch: Branch,
    pub head: Commit,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    pub commit: Commit,
    /// Places of pieces that do not merge, and whether they do not even merge into the base alone.
    pub left_out: Vec<(usize, bool)>,
    /// The others, each with the commit that ends with it.
    pub steps: Vec<(usize, Commit)>,
}

/// Who wrote a commit, when, and its message.
struct Said {
    name: String,
    email: String,
    authored: String,
    committed: u64,
    message: String,
}

impl Repository {
    pub async fn build(
        &self,
        base: &Commit,
        pieces: &[Piece],
        method: Method,
    ) -> Result<Built, GitError> {
        let mut at = base.clone();
        let (mut left_out, mut steps) = (Vec::new(), Vec::new());
        for (place, piece) in pieces.iter().enumerate() {
            match self.add(&at, piece, method).await? {
                Some(commit) => {
                    at = commit;
                    steps.push((place, at.clone()));
                }
                None => {
                    let alone = at != *base && self.add(base, piece, method).await?.is_some();
                    left_out.push((place, !alone));
                }
            }
        }
        Ok(Built { commit: at, left_out, steps })
    }

    /// The commit with a change on top of `at`; nothing where it does not merge.
    async fn add(
        &self,
        at: &Commit,
        piece: &Piece,
        method: Method,
    ) -> Result<Option<Commit>, GitError> {
        if self.is_in(&piece.head, at).await? {
            return Ok(Some(at.clone()));
        }
        match self.ask(&["merge-base", at.as_str(), piece.head.as_str()]).await? {
            (0, _) => {}
            (1, _) => return Ok(None),
            (code, ran) => return Err(failed("merge-base", Some(code), &ran)),
        }
        if method == Method::Rebase {
            return self.rebase(at, piece).await;
        }
        let Some(tree) = self.merged(at, &piece.head, None).await? else { return Ok(None) };
        let mut said = self.said(&piece.head).await?;
        said.committed = said.committed.max(self.said(at).await?.committed);
        let commit = match method {
            Method::Merge => {
                let message = format!("Merge branch '{}'\n", piece.branch);
                let own = Said { message, ..queue(said.committed) };
                self.commit(&tree, &[at, &piece.head], &own).await?
            }
            Method::Squash | Method::Rebase => self.commit(&tree, &[at], &said).await?,
        };
        Ok(Some(commit))
    }

    /// The tree of `commit` as the only child of `parent`: what differs between these two is what the child changes.
    pub async fn child(&self, parent: &Commit, commit: &Commit) -> Result<Commit, GitError> {
        let tree = format!("{commit}^{{tree}}");
        let committed = self.said(commit).await?.committed;
        let own = Said { message: format!("Compare with {parent}\n"), ..queue(committed) };
        self.commit(&tree, &[parent], &own).await
    }

    async fn rebase(&self, at: &Commit, piece: &Piece) -> Result<Option<Commit>, GitError> {
        let range = format!("{at}..{}", piece.head);
        // Nothing says what a commit without a parent changes.
        let roots = ["rev-list", "--max-count=1", "--max-parents=0", &range, "--"];
        if !self.git(roots).await?.is_empty() {
            return Ok(None);
        }
        let most = format!("--max-count={}", MAX_COMMITS + 1);
        let arguments =
            ["rev-list", "--reverse", "--topo-order", "--no-merges", &most, &range, "--"];
        let listed = self.git(arguments).await?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let commits: Vec<_> = listed.lines().collect();
        if commits.len() > MAX_COMMITS {
            return Ok(None);
        }
        let mut at = at.clone();
        for commit in commits {
            let commit = Commit::new(commit)?;
            let parent = format!("{commit}^");
            let Some(tree) = self.merged(&at, &commit, Some(&parent)).await? else {
                return Ok(None);
            };
            let mut said = self.said(&commit).await?;
            said.committed = said.committed.max(self.said(&at).await?.committed);
            at = self.commit(&tree, &[&at], &said).await?;
        }
        Ok(Some(at))
    }

    /// The tree that a merge gives; nothing where it conflicts.
    async fn merged(
        &self,
        one: &Commit,
        other: &Commit,
        base: Option<&str>,
    ) -> Result<Option<String>, GitError> {
        let base = base.map(|it| format!("--merge-base={it}"));
        let mut arguments = vec!["merge-tree", "--write-tree", "--no-messages", "--name-only"];
        arguments.extend(base.as_deref());
        arguments.extend([one.as_str(), other.as_str()]);
        let (code, ran) = self.ask(&arguments).await?;
        match code {
            0 => {
                Ok(Some(words(&ran.stdout, MAX_SAID).lines().next().unwrap_or_default().to_owned()))
            }
            1 => Ok(None),
            code => Err(failed("merge-tree", Some(code), &ran)),
        }
    }

    async fn said(&self, commit: &Commit) -> Result<Said, GitError> {
        let arguments = [
            "show",
            "--no-patch",
            "--no-show-signature",
            "--format=%an%x00%ae%x00%at%x00%ct%x00%B",
            commit.as_str(),
            "--",
        ];
        let output = self.git(arguments).await?;
        let text = String::from_utf8_lossy(&output).into_owned();
        let parts: Vec<_> = text.splitn(5, '\0').collect();
        let [name, email, authored, committed, message] = parts.as_slice() else {
            return Err(GitError::Odd(text.chars().take(200).collect()));
        };
        let committed = committed.parse().map_err(|_| GitError::Odd((*committed).to_owned()))?;
        Ok(Said {
            name: (*name).to_owned(),
            email: (*email).to_owned(),
            authored: (*authored).to_owned(),
            committed,
            message: message.trim_end().to_owned() + "\n",
        })
    }

    async fn commit(
        &self,
        tree: &str,
        parents: &[&Commit],
        said: &Said,
    ) -> Result<Commit, GitError> {
        let mut command = self.command(None)?;
        command.args(["commit-tree", tree]);
        for it in parents {
            command.args(["-p", it.as_str()]);
        }
        // Git takes no author without a name, and leaves such characters out of its ends.
        let odd = |it: char| it <= ' ' || ".,:;<>\"\\'".contains(it);
        let name = if said.name.chars().all(odd) { "unknown" } else { &said.name };
        command.args(["-F", "-"]).env("GIT_AUTHOR_NAME", name).env("GIT_AUTHOR_EMAIL", &said.email);
        command.env("GIT_AUTHOR_DATE", format!("@{} +0000", said.authored));
        command.env("GIT_COMMITTER_DATE", format!("@{} +0000", said.committed));
        let ran =
            run_brief(command, Some(said.message.as_bytes()), LIMIT, Keep::All(MAX_SAID)).await?;
        let output = succeeded("commit-tree", ran)?;
        Ok(Commit::new(words(&output, MAX_SAID).as_str())?)
    }
}

/// The queue as author and committer of merges, at this time in seconds since the Unix epoch.
fn queue(committed: u64) -> Said {
    Said {
        name: "Kiln merge queue".to_owned(),
        email: "queue@kiln.invalid".to_owned(),
        authored: committed.to_string(),
        committed,
        message: String::new(),
    }
}
