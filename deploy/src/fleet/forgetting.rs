//! Agents that are no more: whoever administers says so, or nobody has heard of them for long.

use kiln_cas::records::{Expect, Write};

use super::condition::Condition;
use super::error::FleetError;
use super::kept::KeptAgent;
use super::limits::{FORGOTTEN, MAX_AGENTS};
use super::listing::Filter;
use super::names::check_agent;
use super::store::{MAX_ATTEMPTS, decode};
use super::{Fleet, keys};
use crate::rollouts::machine::Millis;
use crate::rollouts::parts::Place;

impl Fleet {
    /// Forgets an agent, and what it was told, also if that cannot be read. Its name is free again.
    pub async fn remove(&self, place: &Place, name: &str) -> Result<(), FleetError> {
        check_agent(place, name)?;
        match self.forget(place, name, &|_: Option<&KeptAgent>| true).await? {
            true => Ok(()),
            false => Err(FleetError::Unknown { place: place.clone(), name: name.to_owned() }),
        }
    }

    /// Forgets all that were not heard of for [`FORGOTTEN`]; says how many. One that cannot be read stays.
    pub async fn sweep(&self) -> Result<u64, FleetError> {
        let silent = Filter { condition: Some(Condition::Silent), ..Filter::default() };
        let all = self.list_agents(&silent, None, MAX_AGENTS as usize).await?;
        let mut forgotten = 0;
        for it in &all {
            let is_gone =
                |agent: Option<&KeptAgent>| agent.is_some_and(|it| has_been_silent(it, self.now()));
            if is_gone(Some(&it.agent)) {
                // It is read again: it may have been heard just now.
                forgotten += u64::from(self.forget(&it.place, &it.name, &is_gone).await?);
            }
        }
        Ok(forgotten)
    }

    /// `false`: there is none, or none that is meant. `is_meant` is asked with nothing about one that cannot be read.
    async fn forget(
        &self,
        place: &Place,
        name: &str,
        is_meant: &(dyn Fn(Option<&KeptAgent>) -> bool + Sync),
    ) -> Result<bool, FleetError> {
        let key = keys::agent(place, name);
        let gone = |key: String, expect| Write { key, expect, value: None };
        for _ in 0..MAX_ATTEMPTS {
            let Some(found) = self.store.records.get(&key).await? else { return Ok(false) };
            let agent = self.store.readable(decode::<KeptAgent>(&found))?;
            if !is_meant(agent.as_ref()) {
                return Ok(false);
            }
            let writes = vec![
                gone(key.clone(), Expect::Version(found.version)),
                gone(keys::order(place, name), Expect::Anything),
                gone(keys::peer(place, name), Expect::Anything),
                self.counted(-1).await?,
            ];
            if self.store.commit(writes).await? {
                self.sharing.forget(place, name);
                return Ok(true);
            }
        }
        Err(FleetError::Restless)
    }
}

fn has_been_silent(agent: &KeptAgent, now: Millis) -> bool {
    u128::from(now.saturating_sub(agent.heard)) >= FORGOTTEN.as_millis()
}
