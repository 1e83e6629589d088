//! Asks from time to time where the branches of a lane are in the repository.

use std::collections::BTreeSet;
use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::causes::chain;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::QueueError;
use super::runner::{Along, Runner};
use crate::queue::{Add, Branch, ChangeId, Commit, Event, Held, Phase, Standing};

/// Pauses between tries of reaching the repository.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

impl Runner {
    /// Polls until the repository answers. Answers whether it has; else it is the end.
    pub(super) async fn reach(&mut self, stop: &CancellationToken) -> Result<bool, QueueError> {
        let mut failures = 0;
        loop {
            let error = match self.poll().await {
                Err(QueueError::Git(error)) => error,
                other => return other.map(|()| true),
            };
            failures += 1;
            tracing::warn!(error = chain(&error), "the repository cannot be asked for now");
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = tokio::time::sleep(AGAIN.pause(failures)) => {}
            }
        }
    }

    /// What is to be said of a change whose head is not here; nothing where it was said. What is known of the head before
    /// lands nothing from then on.
    fn unfetched(&self, id: ChangeId, branch: &Branch, head: &Commit) -> Option<Event> {
        let known = self.lane.changes.get(&id)?;
        let why = self.away.why(branch, head);
        let stays = match &known.standing {
            Standing::Held(Held::Unfetched(said)) => said == why,
            // It waits for a person all the same.
            Standing::Held(Held::Refused(_)) => true,
            _ => false,
        };
        if stays && known.head == *head {
            return None;
        }
        Some(Event::Unfetched { id, head: head.clone(), why: why.to_owned() })
    }

    /// A head that was waited for is here.
    fn fetched(&self, id: ChangeId) -> Option<Event> {
        let it = self.lane.changes.get(&id)?;
        let waited = matches!(it.standing, Standing::Held(Held::Unfetched(_)));
        let (branch, head, priority) = (it.branch.clone(), it.head.clone(), it.priority);
        waited.then_some(Event::Add(Add { branch, head, priority, impact: None }))
    }

    /// Looks where the target and the branches of all changes are.
    pub(super) async fn poll(&mut self) -> Result<(), QueueError> {
        let mut branches = vec![self.settings.target.clone()];
        let changes: Vec<_> = self
            .lane
            .changes
            .values()
            .map(|it| (it.id, it.branch.clone(), it.head.clone()))
            .collect();
        branches.extend(changes.iter().map(|(_, branch, _)| branch.clone()));
        let repository = &self.tools.repository;
        let heads = repository.heads(&branches).await?;
        let target = heads.get(&self.settings.target).cloned();
        let target =
            target.ok_or_else(|| QueueError::NoTarget(self.settings.target.to_string()))?;
        let here = self.away.bring(repository, &self.settings.target, &heads).await?;
        // What is pushed at this moment is not somebody else's.
        let landing = self.lane.runs.values().any(|it| it.phase == Phase::Landing);
        if !landing {
            self.take(Event::Target(target.clone()), Along::default()).await?;
        }
        let merged = match landing {
            true => BTreeSet::new(),
            false => self.tools.repository.merged_into(&target, &here).await?,
        };
        for (id, branch, known) in changes {
            let event = match heads.get(&branch) {
                None => Event::Deleted(id),
                Some(head) if !here.contains_key(&branch) => {
                    match self.unfetched(id, &branch, head) {
                        Some(event) => event,
                        None => continue,
                    }
                }
                Some(head) if *head != known => Event::Pushed { id, head: head.clone() },
                Some(_) if merged.contains(&branch) => Event::Merged(id),
                Some(_) => match self.fetched(id) {
                    Some(event) => event,
                    None => continue,
                },
            };
            self.take(event, Along::default()).await?;
        }
        self.polled = Some(Instant::now());
        Ok(())
    }
}
