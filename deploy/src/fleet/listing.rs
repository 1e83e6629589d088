//! Agents for people, and figures of them.

use std::collections::{BTreeMap, HashMap};

use super::condition::Condition;
use super::error::FleetError;
use super::kept::{KeptAgent, KeptOrder};
use super::limits::MAX_AGENTS;
use super::names::check_agent;
use super::store::{MAX_PAGE, decode};
use super::{Fleet, keys};
use crate::rollouts::machine::Millis;
use crate::rollouts::parts::Place;

/// Says which agents are listed; `None` in a field: whatever it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub service: Option<String>,
    pub environment: Option<String>,
    pub condition: Option<Condition>,
}

/// An agent with what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub place: Place,
    pub name: String,
    pub agent: KeptAgent,
    pub order: Option<KeptOrder>,
    pub condition: Condition,
}

impl Listed {
    /// `service/environment/name`: where a list goes on.
    pub fn cursor(&self) -> String {
        format!("{}/{}/{}", self.place.service, self.place.environment, self.name)
    }
}

impl Filter {
    /// What the keys begin with of all that can be meant.
    fn prefix(&self) -> String {
        match (&self.service, &self.environment) {
            (Some(service), Some(environment)) => keys::agents_of(&Place {
                service: service.clone(),
                environment: environment.clone(),
            }),
            (Some(service), None) => format!("{}{service}/", keys::AGENTS),
            (None, _) => keys::AGENTS.to_owned(),
        }
    }

    fn takes(&self, listed: &Listed) -> bool {
        let fits = |wanted: &Option<String>, it: &String| wanted.as_ref().is_none_or(|x| x == it);
        fits(&self.service, &listed.place.service)
            && fits(&self.environment, &listed.place.environment)
            && self.condition.is_none_or(|it| it == listed.condition)
    }
}

impl Fleet {
    /// Agents in the order of their places and names, behind a cursor, but those that cannot be read.
    pub async fn list_agents(
        &self,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, FleetError> {
        let prefix = filter.prefix();
        let mut after = after.map(|it| format!("{}{it}", keys::AGENTS));
        let (mut all, now) = (Vec::new(), self.now());
        let mut orders = Orders::default();
        loop {
            let records = &self.store.records;
            let page = records.list(&prefix, after.as_deref(), false, MAX_PAGE).await?;
            for record in &page {
                let Some((place, name)) = keys::read_agent(&record.key) else { continue };
                let read = self.store.readable(decode::<KeptAgent>(record))?;
                let Some(agent) = read else { continue };
                let order = orders.get(self, &place, name).await?;
                let condition = Condition::of(&agent, order.as_ref(), now);
                let listed = Listed { place, name: name.to_owned(), agent, order, condition };
                if filter.takes(&listed) {
                    all.push(listed);
                }
                if all.len() >= limit {
                    return Ok(all);
                }
            }
            after = page.last().map(|it| it.key.clone());
            if page.len() < MAX_PAGE || after.is_none() {
                return Ok(all);
            }
        }
    }

    pub async fn show_agent(&self, place: &Place, name: &str) -> Result<Listed, FleetError> {
        let unknown = || FleetError::Unknown { place: place.clone(), name: name.to_owned() };
        check_agent(place, name)?;
        let found = self.store.get::<KeptAgent>(&keys::agent(place, name)).await?;
        let (agent, _) = found.ok_or_else(unknown)?;
        let order = self.order_of(place, name).await?;
        let condition = Condition::of(&agent, order.as_ref(), self.now());
        Ok(Listed { place: place.clone(), name: name.to_owned(), agent, order, condition })
    }

    /// How many agents are in each condition.
    pub async fn conditions(&self) -> Result<BTreeMap<Condition, u64>, FleetError> {
        let all = self.list_agents(&Filter::default(), None, MAX_AGENTS as usize).await?;
        let mut counts: BTreeMap<_, _> = Condition::ALL.iter().map(|(it, _)| (*it, 0)).collect();
        for one in &all {
            *counts.entry(one.condition).or_default() += 1;
        }
        Ok(counts)
    }

    /// Unix milliseconds of the clock that agents are held against.
    pub fn time(&self) -> Millis {
        self.now()
    }
}

/// The orders of one place after the other, each place read at once.
#[derive(Default)]
struct Orders {
    place: Option<Place>,
    orders: HashMap<String, KeptOrder>,
}

impl Orders {
    async fn get(
        &mut self,
        fleet: &Fleet,
        place: &Place,
        name: &str,
    ) -> Result<Option<KeptOrder>, FleetError> {
        if self.place.as_ref() != Some(place) {
            let orders = fleet.store.below::<KeptOrder>(&keys::orders_of(place)).await?;
            self.orders = orders.into_iter().collect();
            self.place = Some(place.clone());
        }
        Ok(self.orders.get(name).cloned())
    }
}
