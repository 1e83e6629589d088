//! What people ask for. A request is durable, has a number that grows, and is answered once: in the step that its runner
//! takes it in with.

use serde::{Deserialize, Serialize};

use super::error::HostedError;
use super::head::short;
use super::{Queues, keys};
use crate::model::Time;
use crate::queue::Branch;
use crate::queue::serving::{
    LaneName, Pending, QueueError, Reply, Request, RequestId, decode, encode, requests,
};
use crate::storage::{Expect, Record, StorageError, Write};

/// Requests that no runner has taken in.
const MAX_WAITING: usize = 1_000;
/// Requests of which is kept what became of them.
const MAX_ASKED: usize = 300;
/// How many of those that are too many are deleted with each new one.
const DELETED: usize = 20;
/// Most numbers that are tried for a request: others may ask in the same millisecond.
const MAX_TRIES: u64 = 1_000;

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub request: Request,
    /// Who asks, for people.
    pub by: String,
}

/// A request, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub id: RequestId,
    pub ask: Ask,
    pub at: Time,
    /// What became of the request; `None`: no runner has taken it in yet.
    pub reply: Option<Reply>,
}

impl Queues {
    /// Leaves a request. It is not lost from then on. What the queue would not take as it is now is refused here.
    pub async fn ask(&self, queue: &LaneName, ask: &Ask) -> Result<RequestId, HostedError> {
        // Nothing says that it was left before.
        self.deposit(queue, ask, &[]).await?.ok_or(HostedError::Restless)
    }

    /// Leaves a request as [`Self::ask`] does, in one write with `once`. Nothing: a record that this expects to be absent is
    /// there, and so the request was left before.
    pub async fn ask_once(
        &self,
        queue: &LaneName,
        ask: &Ask,
        once: &[Write],
    ) -> Result<Option<RequestId>, HostedError> {
        let left = self.deposit(queue, ask, once).await;
        // What was left before may have been taken in by now, at this very moment: then the queue refuses the same.
        match left.is_err() && self.has_any(once).await? {
            true => Ok(None),
            false => left,
        }
    }

    /// Whether a record is there that these writes expect to be absent.
    async fn has_any(&self, once: &[Write]) -> Result<bool, HostedError> {
        for write in once.iter().filter(|it| it.expect == Expect::Absent) {
            if self.records.get(&write.key).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn deposit(
        &self,
        queue: &LaneName,
        ask: &Ask,
        once: &[Write],
    ) -> Result<Option<RequestId>, HostedError> {
        self.head(queue).await?;
        let waiting = self.waiting(queue).await?;
        if waiting.len() >= MAX_WAITING {
            return Err(HostedError::Crowded(MAX_WAITING));
        }
        self.admit(queue, &ask.request, &waiting).await?;
        let ask = Ask { request: bounded(&ask.request), by: short(&ask.by) };
        let now = self.clock.now();
        let (newest, mut old) = self.left(queue).await?;
        // Behind all that were left before, also by a frontend whose clock is ahead: they are taken in this order.
        let first = now.0.max(newest.map_or(0, |it| it.saturating_add(1)));
        for at in first..first.saturating_add(MAX_TRIES) {
            let id = RequestId(at);
            let asked = Asked { id, ask: ask.clone(), at: now, reply: None };
            let value = self.encoded(&keys::request(queue, id), &asked)?;
            let put = |key| Write { key, expect: Expect::Absent, value: Some(value.clone()) };
            let mut writes = once.to_vec();
            writes.extend([put(keys::request(queue, id)), put(inbox(queue, id))]);
            writes.append(&mut old);
            match self.records.write(writes).await {
                Err(StorageError::Conflict(key)) if once.iter().any(|it| it.key == key) => {
                    return Ok(None);
                }
                Err(StorageError::Conflict(_)) => {}
                done => return done.map(|()| Some(id)).map_err(HostedError::from),
            }
        }
        Err(HostedError::Crowded(MAX_WAITING))
    }

    /// Refuses what the lane would not take as it is now: later nobody would hear of it.
    async fn admit(
        &self,
        queue: &LaneName,
        request: &Request,
        waiting: &[Asked],
    ) -> Result<(), HostedError> {
        let Some(lane) = self.kept(queue).lane().await?.0 else { return Ok(()) };
        match request {
            Request::Add { branch, .. } => Ok(lane.admits(branch)?),
            Request::Remove { branch } => {
                let queued = lane.changes.values().any(|it| it.branch == *branch);
                match queued || waiting.iter().any(|it| adds(it, branch)) {
                    true => Ok(()),
                    false => Err(HostedError::NoChange(branch.to_string())),
                }
            }
            Request::Pause { .. } | Request::Resume | Request::Mode(_) => Ok(()),
        }
    }

    /// Requests that no runner has taken in, oldest first, but those that cannot be read.
    pub(super) async fn waiting(&self, queue: &LaneName) -> Result<Vec<Asked>, HostedError> {
        let pass_by = |key: &str, error: &QueueError| self.pass_by(key, error);
        let found = requests::<Asked>(&*self.records, queue, MAX_WAITING, &pass_by).await?;
        Ok(found.into_iter().map(|(_, asked)| asked).collect())
    }

    /// The number of the request that was left last, and what deletes the oldest of those that are not kept.
    async fn left(&self, queue: &LaneName) -> Result<(Option<u64>, Vec<Write>), HostedError> {
        let (prefix, most) = (keys::asked(queue), MAX_ASKED + DELETED);
        let found = self.records.list(&prefix, None, true, most).await?;
        let newest = found.iter().find_map(|it| it.key.strip_prefix(&prefix)?.parse().ok());
        let old = found.into_iter().skip(MAX_ASKED);
        let delete = |it: Record| Write { key: it.key, expect: Expect::Anything, value: None };
        Ok((newest, old.map(delete).collect()))
    }

    /// What became of a request.
    pub async fn asked(
        &self,
        queue: &LaneName,
        id: RequestId,
    ) -> Result<Option<Asked>, HostedError> {
        for key in [keys::request(queue, id), inbox(queue, id)] {
            if let Some(it) = self.records.get(&key).await? {
                return Ok(Some(decode(&key, &it.value)?));
            }
        }
        Ok(None)
    }

    /// The requests that wait to be taken, as the runner of their queue reads them.
    pub(super) async fn to_take(
        &self,
        queue: &LaneName,
        limit: usize,
    ) -> Result<Vec<Pending>, HostedError> {
        let pass_by = |key: &str, error: &QueueError| self.pass_by(key, error);
        let found = requests::<Asked>(&*self.records, queue, limit, &pass_by).await?;
        let pending = |(_, it): (u64, Asked)| Pending { id: it.id, request: it.ask.request };
        Ok(found.into_iter().map(pending).collect())
    }

    /// What answers a request: it is taken out, and what became of it is kept. Nothing where it is answered already.
    pub(super) async fn answer(
        &self,
        queue: &LaneName,
        id: RequestId,
        reply: &Reply,
    ) -> Result<Vec<Write>, HostedError> {
        let key = inbox(queue, id);
        let Some(found) = self.records.get(&key).await? else { return Ok(Vec::new()) };
        let mut asked: Asked = decode(&key, &found.value)?;
        asked.reply = Some(match reply {
            Reply::Done => Reply::Done,
            Reply::Refused(why) => Reply::Refused(short(why)),
        });
        let done = keys::request(queue, id);
        let value = Some(self.encoded(&done, &asked)?);
        Ok(vec![
            Write { key, expect: Expect::Version(found.version), value: None },
            Write { key: done, expect: Expect::Anything, value },
        ])
    }

    pub(super) fn encoded<T: Serialize>(
        &self,
        key: &str,
        document: &T,
    ) -> Result<bytes::Bytes, HostedError> {
        encode(document).map_err(|source| HostedError::Damaged { key: key.to_owned(), source })
    }
}

fn inbox(queue: &LaneName, id: RequestId) -> String {
    format!("{}{:016}", queue.inbox(), id.0)
}

fn adds(asked: &Asked, branch: &Branch) -> bool {
    matches!(&asked.ask.request, Request::Add { branch: added, .. } if added == branch)
}

fn bounded(request: &Request) -> Request {
    match request {
        Request::Pause { why } => Request::Pause { why: short(why) },
        Request::Add { branch, priority } => {
            Request::Add { branch: branch.clone(), priority: (*priority).min(9) }
        }
        other => other.clone(),
    }
}
