//! Branches that were asked for, on their way here. They come beside the lane: one that is slow, or cannot be fetched at all,
//! holds up no other request.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::causes::chain;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::away::{MAX_TRIES, cost};
use super::ledger::{Pending, RequestId};
use crate::queue::git::{GitError, Repository};
use crate::queue::{Branch, Commit};

/// Branches that come at the same time.
const AT_ONCE: usize = 4;
/// How long other requests wait for one, so that they are taken in in their order where all goes well.
const QUICK: Duration = Duration::from_secs(5);
const AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Whether a branch has come.
#[derive(Debug)]
pub enum Arrival {
    /// The branch is here with this head; `None` where there is no such branch.
    Here(Option<Commit>),
    /// The head cannot be fetched, for this reason.
    Never(String),
    Waits,
}

/// Why a branch has not come.
enum Missed {
    /// The repository cannot be asked where its branches are.
    Repository(GitError),
    Branch(GitError),
}

enum Way {
    Comes(AbortOnDropHandle<Result<Option<Commit>, Missed>>),
    Again(Instant),
}

struct Coming {
    tries: u32,
    way: Way,
}

/// No more than the requests that are taken in at once.
pub struct Arrivals {
    repository: Repository,
    /// How long the fetch of one branch may take.
    limit: Duration,
    of: BTreeMap<RequestId, Coming>,
}

impl Arrivals {
    pub fn new(repository: Repository, limit: Duration) -> Self {
        Self { repository, limit, of: BTreeMap::new() }
    }

    /// What nobody asks for any more comes no further.
    pub fn keep(&mut self, pending: &[Pending]) {
        self.of.retain(|id, _| pending.iter().any(|it| it.id == *id));
    }

    /// Errors: the repository cannot be asked, which holds up all.
    pub async fn look(&mut self, id: RequestId, branch: &Branch) -> Result<Arrival, GitError> {
        let busy = self.of.values().filter(|it| matches!(it.way, Way::Comes(_))).count();
        let new = || Coming { tries: 0, way: Way::Again(Instant::now()) };
        let coming = self.of.entry(id).or_insert_with(new);
        let mut patience = Duration::ZERO;
        if let Way::Again(at) = &coming.way {
            if busy >= AT_ONCE || Instant::now() < *at {
                return Ok(Arrival::Waits);
            }
            if coming.tries == 0 {
                patience = QUICK;
            }
            let work = fetch(self.repository.clone(), branch.clone(), self.limit);
            coming.way = Way::Comes(AbortOnDropHandle::new(tokio::spawn(work)));
        }
        let Way::Comes(work) = &mut coming.way else { return Ok(Arrival::Waits) };
        let Ok(ended) = tokio::time::timeout(patience, work).await else {
            return Ok(Arrival::Waits);
        };
        let (why, tries) = match ended {
            Ok(Ok(head)) => {
                self.of.remove(&id);
                return Ok(Arrival::Here(head));
            }
            Ok(Err(Missed::Repository(error))) => {
                self.of.remove(&id);
                return Err(error);
            }
            Ok(Err(Missed::Branch(error))) => (chain(&error), cost(&error)),
            // It panicked.
            Err(lost) => (chain(&lost), 1),
        };
        tracing::warn!(%branch, why, "a branch that was asked for cannot be fetched");
        coming.tries += tries;
        if coming.tries >= MAX_TRIES {
            self.of.remove(&id);
            return Ok(Arrival::Never(why));
        }
        coming.way = Way::Again(Instant::now() + AGAIN.pause(coming.tries));
        Ok(Arrival::Waits)
    }
}

async fn fetch(
    repository: Repository,
    branch: Branch,
    limit: Duration,
) -> Result<Option<Commit>, Missed> {
    let heads = repository.heads(std::slice::from_ref(&branch)).await;
    let heads = heads.map_err(Missed::Repository)?;
    repository.fetch_within(&heads, limit).await.map_err(Missed::Branch)?;
    Ok(heads.get(&branch).cloned())
}
