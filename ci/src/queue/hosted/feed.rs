//! Who is told what becomes of changes. Each of them is told at its own pace, at least once, by one process of a
//! fleet at a time: the one that has the lease.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_net::causes::chain;
use serde::{Deserialize, Serialize};

use super::error::HostedError;
use super::head::Head;
use super::news::News;
use super::{Queues, keys};
use crate::model::Time;
use crate::queue::serving::{LaneName, decode};
use crate::storage::{Expect, LeaseRecord, RecordTurn, StorageError, Write};

/// The time for which one process tells without being heard of.
const TERM: Duration = Duration::from_secs(30);
/// What is said where it cannot be read how far a feed has come.
const LOST: &str = "a record that cannot be read is written anew: news of merge queues up to here that was not told yet stays untold";
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
    /// Whether this process tells.
    turn: Arc<RecordTurn>,
    /// How far the feed had come when that was read last.
    known: Arc<Mutex<Option<Heard>>>,
}

/// The number of the last news of each queue that were told.
type Heard = BTreeMap<String, u64>;

/// How far a feed has come. It grows only, so that whoever has told something may note that, whose turn it is by then.
#[derive(Default, Serialize, Deserialize)]
struct Cursor {
    /// Who tells, and until when, as earlier versions said it. They read no record without that; nothing here asks for it.
    #[serde(default)]
    holder: String,
    #[serde(default)]
    until: Time,
    heard: Heard,
}

impl Queues {
    /// The news for one who is told, under a name of its own. Who is new begins with what happens from now on.
    pub fn feed(&self, consumer: impl Into<Arc<str>>) -> Feed {
        let consumer = consumer.into();
        let lease = LeaseRecord::new(self.records.clone(), keys::feed_turn(&consumer));
        let turn = Arc::new(lease.turn(&*self.who, TERM));
        Feed { queues: self.clone(), consumer, turn, known: Arc::default() }
    }
}

impl Feed {
    fn key(&self) -> String {
        keys::feed(&self.consumer)
    }

    /// The cursor, and what the next write of it expects. One that cannot be read is none: nobody could mend it but by writing
    /// it anew.
    async fn cursor(&self) -> Result<(Option<Cursor>, Expect), HostedError> {
        let key = self.key();
        let Some(it) = self.queues.records.get(&key).await? else {
            return Ok((None, Expect::Absent));
        };
        Ok((decode::<Cursor>(&key, &it.value).ok(), Expect::Version(it.version)))
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

    /// How far the feed has come. `None`: it is new.
    async fn heard(&self) -> Result<Option<Heard>, HostedError> {
        let (Some(cursor), _) = self.cursor().await? else { return Ok(None) };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor.heard.clone());
        Ok(Some(cursor.heard))
    }

    /// Who is new begins behind what has happened. Where another process was faster, that is as good.
    async fn begin(&self, heads: &[(LaneName, Head)]) -> Result<(), HostedError> {
        let (None, expect) = self.cursor().await? else { return Ok(()) };
        let heard = heads.iter().map(|(name, head)| (name.as_str().to_owned(), head.news));
        let cursor = Cursor { heard: heard.collect(), ..Cursor::default() };
        if self.write(&cursor, expect).await? && expect != Expect::Absent {
            tracing::error!(key = self.key(), "{LOST}");
        }
        Ok(())
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

    /// Takes news as [`Self::take`] does, beginning with another queue for each `first`: none has to wait until the
    /// news of another can be told.
    pub async fn take_from(&self, limit: usize, first: usize) -> Result<Vec<Told>, HostedError> {
        let mut heads = self.queues.heads().await?;
        if self.is_told(&heads) {
            return Ok(Vec::new());
        }
        if self.heard().await?.is_none() {
            self.begin(&heads).await?;
            return Ok(Vec::new());
        }
        if self.is_told(&heads) {
            self.let_go().await;
            return Ok(Vec::new());
        }
        if !self.turn.is_mine().await? {
            return Ok(Vec::new());
        }
        // What another one told before its turn ended is noted by now, and may not have been before.
        let Some(heard) = self.heard().await? else { return Ok(Vec::new()) };
        let first = first % heads.len().max(1);
        heads.rotate_left(first);
        let mut all = Vec::new();
        for (name, head) in &heads {
            if all.len() < limit {
                all.extend(self.of_queue(name, head, &heard, limit - all.len()).await?);
            }
        }
        Ok(all)
    }

    /// Whoever finds the next news need not wait until the lease is over.
    async fn let_go(&self) {
        if let Err(error) = self.turn.give_up().await {
            let consumer = &*self.consumer;
            tracing::info!(
                consumer,
                error = chain(&error),
                "other servers tell no news for some seconds"
            );
        }
    }

    async fn of_queue(
        &self,
        name: &LaneName,
        head: &Head,
        heard: &Heard,
        limit: usize,
    ) -> Result<Vec<Told>, HostedError> {
        let heard = heard.get(name.as_str()).copied().unwrap_or(0);
        if heard >= head.news {
            return Ok(Vec::new());
        }
        let (prefix, after) = (keys::all_news(name), keys::news(name, heard));
        let found = self.queues.records.list(&prefix, Some(&after), false, limit).await?;
        let told = |it: &crate::storage::Record| {
            let number = it.key.strip_prefix(&prefix).and_then(|it| it.parse().ok());
            let (at, news) = decode(&it.key, &it.value).unwrap_or_else(|error| {
                // A step that means nothing: who is told goes on with the next.
                self.queues.pass_by(&it.key, &error);
                (self.queues.clock.now(), Vec::new())
            });
            Told { queue: name.clone(), number: number.unwrap_or(heard + 1), at, news }
        };
        Ok(found.iter().map(told).collect())
    }

    /// Tells something that [`Feed::take`] answered, however long that takes: nobody else tells it meanwhile. Nothing: it
    /// was not begun, or was cut off, because another process tells by now.
    pub async fn telling<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.turn.doing(|| self.tells(), work).await.unwrap_or_else(|_| {
            let consumer = &*self.consumer;
            tracing::warn!(consumer, "whoever tells news could not renew that");
            None
        })
    }

    /// Whether it is this process's turn; its lease is renewed where that is due.
    async fn tells(&self) -> bool {
        self.turn.is_mine().await.unwrap_or_else(|error| {
            let consumer = &*self.consumer;
            tracing::warn!(consumer, error = chain(&error), "it is not known who tells news");
            false
        })
    }

    /// Notes that these were told; without that they come again.
    pub async fn done(&self, told: &Told) -> Result<(), HostedError> {
        for _ in 0..TRIES {
            let (Some(mut cursor), expect) = self.cursor().await? else { return Ok(()) };
            let heard = cursor.heard.entry(told.queue.as_str().to_owned()).or_default();
            if *heard >= told.number {
                return Ok(());
            }
            *heard = told.number;
            if self.write(&cursor, expect).await? {
                return Ok(());
            }
        }
        Err(HostedError::Restless)
    }
}
