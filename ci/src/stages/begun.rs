//! What was begun for an attempt, so that whoever goes on with it after a crash begins nothing a second time.

use std::sync::Arc;
use std::time::Duration;

use kiln_net::Unread;
use serde::{Deserialize, Serialize};

use crate::model::Time;
use crate::pipelines::{RunnerError, TaskKey};
use crate::services::Clock;
use crate::storage::{Expect, Record, Records, StorageError, Write};

const BEGUN: &str = "stages/begun/";
/// How often a record is tried to be changed while others change it, too.
const TRIES: usize = 16;
/// How long an attempt is remembered: much longer than any run of a pipeline takes.
const KEPT: Duration = Duration::from_secs(60 * 24 * 3600);
/// Records that are read at once when old ones are looked for.
const PAGE: usize = 500;
/// How often it is looked whether an attempt is to be ended.
pub const LOOK: Duration = Duration::from_secs(1);

/// One attempt at a stage, and what it began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Begun {
    pub at: Time,
    /// The name of what was begun: an action's digest, a rollout. `None`: nothing yet.
    pub what: Option<String>,
    /// Whether somebody wants the attempt to end.
    pub cancelled: bool,
}

/// All attempts, over the records that all frontends share.
#[derive(Clone)]
pub struct Ledger {
    records: Arc<dyn Records>,
    clock: Arc<dyn Clock>,
    unread: Arc<Unread>,
}

fn key_of(task: &TaskKey) -> String {
    format!("{BEGUN}{task}")
}

pub(super) fn unavailable(error: StorageError) -> RunnerError {
    RunnerError { what: "what is known of stages".to_owned(), source: Some(Box::new(error)) }
}

/// Errors: one that cannot be read may be of a newer server, and say what must not begin a second time.
fn decode(stored: &Record) -> Result<Begun, RunnerError> {
    serde_json::from_slice(&stored.value).map_err(|source| RunnerError {
        what: format!("the record {}", stored.key),
        source: Some(Box::new(source)),
    })
}

impl Ledger {
    pub fn new(records: Arc<dyn Records>, clock: Arc<dyn Clock>) -> Self {
        Self { records, clock, unread: Arc::default() }
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    pub async fn read(&self, task: &TaskKey) -> Result<Begun, RunnerError> {
        let found = self.records.get(&key_of(task)).await.map_err(unavailable)?;
        Ok(found.as_ref().map(decode).transpose()?.unwrap_or_default())
    }

    /// Notes that something begins, before it does. What was noted first holds.
    pub async fn begin(&self, task: &TaskKey, what: &str) -> Result<Begun, RunnerError> {
        let read = |stored: &Record| decode(stored).map(Some);
        let step = |begun: &mut Begun| {
            if begun.what.is_none() && !begun.cancelled {
                begun.what = Some(what.to_owned());
            }
        };
        self.change(task, read, step).await
    }

    /// Notes that it is to end, also before it has begun, and where it cannot be read what has begun: nothing does then.
    pub async fn cancel(&self, task: &TaskKey) -> Result<Begun, RunnerError> {
        let read = |stored: &Record| Ok(self.readable(stored));
        self.change(task, read, |begun| begun.cancelled = true).await
    }

    /// Returns when an attempt is to end. Where that cannot be asked for now, it is asked again.
    pub async fn cancelled(&self, task: &TaskKey) {
        loop {
            match self.read(task).await {
                Ok(begun) if begun.cancelled => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "whether a stage is to end is not known"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// `read`: `None` of a record that counts as one that is not there.
    async fn change(
        &self,
        task: &TaskKey,
        read: impl Fn(&Record) -> Result<Option<Begun>, RunnerError>,
        step: impl Fn(&mut Begun),
    ) -> Result<Begun, RunnerError> {
        let key = key_of(task);
        for _ in 0..TRIES {
            let found = self.records.get(&key).await.map_err(unavailable)?;
            let before = found.as_ref().map(&read).transpose()?.flatten();
            let new = || Begun { at: self.clock.now(), ..Begun::default() };
            let mut begun = before.clone().unwrap_or_else(new);
            step(&mut begun);
            if before.as_ref() == Some(&begun) {
                return Ok(begun);
            }
            let expect = found.map_or(Expect::Absent, |it| Expect::Version(it.version));
            let value = serde_json::to_vec(&begun).map_err(|source| RunnerError {
                what: "a record of a stage".to_owned(),
                source: Some(Box::new(source)),
            })?;
            let write = Write { key: key.clone(), expect, value: Some(value.into()) };
            match self.records.write(vec![write]).await {
                Ok(()) => return Ok(begun),
                Err(StorageError::Conflict(_)) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(unavailable(StorageError::Conflict(key)))
    }

    /// `None`: it cannot be read, which the log says.
    fn readable(&self, stored: &Record) -> Option<Begun> {
        self.unread.readable(&stored.key, decode(stored))
    }

    /// Forgets attempts that began long ago. Says how many. What cannot be read stays.
    pub async fn tidy(&self) -> Result<usize, StorageError> {
        let (mut after, mut forgotten) = (None::<String>, 0);
        loop {
            let page = self.records.list(BEGUN, after.as_deref(), false, PAGE).await?;
            after = page.last().map(|it| it.key.clone());
            let is_last = page.len() < PAGE;
            let now = self.clock.now();
            // One that cannot be read may have begun just now.
            let is_old = |begun: Begun| now.since(begun.at) > KEPT;
            let old = page.into_iter().filter(|it| self.readable(it).is_some_and(is_old));
            let gone: Vec<_> = old
                .map(|it| Write { key: it.key, expect: Expect::Version(it.version), value: None })
                .collect();
            forgotten += gone.len();
            let written = if gone.is_empty() { Ok(()) } else { self.records.write(gone).await };
            match written {
                Ok(()) | Err(StorageError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
            if is_last {
                return Ok(forgotten);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestClock, key};
    use super::*;
    use crate::storage::memory::Memory;

    fn ledger() -> (Ledger, TestClock, Memory) {
        let (clock, memory) = (TestClock::default(), Memory::default());
        (Ledger::new(Arc::new(memory.clone()), Arc::new(clock.clone())), clock, memory)
    }

    #[tokio::test]
    async fn what_was_begun_first_holds_and_what_is_cancelled_does_not_begin() {
        let (ledger, ..) = ledger();
        assert_eq!(ledger.begin(&key(1), "a").await.unwrap().what.as_deref(), Some("a"));
        assert_eq!(ledger.begin(&key(1), "b").await.unwrap().what.as_deref(), Some("a"));
        let cancelled = ledger.cancel(&key(1)).await.unwrap();
        assert!(cancelled.cancelled && cancelled.what.as_deref() == Some("a"));
        ledger.cancelled(&key(1)).await;
        ledger.cancel(&key(2)).await.unwrap();
        assert_eq!(ledger.begin(&key(2), "b").await.unwrap().what, None);
    }

    #[tokio::test]
    async fn old_attempts_are_forgotten_and_others_are_not() {
        let (ledger, clock, memory) = ledger();
        ledger.begin(&key(1), "a").await.unwrap();
        clock.pass(KEPT);
        ledger.begin(&key(2), "b").await.unwrap();
        clock.pass(Duration::from_secs(1));
        // The record cannot be read. A newer server may have written it just now, so it is kept.
        let (key_3, value) = (key_of(&key(3)), Some("no attempt".into()));
        let odd = Write { key: key_3, expect: Expect::Absent, value };
        memory.write(vec![odd]).await.unwrap();
        assert_eq!(ledger.tidy().await.unwrap(), 1);
        assert_eq!(memory.records(), 2);
        assert_eq!(ledger.read(&key(2)).await.unwrap().what.as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn what_cannot_be_read_begins_nothing_a_second_time() {
        let (ledger, clock, memory) = ledger();
        clock.pass(2 * KEPT);
        let value = Some("no attempt".into());
        let odd = Write { key: key_of(&key(1)), expect: Expect::Absent, value };
        memory.write(vec![odd]).await.unwrap();
        assert!(ledger.read(&key(1)).await.is_err());
        assert!(ledger.begin(&key(1), "b").await.is_err());
        // A stage whose record cannot be read may be cancelled all the same, and does not begin after that.
        assert!(ledger.cancel(&key(1)).await.unwrap().cancelled);
        assert_eq!(ledger.begin(&key(1), "b").await.unwrap().what, None);
        assert_eq!(ledger.tidy().await.unwrap(), 0, "it is not taken for one of long ago");
    }
}
