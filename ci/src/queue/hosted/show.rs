//! What people see of queues.

use super::ask::Asked;
use super::error::HostedError;
use super::head::{Head, MAX_RUNS};
use super::{Queues, keys};
use crate::model::Time;
use crate::queue::serving::{LaneName, QueueError, Ran, RequestId, decode};
use crate::queue::{Ended, Lane, RunId};

/// Queues that are listed.
const MAX_LISTED: usize = 200;

/// A queue as it is.
#[derive(Clone, Debug)]
pub struct Shown {
    pub name: LaneName,
    pub head: Head,
    /// The lane as its runner wrote it last; `None` before the runner has looked at the repository.
    pub lane: Option<Lane>,
    /// Changes that have left, newest first.
    pub ended: Vec<Ended>,
    /// Requests that no runner has taken in, oldest first.
    pub waiting: Vec<Asked>,
    /// Runs that have ended, newest first, without what they printed.
    pub ran: Vec<Ran>,
    pub now: Time,
}

impl Queues {
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// All queues with their heads, by their names, but those whose head cannot be read.
    pub async fn heads(&self) -> Result<Vec<(LaneName, Head)>, HostedError> {
        let found = self.records.list(keys::HEADS, None, false, MAX_LISTED).await?;
        let head = |it: &crate::storage::Record| -> Result<(LaneName, Head), HostedError> {
            let name = it.key.strip_prefix(keys::HEADS).unwrap_or_default();
            Ok((LaneName::new(name)?, decode(&it.key, &it.value)?))
        };
        let read = |it: &crate::storage::Record| {
            head(it).inspect_err(|error| self.pass_by(&it.key, error)).ok()
        };
        Ok(found.iter().filter_map(read).collect())
    }

    pub async fn names(&self) -> Result<Vec<LaneName>, HostedError> {
        Ok(self.heads().await?.into_iter().map(|(name, _)| name).collect())
    }

    pub async fn head(&self, queue: &LaneName) -> Result<Head, HostedError> {
        let key = keys::head(queue);
        match self.records.get(&key).await? {
            Some(it) => Ok(decode(&key, &it.value)?),
            None => Err(HostedError::NoQueue(queue.as_str().to_owned())),
        }
    }

    /// The lane as its runner wrote it last.
    pub async fn lane_of(&self, queue: &LaneName) -> Result<Option<Lane>, HostedError> {
        Ok(self.kept(queue).lane().await?.0)
    }

    /// `ended`: of so many changes that have left is said how.
    pub async fn show(&self, queue: &LaneName, ended: usize) -> Result<Shown, HostedError> {
        let head = self.head(queue).await?;
        let kept = self.kept(queue);
        let pass_by = |key: &str, error: &QueueError| self.pass_by(key, error);
        Ok(Shown {
            name: queue.clone(),
            head,
            lane: kept.lane().await?.0,
            ended: kept.ended(ended, &pass_by).await?,
            waiting: self.waiting(queue).await?,
            ran: self.ran(queue).await?,
            now: self.clock.now(),
        })
    }

    /// Runs that have ended, newest first, without what they printed, but those that cannot be read.
    pub async fn ran(&self, queue: &LaneName) -> Result<Vec<Ran>, HostedError> {
        let found = self.records.list(&keys::runs(queue), None, true, MAX_RUNS).await?;
        let mut ran = Vec::with_capacity(found.len());
        for it in &found {
            match decode(&it.key, &it.value) {
                Ok(run) => ran.push(run),
                Err(error) => self.pass_by(&it.key, &error),
            }
        }
        Ok(ran)
    }

    /// A run that has ended, with the end of what its check printed.
    pub async fn run_of(&self, queue: &LaneName, run: RunId) -> Result<Ran, HostedError> {
        self.head(queue).await?;
        let (key, log) = (keys::run(queue, run), keys::log(queue, run));
        let found = self.records.get(&key).await?.ok_or(HostedError::NoRun(run.0))?;
        let mut ran: Ran = decode(&key, &found.value)?;
        if let Some(it) = self.records.get(&log).await? {
            ran.log = decode(&log, &it.value)?;
        }
        Ok(ran)
    }

    /// A request, with what became of it.
    pub async fn request(&self, queue: &LaneName, id: RequestId) -> Result<Asked, HostedError> {
        self.head(queue).await?;
        self.asked(queue, id).await?.ok_or(HostedError::NoRequest(id.0))
    }
}
