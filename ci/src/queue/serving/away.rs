//! Heads of branches that do not come here, though the repository answers: an object is damaged, or it takes too long.
//! Each is tried a few times and then given up, so that one of them does not hold up all.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_net::causes::chain;

use crate::queue::git::{GitError, Heads, ProcessError, Repository};
use crate::queue::{Branch, Commit, Held, Lane, Standing};

/// How often a head is tried. What took too long counts as two tries.
pub const MAX_TRIES: u32 = 4;
/// How long the first fetch may take, which may be that of all there is, and how long any other.
const FIRST: Duration = Duration::from_secs(600);
const LATER: Duration = Duration::from_secs(120);
/// After so many that do not come the repository is asked again where its branches are.
const MAX_FAILED: usize = 3;

/// What a fetch that failed counts as.
pub fn cost(error: &GitError) -> u32 {
    if matches!(error, GitError::Process(ProcessError::Slow { .. })) { 2 } else { 1 }
}

struct Failing {
    head: Commit,
    tries: u32,
    why: String,
}

/// No more than there are changes.
pub struct Away {
    of: BTreeMap<Branch, Failing>,
    /// The first fetch is over.
    began: bool,
    /// Some were not tried yet.
    left: bool,
}

impl Away {
    /// What was given up stays so until it has another head, or is asked for again.
    pub fn of(lane: &Lane) -> Self {
        let failing = lane.changes.values().filter_map(|it| {
            let Standing::Held(Held::Unfetched(why)) = &it.standing else { return None };
            let failing = Failing { head: it.head.clone(), tries: MAX_TRIES, why: why.clone() };
            Some((it.branch.clone(), failing))
        });
        Self { of: failing.collect(), began: false, left: false }
    }

    /// Whether some are to be tried again, though the repository answers.
    pub fn goes_on(&self) -> bool {
        self.left || self.of.values().any(|it| it.tries < MAX_TRIES)
    }

    /// Why this head was given up.
    pub fn why(&self, branch: &Branch, head: &Commit) -> Option<&str> {
        let failing = self.of.get(branch).filter(|it| it.head == *head)?;
        (failing.tries >= MAX_TRIES).then_some(failing.why.as_str())
    }

    pub fn forget(&mut self, branch: &Branch) {
        self.of.remove(branch);
    }

    /// Brings heads here, and answers which are, which is all but those that were given up. An error: the same again.
    pub async fn bring(
        &mut self,
        repository: &Repository,
        target: &Branch,
        heads: &Heads,
    ) -> Result<Heads, GitError> {
        self.of.retain(|branch, it| heads.get(branch) == Some(&it.head));
        let (mut apart, together): (Heads, Heads) =
            self.open(heads).into_iter().partition(|(branch, _)| self.of.contains_key(branch));
        let limit = if self.began { LATER } else { FIRST };
        if let Err(error) = repository.fetch_within(&together, limit).await {
            tracing::warn!(error = chain(&error), "branches are fetched one by one");
            let target = together.iter().filter(|(branch, _)| *branch == target);
            let target: Heads = target.map(|(one, head)| (one.clone(), head.clone())).collect();
            // Without it nothing goes on.
            repository.fetch_within(&target, limit).await?;
            for branch in repository.missing(&together).await? {
                let head = together.get(branch).map(|head| (branch.clone(), head.clone()));
                apart.extend(head);
            }
        }
        self.one_by_one(repository, apart).await?;
        self.began = true;
        Ok(self.open(heads))
    }

    /// Heads that were not given up.
    fn open(&self, heads: &Heads) -> Heads {
        let open = heads.iter().filter(|(branch, head)| self.why(branch, head).is_none());
        open.map(|(branch, head)| (branch.clone(), head.clone())).collect()
    }

    async fn one_by_one(&mut self, repository: &Repository, heads: Heads) -> Result<(), GitError> {
        let mut failed = Vec::new();
        self.left = false;
        for (branch, head) in heads {
            if failed.len() >= MAX_FAILED {
                self.left = true;
                break;
            }
            let one = Heads::from([(branch.clone(), head.clone())]);
            let Err(error) = repository.fetch_within(&one, LATER).await else {
                self.of.remove(&branch);
                continue;
            };
            tracing::warn!(%branch, error = chain(&error), "a branch cannot be fetched");
            let new = Failing { head, tries: 0, why: String::new() };
            let failing = self.of.entry(branch).or_insert(new);
            failing.tries += cost(&error);
            failing.why = chain(&error);
            failed.push(error);
        }
        match self.goes_on() {
            true => failed.pop().map_or(Ok(()), Err),
            false => Ok(()),
        }
    }
}
