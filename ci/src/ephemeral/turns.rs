//! Who works on an environment: one server of a fleet at a time, and one task of it, by a lease of each environment. What is
//! noted of an environment is fenced all the same: whoever begins swaps its record, and names himself in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::lease::Standing;
use tokio::sync::OwnedMutexGuard;

use crate::storage::{LeaseRecord, RecordTurn, Records, StorageError};

const TURNS: &str = "preview/turn/";
/// For so long one server works on an environment without being heard of.
const TERM: Duration = Duration::from_secs(30);

/// The record that says who works on an environment.
pub fn key(name: &str) -> String {
    format!("{TURNS}{name}")
}

/// What one server knows of who works on environments.
pub struct Turns {
    records: Arc<dyn Records>,
    who: String,
    /// By the environment's name. For how long a lease was not renewed is seen from when it was looked at first.
    known: Mutex<BTreeMap<String, Arc<Known>>>,
}

struct Known {
    turn: RecordTurn,
    /// Tasks of this server have the lease together.
    alone: Arc<tokio::sync::Mutex<()>>,
}

/// Nobody else works on an environment. Dropped, it leaves the lease to end by itself.
pub struct Working {
    known: Arc<Known>,
    name: String,
    epoch: u64,
    _alone: OwnedMutexGuard<()>,
}

impl Turns {
    /// `who` is this process's alone, and not empty.
    pub fn new(records: Arc<dyn Records>, who: String) -> Self {
        Self { records, who, known: Mutex::default() }
    }

    fn of(&self, name: &str) -> Arc<Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let lease = LeaseRecord::new(self.records.clone(), key(name));
            Arc::new(Known { turn: lease.turn(self.who.as_str(), TERM), alone: Arc::default() })
        };
        known.entry(name.to_owned()).or_insert_with(new).clone()
    }

    /// Begins to work on one. `None`: somebody else does, here or at another server.
    pub async fn take(&self, name: &str) -> Result<Option<Working>, StorageError> {
        let known = self.of(name);
        let Ok(alone) = known.alone.clone().try_lock_owned() else { return Ok(None) };
        let Standing::Held(epoch) = known.turn.take().await? else { return Ok(None) };
        Ok(Some(Working { known, name: name.to_owned(), epoch, _alone: alone }))
    }

    /// Forgets those that are not there, but what is worked on.
    pub fn keep(&self, is_there: impl Fn(&str) -> bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, it| is_there(name) || Arc::strong_count(it) > 1);
    }
}

impl Working {
    /// Whether nobody else has worked on it since this began, nor may for now.
    pub async fn is_mine(&self) -> bool {
        match self.known.turn.take().await {
            Ok(standing) => standing == Standing::Held(self.epoch),
            Err(error) => {
                let (preview, error) = (self.name.as_str(), chain(&error));
                tracing::warn!(preview, error, "it is not known who works on an environment");
                false
            }
        }
    }

    /// Does something that takes its time. Nothing: it was not begun, or was cut off, because another one may work on the
    /// environment by now.
    pub async fn doing<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.known.turn.doing(|| self.is_mine(), work).await.unwrap_or_else(|_| {
            let preview = self.name.as_str();
            tracing::warn!(preview, "whoever works on an environment could not renew that");
            None
        })
    }

    /// Whoever works on it next need not wait until the lease is over.
    pub async fn end(self) {
        if let Err(error) = self.known.turn.give_up().await {
            let (preview, error) = (self.name.as_str(), chain(&error));
            tracing::info!(preview, error, "nobody else works on an environment for some seconds");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use tokio::time::{Instant, advance, sleep, timeout};

    use super::*;
    use crate::storage::memory::Memory;

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_while_its_lease_is_renewed_and_ends_where_nobody_answers() {
        let memory = Memory::default();
        let turns = Turns::new(Arc::new(memory.clone()), "one".to_owned());
        let working = turns.take("a").await.unwrap().expect("nobody else works on it");
        assert_eq!(working.doing(sleep(3 * TERM)).await, Some(()));
        assert!(working.is_mine().await);
        memory.fall_silent();
        let began = Instant::now();
        let done = timeout(2 * TERM, working.doing(pending::<()>())).await;
        assert_eq!(done, Ok(None), "it goes on");
        assert!(began.elapsed() < TERM, "another one may work on it by then");
    }
    #[tokio::test(start_paused = true)]
    async fn no_further_step_is_taken_once_the_lease_is_over() {
        // Chance would decide about each.
        for _ in 0..20 {
            let memory = Memory::default();
            let turns = Turns::new(Arc::new(memory.clone()), "one".to_owned());
            let working = turns.take("a").await.unwrap().expect("nobody else works on it");
            let went_on = Cell::new(false);
            let work = async {
                sleep(TERM).await;
                went_on.set(true);
            };
            let pause = async {
                memory.fall_silent();
                advance(2 * TERM).await;
            };
            let (done, ()) = tokio::join!(working.doing(work), pause);
            assert_eq!((done, went_on.get()), (None, false));
        }
    }
}
