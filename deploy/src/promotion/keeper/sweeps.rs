//! The environments in which something happens by itself just now. One sweep goes on with each at a time, in this process
//! and in all others: those of a fleet share a lease of each environment.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_cas::records::SharedRecords;
use kiln_cas::records::lease::{LeaseRecord, RecordTurn};
use kiln_net::causes::chain;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::error::PromotionError;
use super::keys;

/// Environments that are gone on with at once: each may run the program of a check.
const AT_ONCE: usize = 8;
/// For so long one process goes on with an environment without being heard of.
const TERM: Duration = Duration::from_secs(30);

pub struct Sweeps {
    /// Environments that are gone on with here, and those that wait for their slot.
    open: Mutex<HashSet<String>>,
    /// Slots, of which whoever goes on with an environment holds one. It is never closed.
    slots: Semaphore,
    records: SharedRecords,
    /// This process, among all that share the records.
    who: String,
    /// This process's part in the lease of each environment, by name. For how long one was not renewed is seen from when it
    /// was looked at first.
    turns: Mutex<HashMap<String, Arc<RecordTurn>>>,
}

/// Keeps others from going on with an environment until it is dropped.
struct Taken<'a> {
    sweeps: &'a Sweeps,
    environment: &'a str,
}

impl Sweeps {
    pub fn new(records: SharedRecords) -> Self {
        let who = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        let (open, turns, slots) = (Mutex::default(), Mutex::default(), Semaphore::new(AT_ONCE));
        Self { open, slots, records, who, turns }
    }

    /// Does what there is to do in an environment. Nothing is done where somebody else is at it, here or in another process,
    /// and no more where another process may be, or where it has taken longer than `most`: what never ends would keep all
    /// others from the environment.
    pub async fn alone(
        &self,
        environment: &str,
        most: Duration,
        work: impl Future<Output = Result<(), PromotionError>>,
    ) -> Result<(), PromotionError> {
        let Some(_taken) = self.take(environment) else { return Ok(()) };
        let _slot = self.slots.acquire().await;
        let turn = self.turn(environment);
        if !turn.is_mine().await? {
            return Ok(());
        }
        let done = tokio::select! {
            biased;
            // First, so that after a pause of the whole process no further step is taken in a turn that is over.
            () = until_lost(&turn, environment) => Ok(()),
            done = work => done,
            () = sleep(most) => {
                tracing::warn!(environment, "what happens by itself here does not end, and begins anew");
                Ok(())
            }
        };
        // Whoever goes on with it next need not wait until the lease is over.
        let given_up = turn.give_up().await;
        done?;
        Ok(given_up?)
    }

    /// `None`: an earlier sweep is not done with this environment.
    fn take<'a>(&'a self, environment: &'a str) -> Option<Taken<'a>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Made only where it is new: what is made gives the environment back when it is dropped.
        open.insert(environment.to_owned()).then(|| Taken { sweeps: self, environment })
    }

    fn turn(&self, environment: &str) -> Arc<RecordTurn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let lease = LeaseRecord::new(self.records.clone(), keys::turn(environment));
            Arc::new(lease.turn(self.who.as_str(), TERM))
        };
        turns.entry(environment.to_owned()).or_insert_with(new).clone()
    }

    /// Forgets this process's part in the leases of environments that are not there, but where something happens just now.
    pub fn keep(&self, is_there: impl Fn(&str) -> bool) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|environment, turn| is_there(environment) || Arc::strong_count(turn) > 1);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut open = self.sweeps.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(self.environment);
    }
}

/// Returns before another process may go on with an environment, also where nobody answers who asks.
async fn until_lost(turn: &RecordTurn, environment: &str) {
    let may = || async {
        turn.is_mine().await.unwrap_or_else(|error| {
            let error = chain(&error);
            tracing::warn!(environment, error, "it is not known who goes on with an environment");
            false
        })
    };
    if turn.until_lost(may).await.is_err() {
        tracing::warn!(environment, "whoever goes on with an environment could not renew that");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use kiln_cas::records::{Expect, Records as _, Write};
    use kiln_cas::stores::MemoryRecords;
    use tokio::time::advance;

    use super::*;

    const MOST: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn environments_that_are_not_there_are_forgotten() {
        let sweeps = Sweeps::new(Arc::new(MemoryRecords::default()));
        let known = || {
            let mut names: Vec<_> = sweeps.turns.lock().unwrap().keys().cloned().collect();
            names.sort_unstable();
            names
        };
        for environment in ["dev", "gone"] {
            sweeps.alone(environment, MOST, async { Ok(()) }).await.unwrap();
        }
        let work = async {
            sweeps.keep(|environment| environment == "dev");
            assert_eq!(known(), ["busy", "dev"], "its lease is renewed");
            Ok(())
        };
        sweeps.alone("busy", MOST, work).await.unwrap();
        sweeps.keep(|environment| environment == "dev");
        assert_eq!(known(), ["dev"]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_further_step_is_taken_once_another_process_has_the_lease() {
        // Chance would decide about each.
        for _ in 0..20 {
            let records = Arc::new(MemoryRecords::default());
            let sweeps = Sweeps::new(records.clone());
            let went_on = Cell::new(false);
            let work = async {
                sleep(TERM).await;
                went_on.set(true);
                Ok(())
            };
            let pause = async {
                let other = br#"{"holder":"other","epoch":2,"millis":30000}"#.to_vec();
                let (key, expect) = (keys::turn("dev"), Expect::Anything);
                let write = Write { key, expect, value: Some(other.into()) };
                records.write(vec![write]).await.unwrap();
                advance(2 * TERM).await;
            };
            let (done, ()) = tokio::join!(sweeps.alone("dev", MOST, work), pause);
            done.unwrap();
            assert!(!went_on.get());
        }
    }
}
