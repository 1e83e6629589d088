//! Who is told what becomes of changes. Each of them is told at its own pace, at least once, by one process of a
//! fleet at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_net::causes::chain;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::error::HostedError;
use super::head::Head;
use super::news::News;
use super::{Queues, keys};
use crate::model::Time;
use crate::queue::serving::{LaneName, decode};
use crate::storage::{Expect, StorageError, Write};

/// For so long one process tells without being heard of.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is heard of while it tells something.
const RENEWS: Duration = Duration::from_secs(10);
/// How often something is tried that others change, too.
const TRIES: u32 = 8;

/// What one step meant; nothing where that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub queue: LaneName,
    pub number: u64,
    pub at: Time,
    pub news: Vec<News>,
}

/// The news for one who is told. Clones are the same.
#[derive(Clone)]
pub struct Feed {
    queues: Queues,
    consumer: Arc<str>,
    /// How far it had come when that was read last.
    known: Arc<Mutex<Option<Heard>>>,
}

/// The number of the last news of each queue that were told.
type Heard = BTreeMap<String, u64>;

/// How far it has come.
#[derive(Default, Serialize, Deserialize)]
struct Cursor {
    holder: String,
    until: Time,
    heard: Heard,
}

impl Queues {
    /// The news for one who is told, under a name of its own. Who is new begins with what happens from now on.
    pub fn feed(&self, consumer: impl Into<Arc<str>>) -> Feed {
        Feed { queues: self.clone(), consumer: consumer.into(), known: Arc::default() }
    }
}

impl Feed {
    fn key(&self) -> String {
        keys::feed(&self.consumer)
    }

    async fn cursor(&self) -> Result<Option<(Cursor, Expect)>, HostedError> {
        let key = self.key();
        let Some(it) = self.queues.records.get(&key).await? else { return Ok(None) };
        Ok(Some((decode(&key, &it.value)?, Expect::Version(it.version))))
    }

    /// Answers whether nobody else wrote meanwhile.
    async fn write(&self, cursor: &Cursor, expect: Expect) -> Result<bool, HostedError> {
        let key = self.key();
        let write = Write { value: Some(self.queues.encoded(&key, cursor)?), key, expect };
        match self.queues.records.write(vec![write]).await {
            Err(StorageError::Conflict(_)) => Ok(false),
            written => Ok(written.map(|()| true)?),
        }
    }

    /// Whether all is told, as far as that is known here: it never becomes less, so that it need not be read again.
    fn is_told(&self, heads: &[(LaneName, Head)]) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(heard) = known.as_ref() else { return false };
        heads.iter().all(|(name, head)| heard.get(name.as_str()).is_some_and(|it| *it >= head.news))
    }

    /// What was not told yet, of each queue the oldest first, about `limit` of them. Nothing as well where another
    /// process tells.
    pub async fn take(&self, limit: usize) -> Result<Vec<Told>, HostedError> {
        self.take_from(limit, 0).await
    }

    /// The same, beginning with another queue for each `first`: none has to wait until the news of another can be told.
    pub async fn take_from(&self, limit: usize, first: usize) -> Result<Vec<Told>, HostedError> {
        let mut heads = self.queues.heads().await?;
        if self.is_told(&heads) {
            return Ok(Vec::new());
        }
        let first = first % heads.len().max(1);
        heads.rotate_left(first);
        let now = self.queues.clock.now();
        let Some((mut cursor, expect)) = self.cursor().await? else {
            let heard = heads.iter().map(|(name, head)| (name.as_str().to_owned(), head.news));
            let cursor = Cursor { heard: heard.collect(), ..Cursor::default() };
            self.write(&cursor, Expect::Absent).await?;
            return Ok(Vec::new());
        };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor.heard.clone());
        let own = cursor.holder == *self.queues.who;
        // A lease that ends after longer than it lasts was written by a clock that has jumped.
        let holds = now < cursor.until && cursor.until.since(now) <= LEASE * 2;
        if !own && holds {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for (name, head) in &heads {
            if all.len() < limit {
                all.extend(self.of_queue(name, head, &cursor, limit - all.len()).await?);
            }
        }
        if all.is_empty() {
            return Ok(all);
        }
        cursor.holder = self.queues.who.to_string();
        cursor.until = now.plus(LEASE);
        match self.write(&cursor, expect).await? {
            true => Ok(all),
            false => Ok(Vec::new()),
        }
    }

    async fn of_queue(
        &self,
        name: &LaneName,
        head: &Head,
        cursor: &Cursor,
        limit: usize,
    ) -> Result<Vec<Told>, HostedError> {
        let heard = cursor.heard.get(name.as_str()).copied().unwrap_or(0);
        if heard >= head.news {
            return Ok(Vec::new());
        }
        let (prefix, after) = (keys::all_news(name), keys::news(name, heard));
        let found = self.queues.records.list(&prefix, Some(&after), false, limit).await?;
        let told = |it: &crate::storage::Record| {
            let number = it.key.strip_prefix(&prefix).and_then(|it| it.parse().ok());
            let (at, news) = decode(&it.key, &it.value).unwrap_or_else(|error| {
                // A step that means nothing: who is told goes on with the next.
                self.queues.leave_out(&it.key, &error);
                (self.queues.clock.now(), Vec::new())
            });
            Told { queue: name.clone(), number: number.unwrap_or(heard + 1), at, news }
        };
        Ok(found.iter().map(told).collect())
    }

    /// Tells something that [`Feed::take`] answered, however long that takes: nobody else tells it meanwhile. Nothing: it
    /// was cut off, because another process tells by now.
    pub async fn telling<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.until_lost() => None,
        }
    }

    /// Renews the lease, until it is another's or cannot be renewed for as long as it lasts.
    async fn until_lost(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEWS).await;
            match self.renew().await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => return,
                Err(error) if renewed.elapsed() < LEASE => {
                    tracing::warn!(error = chain(&error), "it is not known who tells news");
                }
                Err(_) => return,
            }
        }
    }

    /// Answers whether this process still tells.
    async fn renew(&self) -> Result<bool, HostedError> {
        for _ in 0..TRIES {
            let Some((mut cursor, expect)) = self.cursor().await? else { return Ok(false) };
            if cursor.holder != *self.queues.who {
                return Ok(false);
            }
            cursor.until = self.queues.clock.now().plus(LEASE);
            if self.write(&cursor, expect).await? {
                return Ok(true);
            }
        }
        Err(HostedError::Restless)
    }

    /// These were told; else they come again.
    pub async fn done(&self, told: &Told) -> Result<(), HostedError> {
        for _ in 0..TRIES {
            let Some((mut cursor, expect)) = self.cursor().await? else { return Ok(()) };
            let heard = cursor.heard.entry(told.queue.as_str().to_owned()).or_default();
            if *heard >= told.number {
                return Ok(());
            }
            *heard = told.number;
            if cursor.holder == *self.queues.who {
                cursor.until = self.queues.clock.now().plus(LEASE);
            }
            if self.write(&cursor, expect).await? {
                return Ok(());
            }
        }
        Err(HostedError::Restless)
    }
}
