//! What an agent is to run. An order is told by writing it down; the agent keeps a question open at any frontend, and
//! hears it within a second.

use std::time::Duration;

use kiln_cas::records::{Expect, Version};
use tokio::time::Instant;

use super::error::FleetError;
use super::kept::{KeptAgent, KeptOrder};
use super::store::{MAX_ATTEMPTS, as_found, put};
use super::waking::LOOK;
use super::{Fleet, keys};
use crate::agent::Speaker;
use crate::oci::ContentDigest;
use crate::rollouts::machine::Generation;
use crate::rollouts::parts::{Order, Place, Told};

/// How long a question is kept open.
pub const MAX_WAIT: Duration = Duration::from_secs(25);

impl Fleet {
    /// Tells an agent. The same again changes nothing.
    pub async fn tell_agent(&self, name: &str, order: &Order) -> Result<Told, FleetError> {
        let place = &order.place;
        let key = keys::order(place, name);
        for _ in 0..MAX_ATTEMPTS {
            let found = self.store.get::<KeptOrder>(&key).await?;
            let before = found.as_ref().map(|(it, _)| it);
            if let Some(before) = before {
                if before.generation > order.generation {
                    return Ok(Told::Stale(before.generation));
                }
                if before.generation == order.generation {
                    let same = before.version == order.version;
                    return if same { Ok(Told::Accepted) } else { Err(FleetError::Ambiguous) };
                }
            }
            if self.store.get::<KeptAgent>(&keys::agent(place, name)).await?.is_none() {
                let (place, name) = (place.clone(), name.to_owned());
                return Err(FleetError::Unknown { place, name });
            }
            let kept = KeptOrder {
                version: order.version.clone(),
                generation: order.generation,
                by: order.rollout.clone(),
                at: self.now(),
                earlier: KeptOrder::followed(before, &order.version),
            };
            let writes = vec![
                put(key.clone(), as_found(&found), &kept)?,
                put(keys::told(place), Expect::Anything, &order.generation)?,
            ];
            if self.store.commit(writes).await? {
                self.waking.wake(&key);
                return Ok(Told::Accepted);
            }
        }
        Err(FleetError::Restless)
    }

    /// Tells an agent what a person wants it to run: newer than all that it was told, or says that it obeys.
    pub async fn tell_by_hand(
        &self,
        place: &Place,
        name: &str,
        version: &ContentDigest,
        by: &str,
    ) -> Result<Generation, FleetError> {
        for _ in 0..MAX_ATTEMPTS {
            let listed = self.show_agent(place, name).await?;
            // What it obeys may be newer than what is written down: of somebody who was forgotten meanwhile.
            let obeys = listed.agent.status.accepted.max(listed.agent.status.settled);
            let told = listed.order.map(|it| it.generation).unwrap_or_default();
            let before = told.max(obeys);
            let generation = Generation { change: before.change.saturating_add(1), ..before };
            let order = Order {
                place: place.clone(),
                version: version.clone(),
                generation,
                rollout: by.to_owned(),
            };
            match self.tell_agent(name, &order).await {
                Ok(Told::Accepted) => return Ok(generation),
                Ok(Told::Stale(_)) | Err(FleetError::Ambiguous) => {}
                Err(error) => return Err(error),
            }
        }
        Err(FleetError::Restless)
    }

    pub async fn order_of(
        &self,
        place: &Place,
        name: &str,
    ) -> Result<Option<KeptOrder>, FleetError> {
        Ok(self.store.get(&keys::order(place, name)).await?.map(|(it, _)| it))
    }

    /// The order for an agent: at once if its generation is another than `known`, else as soon as there is one, or none
    /// after `wait`.
    pub async fn next_order(
        &self,
        speaker: &Speaker,
        account: &str,
        known: Generation,
        wait: Duration,
    ) -> Result<Option<KeptOrder>, FleetError> {
        self.speaks(speaker, account).await?;
        let until = Instant::now() + wait.min(MAX_WAIT);
        let place = &speaker.place;
        let bell = self.waking.bell(&keys::order(place, &speaker.name));
        let mut seen = None;
        loop {
            // Before the look: what is told in between wakes.
            let told = bell.notified();
            let version = self.look(place).await?;
            if seen != Some(version) {
                seen = Some(version);
                let order = self.order_of(place, &speaker.name).await?;
                if let Some(order) = order.filter(|it| it.generation != known) {
                    return Ok(Some(order));
                }
            }
            if Instant::now() >= until || self.waking.is_closed() {
                return Ok(None);
            }
            tokio::select! {
                () = told => seen = None,
                () = tokio::time::sleep_until(until.min(Instant::now() + LOOK)) => {}
            }
        }
    }

    async fn look(&self, place: &Place) -> Result<Option<Version>, FleetError> {
        if let Some(version) = self.waking.seen(place) {
            return Ok(version);
        }
        let version = self.store.records.get(&keys::told(place)).await?.map(|it| it.version);
        self.waking.note(place, version);
        Ok(version)
    }

    /// Whether this agent was told this version, and may so have its content.
    pub async fn may_fetch(
        &self,
        speaker: &Speaker,
        account: &str,
        version: &ContentDigest,
    ) -> Result<(), FleetError> {
        self.speaks(speaker, account).await?;
        let order = self.order_of(&speaker.place, &speaker.name).await?;
        match order.is_some_and(|it| it.may_be_fetched(version)) {
            true => Ok(()),
            false => Err(FleetError::NotTold(version.to_string())),
        }
    }
}
