//! What people ask of a lane, and what they are shown. It may run elsewhere: requests lie in records until it has
//! taken them in.

use std::sync::Arc;

use kiln_net::Unread;
use serde::{Deserialize, Serialize};

use super::error::QueueError;
use super::inbox;
use super::kept::{Kept, LaneName, encode};
use crate::model::Time;
use crate::queue::{Branch, Change, Ended, Lane, Mode};
use crate::storage::{Expect, Records, StorageError, Write};

/// Requests that nobody has taken in.
const MAX_REQUESTS: usize = 1_000;
/// Most numbers that are tried for a request: others may ask in the same millisecond.
const MAX_TRIES: u64 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Add { branch: Branch, priority: u8 },
    Remove { branch: Branch },
    Pause { why: String },
    Resume,
    Mode(Mode),
}

/// What is known of a branch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// The branch was asked for, and is not taken in yet.
    Asked,
    Queued(Change),
    Ended(Ended),
}

/// Takes requests to a queue and tells what is known of changes. Clones share its records.
#[derive(Clone)]
pub struct Desk {
    kept: Kept,
    unread: Arc<Unread>,
}

impl Desk {
    pub fn new(records: Arc<dyn Records>, name: LaneName) -> Self {
        Self { kept: Kept { records, name }, unread: Arc::default() }
    }

    /// Leaves a request. It is not lost from then on. What the lane would not take as it is now is refused here: later
    /// nobody would hear of it.
    pub async fn ask(&self, request: &Request, now: Time) -> Result<(), QueueError> {
        if let Request::Add { branch, .. } = request
            && let Some(lane) = self.lane().await?
        {
            lane.admits(branch)?;
        }
        let inbox = self.kept.name.inbox();
        let waiting = self.kept.records.list(&inbox, None, false, MAX_REQUESTS).await?;
        if waiting.len() >= MAX_REQUESTS {
            return Err(QueueError::Crowded(MAX_REQUESTS));
        }
        let value =
            encode(request).map_err(|source| QueueError::Damaged { key: inbox.clone(), source })?;
        for at in now.0..now.0 + MAX_TRIES {
            let write = Write {
                key: format!("{inbox}{at:016}"),
                expect: Expect::Absent,
                value: Some(value.clone()),
            };
            match self.kept.records.write(vec![write]).await {
                Err(StorageError::Conflict(_)) => {}
                other => return Ok(other?),
            }
        }
        Err(QueueError::Crowded(MAX_REQUESTS))
    }

    /// The lane as it is; nothing where it has never run.
    pub async fn lane(&self) -> Result<Option<Lane>, QueueError> {
        Ok(self.kept.lane().await?.0)
    }

    /// Changes that have left, newest first, but those that cannot be read.
    pub async fn ended(&self, limit: usize) -> Result<Vec<Ended>, QueueError> {
        let pass_by = |key: &str, error: &QueueError| {
            self.unread.pass_by(key, error);
        };
        self.kept.ended(limit, &pass_by).await
    }

    /// Requests that were not taken in yet, oldest first, but those that cannot be read.
    pub async fn requests(&self) -> Result<Vec<Request>, QueueError> {
        let pass_by = |key: &str, error: &QueueError| {
            self.unread.pass_by(key, error);
        };
        let Kept { records, name } = &self.kept;
        let found = inbox::requests::<Request>(&**records, name, MAX_REQUESTS, &pass_by).await?;
        Ok(found.into_iter().map(|(_, request)| request).collect())
    }

    /// What is known of a branch: that it waits, or how it left the last time.
    pub async fn show(&self, branch: &Branch) -> Result<Shown, QueueError> {
        let asked =
            |it: &Request| matches!(it, Request::Add { branch: asked, .. } if asked == branch);
        if self.requests().await?.iter().any(asked) {
            return Ok(Shown::Asked);
        }
        let queued = self
            .lane()
            .await?
            .and_then(|it| it.changes.into_values().find(|it| it.branch == *branch));
        if let Some(change) = queued {
            return Ok(Shown::Queued(change));
        }
        let ended = self.ended(usize::MAX).await?.into_iter().find(|it| it.branch == *branch);
        ended.map(Shown::Ended).ok_or_else(|| QueueError::Unknown(branch.to_string()))
    }
}
