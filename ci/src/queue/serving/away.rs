//! Heads of branches that do not come here, though the repository answers: an object is damaged, or it takes too long.
//! They come beside the lane. Each is tried a few times and then given up; all others go on meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kiln_net::Backoff;
use kiln_net::causes::chain;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::queue::git::{GitError, Heads, ProcessError, Repository};
use crate::queue::{Branch, COMING, Commit, Held, Lane, Standing};

/// How often a head is tried. What took too long counts as two tries.
pub const MAX_TRIES: u32 = 4;
/// How long the first fetch of the target may take at least, which may be that of all there is, and how long any other.
const FIRST: Duration = Duration::from_secs(600);
const LATER: Duration = Duration::from_secs(120);
/// How long new heads may take that come by one fetch; then each comes by its own.
const TOGETHER: Duration = Duration::from_secs(30);
/// How long the lane waits for new heads. Where all goes well they are here by then.
const QUICK: Duration = Duration::from_secs(2);
/// Sets of heads that come at the same time, one of which is left for new ones, and fetches of a set.
const MAX_FLIGHTS: usize = 4;
const AT_ONCE: usize = 4;
const AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// What a fetch that failed counts as.
pub fn cost(error: &GitError) -> u32 {
    if matches!(error, GitError::Process(ProcessError::Slow { .. })) { 2 } else { 1 }
}

struct Failing {
    head: Commit,
    tries: u32,
    why: String,
    /// When the fetch is tried again.
    again: Instant,
}

/// A head that a fetch has not brought.
struct Missed {
    branch: Branch,
    head: Commit,
    why: String,
    cost: u32,
}

/// Heads on their way.
struct Flight {
    heads: Heads,
    work: AbortHandle,
}

/// Heads that are not here yet, no more than there are changes.
pub struct Away {
    of: BTreeMap<Branch, Failing>,
    running: JoinSet<Vec<Missed>>,
    flights: HashMap<Id, Flight>,
    /// How long the fetch of one head may take.
    limit: Duration,
    /// The first fetch is over.
    began: bool,
}

impl Away {
    /// What was given up stays so until it has another head, or is asked for again.
    pub fn of(lane: &Lane, limit: Duration) -> Self {
        let again = Instant::now();
        let failing = lane.changes.values().filter_map(|it| {
            let Standing::Held(Held::Unfetched(why)) = &it.standing else { return None };
            let (head, why) = (it.head.clone(), why.clone());
            let failing = Failing { head, tries: MAX_TRIES, why, again };
            (failing.why != COMING).then(|| (it.branch.clone(), failing))
        });
        let of = failing.collect();
        Self { of, running: JoinSet::new(), flights: HashMap::new(), limit, began: false }
    }

    /// Whether some are on their way, or are to be tried again.
    pub fn goes_on(&self) -> bool {
        !self.flights.is_empty() || self.of.values().any(|it| it.tries < MAX_TRIES)
    }

    /// Why this head is not here.
    pub fn why(&self, branch: &Branch, head: &Commit) -> &str {
        let failing = self.of.get(branch).filter(|it| it.head == *head);
        failing.filter(|it| it.tries >= MAX_TRIES).map_or(COMING, |it| it.why.as_str())
    }

    pub fn forget(&mut self, branch: &Branch) {
        self.of.remove(branch);
    }

    /// Begins to bring heads here, and answers which are here. An error: the target is not, or git does not work.
    pub async fn bring(
        &mut self,
        repository: &Repository,
        target: &Branch,
        heads: &Heads,
    ) -> Result<Heads, GitError> {
        let own = heads.iter().filter(|(branch, _)| *branch == target);
        let own: Heads = own.map(|(branch, head)| (branch.clone(), head.clone())).collect();
        let (limit, patience) = match self.began {
            true => (self.limit.max(LATER), QUICK),
            false => (self.limit.max(FIRST), TOGETHER),
        };
        // Without it nothing goes on.
        repository.fetch_within(&own, limit).await?;
        self.began = true;
        self.keep(heads);
        self.hear(Duration::ZERO, None).await;
        let missing = missing(repository, heads).await?;
        self.of.retain(|branch, _| missing.contains_key(branch));
        self.begin(repository, missing, patience).await;
        let mut here = heads.clone();
        for branch in repository.missing(heads).await? {
            here.remove(branch);
        }
        Ok(here)
    }

    /// Nothing is brought that is another one by now, nor is it heard of what comes with others.
    fn keep(&mut self, heads: &Heads) {
        self.of.retain(|branch, it| heads.get(branch) == Some(&it.head));
        self.flights.retain(|_, flight| {
            flight.heads.retain(|branch, head| heads.get(branch) == Some(&*head));
            let goes_on = !flight.heads.is_empty();
            if !goes_on {
                flight.work.abort();
            }
            goes_on
        });
    }

    /// Waits for new heads, and for none that has failed.
    async fn begin(&mut self, repository: &Repository, missing: Heads, patience: Duration) {
        let flies = |branch: &Branch, head: &Commit| {
            self.flights.values().any(|it| it.heads.get(branch) == Some(head))
        };
        let rest = missing.into_iter().filter(|(branch, head)| !flies(branch, head));
        let (mut again, new): (Heads, Heads) =
            rest.partition(|(branch, _)| self.of.contains_key(branch));
        let now = Instant::now();
        again.retain(|branch, _| {
            self.of.get(branch).is_some_and(|it| it.tries < MAX_TRIES && it.again <= now)
        });
        if !again.is_empty() && self.flights.len() + 1 < MAX_FLIGHTS {
            let work = apart(repository.clone(), again.clone(), self.limit);
            self.fly(again, work);
        }
        if !new.is_empty() && self.flights.len() < MAX_FLIGHTS {
            let work = together(repository.clone(), new.clone(), self.limit);
            let flight = self.fly(new, work);
            self.hear(patience, Some(flight)).await;
        }
    }

    fn fly(
        &mut self,
        heads: Heads,
        work: impl Future<Output = Vec<Missed>> + Send + 'static,
    ) -> Id {
        let work = self.running.spawn(work);
        let id = work.id();
        self.flights.insert(id, Flight { heads, work });
        id
    }

    /// Hears what became of flights, until there is no more to hear, one has ended, or it was waited for so long.
    async fn hear(&mut self, patience: Duration, one: Option<Id>) {
        let until = Instant::now() + patience;
        while one.is_none_or(|it| self.flights.contains_key(&it)) {
            let ended = timeout_at(until, self.running.join_next_with_id()).await;
            let Ok(Some(ended)) = ended else { return };
            let (id, missed) = match ended {
                Ok((id, missed)) => (id, Ok(missed)),
                Err(lost) => (lost.id(), Err(lost)),
            };
            // Of what was given up nobody wants to hear.
            let Some(flight) = self.flights.remove(&id) else { continue };
            let missed = missed.unwrap_or_else(|lost| {
                // It panicked.
                let why = chain(&lost);
                let missed = |(branch, head)| Missed { branch, head, why: why.clone(), cost: 1 };
                flight.heads.clone().into_iter().map(missed).collect()
            });
            let is_wanted = |it: &Missed| flight.heads.get(&it.branch) == Some(&it.head);
            missed.into_iter().filter(is_wanted).for_each(|it| self.note(it));
        }
    }

    fn note(&mut self, missed: Missed) {
        let Missed { branch, head, why, cost } = missed;
        let before = self.of.get(&branch).filter(|it| it.head == head).map_or(0, |it| it.tries);
        let tries = before + cost;
        let again = Instant::now() + AGAIN.pause(tries);
        self.of.insert(branch, Failing { head, tries, why, again });
    }
}

async fn missing(repository: &Repository, heads: &Heads) -> Result<Heads, GitError> {
    let missing = repository.missing(heads).await?;
    let head = |branch: &Branch| Some((branch.clone(), heads.get(branch)?.clone()));
    Ok(missing.into_iter().filter_map(head).collect())
}

/// Fetches heads together, and where that fails each by its own. Answers which have not come.
async fn together(repository: Repository, heads: Heads, limit: Duration) -> Vec<Missed> {
    if heads.len() > 1 {
        let Err(error) = repository.fetch_within(&heads, limit.min(TOGETHER)).await else {
            return Vec::new();
        };
        tracing::warn!(error = chain(&error), "branches are fetched one by one");
    }
    apart(repository, heads, limit).await
}

async fn apart(repository: Repository, heads: Heads, limit: Duration) -> Vec<Missed> {
    let fetch = move |(branch, head)| one(repository.clone(), branch, head, limit);
    let fetched = stream::iter(heads).map(fetch).buffer_unordered(AT_ONCE);
    fetched.filter_map(std::future::ready).collect().await
}

async fn one(
    repository: Repository,
    branch: Branch,
    head: Commit,
    limit: Duration,
) -> Option<Missed> {
    let heads = Heads::from([(branch.clone(), head.clone())]);
    let error = repository.fetch_within(&heads, limit).await.err()?;
    let (why, cost) = (chain(&error), cost(&error));
    tracing::warn!(%branch, why, "a branch cannot be fetched");
    Some(Missed { branch, head, why, cost })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Options;
    use crate::queue::git::tests::git;

    fn away(limit: Duration) -> (Away, Branch) {
        let target = Branch::new("main").unwrap();
        let lane = Lane::new(target.clone(), Options::default());
        (Away::of(&lane, limit), target)
    }

    #[tokio::test]
    async fn the_target_is_waited_for_however_short_a_time_heads_may_take() {
        let directory = tempfile::tempdir().unwrap();
        git(directory.path(), &["init", "--quiet", "--initial-branch=main", "work"]);
        let work = directory.path().join("work");
        let clone = directory.path().join("clone");
        let repository = Repository::open(&clone, work.to_str().unwrap()).await.unwrap();
        // No git is as quick as this limit, so the fetch of the target has to be waited for beyond it.
        let (mut away, target) = away(Duration::from_millis(1));
        for commit in ["first", "moved by hand"] {
            git(&work, &["commit", "--quiet", "--allow-empty", "-m", commit]);
            let heads = repository.heads(std::slice::from_ref(&target)).await.unwrap();
            let here = away.bring(&repository, &target, &heads).await.expect(commit);
            assert_eq!(here, heads, "{commit}");
        }
    }

    /// The head came together with another one, which is still wanted.
    #[tokio::test]
    async fn what_is_heard_of_a_head_that_was_says_nothing_of_the_one_that_is() {
        let (mut away, _) = away(Duration::from_secs(1));
        let [pushed, other] = ["pushed", "other"].map(|it| Branch::new(it).unwrap());
        let [old, new] = ["a", "b"].map(|it| Commit::new(&it.repeat(40)).unwrap());
        let heads = |head: &Commit| {
            Heads::from([(pushed.clone(), head.clone()), (other.clone(), old.clone())])
        };
        let missed = |branch: &Branch, head: &Commit, why: &str, cost: u32| {
            let (branch, head, why) = (branch.clone(), head.clone(), why.to_owned());
            Missed { branch, head, why, cost }
        };
        let late = vec![missed(&pushed, &old, "late", 1), missed(&other, &old, "gone", MAX_TRIES)];
        away.fly(heads(&old), async move { late });
        away.note(missed(&pushed, &new, "damaged", MAX_TRIES));
        away.keep(&heads(&new));
        away.hear(Duration::from_secs(60), None).await;
        assert_eq!(away.why(&other, &old), "gone", "it was heard");
        assert_eq!(away.why(&pushed, &new), "damaged", "it stays given up");
    }
}
